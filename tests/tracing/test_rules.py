"""What a trace leaves behind, what it refuses, and what its errors say."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import (
    ConcretizationError,
    StateAccessError,
    StateTypeError,
    TraceError,
)
from tests.oracle import Made, agree, values
from tests.tracing.models import XS, Net, told

# -------------------------------------------------------------------------------------------- one run, undone


@pytest.mark.core
def test_user_code_runs_once_per_trace() -> None:
    runs: list[str] = []
    s = sg.State(0.0)

    def f(xs: Any) -> Any:
        runs.append("f")

        def step(c: Any, x: Any) -> Any:
            runs.append("step")
            s.value = s.value + x
            return c + x, None

        def body(c: Any) -> Any:
            runs.append("body")
            return c + s.value

        def loss(x: Any) -> Any:
            runs.append("loss")
            s.value = s.value * 2
            return (x * s.value).sum()

        c, _ = jax.lax.scan(step, jnp.float32(0), xs)
        c = jax.lax.while_loop(lambda c: c < 3, body, c)
        return c, sg.augment.grad(loss)(xs)

    compiled = sg.compile.jit(f)
    compiled(XS)
    compiled(XS)
    assert sorted(runs) == ["body", "f", "loss", "step"]


@pytest.mark.core
@pytest.mark.parametrize("fails", [False, True])
def test_tracing_leaves_the_model_bit_identical(fails: bool) -> None:
    net = Net()
    net.w.value = jnp.array([np.nan, -0.0, 1e-40])
    arrays = [id(net.w.value), id(net.count.value)]
    before = [np.asarray(v).tobytes() for v in values([net.w, net.count])]
    attributes = dict(net.__dict__)

    def f(x: Any) -> Any:
        net.w.value = net.w.value * x
        net.count.value = jnp.zeros((2, 2))
        net.flag = True
        net.fresh = 3
        del net._name
        net.w, net.count = net.count, net.w

        def step(c: Any, _: Any) -> Any:
            net.w.value = net.w.value + 1
            return c, None

        jax.lax.scan(step, 0, length=2)
        if fails:
            raise RuntimeError("in mid-trace")
        return x

    if fails:
        with pytest.raises(RuntimeError, match="in mid-trace"):
            sg.trace(f, 2.0)
    else:
        sg.trace(f, 2.0)
    assert net.__dict__ == attributes
    assert list(net.__dict__) == list(attributes)
    assert [id(net.w.value), id(net.count.value)] == arrays
    assert [np.asarray(v).tobytes() for v in values([net.w, net.count])] == before
    assert net.count.value.shape == () and repr(net.count).startswith("State(\n  value=Array(0")


def test_lists_and_dicts_of_nodes_are_restored_too() -> None:
    class Holder(sg.Node):
        def __init__(self) -> None:
            self.items = [1, 2]
            self.table = {"a": 1}
            self.nested = [[1], {"b": [2]}]

    holder = Holder()

    def f(x: Any) -> Any:
        holder.items.append(3)
        holder.table["c"] = 4
        del holder.table["a"]
        holder.nested[1]["b"].append(5)  # type: ignore[call-overload]
        return x

    items, table = holder.items, holder.table
    for _ in range(2):
        sg.trace(f, 1.0)
        assert holder.items is items and items == [1, 2]
        assert holder.table is table and table == {"a": 1}
        assert holder.nested == [[1], {"b": [2]}]
    assert float(sg.compile.jit(f)(2.0)) == 2.0


def test_a_failed_trace_can_be_repeated_and_gives_the_same_names() -> None:
    s = sg.State(0.0)

    def f(fail: bool) -> Any:
        local = sg.State(1.0)
        s.value = s.value + local.value
        if fail:
            raise ValueError
        return s.value

    with pytest.raises(ValueError):
        sg.trace(lambda: f(True))
    assert float(sg.compile.jit(lambda: f(False))()) == 1.0
    first, second = sg.trace(lambda: f(False)).program, sg.trace(lambda: f(False)).program
    assert first.to_text(locations=False) == second.to_text(locations=False)


@pytest.mark.core
def test_no_tracers_leak() -> None:
    with jax.checking_leaks():
        s = sg.State(0.0)

        @jax.jit
        def inner(x: Any) -> Any:
            return x * s.value

        def f(xs: Any) -> Any:
            def step(c: Any, x: Any) -> Any:
                local = sg.State(x)
                s.value = s.value + local.value
                return c + inner(x), local.value

            def loss(x: Any) -> Any:
                s.value = s.value + 1
                return (x * s.value).sum()

            c, ys = jax.lax.scan(step, jnp.float32(0), xs)
            y = jax.lax.cond(c > 0, lambda: s.value, lambda: c)
            return c, ys, y, sg.augment.grad(loss)(xs)

        compiled = sg.compile.jit(f)
        compiled(XS)
        compiled(XS * 2)
        sg.compile.for_loop(lambda x: setattr(s, "value", s.value + x), XS)


@pytest.mark.core
def test_models_are_collected_after_use() -> None:
    class Stack(sg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [Net(), Net()]
            self.table = {"net": Net()}

        @sg.compile.jit
        def step(self, x: Any) -> Any:
            for layer in (*self.layers, self.table["net"]):
                layer.w.value = layer.w.value + x
            return x

        def update(self, x: Any) -> Any:
            def body(i: Any) -> Any:
                self.layers[0].count.value += 1
                return i

            sg.compile.for_loop(body, jnp.arange(3))
            return sg.augment.grad(lambda y: (self.layers[1].w.value * y).sum())(x)

    @sg.compile.jit
    def takes_model(model: Any, x: Any) -> Any:
        return model.layers[0].w.value * x

    def use() -> list[Any]:
        stack = Stack()
        sg.compile.jit(lambda x: stack.update(x))(2.0)
        stack.step(2.0)
        stack.update(2.0)
        takes_model(stack, 2.0)
        sg.trace(stack, 2.0).lower().compile()(2.0)
        layers = stack.layers
        sg.compile.for_loop(lambda i: layers[0].w.value * i, jnp.arange(3))
        found = [*sg.graph.nodes(stack).values(), *sg.graph.states(stack).values()]
        return [weakref.ref(obj) for obj in found]

    references = use()
    assert len(references) > 8
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)


# ------------------------------------------------------------------------------------------------------ types


@pytest.mark.core
def test_state_values_are_never_weakly_typed() -> None:
    s = sg.State(1.0)
    assert s.value.dtype == jnp.float32 and not s.value.weak_type
    s.value = 2
    assert s.value.dtype == jnp.int32 and not s.value.weak_type

    def f() -> None:
        s.value = 3.0
        assert not s.value.weak_type
        local = sg.State(4)
        assert not local.value.weak_type

    compiled = sg.compile.jit(f)
    compiled()
    assert s.value.dtype == jnp.float32 and not s.value.weak_type
    compiled()


@pytest.mark.core
def test_type_changing_writes_are_legal_in_straight_line_code() -> None:
    def make() -> Made:
        s, t = sg.State(jnp.float32(1)), sg.State({"a": jnp.ones(2)})

        def f(x: Any) -> Any:
            before = s.value
            s.value = jnp.arange(3) + jnp.int32(x)
            t.value = [t.value["a"] * 2, s.value] if isinstance(t.value, dict) else {"a": t.value[0]}
            return before.sum(), s.value.sum()

        return f, [s, t]

    agree(make, (1.0,), (2.0,), (3.0,))


def test_a_local_state_of_a_loop_body_may_change_its_type_there() -> None:
    def make() -> Made:
        def f(xs: Any) -> Any:
            def step(c: Any, x: Any) -> Any:
                local = sg.State(x)
                local.value = jnp.stack([local.value, c])
                return local.value.sum(), local.value

            return jax.lax.scan(step, jnp.float32(0), xs)

        return f, []

    agree(make, (XS,))


@pytest.mark.core
@pytest.mark.parametrize("where", ["scan", "while", "cond", "structure"])
def test_type_changing_writes_in_bodies_name_state_types_and_line(where: str) -> None:
    net = Net()

    def body(c: Any) -> Any:
        net.w.value = {"w": net.w.value} if where == "structure" else jnp.arange(2)
        return c

    def f(x: Any) -> Any:
        if where == "cond":
            return jax.lax.cond(x > 0, body, lambda c: c, x)
        if where == "while":
            return jax.lax.while_loop(lambda c: c < 3, body, x)
        return jax.lax.scan(lambda c, _: (body(c), None), x, length=2)[0]

    with pytest.raises(StateTypeError) as error:
        sg.compile.jit(f)(jnp.float32(1))
    told(
        error,
        "net.w",
        "f32[3]",
        "{'w': f32[3]}" if where == "structure" else "i32[2]",
        "net.w.value = {",
        "created at",
    )


@pytest.mark.core
@pytest.mark.parametrize("how", ["if", "float", "int", "numpy", "while", "index"])
def test_branching_on_a_traced_value_names_state_line_and_fix(how: str) -> None:
    net = Net()

    def f() -> Any:
        y = net.count.value * 2
        if how == "if":
            return 1.0 if y > 0 else 2.0
        if how == "while":
            while y > 0:
                y = y - 1
        if how == "index":
            return [1, 2][y]
        return {"float": float, "int": int, "numpy": np.asarray}[how](y)

    with pytest.raises(ConcretizationError) as error:
        sg.compile.jit(f)()
    told(error, "net.count", "compile.cond", "created at")


def test_numpy_object_and_string_leaves_in_a_trace_are_errors() -> None:
    s = sg.State(jnp.zeros(2))
    for value in ("text", object()):
        with pytest.raises(StateTypeError) as error:
            sg.trace(lambda v=value: setattr(s, "value", v))
        told(error, "'s'", "created at")
    text = sg.State("text")
    with pytest.raises(StateTypeError) as error:
        sg.trace(lambda: text.value)
    told(error, "str")


def test_a_state_cannot_hold_a_state_nor_be_argument_or_result() -> None:
    s = sg.State(1.0, name="whole")
    with pytest.raises(StateTypeError, match="another State"):
        s.value = sg.State(2.0)
    with pytest.raises(TraceError, match="returns a State"):
        sg.trace(lambda: s)
    with pytest.raises(TraceError, match="given as an argument"):
        sg.trace(lambda x: x, s)
    with pytest.raises(TraceError, match="which is no array"):
        sg.trace(lambda: "text")


# ---------------------------------------------------------------------------------------------------- threads


def test_a_thread_reads_while_another_traces() -> None:
    net = Net()
    inside, done = threading.Event(), threading.Event()
    seen: list[Any] = []

    def f() -> None:
        net.w.value = net.w.value * 3
        net.flag = True
        inside.set()
        assert done.wait(10)

    def reader() -> None:
        assert inside.wait(10)
        seen.append(np.asarray(net.w.value))
        net.count.value = net.count.value + 1
        done.set()

    thread = threading.Thread(target=reader)
    thread.start()
    sg.compile.jit(f)()
    thread.join()
    assert np.array_equal(seen[0], [1, 1, 1])
    assert int(net.count.value) == 1
    assert np.array_equal(net.w.value, [3, 3, 3])


def test_two_threads_trace_at_once() -> None:
    def work(k: int, out: list[Any]) -> None:
        s = sg.State(float(k))

        def f(xs: Any) -> Any:
            def step(c: Any, x: Any) -> Any:
                s.value = s.value + x
                return c, s.value

            return jax.lax.scan(step, 0, xs)[1]

        for _ in range(5):
            sg.compile.jit(f)(XS)
        out.append((k, float(s.value)))

    out: list[Any] = []
    threads = [threading.Thread(target=work, args=(k, out)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(out) == [(k, k + 50.0) for k in range(4)]


# ----------------------------------------------------------------------------------------- things left behind


@pytest.mark.core
def test_a_traced_value_left_on_an_attribute_names_path_line_and_fix() -> None:
    net = Net()

    def f(x: Any) -> Any:
        net.last = {"y": [x * 2]}
        return x

    with pytest.raises(TraceError) as error:
        sg.compile.jit(f)(1.0)
    told(error, "Net.last['y'][0]", "net.last = {", "State(")
    assert not hasattr(net, "last")


def test_a_traced_value_left_in_a_list_of_a_node_is_an_error() -> None:
    net = Net()
    net.history = []

    def f(x: Any) -> Any:
        net.history.append(x * 2)
        return x

    with pytest.raises(TraceError) as error:
        sg.compile.jit(f)(1.0)
    told(error, "list", "net.history.append")
    assert net.history == []


def test_a_state_born_in_a_trace_and_put_into_an_existing_list_is_an_error() -> None:
    net = Net()
    net.cells = []

    def f(x: Any) -> Any:
        net.cells.append(sg.State(x))
        return x

    with pytest.raises(StateAccessError) as error:
        sg.compile.jit(f)(1.0)
    told(error, "list", "net.cells[0]", "created at", "[*self.items")
    assert net.cells == []
