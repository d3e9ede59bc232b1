"""Each node of NIR against an independent NumPy integration of its equation."""

from __future__ import annotations

import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import NIRError

nir = pytest.importorskip("nir")

N, STEPS, DT = 3, 60, 1e-3
RNG = np.random.default_rng(0)
INPUT = (RNG.random((STEPS, N)) * 3).astype(np.float32)


def array(low, high):
    return RNG.uniform(low, high, N)


TAU, TAU_SYN, R = array(5e-3, 2e-2), array(2e-3, 8e-3), array(0.8, 1.5)
LEAK, THRESHOLD, RESET, W_IN = array(-0.2, 0.2), array(0.6, 0.9), array(-0.3, 0.0), array(0.5, 2.0)
SPIKING = {"v_threshold": THRESHOLD, "v_reset": RESET}
CUBA = {"tau_syn": TAU_SYN, "tau_mem": TAU, "r": R, "v_leak": LEAK, "w_in": W_IN}
NODES = {
    "I": nir.I(r=R * 10),
    "IF": nir.IF(r=R * 60, **SPIKING),
    "LI": nir.LI(tau=TAU, r=R, v_leak=LEAK),
    "LIF": nir.LIF(tau=TAU, r=R, v_leak=LEAK, **SPIKING),
    "CubaLI": nir.CubaLI(**CUBA),
    "CubaLIF": nir.CubaLIF(**CUBA, **SPIKING),
}


def module(*nodes, **choices):
    graph = nir.NIRGraph.from_list(*nodes)
    return sg.nn.init_all_states(sg.nir.from_nir(graph, **choices))


def run(net, x):
    return np.asarray(sg.compile.for_loop(net, x))


def slope(node, v, i, x):
    """(dv/dt, di/dt) of the equations."""
    if isinstance(node, (nir.I, nir.IF)):
        return node.r * x, 0.0
    if isinstance(node, (nir.LI, nir.LIF)):
        return (node.v_leak - v + node.r * x) / node.tau, 0.0
    return (node.v_leak - v + node.r * i) / node.tau_mem, (-i + node.w_in * x) / node.tau_syn


def simulated(node, inputs, reset, substeps):
    """Forward Euler with many small steps for each ``DT``, spikes and resets at its end."""
    v, i = np.broadcast_to(getattr(node, "v_leak", 0.0), N).astype(float), np.zeros(N)
    found = []
    for x in inputs.astype(float):
        for _ in range(substeps):
            dv, di = slope(node, v, i, x)
            v, i = v + DT / substeps * dv, i + DT / substeps * di
        if not hasattr(node, "v_threshold"):
            found.append(v)
            continue
        z = v > node.v_threshold
        v = np.where(z, node.v_reset, v) if reset == "v_reset" else v - z * (node.v_threshold - node.v_reset)
        found.append(z.astype(float))
    return np.array(found)


@pytest.mark.parametrize("reset", ["v_reset", "subtract"])
@pytest.mark.parametrize("kind", NODES)
def test_forward_euler_is_that_of_the_equations(kind, reset):
    found = run(module(NODES[kind], dt=DT, integrator="euler", reset=reset), INPUT)
    expected = simulated(NODES[kind], INPUT, reset, 1)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert found.std() > 0.05


@pytest.mark.parametrize("kind", NODES)
def test_exact_steps_are_the_limit_of_small_ones(kind):
    found = run(module(NODES[kind], dt=DT), INPUT)
    expected = simulated(NODES[kind], INPUT, "v_reset", 1000)
    if kind in ("IF", "LIF", "CubaLIF"):  # a potential near the threshold may cross it a step later
        assert (found != expected).mean() <= 0.02 and expected.sum() > 5
    else:
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_exact_steps_with_equal_time_constants():
    equal = nir.CubaLI(tau_syn=TAU, tau_mem=TAU, r=R, v_leak=LEAK, w_in=W_IN)
    found = run(module(equal, dt=DT), INPUT)
    np.testing.assert_allclose(found, simulated(equal, INPUT, "v_reset", 1000), atol=2e-3)


def test_semi_implicit_euler_uses_the_new_current():
    node, v, i, expected = NODES["CubaLI"], LEAK.copy(), np.zeros(N), []
    for x in INPUT.astype(float):
        i = i + DT / TAU_SYN * (-i + W_IN * x)
        v = v + DT / TAU * (LEAK - v + R * i)
        expected.append(v)
    found = run(module(node, dt=DT, integrator="semi_implicit_euler"), INPUT)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_spike_is_above_the_threshold_or_at_it():
    node = nir.Threshold(threshold=np.ones(N))
    x = np.array([[0.5, 1.0, 1.5]], np.float32)
    np.testing.assert_array_equal(run(module(node), x), [[0, 0, 1]])
    np.testing.assert_array_equal(run(module(node, spikes="at"), x), [[0, 1, 1]])


def test_linear_maps():
    weight, bias = RNG.normal(size=(4, N)), RNG.normal(size=4)
    np.testing.assert_allclose(run(module(nir.Linear(weight)), INPUT), INPUT @ weight.T, rtol=1e-4, atol=1e-5)
    affine = run(module(nir.Affine(weight, bias)), INPUT)
    np.testing.assert_allclose(affine, INPUT @ weight.T + bias, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run(module(nir.Scale(R)), INPUT), INPUT * R, rtol=1e-5)
    many = RNG.normal(size=(2, 4, N))
    x = RNG.normal(size=(1, 2, N)).astype(np.float32)
    expected = np.einsum("boi,bi->bo", many, x[0])[None]
    np.testing.assert_allclose(run(module(nir.Linear(many)), x), expected, rtol=1e-4, atol=1e-5)


def convolved(x, weight, bias, stride, padding, dilation, groups):
    """Cross-correlation of an image ``(channels, height, width)``, by loops."""
    x = np.pad(x, [(0, 0), *((p, p) for p in padding)])
    out, per_group, *window = weight.shape
    sizes = [
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(x.shape[1:], window, stride, dilation, strict=True)
    ]
    y = np.zeros((out, *sizes))
    for o in range(out):
        first = o // (out // groups) * per_group
        for h in range(sizes[0]):
            for w in range(sizes[1]):
                rows = h * stride[0] + np.arange(window[0]) * dilation[0]
                columns = w * stride[1] + np.arange(window[1]) * dilation[1]
                y[o, h, w] = (x[first : first + per_group][:, rows][:, :, columns] * weight[o]).sum() + bias[
                    o
                ]
    return y


@pytest.mark.parametrize(
    "stride, padding, dilation, groups", [((1, 2), (2, 1), (1, 1), 1), ((2, 1), (0, 2), (2, 1), 2)]
)
def test_convolutions(stride, padding, dilation, groups):
    x = RNG.normal(size=(2, 7, 8)).astype(np.float32)
    weight, bias = RNG.normal(size=(4, 2 // groups, 3, 2)), RNG.normal(size=4)
    node = nir.Conv2d((7, 8), weight, stride, padding, dilation, groups, bias)
    graph = nir.NIRGraph(
        {"in": nir.Input(np.array(x.shape)), "conv": node, "out": nir.Output(None)},
        [("in", "conv"), ("conv", "out")], type_check=False,
    )  # fmt: skip
    found = sg.nir.from_nir(graph)(x)
    np.testing.assert_allclose(
        found, convolved(x, weight, bias, stride, padding, dilation, groups), atol=1e-4
    )
    line = (
        nir.Conv1d(8, weight[:, :, :1].squeeze(2), stride[1], padding[1], dilation[1], 1, bias)
        if groups == 1
        else None
    )
    if line is not None:
        found = module(line)(x[:, 0])
        expected = convolved(
            x[:, :1], weight[:, :, :1], bias, (1, stride[1]), (0, padding[1]), (1, dilation[1]), 1
        )
        np.testing.assert_allclose(found, expected[:, 0], atol=1e-4)


def test_padding_same_keeps_the_size():
    x, weight = RNG.normal(size=(1, 5, 6)).astype(np.float32), RNG.normal(size=(2, 1, 3, 3))
    found = module(nir.Conv2d((5, 6), weight, 1, "same", 1, 1, np.zeros(2)))(x)
    np.testing.assert_allclose(found, convolved(x, weight, np.zeros(2), (1, 1), (1, 1), (1, 1), 1), atol=1e-4)
    with pytest.raises(NIRError, match="'conv2d' has padding='same' and stride"):
        sg.nir.from_nir(
            nir.NIRGraph.from_list(nir.Conv2d((5, 6), weight, 2, "same", 1, 1, np.zeros(2)), type_check=False)
        )


@pytest.mark.parametrize("kind", [nir.SumPool2d, nir.AvgPool2d])
def test_pooling_counts_padding_as_zeros(kind):
    x = RNG.normal(size=(2, 5, 6)).astype(np.float32)
    node = kind(kernel_size=np.array([2, 3]), stride=np.array([2, 1]), padding=np.array([1, 1]))
    graph = nir.NIRGraph.from_list(nir.Input(np.array(x.shape)), node)
    weight = np.zeros((2, 2, 2, 3))
    weight[0, 0] = weight[1, 1] = 1.0 if kind is nir.SumPool2d else 1 / 6
    expected = convolved(x, weight, np.zeros(2), (2, 1), (1, 1), (1, 1), 1)
    np.testing.assert_allclose(sg.nir.from_nir(graph)(x), expected, atol=1e-5)


def test_flatten_counts_axes_without_the_batch():
    x = np.arange(48.0, dtype=np.float32).reshape(2, 2, 3, 4)
    for start, end in ((0, -1), (1, -1), (0, 1)):
        node = nir.Flatten({"input": np.array([2, 3, 4])}, start, end)
        found = module(node)(x)
        np.testing.assert_array_equal(found, x.reshape(2, *node.output_type["output"]))


def test_each_element_has_a_delay_of_its_own():
    steps = np.array([0, 1, 4])
    found = run(module(nir.Delay(delay=steps * DT), dt=DT), INPUT)
    for column, late in enumerate(steps):
        expected = np.concatenate([np.zeros(late), INPUT[: STEPS - late, column]])
        np.testing.assert_array_equal(found[:, column], expected)
    lanes = sg.nn.init_all_states(
        sg.nir.from_nir(nir.NIRGraph.from_list(nir.Delay(delay=steps * DT)), dt=DT), batch_size=2
    )
    both = run(lanes, np.stack([INPUT, INPUT[::-1]], 1))
    np.testing.assert_array_equal(both[:, 0], found)


def test_batches_are_lanes():
    net = sg.nir.from_nir(nir.NIRGraph.from_list(nir.Linear(np.eye(N)), NODES["CubaLIF"]), dt=DT)
    both = np.stack([INPUT, INPUT[::-1]], 1)
    found = run(sg.nn.init_all_states(net, batch_size=2), both)
    for lane in range(2):
        np.testing.assert_array_equal(found[:, lane], run(sg.nn.init_all_states(net), both[:, lane]))


def test_gradients_reach_the_weights():
    net = module(nir.Linear(np.eye(N)), NODES["LIF"], dt=DT)
    gradient = sg.augment.grad(lambda: sg.compile.for_loop(net, INPUT).sum(), net.parts["linear"].weight)()
    assert gradient.shape == (N, N) and float(abs(gradient).sum()) > 0
