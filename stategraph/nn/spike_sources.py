"""Where spikes come from that no neuron makes: random ones at given rates, and lists of times. Rates in Hz, times in ms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from stategraph import environ, random
from stategraph.errors import describe
from stategraph.init import param
from stategraph.nn.dynamics import Dynamics, Prefetch
from stategraph.nn.listening import Spiking
from stategraph.nn.module import Module
from stategraph.nn.population import Parameter, Population, known, values
from stategraph.nn.units import in_units_of, like, now, number, parameter, step, units_of
from stategraph.state import State
from stategraph.typing import Size
from stategraph.units import without_units

__all__ = ["PoissonEncoder", "PoissonInput", "PoissonSpike", "SpikeTime"]


def _probability(rate: Any) -> Any:
    """That of at least one spike of a Poisson process in a step: ``1 - exp(-rate dt)``."""
    if known(rate, step()) and isinstance(rate, (int, float, np.ndarray)):
        return -np.expm1(-np.asarray(rate) * step() / 1000)
    return -jnp.expm1(-jnp.asarray(number(rate, "Hz", "A rate")) * step() / 1000)


class PoissonEncoder(Spiking, Dynamics):
    """Spikes of Poisson processes with the rates that it is called with: in each step, with the probability
    ``1 - exp(-rate dt)``. Dayan and Abbott, "Theoretical Neuroscience" (2001), section 1.4.

    Args:
      in_size: the shape of the population.
      spk_type: the dtype of the spikes.
      name: a name for messages and listings.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> sg.random.seed(0)
    >>> encoder = sg.nn.PoissonEncoder(2)
    >>> with sg.environ.context(dt=1.0):
    ...     spikes = sg.compile.for_loop(lambda i: encoder(jnp.array([0.0, 100.0])), jnp.arange(1000))
    >>> spikes.dtype, int(spikes[:, 0].sum()), 60 < int(spikes[:, 1].sum()) < 130
    (dtype('bool'), 0, True)
    """

    def __init__(self, in_size: Size, spk_type: Any = bool, name: str | None = None) -> None:
        super().__init__(in_size, name)
        self.spk_type = spk_type

    def update(self, freqs: Any) -> jax.Array:
        """One step with the rates ``freqs`` (Hz): ``(*in_size)`` or, for a batch, ``(batch, *in_size)``."""
        probability = _probability(freqs)
        shape = jnp.broadcast_shapes(probability.shape, self.varshape)
        spikes: jax.Array = (random.rand(*shape) < probability).astype(self.spk_type)
        return spikes


class PoissonSpike(PoissonEncoder):
    """Spikes of Poisson processes with fixed rates: ``PoissonEncoder`` with the rates ``freqs``.

    Args:
      in_size: the shape of the population.
      freqs: the rates (Hz): a number, an array of the shape of the population, an initialiser, or a State.
      spk_type: the dtype of the spikes.
      name: a name for messages and listings.

    Example:

    >>> import stategraph as sg
    >>> with sg.environ.context(dt=1.0):
    ...     sg.nn.PoissonSpike(3, freqs=1e6)()
    Array([ True,  True,  True], dtype=bool)
    """

    UNITS: ClassVar[Mapping[str, str]] = {"freqs": "Hz"}

    def __init__(
        self, in_size: Size, freqs: Parameter, spk_type: Any = bool, name: str | None = None
    ) -> None:
        super().__init__(in_size, spk_type, name)
        freqs = parameter(self, "freqs", freqs)
        self.freqs = (
            freqs if isinstance(freqs, (State, Module)) else param(freqs, self.varshape, allow_none=False)
        )

    def update(self) -> jax.Array:  # type: ignore[override]
        """One step; returns the spikes."""
        return super().update(*values(self.freqs))


class PoissonInput(Module):
    """Independent Poisson processes that send to a population or a State: in each step it gets ``weight`` times the number of
    spikes of ``num_input`` processes, drawn from the binomial distribution.

    A population gets it as a delta input, at the end of its next step: the neurons that it brings to the threshold spike. To a
    State it is added at once.

    Args:
      target: the population; or a State, as ``population.prefetch("V")``.
      indices: which elements of it (of its last axis); None for all.
      num_input: how many processes send to each element.
      freq: the rate of each (Hz).
      weight: what a spike adds.
      name: a name for messages and listings.

    Example:

    >>> import stategraph as sg
    >>> sg.random.seed(0)
    >>> neurons = sg.nn.init_all_states(sg.nn.LIF(3, V_th=10.0))
    >>> noise = sg.nn.PoissonInput(neurons, [0, 2], num_input=20, freq=1e6, weight=0.25)
    >>> with sg.environ.context(dt=0.1):
    ...     noise()
    ...     _ = neurons()
    >>> neurons.V.value
    Array([5., 0., 5.], dtype=float32)
    """

    UNITS: ClassVar[Mapping[str, str]] = {"freq": "Hz"}

    def __init__(
        self,
        target: Population | Prefetch,
        indices: Any,
        num_input: int,
        freq: Parameter,
        weight: Parameter,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        if not isinstance(target, (Population, Prefetch)):
            raise TypeError(
                describe(
                    f"PoissonInput sends to a {type(target).__name__}.",
                    why="the target is a population, or a State of one, which may be made later",
                    fix="target=population, or target=population.prefetch('V')",
                )
            )
        self.target = target
        self.indices = None if indices is None else np.asarray(indices)
        self.num_input = num_input
        self.freq = parameter(self, "freq", freq)
        self.weight = weight
        self.key = target.new_input_key(type(self).__name__) if isinstance(target, Population) else None

    def update(self) -> None:
        """Send the spikes of one step."""
        where = self._where()
        state = where.get_item()
        unit = units_of(where.module).get(where.item, "1")
        freq, weight = values(self.freq, in_units_of(state, self.weight, "The weight of PoissonInput", unit))
        held = without_units(state.value)
        shape = held.shape if self.indices is None else held[..., self.indices].shape
        added = (weight * _counts(self.num_input, _probability(freq), shape)).astype(held.dtype)
        if self.indices is not None:
            added = jnp.zeros_like(held).at[..., self.indices].add(added)
        if isinstance(self.target, Population):
            self.target.add_delta_input(self.key or "", like(state.value, added))
        else:
            state.value = like(state.value, held + added)

    def _where(self) -> Prefetch:
        """Where the State is that is sent to, or one of the same shape."""
        if isinstance(self.target, Prefetch):
            return self.target
        return Prefetch(self.target, next(iter(self.target._beginnings()), "V"))


def _counts(number: int, probability: Any, shape: tuple[int, ...]) -> jax.Array:
    """Draws from the binomial distribution. Where few spikes are expected, by inversion: the number of values of the
    distribution function that a uniform draw exceeds, which is much cheaper.
    """
    if not known(number, probability) or np.ndim(probability) or number * float(probability) > FEW:
        return random.binomial(number, probability, shape)
    p = float(probability)
    if p == 1.0:
        return jnp.full(shape, number, jnp.int32)
    below: list[float] = []
    total = mass = (1 - p) ** number
    while total < 1 - 1e-9 and len(below) < number:
        below.append(total)
        mass *= (number - len(below) + 1) / len(below) * p / (1 - p)
        total += mass
    draws = random.rand(*shape)
    counts: jax.Array = jnp.zeros(shape, jnp.int32)
    for value in below:
        counts = counts + (draws >= value)
    return counts


FEW = 16.0


class SpikeTime(Spiking, Dynamics):
    """Spikes at given times. Needs the setting ``i``, the number of the step, or ``t``, the time (ms), of
    ``stategraph.environ``.

    Args:
      in_size: the number of neurons.
      indices: which neuron spikes, ``(spikes,)``.
      times: when (ms), ``(spikes,)``.
      weights: how much each spike counts: a number or ``(spikes,)``; those of one neuron in one step are added.
      time_as_step: which step a time belongs to: ``"round"``, ``"floor"`` or ``"ceil"`` of ``time / dt``, or a function of it.
      name: a name for messages and listings.

    Example:

    >>> import stategraph as sg
    >>> source = sg.nn.SpikeTime(2, indices=[0, 1, 0], times=[0.0, 1.0, 3.0])
    >>> for i in range(4):
    ...     with sg.environ.context(dt=1.0, i=i):
    ...         print(source())
    [1. 0.]
    [0. 1.]
    [0. 0.]
    [1. 0.]
    """

    UNITS: ClassVar[Mapping[str, str]] = {"times": "ms"}

    def __init__(
        self,
        in_size: Size,
        indices: Any,
        times: Any,
        weights: Any = 1.0,
        time_as_step: str | Callable[[Any], Any] = "round",
        name: str | None = None,
    ) -> None:
        super().__init__(in_size, name)
        times = parameter(self, "times", times)
        which, when = np.asarray(indices), np.asarray(times, np.float64)
        many = np.asarray(weights, environ.dftype())
        if len(self.varshape) != 1:
            raise ValueError(f"SpikeTime has a number of neurons, not the shape {self.varshape}")
        if which.ndim != 1 or which.shape != when.shape or many.shape not in ((), which.shape):
            raise ValueError(
                describe(
                    f"SpikeTime is given indices {which.shape}, times {when.shape} and weights {many.shape}.",
                    why="there is one of each for every spike, or one weight for all",
                )
            )
        if which.size and not (
            np.issubdtype(which.dtype, np.integer) and which.min() >= 0 and which.max() < self.varshape[0]
        ):
            raise ValueError(f"indices are integers from 0 to {self.varshape[0] - 1}")
        if not callable(time_as_step) and time_as_step not in _ROUNDINGS:
            raise ValueError(
                f"time_as_step is one of {', '.join(_ROUNDINGS)}, or a function, not {time_as_step!r}"
            )
        self.indices, self.times = which.astype(np.int32), when
        self.weights = np.broadcast_to(many, which.shape)
        self.time_as_step = time_as_step

    def _steps(self) -> np.ndarray:
        """The step of each spike; what is within rounding of a whole number is that."""
        rounding = self.time_as_step if callable(self.time_as_step) else _ROUNDINGS[self.time_as_step]
        return np.asarray(rounding(np.round(self.times / step(), 6))).astype(np.int32)

    def update(self) -> jax.Array:
        """The spikes of this step, ``(in_size,)``."""
        current = environ.get(environ.I, default=None)
        if current is None:
            current = jnp.round(now() / step()).astype(jnp.int32)
        steps = self._steps()
        order = np.argsort(steps, kind="stable")
        width = int(np.unique(steps, return_counts=True)[1].max(initial=0))
        spikes: jax.Array = jnp.zeros(self.varshape, self.weights.dtype)
        if not width:
            return spikes
        last = int(steps.max())
        starts = jnp.asarray(
            np.searchsorted(steps[order], np.arange(last + 2))
        )  # where each step's spikes begin
        row = jnp.clip(current, 0, last)
        places = starts[row] + jnp.arange(width)
        held = jnp.minimum(places, len(steps) - 1)
        due = (row == current) & (places < starts[row + 1])
        indices, weights = jnp.asarray(self.indices[order]), jnp.asarray(self.weights[order])
        return spikes.at[indices[held]].add(jnp.where(due, weights[held], 0))


_ROUNDINGS: dict[str, Callable[[Any], Any]] = {"round": np.round, "floor": np.floor, "ceil": np.ceil}
