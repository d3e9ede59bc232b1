"""NaN is named by the op that made it, its line, its operands, the trips of its loops, and the State it reached."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import NanError, TraceError

pytestmark = pytest.mark.core


class Net(sg.nn.Module):
    def __init__(self):
        super().__init__()
        self.v = sg.HiddenState(jnp.ones(2))
        self.w = sg.ParamState(jnp.ones(2))

    def update(self, x):
        self.v.value = jnp.sqrt(self.v.value - x)  # the culprit
        return (self.w.value * self.v.value).sum()


def line_of(text):
    """``file:line`` of the line with this text in ``Net``."""
    lines, start = inspect.getsourcelines(Net)
    return f"test_nans.py:{start + next(i for i, line in enumerate(lines) if text in line)}"


def message(call, *args, **kwargs):
    with pytest.raises(NanError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def test_the_op_its_line_its_operands_and_the_state_are_named():
    net = Net()
    sg.compile.debug_nan(net, 0.5)
    found = message(sg.compile.debug_nan, net, 2.0, phase="forward")
    assert found.startswith("forward: NaN arises in jax.sqrt in @Net, and reaches State @v first.")
    assert line_of("# the culprit") in found
    assert "operand 0: f32[2], from -1 to -1" in found
    assert np.asarray(net.v.value).tolist() == [1.0, 1.0]


def test_trips_of_loops_are_counted():
    net = Net()

    def simulate(xs):
        return sg.compile.for_loop(lambda row: sg.compile.for_loop(net, row), xs)

    xs = jnp.zeros((3, 4)).at[1, 2].set(5.0)
    found = message(sg.compile.debug_nan, simulate, xs)
    trips = [line.split()[2] for line in found.splitlines() if "trip:" in line]
    assert trips == ["1", "2"]
    assert "State @net.v first" in found

    i = sg.State(0)

    def countdown():
        def body(x):
            i.value += 1
            return jnp.log(x)

        return sg.compile.while_loop(lambda x: i.value < 5, body, 3.0)

    assert "trip 3 of the loop" in message(sg.compile.debug_nan, countdown)


def test_nan_that_is_thrown_away_is_no_error():
    sg.compile.debug_nan(lambda x: jnp.where(x > 0, jnp.log(x), 0.0), jnp.array([-1.0, 1.0]))


def test_infinity_counts():
    found = message(sg.compile.debug_nan, lambda x: 1 / x, 0.0)
    assert found.startswith("infinity arises in jax.div")


def test_nan_in_gradients_is_found():
    w = sg.ParamState(0.0)

    def norm():
        return jnp.sqrt(w.value**2)

    found = message(sg.compile.debug_nan, sg.augment.grad(norm, w))
    assert "test_nans.py" in found
    assert found.startswith(("NaN arises in jax.mul", "infinity arises in jax.div", "NaN arises in jax.div"))


@pytest.mark.parametrize("way", ["augment", "lanes"])
def test_nan_in_transformed_code(way):
    def one(x):
        return jnp.log(x)

    if way == "lanes":
        found = message(sg.compile.debug_nan, sg.augment.vmap(one), jnp.array([1.0, -1.0]))
    else:
        found = message(sg.compile.debug_nan, sg.augment.value_and_grad(one, argnums=0), -1.0)
    assert "arises in jax.log" in found


def test_what_was_bad_before_the_call():
    v = sg.State(jnp.nan)
    found = message(sg.compile.debug_nan, lambda x: v.value + x, 1.0)
    assert found.startswith("NaN is in the State @v before the call")
    found = message(sg.compile.debug_nan, lambda x: x + 1, jnp.nan)
    assert found.startswith("NaN is in the argument x before the call")


def test_an_option_of_jit():
    net = Net()
    step = sg.compile.jit(net, debug_nans=True)
    assert np.isfinite(step(0.5))
    assert np.isfinite(step(0.1))
    assert step.trace_count == 1
    found = message(step, 9.0)
    assert "jax.sqrt" in found and line_of("# the culprit") in found
    assert np.isnan(np.asarray(net.v.value)).all()


def test_the_option_reaches_methods_and_keeps_arguments():
    class Model(Net):
        @sg.compile.jit(debug_nans=True, donate_argnums=1)
        def step(self, x):
            return self.update(x)

    model, x = Model(), jnp.array([2.0, 0.0])
    assert "jax.sqrt" in message(model.step, x)
    assert x.tolist() == [2.0, 0.0]


@pytest.mark.parametrize("warm", [False, True])
def test_the_setting_of_jax_gives_the_same_error(warm):
    net = Net()
    step = sg.compile.jit(net)
    if warm:
        step(0.0), step(0.0)
    with jax.debug_nans(True):
        step(0.5)
        found = message(step, 9.0)
    assert "jax.sqrt" in found and "State @v first" in found
    net.v.value = jnp.ones(2)
    assert np.isfinite(step(0.0))
    assert np.isnan(step(9.0))
    inverse = sg.compile.jit(lambda x: 1 / x)
    assert np.isinf(inverse(0.0))
    with jax.debug_infs(True):
        assert "infinity arises in jax.div" in message(inverse, 0.0)


def test_compiled_stages_obey_the_setting():
    net = Net()
    compiled = sg.trace(net, 0.0).lower().compile()
    with jax.debug_nans(True):
        compiled(0.5)
        assert "jax.sqrt" in message(compiled, 9.0)


def test_eager_loops_obey_the_setting():
    v = sg.State(1.0)

    def step(x):
        v.value = v.value - x
        return jnp.log(v.value)

    with jax.debug_nans(True):
        assert "trip 1" in message(sg.compile.for_loop, step, jnp.array([0.5, 2.0]))


def test_inside_a_trace_it_is_refused():
    with pytest.raises(TraceError, match="op by op"):
        sg.compile.jit(lambda x: sg.compile.debug_nan(jnp.log, x))(1.0)
