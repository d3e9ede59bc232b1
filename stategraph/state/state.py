"""State: a named place for a value that a program may read and write.

A ``State`` holds one array or a pytree of arrays. Outside of a trace it is an ordinary mutable box. While
StateGraph traces user code, reading and writing ``.value`` is recorded instead (see ``recording``), and
nothing about the State itself changes. Subclasses say what a State is for (``ParamState`` is trained,
``ShortTermState`` is reset ...); they serve as filters and appear as the *kind* in the IR.

Leaves live in *cells*. Compiled programs read and fill cells directly. A cell is *owned* when its array was
produced by a compiled call and has not been handed to the user since: only owned arrays may be donated to the
next call.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

import jax
import numpy as np

from stategraph import _jax, units
from stategraph.eager_writes import is_writable_here, transforms_eagerly
from stategraph.errors import CallError, StateAccessError, StateTypeError, describe, different_on_devices
from stategraph.ir.location import Location
from stategraph.recording import EPOCHS, LOCAL, Recorder, render, same_avals
from stategraph.sharding import placed, portable, restored
from stategraph.state.cells import CHECKS, RUNTIME_LOCK, SPECIAL, Cell, Poisoned, Unborn, flatten, unweaken
from stategraph.state.hosts import from_host, to_host
from stategraph.state.members import Members
from stategraph.state.operators import Operators
from stategraph.state.site import creation_site, location, short

T = TypeVar("T")


class State(Members, Operators, Generic[T]):
    """A mutable value that traced programs may read and write.

    Args:
      value: an array, a Python scalar, or a pytree of these. Scalars and NumPy arrays become JAX arrays; a
        State is never weakly typed (``State(1.)`` holds ``f32[]``).
      name: a name for messages and listings; programs name States by their path in the model.
      tag: one tag or several, for filters.
      **metadata: anything else to remember; kept in ``metadata``. A ``sharding`` (a ``jax.sharding.Sharding``, or
        a prefix of the value's structure with several) says where the value lies: it is put there, and compiled
        programs keep it there. A bare ``PartitionSpec`` only tells ``augment.shard_map`` how to cut it. A ``unit`` (a
        ``saiunit.Unit``) says what the numbers mean: quantities are converted to it, and plain numbers are read.
        ``attributes``, a dict of plain data, is printed with the State's symbol in programs.

    A quantity of saiunit as value is kept as a plain array, its unit as part of the structure (see ``units``).

    Example:

    >>> import stategraph as sg
    >>> count = sg.State(0)
    >>> count.value += 1
    >>> count.value
    Array(1, dtype=int32)
    """

    # No __dict__: a misspelt `state.valu = x` is an error. Subclasses may have attributes of their own.
    __slots__ = ("__weakref__", "_captured", "_cells", "_home", "_source", "_tree", "metadata", "name", "tag")
    __array_ufunc__ = None

    name: str | None
    tag: set[str] | None
    metadata: dict[str, Any]

    def __init__(
        self, value: T, name: str | None = None, *, tag: str | Iterable[str] | None = None, **metadata: Any
    ) -> None:
        if isinstance(value, State):
            value = value.value
        leaves, tree = flatten(value)
        self.name = name
        self.tag = None if tag is None else {tag} if isinstance(tag, str) else set(tag)
        self.metadata = metadata
        self._tree = tree
        self._captured: str | None = None
        self._source = creation_site()
        self._home: Any = None
        recorder = LOCAL.recorder
        if tree is not None and units.DECLARED in metadata:
            leaves, tree = self._in_own_units(leaves, tree, None)
            self._tree = tree
        if recorder is not None:
            self._cells = tuple(Cell(Unborn(leaf)) for leaf in leaves)
            self._home = recorder.number
            recorder.alloc(self, leaves, tree)
            return
        if "sharding" in metadata:
            leaves = placed(leaves, tree, metadata["sharding"])
        self._cells = tuple([Cell(leaf) for leaf in leaves])
        trace = _jax.current_trace()
        if trace is not None:
            self._home = _jax.weak(trace)

    # ---------------------------------------------------------------------------------------------- the value

    @property
    def value(self) -> T:
        """The value. A container is handed out fresh: changing it in place changes nothing; assign
        ``state.value`` instead.
        """
        recorder = LOCAL.recorder
        if recorder is not None:
            return self._traced_read(recorder)  # type: ignore[no-any-return]
        cells = self._cells
        tree = self._tree
        if tree is None:
            cell = cells[0]
            if cell.owned:
                return self._release()[0]  # type: ignore[no-any-return]
            leaf = cell.v
            if type(leaf) in SPECIAL:
                self._refuse(leaf)
            if _jax.current_trace() is not None:
                self._mark_captured()
            return leaf  # type: ignore[no-any-return]
        leaves = self._release()
        for leaf in leaves:
            if type(leaf) in SPECIAL:
                self._refuse(leaf)
        if _jax.current_trace() is not None:
            self._mark_captured()
        return jax.tree.unflatten(tree, leaves)  # type: ignore[no-any-return]

    @value.setter
    def value(self, new: T) -> None:
        if isinstance(new, State):
            raise StateTypeError(
                describe(
                    "A State cannot hold another State.",
                    state=self._describe(),
                    created=self.source_location,
                    at=_jax.here(),
                    fix="assign the value: `a.value = b.value`",
                )
            )
        recorder = LOCAL.recorder
        leaves, tree = flatten(new)
        if recorder is not None:
            self._traced_write(recorder, leaves, tree)
            return
        if _jax.current_trace() is not None:
            if _jax.runs_shards_eagerly() and id(self) not in LOCAL.shards and not self._is_at_home():
                leaves = [self._same_on_all_devices(leaf) for leaf in leaves]
            else:
                self._check_foreign_write()
        if self._captured is not None:
            self._warn_captured()
        if tree is not self._tree and units.loaded():
            leaves, tree = self._in_own_units(leaves, tree, self._tree)
        self._fill(leaves, tree)

    def _in_own_units(self, leaves: list[Any], tree: Any, held: Any) -> tuple[list[Any], Any]:
        """Leaves and structure of a value in the units of this State; see ``units.fitted``."""
        leaves, tree = units.fitted(self, leaves, tree, held, _jax.here())
        return [unweaken(leaf) for leaf in leaves], tree

    def _fill(self, leaves: list[Any], tree: Any) -> None:
        cells = self._cells
        if not _jax.same_tree(tree, self._tree):
            if CHECKS.same_tree:
                self._refuse_tree(tree, self._tree)
            with RUNTIME_LOCK:
                self._cells = tuple([Cell(leaf) for leaf in leaves])
                self._tree = tree
                EPOCHS.moved()
            return
        for cell, leaf in zip(cells, leaves, strict=True):
            if cell.owned:
                with RUNTIME_LOCK:
                    cell.owned = False
                    EPOCHS.released += 1
                    cell.v = leaf
            else:
                cell.v = leaf

    def _outlive(self, value: T) -> None:
        """Hold a value of the code around the JAX trace that created the State."""
        trace = _jax.current_trace()
        self._home = None if trace is None else _jax.weak(trace)
        self._fill(*flatten(value))

    def _refuse_tree(self, new: Any, old: Any) -> None:
        raise StateTypeError(
            describe(
                f"{self._describe()} is given a value of another structure.",
                state=self._describe(),
                created=self.source_location,
                at=_jax.here(),
                why=f"it holds {old or 'an array'}, and the value is {new or 'an array'}; "
                "check_state_value_tree() allows no change",
                fix="assign a value of the same structure, or leave the block first",
            )
        )

    def _release(self) -> list[Any]:
        """The leaves, no longer owned by the runtime: a later call must not donate what the user holds."""
        with RUNTIME_LOCK:
            for cell in self._cells:
                if cell.owned:
                    cell.owned = False
                    EPOCHS.released += 1
            return [cell.v for cell in self._cells]

    def _refuse(self, leaf: Any) -> None:
        if isinstance(leaf, Poisoned):
            raise CallError(
                describe(
                    "The value of a State was lost.",
                    state=self._describe(),
                    created=self.source_location,
                    why=leaf.message,
                    fix="assign a new value (`state.value = ...`) or restore the model",
                )
            )
        raise StateAccessError(
            describe(
                f"{self._describe()} was created inside a trace that did not keep it.",
                created=self.source_location,
                at=_jax.here(),
                why="a State created while tracing lives in the program; it outlives it only as an attribute of a Node",
                fix="assign it to an attribute of your model, or create it before the trace",
            )
        )

    # ----------------------------------------------------------------------------------------- inside a trace

    def _token(self, recorder: Recorder) -> Any:
        token = recorder.token(self)
        if token is not None:
            return token
        if type(self._home) is int and any(isinstance(cell.v, Unborn) for cell in self._cells):
            self._refuse(self._cells[0].v)
        leaves = self._release()
        for leaf in leaves:
            if type(leaf) is Poisoned:
                self._refuse(leaf)
            if not isinstance(leaf, jax.Array):
                raise StateTypeError(
                    describe(
                        f"{self._describe()} holds a {type(leaf).__name__}, which a traced program cannot carry.",
                        created=self.source_location,
                        at=_jax.here(),
                        why="programs carry arrays",
                        fix="keep the object in an ordinary attribute instead of a State",
                    )
                )
        return recorder.adopt(self, tuple(_jax.typeof(leaf) for leaf in leaves), self._tree)

    def _traced_read(self, recorder: Recorder) -> Any:
        token = self._token(recorder)
        leaves = recorder.read(token)
        tree = recorder.trees[token]
        return leaves[0] if tree is None else jax.tree.unflatten(tree, leaves)

    def _traced_write(self, recorder: Recorder, leaves: list[Any], tree: Any) -> None:
        for leaf in leaves:
            if not isinstance(leaf, (jax.Array, np.ndarray)):
                raise StateTypeError(
                    describe(
                        f"{self._describe()} is given a {type(leaf).__name__} while tracing.",
                        state=self._describe(),
                        created=self.source_location,
                        at=_jax.here(),
                        why="programs carry arrays",
                        fix="keep the object in an ordinary attribute instead of a State",
                    )
                )
        token = self._token(recorder)
        if tree is not recorder.trees[token] and units.loaded():
            leaves, tree = self._in_own_units(leaves, tree, recorder.trees[token])
        if CHECKS.same_tree and not _jax.same_tree(tree, recorder.trees[token]):
            self._refuse_tree(tree, recorder.trees[token])
        recorder.write(token, leaves, tree)

    # --------------------------------------------------------------------------------- inside a foreign trace

    def _mark_captured(self) -> None:
        """Remember that a JAX trace that may be kept has read the value. An eager jax.grad or jax.vmap keeps
        nothing.
        """
        if (
            self._captured is None
            and not self._is_at_home()
            and not transforms_eagerly()
            and _jax.records_here()
        ):
            if any(_jax.frame_of(trace) is not None for trace in _jax.trace_chain()):
                self._captured = str(_jax.here())

    def _warn_captured(self) -> None:
        place, self._captured = self._captured, None
        warnings.warn(
            describe(
                f"{self._describe()} is assigned, but a function compiled by JAX keeps its old value.",
                state=self._describe(),
                created=self.source_location,
                at=_jax.here(),
                why=f"the value was captured by a JAX trace (jax.jit, jax.grad, ...) at {place}",
                fix="compile with stategraph.compile.jit, which follows State",
            ),
            stacklevel=3,
        )

    def _is_at_home(self) -> bool:
        home = self._home
        return home is not None and type(home) is not int and home() is _jax.current_trace()

    def _same_on_all_devices(self, leaf: Any) -> Any:
        """What is written in a ``shard_map`` that runs eagerly, as an ordinary array."""
        value, axes = _jax.eager_shard(leaf)
        if not axes:
            return value
        raise StateAccessError(
            different_on_devices([self._describe()], sorted(axes), _jax.here(), self.source_location)
        )

    def _check_access(self) -> None:
        """Refuse a State that cannot be read and written here."""
        recorder = LOCAL.recorder
        if recorder is not None and recorder.token(self) is not None:
            return
        for cell in self._cells:
            if type(cell.v) in SPECIAL:
                self._refuse(cell.v)
        if recorder is None and _jax.current_trace() is not None:
            self._check_foreign_write()

    def _check_foreign_write(self) -> None:
        if id(self) in LOCAL.shards or is_writable_here() or self._is_at_home():
            return
        raise StateAccessError(
            describe(
                f"{self._describe()} is written inside a JAX transformation that StateGraph does not trace.",
                state=self._describe(),
                created=self.source_location,
                at=_jax.here(),
                why="the new value exists only inside that transformation (jax.jit, jax.grad, jax.vmap, or a jax.lax loop run eagerly)",
                fix="use stategraph.compile (jit, for_loop, scan, while_loop, cond, checkpoint) or stategraph.augment (grad, vmap); or put "
                "@stategraph.compile.jit around the whole function, inside which plain jax.lax works",
            )
        )

    # -------------------------------------------------------------------------------------------------- facts

    @property
    def source_location(self) -> Location:
        """Where the State was created."""
        return location(self._source)

    @property
    def shape(self) -> Any:
        """The shape, for a single array; a pytree of shapes otherwise."""
        return self._facts(lambda leaf: tuple(leaf.shape))

    @property
    def dtype(self) -> Any:
        """The dtype, for a single array; a pytree of dtypes otherwise."""
        return self._facts(lambda leaf: leaf.dtype)

    @property
    def size(self) -> int:
        """The number of elements, all leaves together."""
        return sum(int(np.prod(np.shape(leaf))) for leaf in self._peek())

    @property
    def nbytes(self) -> int:
        """The number of bytes, all leaves together."""
        return sum(int(leaf.nbytes) for leaf in self._peek() if hasattr(leaf, "nbytes"))

    def _facts(self, fact: Any) -> Any:
        facts = [fact(leaf) for leaf in self._peek()]
        tree = units.plain_structure(self._tree)
        return facts[0] if tree is None else jax.tree.unflatten(tree, facts)

    def _peek(self) -> list[Any]:
        """The leaves, or what stands for them in a trace, without handing anything out or recording an
        access.
        """
        recorder = LOCAL.recorder
        token = None if recorder is None else recorder.token(self)
        if recorder is not None and token is not None:
            return [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in recorder.avals[token]]
        return [cell.v.example if type(cell.v) is Unborn else cell.v for cell in self._cells]

    def copy(self) -> State[T]:
        """A new State of the same kind with the same value and metadata."""
        return copy.copy(self)

    def __copy__(self) -> State[T]:
        new: State[T] = object.__new__(type(self))
        for name, value in self._extra().items():
            object.__setattr__(new, name, value)
        State.__init__(new, self.value, self.name, tag=self.tag, **self.metadata)
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> State[T]:
        new = self.__copy__()
        memo[id(self)] = new
        for name, value in self._extra().items():
            object.__setattr__(new, name, copy.deepcopy(value, memo))
        new.metadata = copy.deepcopy(self.metadata, memo)
        return new

    def _extra(self) -> dict[str, Any]:
        return dict(getattr(self, "__dict__", {}))

    def __reduce__(self) -> tuple[Any, ...]:
        value = jax.tree.map(to_host, self.value)
        metadata = self.metadata
        if "sharding" in metadata:
            metadata = {**metadata, "sharding": portable(metadata["sharding"])}
        return (_rebuild, (type(self), value, self.name, self.tag, metadata, self._extra()))

    # -------------------------------------------------------------------------------------------------- looks

    def _describe(self) -> str:
        """The name that messages use."""
        recorder = LOCAL.recorder
        name = (None if recorder is None else recorder.path(self)) or self.name
        return (
            f"{type(self).__name__} {name!r}"
            if name
            else f"the {type(self).__name__} created at {short(self._source)}"
        )

    def __repr__(self) -> str:
        from stategraph.graph.show import state_repr

        return state_repr(self)

    def _repr_html_(self) -> str:
        import html

        return f"<pre>{html.escape(repr(self))}</pre>"


def _rebuild(
    kind: type[State[Any]],
    value: Any,
    name: str | None,
    tag: Any,
    metadata: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> State[Any]:
    new = object.__new__(kind)
    for key, item in extra.items():
        object.__setattr__(new, key, item)
    value = jax.tree.map(from_host, value)
    if "sharding" in metadata:
        metadata = {**metadata, "sharding": restored(metadata["sharding"])}
    State.__init__(new, value, name, tag=tag, **metadata)
    return new


def is_state_type(state: State[Any], tree: Any, leaves: list[Any]) -> bool:
    """Whether ``leaves`` with ``tree`` have the type that ``state`` has."""
    return _jax.same_tree(tree, state._tree) and same_avals(
        [_jax.typeof(leaf) for leaf in leaves], [_jax.typeof(cell.v) for cell in state._cells]
    )


def type_text(state: State[Any]) -> str:
    """A State's type as text."""
    return render(state._tree, [jax.core.ShapedArray(leaf.shape, leaf.dtype) for leaf in state._peek()])
