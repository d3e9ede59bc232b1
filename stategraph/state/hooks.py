"""Hooks: functions that Python code runs when it reads, writes, restores or creates a State.

A hook is called by Python code, so in traced code it runs while the code is traced, and what it does to the
values is part of the program; a compiled call reads and writes State without Python, and calls no hook. Neither
does an eager draw from a random stream, which replaces its key.

While no hook exists, nothing here is in the way of an access: the first hook puts ``State.value`` and
``State.__init__`` behind functions that look for hooks, and the last one that goes takes them away.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import attrs

from stategraph import _jax
from stategraph.errors import StateAccessError, describe

if TYPE_CHECKING:
    from stategraph.state import State

KINDS = ("read", "write_before", "write_after", "restore", "init")


class HookContext:
    """What a hook is told.

    Attributes:
      operation: the kind of the hook.
      state: the State.
      value: what was read, or is or was written.
      old_value: what the State held before a write or restore; computed when asked before a write.
      transformed_value: set it in a ``write_before`` hook to have something else written.
      cancel, cancel_reason: set them in a ``write_before`` hook to refuse the write.
    """

    def __init__(self, operation: str, state: State[Any], value: Any, old: Callable[[], Any]) -> None:
        self.operation = operation
        self.state = state
        self.value = value
        self.cancel = False
        self.cancel_reason = ""
        self._old = old

    @property
    def old_value(self) -> Any:
        return self._old()

    @property
    def transformed_value(self) -> Any:
        return self.value

    @transformed_value.setter
    def transformed_value(self, value: Any) -> None:
        if self.operation != "write_before":
            raise AttributeError(f"a {self.operation!r} hook cannot change the value")
        self.value = value


@attrs.define(eq=False)
class HookHandle:
    """One hook; remove it, or switch it off for a while."""

    kind: str
    callback: Callable[[HookContext], Any]
    priority: int
    name: str
    is_enabled: bool
    _where: list[HookHandle] = attrs.field(repr=False)

    @property
    def is_removed(self) -> bool:
        """Whether the hook is gone."""
        return self not in self._where

    def enable(self) -> None:
        """Call it from now on."""
        self.is_enabled = True

    def disable(self) -> None:
        """Do not call it from now on."""
        self.is_enabled = False

    def remove(self) -> bool:
        """Take it away; tells whether it was there."""
        with _LOCK:
            if self.is_removed:
                return False
            self._where.remove(self)
            _refresh()
            return True


_LOCK = threading.RLock()
_GLOBAL: list[HookHandle] = []
_OF: weakref.WeakKeyDictionary[Any, list[HookHandle]] = weakref.WeakKeyDictionary()


class _Running(threading.local):
    """Whether this thread is in a hook: what a hook does to States calls no hooks."""

    inside = False


_RUNNING = _Running()


def _add(
    where: list[HookHandle],
    hook_type: str,
    callback: Callable[[HookContext], Any],
    priority: int,
    name: str | None,
    enabled: bool,
) -> HookHandle:
    if hook_type not in KINDS:
        raise ValueError(f"hook_type is one of {', '.join(KINDS)}, not {hook_type!r}")
    if not callable(callback):
        raise TypeError(f"a hook is a function of a HookContext, not a {type(callback).__name__}")
    with _LOCK:
        hook = HookHandle(
            hook_type, callback, priority, name or str(getattr(callback, "__name__", "hook")), enabled, where
        )
        where.append(hook)
        where.sort(key=lambda one: -one.priority)
        _refresh()
        return hook


def _listed(where: list[HookHandle], hook_type: str | None) -> list[HookHandle]:
    return [hook for hook in where if hook_type in (None, hook.kind)]


# -------------------------------------------------------------------------------------------- in State's way


def _refresh() -> None:
    """Put ``State.value`` and ``State.__init__`` behind hooks while there are any."""
    from stategraph.state import State

    kinds = {hook.kind for hook in (*_GLOBAL, *(hook for hooks in _OF.values() for hook in hooks))}
    _PLAIN.setdefault("value", State.__dict__["value"])
    _PLAIN.setdefault("__init__", State.__dict__["__init__"])
    hooked = property(_read, _write, doc=_PLAIN["value"].__doc__)
    accesses = {"read", "write_before", "write_after"}
    setattr(State, "value", hooked if kinds & accesses else _PLAIN["value"])  # noqa: B010 -- mypy forbids `=`
    setattr(State, "__init__", _init if "init" in kinds else _PLAIN["__init__"])  # noqa: B010


_PLAIN: dict[str, Any] = {}


def _run(kind: str, state: Any, value: Any, old: Callable[[], Any]) -> Any:
    """Call the hooks of a kind; gives the value, which ``write_before`` hooks may change."""
    context = HookContext(kind, state, value, old)
    _RUNNING.inside = True
    try:
        for hook in sorted((*_OF.get(state, ()), *_GLOBAL), key=lambda one: -one.priority):
            if hook.kind != kind or not hook.is_enabled:
                continue
            hook.callback(context)
            if context.cancel:
                raise StateAccessError(
                    describe(
                        f"The hook {hook.name!r} refuses a write of {state._describe()}.",
                        created=state.source_location,
                        at=_jax.here(),
                        why=context.cancel_reason,
                    )
                )
    finally:
        _RUNNING.inside = False
    return context.value


def _has(state: Any, kind: str) -> bool:
    if _RUNNING.inside:
        return False
    return any(hook.kind == kind and hook.is_enabled for hook in (*_OF.get(state, ()), *_GLOBAL))


def _read(self: State[Any]) -> Any:
    value = _PLAIN["value"].fget(self)
    return _run("read", self, value, lambda: value) if _has(self, "read") else value


def _write(self: State[Any], value: Any) -> None:
    get, put = _PLAIN["value"].fget, _PLAIN["value"].fset
    if _has(self, "write_before"):
        value = _run("write_before", self, value, lambda: get(self))
    if not _has(self, "write_after"):
        put(self, value)
        return
    old = get(self)
    put(self, value)
    _run("write_after", self, value, lambda: old)


def _init(self: State[Any], *args: Any, **kwargs: Any) -> None:
    _PLAIN["__init__"](self, *args, **kwargs)
    if _has(self, "init"):
        _run("init", self, None, lambda: None)


def restored(state: State[Any], value: Any) -> None:
    """Give a State a value, and call ``restore`` hooks instead of those of a write."""
    if not _has(state, "restore"):
        write: Any = _PLAIN["value"].fset if "value" in _PLAIN else type(state).value.fset  # type: ignore[attr-defined]
        write(state, value)
        return
    get, put = _PLAIN["value"].fget, _PLAIN["value"].fset
    old = get(state)
    put(state, value)
    _run("restore", state, value, lambda: old)


# ------------------------------------------------------------------------------------------------- public face


class Hookable:
    """The methods of State that are about its own hooks."""

    __slots__ = ()

    def register_hook(
        self,
        hook_type: str,
        callback: Callable[[HookContext], Any],
        priority: int = 0,
        name: str | None = None,
        enabled: bool = True,
    ) -> HookHandle:
        """Have a function called when Python code does something to this State.

        Args:
          hook_type: ``"read"``, ``"write_before"``, ``"write_after"`` or ``"restore"``.
          callback: is called with a ``HookContext``.
          priority: hooks with a higher one come first.
          name: a name for messages.
          enabled: whether it is called from the beginning.

        Example:

        >>> import jax.numpy as jnp
        >>> import stategraph as sg
        >>> def positive(context):
        ...     context.transformed_value = jnp.maximum(context.value, 0.0)
        >>> rate = sg.State(1.0)
        >>> handle = rate.register_hook("write_before", positive)
        >>> rate.value = -2.0
        >>> rate.value
        Array(0., dtype=float32)
        >>> handle.remove()
        True
        """
        if hook_type == "init":
            raise ValueError("a State that exists is not created again; use stategraph.register_state_hook")
        with _LOCK:
            return _add(_OF.setdefault(self, []), hook_type, callback, priority, name, enabled)

    def unregister_hook(self, handle: HookHandle) -> bool:
        """Take a hook away; tells whether it was there."""
        return handle.remove()

    @contextlib.contextmanager
    def temporary_hook(
        self, hook_type: str, callback: Callable[[HookContext], Any], priority: int = 0
    ) -> Iterator[HookHandle]:
        """A hook for the length of a block."""
        hook = self.register_hook(hook_type, callback, priority)
        try:
            yield hook
        finally:
            hook.remove()

    def list_hooks(self, hook_type: str | None = None) -> list[HookHandle]:
        """The hooks of this State, of one kind or all."""
        return _listed(_OF.get(self, []), hook_type)

    def has_hooks(self, hook_type: str | None = None) -> bool:
        """Whether this State has hooks, of one kind or any."""
        return bool(self.list_hooks(hook_type))

    def clear_hooks(self, hook_type: str | None = None) -> None:
        """Take the hooks of this State away, of one kind or all."""
        for hook in self.list_hooks(hook_type):
            hook.remove()


def register_state_hook(
    hook_type: str,
    callback: Callable[[HookContext], Any],
    priority: int = 0,
    name: str | None = None,
    enabled: bool = True,
) -> HookHandle:
    """Have a function called when Python code does something to any State; see ``State.register_hook``.

    ``hook_type`` may also be ``"init"``: called when a State has been created.

    Example:

    >>> import stategraph as sg
    >>> made = []
    >>> handle = sg.register_state_hook("init", lambda context: made.append(context.state))
    >>> w = sg.ParamState(1.0)
    >>> made[0] is w, handle.remove()
    (True, True)
    """
    return _add(_GLOBAL, hook_type, callback, priority, name, enabled)


def list_state_hooks(hook_type: str | None = None) -> list[HookHandle]:
    """The hooks of all States, of one kind or all."""
    return _listed(_GLOBAL, hook_type)


def clear_state_hooks(hook_type: str | None = None) -> None:
    """Take the hooks of all States away, of one kind or all; a State's own hooks stay."""
    for hook in list_state_hooks(hook_type):
        hook.remove()
