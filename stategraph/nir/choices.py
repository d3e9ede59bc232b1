"""What NIR leaves open, and a program has to fix: the time step, the integrator, the reset, what a threshold includes.

NIR's equations are in continuous time; a program makes steps of ``dt``, in the unit of the graph's time constants (seconds,
by custom). Within a step inputs are constant. What was chosen is kept in the attributes of State symbols, so that programs
show it, and in the metadata of written graphs, under ``stategraph``, so that reading them needs no arguments.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from stategraph.errors import NIRError, describe

KEY = "stategraph"
"""Where nodes and graphs keep what was chosen, in their metadata."""

INTEGRATORS = ("exact", "euler", "semi_implicit_euler")
RESETS = ("v_reset", "subtract")
SPIKES = ("above", "at")


def _one_of(options: tuple[str, ...]) -> Any:
    def check(self: Any, field: Any, value: Any) -> None:
        if value not in options:
            raise ValueError(f"{field.name} is one of {', '.join(map(repr, options))}, not {value!r}")

    return check


@attrs.frozen
class Choices:
    """How a neuron makes its steps.

    Args:
      dt: the time step, in the unit of the graph's time constants; None for nodes that need none.
      integrator: ``exact``: the solution of the equations for an input that is constant within the step; ``euler``: forward
        Euler; ``semi_implicit_euler``: Euler in which the potential already follows the new synaptic current. The last two
        differ for ``CubaLI`` and ``CubaLIF`` only.
      reset: ``v_reset``: a spike puts the potential to ``v_reset``, as NIR says; ``subtract``: it takes
        ``v_threshold - v_reset`` off.
      spikes: ``above``: a spike where the potential is above the threshold, as NIR says; ``at``: also where it is at it.
    """

    dt: float | None = None
    integrator: str = attrs.field(default="exact", validator=_one_of(INTEGRATORS))
    reset: str = attrs.field(default="v_reset", validator=_one_of(RESETS))
    spikes: str = attrs.field(default="above", validator=_one_of(SPIKES))

    def step(self, node: str) -> float:
        """The time step; an error that names the node when nobody said it."""
        if self.dt is None:
            raise NIRError(
                describe(
                    f"The node {node!r} needs a time step.",
                    why="its equations are in continuous time, and the graph does not say how long a step is",
                    fix="stategraph.nir.from_nir(graph, dt=1e-3), in the unit of the graph's time constants",
                )
            )
        if not self.dt > 0:
            raise ValueError(f"dt is positive, not {self.dt!r}")
        return float(self.dt)


def recorded(metadata: Any) -> dict[str, Any]:
    """What a graph or node says was chosen, as plain Python."""
    found = metadata.get(KEY, {}) if isinstance(metadata, Mapping) else {}
    return {str(key): _plain(value) for key, value in found.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value


def chosen(metadata: Any, given: Choices, said: Mapping[str, Any]) -> Choices:
    """The choices for a node or graph: what was said in the call, else what its metadata records, else those around it."""
    names = {field.name for field in attrs.fields(Choices)}
    kept = {key: value for key, value in recorded(metadata).items() if key in names and key not in said}
    if given.dt is not None and kept.get("dt", given.dt) != given.dt:
        raise NIRError(
            describe(
                f"Parts of the graph record the time steps {given.dt} and {kept['dt']}.",
                why="all of a graph makes the same steps",
                fix="stategraph.nir.from_nir(graph, dt=...)",
            )
        )
    return attrs.evolve(given, **kept)


def of_neuron(choices: Choices, dynamics: bool, spikes: bool) -> dict[str, Any]:
    """What the metadata of a node records."""
    found = {"integrator": choices.integrator} if dynamics else {}
    if dynamics and spikes:
        found["reset"] = choices.reset
    return {**found, "spikes": choices.spikes} if spikes else found


def of_graph(dt: float | None, delayed: Iterable[tuple[str, str]] = ()) -> dict[str, Any]:
    """The metadata of a graph."""
    found: dict[str, Any] = {"delayed_edges": json.dumps([list(edge) for edge in delayed])}
    return {KEY: found if dt is None else {**found, "dt": dt}}
