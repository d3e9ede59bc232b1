"""Dynamics: modules of a population, which others can hook into and look up values of, now or delayed.

A ``Dynamics`` calls what was added before and after its ``update``. That is how delays of its State and output follow it:
``prefetch_delay`` and ``output_delay`` add a ``Delay`` after the update, once for all who ask, and give a function of no
arguments for the delayed value. ``prefetch`` gives one for the value now.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import jax

from stategraph import environ
from stategraph.errors import describe
from stategraph.graph.node import Node
from stategraph.nn.delay import Delay, StateWithDelay
from stategraph.nn.listening import LISTENING
from stategraph.nn.module import Module
from stategraph.state import State
from stategraph.typing import Size

T = TypeVar("T")


# -------------------------------------------------------------------------------------- what hooks are called with


def receive_update_output(cls: T) -> T:
    """Say of a class or object: after an update it is called with the output (the default)."""
    cls._receive_update_output = True  # type: ignore[attr-defined]
    return cls


def not_receive_update_output(cls: T) -> T:
    """Say of a class or object: after an update it is called without the output."""
    cls._receive_update_output = False  # type: ignore[attr-defined]
    return cls


def receive_update_input(cls: T) -> T:
    """Say of a class or object: before an update it is called with the input."""
    cls._receive_update_input = True  # type: ignore[attr-defined]
    return cls


def not_receive_update_input(cls: T) -> T:
    """Say of a class or object: before an update it is called without the input (the default)."""
    cls._receive_update_input = False  # type: ignore[attr-defined]
    return cls


class Dynamics(Module):
    """A module of a population of ``in_size`` elements, with hooks before and after its update.

    Args:
      in_size: the shape of the population, which is also that of its output.
      name: a name for messages and listings.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> class Integrator(sg.nn.Dynamics):
    ...     def init_state(self):
    ...         self.v = sg.HiddenState(jnp.zeros(self.varshape))
    ...     def update(self, x):
    ...         self.v.value += x
    ...         return self.v.value
    >>> population = Integrator(2)
    >>> with sg.environ.context(dt=0.1):
    ...     late = population.prefetch_delay("v", 0.2)
    >>> _ = sg.nn.init_all_states(population)
    >>> for _ in range(5):
    ...     _ = population(1.0)
    >>> population.prefetch("v")(), late()
    (Array([5., 5.], dtype=float32), Array([3., 3.], dtype=float32))
    """

    _before_updates: dict[Hashable, Callable[..., Any]] | None = None
    _after_updates: dict[Hashable, Callable[..., Any]] | None = None
    _in_size: tuple[int, ...]

    def __init__(self, in_size: Size, name: str | None = None) -> None:
        super().__init__(name)
        self.in_size = in_size
        if not self._in_size:
            raise ValueError(f"a population has a size, not {in_size!r}")
        self.out_size = self._in_size

    @property
    def varshape(self) -> tuple[int, ...]:
        """The shape of the population."""
        return self._in_size

    # --------------------------------------------------------------------------------------------------- hooks

    @property
    def before_updates(self) -> dict[Hashable, Callable[..., Any]]:
        """What is called before the update, by key."""
        return self._before_updates or {}

    @property
    def after_updates(self) -> dict[Hashable, Callable[..., Any]]:
        """What is called after the update, by key."""
        return self._after_updates or {}

    def add_before_update(self, key: Hashable, fun: Callable[..., Any]) -> None:
        """Call ``fun()`` before each update, or ``fun(*input)`` if it was marked with ``receive_update_input``."""
        self._before_updates = self._with(self.before_updates, key, fun)

    def add_after_update(self, key: Hashable, fun: Callable[..., Any]) -> None:
        """Call ``fun(output)`` after each update, or ``fun()`` if it was marked with ``not_receive_update_output``."""
        self._after_updates = self._with(self.after_updates, key, fun)

    def _with(
        self, hooks: dict[Hashable, Callable[..., Any]], key: Hashable, fun: Callable[..., Any]
    ) -> dict[Hashable, Callable[..., Any]]:
        if key in hooks:
            raise KeyError(f"{type(self).__name__} has a hook {key!r} already")
        return {**hooks, key: fun}

    def get_before_update(self, key: Hashable) -> Callable[..., Any]:
        """What is called before the update under a key."""
        return self._hook(self.before_updates, key)

    def get_after_update(self, key: Hashable) -> Callable[..., Any]:
        """What is called after the update under a key."""
        return self._hook(self.after_updates, key)

    def _hook(self, hooks: dict[Hashable, Callable[..., Any]], key: Hashable) -> Callable[..., Any]:
        if key not in hooks:
            raise KeyError(
                f"{type(self).__name__} has no hook {key!r}; there are {', '.join(map(repr, hooks)) or 'none'}"
            )
        return hooks[key]

    def has_before_update(self, key: Hashable) -> bool:
        """Whether something is called before the update under a key."""
        return key in self.before_updates

    def has_after_update(self, key: Hashable) -> bool:
        """Whether something is called after the update under a key."""
        return key in self.after_updates

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for hook in self.before_updates.values():
            if getattr(hook, "_receive_update_input", False):
                hook(*args, **kwargs)
            else:
                hook()
        output = super().__call__(*args, **kwargs)
        listener = LISTENING.listener
        if listener is not None:
            listener.hear(self, output)
        for hook in self.after_updates.values():
            if getattr(hook, "_receive_update_output", True):
                hook(output)
            else:
                hook()
        return output

    # ------------------------------------------------------------------------------------------- looking up values

    def prefetch(self, item: str) -> Prefetch:
        """A function of no arguments for the value of an attribute, which may not be there yet."""
        return Prefetch(self, item)

    def prefetch_delay(
        self,
        state: str,
        *time_and_index: Any,
        init: Any = None,
        interpolation: str | None = None,
        **kwargs: Any,
    ) -> PrefetchDelayAt:
        """A function of no arguments for the delayed value of a State; see ``PrefetchDelayAt``."""
        return PrefetchDelayAt(
            self, state, *time_and_index, delay_init=init, interpolation=interpolation, **kwargs
        )

    def output_delay(
        self, *time_and_index: Any, init: Any = None, interpolation: str | None = None, **kwargs: Any
    ) -> OutputDelayAt:
        """A function of no arguments for the delayed output; see ``OutputDelayAt``."""
        return OutputDelayAt(self, *time_and_index, delay_init=init, interpolation=interpolation, **kwargs)


class Prefetch(Node):
    """A function of no arguments for the value of an attribute of a module.

    Args:
      module: the module.
      item: the name of the attribute, which may be made later.
    """

    def __init__(self, module: Module, item: str) -> None:
        self.module = module
        self.item = item

    @property
    def delay(self) -> PrefetchDelay:
        """The same attribute, delayed: ``prefetch.delay.at(5.0)``."""
        return PrefetchDelay(self.module, self.item)

    def get_item(self) -> Any:
        """The attribute."""
        found = getattr(self.module, self.item, None)
        if found is None:
            raise AttributeError(
                describe(
                    f"{type(self.module).__name__} has no attribute {self.item!r}.",
                    fix="stategraph.nn.init_all_states(model), if init_state makes it",
                )
            )
        return found

    def get_item_value(self) -> Any:
        """The value of the attribute: what it holds, if it is a State."""
        found = self.get_item()
        return found.value if isinstance(found, State) else found

    def __call__(self) -> Any:
        return self.get_item_value()


class PrefetchDelay(Node):
    """The delayed values of a State of a ``Dynamics``.

    Args:
      module: the module.
      item: the name of the attribute that is the State.
    """

    def __init__(self, module: Module, item: str) -> None:
        self.module = module
        self.item = item

    def at(self, *time_and_index: Any) -> PrefetchDelayAt:
        """A function of no arguments for the value with a delay."""
        return PrefetchDelayAt(self.module, self.item, *time_and_index)


class PrefetchDelayAt(Node):
    """A function of no arguments for the delayed value of a State of a ``Dynamics``. The delay follows the module's update:
    right after it, a delay of 0 is the value now.

    Args:
      module: the module.
      item: the name of the attribute that is the State.
      *time_and_index: the delay and indices, as for ``Delay.register_delay``; none for no delay.
      delay_init: what the buffer holds at first.
      interpolation: see ``Delay``.
      update_every: see ``Delay``.
      **kwargs: other arguments of ``Delay``.
    """

    def __init__(
        self,
        module: Module,
        item: str,
        *time_and_index: Any,
        delay_init: Any = None,
        interpolation: str | None = None,
        update_every: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.module = _checked(module)
        self.item = item
        self.state_delay: StateWithDelay | None = None
        if len(time_and_index) == 1 and isinstance(time_and_index[0], (tuple, list)):
            time_and_index = tuple(time_and_index[0])
        if time_and_index:
            key = f"{item}-prefetch-delay-{update_every}"
            if not self.module.has_after_update(key):
                made = StateWithDelay(
                    module,
                    item,
                    init=delay_init,
                    interpolation=interpolation or kwargs.pop("interp_method", "round"),
                    update_every=update_every,
                    **kwargs,
                )
                self.module.add_after_update(key, not_receive_update_output(made))
            self.state_delay = self.module.get_after_update(key)  # type: ignore[assignment]
            assert self.state_delay is not None
            self.delay_info = self.state_delay.register_delay(*time_and_index)

    def __call__(self) -> Any:
        if self.state_delay is None:
            return Prefetch(self.module, self.item)()
        return self.state_delay.retrieve_at_step(*self.delay_info)


class OutputDelayAt(Node):
    """A function of no arguments for the delayed output of a ``Dynamics``.

    Args:
      module: the module; its output has the shape ``out_size`` and the default floating-point type.
      *delay_time: the delay and indices, as for ``Delay.register_delay``.
      delay_init: what the buffer holds at first.
      interpolation: see ``Delay``.
      update_every: see ``Delay``.
      **kwargs: other arguments of ``Delay``.
    """

    def __init__(
        self,
        module: Module,
        *delay_time: Any,
        delay_init: Any = None,
        interpolation: str | None = None,
        update_every: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.module = _checked(module)
        key = f"output-delay-{update_every}"
        if not self.module.has_after_update(key):
            info = jax.ShapeDtypeStruct(self.module._out_size or (), environ.dftype())
            made = Delay(
                info, init=delay_init, interpolation=interpolation, update_every=update_every, **kwargs
            )
            self.module.add_after_update(key, made)
        self.out_delay: Delay = self.module.get_after_update(key)  # type: ignore[assignment]
        self.delay_info = self.out_delay.register_delay(*(delay_time or (None,)))

    def __call__(self) -> Any:
        return self.out_delay.retrieve_at_step(*self.delay_info)


def _checked(module: Module) -> Dynamics:
    if not isinstance(module, Dynamics):
        raise TypeError(
            describe(
                f"Delays of a {type(module).__name__} are asked for.",
                why="they follow the update of a stategraph.nn.Dynamics",
                fix="derive the module from Dynamics, or use stategraph.nn.StateWithDelay",
            )
        )
    return module


def init_maybe_prefetch(target: Any, *args: Any, **kwargs: Any) -> None:
    """Check that what a prefetch stands for is there, for modules that hold one and initialise what they hold.

    Args:
      target: a ``Prefetch``, ``PrefetchDelay`` or ``PrefetchDelayAt``; anything else is left alone.
      *args: ignored, like the next: the arguments of ``init_state``.
      **kwargs: ignored.
    """
    if isinstance(target, (Prefetch, PrefetchDelay, PrefetchDelayAt)):
        Prefetch(target.module, target.item).get_item()
