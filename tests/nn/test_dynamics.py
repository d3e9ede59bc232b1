"""Dynamics: hooks around the update, and values of a population looked up now and delayed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import nn
from tests.nn.checking import numbers
from tests.oracle import agree


@pytest.fixture(autouse=True)
def time_step() -> Iterator[None]:
    with sg.environ.context(dt=0.1):
        yield


class Leaky(nn.Dynamics):
    """Its State decays; its output is twice the State."""

    def init_state(self, batch_size: int | None = None) -> None:
        shape = self.varshape if batch_size is None else (batch_size, *self.varshape)
        self.v = sg.HiddenState(jnp.zeros(shape))

    def reset_state(self, batch_size: int | None = None) -> None:
        self.v.value = jnp.zeros_like(self.v.value)

    def update(self, x: Any) -> Any:
        self.v.value = 0.9 * self.v.value + x
        return 2 * self.v.value


def test_sizes() -> None:
    assert Leaky(3).varshape == (3,) == Leaky(3).out_size and Leaky((2, 3)).in_size == (2, 3)
    with pytest.raises(ValueError, match="size"):
        Leaky(())
    assert repr(Leaky(3)) == "Leaky(\n  in_size=(3,),\n  out_size=(3,)\n)"


def test_hooks_are_called_in_order_with_what_they_take() -> None:
    calls: list[Any] = []
    model = nn.init_all_states(Leaky(1))

    def hook(name: str) -> Any:
        return lambda *args: calls.append((name, *(float(a[0]) for a in args)))

    model.add_before_update("a", hook("a"))
    model.add_before_update("b", nn.receive_update_input(hook("b")))
    model.add_after_update("c", hook("c"))
    model.add_after_update("d", nn.not_receive_update_output(hook("d")))
    model.add_after_update("e", nn.receive_update_output(nn.not_receive_update_output(hook("e"))))
    model.add_before_update("f", nn.not_receive_update_input(nn.receive_update_input(hook("f"))))
    model(jnp.ones(1))
    assert calls == [("a",), ("b", 1.0), ("f",), ("c", 2.0), ("d",), ("e", 2.0)]
    assert (
        model.has_before_update("a")
        and not model.has_after_update("a")
        and callable(model.get_after_update("c"))
    )
    with pytest.raises(KeyError, match="already"):
        model.add_after_update("c", hook("c"))
    with pytest.raises(KeyError, match="there are 'a', 'b', 'f'"):
        model.get_before_update("x")


def test_values_now_and_delayed() -> None:
    model = Leaky(3)
    now, same = model.prefetch("v"), nn.PrefetchDelayAt(model, "v")
    late, later = model.prefetch_delay("v", 0.2), now.delay.at(0.4, np.array([2, 0]))
    out = model.output_delay(0.3)
    with pytest.raises(AttributeError, match=r"(?s)no attribute 'v'.*init_all_states"):
        now()
    nn.init_all_states(model, batch_size=None)
    nn.init_maybe_prefetch(late)
    seen = [np.zeros(3, np.float32)] * 5
    for x in numbers(8, 3):
        assert late.state_delay is later.state_delay
        model(x)
        seen.append(np.asarray(model.v.value))
        np.testing.assert_array_equal(now(), seen[-1])
        np.testing.assert_array_equal(same(), seen[-1])
        np.testing.assert_array_equal(late(), seen[-3])
        np.testing.assert_array_equal(later(), seen[-5][[2, 0]])
        np.testing.assert_array_equal(out(), 2 * seen[-4])
    nn.reset_all_states(model)
    assert (late() == 0).all() and (out() == 0).all()
    assert len(model.after_updates) == 2 and model.prefetch("in_size")() == (3,)


def test_delays_take_what_a_delay_takes() -> None:
    model = Leaky(3)
    v = model.prefetch_delay("v", 0.2, interp_method="linear", delay_method="concat", update_every=0.2)
    out = model.output_delay(0.2, interp_method="nearest", take_aware_unit=True)
    assert v.state_delay is not None
    assert (v.state_delay.interpolation, v.state_delay.update_every_step) == ("linear", 2)
    assert out.out_delay.interpolation == "nearest"
    for wrong in (model.prefetch_delay, model.output_delay):
        with pytest.raises(TypeError, match="no_such_argument"):
            wrong("v", 0.2, update_every=0.1, no_such_argument=1)  # type: ignore[operator]


def test_batches() -> None:
    model = Leaky(3)
    late, out = model.prefetch_delay("v", 0.1, init=5.0), model.output_delay(0.1)
    nn.init_all_states(model, batch_size=4)
    model(numbers(4, 3))
    assert late().shape == (4, 3) and (late() == 5).all() and out().shape == (4, 3)


@pytest.mark.core
def test_two_populations_in_a_compiled_loop() -> None:
    def make() -> Any:
        with sg.environ.context(dt=0.1):
            a, b = Leaky(2), Leaky(2)
            from_a, from_b = a.prefetch_delay("v", 0.3), b.output_delay(0.2)
        nn.init_all_states([a, b])

        def step(x: Any) -> Any:
            return a(x + 0.1 * from_b()), b(0.1 * from_a())

        states = list(sg.graph.states([a, b]).values())
        return lambda xs: sg.compile.for_loop(step, xs), states

    agree(make, (jnp.asarray(numbers(10, 2)),))


@pytest.mark.core
def test_delays_follow_a_dynamics() -> None:
    for kind in (nn.PrefetchDelayAt, nn.OutputDelayAt):
        arguments = ("v", 0.1) if kind is nn.PrefetchDelayAt else (0.1,)
        with pytest.raises(TypeError, match="follow the update"):
            kind(nn.Linear(2, 3), *arguments)  # type: ignore[arg-type]
    nn.init_maybe_prefetch("anything")
