"""Neurons, synapses, plasticity and a network against Brian 2, where it is installed (``pip install brian2``).

Both compute in double precision and in steps of one length, so what has an exact step agrees to rounding, spike by spike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import event, init, nn

b2 = pytest.importorskip("brian2")

DT = 0.1  # ms
RNG = np.random.default_rng(4)


@pytest.fixture(autouse=True)
def same_precision() -> Iterator[None]:
    b2.prefs.codegen.target = "numpy"
    b2.defaultclock.dt = DT * b2.ms
    with sg.environ.context(precision=64, dt=DT):
        yield


def simulated(time: float, *objects: Any) -> None:
    b2.Network(*objects).run(time * b2.ms, namespace={"ms": b2.ms})


def steps_of(monitor: Any, dt: float = DT) -> np.ndarray:
    """Who spiked in which step: a row (step, neuron) for each spike, sorted."""
    found = np.stack([np.rint(monitor.t / b2.ms / dt).astype(int), np.asarray(monitor.i)], 1)
    return found[np.lexsort(found.T[::-1])]


def steps(spikes: sg.spikes.Spikes, dt: float = DT) -> np.ndarray:
    return np.stack([np.rint(spikes.times / dt).astype(int), spikes.ids], 1)


# ---------------------------------------------------------------------------------------------------- neurons


def test_refractory_neurons() -> None:
    """Two step lengths in a refractory period, and one that is no multiple of the step."""
    size, refractory = 12, RNG.choice([0.5, 2.0, 3.04], 12)
    drive, first = RNG.uniform(0.8, 3.0, size), RNG.random(size)
    theirs = b2.NeuronGroup(
        size, "dv/dt = (drive - v) / (8*ms) : 1 (unless refractory)\ndrive : 1\nwait : second",
        threshold="v >= 1", reset="v = 0.1", refractory="wait", method="exact",
    )  # fmt: skip
    theirs.v, theirs.drive, theirs.wait = first, drive, refractory * b2.ms
    spikes, potential = (
        b2.SpikeMonitor(theirs),
        b2.StateMonitor(theirs, "v", record=True, when="resets", order=-1),
    )
    simulated(100.0, theirs, spikes, potential)

    ours = nn.LIFRef(size, tau=8.0, tau_ref=refractory, V_reset=0.1, V_initializer=first, spk_reset="hard")
    rec = nn.run(
        nn.init_all_states(ours), 100.0, lambda t: jnp.asarray(drive), {"spk": ours.spike, "V": ours.V}
    )
    assert spikes.num_spikes > 100
    np.testing.assert_array_equal(steps(rec["spk"]), steps_of(spikes))
    np.testing.assert_allclose(rec["V"], potential.v.T, rtol=0, atol=1e-9)


def test_neurons_with_an_adaptive_threshold() -> None:
    drive = RNG.uniform(1.2, 3.0, 8)
    theirs = b2.NeuronGroup(
        8, "dv/dt = (drive - v) / (8*ms) : 1\nda/dt = -a / (60*ms) : 1\ndrive : 1",
        threshold="v >= 1 + 0.2 * a", reset="v = 0\na += 1", method="exact",
    )  # fmt: skip
    theirs.drive = drive
    spikes, adaptation = b2.SpikeMonitor(theirs), b2.StateMonitor(theirs, "a", record=True, when="thresholds")
    simulated(200.0, theirs, spikes, adaptation)

    ours = nn.ALIF(8, tau=8.0, tau_a=60.0, beta=0.2, spk_reset="hard")
    rec = nn.run(
        nn.init_all_states(ours), 200.0, lambda t: jnp.asarray(drive), {"spk": ours.spike, "a": ours.a}
    )
    assert spikes.num_spikes > 50
    np.testing.assert_array_equal(steps(rec["spk"]), steps_of(spikes))
    np.testing.assert_allclose(rec["a"], adaptation.a.T, rtol=0, atol=1e-9)


def test_adaptive_exponential_neurons() -> None:
    """Another integrator (Heun's), so that spikes agree to a step or two in a period."""
    dt, current = 0.01, np.array([0.4, 0.7, 1.0])
    theirs = b2.NeuronGroup(
        3,
        """dv/dt = (-30 * (v + 70.6) + 60 * exp((v + 50.4) / 2) + 1000 * (current - w)) / 281 / ms : 1
        dw/dt = (0.004 * (v + 70.6) - w) / (144*ms) : 1
        current : 1""",
        threshold="v >= 0", reset="v = -70.6\nw += 0.0805", method="heun", dt=dt * b2.ms,
    )  # fmt: skip
    theirs.v, theirs.current = -70.6, current
    spikes = b2.SpikeMonitor(theirs)
    simulated(100.0, theirs, spikes)

    ours = nn.AdExIF(
        3, R=1e3 / 30, tau=281 / 30, tau_w=144.0, V_th=0.0, V_reset=-70.6, V_rest=-70.6, V_T=-50.4, delta_T=2.0, a=4.0,
        b=0.0805, V_initializer=-70.6, spk_reset="hard",
    )  # fmt: skip
    with sg.environ.context(dt=dt):
        rec = nn.run(nn.init_all_states(ours), 100.0, lambda t: jnp.asarray(current), {"spk": ours.spike})
    assert spikes.num_spikes > 5
    np.testing.assert_array_equal(
        np.bincount(rec["spk"].ids, minlength=3), np.bincount(spikes.i, minlength=3)
    )
    np.testing.assert_allclose(np.sort(rec["spk"].times), np.sort(spikes.t / b2.ms), rtol=2e-3, atol=dt)


def test_hodgkin_huxley_neurons() -> None:
    dt, current = 0.01, np.array([7.0, 10.0, 20.0])
    theirs = b2.NeuronGroup(
        3,
        """dv/dt = (current - 120 * m**3 * h * (v - 50) - 36 * n**4 * (v + 77) - 0.3 * (v + 54.387)) / ms : 1
        dm/dt = (exprel(-(v + 40) / 10) ** -1 * (1 - m) - 4 * exp(-(v + 65) / 18) * m) / ms : 1
        dh/dt = (0.07 * exp(-(v + 65) / 20) * (1 - h) - h / (1 + exp(-(v + 35) / 10))) / ms : 1
        dn/dt = (0.1 * exprel(-(v + 55) / 10) ** -1 * (1 - n) - 0.125 * exp(-(v + 65) / 80) * n) / ms : 1
        current : 1""",
        method="exponential_euler", dt=dt * b2.ms,
    )  # fmt: skip
    ours = nn.init_all_states(nn.HH(3, gL=0.3, V_initializer=-65.0))
    theirs.v, theirs.current = -65, current
    for gate in "mhn":
        setattr(theirs, gate, np.asarray(getattr(ours, gate).value))
    potential = b2.StateMonitor(theirs, "v", record=True, dt=1.0 * b2.ms, when="end")
    simulated(30.0, theirs, potential)

    with sg.environ.context(dt=dt):
        rec = nn.run(
            ours, 30.0, lambda t: jnp.asarray(current), {"V": (ours.V, None, 100), "spk": ours.spike}
        )
    assert len(rec["spk"].ids) >= 6
    np.testing.assert_allclose(rec["V"], potential.v.T, rtol=0, atol=1e-7)


# ------------------------------------------------------------------------------- synapses that are given spikes

SENT = np.sort(RNG.choice(np.arange(5, 900), 25, replace=False))
"""The steps of spikes of one neuron."""


def conductance(synapse: Any, name: str) -> np.ndarray:
    """A State of a synapse after each step, for ``SENT``."""
    train = np.zeros((1000, 1))
    train[SENT] = 1
    return np.asarray(nn.run(nn.init_all_states(synapse), 100.0, train, {"g": getattr(synapse, name)})["g"])[
        :, 0
    ]


def in_brian(equations: str, effect: str, *names: str, **first: float) -> list[np.ndarray]:
    """Variables of a neuron that receives ``SENT`` through one synapse, after each step."""
    source = b2.SpikeGeneratorGroup(1, np.zeros(len(SENT), int), SENT * DT * b2.ms)
    target = b2.NeuronGroup(1, equations, method="exact")
    for name, value in first.items():
        setattr(target, name, value)
    synapse = b2.Synapses(source, target, on_pre=effect)
    synapse.connect()
    monitor = b2.StateMonitor(target, names, record=True, when="end")
    simulated(100.0, source, target, synapse, monitor)
    return [getattr(monitor, name)[0] for name in names]


def test_exponential_synapses() -> None:
    (g,) = in_brian("dg/dt = -g / (4*ms) : 1", "g_post += 1", "g")
    np.testing.assert_allclose(conductance(nn.Expon(1, tau=4.0), "g"), g, rtol=1e-9, atol=1e-12)


def test_alpha_synapses() -> None:
    g, h = in_brian("dg/dt = (h - g) / (4*ms) : 1\ndh/dt = -h / (4*ms) : 1", "h_post += 1", "g", "h")
    for name, expected in (("g", g), ("h", h)):
        found = conductance(nn.Alpha(1, tau=4.0), name)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_synapses_with_two_exponentials() -> None:
    a, b = in_brian("da/dt = -a / (6*ms) : 1\ndb/dt = -b / (2*ms) : 1", "a_post += 1\nb_post += 1", "a", "b")
    for name, expected in (("g_decay", a), ("g_rise", b)):
        found = conductance(nn.DualExpon(1, tau_decay=6.0, tau_rise=2.0), name)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_short_term_plasticity() -> None:
    """Facilitation before the release, as in Brian 2's example of Tsodyks and Markram's synapses."""
    u, x = in_brian(
        "du/dt = -u / (150*ms) : 1\ndx/dt = (1 - x) / (80*ms) : 1", "u_post += 0.3 * (1 - u_post)\nx_post -= u_post * x_post",
        "u", "x", u=0.3, x=1.0,
    )  # fmt: skip
    for name, expected in (("u", u), ("x", x)):
        found = conductance(nn.STP(1, U=0.3, tau_f=150.0, tau_d=80.0), name)
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_short_term_depression() -> None:
    (x,) = in_brian("dx/dt = (1 - x) / (80*ms) : 1", "x_post -= 0.2 * x_post", "x", x=1.0)
    np.testing.assert_allclose(conductance(nn.STD(1, tau=80.0, U=0.2), "x"), x, rtol=1e-9)


def test_plasticity_by_the_times_of_spikes() -> None:
    pre, post, length = 10, 8, 600
    sent, received = RNG.random((length, pre)) < 0.03, RNG.random((length, post)) < 0.03
    layer = event.FixedProb(pre, post, 0.5, init.Constant(0.5), seed=0)
    csr = layer.connections

    def source(spikes: np.ndarray) -> Any:
        when, who = spikes.nonzero()
        return b2.SpikeGeneratorGroup(spikes.shape[1], who, when * DT * b2.ms)

    one, other = source(sent), source(received)
    theirs = b2.Synapses(
        one, other,
        "w : 1\ndx/dt = -x / (20*ms) : 1 (event-driven)\ndy/dt = -y / (30*ms) : 1 (event-driven)",
        on_pre={"down": "w = clip(w - 0.03 * y, 0, 1)", "later": "x += 1"},
        on_post={"up": "w = clip(w + 0.02 * x, 0, 1)", "late": "y += 1"},
        method="exact",
    )  # fmt: skip
    theirs.down.order, theirs.up.order, theirs.later.order, theirs.late.order = 0, 1, 2, 2
    theirs.connect(i=np.asarray(csr.rows), j=np.asarray(csr.indices))
    theirs.w = 0.5
    simulated(length * DT, one, other, theirs)

    stdp = nn.init_all_states(event.STDP(layer, tau_plus=20.0, tau_minus=30.0, A_plus=0.02, A_minus=0.03))
    sg.compile.for_loop(stdp, sent, received)
    found = np.asarray(layer.weight.value)
    assert found.std() > 0.02
    np.testing.assert_allclose(found, np.asarray(theirs.w), rtol=1e-9)


# ---------------------------------------------------------------------------------------------------- networks


class Balanced(nn.Module):
    """Conductances, a delay for each inhibitory synapse, refractory neurons."""

    def __init__(self, first: np.ndarray) -> None:
        super().__init__()
        self.neurons = nn.LIFRef(
            200,
            R=100.0,
            tau=20.0,
            tau_ref=5.0,
            V_rest=-60.0,
            V_th=-50.0,
            V_reset=-60.0,
            V_initializer=first,
            spk_reset="hard",
        )
        self.fast = event.FixedProb(160, 200, 0.1, 6.0, seed=0)
        slow = event.FixedProb(40, 200, 0.1, 67.0, seed=1)
        self.slow = event.Delayed(slow, np.arange(slow.connections.size) % 30 * DT)
        self.excite = nn.AlignPostProj(
            comm=self.fast, syn=nn.Expon.desc(tau=5.0), out=nn.COBA.desc(E=0.0), post=self.neurons
        )
        self.inhibit = nn.AlignPostProj(
            comm=self.slow, syn=nn.Expon.desc(tau=10.0), out=nn.COBA.desc(E=-80.0), post=self.neurons
        )

    def update(self, current: Any) -> Any:
        spikes = self.neurons.get_spike()  # of the last step
        self.excite(spikes[:160])
        self.inhibit(spikes[160:])
        return self.neurons(current)


def test_a_balanced_network_spike_by_spike() -> None:
    first = RNG.uniform(-60.0, -50.0, 200)
    ours = nn.init_all_states(Balanced(first))
    rec = nn.run(ours, 150.0, 0.25, {"spk": ours.neurons.spike, "V": (ours.neurons.V, slice(0, 5))})

    theirs = b2.NeuronGroup(
        200,
        """dv/dt = (g_e * (0 - v) + g_i * (-80 - v) - (v + 60) + 25) / (20*ms) : 1 (unless refractory)
        dg_e/dt = -g_e / (5*ms) : 1
        dg_i/dt = -g_i / (10*ms) : 1""",
        threshold="v >= -50", reset="v = -60", refractory=5 * b2.ms, method="exponential_euler",
    )  # fmt: skip
    theirs.v = first
    projections = []
    for group, layer, effect, delays in (
        (theirs[:160], ours.fast, "g_e_post += 0.6", 0),
        (theirs[160:], ours.slow.connections, "g_i_post += 6.7", ours.slow.steps * DT * b2.ms),
    ):
        synapses = b2.Synapses(group, theirs, on_pre=effect)
        synapses.connect(i=np.asarray(layer.connections.rows), j=np.asarray(layer.connections.indices))
        synapses.delay = delays
        projections.append(synapses)
    spikes = b2.SpikeMonitor(theirs)
    potential = b2.StateMonitor(theirs, "v", record=range(5), when="resets", order=-1)
    simulated(150.0, theirs, *projections, spikes, potential)
    assert spikes.num_spikes > 200
    np.testing.assert_array_equal(steps(rec["spk"]), steps_of(spikes))
    np.testing.assert_allclose(rec["V"], potential.v.T, rtol=0, atol=1e-7)
