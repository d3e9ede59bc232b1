"""Delays of what projections send: whole steps, between steps, of each neuron; against NumPy and brainpy.state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import event, nn

DT = 0.5


@pytest.fixture(autouse=True)
def time_step() -> Iterator[None]:
    with sg.environ.context(dt=DT):
        yield


class Sent(nn.Module):
    """A projection to neurons that keep what arrives."""

    def __init__(self, make: Any, **options: Any) -> None:
        super().__init__()
        self.post = nn.IF(4, tau=1e9, V_th=1e9)
        self.projection = make(comm=event.FixedProb(3, 4, 0.6, 2.0, seed=3), post=self.post, **options)

    def update(self, spikes: Any) -> Any:
        self.projection(spikes)
        self.post()
        return self.post.V.value


AXONS = np.array([0.0, 2.0, 3.7])


def arriving(sent: Any, steps: Any) -> np.ndarray[Any, Any]:
    """What arrives of ``(time, ..., neurons)`` after steps that need not be whole, by NumPy's interpolation."""
    sent, steps = np.asarray(sent, float), np.broadcast_to(steps, sent.shape[-1:])
    late, times = np.empty_like(sent), np.arange(len(sent))
    for place in np.ndindex(sent.shape[1:]):
        late[:, *place] = np.interp(times - steps[place[-1]], times, sent[:, *place], left=0.0)
        before_first = (
            times - steps[place[-1]]
        )  # what was sent grows from nothing in the step before the first
        partly = (before_first > -1) & (before_first < 0)
        late[partly, *place] = (1 + before_first[partly]) * sent[0, *place]
    return late


@pytest.mark.parametrize("steps", [2.0, 2.25, AXONS])
@pytest.mark.parametrize("batch", [None, 2])
def test_what_a_projection_sends_arrives_after_its_delay(steps: Any, batch: int | None) -> None:
    shape = (12, 3) if batch is None else (12, batch, 3)
    sent = np.random.default_rng(0).random(shape) < 0.4
    network = Sent(nn.DeltaProj, delay=steps * DT)
    nn.init_all_states(network, batch_size=batch)
    expected = np.cumsum(arriving(sent, steps) @ np.asarray(network.projection.comm.todense()), axis=0)
    found = sg.compile.for_loop(network, jnp.asarray(sent))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    nn.reset_all_states(network)
    with jax.disable_jit():
        np.testing.assert_allclose(
            sg.compile.for_loop(network, jnp.asarray(sent)), expected, rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize(
    "steps, arrived",
    [
        (2.0, [0.0, 0.0, 2.0, 2.0, 2.0, 4.0]),
        (2.5, [0.0, 0.0, 1.0, 2.0, 2.0, 3.0]),
        (2.1, [0.0, 0.0, 1.8, 2.0, 2.0, 3.8]),
    ],
)
@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_delays_between_steps_are_those_of_brainpy_state(
    steps: float, arrived: list[float], dtype: Any
) -> None:
    """``AlignPostProj(comm=Linear or FixedNumConn of weight 2, syn=Expon, delay=...)``, brainpy_state 0.1.0."""
    post = nn.IF(1)
    projection = nn.AlignPostProj(
        comm=event.Linear(1, 1, 2.0),
        syn=nn.Expon.desc(tau=1e9),
        out=nn.CUBA.desc(),
        post=post,
        delay=steps * DT,
    )

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.projection = projection

        def update(self, spikes: Any) -> Any:
            projection(spikes)
            post()
            return projection.syn.g.value[0]

    net = nn.init_all_states(Net())
    sent = np.array([1, 0, 0, 1, 0, 0], dtype)[:, None]
    np.testing.assert_allclose(sg.compile.for_loop(net, jnp.asarray(sent)), arrived, rtol=1e-5)


def test_spikes_that_are_counted_arrive_whole_after_the_nearest_step() -> None:
    sent = np.array([1, 0, 0, 1, 0, 0, 0], np.float32)[:, None]

    def arrived(comm: Any, steps: float) -> list[float]:
        network = nn.init_all_states(Counted(comm, steps * DT))
        return list(np.asarray(sg.compile.for_loop(network, jnp.asarray(sent))))

    for steps, nearest in ((2.4, 2), (2.6, 3)):
        late = np.concatenate([np.zeros(nearest), np.cumsum(sent[: len(sent) - nearest, 0])])
        assert arrived(nn.EventLinear(1, 1, 1.0), steps) == list(late)
    synapses = nn.AlignPreProj(
        syn=nn.STD(1), comm=event.Linear(1, 2, 1.0), out=nn.CUBA(), post=nn.LIF(2), delay=2.4 * DT
    )
    assert synapses.delay is not None and synapses.delay.slots == 2


class Counted(nn.Module):
    """A projection whose neuron adds up what arrives."""

    def __init__(self, comm: Any, delay: float) -> None:
        super().__init__()
        self.post = nn.IF(1, tau=1e9, V_th=1e9)
        self.projection = nn.DeltaProj(comm=comm, post=self.post, delay=delay)

    def update(self, spikes: Any) -> Any:
        self.projection(spikes)
        self.post()
        return self.post.V.value[0]


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (nn.AlignPostProj, {"syn": nn.Expon.desc(tau=3.0), "out": nn.COBA.desc(E=40.0)}),
        (nn.AlignPostProj, {"syn": nn.Alpha, "out": nn.CUBA}),
        (nn.AlignPreProj, {"syn": [nn.STD, nn.Expon], "out": nn.CUBA}),
        (nn.CurrentProj, {"out": nn.CUBA}),
        (nn.DeltaProj, {}),
    ],
)
def test_a_delay_of_a_projection_is_that_of_its_input(make: Any, options: Any) -> None:
    def built(**delay: Any) -> Any:
        sizes = 3 if make is nn.AlignPreProj else 4
        made = {
            key: [one(sizes) for one in value]
            if isinstance(value, list)
            else value(*(() if value is nn.CUBA else (sizes,)))
            if isinstance(value, type)
            else value
            for key, value in options.items()
        }
        return nn.init_all_states(Sent(make, **made, **delay))

    sent = np.random.default_rng(1).random((10, 3)) < 0.5
    late = np.concatenate([np.zeros((3, 3), bool), sent[:-3]])
    found = sg.compile.for_loop(built(delay=3 * DT), jnp.asarray(sent))
    expected = sg.compile.for_loop(built(), jnp.asarray(late))
    assert np.asarray(expected).any()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_delays_are_drawn_by_an_initialiser_and_taken_with_units() -> None:
    u = pytest.importorskip("saiunit")
    drawn = nn.DeltaProj(comm=event.Linear(50, 2, 1.0), post=nn.LIF(2), delay=sg.init.Uniform(DT, 5 * DT))
    assert drawn.delay is not None and 3 < drawn.delay.max_length <= 6
    for delay in (2 * DT * u.ms, sg.init.Constant(2 * DT * u.ms), np.full(50, 1e-3 * DT * 2) * u.second):
        projection = nn.DeltaProj(comm=event.Linear(50, 2, 1.0), post=nn.LIF(2), delay=delay)
        assert projection.delay is not None and projection.delay.max_length == 3
    with pytest.raises(sg.errors.UnitError, match=r"DeltaProj\(delay=...\) is given a quantity in mV"):
        nn.DeltaProj(comm=event.Linear(50, 2, 1.0), post=nn.LIF(2), delay=1.0 * u.mV)


def test_projections_with_other_delays_share_a_synapse() -> None:
    post = nn.LIF(2)
    first, second = (
        nn.AlignPostProj(
            comm=event.Linear(3, 2, 1.0),
            syn=nn.Expon.desc(tau=5.0),
            out=nn.CUBA.desc(),
            post=post,
            delay=delay,
        )
        for delay in (None, DT)
    )
    assert first.syn is second.syn
    assert first.delay is None and second.delay is not None


def test_delays_of_projections_that_do_not_fit_are_refused() -> None:
    def made(delay: Any, comm: Any = None) -> None:
        nn.DeltaProj(comm=comm or event.Linear(3, 2, 1.0), post=nn.LIF(2), delay=delay)

    with pytest.raises(ValueError, match=r"shape \(2,\) does not fit a parameter of the shape \(3,\)"):
        made(np.ones(2))
    with pytest.raises(TypeError, match=r"DeltaProj\(delay=...\) is a State"):
        made(sg.State(np.ones(3)))
    with pytest.raises(ValueError, match="not negative"):
        made(-DT)
    with pytest.raises(TypeError, match="no in_size"):
        made(DT, lambda x: x)


def test_nobody_sends_with_delays_of_their_own() -> None:
    class Nothing(nn.Module):
        in_size = (0,)

        def update(self, spikes: Any) -> Any:
            return spikes @ jnp.zeros((0, 3))

    neurons = nn.LIF(3)
    projection = nn.DeltaProj(comm=Nothing(), post=neurons, delay=np.zeros(0))
    nn.init_all_states(neurons)
    nn.init_all_states(projection)
    projection(jnp.zeros(0))
    np.testing.assert_array_equal(neurons.sum_delta_inputs(1.0), np.ones(3))
