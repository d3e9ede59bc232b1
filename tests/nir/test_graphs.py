"""Whole graphs: recurrence, nesting, there and back again, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import stategraph as sg
from stategraph import nn
from stategraph.errors import NIRError

nir = pytest.importorskip("nir")

DT = 1e-3
RNG = np.random.default_rng(1)
ONE = np.ones(4)
X = (RNG.random((80, 2)) < 0.5).astype(np.float32)
W_IN, W_REC = RNG.normal(1.0, 0.5, (4, 2)), RNG.normal(0, 0.6, (4, 4))


def lif(**changed):
    return nir.LIF(**{"tau": 5e-3 * ONE, "r": ONE, "v_leak": 0 * ONE, "v_threshold": 0.5 * ONE, **changed})


def recurrent(late=()):
    nodes = {
        "in": nir.Input(np.array([2])), "w": nir.Affine(W_IN, 0.1 * ONE), "lif": lif(), "rec": nir.Linear(W_REC),
        "out": nir.Output(np.array([4])),
    }  # fmt: skip
    edges = [("in", "w"), ("w", "lif"), ("lif", "rec"), ("rec", "lif"), ("lif", "out")]
    if late:
        nodes["late"] = nir.Delay(np.full(4, late[0] * DT))
        edges = [edge for edge in edges if edge != ("lif", "rec")] + [("lif", "late"), ("late", "rec")]
    return nir.NIRGraph(nodes, edges)


def run(net, x=X):
    return np.asarray(sg.compile.for_loop(net, x))


def made(graph, **choices):
    return nn.init_all_states(sg.nir.from_nir(graph, **choices))


def loop(late):
    """The recurrent graph in NumPy, spikes arriving ``late`` steps after they were sent."""
    v, sent, found = np.zeros(4), [np.zeros(4)] * late, []
    for x in X.astype(float):
        current = W_IN @ x + 0.1 + W_REC @ sent[-late]
        v = v + (1 - np.exp(-DT / 5e-3)) * (current - v)
        z = (v > 0.5).astype(float)
        v = np.where(z > 0, 0.0, v)
        sent.append(z)
        found.append(z)
    return np.array(found)


def test_a_recurrent_graph_is_a_loop_with_a_delay_of_one_step():
    net = made(recurrent(), dt=DT)
    assert net.delayed_edges == (("rec", "lif"),)
    expected = loop(1)
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(run(net), expected)
    other = made(recurrent(), dt=DT, delayed_edges=[("lif", "rec")])
    np.testing.assert_array_equal(run(other), expected)


def test_any_edge_can_be_delayed():
    direct, late = (
        made(nir.NIRGraph.from_list(nir.Affine(W_IN, ONE), lif()), dt=DT, delayed_edges=edges)
        for edges in ([], [("affine", "lif")])
    )
    np.testing.assert_array_equal(run(late), np.concatenate([np.zeros((1, 4)), run(direct)[:-1]]))


@pytest.mark.parametrize("late", [1, 3])
def test_a_delay_node_breaks_a_cycle_by_itself(late):
    net = made(recurrent((late,)), dt=DT)
    assert net.delayed_edges == ()
    np.testing.assert_array_equal(run(net), loop(late))


def test_the_program_shows_the_choices():
    text = str(sg.trace(made(recurrent(), dt=DT, integrator="euler", reset="subtract"), X[0]).program)
    assert '{dt = 0.001, integrator = "euler", nir = "LIF", reset = "subtract", spikes = "above"}' in text
    assert '{delay_steps = 1, nir = "edge", to = "lif"}' in text
    assert (
        sg.ir.parse(text)
        == sg.trace(made(recurrent(), dt=DT, integrator="euler", reset="subtract"), X[0]).program
    )


CUBA = nir.CubaLIF(
    tau_syn=2e-3 * ONE,
    tau_mem=6e-3 * ONE,
    r=2 * ONE,
    v_leak=0.1 * ONE,
    v_threshold=0.4 * ONE,
    v_reset=0.1 * ONE,
    w_in=ONE,
)
INNER = nir.NIRGraph.from_list(nir.Linear(W_REC), CUBA, nir.Scale(2 * ONE))
IMAGES = nir.NIRGraph.from_list(
    nir.Conv2d((6, 6), RNG.normal(0, 1, (3, 1, 3, 3)), 1, 1, 1, 1, RNG.normal(size=3)),
    nir.IF(r=np.full((3, 6, 6), 300.0), v_threshold=np.ones((3, 6, 6))),
    nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
    nir.AvgPool2d(np.array([3, 3]), np.array([1, 1]), np.array([1, 1])),
    nir.Flatten({"input": np.array([3, 3, 3])}, 0),
    nir.Affine(RNG.normal(size=(4, 27)), np.zeros(4)),
    nir.LI(tau=4e-3 * ONE, r=ONE, v_leak=0.5 * ONE), nir.Delay(2 * DT * ONE),
    nir.CubaLI(tau_syn=2e-3 * ONE, tau_mem=6e-3 * ONE, r=2 * ONE, v_leak=0.1 * ONE), nir.I(r=ONE),
    nir.Threshold(3.5e-4 * ONE),
)  # fmt: skip
LINE = nir.NIRGraph.from_list(nir.Conv1d(8, RNG.normal(size=(2, 1, 3)), 2, "valid", 2, 1, np.zeros(2)))
GRAPHS = {
    "recurrent": (recurrent(), X),
    "late": (recurrent((2,)), X),
    "nested": (nir.NIRGraph.from_list(nir.Affine(W_IN, ONE), INNER, lif()), X),
    "images": (IMAGES, RNG.random((12, 1, 6, 6)).astype(np.float32)),
    "line": (LINE, RNG.random((3, 1, 8)).astype(np.float32)),
}


@pytest.mark.parametrize("how", ["graph", "file"])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_comes_back_with_the_same_behaviour_and_choices(name, how, tmp_path):
    graph, x = GRAPHS[name]
    choices = {"integrator": "euler", "reset": "subtract", "spikes": "at"}
    first = made(graph, dt=DT, **choices)
    expected = run(first, x)
    assert expected.std() > 0
    if how == "file":
        sg.nir.write(tmp_path / "graph.nir", first)
        again = nn.init_all_states(sg.nir.read(tmp_path / "graph.nir"))
    else:
        again = made(sg.nir.to_nir(first))
    np.testing.assert_array_equal(run(again, x), expected)
    assert (again.dt, again.delayed_edges) == (first.dt, first.delayed_edges)
    back = sg.nir.to_nir(again)
    assert sorted(back.nodes) == sorted(graph.nodes) and sorted(back.edges) == sorted(graph.edges)
    for key, node in back.nodes.items():
        for field, value in vars(node).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_allclose(value, getattr(graph.nodes[key], field), rtol=1e-6)


def test_what_is_trained_is_written():
    net = made(recurrent(), dt=DT)
    net.parts["rec"].weight.value = 2 * net.parts["rec"].weight.value
    np.testing.assert_allclose(sg.nir.to_nir(net).nodes["rec"].weight, 2 * W_REC, rtol=1e-6)


def test_several_inputs_and_outputs_have_names():
    nodes = {
        "a": nir.Input(np.array([4])), "b": nir.Input(np.array([4])), "sum": nir.Scale(ONE), "twice": nir.Scale(2 * ONE),
        "y": nir.Output(np.array([4])), "z": nir.Output(np.array([4])),
    }  # fmt: skip
    edges = [("a", "sum"), ("b", "sum"), ("sum", "twice"), ("sum", "y"), ("twice", "z")]
    net = sg.nir.from_nir(nir.NIRGraph(nodes, edges, type_check=False))
    found = net(a=ONE, b=2 * ONE)
    np.testing.assert_array_equal(found["y"], 3 * ONE)
    np.testing.assert_array_equal(net({"a": ONE, "b": ONE})["z"], 4 * ONE)
    with pytest.raises(NIRError, match="its inputs are 'a', 'b'"):
        net(ONE)


@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_layers_and_neurons_of_nn_are_written_and_read_with_the_same_spikes(reset):
    sg.random.seed(0)
    net = nn.Sequential(
        nn.Linear(2, 4, w_init=nn.init.Normal(0.6, 0.3)),
        nn.LIF(4, R=2.0, tau=5.0, V_th=0.5, V_reset=-0.1, spk_reset=reset),
        nn.Linear(4, 4, b_init=None, w_init=nn.init.Normal(0.5, 0.5)), nn.IF(4, tau=8.0, V_th=0.2, spk_reset=reset),
    )  # fmt: skip
    nn.init_all_states(net)
    with sg.environ.context(dt=1.0):
        expected = run(net)
        graph = sg.nir.to_nir(net)
    np.testing.assert_allclose(graph.nodes["lif"].tau, 5e-3)
    assert 0.02 < expected.mean() < 0.98
    np.testing.assert_array_equal(run(made(graph)), expected)


def test_convolutions_of_nn_are_written():
    net = nn.Sequential(
        nn.Conv2d((1, 6, 6), 4, 3, stride=2, padding=1, b_init=nn.init.Normal(), channel_first=True),
        nn.Flatten(in_size=(4, 3, 3)),
    )
    x = RNG.random((1, 6, 6)).astype(np.float32)
    np.testing.assert_allclose(sg.nir.from_nir(sg.nir.to_nir(net))(x), net(x), rtol=1e-5, atol=1e-6)


def test_connections_are_written_as_matrices():
    connections = sg.event.FixedProb(2, 4, 0.5, nn.init.Normal(), seed=3)
    found = sg.nir.from_nir(sg.nir.to_nir(nn.Sequential(connections)))(X[0])
    np.testing.assert_allclose(found, X[0] @ connections, rtol=1e-6)


class Alien(nir.ir.NIRNode):
    def __init__(self):
        self.input_type, self.output_type, self.metadata = (
            {"input": np.array([4])},
            {"output": np.array([4])},
            {},
        )


def listed(*nodes):
    return nir.NIRGraph.from_list(*nodes, type_check=False)


def with_extra():
    node = lif()
    node.refractory = 2e-3
    return listed(node)


@pytest.mark.parametrize(
    "graph, message",
    [
        (lambda: listed(Alien()), "'alien' is a Alien, which stategraph.nir does not know"),
        (with_extra, "'lif', a LIF, has a parameter 'refractory'"),
        (lambda: listed(lif(tau=-ONE)), "tau of the node 'lif' is not positive"),
        (lambda: listed(nir.Delay(1.5 * DT * ONE)), "delay of the node 'delay' is 0.0015, with a time step"),
        (lambda: listed(nir.Linear(W_IN), nir.Scale(np.ones(3))), r"'linear' gives \(4,\), and 'scale' takes \(3,\)"),
        (lambda: nir.NIRGraph({"a": nir.Input(ONE.shape), "y": nir.Output(ONE.shape)}, [("a", "b")], type_check=False),
         "no node 'b'"),
        (lambda: nir.NIRGraph({"a": nir.Input(ONE.shape), "y": nir.Output(ONE.shape)}, [("a", "y")] * 2, type_check=False),
         "twice"),
    ],
)  # fmt: skip
def test_what_would_be_changed_is_refused_by_the_name_of_the_node(graph, message):
    with pytest.raises(NIRError, match=message):
        sg.nir.from_nir(graph(), dt=DT)


def test_a_missing_time_step_and_contradicting_ones_are_refused():
    with pytest.raises(NIRError, match="The node 'lif' needs a time step"):
        sg.nir.from_nir(recurrent())
    with pytest.raises(NIRError, match="has no delayed edge"):
        sg.nir.from_nir(recurrent(), dt=DT, delayed_edges=[])
    graph = nir.NIRGraph.from_list(INNER)
    graph.metadata = {"stategraph": {"dt": 1e-3}}
    graph.nodes["nirgraph"].metadata = {"stategraph": {"dt": 1e-4}}
    with pytest.raises(NIRError, match=r"record the time steps 0.001 and 0.0001"):
        sg.nir.from_nir(graph)


@pytest.mark.parametrize(
    "module, message",
    [
        (lambda: nn.LIFRef(4), "LIFRef has no counterpart"),
        (lambda: nn.Conv1d((8, 1), 2, 3), "channel_first=False of Conv1d"),
        (lambda: nn.Linear(2, 3, w_mask=np.ones((2, 3))), "w_mask of Linear"),
        (lambda: nn.LIF(4, V_initializer=nn.init.Constant(-1.0)), "V_initializer=.* of LIF"),
        (lambda: nn.LIF(4), "The time step of the neurons is not known"),
    ],
)
def test_modules_without_counterpart_are_refused(module, message):
    with pytest.raises(NIRError, match=message):
        sg.nir.to_nir(module())
