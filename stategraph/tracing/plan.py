"""A plan: one executable bound to live States.

Calling a plan does what must be done per call and nothing else: collect the State leaves, run the executable,
put the new leaves back. JAX's own signature cache is the guard for types; whether attributes were rebound is
one comparison of integers.
"""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import jax

from stategraph import _jax
from stategraph.backends.xla import Executable, SignatureMiss
from stategraph.errors import CallError, describe
from stategraph.graph.node import attribute_of, instance_dict
from stategraph.recording import EPOCHS, MISSING
from stategraph.state import RUNTIME_LOCK, Cell, Poisoned, State
from stategraph.tracing.runner import Run, runner
from stategraph.tracing.tracer import Trace

WHEN_A_CALL_FAILS: list[Callable[[], None]] = []
"""What is done when a program that calls back into Python fails: whoever waits for callbacks gives up."""
_SCALARS = (int, float, complex, str, bytes, bool, type(None))


class Plan:
    """An executable, the cells that it reads and fills, and what must still be true for it to be used."""

    def __init__(self, executable: Executable, trace: Trace) -> None:
        reference = weakref.ref(self)

        def retire(_: Any) -> None:
            plan = reference()
            if plan is not None:
                plan.retire()

        self.executable = executable
        self.retired = False
        self.name = executable.program.name
        self.captured = list(executable.program.captured.values())
        self.states = {path: weakref.ref(state) for path, state in {**trace.states, **trace.born}.items()}
        self.entry_trees = {path: state._tree for path, state in trace.states.items()}
        self.born = dict(trace.born)
        self.replays = [(weakref.ref(node), name, value) for node, name, value in trace.replays]
        self.guards = [(weakref.ref(node, retire), name, _hold(value)) for node, name, value in trace.guards]
        bound = {(id(node), name) for node, name, _ in trace.replays}
        self.once = any((id(node), name) in bound for node, name, _ in trace.guards)
        """Whether a call changes what the trace depended on (``if self.h is None: self.h = State(...)``): the
        guards are asked each time.
        """
        self.settings = list(trace.settings)
        self.watched = [container for container, _ in trace.containers]
        self.snapshots = [_snapshot(copy) for _, copy in trace.containers]
        # A setting may differ between threads (a context is per thread), so it is asked for at every call.
        self.watched += [_Now(read) for read, _ in self.settings]
        self.snapshots += [value for _, value in self.settings]
        self.types_change = any(
            symbol.final_types is not None for symbol in executable.program.states.values()
        )
        self.jitted = executable.jit
        self.lending: Callable[..., Any] | None = None
        """The executable without donation, once it pays."""
        self.copying = 0.0
        """Seconds spent on copies of leaves that somebody else may hold."""
        self.compiling = math.inf
        """Seconds that compiling took; endless before."""
        self.epoch = -1
        self.released = -1
        self.donated: list[Cell] = []
        self.kept: list[Cell] = []
        self.written: list[Cell] = []
        self.shared: list[Cell] = []
        self.owned: list[Cell] = []
        self.placed: list[tuple[Cell, Any]] = []
        """Cells that have a sharding: they are moved there before a call."""
        self.run = self._runner()

    # ----------------------------------------------------------------------------------------------- validity

    def retire(self) -> None:
        """A Node that the plan depends on is gone: it holds never again, and need not keep alive what that
        Node held.
        """
        self.retired = True
        self.epoch = -1
        self.guards, self.replays = [], []
        self.watched, self.snapshots, self.captured = [], [], []
        self.run = self._runner()

    def holds(self) -> bool:
        """Whether everything that the trace read is still as it was; if so the plan is bound to the States'
        current cells.
        """
        if self.retired:
            return False
        EPOCHS.settle()
        if not all(_same(read(), value) for read, value in self.settings):
            return False
        for node_ref, name, expected in self.guards:
            node = node_ref()
            if node is None or not _same(attribute_of(node, name), expected()):
                return False
        for path, tree in self.entry_trees.items():
            state = self.states[path]()
            if state is None or not _jax.same_tree(state._tree, tree):
                return False
        if not self.containers_hold():
            return False
        self._bind()
        self.epoch = -1 if self.once else EPOCHS.structure
        return True

    def current(self) -> bool:
        """``holds``, asked again only after something was rebound."""
        return (self.epoch == EPOCHS.structure and self.containers_hold()) or self.holds()

    def containers_hold(self) -> bool:
        return self.watched == self.snapshots

    def _bind(self) -> None:
        for node_ref, name, value in self.replays:
            node = node_ref()
            if node is None or instance_dict(node).get(name, MISSING) is value:
                continue
            if value is MISSING:
                delattr(node, name)
            else:
                setattr(node, name, value)
        live: dict[str, State[Any]] = {}
        for path, ref in self.states.items():
            state = ref()
            if state is not None:
                live[path] = state
        for path, state in self.born.items():
            symbol = self.executable.program.states[path]
            if len(state._cells) != len(symbol.result_types):
                state._cells = tuple(
                    Cell(Poisoned("the program that creates it has not finished a call"))
                    for _ in symbol.result_types
                )

        def cell(leaf: tuple[str, int]) -> Cell:
            cells: Sequence[Cell] = live[leaf[0]]._cells
            return cells[leaf[1]]

        executable = self.executable
        self.donated = [cell(leaf) for leaf in executable.donated]
        self.kept = [cell(leaf) for leaf in executable.kept]
        if executable.placement is not None:
            inputs = {*executable.donated, *executable.kept}
            declared = executable.placement.states
            self.placed = [(cell(leaf), declared[leaf]) for leaf in declared if leaf in inputs]
        if not self.types_change:
            self.written = [cell(leaf) for leaf in executable.written]
            self.owned = [c for c, own in zip(self.written, executable.ownable, strict=True) if own]
            self.shared = [c for c, own in zip(self.written, executable.ownable, strict=True) if not own]
        self.released = -1
        self.run = self._runner()

    def matches(self, args: Any, kwargs: Any) -> bool:
        """Whether the types of arguments and States are those that the plan was made for."""
        leaves, tree = jax.tree.flatten((args, kwargs))
        executable = self.executable
        inputs = [*(c.v for c in self.donated), *(c.v for c in self.kept), *self.captured, *leaves]
        if tree != executable.in_tree or len(inputs) != len(executable.input_avals):
            return False
        if executable.x64 not in (None, _jax.x64()):
            return False
        for value, expected in zip(inputs, executable.input_avals, strict=True):
            try:
                aval = _jax.typeof(value)
            except TypeError:
                return False
            if (
                aval.shape != expected.shape
                or aval.dtype != expected.dtype
                or aval.weak_type != expected.weak_type
            ):
                return False
        return True

    # -------------------------------------------------------------------------------------------------- calls

    def __call__(self, args: Any, kwargs: Any, given: Any = None) -> Any:
        """Run on the live States. Raises ``SignatureMiss``, with nothing changed, for types that the plan was
        not made for.
        """
        return self.run(args, kwargs, given)

    def compile(self, args: Any, kwargs: Any, given: Any = None) -> None:
        """Compile for a first call at these arguments, without the lock that it will hold, so that calls on other threads go
        on. JAX keeps what is compiled for the call. Does nothing where that has something to say about State first.
        """
        start = time.perf_counter()
        for cell, sharding in self.placed:
            place(cell, sharding)
        with RUNTIME_LOCK:
            donated, kept = ([c.v for c in cells] for cells in (self.donated, self.kept))
        if any(type(leaf) is Poisoned for leaf in (*donated, *kept)):
            return
        state: Any = donated if given is None else (donated, given)
        self.jitted.trace(state, [*kept, *self.captured], *args, **kwargs).lower().compile()
        self.compiling = time.perf_counter() - start

    def _runner(self) -> Run:
        """What a call does, with everything that is the same for all calls looked up once."""
        checks = self.executable.checks
        run = self._plain_runner() if checks is None else checks.around(self._plain_runner())
        return placing(self.placed, run) if self.placed else run

    def _plain_runner(self) -> Run:
        if self.executable.has_callbacks:
            return self._calling_back
        written = None if self.types_change else self.written
        return runner(
            self,
            self.jitted,
            self.captured,
            self.donated,
            self.kept,
            written,
            bool(self.shared),
            _unshared,
        )

    def _calling_back(self, args: Any, kwargs: Any, given: Any) -> Any:
        """What a call does that calls back into Python: nothing is donated, no lock is held while a callback may read
        State, and State is as it was when a callback raises.
        """
        with RUNTIME_LOCK:
            for c in self.kept:
                if type(c.v) is Poisoned:
                    self._lost(c)
                if c.owned:  # another program could take its memory while this one runs
                    c.owned = False
                    EPOCHS.released += 1
            kept = [*(c.v for c in self.kept), *self.captured]
        try:
            if given is None:
                new, result = self.jitted([], kept, *args, **kwargs)
            else:
                given = _unshared(given, (kept, args, kwargs))
                new, result = self.jitted(([], given), kept, *args, **kwargs)
            _jax.wait_for_effects((new, result))
        except SignatureMiss:
            raise
        except BaseException:
            _jax.forget_failed_effects()
            for give_up in WHEN_A_CALL_FAILS:
                give_up()
            raise
        with RUNTIME_LOCK:
            if self.types_change:
                self._refill(new)
                return result
            for c, v in zip(self.written, new, strict=True):
                c.v = v
            self._own()
        return result

    def _claim(self, donated: list[Any]) -> tuple[list[Any], Callable[..., Any]]:
        """What to call, and on which leaves, when somebody else may hold some: on copies of these, or, once copying
        has cost as much as another executable, without donation.
        """
        for c, v in zip(self.donated, donated, strict=True):
            if type(v) is Poisoned:
                self._lost(c)
        for c in self.kept:
            if type(c.v) is Poisoned:
                self._lost(c)
        lent = [i for i, c in enumerate(self.donated) if not c.owned]
        mostly = 2 * len(lent) > len(donated)
        if mostly and self.lending is not None:
            return donated, self.lending
        start = time.perf_counter()
        for i, copy in zip(lent, _jax.copies([donated[i] for i in lent]), strict=True):
            donated[i] = copy
        if mostly:
            self.copying += time.perf_counter() - start
            if self.copying > self.compiling:
                self.lending = self.executable.lending_jit
        return donated, self.jitted

    def _own(self) -> None:
        for c in self.owned:
            c.owned = True
        for c in self.shared:
            if c.owned:
                c.owned = False
                EPOCHS.released += 1
        self.released = EPOCHS.released

    def _refill(self, new: list[Any]) -> None:
        """Put back leaves when some State changes its type in the program."""
        groups: dict[str, dict[int, Any]] = {}
        for (path, i), value in zip(self.executable.written, new, strict=True):
            groups.setdefault(path, {})[i] = value
        for path, leaves in groups.items():
            state = self.states[path]()
            symbol = self.executable.program.states[path]
            if state is None:
                continue
            if symbol.final_types is None:
                with RUNTIME_LOCK:
                    for i, leaf in leaves.items():
                        state._cells[i].v = leaf
                        state._cells[i].owned = False
            else:
                from stategraph.backends.params import treedef_of

                tree = treedef_of(symbol.result_tree)
                tree = None if tree == jax.tree.structure(0) else tree
                state._fill([leaves[i] for i in sorted(leaves)], tree)
        EPOCHS.released += 1

    def _failed(self, donated: list[Any], error: BaseException) -> None:
        """After a failure in the middle of a run: what was donated is gone, and says so."""
        lost = [
            c
            for c, v in zip(self.donated, donated, strict=True)
            if isinstance(v, jax.Array) and v.is_deleted() and c.v is v
        ]
        for c in lost:
            c.v = Poisoned(
                f"the compiled call of {self.name!r} failed ({type(error).__name__}) after it had taken the State's memory"
            )
            c.owned = False
        EPOCHS.released += 1

    def _lost(self, cell: Cell) -> None:
        for path, ref in self.states.items():
            state = ref()
            if state is not None and cell in state._cells:
                raise CallError(
                    describe(
                        f"@{path} has no value.",
                        state=f"@{path} ({type(state).__name__})",
                        created=state.source_location,
                        why=cell.v.message,
                        fix="assign a new value (`state.value = ...`) or restore the model",
                    )
                )


def placing(placed: Sequence[tuple[Cell, Any]], run: Run) -> Run:
    """A run before which these cells are moved to where they are declared to lie, if somebody put something else
    there.
    """

    def moving(args: Any, kwargs: Any, given: Any) -> Any:
        for cell, sharding in placed:
            value = cell.v
            if getattr(value, "sharding", sharding) is not sharding:
                place(cell, sharding)
        return run(args, kwargs, given)

    return moving


def place(cell: Cell, sharding: Any) -> None:
    """Move the value of a cell, unless it lies there already."""
    with RUNTIME_LOCK:
        value = cell.v
        if isinstance(value, jax.Array) and not value.sharding.is_equivalent_to(sharding, value.ndim):
            cell.v = jax.device_put(value, sharding)
            cell.owned = False
            EPOCHS.released += 1


def _unshared(given: Any, others: Any) -> Any:
    """Donated arguments, copied where the same array is also a State's value or another argument."""
    taken = {id(leaf) for leaf in jax.tree.leaves(others)}

    def own(leaf: Any) -> Any:
        if id(leaf) in taken:
            return _jax.copies([leaf])[0]
        taken.add(id(leaf))
        return leaf

    return jax.tree.map(own, given)


def _hold(value: Any) -> Any:
    """A function that gives ``value`` back, without keeping models alive."""
    if isinstance(value, _SCALARS) or value is MISSING:
        return lambda: value
    if type(value) is tuple:
        items = [_hold(item) for item in value]
        return lambda: tuple([item() for item in items])
    try:
        reference = weakref.ref(value)
    except TypeError:
        return lambda: value
    return lambda: _DEAD if reference() is None else reference()


_DEAD = object()


def _same(now: Any, then: Any) -> bool:
    """The same object, or equal scalars of one type (``-0.0`` is not ``0.0``), or tuples of such."""
    if now is then:
        return True
    if type(now) is not type(then):
        return False
    if type(now) is tuple:
        return len(now) == len(then) and all(map(_same, now, then))
    if isinstance(now, (float, complex)):
        return repr(now) == repr(then)
    return isinstance(now, _SCALARS) and bool(now == then)


class _Then:
    """An item of a container as it was: ``container == snapshot`` asks it whether another item is the same."""

    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, now: object) -> bool:
        return _same(now, self.value)


class _Now:
    """A setting as it is when compared."""

    __slots__ = ("read",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, read: Callable[[], Any]) -> None:
        self.read = read

    def __eq__(self, other: object) -> bool:
        return _same(self.read(), other)


def _snapshot(container: Any) -> Any:
    """A copy of a list or dict that equals it while it holds the same items. Most items compare by identity,
    without a Python call.
    """
    if isinstance(container, dict):
        return {key: _then(value) for key, value in container.items()}
    return [_then(value) for value in container]


def _then(value: Any) -> Any:
    plain: Any = object.__eq__
    return value if type(value).__eq__ is plain else _Then(value)
