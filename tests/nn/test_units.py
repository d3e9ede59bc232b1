"""Neurons, synapses and settings given as quantities: the same numbers as without units."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn
from stategraph.errors import UnitError

u = pytest.importorskip("saiunit")


def plain(value, unit):
    return value


def measured(value, unit):
    return value * unit


def balanced(q):
    neurons = nn.LIFRef(
        4, R=q(100.0, u.Mohm), tau=q(20.0, u.ms), tau_ref=q(5.0, u.ms), V_rest=q(-60.0, u.mV), V_th=q(-50.0, u.mV),
        V_reset=q(-60.0, u.mV), V_initializer=nn.init.Normal(q(-55.0, u.mV), q(2.0, u.mV), seed=0), spk_reset="hard",
    )  # fmt: skip
    projection = nn.AlignPostProj(
        neurons.output_delay(q(1.5, u.ms)), comm=sg.event.Linear(4, 4, 6.0), syn=nn.Expon.desc(tau=q(5.0, u.ms)),
        out=nn.COBA.desc(E=q(0.0, u.mV)), post=neurons,
    )  # fmt: skip
    return nn.init_all_states([neurons, projection])


def run(q):
    with sg.environ.context(dt=q(0.1, u.ms)):
        neurons, projection = balanced(q)

        def step(i):
            with sg.environ.context(t=i * sg.environ.get_dt()):
                projection()
                neurons(q(0.2, u.nA))
                return neurons.V.value

        return neurons, sg.compile.for_loop(step, jnp.arange(300))


def test_a_network_with_units_computes_what_it_computes_without():
    _, expected = run(plain)
    neurons, found = run(measured)
    np.testing.assert_array_equal(found, expected)
    assert neurons.V.unit == u.mV and neurons.last_spike_time.unit == u.ms


def test_a_unit_is_one_of_it():
    assert nn.CUBA(scale=u.volt).scale == 1.0 and nn.CUBA(scale=u.mV).scale == 1e-3
    assert nn.LIF(1, R=u.Gohm, tau=u.second).R == 1e3
    with pytest.raises(UnitError, match=r"CUBA\(scale=...\) is given a quantity in nA"):
        nn.CUBA(scale=u.nA)


@pytest.mark.parametrize(
    "make, number, quantity",
    [
        (nn.LIF, 1.5, 1.5e3 * u.pA),
        (nn.LIFRef, 1.5, 1.5 * u.nA),
        (nn.AdExIF, 1.5, 1.5 * u.nA),
        (nn.Izhikevich, 10.0, 10.0 * u.mV / u.ms),
        (nn.GIF, 1.5, 1.5 * u.nA),
        (nn.HH, 10.0, 10.0 * u.uA),
        (nn.Expon, 2.0, 2e-3 * u.uS),
        (nn.DualExpon, 2.0, 2.0 * u.nS),
        (nn.Alpha, 2.0, 2.0 * u.nS),
    ],
)
def test_update_takes_quantities_as_a_call_does(make, number, quantity):
    def stepped(step):
        population = make(2, **({"V_initializer": -65.0} if make is nn.HH else {}))
        nn.init_all_states(population)
        with sg.environ.context(dt=0.1 * u.ms, t=0.0 * u.ms):
            step(population)
            return [state.value for state in sg.graph.states(population).values()]

    expected = stepped(lambda population: population(number))
    for step in (lambda p: p.update(x=quantity), lambda p: p.update(quantity), lambda p: p(x=quantity)):
        np.testing.assert_allclose(stepped(step), expected, rtol=1e-6)
    with pytest.raises(UnitError, match=f"The input of {make.__name__} is given a quantity in ms"):
        stepped(lambda population: population.update(1.0 * u.ms))


def test_a_magnesium_block_is_known_by_its_numbers():
    block = nn.MgBlock(E=0.0 * u.mV, cc_Mg=1.2, alpha=0.062, V_offset=0.0 * u.mV)
    assert block.update(1.0, -60.0) == nn.MgBlock().update(1.0, -60.0)
    assert nn.MgBlock(cc_Mg=1200.0 * u.uM).cc_Mg == pytest.approx(1.2)
    with pytest.raises(UnitError, match=r"MgBlock\(V_offset=...\) is given a plain number, and E a quantity"):
        nn.MgBlock(E=0.0 * u.mV, V_offset=1.0)


def test_other_units_of_the_dimension_are_converted():
    neuron = nn.LIF(1, tau=0.02 * u.second, V_th=-0.05 * u.volt, V_reset=-60.0 * u.mV, R=0.1 * u.Gohm)
    np.testing.assert_allclose([neuron.tau, neuron.V_th, neuron.R], [20.0, -50.0, 100.0])


def test_the_states_of_a_population_with_units_take_quantities():
    neuron = nn.init_all_states(nn.LIF(1, tau=20.0 * u.ms))
    neuron.V.value = jnp.full(1, -0.06) * u.volt
    np.testing.assert_allclose(neuron.V.value, [-60.0])
    with sg.environ.context(dt=0.1 * u.ms):
        assert '@V : HiddenState<f32[1]> {unit = "mV"}' in str(sg.trace(neuron, 1.0).program)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: nn.LIF(3, tau=20 * u.mV),
            r"LIF\(tau=...\) is given a quantity in mV.\n(.*\n)*.*it is in ms",
        ),
        (lambda: nn.COBA(E=3 * u.nS), r"COBA\(E=...\) is given a quantity in nS"),
        (lambda: nn.STP(3, U=3 * u.nS), r"STP\(U=...\) is given a quantity in nS.\n(.*\n)*.*no unit"),
        (lambda: nn.PoissonSpike(3, freqs=3 * u.ms), r"PoissonSpike\(freqs=...\) is given a quantity in ms"),
        (lambda: nn.LIF(3, V_initializer=nn.init.Constant(1 * u.nA)), r"LIF\(V_initializer=...\) .* nA"),
        (lambda: nn.LIF(3, tau=sg.ParamState(1.0 * u.second)), r"LIF\(tau=...\) is given a State in s"),
        (lambda: nn.LIF(3, tau=20 * u.ms, V_th=1.0), r"LIF\(V_th=...\) is given a plain number, and tau a q"),
        (lambda: nn.LIF(3, V_initializer=nn.init.Constant(1.0), tau=20 * u.ms), r"LIF\(V_initializer=...\)"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_parameter(make, message):
    with pytest.raises(UnitError, match=message):
        make()


def test_inputs_may_be_quantities():
    neuron = nn.init_all_states(nn.LIF(1, V_th=10.0))
    with sg.environ.context(dt=0.1):
        neuron(2000.0 * u.pA)
        by_input = neuron.V.value
        neuron.reset_state()
        neuron.add_current_input("stimulus", jnp.full(1, 0.002) * u.uA)
        neuron()
        np.testing.assert_allclose(neuron.V.value, by_input, rtol=1e-6)
        with pytest.raises(UnitError, match="The input of LIF is given a quantity in mV"):
            neuron(2.0 * u.mV)


def test_what_a_current_does_is_said_where_there_are_units():
    """A resistance that is left out is 1 Mohm among plain numbers, and 1 ohm in brainpy.state."""
    leaky, adaptive = (nn.init_all_states(make(1, tau=20.0 * u.ms)) for make in (nn.LIF, nn.AdExIF))
    with sg.environ.context(dt=0.1 * u.ms):
        for give in (leaky, leaky.update, lambda x: leaky.add_current_input("stimulus", x)):
            with pytest.raises(UnitError, match=r"LIF is given a current in mA, and was made without R\."):
                give(20.0 * u.mA)
        with pytest.raises(UnitError, match=r"without R and a and b\."):
            adaptive(20.0 * u.mA)
        synapses = {"comm": sg.event.Linear(1, 1, 1.0 * u.nS), "syn": nn.Expon.desc(tau=5.0 * u.ms)}
        with pytest.raises(UnitError, match=r"LIF is given the currents of 'AlignPostProj0'"):
            nn.AlignPostProj(**synapses, out=nn.COBA.desc(E=0.0 * u.mV), post=leaky)
        nn.DeltaProj(comm=sg.event.Linear(1, 1, 20.0 * u.mV), post=leaky)(jnp.ones(1))
        leaky()
        for resistance in (1e-6 * u.Mohm, u.ohm):
            found = nn.init_all_states(nn.LIF(1, resistance, 20.0 * u.ms, 30.0 * u.mV))
            for _ in range(9):
                found(20.0 * u.mA)
            np.testing.assert_allclose(found.V.value, 20 * -np.expm1(-9 * 0.1 / 20), rtol=1e-5)


def test_a_delay_has_the_units_of_its_target():
    with sg.environ.context(dt=0.1, t=0.1):
        delay = nn.init_all_states(nn.Delay(jnp.zeros(2) * u.mV, time=0.2, take_aware_unit=True))
        delay.update(jnp.ones(2) * u.mV)
        delay.update(jnp.full(2, 3e-3) * u.volt)
        assert u.math.allclose(delay.retrieve_at_step(0), jnp.full(2, 3.0) * u.mV)
        assert u.math.allclose(delay.retrieve_at_time(0.05), jnp.full(2, 2.0) * u.mV)
        for wrong in (jnp.ones(2) * u.mA, jnp.ones(2)):
            with pytest.raises(UnitError, match=r"in mV|quantity in mV"):
                delay.update(wrong)
        plain = nn.init_all_states(nn.Delay(jnp.zeros(2), time=0.2, take_aware_unit=True))
        with pytest.raises(UnitError, match="holds plain numbers"):
            plain.update(jnp.ones(2) * u.mV)


def test_a_parameter_in_units_is_trained():
    neuron = nn.init_all_states(
        nn.LIF(1, 1.0 * u.Mohm, sg.ParamState(10.0 * u.ms), V_th=20.0 * u.mV, spk_reset="hard")
    )

    def potential():
        with sg.environ.context(dt=0.1 * u.ms):
            sg.compile.for_loop(lambda i: neuron(1.0 * u.nA), jnp.arange(20))
        return neuron.V.value.sum()

    gradient = sg.augment.grad(potential, neuron.tau)()
    # V = 1 - exp(-2 / tau), so dV/dtau = -2 / tau^2 exp(-2 / tau)
    np.testing.assert_allclose(gradient.mantissa, -0.02 * np.exp(-0.2), rtol=1e-4)


@pytest.mark.parametrize("step", [nn.exp_euler_step, nn.euler_step, nn.rk2_step, nn.rk4_step])
def test_equations_of_quantities_are_integrated(step):
    tau, start = 20.0 * u.ms, jnp.array([1.0, 2.0])
    with sg.environ.context(dt=0.5 * u.ms):
        found = step(lambda v: (-0.06 * u.volt - v) / tau, start * u.mV)
        with pytest.raises(UnitError, match=r"needs one in mV / ms"):
            step(lambda v: -v, start * u.mV)
    with sg.environ.context(dt=0.5):
        expected = step(lambda v: (-60.0 - v) / 20.0, start)
    assert found.unit == u.mV
    np.testing.assert_allclose(found.mantissa, expected, rtol=1e-6)


def test_a_time_step_in_units_is_kept_as_it_is_set_and_traced_once():
    with sg.environ.context(dt=100.0 * u.us):
        assert sg.environ.get_dt().unit == u.us
    neuron, runs = nn.init_all_states(nn.LIF(1, R=u.Mohm, tau=20.0 * u.ms)), []

    @sg.compile.jit
    def step():
        runs.append(1)
        return neuron(1.0 * u.nA)

    for _ in range(3):
        with sg.environ.context(dt=100.0 * u.us):  # an equal quantity, another object
            step()
    assert len(runs) == 1
    np.testing.assert_allclose(neuron.V.value, 1 - np.exp(-0.3 / 20), rtol=1e-4)


def test_random_input_in_units():
    neurons = nn.init_all_states(nn.LIF(3, tau=20 * u.ms))
    noise = nn.PoissonInput(
        neurons.prefetch("V"), [0, 2], num_input=20, freq=1000.0 * u.MHz, weight=0.25e-3 * u.volt
    )
    with sg.environ.context(dt=0.1 * u.ms):
        noise()
    np.testing.assert_allclose(neurons.V.value, [5, 0, 5], rtol=1e-6)


def test_random_input_in_units_arrives_at_neurons_without():
    for make in (lambda neurons: neurons, lambda neurons: neurons.prefetch("V")):
        neurons = nn.init_all_states(nn.LIF(2, V_th=10.0))
        noise = nn.PoissonInput(make(neurons), None, 20, 1000.0 * u.MHz, 0.25e-3 * u.volt)
        with sg.environ.context(dt=0.1):
            noise()
            if make(neurons) is neurons:
                neurons()
        np.testing.assert_allclose(neurons.V.value, [5, 5], rtol=1e-6)
        with sg.environ.context(dt=0.1), pytest.raises(UnitError, match="it is in mV"):
            nn.PoissonInput(make(neurons), None, 20, 10.0 * u.Hz, 1.0 * u.nA)()


def test_connections_send_in_the_unit_of_their_weight():
    spikes = jnp.array([1.0, 0.0, 1.0])
    for weight in (2.0 * u.nS, nn.init.Constant(2.0 * u.nS), sg.ParamState(2.0, unit=u.nS)):
        connections = sg.event.FixedProb(3, 4, 1.0, weight, seed=0)
        arrived = spikes @ connections
        assert arrived.unit == u.nS and connections.weight.unit == u.nS
        np.testing.assert_allclose(arrived.mantissa, np.full(4, 4.0))
        assert (connections @ jnp.ones(4)).unit == u.nS
    with pytest.raises(UnitError, match="weight of connections is a State that holds a quantity in nS"):
        sg.event.FixedProb(3, 4, 1.0, sg.ParamState(2.0 * u.nS), seed=0)


def test_weights_of_projections_are_checked_and_converted():
    def potential(weight, post):
        projection = nn.DeltaProj(comm=sg.event.FixedProb(3, 4, 1.0, weight, seed=0), post=post)
        nn.init_all_states(post)
        with sg.environ.context(dt=0.1):
            projection(jnp.ones(3))
            post()
        return post.V.value

    expected = potential(3.0, nn.LIF(4, V_th=100.0))
    np.testing.assert_allclose(potential(0.003 * u.volt, nn.LIF(4, V_th=100.0)), expected, rtol=1e-6)
    with pytest.raises(UnitError, match="The delta of LIF is given a quantity in nS"):
        potential(3.0 * u.nS, nn.LIF(4, V_th=100.0))


def test_a_run_takes_quantities():
    def spikes(q):
        neurons = nn.init_all_states(nn.LIFRef(2, q(1.0, u.Mohm), q(20.0, u.ms), V_th=q(10.0, u.mV)))
        with sg.environ.context(dt=q(0.1, u.ms)):
            found = nn.run(
                neurons, q(50.0, u.ms), inputs=q(20.0, u.nA), monitor={"spk": neurons.spike, "V": neurons.V}
            )
        return found

    plainly, found = spikes(plain), spikes(measured)
    assert len(found["spk"].times) > 0
    np.testing.assert_array_equal(found["spk"].times, plainly["spk"].times)
    np.testing.assert_array_equal(found["V"], plainly["V"])


class Measured(nn.Neuron):
    """A neuron that computes with quantities itself: leaky integrate-and-fire."""

    def init_state(self, batch_size=None):
        self.V = sg.HiddenState(jnp.full(self.varshape, -60.0) * u.mV)

    def get_spike(self, V=None):
        return self.spk_fun(((self.V.value if V is None else V) + 50 * u.mV) / (10 * u.mV))

    def update(self, x=0.0 * u.nA):
        V = self.after_reset(self.V.value, self.get_spike(), -50 * u.mV, -60 * u.mV)

        def slope(V):
            return (-60 * u.mV - V + 100 * u.Mohm * self.sum_current_inputs(x, V)) / (20 * u.ms)

        self.V.value = self.sum_delta_inputs(nn.exp_euler_step(slope, V))
        return self.get_spike()


@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_a_neuron_of_ones_own_may_compute_with_quantities(reset):
    """It makes the spikes of ``nn.LIF`` with the same parameters, with synapses, projections and delays."""

    def potentials(neurons, q):
        weight, noise = q(6.0, u.nS), q(0.5, u.mV)
        late = neurons.output_delay(1.0)
        synapses = nn.AlignPostProj(
            late, comm=sg.event.Linear(3, 3, weight), syn=nn.Expon.desc(tau=q(5.0, u.ms)), out=nn.COBA.desc(E=q(0.0, u.mV)),
            post=neurons,
        )  # fmt: skip
        kicks = nn.DeltaProj(late, comm=sg.event.Linear(3, 3, noise), post=neurons)
        nn.init_all_states([neurons, synapses, kicks])

        def step(i):
            synapses()
            kicks()
            return neurons(q(jnp.array([0.0, 0.12, 0.3]), u.nA)), neurons.V.value

        return sg.compile.for_loop(step, jnp.arange(400))

    with sg.environ.context(dt=0.1):
        lif = nn.LIF(
            3, R=100.0, tau=20.0, V_rest=-60.0, V_reset=-60.0, V_th=-50.0, spk_reset=reset,
            V_initializer=nn.init.Constant(-60.0),
        )  # fmt: skip
        expected, found = potentials(lif, plain), potentials(Measured(3, spk_reset=reset), measured)
    assert float(expected[0].sum()) > 5
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1].mantissa, expected[1], rtol=1e-4)


def test_an_input_of_a_run_that_does_not_fit_is_refused_at_the_line_of_the_run():
    neurons = nn.init_all_states(nn.LIF(2))
    with pytest.raises(sg.errors.UnitError, match=r"test_units.py:\d+"):
        nn.run(neurons, 1.0, inputs=1.0 * u.mV, dt=0.1)


def hodgkin_huxley(current, **options):
    neuron = nn.init_all_states(nn.HH(1, V_initializer=sg.init.Constant(-65.0 * u.mV), **options))
    with sg.environ.context(dt=0.02 * u.ms):
        return neuron, sg.compile.for_loop(lambda i: (neuron(current), neuron.V.value)[1], jnp.arange(1500))[
            :, 0
        ]


CM2 = u.cmeter**2
WHOLE = {"gL": 60 * u.nS, "gNa": 24 * u.uS, "gK": 7.2 * u.uS, "C": 200 * u.pF}
"""A neuron of 20,000 square micrometers."""


@pytest.mark.parametrize(
    "current, options, per_area",
    [
        (0.1 * u.amp / u.meter**2, {"gL": 0.3 * u.mS / CM2}, True),
        (10.0 * u.uA, {"gL": 0.3 * u.mS}, False),
        (10.0 * u.uA, {"gL": 300.0 * u.uS, "C": 1000.0 * u.nF, "V_th": 20.0 * u.mV}, False),
        (2.0 * u.nA, WHOLE, False),
        (
            2e3 * u.pA,
            {**WHOLE, "gL": sg.init.Constant(60, unit=u.nS), "gK": sg.ParamState(7.2 * u.uS)},
            False,
        ),
    ],
)
def test_hodgkin_huxley_neurons_are_per_area_or_whole(current, options, per_area):
    """Every 250th potential under 10 uA with gL = 0.3 mS, brainpy_state 0.1.0."""
    neuron, found = hodgkin_huxley(current, **options)
    assert neuron.per_area is per_area
    np.testing.assert_allclose(
        found[::250], [-64.80126, -75.08825, -66.88472, -56.94595, -74.86051, -66.19994], rtol=1e-3
    )


def test_the_defaults_of_hodgkin_huxley_neurons_are_per_area_or_whole():
    potentials = [
        hodgkin_huxley(current)[1] for current in (10.0, 10.0 * u.uA, 1e4 * u.nA, 10.0 * u.uA / CM2)
    ]
    for found in potentials[1:]:
        np.testing.assert_array_equal(found, potentials[0])
    assert hodgkin_huxley(10.0)[0].per_area is None


def test_synapses_send_what_whole_neurons_take():
    """A synapse of 6 nS, 60 mV from its reversal potential, is a current of 0.36 nA."""
    neuron = nn.HH(1, V_initializer=sg.init.Constant(-60.0 * u.mV), **WHOLE)
    projection = nn.CurrentProj(
        comm=sg.event.Linear(1, 1, 6.0 * u.nS), out=nn.COBA(E=0.0 * u.mV), post=neuron
    )
    other = nn.HH(1, V_initializer=sg.init.Constant(-60.0 * u.mV), **WHOLE)
    nn.init_all_states([neuron, other])
    with sg.environ.context(dt=1e-3 * u.ms):
        projection(jnp.ones(1))
        neuron()
        other(0.36 * u.nA)
    np.testing.assert_allclose(neuron.V.value, other.V.value)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: nn.HH(1, gNa=120 * u.mS, C=1.0 * u.uF / CM2),
            r"HH\(C=...\) is given per area, in uF / cm\^2, and gNa for the whole neuron, in mS",
        ),
        (lambda: nn.HH(1, gNa=120 * u.mV), r"HH\(gNa=...\) is given a quantity in mV.\n(.*\n)*.*mS / cm\^2"),
        (
            lambda: nn.HH(1, gNa=120 * u.mS, gK=36.0),
            r"HH\(gK=...\) is given a plain number, and gNa a quantity",
        ),
        (lambda: nn.HH(1, gNa=120 * u.mS, gK=3 * u.mV), r"HH\(gK=...\) is given a quantity in mV"),
        (
            lambda: hodgkin_huxley(1.0 * u.uA / CM2, gL=0.3 * u.mS),
            r"The input of HH is given a quantity in uA / cm\^2",
        ),
        (
            lambda: hodgkin_huxley(1.0 * u.uA, gL=0.3 * u.mS / CM2),
            r"The input of HH is given a quantity in uA\.",
        ),
        (lambda: hodgkin_huxley(1.0 * u.mV), r"The input of HH is given a quantity in mV"),
    ],
)
def test_membranes_that_are_per_area_and_not_are_refused(make, message):
    with pytest.raises(UnitError, match=message):
        make()
