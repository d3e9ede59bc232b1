"""Neurons: against exact solutions, solvers and loops in NumPy; compiled against plain Python; gradients."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn
from stategraph.errors import StateAccessError
from tests.nn.checking import numbers
from tests.oracle import agree

DT = 0.1


def simulate(neuron: Any, current: Any, steps: int, *watched: str, dt: float = DT) -> tuple[np.ndarray, ...]:
    """Spikes and the watched States of a run, each ``(steps, ...)``."""

    def step(i: Any) -> Any:
        with sg.environ.context(dt=dt, t=i * dt):
            spike = neuron(current)
        return (spike, *(getattr(neuron, name).value for name in watched))

    nn.init_all_states(neuron)
    return tuple(np.asarray(x) for x in sg.compile.for_loop(step, jnp.arange(steps)))


def first_spike(spikes: np.ndarray, dt: float) -> float:
    """When the first neuron spikes first: the end of the step."""
    return float((np.flatnonzero(spikes[:, 0])[0] + 1) * dt)


# ------------------------------------------------------------------------------------- what all have in common

EVERY: dict[str, tuple[Callable[..., Any], float]] = {
    "IF": (nn.IF, 4.0),
    "LIF": (nn.LIF, 4.0),
    "LIFRef": (lambda size, **k: nn.LIFRef(size, tau_ref=2.0, **k), 4.0),
    "ALIF": (nn.ALIF, 4.0),
    "ExpIF": (nn.ExpIF, 40.0),
    "AdExIF": (nn.AdExIF, 40.0),
    "QIF": (nn.QIF, 60.0),
    "Izhikevich": (nn.Izhikevich, 40.0),
    "GIF": (nn.GIF, 4.0),
    "HH": (lambda size, **k: nn.HH(size, V_initializer=-60.0, V_th=-50.0, **k), 60.0),
}


@pytest.mark.core
@pytest.mark.parametrize(
    ("name", "reset"),
    [(name, "soft") for name in EVERY] + [("LIF", "hard"), ("GIF", "hard")],
)
def test_compiled_loops_do_what_python_does(name: str, reset: str) -> None:
    kind, scale = EVERY[name]
    currents = jnp.asarray(scale * (1 + 0.3 * numbers(12, 2, 3)))

    def make() -> Any:
        neuron = nn.init_all_states(kind(3, spk_reset=reset), batch_size=2)

        def run(currents: Any) -> Any:
            def step(i: Any, x: Any) -> Any:
                with sg.environ.context(dt=1.0, t=i * 1.0):
                    return neuron(x)

            return sg.compile.for_loop(step, jnp.arange(12), currents)

        return run, list(sg.graph.states(neuron).values())

    spikes, _ = map(np.asarray, agree(make, (currents,), (currents,), tolerance=2e-4, reference=False))
    assert spikes.shape == (12, 2, 3) and set(np.unique(spikes)) == {0.0, 1.0}


@pytest.mark.core
@pytest.mark.parametrize("name", list(EVERY))
def test_gradients_reach_inputs_and_trained_parameters(name: str) -> None:
    kind, scale = EVERY[name]
    neuron = kind(2)
    parameter = {"Izhikevich": "d", "HH": "C"}.get(name, "tau")
    trained_parameter = sg.ParamState(jnp.asarray(getattr(neuron, parameter), jnp.float32))
    setattr(neuron, parameter, trained_parameter)
    nn.init_all_states(neuron)

    def loss(currents: Any) -> Any:
        def step(i: Any, x: Any) -> Any:
            with sg.environ.context(dt=0.5, t=i * 0.5):
                spike = neuron(x)
            return spike.sum() + 0.01 * neuron.V.value.sum()

        return sg.compile.for_loop(step, jnp.arange(10), currents).sum()

    trained, given = sg.compile.jit(sg.augment.grad(loss, trained_parameter, argnums=0))(
        jnp.full((10, 2), scale, jnp.float32)
    )
    assert np.isfinite(trained) and np.isfinite(given).all()
    assert abs(float(trained)) > 0 and np.abs(given).max() > 0


@pytest.mark.parametrize("name", list(EVERY))
def test_lanes_are_a_batch_and_reset_begins_again(name: str) -> None:
    kind, scale = EVERY[name]
    currents = jnp.asarray(scale * (1 + 0.3 * numbers(2, 3)))
    with sg.environ.context(dt=0.5, t=0.0):
        batch = nn.init_all_states(kind(3), batch_size=2)
        found = [batch(currents) for _ in range(4)]
        lanes = kind(3)
        nn.vmap_init_all_states(lanes, axis_size=2)
        run = sg.augment.vmap(lambda x: lanes(x), in_states=lanes.states(), out_states=lanes.states())
        for expected in found:
            np.testing.assert_array_equal(run(currents), expected)
        np.testing.assert_allclose(lanes.V.value, batch.V.value, rtol=1e-5, atol=1e-4)
        nn.reset_all_states(batch)
        assert batch.V.value.shape == (2, 3)
        np.testing.assert_array_equal(batch(currents), found[0])


def test_a_sweep_makes_neurons_in_lanes() -> None:
    def spikes(tau: Any) -> Any:
        neuron = nn.init_all_states(nn.LIF(1, tau=tau))
        with sg.environ.context(dt=0.5):
            return sg.compile.for_loop(lambda i: neuron(3.0), jnp.arange(40)).sum()

    taus = np.array([2.0, 5.0, 20.0], np.float32)
    found = sg.augment.vmap(spikes)(jnp.asarray(taus))
    np.testing.assert_array_equal(found, [spikes(float(tau)) for tau in taus])
    assert found[0] > found[2] > 0


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="'soft' or 'hard'"):
        nn.LIF(1, spk_reset="none")
    with pytest.raises(TypeError, match="spk_fun"):
        nn.LIF(1, spk_fun=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"LIF\(tau=0\.0\) is not positive"):
        nn.LIF(1, tau=0.0)
    with pytest.raises(ValueError, match="shape"):
        nn.LIF(3, tau=np.ones(2))
    with (
        sg.environ.context(dt=0.1),
        pytest.raises(StateAccessError, match=r"(?s)no State 'V'.*init_all_states"),
    ):
        nn.LIF(1)(0.0)
    with (
        sg.environ.context(dt=0.1),
        pytest.raises(ValueError, match=r"(?s)from the shape \(3,\).*batch_size"),
    ):
        nn.init_all_states(nn.LIF(3))(jnp.ones((2, 3)))
    with sg.environ.context(dt=0.1), pytest.raises(TypeError, match=r"(?s)LIF is complex.*\.real"):
        nn.init_all_states(nn.LIF(3))(1j)
    neurons = nn.init_all_states(nn.LIF(4))
    with (
        sg.environ.context(dt=0.1),
        pytest.raises(ValueError, match=r"(?s)input of LIF.*\(2,\).*population \(4,\)"),
    ):
        neurons(jnp.ones(2))
    neurons.add_current_input("noise", jnp.ones(3))
    with (
        sg.environ.context(dt=0.1),
        pytest.raises(ValueError, match=r"(?s)'current noise' of LIF.*\(3,\).*population \(4,\)"),
    ):
        neurons(jnp.zeros(4))


# ----------------------------------------------------------------------------------------------------- leaky


def test_lif_below_threshold_is_the_exact_solution() -> None:
    neuron = nn.LIF(
        2, R=np.array([2.0, 3.0]), tau=20.0, V_rest=-60.0, V_reset=-65.0, V_th=-40.0, V_initializer=-70.0
    )
    _, V = simulate(neuron, jnp.array([4.0, 5.0]), 300, "V")
    t = DT * np.arange(1, 301)[:, None]
    target = -60 + np.array([8.0, 15.0])
    np.testing.assert_allclose(V, target + (-70 - target) * np.exp(-t / 20), rtol=1e-5)


def test_if_below_threshold_is_the_exact_solution() -> None:
    _, V = simulate(nn.IF(1, R=2.0, tau=10.0, V_th=9.0), 4.0, 200, "V")
    np.testing.assert_allclose(V[:, 0], 8 * (1 - np.exp(-DT * np.arange(1, 201) / 10)), rtol=2e-5)


def test_lif_fires_at_the_exact_rate() -> None:
    """Between two spikes lie ``tau log((R I - V_reset) / (R I - V_th))``, in whole steps."""
    current = np.array([10.5, 12.0, 15.0, 30.0])
    neuron = nn.LIF(4, tau=20.0, V_th=10.0, V_reset=-5.0, V_initializer=-5.0, spk_reset="hard")
    (spikes,) = simulate(neuron, jnp.asarray(current), 3000)
    for column, i in zip(spikes.T, current, strict=True):
        period = math.ceil(20 * math.log((i + 5) / (i - 10)) / DT)
        np.testing.assert_array_equal(np.flatnonzero(column) + 1, period * np.arange(1, column.sum() + 1))


def test_refractory_lif_waits() -> None:
    neuron = nn.LIFRef(1, tau=20.0, tau_ref=3.0, V_th=10.0, spk_reset="hard")
    spikes, V, last = simulate(neuron, 15.0, 2000, "V", "last_spike_time")
    free = math.ceil(20 * math.log(3) / DT)
    times = np.flatnonzero(spikes)
    assert (np.diff(times) == free + 30 - 1).all()  # the step of the 30th is integrated again
    assert (V[times[0] + 1 : times[0] + 30] == 0).all() and V[times[0] + 30] > 0
    np.testing.assert_allclose(last[-1, 0], times[-1] * DT, rtol=1e-6)


def test_soft_reset_takes_off_and_hard_reset_puts_back() -> None:
    for reset, expected in (("soft", 12.0 - 10.0), ("hard", 0.0)):
        neuron = nn.init_all_states(nn.LIF(1, tau=1e6, V_th=10.0, V_initializer=12.0, spk_reset=reset))
        with sg.environ.context(dt=1e-3):
            neuron(0.0)
        np.testing.assert_allclose(neuron.V.value, expected, atol=1e-6)


def test_alif_against_a_loop() -> None:
    spikes, V, a = simulate(nn.ALIF(1, beta=0.5), 3.0, 400, "V", "a")
    v, adaptation, spike = 0.0, 0.0, 0.0
    for n in range(400):
        v, adaptation = v - spike, adaptation + spike
        v = 3 + (v - 3) * math.exp(-DT / 5)
        adaptation *= math.exp(-DT / 100)
        spike = float(v >= 1 + 0.5 * adaptation)
        assert spike == spikes[n, 0]
        np.testing.assert_allclose((V[n, 0], a[n, 0]), (v, adaptation), rtol=1e-4, atol=1e-5)
    assert spikes.sum() > 4


# ----------------------------------------------------------------------------------------------- not linear


def test_qif_fires_at_the_exact_time() -> None:
    """The equation is ``c ((V - m)^2 + D)``, whose solution is a tangent."""
    current, dt = 8.0, 0.01
    m, D = -57.5, current / 0.07 - 7.5**2
    (spikes,) = simulate(nn.QIF(1), current, 8000, dt=dt)
    period = (
        10
        / (0.07 * math.sqrt(D))
        * (math.atan((-30 - m) / math.sqrt(D)) - math.atan((-68 - m) / math.sqrt(D)))
    )
    np.testing.assert_allclose(np.diff(np.flatnonzero(spikes)) * dt, period, rtol=0.005)


def exponential_slope(V: Any, w: Any, current: float) -> Any:
    return (-65 - V + 3.48 * np.exp((V + 59.9) / 3.48) - w + current) / 10


def solved(slope: Callable[..., Any], y: Any, until: float, event: Any = None) -> Any:
    integrate = pytest.importorskip("scipy.integrate")
    if event is not None:
        event.terminal = True
    return integrate.solve_ivp(slope, (0, until), y, rtol=1e-9, atol=1e-9, events=event, dense_output=True)


def test_exponential_neurons_against_a_solver() -> None:
    dt = 0.01
    spikes, V = simulate(nn.ExpIF(1), 8.0, 4000, "V", dt=dt)
    exact = solved(lambda t, y: exponential_slope(y, 0, 8.0), [-65.0], 100, lambda t, y: y[0] + 30)
    np.testing.assert_allclose(first_spike(spikes, dt), exact.t_events[0][0], rtol=0.005)
    half = int(exact.t_events[0][0] / 2 / dt)
    np.testing.assert_allclose(V[half, 0], exact.sol((half + 1) * dt)[0], rtol=1e-4)
    at = np.flatnonzero(spikes)[0]
    assert V[at, 0] == -30 and abs(V[at + 1, 0] + 68) < 0.2 and V.max() == -30


def test_adaptive_exponential_neurons_against_a_solver() -> None:
    dt, current, a, b = 0.01, 30.0, 0.5, 4.0
    spikes, w = simulate(nn.AdExIF(1, a=1000 * a, b=b, V_th=-30.0), current, 6000, "w", dt=dt)

    def slope(t: float, y: Any) -> Any:
        return [exponential_slope(y[0], y[1], current), (a * (y[0] + 65) - y[1]) / 30]

    y, t, times = [-65.0, 0.0], 0.0, []
    for _ in range(3):
        part = solved(slope, y, 60, lambda t, y: y[0] + 30)
        t += part.t_events[0][0]
        times.append(t)
        y = [-68.0, part.y[1, -1] + b]
    found = (np.flatnonzero(spikes)[:3] + 1) * dt
    np.testing.assert_allclose(found, times, rtol=0.01)
    np.testing.assert_allclose(w[np.flatnonzero(spikes)[2] + 1, 0], y[1], rtol=0.02)


def test_izhikevich_against_a_loop() -> None:
    parameters = np.array([[0.02, 0.2, -65.0, 8.0], [0.1, 0.2, -65.0, 2.0], [0.02, 0.25, -55.0, 0.05]]).T
    names = dict(zip("abcd", parameters, strict=True))
    spikes, V, u = simulate(nn.Izhikevich(3, u_initializer=-65 * names["b"], **names), 10.0, 1000, "V", "u")
    a, b, c, d = parameters
    v, recovery = np.full(3, -65.0), -65 * b
    counts = np.zeros(3)
    for n in range(200):
        fired = v >= 30
        v, recovery = np.where(fired, c, v), recovery + d * fired
        slope, jacobian = 0.04 * v**2 + 5 * v + 140 - recovery + 10, 0.08 * v + 5
        recovery = a_decay(recovery, a, b * v)
        v = np.minimum(v + slope * np.expm1(DT * jacobian) / jacobian, 30)
        np.testing.assert_array_equal(spikes[n], v >= 30)
        np.testing.assert_allclose(V[n], v, rtol=2e-3)
        np.testing.assert_allclose(u[n], recovery, rtol=2e-3, atol=1e-3)
        counts += v >= 30
    assert (counts >= 1).all() and spikes.sum(0)[1] > spikes.sum(0)[0] >= 3  # fast spiking; regular spiking


def a_decay(value: Any, rate: Any, target: Any) -> Any:
    return target + (value - target) * np.exp(-DT * rate)


def test_generalised_neurons_against_a_solver() -> None:
    dt, current = 0.01, 1.6
    options: dict[str, Any] = {"a": 0.005, "A1": 0.4, "A2": -0.3, "R1": 0.0, "R2": 1.0}
    spikes, V, I1, I2, V_th = simulate(
        nn.GIF(1, spk_reset="hard", **options), current, 12000, "V", "I1", "I2", "V_th", dt=dt
    )

    def slope(t: float, y: Any) -> Any:
        V, one, two, threshold = y
        return [
            (-(V + 70) + 20 * (one + two + current)) / 20,
            -0.2 * one,
            -0.02 * two,
            0.005 * (V + 70) - 0.01 * (threshold + 50),
        ]

    y, t, times = [-70.0, 0.0, 0.0, -50.0], 0.0, []
    for _ in range(3):
        part = solved(slope, y, 100, lambda t, y: y[0] - y[3])
        t += part.t_events[0][0]
        times.append(t)
        y = [-70.0, 0.4, part.y[2, -1] - 0.3, max(part.y[3, -1], -60.0)]
    at = np.flatnonzero(spikes)
    np.testing.assert_allclose((at[:3] + 1) * dt, times, rtol=0.01)
    n = at[2] + 1
    np.testing.assert_allclose((V[n, 0], I1[n, 0], I2[n, 0], V_th[n, 0]), y, rtol=0.02)


@pytest.mark.parametrize(
    "make, state", [(nn.LIFRef, "last_spike_time"), (nn.HH, "m"), (nn.Expon, "g"), (nn.STP, "x")]
)
@pytest.mark.parametrize("shape", [(5,), (), (4, 2), (1,)])
def test_state_of_another_size_is_refused_at_the_next_step(
    make: Any, state: str, shape: tuple[int, ...]
) -> None:
    population = nn.init_all_states(make(4))
    written = getattr(population, state)

    def step(value: Any) -> Any:
        written.value = value
        with sg.environ.context(dt=DT, t=0.0):
            return population(jnp.ones(4))

    message = (
        rf"'{state}' of {make.__name__} has the shape {re.escape(str(shape))}, and the population \(4,\)"
    )
    for run in (step, sg.compile.jit(step)):
        with pytest.raises(ValueError, match=message + r"\.\n(.*\n)*  fix: "):
            run(jnp.ones(shape))
        run(jnp.zeros(4))


def test_the_surrogates_of_neurons_are_those_of_brainpy_state() -> None:
    assert nn.Neuron(1).spk_fun == sg.surrogate.InvSquareGrad(100.0)
    assert nn.LIF(1).spk_fun == nn.HH(1).spk_fun == sg.surrogate.ReluGrad()


def test_state_may_get_axes_of_a_batch() -> None:
    neuron = nn.init_all_states(nn.LIF((2, 3), tau=10.0))
    neuron.V.value = jnp.full((5, 2, 3), 0.5)
    with sg.environ.context(dt=DT):
        assert neuron(0.0).shape == (5, 2, 3)
    nn.reset_all_states(neuron, batch_size=4)
    assert neuron.V.value.shape == (4, 2, 3)


# ----------------------------------------------------------------------------------------------- conductances


def test_hodgkin_huxley_against_a_solver() -> None:
    dt, current = 0.01, 10.0
    neuron = nn.HH(1, gL=0.3, V_initializer=-65.0)
    spikes, V, n = simulate(neuron, current, 2000, "V", "n", dt=dt)

    def gates(V: Any) -> Any:
        alpha = np.array([0.1 * (V + 40) / -np.expm1(-(V + 40) / 10), 0.07 * np.exp(-(V + 65) / 20),
                          0.01 * (V + 55) / -np.expm1(-(V + 55) / 10)])  # fmt: skip
        beta = np.array(
            [4 * np.exp(-(V + 65) / 18), 1 / (1 + np.exp(-(V + 35) / 10)), 0.125 * np.exp(-(V + 65) / 80)]
        )
        return alpha, beta

    def slope(t: float, y: Any) -> Any:
        V, m, h, n = y
        alpha, beta = gates(V)
        inner = 120 * m**3 * h * (50 - V) + 36 * n**4 * (-77 - V) + 0.3 * (-54.387 - V)
        return [inner + current, *(alpha * (1 - y[1:]) - beta * y[1:])]

    alpha, beta = gates(-65.0)
    exact = solved(slope, [-65.0, *(alpha / (alpha + beta))], 20)
    y = exact.sol(dt * np.arange(1, 2001))
    peaks = np.flatnonzero((y[0, 1:] >= 20) & (y[0, :-1] < 20))
    found = np.flatnonzero(spikes[:, 0])
    assert len(found) == len(peaks) == 2
    np.testing.assert_allclose(found * dt, peaks * dt, atol=0.15)
    np.testing.assert_allclose(V[:150, 0], y[0, :150], atol=2.0)
    np.testing.assert_allclose(n[:150, 0], y[3, :150], atol=0.02)


def test_hodgkin_huxley_neurons_are_not_reset() -> None:
    kinds = [nn.HH(1, gL=0.3, V_initializer=-65.0, spk_reset=reset) for reset in ("soft", "hard")]
    soft, hard = (simulate(neuron, 10.0, 2000, "V", dt=0.01) for neuron in kinds)
    assert soft[0].sum() == 2
    for a, b in zip(soft, hard, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="'soft' or 'hard'"):
        nn.HH(1, spk_reset="none")


def test_hodgkin_huxley_rates_are_smooth_where_their_formulas_are_not() -> None:
    neuron = nn.HH(1)
    assert float(neuron.m_alpha(-40.0)) == 1.0 and math.isclose(
        float(neuron.n_alpha(-55.0)), 0.1, rel_tol=1e-6
    )
    np.testing.assert_allclose(jax.grad(neuron.m_alpha)(-40.0), 0.05, rtol=1e-5)
    with sg.environ.context(dt=0.01):
        nn.init_all_states(neuron)
        np.testing.assert_allclose(neuron.m.value, neuron.m_inf(neuron.V.value))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.IF(2, V_th=0.0),
        lambda: nn.LIF(2, V_rest=-60.0, V_th=-50.0),  # V_reset is 0 unless given
        lambda: nn.LIFRef(2, V_th=np.array([1.0, 0.0])),
        lambda: nn.ALIF(2, V_th=1.0, V_reset=1.0),
        lambda: nn.AdExIF(2, V_th=-70.0),
        lambda: nn.QIF(2, V_reset=sg.ParamState(100.0)),
        lambda: nn.Izhikevich(2, V_th=-65.0),
        lambda: nn.HH(2, V_th=-60.0),
    ],
)
def test_a_threshold_below_the_reset_is_refused(make: Any) -> None:
    with pytest.raises(
        ValueError, match=r"V_th=.*is not above .*\n  why:   its neurons would spike below their threshold"
    ):
        make()
