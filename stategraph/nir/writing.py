"""Modules into NIR graphs, with what was chosen in their metadata."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from stategraph.errors import NIRError, describe
from stategraph.nir.choices import KEY, of_graph, of_neuron
from stategraph.nir.graph import Graph
from stategraph.nir.layers import Affine, Convolution, Delay, Flatten, Linear, Pool, Scale
from stategraph.nir.neurons import NIRModule, NIRNeuron, Threshold
from stategraph.nir.nn_modules import chain
from stategraph.nir.reading import package
from stategraph.typing import Size


def write(path: str | os.PathLike[str], module: Any, input_shape: Size | None = None, **options: Any) -> None:
    """Write a module as a NIR file (HDF5).

    Args:
      path: the file.
      module: what ``to_nir`` takes.
      input_shape: see ``to_nir``.
      **options: those of ``to_nir``.
    """
    package("stategraph.nir.write").write(os.fspath(path), to_nir(module, input_shape, **options))


def to_nir(module: Any, input_shape: Size | None = None, *, dt: float | None = None) -> Any:
    """The NIR graph of a module.

    Args:
      module: a graph that ``from_nir`` made, with the weights that it has now; or a module of ``stategraph.nn`` that has a
        counterpart (``Linear``, ``Conv1d``, ``Conv2d``, ``Flatten``, ``IF``, ``LIF``), connections of ``stategraph.event``
        (as dense matrices), or a ``Sequential`` of these.
      input_shape: the shape of an input without a batch, if the first module does not know it.
      dt: the time step in seconds, for neurons of ``stategraph.nn``; by default that of ``stategraph.environ`` (there in ms).
        Their time constants are written in seconds.

    Returns:
      A ``nir.NIRGraph``. Its metadata and that of its nodes say under ``stategraph`` what NIR leaves open.

    Raises:
      NIRError: for a module, or a setting of one, that has no counterpart in NIR.

    Example:

    >>> import stategraph as sg
    >>> net = sg.nn.Sequential(sg.nn.Linear(2, 3), sg.nn.LIF(3, tau=20.0))
    >>> graph = sg.nir.to_nir(net, dt=1e-3)
    >>> sorted(graph.nodes), float(graph.nodes["lif"].tau[0])
    (['input', 'lif', 'linear', 'output'], 0.02)
    """
    if isinstance(module, Graph):
        if dt is not None:
            raise NIRError(
                describe(
                    "dt is given for a graph that has one.",
                    why="its coefficients were computed for it",
                    fix="stategraph.nir.from_nir(stategraph.nir.to_nir(graph), dt=...)",
                )
            )
        return _graph(module)
    return chain(module, input_shape, dt)


def _graph(graph: Graph) -> Any:
    nir = package("stategraph.nir.to_nir")
    nodes = {name: node_of(module) for name, module in graph.parts.items()}
    metadata = of_graph(graph.dt, graph.delayed_edges)
    return nir.NIRGraph(nodes=nodes, edges=list(graph.edges), metadata=metadata, type_check=False)


def node_of(module: Any) -> Any:
    """The node for a module of ``stategraph.nir``."""
    nir = package("stategraph.nir.to_nir")
    if isinstance(module, Graph):
        return _graph(module)
    arguments, kept = _described(module)
    kind = getattr(nir, module.KIND)
    if module.KIND in ("Input", "Output"):
        return kind(np.array(module.shape_in))
    if module.KIND == "Flatten":
        return kind({"input": np.array(module.shape_in)}, **arguments)
    node = kind(**arguments)
    if kept:
        node.metadata = {KEY: kept}
    node.input_type = {"input": np.array(module.shape_in)}
    node.output_type = {"output": np.array(module.shape_out)}
    return node


def _described(module: NIRModule) -> tuple[dict[str, Any], dict[str, Any]]:
    """(arguments of a node, what is kept in its metadata)."""
    for kind, describe_it in _DESCRIBED:
        if isinstance(module, kind):
            return describe_it(module)
    return {}, {}


def array(state: Any) -> np.ndarray:
    """The value of a State."""
    return np.asarray(state.value)


def _dynamics(module: Any) -> Any:
    return dict(module.arrays), of_neuron(module.choices, True, module.SPIKES)


def _threshold(module: Any) -> Any:
    return {"threshold": module.threshold}, of_neuron(module.choices, False, True)


def _convolution(module: Any) -> Any:
    one = len(module.stride) == 1
    padding = module.given_padding
    settings = {
        "input_shape": module.shape_in[1] if one else module.shape_in[1:],
        "stride": module.stride[0] if one else module.stride,
        "padding": padding[0] if one and not isinstance(padding, str) else padding,
        "dilation": module.dilation[0] if one else module.dilation,
        "groups": module.groups,
        "weight": array(module.weight),
        "bias": np.zeros(module.shape_out[0]) if module.bias is None else array(module.bias),
    }
    return settings, {}


def _pool(module: Any) -> Any:
    return {key: np.array(getattr(module, key)) for key in ("kernel_size", "stride", "padding")}, {}


_DESCRIBED: list[tuple[type, Callable[[Any], tuple[dict[str, Any], dict[str, Any]]]]] = [
    (NIRNeuron, _dynamics),
    (Threshold, _threshold),
    (Affine, lambda m: ({"weight": array(m.weight), "bias": array(m.bias)}, {})),
    (Linear, lambda m: ({"weight": array(m.weight)}, {})),
    (Scale, lambda m: ({"scale": array(m.scale)}, {})),
    (Convolution, _convolution),
    (Pool, _pool),
    (Flatten, lambda m: ({"start_dim": m.start_dim, "end_dim": m.end_dim}, {})),
    (Delay, lambda m: ({"delay": m.delay}, {})),
]
