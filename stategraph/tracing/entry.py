"""``trace`` and ``lower``: from a model or a program to its stages."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any

import attrs

from stategraph import _jax
from stategraph.backends.params import treedef_of
from stategraph.errors import TraceError
from stategraph.graph.node import Node
from stategraph.ir.core import Program
from stategraph.ir.verifier import verify
from stategraph.tracing.binding import states_for
from stategraph.tracing.functions import PLAIN, argument_names, nodes_among, of_dynamic, split
from stategraph.tracing.stages import Lowered, Traced
from stategraph.tracing.tracer import Trace, program_name, trace_function


@attrs.define(eq=False, repr=False)
class Untraced:
    """A function whose arguments are not known yet: ``trace(model).lower(x)``."""

    function: Callable[..., Any]
    options: dict[str, Any]

    def lower(
        self,
        *args: Any,
        passes: Any = None,
        exactness: str | None = None,
        platforms: Any = None,
        strip_host_effects: bool = False,
        **kwargs: Any,
    ) -> Lowered:
        """Trace at these arguments and lower."""
        traced: Traced = trace(self.function, *args, **kwargs, **self.options)
        return traced.lower(
            passes=passes, exactness=exactness, platforms=platforms, strip_host_effects=strip_host_effects
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(Traced, name):
            raise AttributeError(f"Untraced has no attribute {name!r}")
        raise TraceError(self._advice(f"has no {name} yet"))

    def __repr__(self) -> str:
        return f"<Untraced {self._name()}: its arguments are not known yet>"

    def _name(self) -> str:
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def _advice(self, what: str) -> str:
        name = self._name()
        return (
            f"{name} {what}, since its arguments are not known\n"
            f"  fix:   write trace({name}, x).program or trace({name}).lower(x), with arrays or jax.ShapeDtypeStruct(shape, dtype); "
            "or give the model an attribute example_args = (x,)"
        )


@_jax.boundary
def trace(
    function: Callable[..., Any],
    /,
    *args: Any,
    passes: Any = "default",
    exactness: str = "reduction-order",
    **kwargs: Any,
) -> Any:
    """Trace a model or function into a program.

    Args:
      function: a Node with ``__call__`` or ``update``, or any callable.
      *args: arrays, scalars or ``jax.ShapeDtypeStruct``s. May be left out when the call takes none, when the
        model has ``example_args``, or to give them to ``.lower(...)`` instead.
      passes, exactness: defaults for ``.lower``.

    Returns:
      ``Traced``; an object with only ``.lower`` when arguments are needed and none were given.

    Example:

    >>> import stategraph as sg
    >>> count = sg.State(0)
    >>> def step():
    ...     count.value += 1
    >>> [op.name for op in sg.trace(step).program.walk()]
    ['state.read', 'jax.add', 'state.write', 'flow.yield']
    """
    target, roots = _callable_of(function)
    if not args and not kwargs and _needs_arguments(target):
        example = getattr(function, "example_args", None)
        if example is None:
            return Untraced(function, {"passes": passes, "exactness": exactness})
        args = tuple(example() if callable(example) else example)
    start = time.perf_counter()
    parts = split(PLAIN, args, kwargs)
    names = argument_names(target, parts, parts.args, parts.kwargs)
    record = trace_function(
        of_dynamic(target, parts),
        parts.args,
        parts.kwargs,
        roots=roots,
        objects=nodes_among(target, parts),
        name=_model_name(function) or program_name(target),
        argument_names=names,
    )
    traced = Traced(record.program, record, exactness, passes)
    traced.times["trace"] = time.perf_counter() - start
    return traced


def _callable_of(function: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(what to run, where to look for names): a Node runs as it is called."""
    if isinstance(function, Node):
        if callable(function):
            return function, function
        raise TraceError(f"{type(function).__name__} cannot be called; give it a __call__ or update method")
    inner = getattr(function, "__stategraph_function__", None)
    if inner is not None:
        return inner, inner
    if not callable(function):
        raise TraceError(f"trace needs a model or function, not a {type(function).__name__}")
    return function, function


def _model_name(function: Any) -> str | None:
    return type(function).__name__ if isinstance(function, Node) else None


def _needs_arguments(function: Callable[..., Any]) -> bool:
    target = getattr(function, "update", function) if isinstance(function, Node) else function
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        for p in parameters
    )


def lower(
    program: Program,
    states: Any = None,
    *,
    passes: Any = "default",
    exactness: str = "reduction-order",
    platforms: Any = None,
    strip_host_effects: bool = False,
) -> Lowered:
    """Lower an edited or parsed program.

    Args:
      program: as from ``stategraph.ir.parse`` or ``traced.program.copy()``.
      states: a model (States are found by path), a mapping of paths to States or values, or nothing: then
        ``initial`` values of the symbols are used. The default random State is found by itself.

    Raises ``CallError`` naming States that are missing or of another type.
    """
    if not isinstance(program, Program):
        raise TypeError(
            f"lower() takes a Program, not a {type(program).__name__}\n"
            "  fix: trace(model, x).lower(), or lower(traced.program, states=model)"
        )
    verify(program)
    live = states_for(program, states)
    born = {path: live[path] for path, symbol in program.states.items() if symbol.born}
    record = Trace(
        program=program,
        states={path: state for path, state in live.items() if path not in born},
        born=born,
        replays=[],
        guards=[],
        containers=[],
        in_tree=treedef_of(program.argument_tree),
        out_tree=treedef_of(program.result_tree),
    )
    traced = Traced(program, record, exactness, passes)
    return traced.lower(platforms=platforms, strip_host_effects=strip_host_effects)
