"""Axes of lanes: which axis of which argument, result or State is mapped, and how many lanes that makes.

What the user says, a prefix of a pytree or a mapping from axes to States, becomes one axis per leaf or per
State.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import jax

from stategraph import _jax
from stategraph.backends.vmap import Called, Caller
from stategraph.errors import StateTypeError, TraceError, describe
from stategraph.graph.node import Node
from stategraph.graph.walk import path_text, walk
from stategraph.state import State
from stategraph.tracing.roots import find_names, function_roots, known_as, nameless_models
from stategraph.util.filter import to_predicate


@attrs.frozen(eq=False)
class NewStates:
    """What is said of the States that lanes create and a Node keeps."""

    tag: str | None = None
    exclude: Any = None
    """A filter: those that are no lanes afterwards, but have the value that the first lane gave them."""

    def __attrs_post_init__(self) -> None:
        if self.tag is not None and not isinstance(self.tag, str):
            raise TypeError(f"state_tag is {self.tag!r}; give a str")
        to_predicate(self.exclude)

    def excluded(self, path: str, state: State[Any]) -> bool:
        return bool(to_predicate(self.exclude)(tuple(path.split(".")), state))


@attrs.frozen(eq=False)
class Lanes:
    """What is mapped, as the user said it."""

    in_axes: Any
    out_axes: Any
    axis_name: str | None
    axis_size: int | None
    in_states: Any
    out_states: Any
    isolated: bool
    new: NewStates | None = None
    """None for a plain ``vmap``."""
    batches: bool = False
    """Whether the lanes are the slices of a batch of ``map``."""
    spmd_axis_name: str | tuple[str, ...] | None = None
    """The axes of a mesh that the lanes lie along, where the function says how what it computes is sharded."""
    caller: Caller = attrs.Factory(Caller)
    target: Any = None
    """The model, where the function is none that the user wrote."""
    models: Mapping[int, tuple[str, ...]] = attrs.Factory(dict)
    """Under which names the caller knows the models that the function is bound to, by id."""
    nameless: Mapping[str, str] = attrs.Factory(dict)
    """The names among these that are none of the caller's, with the class of what they stand for."""

    def called_by(self, function: Callable[..., Any]) -> Lanes:
        """With what the caller's variables say of the models of ``function``."""
        models = nameless_models(function) if self.target is None else [self.target]
        if not models:
            return self
        names = known_as(models, *_jax.user_variables())
        nameless: dict[str, str] = {}
        for model in models:
            if id(model) not in names:
                name = f"model{len(nameless) + 1}" if nameless else "model"
                names[id(model)], nameless[name] = (name,), type(model).__name__
        return attrs.evolve(self, models=names, nameless=nameless)

    def called(
        self,
        function: Callable[..., Any],
        states: Mapping[Any, State[Any]],
        names: Mapping[int, str] | None = None,
    ) -> Called:
        """How the caller knows these States of ``function``; ``names`` are those without the models' own."""
        if self.target is not None:
            names, _ = find_names(_nothing, {".".join(path): self.target for path in self.models.values()})
        elif names is None or (states and self.models):
            names, _ = find_names(function, models=self.models)
        found = {key: names[id(state)] for key, state in states.items() if id(state) in names}
        return Called(found, self.nameless, self.caller, self.batches)


def _nothing() -> None:
    """A function from which nothing can be reached."""


# -------------------------------------------------------------------------------------- arguments and results


def argument_axes(
    in_axes: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], Any, list[int | None]]:
    """(leaves of the arguments, their structure, the axis of each); keyword arguments have axis 0."""
    leaves, tree = jax.tree.flatten((tuple(args), dict(kwargs)))
    if isinstance(in_axes, list):
        in_axes = tuple(in_axes)
    if isinstance(in_axes, tuple) and len(in_axes) != len(args):
        raise TypeError(
            f"in_axes has {len(in_axes)} entries, and the function was given {len(args)} positional arguments"
        )
    positional: Any = jax.tree.structure(tuple(args))
    axes = [*_prefix("in_axes", positional, in_axes), *[0] * (len(leaves) - positional.num_leaves)]
    return (
        leaves,
        tree,
        [_inside("in_axes", axis, _jax.typeof(leaf)) for leaf, axis in zip(leaves, axes, strict=True)],
    )


def result_axes(out_axes: Any, tree: Any, ranks: Sequence[int]) -> list[int | None]:
    """The axis of each leaf of the results along which lanes are stacked; ``ranks`` are those of one lane."""
    axes = _prefix("out_axes", tree, out_axes)
    found: list[int | None] = []
    for axis, rank in zip(axes, ranks, strict=True):
        if axis is not None and not -rank - 1 <= axis <= rank:
            raise ValueError(f"out_axes says axis {axis}, but the stacked result has {rank + 1} axes")
        found.append(axis if axis is None else axis % (rank + 1))
    return found


def _prefix(what: str, tree: Any, axes: Any) -> list[int | None]:
    try:
        found = _jax.prefix_axes(what, tree, axes)
    except ValueError:
        raise ValueError(f"{what}={axes!r} is no prefix of the structure that it is for, {tree}") from None
    for axis in found:
        if axis is not None and (not isinstance(axis, int) or isinstance(axis, bool)):
            raise TypeError(f"{what} holds {axis!r}; an axis is an int or None")
    return found


def _inside(what: str, axis: int | None, aval: Any) -> int | None:
    if axis is None:
        return None
    rank = len(aval.shape)
    if not -rank <= axis < rank:
        raise ValueError(
            f"{what} says axis {axis} of a value of type {_jax.type_of(aval)}; "
            "give None for what every lane gets whole"
        )
    return axis % rank


def lane_count(
    spec: Lanes, leaves: Sequence[Any], axes: Sequence[int | None], states: Sequence[Chosen]
) -> int:
    """How many lanes there are; everything that is mapped has to agree."""
    sizes: dict[int, str] = {} if spec.axis_size is None else {int(spec.axis_size): "axis_size"}
    for leaf, axis in zip(leaves, axes, strict=True):
        if axis is not None:
            aval = _jax.typeof(leaf)
            sizes.setdefault(aval.shape[axis], f"an argument of type {_jax.type_of(aval)}, axis {axis}")
    named = [chosen for chosen in states if chosen.named or not sizes]
    for chosen in named:
        for leaf in chosen.state._peek():
            if -len(leaf.shape) <= chosen.axis < len(leaf.shape):
                sizes.setdefault(leaf.shape[chosen.axis], f"{chosen.state._describe()}, axis {chosen.axis}")
    if not sizes:
        raise ValueError(
            f"{spec.caller.name} does not know how many lanes there are: nothing is mapped; give axis_size="
        )
    if len(sizes) > 1:
        found = "; ".join(f"{size} ({what})" for size, what in sizes.items())
        raise ValueError(f"{spec.caller.name} is given different numbers of lanes: {found}")
    return next(iter(sizes))


# ----------------------------------------------------------------------------------------------------- States


@attrs.frozen(eq=False)
class Chosen:
    """A State that is mapped."""

    state: State[Any]
    axis: int
    named: bool
    """Whether the user named it; a filter only selects it."""


Selection = list[tuple[int, Any]]
"""(axis, what is meant there): a list of States or a predicate."""


def selection(what: str, wanted: Any) -> Selection:
    """States by axis: from a State, a list or mapping of States, a filter, or a mapping of axes to these."""
    if wanted is None or wanted is False:
        return []
    if isinstance(wanted, Mapping) and all(isinstance(key, int) for key in wanted):
        return [(axis, _meant(what, those)) for axis, those in wanted.items()]
    return [(0, _meant(what, wanted))]


def _meant(what: str, those: Any) -> Any:
    if isinstance(those, State):
        return [those]
    if isinstance(those, Mapping):
        those = list(those.values())
        for item in those:
            if not isinstance(item, State):
                raise TypeError(
                    f"{what} holds a {type(item).__name__}; give States, filters, or {{axis: those}}"
                )
        return those
    if isinstance(those, (list, tuple)) and all(isinstance(item, State) for item in those):
        return list(those)
    return to_predicate(those)


def mapped_states(wanted: Selection, function: Callable[..., Any]) -> list[Chosen]:
    """The States that are mapped; filters look at all States that the function can reach."""
    found: dict[int, Chosen] = {}
    reachable: dict[str, State[Any]] | None = None
    for axis, those in wanted:
        if isinstance(those, list):
            for state in those:
                found[id(state)] = Chosen(state, axis, True)
            continue
        reachable = reachable_states(function) if reachable is None else reachable
        for path, state in reachable.items():
            if id(state) not in found and those(tuple(path.split(".")), state):
                found[id(state)] = Chosen(state, axis, False)
    return list(found.values())


def kept_axis(wanted: Selection, path: str, state: State[Any]) -> int | None:
    """The axis along which what lanes write to ``state`` is kept, None if nothing is said."""
    for axis, those in wanted:
        if (
            any(state is other for other in those)
            if isinstance(those, list)
            else those(tuple(path.split(".")), state)
        ):
            return axis
    return None


def reachable_states(function: Callable[..., Any]) -> dict[str, State[Any]]:
    """Every State that a function can reach by name, by path."""
    roots = [
        root for root in function_roots(function) if isinstance(root[1], (Node, State, list, tuple, dict))
    ]
    roots.sort(key=lambda root: not isinstance(root[1], (Node, State)))
    found: dict[int, tuple[str, State[Any]]] = {}
    for prefix, root in roots:
        for path, obj in walk(root, prefix):
            if isinstance(obj, State):
                found.setdefault(id(obj), (path_text(path), obj))
    return dict(found.values())


def lane_of(chosen: Chosen, aval: Any, size: int, caller: Caller) -> Any:
    """The type that one lane sees; raises for a State without that axis, or of another size."""
    shape = list(aval.shape)
    if not -len(shape) <= chosen.axis < len(shape) or shape[chosen.axis] != size:
        raise StateTypeError(
            describe(
                f"{chosen.state._describe()} is {_jax.type_of(aval)}, "
                f"and has no axis {chosen.axis} of size {size} for the lanes of {caller.name}.",
                created=chosen.state.source_location,
                at=_jax.line_in_charge(),
                why=f"{caller.taken} says that every lane gets its own slice of it",
                fix=f"create it with an axis of size {size}, or leave it out of {caller.taken} to share it",
            )
        )
    del shape[chosen.axis]
    return _jax.resized_aval(aval, shape)


def stacked(aval: Any, axis: int, size: int, what: Callable[[], str]) -> Any:
    """``size`` of these along ``axis``."""
    shape = list(aval.shape)
    if not -len(shape) - 1 <= axis <= len(shape):
        raise TraceError(
            describe(
                f"out_states says axis {axis} of {what()}, whose lanes are {_jax.type_of(aval)}.",
                fix="give an axis that the stacked value has",
            )
        )
    shape.insert(axis + len(shape) + 1 if axis < 0 else axis, size)
    return _jax.resized_aval(aval, shape)


# ---------------------------------------------------------------------------------------- States with lanes

LANES = "lanes"
"""The key in a State's metadata for the numbers of lanes along its first axes, outermost first."""


class _Inside(threading.local):
    def __init__(self) -> None:
        self.states: Counter[int] = Counter()


_INSIDE = _Inside()


@contextlib.contextmanager
def inside_lanes(states: Iterable[State[Any]]) -> Iterator[None]:
    """While the function of one lane runs: these States are seen without their first axis."""
    entered = Counter(map(id, states))
    _INSIDE.states.update(entered)
    try:
        yield
    finally:
        _INSIDE.states.subtract(entered)


def lanes_of(state: State[Any]) -> tuple[int, ...]:
    """The numbers of lanes along the first axes that a State has here, outermost first: what
    ``vmap_new_states`` gave it, without the lanes that this code runs in.
    """
    found: tuple[int, ...] = state.metadata.get(LANES, ())
    return found[_INSIDE.states[id(state)] :]


def has_lanes(path: Any, state: Any) -> bool:
    """A filter: the States that have lanes."""
    return isinstance(state, State) and bool(lanes_of(state))


def gain_lanes(state: State[Any], size: int, new: NewStates) -> None:
    """Note that a State which lanes created has them along its first axis."""
    state.metadata[LANES] = (size, *state.metadata.get(LANES, ()))
    if new.tag is not None:
        state.add_tag(new.tag)
