"""Watching a model: outputs and States of its layers, the same in eager and in compiled code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import StateAccessError
from tests.support import assert_same

pytestmark = pytest.mark.core


class Cell(sg.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.w = sg.nn.Param(jnp.asarray(scale))
        self.h = sg.HiddenState(jnp.zeros(2))

    def update(self, x):
        self.h.value = 0.5 * self.h.value + self.w.value() * x
        return {"y": self.h.value, "n": jnp.sum(x)}


class Square(sg.nn.Module):
    def update(self, x):
        return x * x


class Net(sg.nn.Module):
    """Uses its layers in this place: ``straight``, ``twice``, ``loop``, ``branch``, ``gradient``, ``remat``."""

    def __init__(self, place="straight"):
        super().__init__()
        self.cells = [Cell(2.0), Cell(3.0)]
        self.unused = Cell(4.0)
        self.place = place
        self.count = sg.State(0)

    def update(self, x):
        self.count.value += 1
        first, second = self.cells
        if self.place == "straight":
            return second(first(x)["y"])["y"]
        if self.place == "twice":
            return first(first(x)["y"] + 1)["y"]
        if self.place == "loop":
            return sg.compile.for_loop(lambda i: second(first(x * i)["y"])["y"].sum(), jnp.arange(3.0))
        if self.place == "mixed":
            y = first(x)["y"]
            return sg.compile.for_loop(lambda i: first(y * i)["y"].sum(), jnp.arange(3.0)), first(y)["y"]
        if self.place == "branch":
            y = first(x)["y"]
            return sg.compile.cond(x.sum() > 0, lambda: first(y * 2)["y"], lambda: y)
        if self.place == "gradient":
            return sg.augment.grad(lambda v: first(v)["y"].sum(), argnums=0)(x)
        return sg.compile.checkpoint(lambda v: first(v)["y"])(x)


PLACES = ("straight", "twice", "loop", "mixed", "branch", "gradient", "remat")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("jitted", [False, True])
def test_the_record_is_that_of_eager_python(place, jitted):
    x = jnp.array([1.0, -0.5])
    with jax.disable_jit():
        net = Net(place)
        watched = sg.nn.watch(net)
        expected = [watched(x), watched(-x)]
        plain = Net(place)
        assert_same(plain(x), expected[0][0])
    net = Net(place)
    watched = sg.nn.watch(net)
    call = sg.compile.jit(watched) if jitted else watched
    for argument, (outputs, record) in zip((x, -x), expected, strict=True):
        found, seen = call(argument)
        assert_same(found, outputs, exact=False)
        assert list(seen) == list(record)
        assert_same(seen, record, exact=False)
        assert int(seen[""]["states"]["count"]) == int(net.count.value)


def test_paths_and_states_are_named():
    outputs, record = sg.nn.watch(Net())(jnp.ones(2))
    assert list(record) == ["", "cells.0", "cells.1"]
    assert_same(record[""]["output"], outputs)
    assert set(record["cells.0"]["states"]) >= {"h"}
    assert set(record[""]["states"]) == {"count"}


def test_filters_choose_layers_and_states():
    net = Net()
    _, record = sg.nn.watch(net, Cell, sg.util.filter.PathContains(1), states=sg.HiddenState)(jnp.ones(2))
    assert {path: list(found["states"]) for path, found in record.items()} == {"cells.1": ["h"]}


def test_eager_calls_are_traced_once_and_others_are_not_watched():
    net = Net()
    runs = []
    original = Net.update

    class Counting(Net):
        def update(self, x):
            runs.append(1)
            return original(self, x)

    net = Counting()
    for _ in range(3):
        sg.nn.watch(net)(jnp.ones(2))
    assert len(runs) == 1
    from stategraph.nn.watch import WATCHING

    assert WATCHING.watcher is None
    with pytest.raises(TypeError):
        sg.nn.watch(net)("no")
    assert WATCHING.watcher is None


def test_lanes_of_a_watched_model():
    watched = sg.augment.vmap(lambda x: sg.nn.watch(Square())(x))
    outputs, record = watched(jnp.arange(3.0))
    assert np.asarray(record[""]["output"]).tolist() == [0, 1, 4]
    assert_same(outputs, record[""]["output"])


def test_a_foreign_loop_is_refused_and_so_is_what_is_no_module():
    with pytest.raises(TypeError, match="needs a module"):
        sg.nn.watch(lambda x: x)

    class Raw(sg.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Square()

        def update(self, x):
            return jax.lax.map(self.inner, x)

    with pytest.raises(StateAccessError, match="watched in the body"):
        jax.jit(sg.nn.watch(Raw()))(jnp.arange(3.0))
    _, record = sg.nn.watch(Raw())(jnp.arange(3.0))
    assert float(record["inner"]["output"]) == 4.0


def test_populations_are_watched():
    class Net(sg.nn.Module):
        def __init__(self):
            super().__init__()
            self.neurons = sg.nn.LIF(2, tau=5.0)

        def update(self, x):
            return self.neurons(x).sum()

    net = sg.nn.init_all_states(Net())
    with sg.environ.context(dt=1.0):
        _, record = sg.nn.watch(net)(jnp.array([1.0, 9.0]))
    assert record["neurons"]["output"].tolist() == [0, 1]
    assert_same(record["neurons"]["states"]["V"], net.neurons.V.value)
