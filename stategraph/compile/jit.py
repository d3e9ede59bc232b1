"""``jit``: a function over State as one compiled program.

The first call traces the function into a program, runs the passes and compiles it; later calls with the same
types run the executable. Nothing per call is done twice: see ``tracing.plan``.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import jax

from stategraph import _jax
from stategraph.backends.xla import SignatureMiss
from stategraph.compile.identity import looked_into
from stategraph.compile.pickling import method_of, reduce_function
from stategraph.compile.plans import PlanCache
from stategraph.errors import describe
from stategraph.recording import EPOCHS, LOCAL
from stategraph.tracing.compiled import Compiled
from stategraph.tracing.functions import signature_of, split
from stategraph.tracing.shardings import shardings_of
from stategraph.tracing.stages import Lowered, Traced

_MISSING: Any = object()
_TRACE, _EAGER, _DISABLE_JIT = _jax.TRACE_STATE, _jax.EAGER, _jax.DISABLE_JIT


class JittedFunction:
    """A function compiled on first use. Call it like the function; ``trace``, ``lower`` and ``compile`` show
    the stages.
    """

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
        debug_nans: bool = False,
        in_shardings: Any = None,
        out_shardings: Any = None,
        state_shardings: Any = None,
        name: str | None = None,
    ) -> None:
        if not callable(function):
            raise TypeError(f"jit needs a function, not a {type(function).__name__}")
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self._declared = (static_argnums, static_argnames, donate_argnums, donate_argnames)
        self.signature = signature_of(function, *self._declared)
        shardings = shardings_of(in_shardings, out_shardings, state_shardings)
        self.plans = PlanCache(passes, exactness, debug_nans=debug_nans, shardings=shardings, name=name)
        self._options = {
            "passes": passes,
            "exactness": exactness,
            "debug_nans": debug_nans,
            "in_shardings": in_shardings,
            "out_shardings": out_shardings,
            "state_shardings": state_shardings,
            "name": name,
        }
        self._methods: weakref.WeakKeyDictionary[Any, JittedFunction] = weakref.WeakKeyDictionary()

    def __reduce_ex__(self, protocol: Any) -> str | tuple[Any, ...]:
        """By name where it can be imported, else its function and options. What it compiled stays here."""
        return reduce_function(self, _made, sys._getframe(1))

    def __copy__(self) -> JittedFunction:
        return _made(self.function, self._said())

    def __deepcopy__(self, memo: dict[int, Any]) -> JittedFunction:
        return _made(copy.deepcopy(self.function, memo), self._said())

    def _said(self) -> dict[str, Any]:
        """All that was said of how to compile."""
        names = ("static_argnums", "static_argnames", "donate_argnums", "donate_argnames")
        return {**dict(zip(names, self._declared, strict=True)), **self._options}

    @property
    def __stategraph_function__(self) -> Callable[..., Any]:
        return self.function

    @property
    def origin_fun(self) -> Callable[..., Any]:
        """The function that is compiled."""
        return self.function

    if not TYPE_CHECKING:

        def __getattr__(self, attribute: str) -> Any:
            if attribute in _STAGES:
                why, fix = _STAGES[attribute]
                raise AttributeError(
                    describe(f"A compiled function has no {attribute}.", why=why, fix=fix),
                    name=attribute,
                    obj=self,
                )
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {attribute!r}", name=attribute, obj=self
            )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # What is rare is found out on the way: starting a trace moves EPOCHS.structure, and under
        # jax.disable_jit()
        # the executable answers with SignatureMiss.
        plan = self.plans.fast
        if _TRACE.value is _EAGER:
            if (
                plan is not None
                and plan.epoch == EPOCHS.structure
                and (not plan.watched or plan.containers_hold())
            ):
                try:
                    return plan.run(args, kwargs, None)
                except SignatureMiss:
                    pass
            if not _DISABLE_JIT.value and LOCAL.recorder is None:
                return self.plans.call(self.function, self.signature, args, kwargs)
        return self.function(*args, **kwargs)

    @property
    def trace_count(self) -> int:
        """How often the function was traced."""
        return self.plans.trace_count

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """As a method: one compiled function per object, which what is returned keeps alive."""
        if instance is None:
            return self
        found = self._methods.get(instance)
        if found is None:
            reference = weakref.ref(instance)
            function = self.function

            @functools.wraps(function)
            def method(*args: Any, **kwargs: Any) -> Any:
                return function(reference(), *args, **kwargs)

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
        return BoundFunction(found, instance)

    # ------------------------------------------------------------------------------------------------- stages

    def trace(self, *args: Any, **kwargs: Any) -> Traced:
        """The program as traced at these arguments (arrays or ``ShapeDtypeStruct``s)."""
        parts = split(self.signature, args, kwargs)
        record = self.plans.trace(self.function, parts)
        return Traced(
            record.program,
            record,
            self._options["exactness"],
            self._options["passes"],
            shardings=self.plans.shardings,
        )

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """The program after the passes."""
        return self.trace(*args, **kwargs).lower()

    def compile(self, *args: Any, **kwargs: Any) -> Compiled:
        """The executable for these arguments."""
        return self.lower(*args, **kwargs).compile()

    def eval_shape(self, *args: Any, **kwargs: Any) -> Any:
        """The shapes and dtypes of the results, without running anything."""
        record = self.plans.trace(self.function, split(self.signature, args, kwargs))
        structs = [_jax.struct_of(value.type) for value in record.program.results]
        return jax.tree.unflatten(record.out_tree, structs)

    def explain(self, *args: Any, **kwargs: Any) -> Any:
        """What the compiler decided for these arguments."""
        return self.lower(*args, **kwargs).explain()

    def clear_cache(self) -> None:
        """Forget all compiled programs."""
        self.plans.clear()

    def __repr__(self) -> str:
        return f"<jit of {getattr(self.function, '__qualname__', repr(self.function))}>"


@looked_into
class BoundFunction(JittedFunction):
    """A compiled method, taken from its object. Like Python's bound methods it keeps the object, and two of one object are
    equal; what was compiled belongs to all of them.
    """

    __slots__ = ("__self__",)
    __self__: Any

    def __init__(self, shared: JittedFunction, instance: Any) -> None:
        self.__dict__ = shared.__dict__
        self.__self__ = instance

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BoundFunction) and self.plans is other.plans

    def __hash__(self) -> int:
        return hash(self.plans)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return (getattr, method_of(self))

    def __copy__(self) -> BoundFunction:
        return BoundFunction(super().__copy__(), self.__self__)

    def __deepcopy__(self, memo: dict[int, Any]) -> JittedFunction:
        """A copy of a model's compiled method is a compiled method of the copied model."""
        model, name = method_of(self)
        found: JittedFunction = getattr(copy.deepcopy(model, memo), name)
        return found


def _made(function: Callable[..., Any], options: dict[str, Any]) -> JittedFunction:
    return JittedFunction(function, **options)


class _Method:
    """A method bound weakly to its object, so that compiling a method does not keep the object alive."""

    def __init__(self, function: Callable[..., Any], reference: Any) -> None:
        functools.update_wrapper(self, function)
        vars(self).pop("__wrapped__", None)
        self.__signature__ = _without_self(function)
        self.function = function
        self.reference = reference

    @property
    def __self__(self) -> Any:
        return self.reference()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def _without_self(function: Callable[..., Any]) -> inspect.Signature:
    """The signature of a method as its callers see it."""
    signature = inspect.signature(function)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _shift(nums: Any) -> Any:
    """Positions counted with ``self``, as positions without."""
    if nums is None:
        return None
    return tuple(n - 1 if n > 0 else n for n in ([nums] if isinstance(nums, int) else nums) if n != 0)


_STAGES = {
    "stateful_fun": (
        "what the function does to State is in its program",
        ".trace(*args), a Traced: .program, .signature, .functional",
    ),
    "jitted_fun": ("each signature has an executable of its own", ".compile(*args), a Compiled"),
}
"""Attributes of BrainState's compiled functions that are others here: why, and what to write."""

_SHARDING = (
    "in_shardings=jax.sharding.SingleDeviceSharding(device), or environ.set(platform=...) for all programs"
)
_DECLINED: dict[str, tuple[Any, str, str]] = {
    "keep_unused": (False, "no result depends on an argument that the program does not use", "leave it out"),
    "inline": (
        False,
        "a compiled function that another one calls is always part of its program",
        "leave it out",
    ),
    "device": (None, "where a program runs follows from where its arguments and States lie", _SHARDING),
    "backend": (None, "where a program runs follows from where its arguments and States lie", _SHARDING),
}
"""Options of ``jax.jit`` that are none here: the value that asks for nothing, why, and what to write."""


def _declined(option: str, value: Any) -> None:
    if option not in _DECLINED:
        raise TypeError(f"jit() got an unexpected keyword argument {option!r}")
    nothing, why, fix = _DECLINED[option]
    if value is not nothing:
        raise TypeError(describe(f"jit has no option {option}.", at=_jax.here(), why=why, fix=fix))


def jit(
    fun: Callable[..., Any] = _MISSING,
    *,
    static_argnums: int | Iterable[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
    donate_argnums: int | Iterable[int] | None = None,
    donate_argnames: str | Iterable[str] | None = None,
    passes: Any = "default",
    exactness: str = "reduction-order",
    debug_nans: bool = False,
    in_shardings: Any = None,
    out_shardings: Any = None,
    state_shardings: Any = None,
    name: str | None = None,
    **others: Any,
) -> Any:
    """Compile a function that reads and writes State.

    Args:
      fun: any callable; it may close over models and States. Without it, a decorator is returned.
      static_argnums, static_argnames: arguments that are part of the program; must be hashable. As in
        ``jax.jit``, positions and names are inferred from each other. Nodes are always static, by identity.
      donate_argnums, donate_argnames: arguments whose memory the program may take over.
      passes: the pipeline, as text or passes (``"default,my-pass{x=1}"``).
      exactness: ``exact``, ``reduction-order`` or ``fast-math``: what the passes may do to floating point.
      debug_nans: whether NaN in a result or State is an error. The call is then run again, op by op, to say
        which op made it (``NanError``); calls keep a copy of the State for that.
      in_shardings, out_shardings: where positional arguments and results lie on the devices, as for ``jax.jit``: a
        ``jax.sharding.Sharding``, or a prefix of their structure with several and None (wherever it is best).
      state_shardings: the same of States, ``{State or filter: sharding}``, before what their ``sharding=`` says.
        A State is moved there before a call, and stays there, updated in place.
      name: of the program, in its text and in profiles; without it, the function's.
      **others: ``keep_unused``, ``device``, ``backend`` and ``inline`` of ``jax.jit`` have nothing to say here; each is
        accepted with the value that asks for nothing.

    Returns:
      A function with the same arguments; it has ``.trace``, ``.lower``, ``.compile``, ``.eval_shape`` and
      ``.explain``.

    Raises:
      TypeError: for another option of ``jax.jit``; the message says what to write.

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
    for option, value in others.items():
        _declined(option, value)
    options: dict[str, Any] = {
        "static_argnums": static_argnums,
        "static_argnames": static_argnames,
        "donate_argnums": donate_argnums,
        "donate_argnames": donate_argnames,
        "passes": passes,
        "exactness": exactness,
        "debug_nans": debug_nans,
        "in_shardings": in_shardings,
        "out_shardings": out_shardings,
        "state_shardings": state_shardings,
        "name": name,
    }
    if fun is _MISSING:
        return lambda f: JittedFunction(f, **options)
    return JittedFunction(fun, **options)
