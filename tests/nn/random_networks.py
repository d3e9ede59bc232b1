"""Random networks: neurons, synapses, connections, delays, inputs and monitors, all drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

import stategraph as sg
from stategraph import event, init, nn

SIZES = (1, 3, 8, 17, 64, 100)
DRIVES = {
    "IF": (0.0, 3.0), "LIF": (0.5, 3.0), "LIFRef": (0.5, 3.0), "ALIF": (0.5, 3.0), "ExpIF": (5.0, 30.0), "AdExIF": (5.0, 40.0),
    "QIF": (5.0, 30.0), "Izhikevich": (5.0, 20.0), "GIF": (0.5, 3.0), "HH": (3.0, 15.0),
}  # fmt: skip
"""Neurons, and the currents that let them spike."""
PARAMETERS: dict[str, dict[str, tuple[float, float]]] = {
    "LIF": {"R": (0.5, 2), "tau": (2, 20), "V_th": (0.5, 1.5), "V_rest": (-0.3, 0.3)},
    "LIFRef": {"tau": (2, 20), "tau_ref": (0.3, 3)},
    "ALIF": {"R": (0.5, 2), "tau": (2, 20), "tau_a": (20, 100), "beta": (0.05, 0.5)},
    "AdExIF": {"tau": (5, 20), "a": (0.1, 1), "b": (0.5, 2)},
    "Izhikevich": {"a": (0.01, 0.1), "d": (2, 8)},
    "GIF": {"R": (10, 25), "tau": (10, 25), "A1": (-1, 1)},
    "HH": {"gL": (0.02, 0.05)},
}


class Draw:
    """Choices of one seed."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def one(self, *options: Any) -> Any:
        return options[self.random.integers(len(options))]

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def number(self, low: float, high: float) -> float:
        return float(np.round(self.random.uniform(low, high), 3))

    def parameter(self, size: int, low: float, high: float) -> Any:
        """A number, or an array with one for each, of NumPy or JAX."""
        each = self.random.uniform(low, high, size).astype(np.float32)
        number = self.number(low, high)
        return self.one(
            number, number, number, np.float32(number), jnp.asarray(number), each, jnp.asarray(each)
        )


class Matrix(nn.Module):
    """``spikes @ W``."""

    def __init__(self, weight: Any) -> None:
        super().__init__()
        self.weight = sg.ParamState(weight)
        self.in_size, self.out_size = weight.shape[:1], weight.shape[1:]

    def update(self, spikes: Any) -> Any:
        return spikes @ self.weight.value


def neurons(draw: Draw, size: int) -> nn.Neuron:
    kind = draw.one(*DRIVES)
    given = {
        name: draw.parameter(size, *between)
        for name, between in PARAMETERS.get(kind, {}).items()
        if draw.chance(0.6)
    }
    population: nn.Neuron = getattr(nn, kind)(size, spk_reset=draw.one("soft", "hard"), **given)
    return population


def connections(draw: Draw, pre: int, post: int, seed: int) -> Any:
    weight = draw.one(0.3, draw.number(-0.5, 0.8), init.Uniform(0.0, 0.5), init.Normal(0.1, 0.3))
    makers: dict[str, Callable[[], Any]] = {
        "FixedProb": lambda: event.FixedProb(pre, post, draw.number(0.05, 0.9), weight, seed=seed),
        "FixedNumConn": lambda: event.FixedNumConn(pre, post, min(post, 3), weight, seed=seed),
        "Sparse": lambda: event.Sparse(event.CSR.from_dense(draw.random.random((pre, post)) < 0.3), weight),
        "Linear": lambda: event.Linear(pre, post, weight),
        "AllToAll": lambda: event.AllToAll(pre, post, weight),
        "JITConn": lambda: event.JITConn(pre, post, 0.3, draw.number(0.1, 0.5), seed=seed),
        "Delayed": lambda: event.Delayed(
            event.FixedProb(pre, post, 0.4, weight, seed=seed), init.Uniform(0.1, 0.8)
        ),
        "Matrix": lambda: Matrix(jnp.asarray(draw.random.normal(0, 0.3, (pre, post)), jnp.float32)),
    }
    return makers[draw.one(*makers)]()


class Network(nn.Module):
    """Up to three populations, and up to four projections between them and from Poisson sources."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = Draw(seed)
        sizes = [draw.one(*SIZES) for _ in range(draw.one(1, 2, 2, 3))]
        self.populations = [neurons(draw, size) for size in sizes]
        self.drives = [draw.number(*DRIVES[type(population).__name__]) for population in self.populations]
        self.sources: list[Any] = []
        self.projections: list[Any] = []
        self.begins: list[tuple[bool, int]] = []
        """Of each projection: whether it begins with a source, and with which, or with which population."""
        for number in range(draw.one(1, 2, 3, 4)):
            source, target = draw.chance(0.3), draw.one(*range(len(sizes)))
            if source:
                pre = draw.one(*SIZES)
                self.begins.append((True, len(self.sources)))
                self.sources.append(nn.PoissonSpike(pre, draw.parameter(pre, 50, 800)))
            else:
                sender = draw.one(*range(len(sizes)))
                pre = sizes[sender]
                self.begins.append((False, sender))
            comm = connections(draw, pre, sizes[target], 7 * seed + number)
            self.projections.append(self._projection(draw, pre, comm, self.populations[target]))

    def _projection(self, draw: Draw, pre: int, comm: Any, post: Any) -> Any:
        rest = 0.0 if type(post).__name__ in ("IF", "LIF", "LIFRef", "ALIF") else -60.0
        out = draw.one(
            nn.COBA.desc(E=rest + draw.number(-20, 40)),
            nn.CUBA.desc(),
            nn.CUBA.desc(scale=1.7),
            nn.MgBlock.desc(),
        )
        each = draw.random.uniform(0.1, 0.9, pre).astype(np.float32)
        given = {"comm": comm, "post": post, "delay": draw.one(None, None, 0.1, 0.5, each)}
        kind = draw.one("Delta", "Current", "AlignPost", "AlignPost", "AlignPre")
        if kind == "Delta":
            return nn.DeltaProj(**given)
        if kind == "Current":
            return nn.CurrentProj(out=out(), **given)
        if kind == "AlignPost":
            synapse = draw.one(
                nn.Expon.desc(tau=draw.number(1, 10)), nn.DualExpon.desc(), nn.Alpha.desc(tau=2.5)
            )
            return nn.AlignPostProj(syn=synapse, out=out, **given)
        synapse = getattr(nn, draw.one("AMPA", "GABAa", "NMDA", "BioNMDA", "STP", "STD", "Expon"))
        return nn.AlignPreProj(syn=synapse(pre), out=out(), **given)

    def update(self, x: Any = 1.0) -> Any:
        spikes = [population.get_spike() for population in self.populations]
        drawn = [source() for source in self.sources]
        for projection, (source, number) in zip(self.projections, self.begins, strict=True):
            projection((drawn if source else spikes)[number])
        sent = [
            population(x * drive) for population, drive in zip(self.populations, self.drives, strict=True)
        ]
        return self.populations[0].V.value.mean(), sent


def make(seed: int) -> Network:
    sg.random.seed(seed)
    network = nn.init_all_states(Network(seed))
    nn.clock(network)
    return network


def inputs(draw: Draw, steps: int) -> Any:
    """None, rows, or a function of the time."""
    scale = draw.number(0.1, 0.5)
    rows = draw.random.uniform(0.5, 1.5, steps).astype(np.float32)
    return draw.one(None, rows, lambda t: 1.0 + scale * jnp.sin(t))


def monitors(network: Network, draw: Draw) -> dict[str, tuple[Any, Callable[[Any], Any]]]:
    """(what ``nn.run`` is given, a function of what the model returned for the loop) by name."""
    found: dict[str, tuple[Any, Callable[[Any], Any]]] = {}
    for i, population in enumerate(network.populations):
        found[f"V{i}"] = population.V, lambda _, V=population.V: V.value
        found[f"spikes{i}"] = population.spike, lambda output, i=i: output[1][i] != 0
    states = [
        (path, state)
        for path, state in sg.graph.states(network).items()
        if isinstance(state.value, jnp.ndarray) and state.value.dtype == jnp.float32 and "clock" not in path
    ]
    for number in range(2):
        _, state = draw.one(*states)
        scale = draw.number(0.5, 2)
        found[f"state{number}"] = state, lambda _, state=state: state.value
        found[f"scaled{number}"] = (
            lambda state=state, scale=scale: state.value * scale + 1.0,
            lambda _, state=state, scale=scale: state.value * scale + 1.0,
        )
    found["mean"] = (lambda output: output[0]), (lambda output: output[0])
    return {name: pair for name, pair in found.items() if draw.chance(0.6)}
