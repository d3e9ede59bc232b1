"""Eager calls of loops, branches and gradients, compiled and kept.

The key is what the call computes with (see ``identity``). JAX arrays that the functions close over are operands of the
program, so that a loop over another batch is no other program; where Python needs their values, or assigns what holds
them, they are constants, and count by identity. Models, States and such constants are held weakly: an entry goes when
one of them does.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from stategraph.compile.identity import Identity
from stategraph.compile.plans import PlanCache
from stategraph.compile.stand_ins import Copies
from stategraph.tracing.functions import PLAIN, Signature, Split
from stategraph.tracing.tracer import Trace

MOST_ENTRIES = 256
MOST_CONSTANTS = 16
"""How many programs are kept that differ only in the arrays that they hold."""
_LOCK = threading.RLock()
_DONATED = Signature(frozenset(), frozenset(), frozenset({-1}), frozenset())
"""That of a body whose last operand is donated."""

Body = Callable[..., Any]


def run_cached(
    name: str,
    functions: Sequence[Any],
    options: tuple[Any, ...],
    body_of: Callable[..., Body],
    operands: Sequence[Any],
    *,
    donated: Any = None,
    also: Sequence[Any] = (),
    assignments: bool = False,
) -> Any:
    """Run ``body_of(*functions)(*operands)`` as a compiled program.

    Args:
      name: the program's.
      functions: what the body is made of; what ``body_of`` gets are copies of them where they close over arrays.
      options: what else says what the body does, by value.
      body_of: makes the body.
      operands: its arguments.
      donated: one more, a dict, if any: its arrays are given up, and results may be where they were.
      also: what else says what the body does, as functions do.
      assignments: whether every call repeats the attribute assignments that the functions make.
    """
    signature = _DONATED if donated else PLAIN
    operands = tuple(operands) if donated is None else (*operands, donated)
    identity = Identity()
    parts = tuple([identity.of(function) for function in functions])
    identity.closed = True
    key: tuple[Hashable, ...] = (name, options, parts, tuple([identity.of(value) for value in also]))
    if not identity.arrays:
        return _entry(key, identity.held, assignments).call(
            _named(body_of(*functions), name), signature, operands, {}
        )
    entry = _entry(key, identity.held, assignments)
    if not entry.closed:
        body = _Open(functions, body_of, identity.arrays, name)
        try:
            return entry.call(body, signature, (identity.arrays, *operands), {})
        except NeedsValues:
            pass
    exact = Identity(closed=True)
    key = (*key, tuple([exact.of(function) for function in functions]))
    result = _entry(key, [*identity.held, *exact.held], assignments).call(
        _named(body_of(*functions), name), signature, operands, {}
    )
    entry.keep(key)
    return result


def _named(body: Body, name: str) -> Body:
    body.__name__ = name
    return body


class NeedsValues(BaseException):
    """A function cannot be traced with placeholders for the arrays that it closes over. It passes through handlers of
    errors, which are no business of the code that is traced.
    """


class _Open:
    """A body whose first operand are the arrays that its functions close over."""

    __signature__ = inspect.signature(lambda closure, *operands: None)

    def __init__(
        self, functions: Sequence[Any], body_of: Callable[..., Body], arrays: Sequence[Any], name: str
    ) -> None:
        self.functions = functions
        self.body_of = body_of
        self.arrays = arrays
        self.__name__ = name

    @property
    def __wrapped__(self) -> Body:
        """Where the names of States are found."""
        return self.body_of(*self.functions)

    def __call__(self, given: Sequence[Any], *operands: Any) -> Any:
        stand_ins = {id(array): one for array, one in zip(self.arrays, given, strict=True)}
        copies = Copies(self.functions, stand_ins)
        try:
            result = self.body_of(*copies.roots)(*operands)
        except Exception as error:
            # With the values it may go through, and if not, the error is that of the function itself.
            raise NeedsValues from error
        if not copies.unchanged():
            raise NeedsValues
        return result


class _Entry(PlanCache):
    """The plans of one key."""

    def __init__(self, references: Sequence[Any], assignments: bool) -> None:
        super().__init__(assignments=assignments)
        self.references = references
        self.closed = False
        """Whether Python needs the values of the arrays that the functions close over."""
        self.constants: list[Hashable] = []
        """Then, the entries for some values of them."""

    def keep(self, key: Hashable) -> None:
        """Note the entry of a call whose arrays are constants: such an entry holds them, so only the last few stay."""
        self.closed = True
        if key not in self.constants:
            self.constants.append(key)
            if len(self.constants) > MOST_CONSTANTS:
                _CACHE.pop(self.constants.pop(0), None)

    def trace(self, function: Body, parts: Split) -> Trace:
        record = super().trace(function, parts)
        if isinstance(function, _Open):
            # Other code, that of a method for example, knows one of the arrays too.
            ids = set(map(id, function.arrays))
            if any(id(array) in ids for array in record.program.captured.values()):
                raise NeedsValues
        return record


_CACHE: OrderedDict[Hashable, _Entry] = OrderedDict()


def _entry(key: Hashable, held: Sequence[Any], assignments: bool) -> _Entry:
    with _LOCK:
        entry = _CACHE.get(key)
        if entry is None:
            entry = _CACHE[key] = _Entry([_weak(obj, key) for obj in held], assignments)
            while len(_CACHE) > MOST_ENTRIES:
                _CACHE.popitem(last=False)
        else:
            _CACHE.move_to_end(key)
    return entry


def _weak(obj: Any, key: Hashable) -> Any:
    """A weak reference that takes the entry with it; objects that have none are kept."""

    def gone(_: Any) -> None:
        _CACHE.pop(key, None)

    try:
        return weakref.ref(obj, gone)
    except TypeError:
        return obj
