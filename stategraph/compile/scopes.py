"""Names and halts: ``named_scope`` puts a name on ops, ``breakpoint_if`` stops in the debugger."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from stategraph import _jax
from stategraph.compile.jit import JittedFunction
from stategraph.compile.lanes import unvmap


class _Entered(threading.local):
    """Per thread: the contexts that are open, outermost first."""

    def __init__(self) -> None:
        self.scopes: list[contextlib.AbstractContextManager[Any]] = []


class NamedScope:
    """A context, and a decorator; see ``named_scope``."""

    def __init__(
        self,
        name: str,
        static_argnums: int | Iterable[int] | None = None,
        static_argnames: str | Iterable[str] | None = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f"the name of a scope is a text, not {name!r}")
        self.name = name
        self._options: dict[str, Any] = {
            "static_argnums": static_argnums,
            "static_argnames": static_argnames,
        }
        self._entered = _Entered()

    def __enter__(self) -> NamedScope:
        scope = jax.named_scope(self.name)
        scope.__enter__()
        self._entered.scopes.append(scope)
        return self

    def __exit__(self, *exc: Any) -> None:
        self._entered.scopes.pop().__exit__(*exc)

    def __call__(self, function: Callable[..., Any]) -> JittedFunction:
        """A function whose ops carry the name; called eagerly it is compiled under that name."""
        name = self.name

        @functools.wraps(function)
        def scoped(*args: Any, **kwargs: Any) -> Any:
            with jax.named_scope(name):
                return function(*args, **kwargs)

        scoped.__name__ = name
        return JittedFunction(scoped, **self._options)

    def __repr__(self) -> str:
        return f"<scope {self.name!r}>"


def named_scope(
    name: str,
    static_argnums: int | Iterable[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
) -> NamedScope:
    """A name for what runs inside: in the locations of the IR, in XLA's metadata, and in profiles.

    Args:
      name: the name; scopes in each other show as ``outer/inner``.
      static_argnums, static_argnames: of a decorated function; see ``jit``.

    Returns:
      A context manager; as a decorator it makes a function that carries the name wherever it is traced, and
      that is compiled, as with ``jit``, where it is called eagerly.

    Example:

    >>> import stategraph as sg
    >>> def step(x):
    ...     with sg.compile.named_scope("leak"):
    ...         return 0.9 * x
    >>> [op.location.scope for op in sg.trace(step, 1.).program.walk("jax.mul")]
    ['leak']
    """
    return NamedScope(name, static_argnums, static_argnames)


def breakpoint_if(pred: Any, **breakpoint_kwargs: Any) -> None:
    """Stop in the debugger if ``pred`` holds, in eager and in compiled code.

    Args:
      pred: a bool, or an array: it holds if any element is true, in any lane of a ``vmap``.
      **breakpoint_kwargs: for ``jax.debug.breakpoint``, such as ``backend="cli"``.

    Example:

    >>> import stategraph as sg
    >>> sg.compile.breakpoint_if(False)
    """
    if _jax.current_trace() is None and not _jax.is_tracer(pred):
        if bool(jnp.any(jnp.asarray(pred).astype(bool))):
            jax.debug.breakpoint(**breakpoint_kwargs)
        return
    jax.lax.cond(unvmap(pred, "any"), lambda: jax.debug.breakpoint(**breakpoint_kwargs), lambda: None)
