"""Progress bars: how they move, that they change nothing, and that they are closed."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from tests.support import assert_same

pytestmark = pytest.mark.core
BARS = []


class Bar:
    """What stands in for tqdm's."""

    def __init__(self, total=None, desc=None, **kwargs):
        self.total, self.desc, self.kwargs = total, desc, kwargs
        self.n, self.moves, self.closed, self.texts = 0, [], False, []
        BARS.append(self)

    def update(self, step):
        assert not self.closed
        self.n += step
        self.moves.append(self.n)

    def set_description_str(self, text, refresh=True):
        self.texts.append(text)

    def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def bars(monkeypatch):
    import tqdm

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    BARS.clear()


def run(function, *args):
    result = jax.block_until_ready(function(*args))
    jax.effects_barrier()
    return result


def loops(pbar):
    h, w = sg.State(0.0), sg.ParamState(0.9)

    def step(x):
        h.value = w.value * h.value + x
        return h.value

    def carried(c, x):
        return c + step(x), c

    return {
        "for_loop": lambda xs: sg.compile.for_loop(step, xs, pbar=pbar),
        "reverse": lambda xs: sg.compile.for_loop(step, xs, reverse=True, unroll=2, pbar=pbar),
        "scan": lambda xs: sg.compile.scan(carried, 0.0, xs, pbar=pbar),
        "checkpointed_for_loop": lambda xs: sg.compile.checkpointed_for_loop(step, xs, base=3, pbar=pbar),
        "checkpointed_scan": lambda xs: sg.compile.checkpointed_scan(carried, 0.0, xs, base=3, pbar=pbar),
        "map": lambda xs: sg.augment.map(step, xs, progress=pbar or False),
        "gradient": lambda xs: sg.augment.grad(lambda: sg.compile.for_loop(step, xs, pbar=pbar).sum(), w)(),
        "gradient of checkpointed": lambda xs: sg.augment.grad(
            lambda: sg.compile.checkpointed_for_loop(step, xs, base=3, pbar=pbar).sum(), w
        )(),
        "lanes": lambda xs: sg.augment.vmap(
            lambda a: sg.compile.for_loop(lambda x: a * x + w.value, xs, pbar=pbar)
        )(xs[:3]),
    }


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("name", list(loops(None)))
def test_a_bar_moves_once_for_every_freq_trips_and_changes_nothing(name, jitted):
    xs = jnp.linspace(0.0, 1.0, 10)
    wrap = sg.compile.jit if jitted else lambda f: f
    plain = wrap(loops(None)[name])
    expected = [run(plain, xs), run(plain, xs)]
    assert not BARS
    function = wrap(loops(sg.compile.ProgressBar(freq=4, desc="run"))[name])
    for result in expected:
        BARS.clear()
        assert_same(run(function, xs), result, exact=False)
        (bar,) = BARS
        assert (bar.moves, bar.total, bar.desc, bar.closed) == ([4, 8, 10], 10, "run", True)


def test_how_often_a_bar_moves():
    xs = jnp.zeros(40)
    for pbar, moves in ((sg.compile.ProgressBar(), 20), (sg.compile.ProgressBar(count=5), 5), (10, 4)):
        BARS.clear()
        run(lambda pbar=pbar: sg.compile.for_loop(lambda x: x, xs, pbar=pbar))
        assert len(BARS[0].moves) == moves and BARS[0].n == 40
    BARS.clear()
    run(lambda: sg.augment.map(lambda x: x + 1, xs, batch_size=8, progress=True))
    assert BARS[0].total == 5
    run(lambda: sg.compile.for_loop(lambda x: x, jnp.zeros(0), pbar=1))
    assert len(BARS) == 1


def test_an_inner_loop_has_a_bar_for_each_run():
    def outer(x):
        return sg.compile.for_loop(lambda y: x * y, jnp.arange(3.0), pbar=1).sum()

    run(sg.compile.jit(lambda: sg.compile.for_loop(outer, jnp.arange(2.0))))
    assert [bar.moves for bar in BARS] == [[1, 2, 3]] * 2
    assert all(bar.closed for bar in BARS)


def test_a_loop_counts_from_a_number_that_is_known_once_its_bar_has_begun():
    """Prints that do not depend on each other come in any order where a device computes by itself."""

    def outer(x):
        return sg.compile.for_loop(lambda y: x * y, jnp.arange(3.0), pbar=1).sum()

    program = sg.trace(lambda: sg.compile.for_loop(outer, jnp.arange(2.0))).lower().program
    (loop,) = (op for op in program.walk("flow.scan") if op.attributes["length"] == 3)
    ahead, found = [loop.operands[0]], []
    while ahead:
        op = ahead.pop().owner
        found += [op]
        ahead += [value for value in getattr(op, "operands", ()) if not isinstance(value, sg.ir.Constant)]
    (begun,) = (op for op in found if getattr(op, "name", "") == "flow.while")
    assert next(begun.walk("host.debug_callback"), None) is not None


@pytest.mark.parametrize("lanes", [False, True])
def test_a_description_is_computed_in_the_loop(lanes):
    bar = sg.compile.ProgressBar(
        freq=2, desc=("trip {i}: loss {loss:.1f}", lambda now: {"i": now["i"], "loss": now["y"] * 2})
    )

    def function(a):
        return sg.compile.for_loop(lambda x: x + a, jnp.arange(4.0), pbar=bar)

    run(sg.augment.vmap(function), jnp.arange(3.0)) if lanes else run(function, 0.0)
    assert BARS[0].texts == ["trip 2: loss 2.0", "trip 4: loss 6.0"]
    assert len(BARS) == 1


@pytest.mark.parametrize("way", ["compiled", "disabled", "tracing"])
def test_a_bar_is_closed_when_the_loop_fails(way):
    def fail(x):
        if x > 4:
            raise ValueError("stop here")

    def step(x):
        if way == "tracing":
            raise ValueError("stop here")
        jax.debug.callback(fail, x)
        return x

    def function():
        return sg.compile.for_loop(step, jnp.arange(10.0), pbar=1)

    with pytest.raises(Exception, match="stop here"):
        if way == "disabled":
            with jax.disable_jit():
                run(function)
        else:
            run(function)
    jax.effects_barrier()
    assert all(bar.closed for bar in BARS)
    assert way == "tracing" or BARS


def test_a_loop_with_a_bar_is_traced_once():
    def step(x):
        return x

    from stategraph.compile import cached

    before = len(cached._CACHE)
    for _ in range(3):
        sg.compile.for_loop(step, jnp.zeros(4), pbar=sg.compile.ProgressBar(freq=2))
    assert len(cached._CACHE) == before + 1
    assert sg.compile.ProgressBar(freq=2, ncols=3) != sg.compile.ProgressBar(freq=2, ncols=4)
    assert repr(sg.compile.ProgressBar(freq=2, ncols=3)) == "ProgressBar(freq=2, ncols)"


def test_a_program_with_a_bar_is_exported_without_it():
    def function(xs):
        return sg.compile.for_loop(lambda x: x * 2, xs, pbar=2)

    exported = sg.export(function, jnp.arange(6.0), strip_host_effects=True)
    assert exported.stripped
    assert np.asarray(exported(np.arange(6, dtype=np.float32))).tolist() == [0, 2, 4, 6, 8, 10]


def test_bad_bars_are_refused():
    bar = sg.compile.ProgressBar
    with pytest.raises(ValueError, match="one of the two"):
        bar(freq=1, count=2)
    with pytest.raises(ValueError, match="at least 1"):
        bar(freq=0)
    with pytest.raises(TypeError, match="format string and a function"):
        bar(desc=("a", "b"))
    with pytest.raises(TypeError, match="a text"):
        bar(desc=3)
    with pytest.raises(TypeError, match="pbar is"):
        sg.compile.for_loop(lambda x: x, jnp.zeros(2), pbar="yes")


def test_without_tqdm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"stategraph\[progress\]"):
        sg.compile.ProgressBar()
