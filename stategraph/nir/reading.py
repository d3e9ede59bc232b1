"""NIR graphs into modules. What could only be read by changing it is refused."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from stategraph import _extras
from stategraph.errors import NIRError, describe
from stategraph.nir.choices import Choices, chosen, recorded
from stategraph.nir.graph import Edge, Graph, Input, Output, closing, order_of
from stategraph.nir.layers import Affine, Convolution, Delay, Flatten, Linear, Pool, Scale
from stategraph.nir.neurons import NEURONS, NIRModule, Spike, Threshold
from stategraph.surrogate import ReluGrad


def package(purpose: str) -> Any:
    """The package ``nir``."""
    return _extras.load("nir", "nir", purpose)


def read(path: str | os.PathLike[str], **options: Any) -> Graph:
    """The module for a NIR file (HDF5).

    Args:
      path: the file.
      **options: those of ``from_nir``.

    Raises:
      NIRError: for a file that is none, and a graph that cannot become a module as it is.
      OSError: for a file that cannot be opened.
    """
    library = package("stategraph.nir.read")
    try:
        graph = library.read(os.fspath(path), type_check=False)
    except OSError as error:
        if error.errno is not None:  # h5py raises OSErrors of its own for files that are no HDF5
            raise
        raise _unreadable(path, error) from error
    except Exception as error:
        raise _unreadable(path, error) from error
    return from_nir(graph, **options)


def _unreadable(path: str | os.PathLike[str], error: Exception) -> NIRError:
    return NIRError(
        describe(
            f"{os.fspath(path)!r} is not a NIR file.",
            why=f"the package nir cannot read it: {type(error).__name__}: {error}",
            fix="write it again with nir.write(path, graph); a write that failed leaves half a file",
        )
    )


def from_nir(
    graph: Any,
    *,
    dt: float | None = None,
    integrator: str | None = None,
    reset: str | None = None,
    spikes: str | None = None,
    delayed_edges: Iterable[Edge] | None = None,
    batch_axes: int = 0,
    spk_fun: Spike = ReluGrad(),  # noqa: B008 -- immutable
) -> Graph:
    """The module for a NIR graph. What is not said here is what the graph's metadata records, if ``to_nir`` wrote it.

    Args:
      graph: a ``nir.NIRGraph``.
      dt: the time step, in the unit of the graph's time constants (seconds, by custom). Needed if a node has dynamics.
      integrator: ``"exact"`` (default), ``"euler"`` or ``"semi_implicit_euler"``, see ``Choices``.
      reset: ``"v_reset"`` (default) or ``"subtract"``.
      spikes: ``"above"`` the threshold (default), or also ``"at"`` it.
      delayed_edges: which edges bring the output of the step before: any, but at least one in each cycle; see ``stategraph.nir.graph``
        for those that do when nobody says.
      batch_axes: how many axes at the front of the shapes of ``Input`` and ``Output`` nodes belong to a batch or to time. Tools that
        export a network by running it on sample data may write these axes.
      spk_fun: what makes spikes of the distance from the threshold: a surrogate.

    Returns:
      A module, without State: call ``stategraph.nn.init_all_states``. Its weights are ``ParamState``.

    Raises:
      NIRError: for what it would have to change or guess: a node or a parameter that it does not know, shapes that do not
        fit, a missing ``dt``, delays that are no whole number of steps.

    Example:

    >>> import nir, numpy as np
    >>> import stategraph as sg
    >>> one = np.ones(1)
    >>> graph = nir.NIRGraph.from_list(
    ...     nir.Linear(weight=np.full((1, 2), 0.6)), nir.LIF(tau=0.01 * one, r=one, v_leak=0 * one, v_threshold=one)
    ... )
    >>> net = sg.nn.init_all_states(sg.nir.from_nir(graph, dt=0.001))
    >>> spikes = sg.compile.for_loop(net, np.ones((50, 2), "f"))
    >>> int(spikes.sum())  # tau log 6 = 18 ms between spikes
    2
    """
    kind = package("stategraph.nir.from_nir").NIRGraph
    if not isinstance(graph, kind):
        raise TypeError(
            f"from_nir takes a nir.NIRGraph, not a {type(graph).__name__}; for a file stategraph.nir.read"
        )
    named = {"dt": dt, "integrator": integrator, "reset": reset, "spikes": spikes}
    said = {name: value for name, value in named.items() if value is not None}
    choices = chosen(graph.metadata, Choices(**said), said)  # type: ignore[arg-type]
    edges = None if delayed_edges is None else tuple((str(a), str(b)) for a, b in delayed_edges)
    ends = (
        {name: _without_axes(node, batch_axes) for name, node in graph.nodes.items()} if batch_axes else None
    )
    return _Reader(said, spk_fun).graph(graph, choices, "graph", edges, ends)


def _without_axes(node: Any, axes: int) -> Any:
    """An ``Input`` or ``Output`` node without its first axes; others as they are."""
    if type(node).__name__ not in ("Input", "Output"):
        return node
    new = copy.copy(node)
    for kind in ("input_type", "output_type"):
        types = getattr(node, kind) or {}
        setattr(new, kind, {key: None if shape is None else shape[axes:] for key, shape in types.items()})
    return new


class _Reader:
    """Makes the modules of one graph."""

    def __init__(self, said: Mapping[str, Any], spk_fun: Spike) -> None:
        self.said = said
        self.spk_fun = spk_fun

    # ------------------------------------------------------------------------------------------------------ graphs

    def graph(
        self,
        graph: Any,
        choices: Choices,
        label: str,
        delayed: tuple[Edge, ...] | None,
        given: Mapping[str, Any] | None = None,
    ) -> Graph:
        given = graph.nodes if given is None else given
        names = list(given)
        edges = _edges(graph, label)
        kinds = {name: type(node).__name__ for name, node in given.items()}
        inputs = [name for name in names if kinds[name] == "Input"]
        _check_ends(label, kinds, edges)
        late = [name for name in names if kinds[name] == "Delay" and _is_late(given[name], choices)]
        direct = [(a, b) for a, b in edges if b not in late]
        if delayed is None:
            text = recorded(graph.metadata).get("delayed_edges")
            delayed = None if text is None else tuple((a, b) for a, b in json.loads(text))
        if delayed is None:
            delayed = closing(names, inputs, direct)
        unknown = [edge for edge in delayed if edge not in edges]
        if unknown:
            raise NIRError(
                f"delayed_edges names {unknown[0]!r}, and {label} has no such edge; it has {list(edges)}"
            )
        order = order_of(names, direct, delayed)
        nodes: dict[str, NIRModule] = {}
        for name in order:
            arriving = {nodes[a].shape_out for a, b in edges if b == name and a in nodes}
            if len(arriving) > 1:
                raise NIRError(
                    describe(
                        f"Outputs of the shapes {' and '.join(map(str, sorted(arriving)))} arrive at the node {name!r}.",
                        why="what arrives is added",
                    )
                )
            nodes[name] = self.node(name, given[name], choices, next(iter(arriving), None))
        _check_shapes(nodes, edges)
        return Graph({name: nodes[name] for name in names}, edges, order, delayed, choices.dt, label)

    # ------------------------------------------------------------------------------------------------------- nodes

    def node(self, name: str, node: Any, choices: Choices, shape: tuple[int, ...] | None) -> NIRModule:
        kind = type(node).__name__
        make = _MAKERS.get(kind)
        if kind == "NIRGraph":
            inner = chosen(node.metadata, choices, self.said)
            found = self.graph(node, inner, name, None)
            if len(found.inputs) != 1 or len(found.outputs) != 1:
                raise NIRError(
                    describe(
                        f"The graph inside the node {name!r} has {len(found.inputs)} inputs and {len(found.outputs)} outputs.",
                        why="an edge to or from a node does not say which of them it means",
                        fix="move its nodes into the graph around it",
                    )
                )
            return found
        if make is None and kind not in NEURONS:
            raise NIRError(
                describe(
                    f"The node {name!r} is a {kind}, which stategraph.nir does not know.",
                    why=f"it knows {', '.join(sorted([*_MAKERS, *NEURONS, 'NIRGraph']))}",
                    fix="write it with these nodes",
                )
            )
        _check_fields(name, node)
        own = chosen(node.metadata, choices, self.said)
        if make is not None:
            return make(name, node, own, shape, self.spk_fun)
        return NEURONS[kind](name, _parameters(name, node, shape), own, self.spk_fun)


_COMMON = {"input_type", "output_type", "metadata"}


def _parameters(name: str, node: Any, arriving: tuple[int, ...] | None) -> dict[str, np.ndarray]:
    """The arrays of a node that works element by element. Those without an axis are one number for all elements."""
    found = {
        field.name: np.asarray(getattr(node, field.name))
        for field in fields(node)
        if field.name not in _COMMON
    }
    shapes = {value.shape for value in found.values() if value.ndim}
    if len(shapes) > 1:
        raise NIRError(
            f"the parameters of the node {name!r} have the shapes {sorted(shapes)}; they have to be equal"
        )
    shape = next(iter(shapes)) if shapes else _shape(name, None, arriving)
    return {field: np.broadcast_to(value, shape) for field, value in found.items()}


_KNOWN: dict[str, set[str]] = {
    "Input": set(),
    "Output": set(),
    "I": {"r"},
    "IF": {"r", "v_threshold", "v_reset"},
    "LI": {"tau", "r", "v_leak"},
    "LIF": {"tau", "r", "v_leak", "v_threshold", "v_reset"},
    "CubaLI": {"tau_syn", "tau_mem", "r", "v_leak", "w_in"},
    "CubaLIF": {"tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"},
    "Threshold": {"threshold"},
    "Linear": {"weight"},
    "Affine": {"weight", "bias"},
    "Scale": {"scale"},
    "Conv1d": {"input_shape", "weight", "stride", "padding", "dilation", "groups", "bias"},
    "Conv2d": {"input_shape", "weight", "stride", "padding", "dilation", "groups", "bias"},
    "SumPool2d": {"kernel_size", "stride", "padding"},
    "AvgPool2d": {"kernel_size", "stride", "padding"},
    "Flatten": {"start_dim", "end_dim"},
    "Delay": {"delay"},
}
"""The parameters of each node that have a meaning here."""


def _check_fields(name: str, node: Any) -> None:
    kind = type(node).__name__
    extra = [key for key in vars(node) if key not in _COMMON and key not in _KNOWN[kind]]
    if extra:
        raise NIRError(
            describe(
                f"The node {name!r}, a {kind}, has a parameter {extra[0]!r}.",
                why="it has no counterpart in stategraph.nir, and leaving it out would change the model",
                fix="remove it from the node, if it means nothing",
            )
        )


def _edges(graph: Any, label: str) -> tuple[Edge, ...]:
    edges = tuple((str(a), str(b)) for a, b in graph.edges)
    for a, b in edges:
        for name in (a, b):
            if name not in graph.nodes:
                raise NIRError(f"{label} has an edge {(a, b)!r}, and no node {name!r}")
    twice = [edge for edge in edges if edges.count(edge) > 1]
    if twice:
        raise NIRError(
            describe(
                f"{label} has the edge {twice[0]!r} twice.",
                why="it could mean the output, or twice the output",
                fix="remove one, or put a nir.Scale between",
            )
        )
    return edges


def _check_ends(label: str, kinds: Mapping[str, str], edges: tuple[Edge, ...]) -> None:
    for kind, what in (("Input", "receives"), ("Output", "gives")):
        if kind not in kinds.values():
            raise NIRError(
                describe(f"{label} has no {kind} node.", why=f"it {what} nothing", fix=f"add a nir.{kind}")
            )
    reached = {b for _, b in edges}
    for name, kind in kinds.items():
        if kind == "Input" and name in reached:
            raise NIRError(f"an edge leads to the Input node {name!r}")
        if kind != "Input" and name not in reached:
            raise NIRError(
                describe(
                    f"Nothing leads to the node {name!r}.",
                    why="its input is not known",
                    fix="add an edge to it, or remove it",
                )
            )


def _is_late(node: Any, choices: Choices) -> bool:
    return choices.dt is not None and bool(np.all(np.asarray(node.delay) > choices.dt / 2))


def _check_shapes(nodes: Mapping[str, NIRModule], edges: tuple[Edge, ...]) -> None:
    for a, b in edges:
        gives, takes = nodes[a].shape_out, nodes[b].shape_in
        if gives == takes:
            continue
        fix = f"write the parameters of {b!r} in the shape {gives}" if nodes[b].KIND in NEURONS else ""
        for end, long, short in ((a, gives, takes), (b, takes, gives)):
            axes = len(long) - len(short)
            if nodes[end].KIND in ("Input", "Output") and axes > 0 and long[axes:] == short:
                fix = f"stategraph.nir.from_nir(graph, batch_axes={axes}, ...), if {long[:axes]} are axes of a batch or of time"
        raise NIRError(
            describe(
                f"The node {a!r} gives {gives}, and {b!r} takes {takes}.",
                why="stategraph.nir repeats or reshapes nothing by itself",
                fix=fix,
            )
        )


# ------------------------------------------------------------------------------------------------------------- makers


def _shape(name: str, value: Any, arriving: tuple[int, ...] | None) -> tuple[int, ...]:
    """A shape that the graph declares, else that of what arrives."""
    if value is not None:
        return tuple(int(n) for n in np.atleast_1d(value))
    if arriving is None:
        raise NIRError(
            describe(
                f"The shape of the input of the node {name!r} is not known.",
                why="the graph does not say it, and what arrives comes from a step before",
                fix="give the node its input_type (or input_shape), or parameters of that shape",
            )
        )
    return arriving


def _numbers(name: str, what: str, value: Any, count: int) -> tuple[int, ...]:
    """A setting for each spatial axis."""
    found = np.atleast_1d(np.asarray(value))
    if found.size == 1:
        found = np.repeat(found, count)
    if found.shape != (count,) or np.any(found != np.rint(found)):
        raise NIRError(f"{what} of the node {name!r} is {value!r}; it has {count} spatial axes")
    return tuple(int(n) for n in found)


def _input(name: str, node: Any, choices: Choices, shape: Any, spk_fun: Spike) -> NIRModule:
    return Input(name, _shape(name, node.input_type["input"], None))


def _output(name: str, node: Any, choices: Choices, shape: Any, spk_fun: Spike) -> NIRModule:
    declared = None if shape is not None and node.output_type is None else node.output_type["output"]
    return Output(name, _shape(name, declared, shape))


def _convolution(name: str, node: Any, choices: Choices, shape: Any, spk_fun: Spike) -> NIRModule:
    weight = np.asarray(node.weight)
    count = weight.ndim - 2
    if node.input_shape is not None:
        spatial = _numbers(name, "input_shape", node.input_shape, count)
    else:
        spatial = _shape(name, None, shape)[1:]
    padding = node.padding.decode() if isinstance(node.padding, bytes) else node.padding
    if not isinstance(padding, str):
        padding = _numbers(name, "padding", padding, count)
    elif padding not in ("same", "valid"):
        raise NIRError(f"padding of the node {name!r} is {padding!r}, not 'same', 'valid' or numbers")
    bias = None if node.bias is None else np.asarray(node.bias)
    stride, dilation = (_numbers(name, key, getattr(node, key), count) for key in ("stride", "dilation"))
    return Convolution(name, spatial, weight, stride, padding, dilation, int(node.groups), bias)


def _pool(name: str, node: Any, choices: Choices, shape: Any, spk_fun: Spike) -> NIRModule:
    declared = None if node.input_type is None else node.input_type["input"]
    image = _shape(name, declared, shape)
    if len(image) != 3:
        raise NIRError(
            f"the node {name!r} pools images (channels, height, width), and its input has the shape {image}"
        )
    settings = (_numbers(name, key, getattr(node, key), 2) for key in ("kernel_size", "stride", "padding"))
    return Pool(type(node).__name__, name, image, *settings)


def _flatten(name: str, node: Any, choices: Choices, shape: Any, spk_fun: Spike) -> NIRModule:
    declared = None if node.input_type is None else node.input_type["input"]
    return Flatten(name, _shape(name, declared, shape), int(node.start_dim), int(node.end_dim))


_Maker = Callable[[str, Any, Choices, Any, Spike], NIRModule]
_MAKERS: dict[str, _Maker] = {
    "Input": _input,
    "Output": _output,
    "Linear": lambda name, node, *_: Linear(name, np.asarray(node.weight)),
    "Affine": lambda name, node, *_: Affine(name, np.asarray(node.weight), np.asarray(node.bias)),
    "Scale": lambda name, node, choices, shape, _: Scale(name, **_parameters(name, node, shape)),
    "Conv1d": _convolution,
    "Conv2d": _convolution,
    "SumPool2d": _pool,
    "AvgPool2d": _pool,
    "Flatten": _flatten,
    "Delay": lambda name, node, choices, shape, _: Delay(
        name, choices=choices, **_parameters(name, node, shape)
    ),
    "Threshold": lambda name, node, choices, shape, spk_fun: Threshold(
        name, choices=choices, spk_fun=spk_fun, **_parameters(name, node, shape)
    ),
}
