"""Products with the Jacobian of a function over State, as ops of a program.

Everything that forward or reverse mode computes is a linear map applied to *seeds*: tangents of the inputs,
or cotangents of the outputs. A ``Recording`` is one run of a function inside a trace, to be followed by one
``xform.jvp`` or ``xform.vjp`` op; ``eager.EagerProduct`` has the same attributes where there is no program.
Several seeds at once stand along a leading axis, the *lanes*.

Inputs are the leaves of the differentiated arguments, then those of the States; outputs are the leaves of the
function's value. Only those whose type has a tangent (not integers) have seeds and results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import _jax
from stategraph.augment.grad import state_tokens
from stategraph.augment.primitive import misplaced, transformation
from stategraph.augment.wanted import Wanted, combine
from stategraph.recording import Body, Recorder, Token, state_read_p

Part = Callable[[Any], tuple[Any, Any]]
"""Takes what the differentiated function returns apart: (value, aux)."""


class Product(Protocol):
    """One run of the differentiated function, and its linear map."""

    inputs: list[Any]
    outputs: list[Any]
    value: Any
    aux: Any
    value_tree: Any
    arg_tree: Any
    state_trees: list[Any]
    arrange_states: Callable[[list[Any]], Any]

    def linear(self, seeds: Sequence[Any], lanes: int | None = None) -> list[Any]: ...


_WHAT = ("A derivative of stategraph.augment", "the derivative of a function over State")


def _batched_pullback(args: Sequence[Any], dims: Sequence[Any], **params: Any) -> Any:
    """``jax.vmap`` of a pullback: its cotangents get lanes. Nothing else of it may be batched."""
    first = params["num_held"] + params["num_consts"]
    last = first + params["num_seeds"]
    batched = [i for i, dim in enumerate(dims) if isinstance(dim, int)]
    stateful = not params["local"] and _jax.equations_of(
        params["jaxpr"], ("state_read", "state_write", "state_alloc")
    )
    if stateful or params["lanes"] is not None or any(not first <= i < last for i in batched):
        misplaced(*_WHAT)()
    lanes = args[batched[0]].shape[dims[batched[0]]]
    operands = list(args)
    for i in range(first, last):
        operands[i] = (
            jnp.moveaxis(args[i], dims[i], 0)
            if i in batched
            else jnp.broadcast_to(args[i], (lanes, *args[i].shape))
        )
    kept = params["num_values"]
    avals = params["out_avals"]
    moved = [_jax.array_aval((lanes, *aval.shape), aval.dtype) for aval in avals[kept:]]
    results = vjp_p.bind(*operands, **{**params, "lanes": lanes, "out_avals": (*avals[:kept], *moved)})
    return results, [None] * kept + [0] * len(moved)


jvp_p = transformation("stategraph_jvp", *_WHAT)
vjp_p = transformation("stategraph_vjp", *_WHAT, on_batch=_batched_pullback)


class Recording:
    """One run of the function inside a trace. ``linear`` (once) or ``call`` makes it part of the program."""

    def __init__(
        self,
        recorder: Recorder,
        function: Callable[..., Any],
        wanted: Wanted,
        positions: Sequence[int],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        part: Part,
        mode: str,
    ) -> None:
        self.recorder = recorder
        self.mode = mode
        self.name = getattr(function, "__name__", type(function).__name__).strip("<>")
        self.leaves, self.arg_tree = jax.tree.flatten([args[p] for p in positions])
        kept: dict[str, Any] = {}

        def run(*flat: Any) -> list[Any]:
            given = list(args)
            for position, value in zip(positions, jax.tree.unflatten(self.arg_tree, flat), strict=True):
                given[position] = value
            value, aux = part(function(*given, **kwargs))
            values, kept["value"] = jax.tree.flatten(value)
            rest, kept["aux"] = jax.tree.flatten(aux)
            kept["count"] = len(values)
            return [*values, *rest]

        self.arg_avals = [_jax.typeof(leaf) for leaf in self.leaves]
        before = list(zip(recorder.avals, recorder.trees, strict=True))
        jaxpr, self.consts = _jax.trace_flat(
            run, self.arg_avals, traced_for=f"stategraph {mode}", name=self.name
        )
        self.body = _jax.close_over(jaxpr)
        self.results = [var.aval for var in jaxpr.outvars]
        self.outputs = self.results[: kept["count"]]
        self.value_tree, self.aux_tree = kept["value"], kept["aux"]
        self.tokens, self.arrange_states = state_tokens(recorder, function, wanted, self.body)
        self._before = before
        entry = [self.entry(token) for token in self.tokens]
        self.inputs = [*self.arg_avals, *(aval for avals, _ in entry for aval in avals)]
        self.state_trees = [tree if tree is not None else jax.tree.structure(0) for _, tree in entry]
        self.value: Any = None
        self.aux: Any = None

    def entry(self, token: Token) -> tuple[Sequence[Any], Any]:
        """The types and structure of a State just before the function ran."""
        return self._before[token] if token < len(self._before) else self.recorder.entry[token] or ((), None)

    def linear(self, seeds: Sequence[Any], lanes: int | None = None) -> list[Any]:
        """The function's results become values of the program, and what the seeds become is returned."""
        moved = self.outputs if self.mode == "jvp" else self.inputs
        primitive = jvp_p if self.mode == "jvp" else vjp_p
        results = primitive.bind(
            *self.consts,
            *seeds,
            *self.leaves,
            **self._params(seeds, lanes),
            tokens=tuple(self.tokens),
            num_held=0,
            local=(),
            depth=None,
            out_avals=(*self.results, *_seed_avals(moved, lanes)),
        )
        self._keep(results)
        return list(results[len(self.results) :])

    def _params(self, seeds: Sequence[Any], lanes: int | None) -> dict[str, Any]:
        return {
            "jaxpr": self.body,
            "num_consts": len(self.consts),
            "num_seeds": len(seeds),
            "num_values": len(self.results),
            "outputs": len(self.outputs),
            "lanes": lanes,
        }

    def _keep(self, results: Sequence[Any]) -> None:
        count = len(self.outputs)
        self.value = jax.tree.unflatten(self.value_tree, results[:count])
        self.aux = jax.tree.unflatten(self.aux_tree, results[count : len(self.results)])

    def call(self) -> Callable[[Sequence[Any]], list[Any]]:
        """Run the function now; the result is its pullback, which may be called any number of times, anywhere
        in the trace.

        Each call is an ``xform.vjp`` op that runs the function again, on copies of the States as they are
        now; it changes none.
        """
        touched = self._touched()
        depth = self._here(touched[0]).depth if touched else None
        entries = {token: (self.entry(token), self._read(token)) for token in touched}
        operands = [*self.consts, *self.leaves]
        primitive, params = _jax.jit_call(self.body, self.name, len(operands), len(self.results))
        self._keep(primitive.bind(*operands, **params))
        held: list[Any] = []
        given: list[Any] = []
        slots: dict[Token, list[tuple[bool, int]]] = {}
        for token in [*self.tokens, *(token for token in entries if token not in self.tokens)]:
            target = given if token in self.tokens else held
            start = len(target)
            target += entries[token][1]
            slots[token] = [(target is given, i) for i in range(start, len(target))]
        first = len(held) + len(self.leaves)
        local = tuple(
            (token, entries[token][0][1], tuple(first + i if is_given else i for is_given, i in slots[token]))
            for token in slots
        )

        def pullback(cotangents: Sequence[Any]) -> list[Any]:
            results = vjp_p.bind(
                *held,
                *self.consts,
                *cotangents,
                *self.leaves,
                *given,
                **self._params(cotangents, None),
                tokens=(),
                num_held=len(held),
                local=local,
                depth=depth,
                out_avals=(*self.results, *_seed_avals(self.inputs, None)),
            )
            return list(results[len(self.results) :])

        return pullback

    def _touched(self) -> list[Token]:
        """The States that the function uses and did not create."""
        born = {eqn.params["token"] for eqn in _jax.equations_of(self.body, ("state_alloc",))}
        found = dict.fromkeys(
            eqn.params["token"] for eqn in _jax.equations_of(self.body, ("state_read", "state_write"))
        )
        return [token for token in found if token not in born]

    def _here(self, token: Token) -> Body:
        return self.recorder.body_here("read", self.recorder.owners[token])

    def _read(self, token: Token) -> list[Any]:
        avals, _ = self.entry(token)
        here = self._here(token)
        leaves: list[Any] = state_read_p.bind(token=token, at=here.next("read", token), avals=tuple(avals))
        return leaves


def _seed_avals(avals: Sequence[Any], lanes: int | None) -> list[Any]:
    """The types of tangents or gradients of values of these types."""
    found = [_jax.gradient_aval(aval) for aval in avals if _jax.has_tangent(aval)]
    return found if lanes is None else [_jax.array_aval((lanes, *aval.shape), aval.dtype) for aval in found]


# -------------------------------------------------------------------------------------------------- structure


def active(avals: Sequence[Any]) -> list[Any]:
    """Those of the types that have a tangent."""
    return [aval for aval in avals if _jax.has_tangent(aval)]


def arranged(product: Product, wanted: Wanted, moved: Sequence[Any], shape: Sequence[int] = ()) -> Any:
    """What belongs to the inputs, in the structure that was asked for; ``moved`` has no entries for inputs
    without a tangent.
    """
    given = iter(moved)
    flat = [
        next(given) if _jax.has_tangent(aval) else np.zeros((*shape, *aval.shape), jax.dtypes.float0)
        for aval in product.inputs
    ]
    count = product.arg_tree.num_leaves
    args: Any = jax.tree.unflatten(product.arg_tree, flat[:count])
    if isinstance(wanted.argnums, int):
        (args,) = args
    elif wanted.argnums is not None:
        args = tuple(args)
    states: list[Any] = []
    for tree in product.state_trees:
        states.append(jax.tree.unflatten(tree, flat[count : count + tree.num_leaves]))
        count += tree.num_leaves
    return combine(wanted, product.arrange_states(states) if wanted.states is not None else None, args)


def basis(avals: Sequence[Any]) -> tuple[list[Any], int, list[int]]:
    """Unit seeds for values of these types: one lane per element. (the seeds, the number of lanes, where each
    value begins).
    """
    sizes = [math.prod(aval.shape) for aval in avals]
    lanes = sum(sizes)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    seeds = [
        jnp.eye(lanes, size, -start, dtype=aval.dtype).reshape(lanes, *aval.shape)
        for aval, size, start in zip(avals, sizes, starts, strict=True)
    ]
    return seeds, lanes, starts
