"""Expanding vmap: JAX's own batching on the pure body.

The body of an ``xform.vmap`` becomes a jaxpr, ``jax.vmap`` batches it, and the result is imported as ops.
JAX says which results depend on the lane; a State that lanes leave different, and for which nobody said
where its lanes are kept, is an error here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import jax

from stategraph import _jax
from stategraph.backends.emit import emit_region
from stategraph.backends.shards import created
from stategraph.errors import BatchAxisError, LoweringError, describe
from stategraph.ir.core import Op
from stategraph.ir.lanes import lane_names
from stategraph.ir.location import Location
from stategraph.passes.expand_transforms import (
    EXPANDERS,
    FUNCTIONS,
    SURROUNDINGS,
    Expansion,
    Transformed,
)


@attrs.frozen(eq=False)
class Caller:
    """What the user called to make lanes, and how its arguments are spelled, for errors."""

    name: str = "augment.vmap"
    taken: str = "in_states"
    """The argument that names the States which lanes take apart."""
    kept: str | None = "out_states"
    """The argument that names the States which keep what lanes write."""
    forgets: bool = True
    """Whether there is an argument ``isolated``."""


@attrs.frozen(eq=False)
class Called:
    """How the caller of a ``vmap`` knows the States of the function, for errors. It holds no objects: programs
    outlive models.
    """

    names: Mapping[Any, str] = attrs.Factory(dict)
    """What reads as the State where the ``vmap`` was made, by token, later by symbol."""
    nameless: Mapping[str, str] = attrs.Factory(dict)
    """What such names begin with where no variable holds the model: what is put there, and its class."""
    caller: Caller = attrs.Factory(Caller)
    batches: bool = False
    """Whether the lanes are the slices of a batch of ``augment.map``."""

    def renamed(self, symbols: Mapping[Any, str]) -> Called:
        """By symbol instead of token."""
        names = {symbols[token]: name for token, name in self.names.items() if token in symbols}
        return attrs.evolve(self, names=names)


def expand_vmap(op: Op, again: bool) -> Expansion:
    """The ops that compute the body on all lanes; ``again`` says that they will be transformed themselves."""
    from stategraph.tracing.importer import import_inline

    function, operands = vmap_function(op, again)
    avals = [_jax.aval_of(value.type) for value in operands]
    jaxpr, consts = _jax.trace_flat(function, avals, traced_for="stategraph vmap", name="vmap")
    return import_inline(jaxpr, consts, operands, op.location, keep_rules=again)


def vmap_function(op: Op, again: bool = True) -> Transformed:
    """``expand_vmap`` as a function."""
    (region,) = op.regions
    body, captured = emit_region(region, region.args, differentiable=again, name="vmap")
    run = _jax.body_as_function(body)
    count = len(captured)
    in_axes, out_axes = op.attributes["in_axes"], op.attributes["out_axes"]

    def batched(*flat: Any) -> list[Any]:
        try:
            return mapped(lambda *lane: run(*flat[:count], *lane), op, in_axes, out_axes)(*flat[count:])
        except (TypeError, ValueError, NotImplementedError) as error:
            _refuse_differences(op, run, list(map(_jax.typeof, flat)), count)
            raise LoweringError(
                f"the function at {_place(op)} cannot be mapped over lanes: {error}"
            ) from error

    return batched, [*captured, *op.operands]


def mapped(
    function: Callable[..., list[Any]], op: Op, in_axes: Sequence[int | None], out_axes: Sequence[int | None]
) -> Callable[..., list[Any]]:
    """``jax.vmap`` of a function of flat values, with the axis of ``op``; operands may be none."""
    size, named = op.attributes["size"], lane_names(op.attributes)

    def run(*operands: Any) -> list[Any]:
        whole: Any = jax.vmap(
            lambda lane, *rest: function(*rest),
            in_axes=(0, *in_axes),
            out_axes=list(out_axes),
            axis_size=size,
            **named,
        )
        results: list[Any] = whole(jax.numpy.arange(size), *operands)
        return results

    return run


def _refuse_differences(op: Op, run: Callable[..., list[Any]], avals: Sequence[Any], count: int) -> None:
    """Raise the error that names every State which lanes leave different, if that is what went wrong."""
    differs: list[bool] = []

    def probe(*flat: Any) -> list[Any]:
        def lane(*values: Any) -> list[Any]:
            results = run(*flat[:count], *values)
            differs.extend(_jax.depends_on_lane(result) for result in results)
            return []

        return mapped(lane, op, op.attributes["in_axes"], ())(*flat[count:])

    with contextlib.suppress(TypeError, ValueError, NotImplementedError):
        _jax.trace_flat(probe, avals, traced_for="stategraph vmap", name="vmap")
    starts = [*(index for index, _ in op.attributes["shared"]), len(op.results)]
    found = {}
    for (first, symbol), end in zip(op.attributes["shared"], starts[1:], strict=True):
        if any(differs[first:end]):
            found[symbol.path] = created(op, symbol.path)
    if found:
        raise BatchAxisError(undeclared(found, _place(op), op.location.note))
    for index, (axis, different) in enumerate(zip(op.attributes["out_axes"], differs, strict=False)):
        if axis is None and different:
            raise LoweringError(
                describe(
                    f"out_axes says that result {index} of a mapped function is the same in every lane, "
                    "but it depends on the lane.",
                    at=_place(op),
                    fix="say along which axis the lanes are stacked: out_axes=0",
                )
            )


def undeclared(states: Mapping[str, Location], at: Location, called: Called | None) -> str:
    """The message for States that lanes leave different: their names, and where each was created."""
    called = called or Called()
    places = {called.names.get(path, path): place for path, place in states.items()}
    names, lanes, caller = list(places), "slice" if called.batches else "lane", called.caller
    where = [
        f"{stands} is the {kind} that is mapped"
        for stands, kind in called.nameless.items()
        if any(name.split(".")[0] == stands for name in names)
    ]
    where += [
        f"{path} is the State created at {place.file}:{place.line}"
        for path, place in states.items()
        if path not in called.names and place.known
    ]
    explained = f" (where {', '.join(where)})" if where else ""
    keep = f"{caller.kept}={{0: [{', '.join(names)}]}}{explained}"
    if called.batches:
        fix = (
            "run the slices one after another, so that each sees what the ones before it wrote: leave out "
            f"batch_size; or keep a value for each, from one augment.vmap over all of them: {keep}"
        )
    elif caller.kept is None:
        fix = "create it in init_state of the module, which runs once per lane"
    else:
        fix = f"keep them, along axis 0: {keep}{'; or forget them: isolated=True' if caller.forgets else ''}"
    return describe(
        f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} written inside "
        f"{'augment.map(..., batch_size=)' if called.batches else caller.name} "
        f"with a value that depends on the {lanes}.",
        state="; ".join(
            f"{name}, created at {place.file}:{place.line}" if place.known else name
            for name, place in places.items()
        ),
        at=at,
        why="the slices of a batch run at once and share every State, and each has its own value at the end"
        if called.batches
        else "every lane has its own value at the end, and nothing says where these are kept",
        fix=fix,
    )


def _place(op: Op) -> Location:
    """Where lanes are made; where their function begins when no line of the user's says so."""
    return next((inner.location for inner in (op, *op.walk()) if inner.location.known), op.location)


@contextlib.contextmanager
def named_axes_around(op: Op) -> Iterator[None]:
    """Make the named axes of the lanes that ``op`` stands in known to JAX."""
    axes: list[tuple[str, int]] = []
    region = op.parent
    while region is not None and region.parent_op is not None:
        outer = region.parent_op
        if outer.name == "xform.vmap" and outer.attributes["axis_name"] is not None:
            axes.append((outer.attributes["axis_name"], outer.attributes["size"]))
        region = outer.parent
    with _jax.named_axes(axes[::-1]):
        yield


EXPANDERS["xform.vmap"] = expand_vmap
FUNCTIONS["xform.vmap"] = vmap_function
SURROUNDINGS.append(named_axes_around)
