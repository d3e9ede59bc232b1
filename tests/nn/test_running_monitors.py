"""What ``nn.run`` records, and what it is given: monitors, inputs, and what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn
from stategraph.errors import NanError, StateAccessError, StateTypeError
from stategraph.spikes import Spikes
from tests.nn.checking import numbers
from tests.nn.running_nets import DT, Net, assert_equals, drive, make, monitors, written_out

pytestmark = pytest.mark.usefixtures("time_step")


# ------------------------------------------------------------------------------------------------ monitors


@pytest.mark.core
def test_every_form_of_a_monitor(small_chunks: None) -> None:
    net, other = make(), make()
    monitor = {
        "all": net.E.V,
        "path": "E.V",
        "one": (net.E.V, 2),
        "slice": (net.E.V, slice(1, 3)),
        "list": ("E.V", [3, 0]),
        "mask": (net.E.V, np.array([True, False, False, True])),
        "rare": (net.E.V, None, 7),
        "rare slice": (net.E.V, slice(0, 2), 10),
        "function": lambda: net.E.V.value.sum(),
        "rare function": (lambda: net.E.V.value, ..., 7),
        "output": lambda output: output,
        "spk": net.E.spike,
        "spk path": "E.spike",
        "some spk": (net.E.spike, [2, 0]),
        "spikes of function": nn.SpikeMonitor(lambda: net.E.get_spike()),
        "dense spikes": lambda: net.E.spike(),
    }
    steps = 54
    rec = nn.run(net, steps * DT, drive, monitor)
    expected = written_out(other, steps, lambda i: drive(i * DT))
    V, spikes = expected["V"], expected["spk"]
    assert_equals(
        rec,
        {
            "all": V,
            "path": V,
            "one": V[:, 2],
            "slice": V[:, 1:3],
            "list": V[:, [3, 0]],
            "mask": V[:, [0, 3]],
            "rare": V[::7],
            "rare slice": V[::10, :2],
            "rare function": V[::7],
            "output": expected["output"],
            "spk": spikes,
            "spk path": spikes,
            "some spk": spikes[:, [2, 0]],
            "spikes of function": spikes,
            "dense spikes": spikes,
        },
    )
    np.testing.assert_allclose(rec["function"], V.sum(1), rtol=1e-6)
    np.testing.assert_array_equal(rec.times("rare"), rec.t[::7])
    assert set(rec["some spk"].ids) <= {0, 2}
    steps_of, _ = np.nonzero(spikes[:, [0, 2]])
    np.testing.assert_array_equal(np.sort(rec["some spk"].times), steps_of * DT)
    assert set(monitor) == set(rec) and len(rec) == len(monitor)
    traced = sg.compile.jit(lambda: nn.run(net, 27.0, drive, monitor))
    nn.reset_all_states(net)
    found = traced()
    for name, value in rec.items():
        a, b = (x.dense if isinstance(x, Spikes) else x for x in (found[name], value))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=name)


def test_monitors_of_states_that_are_pytrees() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count = sg.ShortTermState({"a": jnp.zeros(2), "b": jnp.zeros((2, 3), jnp.int32)})

        def update(self) -> None:
            self.count.value = jax.tree.map(lambda leaf: leaf + 1, self.count.value)

    rec = nn.run(Counter(), 5.0, None, {"count": (Counter().count, 0), "all": "count"})
    assert rec["all"]["b"].shape == (10, 2, 3) and rec["count"]["b"].shape == (10, 3)
    np.testing.assert_array_equal(rec["all"]["a"][:, 0], np.arange(1, 11))


@pytest.mark.core
def test_spikes_in_branches_loops_and_repeated_calls_are_all_seen() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.PoissonSpike(3, freqs=1e9) for _ in range(3))

        def update(self) -> None:
            sg.compile.cond(sg.environ.get("i") % 2 == 1, lambda: self.a(), lambda: jnp.zeros(3, bool))
            sg.compile.for_loop(lambda k: self.b(), jnp.arange(2))
            self.c(), self.c()

    net = Odd()
    rec = nn.run(net, 5.0, None, {name: getattr(net, name).spike for name in "abc"})
    np.testing.assert_array_equal(rec["a"].dense[:, 0], np.arange(10) % 2)
    assert len(rec["b"]) == len(rec["c"]) == 30


def test_a_batch_of_populations_is_recorded() -> None:
    net = nn.init_all_states(nn.LIF(3, tau=10.0), batch_size=2)
    x = jnp.array([[0.5, 1.5, 2.0], [0.5, 0.5, 3.0]])
    rec = nn.run(net, 20.0, lambda t: x, {"spk": net.spike, "some": (net.spike, (slice(None), [2, 1]))})
    assert rec["spk"].shape == (2, 3) and set(rec["spk"].ids) == {1, 2, 5}
    assert set(rec["some"].ids) == {1, 2, 5}
    np.testing.assert_array_equal(np.sort(rec["some"].times), np.sort(rec["spk"].times))


@pytest.mark.core
def test_spikes_of_populations_in_lanes_of_a_module_are_recorded() -> None:
    """Also in lanes in lanes, in a loop around them, and of one lane with an index."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.init_all_states(nn.Vmap(nn.Vmap(nn.LIF(3, tau=10.0), axis_size=2), axis_size=4))

        def update(self, x: Any) -> Any:
            return sg.compile.for_loop(lambda k: self.cell(x * (k + 1)), jnp.arange(2)).sum(0)

    x = jnp.abs(jnp.asarray(numbers(4, 2, 3)))

    def run() -> Any:
        net = Twice()
        spike = net.cell.module.module.spike
        monitor = {
            "spk": spike,
            "out": nn.SpikeMonitor(lambda output: output),
            "one": (spike, (slice(None), 0)),
        }
        return nn.run(net, 5.0, lambda t: x, monitor)

    rec = run()
    assert rec["spk"].shape == (4, 2, 3) and 0 < len(rec["spk"]) < 10 * 24
    np.testing.assert_array_equal(rec["spk"].dense, rec["out"].dense)
    assert set(rec["one"].ids) == {k for k in rec["spk"].ids if k // 3 % 2 == 0}
    with jax.disable_jit():
        np.testing.assert_array_equal(run()["spk"].dense, rec["spk"].dense)


def test_paths_go_along_attributes_lists_and_dicts() -> None:
    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.LIF(2, tau=5.0), {"last": nn.LIF(2, tau=5.0)}]
            self.alias = self.layers[0]

        def update(self) -> Any:
            return self.layers[1]["last"](3 * self.layers[0](1.5))

    net = nn.init_all_states(Layers())
    monitor = {"a": "layers.0.V", "b": "alias.V", "c": "layers.1.last.V", "spk": "layers.1.last.spike"}
    rec = nn.run(net, 10.0, None, {**monitor, "V": net.layers[0].V})
    np.testing.assert_array_equal(rec["a"], rec["V"])
    np.testing.assert_array_equal(rec["b"], rec["V"])
    assert rec["c"].shape == (20, 2) and rec["spk"].size == 2
    for wrong in ("layers.2.V", "layers.x", "alias", "nothing.at.all"):
        with pytest.raises(KeyError, match="has no State"):
            nn.run(net, 10.0, None, {"V": wrong})


def test_sources_of_spikes_are_recorded() -> None:
    source = nn.SpikeTime(3, indices=[0, 2, 1], times=[1.0, 2.5, 2.5])
    rec = nn.run(source, 5.0, None, {"spk": source.spike})
    np.testing.assert_array_equal(rec["spk"].times, [1.0, 2.5, 2.5])
    np.testing.assert_array_equal(rec["spk"].ids, [0, 1, 2])


@pytest.mark.core
def test_a_monitor_in_a_loop_of_ones_own() -> None:
    net, other = make(), make()
    monitor = nn.Monitor(net, {**monitors(net), "rare": ("E.V", 1, 3)})

    def step(i: Any) -> Any:
        with sg.environ.context(i=i, t=i * DT):
            return monitor(drive(i * DT))

    rec = monitor.recording(sg.compile.for_loop(step, jnp.arange(30)))
    expected = nn.run(other, 15.0, drive, {**monitors(other), "rare": ("E.V", 1, 3)})
    for name in ("V", "I", "output", "rare"):
        np.testing.assert_array_equal(rec[name], expected[name])
    np.testing.assert_array_equal(rec["spk"].times, expected["spk"].times)
    np.testing.assert_array_equal(rec.t, expected.t)


# -------------------------------------------------------------------------------------------------- inputs


def test_every_form_of_inputs(small_chunks: None) -> None:
    rows = np.asarray(1.5 + numbers(60, 4), np.float32)

    def last(inputs: Any) -> np.ndarray:
        net = make()
        return nn.run(net, 30.0, inputs, {"V": net.E.V})["V"]

    constant = last(lambda t: 1.6)
    np.testing.assert_array_equal(last(None), constant)
    np.testing.assert_array_equal(last(1.6), constant)
    np.testing.assert_array_equal(last(np.float32(1.6)), constant)
    np.testing.assert_array_equal(last((1.6,)), constant)
    by_row = last(lambda t: jnp.asarray(rows)[sg.environ.get("i")])
    np.testing.assert_array_equal(last(rows), by_row)
    np.testing.assert_array_equal(last(jnp.asarray(rows)), by_row)
    np.testing.assert_array_equal(last(rows.tolist()), by_row)


def test_several_arguments_and_pytrees_as_inputs() -> None:
    class Sum(nn.Module):
        def update(self, a: Any, b: Any) -> Any:
            return a + b["x"] * b["y"]

    rows = jnp.arange(10.0)
    monitor = {"out": lambda out: out}
    mixed = nn.run(Sum(), 5.0, (lambda t: t, {"x": rows, "y": 2.0}), monitor)
    np.testing.assert_allclose(mixed["out"], np.arange(10) * 0.5 + 2 * np.arange(10))
    together = nn.run(Sum(), 5.0, lambda t: (t, {"x": t, "y": 4.0}), monitor)
    np.testing.assert_allclose(together["out"], mixed["out"])


def test_quantities_are_times_and_inputs() -> None:
    u = pytest.importorskip("saiunit")

    def last(duration: Any, inputs: Any, dt: Any) -> Any:
        net = make()
        return nn.run(net, duration, inputs, {"V": net.E.V, "spk": net.E.spike}, dt=dt)

    plain = last(20.0, lambda t: 1.5 + jnp.sin(t / 3), 0.25)
    found = last(0.02 * u.second, lambda t: 1.5 + jnp.sin(t / (3 * u.ms)), 250 * u.us)
    np.testing.assert_allclose(found["V"], plain["V"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.t, plain.t)
    np.testing.assert_array_equal(found["spk"].ids, plain["spk"].ids)
    neurons = nn.init_all_states(nn.LIF(2, tau=20.0 * u.ms, R=1.0 * u.Mohm))
    rec = nn.run(neurons, 20.0 * u.ms, 1.5 * u.nA, {"V": neurons.V})
    assert rec["V"].shape == (40, 2)
    with pytest.raises(sg.errors.UnitError, match="duration"):
        last(3.0 * u.mV, None, 0.25)


# -------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(duration=1.3), ValueError, "2 steps are 1 ms, 3 steps 1.5 ms"),
        (dict(duration=-1.0), ValueError, "0 ms or more"),
        (dict(duration=1.0, dt=0.0), ValueError, "positive"),
        (dict(duration=2e9), ValueError, "has 4000000000 steps"),
        (dict(duration=None), TypeError, "a number of ms, or a quantity, not None"),
        (dict(duration="x"), TypeError, "a number of ms, or a quantity, not 'x'"),
        (dict(duration=5.0, inputs=np.zeros(7)), ValueError, "7 rows, and the run has 10 steps"),
        (dict(duration=5.0, inputs="x"), TypeError, "inputs of a run are a str"),
        (dict(duration=5.0, monitor={"V": "E.W"}), KeyError, "'E.V'"),
        (dict(duration=5.0, monitor={"V": ("E.V", 9)}), IndexError, "does not fit a value of the shape"),
        (dict(duration=5.0, monitor={"s": ("E.spike", 9)}), IndexError, "does not fit a value of the shape"),
        (dict(duration=5.0, monitor={"V": ("E.V", 0, 0)}), ValueError, "every 0 steps"),
        (dict(duration=5.0, monitor={"s": ("E.spike", 0, 5)}), ValueError, "it would miss those"),
        (
            dict(duration=5.0, monitor={"V": 3}),
            TypeError,
            "the monitor 'V' is a int|The monitor 'V' is a int",
        ),
        (dict(duration=5.0, monitor=["E.V"]), TypeError, "a dict of what to record"),
    ],
)
def test_what_does_not_fit_is_an_error(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        nn.run(make(), **arguments)


@pytest.mark.parametrize("jitted", [False, True])
def test_a_run_of_no_steps_records_nothing(jitted: bool) -> None:
    net = make()
    monitor = {
        "V": net.E.V, "late": (net.E.V, slice(2), 3), "spk": net.E.spike, "mean": lambda: net.E.V.value.mean(), "out": lambda x: x,
    }  # fmt: skip
    nn.clock(net)
    go = lambda: nn.run(net, 0.0, 1.0, monitor)
    rec = sg.compile.jit(go)() if jitted else go()
    shapes = {name: rec[name].shape for name in ("V", "late", "mean", "out")}
    assert shapes == {"V": (0, 4), "late": (0, 2), "mean": (0,), "out": (0,)}
    assert rec["spk"].dense.shape == (0, 4) and len(rec.t) == 0 and int(net.clock.i.value) == 0


def test_what_would_make_another_step_is_no_monitor() -> None:
    net = make()
    for target, fix in ((net.E, "lifref.V"), (net, "net.E.V")):
        with pytest.raises(TypeError, match=rf"is a .* itself[\s\S]*another step[\s\S]*{fix}"):
            nn.run(net, 1.0, monitor={"x": target})


def test_errors_name_states_as_the_model_does() -> None:
    class Shrinking(Net):
        def update(self, x: Any = 1.6) -> Any:
            self.E.V.value = self.E.V.value[1:]

    with pytest.raises(StateTypeError, match=r"HiddenState 'E.V' changes its type"):
        nn.run(nn.init_all_states(Shrinking()), 1.0)

    class Negative(Net):
        def update(self, x: Any = 1.6) -> Any:
            self.E.V.value = jnp.log(self.E.V.value - 1)

    with jax.debug_nans(True), pytest.raises(NanError, match=r"in @run, and reaches State @E.V first"):
        nn.run(nn.init_all_states(Negative()), 1.0)


def test_a_missing_step_is_an_error() -> None:
    net = make()
    with sg.environ.context():
        pass
    with pytest.raises(KeyError, match="'dt'"):
        _outside(lambda: nn.run(net, 1.0))


def _outside(function: Callable[[], Any]) -> Any:
    """Call a function in a thread, which has no context."""
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_populations_that_are_not_called_have_no_spikes() -> None:
    class Direct(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.E = nn.LIF(2)

        def update(self) -> Any:
            return self.E.update(1.0)

    net = nn.init_all_states(Direct())
    with pytest.raises(StateAccessError, match="was not called in this step"):
        nn.run(net, 1.0, None, {"spk": net.E.spike})
    with pytest.raises(StateAccessError, match="outside of a monitored step"):
        net.E.spike()


def test_other_things_have_no_clock() -> None:
    with pytest.raises(TypeError, match="no clock"):
        nn.run(lambda: None, 1.0)
    net = make()
    net.clock = 3
    with pytest.raises(TypeError, match="'clock'"):
        nn.run(net, 1.0)


def test_a_path_in_a_model_that_was_not_initialised_is_told_so() -> None:
    with pytest.raises(KeyError, match="init_all_states"):
        nn.run(nn.LIF(2), 1.0, monitor={"V": "V"}, dt=0.1)


def test_what_a_function_returns_may_change_its_type_between_runs(small_chunks: None) -> None:
    net = make()
    net.first = 3

    def some() -> Any:
        return net.E.V.value[: net.first]

    for dtype, first in ((jnp.float32, 3), (jnp.float32, 2), (jnp.float16, 2)):
        net.first, net.E.V.value = first, net.E.V.value.astype(dtype)
        found = nn.run(net.E, 22.5, 1.6, {"some": some, "V": net.E.V, "none": lambda: None})
        assert found["some"].dtype == dtype and found["none"] is None
        np.testing.assert_array_equal(found["some"], found["V"][:, :first])
