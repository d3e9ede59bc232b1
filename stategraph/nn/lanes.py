"""Running a module over lanes: ``Vmap`` and ``Map``.

Both hold one module and call it once per lane. States that have lanes, because they were initialised per
lane, are taken apart along them; all others are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stategraph.augment.lanes import Lanes, has_lanes, selection
from stategraph.augment.pmap import pmap
from stategraph.augment.vmap import MappedFunction, check_axis_name, mesh_axes
from stategraph.backends.vmap import Caller
from stategraph.errors import describe
from stategraph.nn.collective import OwnWay
from stategraph.nn.collective_lanes import vmap_init_all_states, vmap_reset_all_states
from stategraph.nn.listening import LISTENING, heard_in_lanes
from stategraph.nn.module import Module
from stategraph.typing import Filter
from stategraph.util.filter import Any as AnyOf
from stategraph.util.filter import Not, to_predicate


class Vmap(Module, OwnWay):
    """A module that calls another one over lanes.

    Args:
      module: a module that takes the inputs of one lane.
      in_axes, out_axes, axis_name: as in ``augment.vmap``.
      vmap_states: the States of the module whose lanes the call takes apart: a filter, or ``{axis: filter}``.
        By default those that have lanes, because ``vmap_init_all_states`` or this module initialised them.
      vmap_out_states: States that keep what the lanes write, likewise. States that are taken apart do.
      axis_size: the number of lanes, where no input tells. With it ``nn.init_all_states`` and
        ``nn.reset_all_states`` of this module, or of a model that holds it, initialise and reset the inner
        module once per lane.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> class Counter(sg.nn.Module):
    ...     def init_state(self):
    ...         self.n = sg.ShortTermState(jnp.zeros(()))
    ...     def update(self, x):
    ...         self.n.value += x
    ...         return self.n.value
    >>> counters = sg.nn.init_all_states(sg.nn.Vmap(Counter(), axis_size=3))
    >>> counters(jnp.arange(3.))
    Array([0., 1., 2.], dtype=float32)
    >>> counters(jnp.arange(3.))
    Array([0., 2., 4.], dtype=float32)
    """

    spmd_axis_name: str | tuple[str, ...] | None = None
    _caller = Caller("nn.Vmap", "vmap_states", "vmap_out_states", forgets=False)

    def __init__(
        self,
        module: Module,
        in_axes: Any = 0,
        out_axes: Any = 0,
        vmap_states: Any = None,
        vmap_out_states: Any = None,
        axis_name: str | None = None,
        axis_size: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__} runs a Module, not a {type(module).__name__}")
        self.module = module
        self.in_axes = in_axes
        self.out_axes = out_axes
        self.vmap_states = vmap_states
        self.vmap_out_states = vmap_out_states
        self.axis_name = axis_name
        self.axis_size = axis_size

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """The results of all lanes."""
        listener = LISTENING.listener
        if listener is None:
            return self._over_lanes(self.module, self.in_axes, self.out_axes, self.axis_name)(*args, **kwargs)

        def over_lanes(lane: Callable[..., Any]) -> Any:
            return self._over_lanes(lane, self.in_axes, (self.out_axes, 0), self.axis_name)(*args, **kwargs)

        return heard_in_lanes(listener, self.module, over_lanes)

    def _over_lanes(
        self, function: Callable[..., Any], in_axes: Any, out_axes: Any, axis_name: str | None
    ) -> Callable[..., Any]:
        check_axis_name(axis_name)
        lanes = Lanes(
            in_axes,
            out_axes,
            axis_name,
            self.axis_size,
            has_lanes if self.vmap_states is None else self.vmap_states,
            self.vmap_out_states,
            False,
            spmd_axis_name=self.spmd_axis_name,
            caller=self._caller,
        )
        return MappedFunction(function, lanes)

    def runs(self, fn_name: str) -> Any:
        if self.axis_size is None or fn_name not in ("init_state", "reset_state"):
            return None
        return self.module

    def run(self, fn_name: str, args: Sequence[Any], kwargs: Mapping[str, Any], exclude: Filter) -> None:
        if fn_name == "init_state":
            self._init(args, kwargs, exclude)
        else:
            vmap_reset_all_states(
                self.module, *args, axis_size=self.axis_size, node_to_exclude=exclude, **kwargs
            )

    def _init(self, args: Sequence[Any], kwargs: Mapping[str, Any], exclude: Filter) -> None:
        vmap_init_all_states(self.module, *args, axis_size=self.axis_size, node_to_exclude=exclude, **kwargs)


class Map(Vmap):
    """A module that makes ``init_map_size`` instances of the State of another one, and calls it on all.

    Args:
      module: a module that takes the inputs of one lane.
      init_map_size: the number of lanes. ``init_all_states`` and ``reset_all_states`` run once per lane.
      init_state_axes: a filter, or ``{0: filter}``: which of the States that the initialisation creates get
        lanes; all by default. The others are shared.
      state_tag: a tag for them.
      in_axes, out_axes, axis_name, spmd_axis_name: as in ``augment.vmap``.
      call_state_axes: ``{axis: filter}``: other States of which every lane gets a slice in a call.
      behavior: ``vmap`` for all lanes in one program, or ``pmap`` for each on a device of its own (``augment.pmap``).
      parameters: whether parameters get lanes too, each with a draw of its own (see
        ``vmap_init_all_states``).

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> class Noisy(sg.nn.Module):
    ...     def init_state(self):
    ...         self.gain = sg.State(sg.random.rand())
    ...     def update(self, x):
    ...         return x * self.gain.value
    >>> noisy = sg.nn.Map(Noisy(), 4, in_axes=None)
    >>> noisy.init_all_states().module.gain.shape, noisy(1.).shape
    ((4,), (4,))
    """

    _caller = Caller("nn.Map", "call_state_axes", None, forgets=False)

    def __init__(
        self,
        module: Module,
        init_map_size: int,
        init_state_axes: Any = None,
        state_tag: str | None = None,
        in_axes: Any = 0,
        out_axes: Any = 0,
        axis_name: str | None = None,
        spmd_axis_name: str | Sequence[str] | None = None,
        call_state_axes: Mapping[int, Filter] | None = None,
        behavior: str = "vmap",
        parameters: Filter = False,
    ) -> None:
        states = dict(selection("call_state_axes", call_state_axes))
        states[0] = AnyOf(has_lanes, states[0]) if 0 in states else has_lanes
        super().__init__(module, in_axes, out_axes, states, None, axis_name, int(init_map_size))
        if behavior not in ("vmap", "pmap"):
            raise ValueError(f"behavior is 'vmap' or 'pmap', not {behavior!r}")
        self.spmd_axis_name = mesh_axes(spmd_axis_name)
        self.behavior = behavior
        self.init_state_axes = init_state_axes
        self.state_tag = state_tag
        self.parameters_per_lane = parameters
        self._shared()

    def _over_lanes(
        self, function: Callable[..., Any], in_axes: Any, out_axes: Any, axis_name: str | None
    ) -> Callable[..., Any]:
        if self.behavior == "vmap":
            return super()._over_lanes(function, in_axes, out_axes, axis_name)
        states, size = self.vmap_states, self.axis_size
        mapped: Callable[..., Any] = pmap(
            function, axis_name, in_axes, out_axes, axis_size=size, in_states=states
        )
        return mapped

    @property
    def init_map_size(self) -> int:
        """The number of lanes."""
        return int(self.axis_size or 0)

    def _shared(self) -> Filter:
        """The new States that get no lanes."""
        axes = self.init_state_axes
        if axes is None:
            return None
        if isinstance(axes, Mapping):
            if set(axes) != {0}:
                raise ValueError(
                    describe(
                        f"init_state_axes names the axes {sorted(axes)}.",
                        why="the lanes of States that the initialisation creates lie along their first axis",
                        fix="init_state_axes={0: filter}",
                    )
                )
            axes = axes[0]
        return Not(to_predicate(axes))

    def _init(self, args: Sequence[Any], kwargs: Mapping[str, Any], exclude: Filter) -> None:
        vmap_init_all_states(
            self.module,
            *args,
            axis_size=self.axis_size,
            node_to_exclude=exclude,
            state_to_exclude=self._shared(),
            state_tag=self.state_tag,
            parameters=self.parameters_per_lane,
            **kwargs,
        )

    def map(
        self,
        fn: str | Callable[..., Any],
        in_axes: Any = 0,
        out_axes: Any = 0,
        axis_name: str | None = None,
    ) -> Callable[..., Any]:
        """Another method of the module (by name), or a function that uses it, over the lanes."""
        function = getattr(self.module, fn) if isinstance(fn, str) else fn
        return self._over_lanes(function, in_axes, out_axes, axis_name)
