"""``nn.run``: against the loop written out; chunk by chunk, continued, compiled, in lanes, differentiated, saved."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn
from stategraph.backends.native import memory
from stategraph.errors import CheckpointError, StateAccessError, TraceError
from stategraph.nn import running_chunks
from tests.nn.running_nets import DT, Net, assert_equals, drive, make, monitors, written_out

pytestmark = pytest.mark.usefixtures("time_step")


# ------------------------------------------------------------------------------------------------ the loop


@pytest.mark.core
@pytest.mark.parametrize("steps", [20, 60, 59, 53])
def test_a_run_is_the_loop_written_out_bit_for_bit(steps: int, small_chunks: None) -> None:
    net, other = make(), make()
    rec = nn.run(net, steps * DT, drive, monitors(net))
    assert_equals(rec, written_out(other, steps, lambda i: drive(i * DT)))
    assert rec["spk"].ids.size > 2
    for path, state in sg.graph.states(other).items():
        np.testing.assert_array_equal(np.asarray(sg.graph.states(net)[path].value), np.asarray(state.value))


def test_a_run_without_jit_is_the_loop_written_out() -> None:
    with jax.disable_jit():
        net, other = make(), make()
        rec = nn.run(net, 3.0, drive, monitors(net))
        assert_equals(rec, written_out(other, 6, lambda i: drive(i * DT)))


def test_times_are_those_that_the_steps_see() -> None:
    net = make()
    seen = {
        "t": lambda: sg.environ.get("t"),
        "i": lambda: sg.environ.get("i"),
        "dt": lambda: sg.environ.get_dt(),
    }
    rec = nn.run(net, 2.0, None, seen, dt=0.25)
    np.testing.assert_allclose(rec["t"], rec.t)
    np.testing.assert_array_equal(rec["i"], np.arange(8))
    np.testing.assert_array_equal(rec["dt"], np.full(8, 0.25, np.float32))
    np.testing.assert_array_equal(rec.t, np.arange(8) * 0.25)
    assert (rec.steps, rec.duration, rec.dt) == (8, 2.0, 0.25)


@pytest.mark.core
def test_chunks_of_one_length_are_compiled_once(small_chunks: None) -> None:
    seen = SimpleNamespace(traces=0)

    def x(t: Any) -> Any:
        seen.traces += 1
        return 1.5

    net = make()
    nn.run(net, 100 * DT, x, {"spk": net.E.spike})
    nn.run(net, 60 * DT, x, {"spk": net.E.spike})
    nn.run(net, 57 * DT, x, {"spk": net.E.spike})
    assert seen.traces == 2  # 20 steps, and 19
    for _ in range(2):
        nn.run(net, 100 * DT, x, {"V": net.E.V})
    assert seen.traces == 3


@pytest.mark.parametrize("whole", [True, False])
def test_chunks_write_where_those_before_them_did(
    whole: bool, small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not whole:  # as on devices with memory of their own
        monkeypatch.setattr(running_chunks, "_on_host", lambda: False)
    made, seen = [], []
    room_for, take = running_chunks.room_for, running_chunks.Rooms.take

    def counted(*args: Any) -> Any:
        made.append(args)
        return room_for(*args)

    def watched(self: Any, length: int) -> Any:
        rooms = take(self, length)
        seen.append([part.unsafe_buffer_pointer() for part in jax.tree.leaves(rooms)])
        return rooms

    monkeypatch.setattr(running_chunks, "room_for", counted)
    monkeypatch.setattr(running_chunks.Rooms, "take", watched)
    net, other = make(), make()
    rec = nn.run(net, 117 * DT, drive, {"V": net.E.V, "late": (lambda: net.E.V.value, 1, 3)})
    V = written_out(other, 117, lambda i: drive(i * DT))["V"]
    assert_equals(rec, {"V": V, "late": V[::3, 1]})
    assert len(seen) == 9
    distance = 1 if whole else 2
    assert len(made) == 2 * distance
    assert seen[distance:] == seen[:-distance]
    later = nn.run(net, 117 * DT, drive, {"V": net.E.V})
    np.testing.assert_array_equal(rec["V"], V)  # the next run has memory of its own
    assert not np.array_equal(later["V"], V)


def test_memory_that_no_row_is_written_to_is_not_looked_at(
    small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_chunks, "LARGE", 0)
    monkeypatch.setattr(running_chunks, "_untouched", lambda shape, dtype: jnp.full(shape, jnp.nan, dtype))
    V = written_out(make(), 37, lambda i: drive(i * DT))["V"]
    for debugging in (False, True):
        net = make()
        with jax.debug_nans(debugging):
            rec = nn.run(net, 37 * DT, drive, {"V": net.E.V, "late": (net.E.V, None, 3)})
        assert_equals(rec, {"V": V, "late": V[::3]})


@pytest.mark.for_cpus
def test_memory_that_is_made_ready_ahead_is_as_it_was(
    small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_FEWEST", 1)
    monkeypatch.setattr(running_chunks, "LARGE", 0)
    array = memory.untouched((3000, 7), np.dtype(np.float16))
    assert array.shape == (3000, 7) and array.dtype == np.float16
    kept = jnp.arange(5000.0)
    for ahead in (memory.TouchedAhead([array, kept]), memory.TouchedAhead([jnp.zeros(0)])):
        ahead.end()
        ahead.end()
    np.testing.assert_array_equal(kept, np.arange(5000.0))
    net, other = make(), make()
    rec = nn.run(net, 117 * DT, drive, {"V": net.E.V, "late": (net.E.V, 1, 3)})
    V = written_out(other, 117, lambda i: drive(i * DT))["V"]
    assert_equals(rec, {"V": V, "late": V[::3, 1]})


# -------------------------------------------------------------------------------------------- going on


@pytest.mark.core
def test_two_runs_are_one_run() -> None:
    net, other = make(), make()
    whole = nn.run(net, 30.0, drive, monitors(net))
    parts = [nn.run(other, duration, drive, monitors(other)) for duration in (10.0, 20.0)]
    for name in ("V", "I", "output"):
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), whole[name])
    np.testing.assert_array_equal(np.concatenate([part["spk"].times for part in parts]), whole["spk"].times)
    np.testing.assert_array_equal(np.concatenate([part["spk"].ids for part in parts]), whole["spk"].ids)
    np.testing.assert_array_equal(np.concatenate([part.t for part in parts]), whole.t)


def test_a_reset_model_begins_at_time_0_again() -> None:
    net = make()
    first = nn.run(net, 10.0, drive, monitors(net))
    nn.reset_all_states(net)
    again = nn.run(net, 10.0, drive, monitors(net))
    np.testing.assert_array_equal(again.t, first.t)
    np.testing.assert_array_equal(again["V"], first["V"])
    nn.init_all_states(net)
    assert int(net.clock.i.value) == 0


def test_time_goes_on_when_the_step_changes() -> None:
    net = make()
    nn.run(net, 10.0, dt=0.5)
    rec = nn.run(net, 1.0, dt=0.25)
    np.testing.assert_array_equal(rec.t, [10.0, 10.25, 10.5, 10.75])
    assert float(nn.clock(net).t) == 11.0


def test_a_saved_run_goes_on_in_another_model(tmp_path: Path) -> None:
    net, other = make(), make()
    nn.run(net, 10.0, drive)
    sg.save(tmp_path / "net.npz", net)
    rest = nn.run(net, 10.0, drive, monitors(net))
    with pytest.raises(CheckpointError, match=r"clock\.i: only in the file"):
        sg.load(tmp_path / "net.npz", other)
    nn.clock(other)
    sg.load(tmp_path / "net.npz", other)
    resumed = nn.run(other, 10.0, drive, monitors(other))
    np.testing.assert_array_equal(resumed.t, rest.t)
    np.testing.assert_array_equal(resumed["V"], rest["V"])
    np.testing.assert_array_equal(resumed["spk"].times, rest["spk"].times)


# ----------------------------------------------------------------------------------------------- in a trace


@pytest.mark.core
def test_in_jit_it_is_the_same_and_goes_on() -> None:
    net, other = make(), make()
    compiled = sg.compile.jit(lambda: nn.run(net, 10.0, drive, monitors(net)))
    for _ in range(3):
        rec, expected = compiled(), nn.run(other, 10.0, drive, monitors(other))
        np.testing.assert_array_equal(rec.t, expected.t)
        np.testing.assert_allclose(rec["V"], expected["V"], rtol=1e-6)
        np.testing.assert_array_equal(rec["spk"].times, expected["spk"].times)
        np.testing.assert_array_equal(rec["spk"].ids, expected["spk"].ids)
    assert compiled.trace_count <= 2 if hasattr(compiled, "trace_count") else True
    assert int(net.clock.i.value) == 60


def test_numbers_among_the_inputs_are_rounded_alike_everywhere() -> None:
    class Scaled(nn.Module):
        def update(self, x: Any) -> Any:
            return x * 0.7

    monitor = {"output": lambda output: output}
    expected = np.full(4, np.float32(1.3) * np.float32(0.7))
    assert expected[0] != np.float32(1.3 * 0.7)
    model, other = Scaled(), Scaled()
    nn.clock(other)
    assert_equals(nn.run(model, 2.0, 1.3, monitor), {"output": expected})
    assert_equals(sg.compile.jit(lambda: nn.run(other, 2.0, 1.3, monitor))(), {"output": expected})
    with jax.disable_jit():
        assert_equals(nn.run(model, 2.0, 1.3, monitor), {"output": expected})


@pytest.mark.core
def test_a_reset_in_the_same_jit_begins_at_0() -> None:
    net = make()

    @sg.compile.jit
    def trial() -> Any:
        nn.reset_all_states(net)
        return nn.run(net, 10.0, drive, monitors(net))

    first, second = trial(), trial()
    np.testing.assert_array_equal(first.t, second.t)
    np.testing.assert_array_equal(first["V"], second["V"])


@pytest.mark.core
def test_lanes_of_a_run_are_the_runs_of_the_lanes() -> None:
    currents = jnp.array([1.2, 1.6, 2.5])

    def trial(x: Any) -> Any:
        net = make()
        rec = nn.run(net, 20.0, x, monitors(net))
        return rec["V"], rec["spk"].dense, rec.t

    V, spikes, t = sg.augment.vmap(trial)(currents)
    for lane, x in enumerate(currents):
        net = make()
        rec = nn.run(net, 20.0, x, monitors(net))
        np.testing.assert_allclose(V[lane], rec["V"], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(spikes[lane], rec["spk"].dense)
        np.testing.assert_array_equal(t[lane], rec.t)


@pytest.mark.core
def test_an_ensemble_runs_on_one_clock() -> None:
    net = Net()
    nn.vmap_init_all_states(net, axis_size=3)

    def trial(x: Any) -> Any:
        return nn.run(net, 20.0, x, monitors(net))

    each = {0: [net.E.V, net.E.last_spike_time, net.I.V]}
    lanes = sg.augment.vmap(trial, in_states=each, out_states=each)
    lanes(jnp.array([1.2, 1.6, 2.5]))
    rec = lanes(jnp.array([1.2, 1.6, 2.5]))
    assert int(net.clock.i.value) == 80
    one = jax.tree.map(lambda x: x[1], rec)
    np.testing.assert_array_equal(one.t, 20.0 + np.arange(40) * DT)
    alone = make()
    nn.run(alone, 20.0, 1.6)
    expected = nn.run(alone, 20.0, 1.6, monitors(alone))
    np.testing.assert_array_equal(one["spk"].times, expected["spk"].times)
    with pytest.raises(ValueError, match="of lanes"):
        _ = rec["spk"].times


@pytest.mark.core
def test_gradients_go_through_what_is_recorded() -> None:
    net = make()

    def loss_of(run: Callable[[], tuple[Any, Any]]) -> Callable[[], Any]:
        def loss() -> Any:
            nn.reset_all_states(net)
            V, spikes = run()
            return (V**2).mean() + spikes.mean()

        return loss

    def with_run() -> tuple[Any, Any]:
        rec = nn.run(net, 10.0, drive, {"V": net.I.V, "spk": net.I.spike})
        return rec["V"], rec["spk"].dense

    def with_loop() -> tuple[Any, Any]:
        def step(i: Any) -> Any:
            with sg.environ.context(i=i, t=i * DT):
                net(drive(i * DT))
                return net.I.V.value, net.I.get_spike()

        return sg.compile.for_loop(step, jnp.arange(20))

    found = sg.augment.grad(loss_of(with_run), net.weight)()
    expected = sg.augment.grad(loss_of(with_loop), net.weight)()
    assert bool(jnp.any(expected != 0))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.core
def test_the_trace_leaves_the_model_as_it_is_but_for_the_clock() -> None:
    net = make()
    before = jax.tree.map(np.asarray, {path: state.value for path, state in sg.graph.states(net).items()})
    sg.trace(lambda: nn.run(net, 10.0, drive, monitors(net)))
    after = sg.graph.states(net)
    assert set(after) - set(before) == {("clock", "i"), ("clock", "dt")}
    for path, value in before.items():
        np.testing.assert_array_equal(np.asarray(after[path].value), value)


def test_who_spikes_is_not_known_in_a_trace() -> None:
    net = make()
    with pytest.raises(TraceError, match=r"spikes\.dense"):
        sg.compile.jit(lambda: nn.run(net, 10.0, drive, monitors(net))["spk"].times)()


@pytest.mark.core
def test_a_model_without_clock_in_a_trace_of_jax_is_refused() -> None:
    with pytest.raises(StateAccessError, match="has no clock"):
        jax.jit(lambda: nn.run(nn.init_all_states(Net()), 1.0))()


# ------------------------------------------------------------------------------------------------ progress


def test_a_bar_counts_the_steps_and_changes_nothing(small_chunks: None) -> None:
    pytest.importorskip("tqdm")
    text = io.StringIO()
    net, other = make(), make()
    bar = sg.compile.ProgressBar(desc="network", file=text, mininterval=0)
    rec = nn.run(net, 50 * DT, drive, monitors(net), progress=bar)
    expected = nn.run(other, 50 * DT, drive, monitors(other))
    np.testing.assert_array_equal(rec["V"], expected["V"])
    assert "network" in text.getvalue() and "50/50" in text.getvalue()


def test_without_monitors_only_the_time_is_known() -> None:
    rec = nn.run(make(), 10.0)
    assert list(rec) == [] and rec.t.shape == (20,)
    assert nn.run(make(), 0.0).t.shape == (0,)
