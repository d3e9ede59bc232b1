"""A NIR graph as a module: its nodes in the order of a step, and its edges.

A step goes through the nodes once, each with the sum of what arrives. An edge that closes a cycle is *delayed*: it brings
the output of the step before, which a State holds; in the first step that is what the node gives when its neurons are as they
begin and nothing arrived yet, such as the bias of an ``Affine``. A ``Delay`` of at least one step breaks a cycle by itself: it gives its
output first, and takes its input at the end of the step.

Which edges are delayed is a choice where several could be. Without one, it is those that lead from a node of a cycle to one
that is no farther from the inputs, in numbers of edges.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx

from stategraph import environ
from stategraph.errors import NIRError, describe
from stategraph.nir.layers import Delay
from stategraph.nir.neurons import NIRModule
from stategraph.state import ShortTermState

Edge = tuple[str, str]


class Input(NIRModule):
    """Where a graph is given what it is called with."""

    KIND = "Input"
    RESTS = True

    def __init__(self, node: str, shape: tuple[int, ...]) -> None:
        super().__init__(node, shape, shape)

    def update(self, x: Any) -> jax.Array:
        """The input."""
        return self.checked(x)


class Output(Input):
    """What a graph gives."""

    KIND = "Output"
    RESTS = False


def closing(names: Iterable[str], inputs: Iterable[str], edges: list[Edge]) -> tuple[Edge, ...]:
    """The edges of cycles that lead no farther from the inputs."""
    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from(edges)
    far: dict[str, float] = dict(nx.multi_source_dijkstra_path_length(graph, set(inputs))) if inputs else {}
    cycle = {name: i for i, part in enumerate(nx.strongly_connected_components(graph)) for name in part}
    return tuple(
        (a, b) for a, b in edges if cycle[a] == cycle[b] and far.get(b, math.inf) <= far.get(a, math.inf)
    )


def order_of(names: list[str], edges: list[Edge], delayed: Iterable[Edge]) -> list[str]:
    """The nodes in the order of a step; an error where a cycle has no delayed edge."""
    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from(edge for edge in edges if edge not in set(delayed))
    if nx.is_directed_acyclic_graph(graph):
        place = {name: i for i, name in enumerate(names)}
        return list(nx.lexicographical_topological_sort(graph, key=place.__getitem__))
    cycle = [a for a, _ in nx.find_cycle(graph)]
    raise NIRError(
        describe(
            f"The cycle {' -> '.join([*cycle, cycle[0]])} has no delayed edge.",
            why="each of its nodes would need the output of the others in the same step",
            fix=f"delayed_edges=[({cycle[-1]!r}, {cycle[0]!r}), ...], or none for the choice of stategraph.nir",
        )
    )


class Graph(NIRModule):
    """A NIR graph that makes steps. Made by ``from_nir`` and ``read``.

    Call it with the input of a step, ``(..., *shape)``; with several ``Input`` nodes by keyword, or with a dict. It gives
    the output, or a dict of outputs by the names of the ``Output`` nodes.

    Args:
      nodes: the modules by name.
      edges: the edges, pairs of names.
      order: the names in the order of a step.
      delayed: the edges that bring the output of the step before.
      dt: the time step; None where nothing needs one.
      node: the name of the graph, where it is a node of another.

    Attributes:
      parts: the modules by name.
      dt: the time step.
      edges, delayed_edges: all edges, and those that are delayed by a step.
      previous: ``ShortTermState`` by the name of a node: its output of the step before, where a delayed edge needs it.
    """

    KIND = "NIRGraph"
    RESTS = True

    def __init__(
        self,
        nodes: Mapping[str, NIRModule],
        edges: tuple[Edge, ...],
        order: list[str],
        delayed: tuple[Edge, ...],
        dt: float | None,
        node: str = "graph",
    ) -> None:
        self.inputs = [name for name, module in nodes.items() if module.KIND == "Input"]
        self.outputs = [name for name, module in nodes.items() if module.KIND == "Output"]
        super().__init__(node, nodes[self.inputs[0]].shape_in, nodes[self.outputs[0]].shape_out)
        self.parts: dict[str, Any] = dict(nodes)
        self.dt = dt
        self.edges = edges
        self.order = order
        self.delayed_edges = delayed
        self.previous: dict[str, ShortTermState[Any]] = {}

    # ------------------------------------------------------------------------------------------------------ State

    def _remembered(self) -> list[str]:
        return list(dict.fromkeys(a for a, _ in self.delayed_edges))

    def at_rest(self) -> jax.Array:
        """What it gives before the first step, without a batch."""
        return self._at_rest(self.outputs[0], {})

    def _at_rest(self, name: str, found: dict[str, jax.Array]) -> jax.Array:
        """What a node gives before the first step; what others give is kept in ``found``."""
        module = self.parts[name]
        if name not in found:
            found[name] = module.at_rest()
            if not module.RESTS:
                parts = [self._at_rest(a, found) for a, b in self.edges if b == name]
                found[name] = module.update(sum(parts[1:], start=parts[0]))
        return found[name]

    def _beginning(self, name: str, batch: tuple[int, ...]) -> jax.Array:
        """What a delayed edge brings in the first step."""
        shape = (*batch, *self.parts[name].shape_out)
        return jnp.broadcast_to(self._at_rest(name, {}), shape).astype(environ.dftype())

    def init_state(self, batch_size: int | None = None) -> None:
        """Make the State of delayed edges; ``stategraph.nn.init_all_states`` makes that of the nodes as well.

        Args:
          batch_size: the length of a batch axis; None for none.
        """
        batch = () if batch_size is None else (batch_size,)
        self.previous = {
            name: ShortTermState(
                self._beginning(name, batch),
                attributes={
                    "nir": "edge",
                    "delay_steps": 1,
                    "to": ", ".join(b for a, b in self.delayed_edges if a == name),
                },
            )
            for name in self._remembered()
        }

    def reset_state(self, batch_size: int | None = None) -> None:
        """Put the State of delayed edges back to where ``init_state`` left it."""
        for name, state in self.previous.items():
            kept = state.shape[: len(state.shape) - len(self.parts[name].shape_out)]
            state.value = self._beginning(name, kept if batch_size is None else (batch_size,)).astype(
                state.dtype
            )

    # ------------------------------------------------------------------------------------------------------- step

    def _given(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
        first = args[0] if len(args) == 1 and not named else None
        if isinstance(first, Mapping):
            args, named = (), first
        elif first is not None and len(self.inputs) == 1:
            return {self.inputs[0]: first}
        if args or set(named) != set(self.inputs):
            raise NIRError(
                describe(
                    f"The graph is called with {len(args)} arrays and the names {sorted(named)}.",
                    why=f"its inputs are {', '.join(map(repr, self.inputs))}",
                    fix="graph(" + ", ".join(f"{name}=..." for name in self.inputs) + ")",
                )
            )
        return dict(named)

    def update(self, *args: Any, **named: Any) -> Any:
        """One step."""
        given = self._given(args, named)
        missing = [name for name in self._remembered() if name not in self.previous]
        if missing:
            raise NIRError(
                describe(
                    f"The delayed edge from {missing[0]!r} has no State yet.",
                    fix="stategraph.nn.init_all_states(graph) before the first step",
                )
            )
        before = {name: state.value for name, state in self.previous.items()}
        now: dict[str, Any] = {}
        late: list[str] = []

        def arriving(name: str) -> Any:
            parts = [
                before[a] if (a, b) in self.delayed_edges else now[a] for a, b in self.edges if b == name
            ]
            return sum(parts[1:], start=parts[0])

        for name in self.order:
            module = self.parts[name]
            if isinstance(module, Delay) and module.is_late:
                now[name] = module.read()
                late.append(name)
            else:
                now[name] = module(given[name] if name in given else arriving(name))
        for name in late:
            self.parts[name].push(arriving(name))
            self.parts[name].move()
        for name, state in self.previous.items():
            state.value = jnp.broadcast_to(now[name], state.shape).astype(state.dtype)
        if len(self.outputs) == 1:
            return now[self.outputs[0]]
        return {name: now[name] for name in self.outputs}
