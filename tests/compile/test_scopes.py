"""Scopes, breakpoints, shapes, States of a call, and reductions over lanes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from tests.oracle import agree

pytestmark = pytest.mark.core


def test_scopes_show_in_the_ir_and_in_xla():
    h = sg.State(jnp.ones(3))

    @sg.compile.named_scope("cell")
    def cell(x):
        with sg.compile.named_scope("leak"):
            h.value = 0.9 * h.value
        return h.value * x

    lowered = sg.trace(lambda xs: sg.compile.for_loop(cell, xs), jnp.ones(4)).lower()
    scopes = [op.location.scope for op in lowered.program.walk("jax.mul")]
    assert scopes == ["cell/leak", "cell"]
    text = lowered.compile().as_text("hlo")
    assert "cell/leak/mul" in text and "cell/mul" in text
    assert cell(1.0).tolist() == pytest.approx([0.9] * 3)
    assert cell.trace_count == 1


def test_a_scope_takes_static_arguments_and_methods():
    @sg.compile.named_scope("power", static_argnums=1)
    def power(x, n):
        return x**n if n > 1 else x

    assert float(power(3.0, 2)) == 9.0

    class Model(sg.nn.Module):
        scale = 2.0

        @sg.compile.named_scope("compute")
        def compute(self, x):
            return x * self.scale

    assert float(Model().compute(3.0)) == 6.0
    with pytest.raises(TypeError, match="name of a scope"):
        sg.compile.named_scope(print)


@pytest.mark.parametrize("op", ["any", "all", "max"])
def test_unvmap_reduces_over_all_lanes(op):
    reduce = {"any": np.any, "all": np.all, "max": np.max}[op]
    x = np.random.default_rng(0).integers(0, 2, (3, 4, 2)).astype(np.float32)

    def make():
        total = sg.State(0.0)

        def inner(a):
            return sg.compile.unvmap(a, op)

        def function(x):
            plain = sg.compile.unvmap(x, op)
            one = sg.augment.vmap(inner)(x)
            two = sg.augment.vmap(lambda a: sg.augment.vmap(inner)(a))(x)
            loop = sg.compile.for_loop(lambda a: sg.augment.vmap(inner)(a), x)
            total.value += jnp.asarray(plain, float)
            return plain, one, two, loop

        return function, [total]

    agree(make, (x,))
    plain, one, two, loop = sg.compile.jit(make()[0])(x)
    expected = reduce(x)
    assert bool((one == expected).all()) and bool((two == expected).all()) and plain == expected
    assert loop[1].tolist() == [reduce(x[1])] * 4
    assert bool((jax.vmap(lambda a: sg.compile.unvmap(a, op))(x) == expected).all())


def test_unvmap_keeps_a_branch_a_branch():
    def function(x):
        return sg.compile.cond(sg.compile.unvmap(x > 1), lambda: jnp.minimum(x, 1), lambda: x)

    program = sg.trace(sg.augment.vmap(function), jnp.ones(3)).lower().program
    assert next(program.walk("flow.cond"), None) is not None
    assert float(sg.augment.grad(lambda x: x * sg.compile.unvmap(x, "max"), argnums=0)(3.0)) == 3.0
    with pytest.raises(ValueError, match="op of unvmap"):
        sg.compile.unvmap(1.0, "min")


def test_a_breakpoint_is_reached_only_if(monkeypatch):
    stops = []
    monkeypatch.setattr(
        jax.debug, "breakpoint", lambda **options: jax.debug.callback(lambda: stops.append(options))
    )

    def step(x):
        sg.compile.breakpoint_if(x > 2, backend="cli")
        return x

    xs = jnp.arange(5.0)
    for call in (
        lambda: sg.compile.for_loop(step, xs),
        lambda: sg.compile.jit(lambda: sg.compile.for_loop(step, xs))(),
    ):
        stops.clear()
        call()
        jax.effects_barrier()
        assert stops == [{"backend": "cli"}] * 2
    for call in (lambda: sg.augment.vmap(step)(xs), lambda: sg.compile.breakpoint_if(xs > 3, backend="cli")):
        stops.clear()
        call()
        jax.effects_barrier()
        assert len(stops) >= 1
    stops.clear()
    sg.augment.vmap(step)(xs / 10)
    sg.compile.breakpoint_if(False)
    jax.effects_barrier()
    assert stops == []


def test_shapes_of_a_call():
    class Net(sg.nn.Module):
        def __init__(self):
            super().__init__()
            self.h = sg.State({"a": jnp.zeros(2), "b": jnp.zeros((), int)})

        def update(self, x, *, scale=1.0):
            self.h.value = {"a": jnp.zeros(5), "b": self.h.value["b"] + 1}
            return {"y": x * scale, "n": self.h.value["b"]}

    net = Net()
    x = jax.ShapeDtypeStruct((3, 4), jnp.float32)
    result, states = sg.compile.eval_shape(net, x, scale=2.0, return_state_shapes=True)
    assert (result["y"].shape, result["y"].dtype, result["n"].dtype) == ((3, 4), jnp.float32, jnp.int32)
    assert states["h"]["a"].shape == (5,)
    assert net.h.value["a"].shape == (2,) and int(net.h.value["b"]) == 0
    assert sg.compile.eval_shape(net, x)["y"].shape == (3, 4)


def test_shapes_inside_of_a_trace():
    h = sg.State(jnp.zeros(3))

    def grow(x):
        h.value = h.value + x
        return h.value

    @sg.compile.jit
    def f(x):
        shape = sg.compile.eval_shape(grow, x)
        return jnp.zeros(shape.shape) + x

    assert f(2.0).tolist() == [2.0] * 3
    assert h.value.tolist() == [0.0] * 3


def test_states_of_a_call_are_found():
    class Net(sg.nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.h, self.unused = sg.ParamState(1.0), sg.HiddenState(0.0), sg.State(0)

        def update(self, x):
            self.h.value = self.w.value * x + self.h.value

    net = Net()
    finder = sg.compile.StateFinder
    assert finder(net)(1.0) == {"w": net.w, "h": net.h}
    assert finder(net, usage="write")(1.0) == {"h": net.h}
    assert finder(net, sg.ParamState, usage="both")(1.0) == {"read": {"w": net.w}, "write": {}}
    assert finder(net, usage="read", return_type="list")(1.0) == [net.w, net.h]
    assert finder(net, return_type="tuple", usage="write")(1.0) == (net.h,)
    assert set(finder(net, key_fn=lambda i, s: (i, type(s).__name__))(1.0)) == {
        (0, "ParamState"),
        (1, "HiddenState"),
    }
    assert float(net.h.value) == 0.0
    with pytest.raises(ValueError, match="usage"):
        finder(net, usage="none")
    with pytest.raises(ValueError, match="return_type"):
        finder(net, return_type="set")
