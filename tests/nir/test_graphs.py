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
        made(nir.NIRGraph.from_list(nir.Linear(W_IN), lif()), dt=DT, delayed_edges=edges)
        for edges in ([], [("linear", "lif")])
    )
    np.testing.assert_array_equal(run(late), np.concatenate([np.zeros((1, 4)), run(direct)[:-1]]))


def with_bias():
    """A recurrent layer as snnTorch exports it: the recurrent weights have a bias."""
    nodes = {
        "input": nir.Input(np.array([2])), "0": nir.Affine(W_IN, 0.1 * ONE), "1.lif": lif(),
        "1.w_rec": nir.Affine(W_REC, 0.2 * ONE), "output": nir.Output(np.array([4])),
    }  # fmt: skip
    edges = [("1.lif", "1.w_rec"), ("1.w_rec", "1.lif"), ("input", "0"), ("0", "1.lif"), ("1.lif", "output")]
    return nir.NIRGraph(nodes, edges)


@pytest.mark.parametrize("delayed", [("1.w_rec", "1.lif"), ("1.lif", "1.w_rec")])
def test_the_bias_of_recurrent_weights_is_there_from_the_first_step_on(delayed):
    v, z, expected = np.zeros(4), np.zeros(4), []
    for x in X.astype(float):
        v = v + DT / 5e-3 * (W_IN @ x + 0.1 + W_REC @ z + 0.2 - v)
        z = (v > 0.5).astype(float)
        v = np.where(z > 0, 0.0, v)
        expected.append(z)
    net = made(with_bias(), dt=DT, integrator="euler", delayed_edges=[delayed])
    np.testing.assert_array_equal(run(net), expected)
    nn.reset_all_states(net)
    np.testing.assert_array_equal(run(net), expected)
    assert made(with_bias(), dt=DT).delayed_edges == (("1.w_rec", "1.lif"),)


def test_a_delayed_edge_begins_with_what_a_node_gives_at_rest():
    nodes = {
        "in": nir.Input(np.array([4])), "li": nir.LI(5e-3 * ONE, ONE, 3 * ONE), "scale": nir.Scale(2 * ONE),
        "late": nir.Delay(DT * ONE), "out": nir.Output(np.array([4])), "through": nir.Output(np.array([4])),
    }  # fmt: skip
    edges = [("in", "li"), ("li", "scale"), ("scale", "out"), ("scale", "late"), ("late", "through")]
    net = made(nir.NIRGraph(nodes, edges), dt=DT, delayed_edges=[("scale", "out"), ("late", "through")])
    found = net(np.zeros(4, "f"))
    np.testing.assert_allclose(found["out"], 6 * ONE)
    np.testing.assert_array_equal(found["through"], 0 * ONE)
    batch = nn.init_all_states(net, batch_size=3)(np.zeros((3, 4), "f"))
    np.testing.assert_allclose(batch["out"], np.full((3, 4), 6.0))


def test_parameters_without_an_axis_are_the_same_for_all_elements():
    one = np.float32(1.0)
    number, vector = (
        nir.NIRGraph(
            {
                "input": nir.Input(np.array([2])), "0": nir.Affine(W_IN, 0.1 * ONE),
                "1": nir.LIF(tau=one * 5e-3 * size, r=one * size, v_leak=one * 0 * size, v_threshold=one * 0.5 * size),
                "2": nir.Scale(one * 3 * size), "3": nir.Delay(one * 2 * DT * size), "4": nir.Threshold(one * 2 * size),
                "output": nir.Output(np.array([4])),
            },
            [("input", "0"), ("0", "1"), ("1", "2"), ("2", "3"), ("3", "4"), ("4", "output")],
            type_check=False,
        )
        for size in (np.float32(1.0), ONE)
    )  # fmt: skip
    expected = run(made(vector, dt=DT))
    net = made(number, dt=DT)
    assert 0 < expected.mean() < 1 and net.parts["1"].v.shape == (4,)
    np.testing.assert_array_equal(run(net), expected)
    np.testing.assert_array_equal(run(made(sg.nir.to_nir(net))), expected)


def with_batch():
    """A graph as Norse and sinabs export it: with the axes of the sample data."""
    nodes = {
        "input": nir.Input(np.array([80, 2])), "0": nir.Affine(W_IN, 0.1 * ONE), "1": lif(), "output": nir.Output(np.array([80, 4])),
    }  # fmt: skip
    return nir.NIRGraph(nodes, [("input", "0"), ("0", "1"), ("1", "output")], type_check=False)


def test_the_axes_of_sample_data_can_be_left_out():
    with pytest.raises(
        NIRError, match=r"gives \(80, 2\), and '0' takes \(2,\)[\s\S]*batch_axes=1, \.\.\.\), if \(80,\) are"
    ):
        sg.nir.from_nir(with_batch(), dt=DT)
    net = made(with_batch(), dt=DT, batch_axes=1)
    np.testing.assert_array_equal(
        run(net), run(made(nir.NIRGraph.from_list(nir.Affine(W_IN, 0.1 * ONE), lif()), dt=DT))
    )
    assert (net.shape_in, net.shape_out) == ((2,), (4,))


def test_numbers_of_other_kinds_are_read_as_they_are_meant():
    """As snnTorch exports a convolutional network: sizes are NumPy integers, tuples and plain numbers."""
    nodes = {
        "input": nir.Input(np.array([1, 6, 6])),
        "0": nir.Conv2d(
            (np.int64(6), np.int64(6)), RNG.normal(size=(2, 1, 3, 3)), (1, 1), (1, 1), (1, 1), 1, np.zeros(2)
        ),
        "1": nir.AvgPool2d(2, 2, (0, 0)),
        "2": nir.Flatten({"input": np.array([2, 3, 3])}, 0, -1),
        "output": nir.Output(np.array([18])),
    }
    edges = [("2", "output"), ("1", "2"), ("input", "0"), ("0", "1")]
    image = RNG.normal(size=(1, 6, 6)).astype("f")
    padded = np.pad(image[0], 1)
    patches = np.array([[padded[i : i + 3, j : j + 3] for j in range(6)] for i in range(6)])
    maps = np.einsum("ijkl,ckl->cij", patches, nodes["0"].weight[:, 0])
    expected = maps.reshape(2, 3, 2, 3, 2).mean((2, 4)).reshape(-1)
    net = sg.nir.from_nir(nir.NIRGraph(nodes, edges, type_check=False))
    np.testing.assert_allclose(net(image), expected, rtol=1e-5, atol=1e-6)


def test_a_file_that_is_none_is_an_error_that_says_so(tmp_path):
    (tmp_path / "text.nir").write_text("nothing")
    with pytest.raises(NIRError, match=r"text.nir' is not a NIR file[\s\S]*why:"):
        sg.nir.read(tmp_path / "text.nir")
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "half.nir", "w") as file:
        file.create_group("node")
    with pytest.raises(NIRError, match=r"half.nir' is not a NIR file[\s\S]*KeyError"):
        sg.nir.read(tmp_path / "half.nir")
    with pytest.raises(FileNotFoundError):
        sg.nir.read(tmp_path / "none.nir")


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


def test_names_of_nodes_can_be_attributes():
    names = set(sg.nir.to_nir(nn.Sequential(nn.Linear(2, 3), nn.IF(3), nn.IF(3)), dt=DT).nodes)
    assert names == {"input", "linear", "if_", "if__1", "output"}
