"""``jit``: a function over State as one compiled program.

The first call traces the function into a program, runs the passes and compiles it; later calls with the same types run the executable.
Nothing per call is done twice: see ``tracing.plan``.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import jax

from stategraph import _jax
from stategraph.backends.xla import SignatureMiss, build
from stategraph.errors import CallError
from stategraph.passes.manager import PassManager
from stategraph.recording import LOCAL
from stategraph.state import EPOCHS
from stategraph.tracing.functions import Split, has_objects, signature_of, split
from stategraph.tracing.plan import Plan
from stategraph.tracing.stages import Compiled, Lowered, Traced, _names_of, trace
from stategraph.tracing.tracer import Trace, trace_function

_MISSING: Any = object()


class JittedFunction:
    """A function compiled on first use. Call it like the function; ``trace``, ``lower`` and ``compile`` show the stages."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        static_argnums: int | Iterable[int] | None = None,
        static_argnames: str | Iterable[str] | None = None,
        donate_argnums: int | Iterable[int] | None = None,
        donate_argnames: str | Iterable[str] | None = None,
        passes: Any = "default",
        exactness: str = "reduction-order",
        bound_to: Any = None,
    ) -> None:
        if not callable(function):
            raise TypeError(f"jit needs a function, not a {type(function).__name__}")
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self._declared = (static_argnums, static_argnames, donate_argnums, donate_argnames)
        self.signature = signature_of(function, *self._declared)
        self.manager = PassManager(passes, exactness=exactness)
        self._options = {"passes": passes, "exactness": exactness}
        self._last: Plan | None = None
        self._fast: Plan | None = None
        self._plans: dict[Hashable, list[Plan]] = {}
        self._methods: weakref.WeakKeyDictionary[Any, JittedFunction] = weakref.WeakKeyDictionary()
        self._lock = threading.RLock()
        self.trace_count = 0
        """How often the function was traced."""

    @property
    def __stategraph_function__(self) -> Callable[..., Any]:
        return self.function

    # ------------------------------------------------------------------------------------------------------------ calls

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if LOCAL.recorder is not None or _jax.current_trace() is not None or jax.config.jax_disable_jit:
            return self.function(*args, **kwargs)
        plan = self._fast
        if plan is not None and plan.epoch == EPOCHS.structure and plan.watched == plan.snapshots:
            try:
                return plan(args, kwargs)
            except SignatureMiss:
                pass
        return self._slow(args, kwargs)

    def _slow(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Find a plan for this call, or make one."""
        parts = split(self.signature, args, kwargs)
        with self._lock:
            plans = self._plans.setdefault(parts.key, [])
            for position, plan in enumerate(plans):
                valid = plan.epoch == EPOCHS.structure and plan.containers_hold() or plan.holds()
                merged = _merge(parts)
                if valid and plan.matches(*merged):
                    plans.insert(0, plans.pop(position))
                    return self._run(plan, parts)
            del plans[_MOST_PLANS:]
            plan = self._plan(parts)
            plans.insert(0, plan)
            return self._run(plan, parts)

    def _run(self, plan: Plan, parts: Split) -> Any:
        """Run a plan; calls without static or donated arguments will try it first from now on."""
        plain = self.signature.plain and not parts.given and parts.key == (len(parts.args), ())
        self._fast = plan if plain else None
        try:
            return plan(parts.args, parts.kwargs, parts.given)
        except SignatureMiss:
            raise CallError(
                f"{plan.name!r} was compiled for these types and did not accept them; this is a bug of StateGraph, please report it"
            ) from None

    def _plan(self, parts: Split) -> Plan:
        trace_ = self._trace(parts)
        outcome = self.manager.run(trace_.program)
        plan = Plan(build(outcome.program, trace_.in_tree, trace_.out_tree), trace_)
        if not plan.holds():
            raise CallError(f"{self.__name__!r} replaces States or attributes that it has read in a way that changes every call")
        return plan

    def _trace(self, parts: Split) -> Trace:
        self.trace_count += 1
        function, rebuild = self.function, parts.rebuild
        args, kwargs = _merge(parts)

        def run(*dynamic: Any, **named: Any) -> Any:
            positional, others = rebuild(dynamic, named)
            return function(*positional, **others)

        names = _names_of(function, args, kwargs) if parts.key == (len(args), ()) else None
        return trace_function(run, args, kwargs, roots=function, name=getattr(function, "__name__", None), argument_names=names)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """As a method: one compiled function per object."""
        if instance is None:
            return self
        found = self._methods.get(instance)
        if found is None:
            reference = weakref.ref(instance)
            function = self.function

            @functools.wraps(function)
            def method(*args: Any, **kwargs: Any) -> Any:
                return function(reference(), *args, **kwargs)

            del method.__wrapped__
            nums, names, donate, donate_names = self._declared
            found = JittedFunction(
                _Method(method, reference),
                static_argnums=_shift(nums),
                static_argnames=names,
                donate_argnums=_shift(donate),
                donate_argnames=donate_names,
                **self._options,
            )
            self._methods[instance] = found
        return found

    # ----------------------------------------------------------------------------------------------------------- stages

    def trace(self, *args: Any, **kwargs: Any) -> Traced:
        """The program as traced at these arguments (arrays or ``ShapeDtypeStruct``s)."""
        parts = split(self.signature, args, kwargs)
        record = self._trace(parts)
        return Traced(record.program, record, self._options["exactness"], self._options["passes"])

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """The program after the passes."""
        return self.trace(*args, **kwargs).lower()

    def compile(self, *args: Any, **kwargs: Any) -> Compiled:
        """The executable for these arguments."""
        return self.lower(*args, **kwargs).compile()

    def eval_shape(self, *args: Any, **kwargs: Any) -> Any:
        """The shapes and dtypes of the results, without running anything."""
        record = self._trace(split(self.signature, args, kwargs))
        structs = [_shape(value.type) for value in record.program.results]
        return jax.tree.unflatten(record.out_tree, structs)

    def explain(self, *args: Any, **kwargs: Any) -> Any:
        """What the compiler decided for these arguments."""
        return self.lower(*args, **kwargs).explain()

    def clear_cache(self) -> None:
        """Forget all compiled programs."""
        with self._lock:
            self._plans.clear()
            self._fast = None

    def __repr__(self) -> str:
        return f"<jit of {getattr(self.function, '__qualname__', repr(self.function))}>"


_MOST_PLANS = 64


class _Method:
    """A method bound weakly to its object, so that compiling a method does not keep the object alive."""

    def __init__(self, function: Callable[..., Any], reference: Any) -> None:
        functools.update_wrapper(self, function)
        del self.__wrapped__
        self.function = function
        self.reference = reference

    @property
    def __self__(self) -> Any:
        return self.reference()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def _shift(nums: Any) -> Any:
    """Positions counted with ``self``, as positions without."""
    if nums is None:
        return None
    return tuple(n - 1 for n in ([nums] if isinstance(nums, int) else nums) if n > 0)


def _merge(parts: Split) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return parts.args, parts.kwargs


def _shape(type: Any) -> Any:
    aval = _jax.aval_of(type)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def jit(
    function: Callable[..., Any] = _MISSING,
    *,
    static_argnums: int | Iterable[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
    donate_argnums: int | Iterable[int] | None = None,
    donate_argnames: str | Iterable[str] | None = None,
    passes: Any = "default",
    exactness: str = "reduction-order",
) -> Any:
    """Compile a function that reads and writes State.

    Args:
      function: any callable; it may close over models and States. Without it, a decorator is returned.
      static_argnums, static_argnames: arguments that are part of the program; must be hashable. As in ``jax.jit``, positions and names are
        inferred from each other. Nodes are always static, by identity.
      donate_argnums, donate_argnames: arguments whose memory the program may take over.
      passes: the pipeline, as text or passes (``"default,my-pass{x=1}"``).
      exactness: ``exact``, ``reduction-order`` or ``fast-math``: what the passes may do to floating point.

    Returns:
      A function with the same arguments; it has ``.trace``, ``.lower``, ``.compile``, ``.eval_shape`` and ``.explain``.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> total = sg.State(jnp.zeros(3))
    >>> @sg.compile.jit
    ... def add(x):
    ...     total.value += x
    ...     return total.value.sum()
    >>> float(add(jnp.ones(3)))
    3.0
    """
    options: dict[str, Any] = {
        "static_argnums": static_argnums,
        "static_argnames": static_argnames,
        "donate_argnums": donate_argnums,
        "donate_argnames": donate_argnames,
        "passes": passes,
        "exactness": exactness,
    }
    if function is _MISSING:
        return lambda f: JittedFunction(f, **options)
    return JittedFunction(function, **options)


__all__ = ["JittedFunction", "has_objects", "jit", "trace"]
