"""Projections: networks against loops in NumPy; what is shared; what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import event, nn
from tests.oracle import agree

DT = 0.5


@pytest.fixture(autouse=True)
def time_step() -> Iterator[None]:
    with sg.environ.context(dt=DT):
        yield


class Balanced(nn.Module):
    """Excitatory and inhibitory neurons: all kinds of projections, one of them delayed."""

    projections: list[Any]

    def __init__(self) -> None:
        super().__init__()
        self.E = nn.LIF(6, tau=10.0, V_th=10.0)
        self.I = nn.LIF(4, tau=5.0, V_th=8.0)
        excited: dict[str, Any] = {"syn": nn.Expon.desc(tau=3.0), "out": nn.COBA.desc(E=40.0)}
        connect = sg.event.FixedProb
        self.projections = [
            nn.AlignPostProj(comm=connect(6, 6, 0.5, 9.0, seed=0), post=self.E, **excited),
            nn.AlignPostProj(comm=connect(4, 6, 0.5, -2.0, seed=1), post=self.E, **excited),
            nn.AlignPostProj(
                self.E.output_delay(2 * DT),
                comm=connect(6, 4, 0.5, 9.0, seed=2),
                syn=nn.Alpha(4),
                out=nn.CUBA(),
                post=self.I,
            ),
            nn.DeltaProj(comm=sg.event.Linear(4, 6, -0.5), post=self.E),
        ]

    def init_state(self) -> None:
        self.spikes = sg.ShortTermState(jnp.zeros(10))

    def update(self, current: Any) -> Any:
        before = self.spikes.value
        for projection, spikes in zip(
            self.projections, [(before[:6],), (before[6:],), (), (before[6:],)], strict=True
        ):
            projection(*spikes)
        self.spikes.value = jnp.concatenate([self.E(current), self.I(0.3 * current[:4])])
        return self.spikes.value


def in_numpy(network: Balanced, currents: np.ndarray) -> np.ndarray:
    weights = [p.comm.connections.todense(p.comm.weight.value) for p in network.projections[:3]]
    ee, ie, ei = (np.asarray(w, np.float64) for w in weights)
    V, U, g, a, h = np.zeros(6), np.zeros(4), np.zeros(6), np.zeros(4), np.zeros(4)
    history, found = [np.zeros(10)] * 3, []
    for x in currents:
        now = history[-1]
        a, h = (a + h * DT / 8) * np.exp(-DT / 8), h * np.exp(-DT / 8) + history[-3][:6] @ ei
        g = g * np.exp(-DT / 3) + now[:6] @ ee + now[6:] @ ie
        V = V - 10 * now[:6]
        rate = (1 + 1e-3 * g) / 10
        target = (x + 1e-3 * g * 40) / (1 + 1e-3 * g)
        V = target + (V - target) * np.exp(-rate * DT) - 0.5 * now[6:].sum()
        U = U - 8 * now[6:]
        target = 0.3 * x[:4] + a
        U = target + (U - target) * np.exp(-DT / 5)
        history.append(np.concatenate([V >= 10, U >= 8]).astype(float))
        found.append(history[-1])
    return np.array(found)


CURRENTS = np.random.default_rng(0).uniform(10, 30, (60, 6)).astype(np.float32)


def test_a_network_against_a_loop_in_numpy() -> None:
    network = nn.init_all_states(Balanced())
    found = sg.compile.for_loop(network, jnp.asarray(CURRENTS))
    expected = in_numpy(network, CURRENTS)
    np.testing.assert_array_equal(found, expected)
    assert expected[:, :6].sum() > 10 and expected[:, 6:].sum() > 5


@pytest.mark.core
def test_a_compiled_network_does_what_python_does() -> None:
    def make() -> Any:
        network = nn.init_all_states(Balanced())
        return lambda xs: sg.compile.for_loop(network, xs), list(sg.graph.states(network).values())

    agree(make, (jnp.asarray(CURRENTS[:6]),), (jnp.asarray(CURRENTS[6:12]),), reference=False)


def test_equal_descriptions_share_a_synapse() -> None:
    post = nn.LIF(2)

    def projection(**changed: Any) -> Any:
        given = {"syn": nn.Expon.desc(tau=3.0), "out": nn.COBA.desc(E=0.0), **changed}
        return nn.AlignPostProj(comm=nn.Linear(3, 2), post=post, **given)

    first = projection()
    assert projection().syn is first.syn and projection().out is first.out
    assert projection(syn=nn.Expon.desc(tau=4.0)).syn is not first.syn
    assert projection(out=nn.COBA.desc(E=1.0)).syn is not first.syn
    assert projection(label="other").syn is not first.syn
    assert projection(syn=nn.Expon.desc(2, tau=3.0)).syn.varshape == (2,) == first.syn.varshape
    assert len(post.current_inputs) == 5


def test_synapses_of_the_senders() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.post = nn.LIF(2, V_th=1e9)
            self.projection = nn.AlignPreProj(
                syn=nn.AMPA(3), comm=sg.event.Linear(3, 2, 7.0), out=nn.CUBA(), post=self.post
            )

        def update(self, i: Any, spikes: Any) -> Any:
            with sg.environ.context(t=i * DT):
                self.projection(spikes)
                self.post()
            return self.post.V.value

    network, alone = nn.init_all_states(Network()), nn.init_all_states(nn.AMPA(3))
    spikes = jnp.asarray(np.random.default_rng(1).random((10, 3)) < 0.3)
    found = sg.compile.for_loop(network, jnp.arange(10), spikes)
    V = np.zeros(2)
    for i in range(10):
        with sg.environ.context(t=i * DT):
            current = 7 * float(alone(spikes[i]).sum())
        V = current + (V - current) * np.exp(-DT / 5)
        np.testing.assert_allclose(found[i], V, rtol=1e-4)


@pytest.mark.core
def test_gradients_reach_weights() -> None:
    network = nn.init_all_states(Balanced())
    weights = [p.comm.weight for p in network.projections]

    def loss(xs: Any) -> Any:
        return sg.compile.for_loop(network, xs).sum()

    found = sg.augment.grad(loss, weights)(jnp.asarray(CURRENTS[:20]))
    assert all(np.isfinite(g) for g in found) and any(g != 0 for g in found)


# ------------------------------------------------------------------------------------------- what is refused


def delta() -> Any:
    neurons = nn.init_all_states(nn.LIF(2))
    return neurons, nn.DeltaProj(comm=sg.event.Linear(1, 2, 3.0), post=neurons)


def test_sending_twice_in_a_step() -> None:
    neurons, projection = delta()
    projection(jnp.ones(1))
    with pytest.raises(ValueError, match=r"(?s)'delta DeltaProj0' twice.*test_projections.py.*clear_inputs"):
        projection(jnp.ones(1))
    neurons.clear_inputs()
    projection(jnp.ones(1))
    nn.reset_all_states(neurons)
    neurons()
    assert (neurons.V.value == 0).all()


def test_sending_outside_of_the_loop_that_uses_it() -> None:
    neurons, projection = delta()

    def step(i: Any) -> Any:
        return neurons()

    projection(jnp.ones(1))
    with pytest.raises(ValueError, match=r"(?s)in another function.*test_projections.py"):
        sg.compile.for_loop(step, jnp.arange(3))
    neurons.clear_inputs()

    @sg.compile.jit
    def run() -> Any:
        projection(jnp.ones(1))
        return sg.compile.for_loop(step, jnp.arange(3))

    with pytest.raises(ValueError, match="in another function"):
        run()
    neurons()  # nothing is left
    assert (neurons.V.value == 0).all()


def test_a_population_before_its_projection() -> None:
    neurons = nn.init_all_states(nn.LIF(2))
    projection = nn.CurrentProj(comm=sg.event.Linear(1, 2, 3.0), out=nn.CUBA(), post=neurons)
    with pytest.raises(ValueError, match=r"(?s)no conductance.*call the projection, then"):
        neurons()
    projection(jnp.ones(1))
    neurons()
    with pytest.raises(ValueError, match="no conductance"):
        neurons()


def test_bad_arguments() -> None:
    post, comm = nn.LIF(2), nn.Linear(3, 2)
    with pytest.raises(TypeError, match="neither a function nor a State"):
        nn.DeltaProj(3, comm=comm, post=post)
    with pytest.raises(TypeError, match="comm is"):
        nn.DeltaProj(comm=3, post=post)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"(?s)sends to a Linear.*Population"):
        nn.DeltaProj(comm=comm, post=comm)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="SynOut"):
        nn.CurrentProj(comm=comm, out=comm, post=post)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="one is described"):
        nn.AlignPostProj(comm=comm, syn=nn.Expon.desc(), out=nn.CUBA(), post=post)
    with pytest.raises(TypeError, match="Synapse"):
        nn.AlignPostProj(comm=comm, syn=comm, out=nn.CUBA(), post=post)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"(?s)called with 0 arguments.*spikes"):
        nn.DeltaProj(comm=comm, post=post)()
    with pytest.raises(KeyError, match="already"):
        post.add_current_input("a", lambda v: v)
        post.add_current_input("a", lambda v: v)


def test_inputs_of_a_neuron_of_ones_own() -> None:
    class Perfect(nn.Neuron):
        def init_state(self, batch_size: int | None = None) -> None:
            self.V = sg.HiddenState(jnp.zeros(self.varshape))

        def get_spike(self, V: Any = None) -> Any:
            return self.spk_fun((self.V.value if V is None else V) - 1.0)

        def update(self, x: Any = 0.0) -> Any:
            slope = self.sum_current_inputs(x, self.V.value, label="fast") + 10 * self.sum_current_inputs(0.0)
            self.V.value = self.sum_delta_inputs(self.V.value + environ_dt() * slope)
            return self.get_spike()

    neuron = nn.init_all_states(Perfect(1))
    neuron.add_current_input("leak", lambda v: v - 1.0, label="fast")
    neuron.add_current_input("once", jnp.ones(1), label="fast")
    neuron.add_current_input("slow", jnp.ones(1))
    neuron.add_delta_input("delta", jnp.full(1, 0.25))
    with pytest.raises(TypeError):
        neuron()  # the second sum calls every function, without the potential
    neuron.clear_inputs()


def environ_dt() -> Any:
    return sg.environ.get_dt()


@pytest.mark.parametrize("kind", [nn.AMPA, nn.STP, nn.STD])
def test_synapses_that_need_the_spikes_of_each_sender_are_refused_behind_a_sum(kind: Any) -> None:
    neurons = nn.LIF(3)
    for syn, out in ((kind.desc(), nn.CUBA.desc()), (kind(3), nn.CUBA())):
        with pytest.raises(
            TypeError, match=rf"AlignPostProj cannot have {kind.__name__} synapses[\s\S]*AlignPreProj"
        ):
            nn.AlignPostProj(comm=event.Linear(2, 3, 0.1), syn=syn, out=out, post=neurons)


def test_sizes_that_do_not_fit_are_errors_at_construction() -> None:
    neurons = nn.LIF(3)
    with pytest.raises(ValueError, match=r"DeltaProj\(comm=...\) gives \(4,\), and LIF has the shape \(3,\)"):
        nn.DeltaProj(comm=event.Linear(2, 4, 0.1), post=neurons)
    with pytest.raises(
        ValueError, match=r"AlignPostProj\(syn=...\) gives \(4,\), and LIF has the shape \(3,\)"
    ):
        nn.AlignPostProj(comm=event.Linear(2, 3, 0.1), syn=nn.Expon(4), out=nn.CUBA(), post=neurons)
    nn.CurrentProj(comm=event.Linear(2, 1, 0.1), out=nn.CUBA(), post=neurons)  # one number for all


def test_an_output_belongs_to_one_projection() -> None:
    neurons, out = nn.LIF(3), nn.CUBA()
    nn.CurrentProj(comm=event.Linear(2, 3, 0.1), out=out, post=neurons)
    for make in (
        lambda: nn.CurrentProj(comm=event.Linear(2, 3, 0.1), out=out, post=neurons),
        lambda: nn.AlignPreProj(syn=nn.Expon(2), comm=event.Linear(2, 3, 0.1), out=out, post=neurons),
        lambda: nn.AlignPostProj(comm=event.Linear(2, 3, 0.1), syn=nn.Expon(3), out=out, post=neurons),
    ):
        with pytest.raises(ValueError, match="Two projections to this LIF have one CUBA for their output"):
            make()


class Composed(nn.Projection):
    """A projection of one's own: two others, and a population that is none."""

    def __init__(self, post: nn.Population) -> None:
        super().__init__()
        self.post = post
        self.parts = [nn.DeltaProj(comm=event.Linear(1, 2, weight), post=post) for weight in (1.0, 2.0)]


def test_a_projection_of_ones_own_calls_those_it_holds() -> None:
    neurons = nn.init_all_states(nn.LIF(2, V_th=10.0))
    Composed(neurons)(jnp.ones(1))
    neurons()
    np.testing.assert_array_equal(neurons.V.value, [3.0, 3.0])
    with pytest.raises(NotImplementedError, match="Projection holds no projections"):
        nn.Projection()(jnp.ones(1))


class Late(nn.Module):
    """Sends the spikes of this step after the population that receives them."""

    def __init__(self) -> None:
        super().__init__()
        self.post = nn.LIF(3)
        self.projection = nn.DeltaProj(comm=event.Linear(3, 3, 0.3), post=self.post)

    def update(self, current: Any) -> Any:
        spikes = self.post(current)
        self.projection(spikes)
        return spikes


@pytest.mark.parametrize(
    "simulate",
    [
        lambda network: nn.run(network, 4 * DT, 1.5),
        lambda network: sg.compile.for_loop(lambda i: network(1.5), jnp.arange(4)),
        lambda network: sg.compile.jit(lambda: network(1.5))(),
        lambda network: sg.augment.vmap(network, isolated=True)(jnp.ones((2, 3))),
    ],
)
def test_what_compiled_code_would_lose_is_refused(simulate: Any) -> None:
    network = nn.init_all_states(Late())
    with pytest.raises(
        ValueError,
        match=r"LIF is sent 'delta DeltaProj0', and does not use it[\s\S]*self.projection\(spikes\)",
    ):
        simulate(network)
    network.post.clear_inputs()
    for _ in range(3):  # eager Python uses it in the next step
        network(1.5)


def test_an_output_may_be_used_by_itself_in_compiled_code() -> None:
    out = nn.COBA(E=0.0)

    def current(g: Any) -> Any:
        out.bind_cond(g)
        return out(-60.0)

    assert np.isclose(sg.compile.jit(current)(2.0), 0.12)
