"""Optimizer: an optax transformation and the State it needs, for the trainable States of a model.

    grads ──update──▶ tx.update(grads, optimizer.state, params) ──▶ params, optimizer.state, optimizer.step

Everything that changes is State, so an update can be traced, compiled, put in a loop, listed and saved like
the model itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp

from stategraph import _extras, _jax
from stategraph.errors import StateTypeError, TraceError, describe
from stategraph.graph.node import Node
from stategraph.graph.walk import path_text, states
from stategraph.recording import render
from stategraph.state import LongTermState, ParamState, State
from stategraph.typing import Filter
from stategraph.util.mapping import NestedDict
from stategraph.util.treefy import TreefyState


def load_optax() -> Any:
    """The optax package."""
    return _extras.load("optax", "optim", "stategraph.optim")


class OptimState(LongTermState[Any]):
    """What an optimiser remembers, such as momentum or how many updates there were."""

    __slots__ = ()


class Optimizer(Node):
    """An optax transformation with its State, for some States.

    Args:
      model: the model whose States are trained, or States as ``register_trainable_weights`` takes them; None
        to say so later.
      tx: an ``optax.GradientTransformation``, learning rate included.
      wrt: which States of the model; a filter.

    Attributes:
      params: the States that are trained, by name.
      state: what ``tx`` remembers; made when the States are known.
      step: how many updates there were, i32[].

    Example:

    >>> import optax
    >>> import stategraph as sg
    >>> w = sg.ParamState(3.0)
    >>> optimizer = sg.optim.Optimizer(w, optax.sgd(0.1))
    >>> optimizer.update(sg.augment.grad(lambda: w.value**2, w)())
    >>> round(float(w.value), 3), int(optimizer.step.value)
    (2.4, 1)
    """

    _refers_to_states = True  # of models, which say better what they are called

    def __init__(self, model: Any = None, tx: Any = None, *, wrt: Filter = ParamState) -> None:
        if tx is None or not (callable(getattr(tx, "init", None)) and callable(getattr(tx, "update", None))):
            raise TypeError(
                f"tx is an optax.GradientTransformation such as optax.adam(1e-3), not a {type(tx).__name__}"
            )
        self.tx = tx
        self._prepare(model, wrt)

    def _prepare(self, model: Any, wrt: Filter) -> None:
        self.wrt = wrt
        self.params: dict[str, State[Any]] = {}
        self.state: OptimState | None = None
        self.step = OptimState(0)
        self._single = False
        if model is not None:
            self.register_trainable_weights(model)

    # ------------------------------------------------------------------------------------ what subclasses say

    def transformation(self, rate: Any) -> Any:
        """The optax transformation, for a learning rate f32[] of now."""
        return self.tx

    def rate(self) -> Any:
        """The learning rate of the next update; None where only ``tx`` knows it."""
        return None

    # ------------------------------------------------------------------------------------- what it is told of

    def register_trainable_weights(self, weights: Any) -> Self:
        """Say which States are trained. Again for more of them: what is remembered of the others stays.

        Args:
          weights: a mapping of States, as ``model.states(ParamState)`` gives it; a list or tuple of them; one
            State; or a model, whose States that match ``wrt`` are meant.

        Returns:
          The optimiser.

        Raises:
          TypeError: for something else.
          ValueError: when there is none, or a name or State is there already.
        """
        found, single = self._named(weights)
        if not found:
            raise ValueError("there is no State to train; pass model.states(stategraph.ParamState)")
        known = {id(state): name for name, state in self.params.items()}
        for name, state in found.items():
            if id(state) in known or name in self.params:
                raise ValueError(
                    describe(
                        f"{name!r} is trained by this optimiser already.",
                        state=state._describe(),
                        created=state.source_location,
                        at=_jax.here(),
                        fix="register each State once, and States of several models under different names, "
                        "for example as {('a', *path): state, …}",
                    )
                )
            known[id(state)] = name
        self._single = single and not self.params
        self.params = {**self.params, **found}
        values = {name: state.value for name, state in self.params.items()}
        fresh = self.transformation(self.rate()).init(values)
        self.state = OptimState(fresh if self.state is None else _with_old(fresh, self.state.value))
        return self

    def _named(self, weights: Any) -> tuple[dict[str, State[Any]], bool]:
        """(States by name, whether it was a single one)."""
        if isinstance(weights, State):
            return {weights.name or "value": weights}, True
        if isinstance(weights, Node):
            weights = states(weights, self.wrt)
        if isinstance(weights, NestedDict):
            weights = weights.to_flat()
        items = weights.items() if isinstance(weights, Mapping) else enumerate(weights)
        found = {}
        for key, state in items:
            if not isinstance(state, State):
                raise TypeError(
                    f"weights are States, and {_name(key)!r} is a {type(state).__name__}; "
                    "pass model.states(stategraph.ParamState)"
                )
            found[_name(key)] = state
        return found, False

    # ------------------------------------------------------------------------------------------------- update

    def update(self, grads: Any, **extra: Any) -> None:
        """Change the trained States once.

        Args:
          grads: gradients, as ``stategraph.augment.grad`` of the same States gives them: by path, as a list,
            or one.
          **extra: what the transformation wants to know besides, such as ``value=loss``.

        Raises:
          ValueError: when gradients are missing or superfluous, naming their paths.
          StateTypeError: when a gradient has another structure or shape than its State.
        """
        if self.state is None:
            raise TraceError(
                describe(
                    f"{type(self).__name__} does not know what to train.",
                    at=_jax.here(),
                    fix="optimizer.register_trainable_weights(model.states(stategraph.ParamState))",
                )
            )
        optax = load_optax()
        given = self._matched(grads)
        values = {name: state.value for name, state in self.params.items()}
        old = self.state.value
        tx = optax.with_extra_args_support(self.transformation(self.rate()))
        updates, new = tx.update(given, old, values, **extra)
        for name, value in optax.apply_updates(values, updates).items():
            self.params[name].value = value
        # a rate of higher precision than the parameters must not change the type of what is remembered
        self.state.value = jax.tree.map(lambda leaf, was: jnp.asarray(leaf, _jax.typeof(was).dtype), new, old)
        self.step.value += 1

    def _matched(self, grads: Any) -> dict[str, Any]:
        """Gradients by the names of ``params``."""
        if self._single and len(self.params) == 1:
            (name,) = self.params
            found = {name: grads}
        elif isinstance(grads, Mapping):
            flat = grads.to_flat() if isinstance(grads, NestedDict) else grads
            found = {_name(key): grad for key, grad in flat.items()}
            if found.keys() != self.params.keys():
                # `grad(f, ...)` names States from the variable of the function that leads to the model
                shorter = {name.partition(".")[2]: grad for name, grad in found.items()}
                found = shorter if shorter.keys() == self.params.keys() else found
        elif isinstance(grads, (list, tuple)):
            found = {str(i): grad for i, grad in enumerate(grads)}
            if len(grads) == len(self.params):
                found = dict(zip(self.params, grads, strict=True))
        else:
            raise TypeError(
                f"gradients come by path, as augment.grad(f, states) gives them, not as a {type(grads).__name__}"
            )
        self._check_names(found)
        return {name: _checked(name, found[name], state) for name, state in self.params.items()}

    def _check_names(self, found: Mapping[str, Any]) -> None:
        missing = [name for name in self.params if name not in found]
        extra = [name for name in found if name not in self.params]
        if not missing and not extra:
            return
        parts = [f"missing: {_some(missing)}"] if missing else []
        parts += [f"not trained here: {_some(extra)}"] if extra else []
        raise ValueError(
            describe(
                f"The gradients do not fit the {len(self.params)} trained States.",
                at=_jax.here(),
                why="; ".join(parts),
                fix="differentiate with respect to what was registered: "
                "states = model.states(stategraph.ParamState), for grad and optimiser alike",
            )
        )


def _name(key: Any) -> str:
    return path_text(key) if isinstance(key, tuple) else str(key)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f", … ({len(names)} in all)" if len(names) > 5 else "")


def _checked(name: str, grad: Any, state: State[Any]) -> Any:
    """A gradient, if it has the structure and shape of its State."""
    grad = grad.value if isinstance(grad, TreefyState) else grad
    leaves, tree = jax.tree.flatten(grad)
    shapes = [tuple(jnp.shape(leaf)) for leaf in leaves]
    expected = state._peek()
    single = jax.tree.structure(0)
    if tree == (single if state._tree is None else state._tree) and shapes == [
        tuple(leaf.shape) for leaf in expected
    ]:
        return grad
    have = render(tree, [jax.core.ShapedArray(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves])
    want = render(state._tree, [jax.core.ShapedArray(leaf.shape, leaf.dtype) for leaf in expected])
    raise StateTypeError(
        describe(
            f"The gradient for {name!r} is {have}, and the State {want}.",
            state=state._describe(),
            created=state.source_location,
            at=_jax.here(),
            fix="pass the gradients as augment.grad gives them",
        )
    )


def _with_old(fresh: Any, old: Any) -> Any:
    """``fresh`` with the leaves of ``old`` where both have one of that path."""
    known = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(old)[0]}
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: known.get(jax.tree_util.keystr(path), leaf), fresh
    )
