"""Modules of ``stategraph.nn`` as NIR nodes, where NIR has a counterpart that computes the same.

Neurons of ``nn`` are in ms, and written in seconds. Their steps are exact and they spike at the threshold; both is kept in
the metadata of the nodes.
"""

from __future__ import annotations

import itertools
import keyword
from collections.abc import Callable
from typing import Any

import numpy as np

from stategraph import environ, nn
from stategraph.errors import NIRError, describe
from stategraph.event.connections import Connections
from stategraph.nir.choices import KEY, Choices, of_graph, of_neuron
from stategraph.nir.reading import package
from stategraph.nn.population import values
from stategraph.nn.units import step as step_in_ms
from stategraph.random.checks import as_shape
from stategraph.typing import Size

MS = 1e-3
"""Milliseconds in seconds."""


def chain(module: Any, input_shape: Size | None, dt: float | None) -> Any:
    """The graph of a module, or of modules one after another."""
    nir = package("stategraph.nir.to_nir")
    modules = list(module.layers) if isinstance(module, nn.Sequential) else [module]
    given = modules[0].in_size if input_shape is None else as_shape(input_shape)
    if given is None:
        raise NIRError(
            describe(
                f"The shape of the input of {type(modules[0]).__name__} is not known.",
                why="NIR's Input node says it",
                fix="stategraph.nir.to_nir(module, input_shape=(2, 28, 28))",
            )
        )
    nodes: dict[str, Any] = {"input": nir.Input(np.array(given))}
    shape, names = tuple(given), ["input"]
    for one in modules:
        node, shape = _node(one, shape)
        basis = type(one).__name__.lower()
        basis += "_" * keyword.iskeyword(basis)  # other tools make attributes of the names
        name = basis if basis not in nodes else f"{basis}_{sum(key.startswith(basis) for key in nodes)}"
        nodes[name] = node
        names.append(name)
    nodes["output"] = nir.Output(np.array(shape))
    names.append("output")
    step = _step(dt) if any(type(one) in (nn.LIF, nn.IF) for one in modules) else dt
    edges = list(itertools.pairwise(names))
    return nir.NIRGraph(nodes=nodes, edges=edges, metadata=of_graph(step), type_check=False)


def _node(module: Any, shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    maker = _MAKERS.get(type(module)) or (_connections if isinstance(module, Connections) else None)
    if maker is None:
        raise NIRError(
            describe(
                f"{type(module).__name__} has no counterpart in NIR.",
                why=f"those that have one are {', '.join(sorted(kind.__name__ for kind in _MAKERS))}, and connections of stategraph.event",
                fix="build the graph with nir itself, or leave the module out",
            )
        )
    return maker(module, shape)


def _refuse(module: Any, setting: str, why: str, fix: str = "") -> NIRError:
    return NIRError(
        describe(f"{setting} of {type(module).__name__} has no counterpart in NIR.", why=why, fix=fix)
    )


def _linear(module: Any, shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    nir = package("stategraph.nir.to_nir")
    if module.w_mask is not None:
        raise _refuse(
            module, "w_mask", "the mask would be multiplied into the weights", "multiply it yourself"
        )
    if len(shape) != 1:
        raise _refuse(module, f"An input of the shape {shape}", "a NIR Linear node takes a vector")
    weight = {key: np.asarray(value) for key, value in module.weight.value.items()}
    if "bias" in weight:
        return nir.Affine(weight=weight["weight"].T, bias=weight["bias"]), module.out_size
    return nir.Linear(weight=weight["weight"].T), module.out_size


def _connections(module: Any, shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    if len(shape) != 1:
        raise _refuse(module, f"An input of the shape {shape}", "a NIR Linear node takes a vector")
    weight = np.asarray(module.todense()).T
    return package("stategraph.nir.to_nir").Linear(weight=weight), module.out_size


def _convolution(module: Any, shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    nir = package("stategraph.nir.to_nir")
    count = module.spatial
    if not module.channel_first:
        raise _refuse(module, "channel_first=False", "in NIR channels come first", "channel_first=True")
    if module.w_mask is not None:
        raise _refuse(
            module, "w_mask", "the mask would be multiplied into the weights", "multiply it yourself"
        )
    if any(factor != 1 for factor in module.lhs_dilation):
        raise _refuse(module, "lhs_dilation", "NIR dilates kernels only")
    stride, dilation = tuple(module.stride), tuple(module.rhs_dilation)
    parameters = {key: np.asarray(value) for key, value in module.weight.value.items()}
    weight = np.moveaxis(parameters["weight"], (-1, -2), (0, 1))
    padding = _padding(module, shape[1:], weight.shape[2:], stride, dilation)
    options = {
        "weight": weight, "groups": module.groups, "bias": parameters.get("bias", np.zeros(len(weight))),
    }  # fmt: skip
    if count == 1:
        node = nir.Conv1d(
            input_shape=shape[1], stride=stride[0], padding=padding[0], dilation=dilation[0], **options
        )
    else:
        node = nir.Conv2d(input_shape=shape[1:], stride=stride, padding=padding, dilation=dilation, **options)
    node.input_type, node.output_type = {"input": np.array(shape)}, {"output": np.array(module.out_size)}
    return node, module.out_size


def _padding(module: Any, sizes: Any, window: Any, stride: Any, dilation: Any) -> tuple[int, ...]:
    """The padding as one number for each axis."""
    if isinstance(module.padding, str):
        import jax

        extents = [d * (k - 1) + 1 for k, d in zip(window, dilation, strict=True)]
        pairs = jax.lax.padtype_to_pads(sizes, extents, stride, module.padding)
    else:
        pairs = list(module.padding)
    for before, after in pairs:
        if before != after:
            raise _refuse(
                module, f"padding {pairs}", "NIR pads as much before as after", "use an odd kernel_size"
            )
    return tuple(int(before) for before, _ in pairs)


def _flatten(module: Any, shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    nir = package("stategraph.nir.to_nir")
    count = len(shape)
    start, end = range(count)[module.start_axis], range(count)[module.end_axis]
    node = nir.Flatten({"input": np.array(shape)}, start_dim=start, end_dim=end)
    return node, tuple(int(n) for n in node.output_type["output"])


def _lif(module: Any, shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    nir = package("stategraph.nir.to_nir")
    size = module.varshape

    def wide(value: Any) -> np.ndarray:
        return np.broadcast_to(np.asarray(values(value)[0], np.float64), size).copy()

    node = nir.LIF(
        tau=wide(module.tau) * MS,
        r=wide(module.R),
        v_leak=wide(getattr(module, "V_rest", 0.0)),
        v_threshold=wide(module.V_th),
        v_reset=wide(getattr(module, "V_reset", 0.0)),
    )
    _check_start(module, node.v_leak)
    reset = "subtract" if module.spk_reset == "soft" else "v_reset"
    node.metadata = {KEY: of_neuron(Choices(reset=reset, spikes="at"), True, True)}
    return node, size


def _check_start(module: Any, leak: np.ndarray) -> None:
    """NIR knows no initial potential; what reads the graph begins at ``v_leak``."""
    start = module.V_initializer
    value = getattr(start, "value", start)
    if not isinstance(value, (int, float, np.ndarray)) or not np.allclose(np.asarray(value), leak):
        raise _refuse(
            module, f"V_initializer={start!r}", "NIR's neurons begin at v_leak",
            "V_initializer=stategraph.nn.init.Constant(V_rest)",
        )  # fmt: skip


def _step(dt: float | None) -> float:
    if dt is not None:
        return float(dt)
    if environ.get(environ.DT, None) is None:
        raise NIRError(
            describe(
                "The time step of the neurons is not known.",
                why="the graph records it",
                fix="stategraph.nir.to_nir(module, dt=1e-3), in seconds, or set dt (ms) of stategraph.environ",
            )
        )
    return float(step_in_ms()) * MS


_MAKERS: dict[type, Callable[[Any, tuple[int, ...]], tuple[Any, tuple[int, ...]]]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Flatten: _flatten,
    nn.LIF: _lif,
    nn.IF: _lif,
}
