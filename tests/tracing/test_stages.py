"""Traced, Lowered, Compiled: programs, tables, texts, calls."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph.errors import CallError, LoweringError, TraceError


class Net(sg.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = sg.ParamState(jnp.ones((2, 3)))
        self.h = sg.HiddenState({"a": jnp.zeros(3), "b": jnp.zeros(())})
        self.unused = sg.State(0.0)
        self.rate = 0.5
        self.table = jnp.arange(3.0)

    def update(self, x: Any) -> Any:
        y = x @ self.w.value * self.rate + self.table
        self.h.value = {"a": self.h.value["a"] + y, "b": self.h.value["b"] + 1}
        return {"y": y, "n": self.h.value["b"]}


X = jnp.array([1.0, 2.0])


@pytest.mark.core
def test_tracing_at_arrays_structs_and_later_is_the_same() -> None:
    net = Net()
    at_array = sg.trace(net, X)
    at_struct = sg.trace(net, jax.ShapeDtypeStruct((2,), jnp.float32))
    assert at_array.program == at_struct.program
    assert str(at_array.lower().program) == str(sg.trace(net).lower(X).program)
    assert at_array.program.name == "Net"


@pytest.mark.core
def test_trace_needs_no_arguments_where_the_model_has_examples_or_takes_none() -> None:
    net = Net()
    with pytest.raises(TraceError, match="lower"):
        sg.trace(net).program
    net.example_args = (X,)
    assert sg.trace(net).program == sg.trace(net, X).program
    s = sg.State(0)
    assert "s" in sg.trace(lambda: s.value).program.states
    with pytest.raises(TraceError):
        sg.trace(3)
    with pytest.raises(TraceError, match="already traced"):
        sg.trace(net, X).lower(X)


@pytest.mark.core
def test_lowering_never_changes_the_traced_program() -> None:
    net = Net()
    traced = sg.trace(net, X)
    before = str(traced.program)
    lowered = traced.lower()
    assert str(traced.program) == before and lowered.program.functional
    assert lowered.program is not traced.program
    only = traced.lower(passes="hoist-state,forward-state")
    assert only.program.functional


@pytest.mark.core
def test_compiled_reads_and_writes_the_live_states() -> None:
    net, oracle = Net(), Net()
    compiled = sg.trace(net, X).lower().compile()
    for _ in range(3):
        got, want = compiled(X), oracle(X)
        assert np.allclose(got["y"], want["y"]) and float(got["n"]) == float(want["n"])
    assert np.allclose(net.h.value["a"], oracle.h.value["a"])


@pytest.mark.core
def test_functional_touches_no_live_state() -> None:
    net = Net()
    compiled = sg.trace(net, X).lower().compile()
    states = {"w": net.w.value * 2, "h": net.h.value}
    for _ in range(2):
        out, new = compiled.functional(states, X)
        assert np.allclose(out["y"], 3 + np.arange(3)) and float(new["h"]["b"]) == 1
        assert float(states["h"]["b"]) == 0 and float(net.h.value["b"]) == 0
        assert np.allclose(new["w"], 2)
    out, newer = compiled.functional(new, X)
    assert float(newer["h"]["b"]) == 2
    with pytest.raises(CallError, match="@h"):
        compiled.functional({"w": states["w"]}, X)
    with pytest.raises(CallError):
        compiled.functional({**states, "w": jnp.ones(2)}, X)


@pytest.mark.core
def test_compiled_refuses_other_types_and_replaced_states() -> None:
    net = Net()
    compiled = sg.trace(net, X).lower().compile()
    compiled(X)
    with pytest.raises(CallError, match=r"x is f32\[3\] and was compiled as f32\[2\]"):
        compiled(jnp.ones(3))
    with pytest.raises(CallError, match="structure"):
        compiled(X, X)
    net.h.value = {"a": jnp.zeros(3, jnp.int32), "b": jnp.zeros(())}
    with pytest.raises(CallError, match="@h"):
        compiled(X)
    net.h.value = {"a": jnp.zeros(3), "b": jnp.zeros(())}
    compiled(X)
    net.h.value = [jnp.zeros(3), jnp.zeros(())]
    with pytest.raises(CallError, match="changed since"):
        compiled(X)
    net.h = sg.HiddenState({"a": jnp.zeros(3), "b": jnp.zeros(())})
    with pytest.raises(CallError, match="changed since"):
        compiled(X)
    other = Net()
    compiled = sg.trace(other, X).lower().compile()
    other.rate = 3.0
    with pytest.raises(CallError, match="fix:"):
        compiled(X)


@pytest.mark.core
def test_an_edited_or_parsed_program_is_lowered_against_a_model_a_mapping_or_nothing() -> None:
    net = Net()
    program = sg.trace(net, X).program
    parsed = sg.ir.parse(str(program))
    assert parsed == program
    compiled = sg.lower(parsed, states=net).compile()
    expected = Net()(X)
    assert np.allclose(compiled(X)["y"], expected["y"])
    assert float(net.h.value["b"]) == 1
    mapping = {"w": jnp.ones((2, 3)), "h": net.h}
    compiled = sg.lower(parsed, states=mapping).compile()
    compiled(X)
    assert float(net.h.value["b"]) == 2
    with pytest.raises(CallError, match="@h"):
        sg.lower(parsed, states={"w": net.w})
    edited = program.copy()
    rewriter = sg.ir.Rewriter()
    (scaling,) = edited.walk("jax.mul")
    rewriter.replace_uses(scaling.results[0], scaling.operands[0])
    rewriter.erase(scaling)
    out = sg.lower(edited, states=net).compile()(X)
    assert np.allclose(out["y"], 3 + np.arange(3)) and float(net.h.value["b"]) == 3
    assert len(list(program.walk("jax.mul"))) == 1


def test_a_parsed_program_draws_from_the_default_random_state() -> None:
    net = Net()

    def noisy() -> jax.Array:
        net.h.value = jax.tree.map(lambda leaf: leaf + 1, net.h.value)
        return sg.random.rand(3)

    parsed = sg.ir.parse(str(sg.trace(noisy).program))
    assert "DEFAULT" in parsed.states
    sg.random.seed(7)
    expected = sg.random.rand(3), sg.random.rand(3)
    for states in (net, {"h": net.h}):
        compiled = sg.lower(parsed, states=states).compile()
        sg.random.seed(7)
        assert np.array_equal(compiled(), expected[0]) and np.array_equal(compiled(), expected[1])
    own = sg.random.RandomState(7)
    compiled = sg.lower(parsed, states={"h": net.h, "DEFAULT": own}).compile()
    sg.random.seed(0)
    before = sg.random.DEFAULT.value
    assert np.array_equal(compiled(), expected[0]) and np.array_equal(
        jax.random.key_data(before), jax.random.key_data(sg.random.DEFAULT.value)
    )


def test_lower_refuses_states_of_another_type() -> None:
    net = Net()
    program = sg.trace(net, X).program
    with pytest.raises(CallError, match="@w"):
        sg.lower(program, states={"w": jnp.ones(2), "h": net.h}).compile()(X)


@pytest.mark.core
def test_the_signature_names_inputs_states_captures_and_results() -> None:
    lowered = sg.trace(Net(), X).lower()
    table = lowered.signature
    assert table.names("inputs") == ["x"]
    assert set(table.names("state in")) == {"@w", "@h"} and table.names("state out") == ["@h"]
    assert table.names("captured") == ["table"]
    assert table.names("results") == ["result['n']", "result['y']"]
    text = str(table)
    assert "f32[2,3]" in text and "24 B" in text


@pytest.mark.core
def test_every_text_can_be_had() -> None:
    lowered = sg.trace(Net(), X).lower()
    assert lowered.as_text().startswith("stategraph") and lowered.as_text("stategraph") == str(
        lowered.program
    )
    assert "dot_general" in lowered.as_text("jaxpr") and "stablehlo" in lowered.as_text("stablehlo")
    assert "HloModule" in lowered.as_text("hlo") and "HloModule" in lowered.compile().as_text()
    with pytest.raises(ValueError, match="dialect"):
        lowered.as_text("latin")
    with pytest.raises(LoweringError, match="lower"):
        sg.trace(Net(), X).as_text("hlo")


@pytest.mark.for_cpus
def test_analyses_and_times() -> None:
    lowered = sg.trace(Net(), X).lower()
    compiled = lowered.compile()
    assert lowered.cost_analysis() is not None and compiled.cost_analysis() is not None
    assert compiled.memory_analysis().argument_size_in_bytes > 0
    assert {"trace", "passes", "emit", "lower", "compile"} <= set(compiled.times)


@pytest.mark.core
def test_explain_has_a_record_for_every_state_with_place_and_reason() -> None:
    net = Net()
    lowered = sg.trace(lambda xs: sg.compile.for_loop(lambda x: net(x)["y"], xs), jnp.ones((4, 2))).lower()
    text = str(lowered.explain())
    for part in ("@net.h", "@net.w", "test_stages.py", "hoist-state", "is carried by", "captured array"):
        assert part in text
    assert "@net.unused" not in text
    record = next(r for r in lowered.explain() if "is carried by" in r.decision)
    assert record.subject == "@net.h" and record.reason and record.location.line > 0


def test_cross_platform_lowering_works_without_the_device_and_refuses_host_effects() -> None:
    net = Net()
    away = {"cpu": ("cuda", "tpu"), "gpu": ("cpu", "tpu")}[jax.default_backend()]
    lowered = sg.trace(net, X).lower(platforms=away)
    assert "stablehlo" in lowered.as_text("stablehlo")
    with pytest.raises(LoweringError, match="lowered for"):
        lowered.compile()

    both = sg.trace(net, X).lower(platforms=("cpu", "cuda"))
    assert "HloModule" in both.as_text("hlo")
    np.testing.assert_array_equal(both.compile()(X)["y"], net(X)["y"])

    def printing(x: Any) -> Any:
        jax.debug.print("x {}", x)
        return net(x)

    with pytest.raises(LoweringError) as error:
        sg.trace(printing, X).lower(platforms=("cuda",))
    for part in ("debug_print", "test_stages.py", "strip_host_effects"):
        assert part in str(error.value)
    lowered = sg.trace(printing, X).lower(platforms=("cuda",), strip_host_effects=True)
    assert len(lowered.stripped) == 1 and "test_stages.py" in lowered.stripped[0]
    assert len(list(lowered.traced.program.walk("host.debug_print"))) == 1


def test_a_callback_whose_result_is_used_cannot_be_stripped() -> None:
    def f(x: Any) -> Any:
        return jax.pure_callback(lambda v: np.asarray(v) * 2, x, x) + 1

    with pytest.raises(LoweringError) as error:
        sg.trace(f, X).lower(platforms=("cuda",), strip_host_effects=True).as_text("stablehlo")
    assert "pure_callback" in str(error.value) and "test_stages.py" in str(error.value)


def test_stages_print_without_addresses() -> None:
    traced = sg.trace(Net(), X)
    lowered = traced.lower()
    for stage in (traced, lowered, lowered.compile()):
        assert "0x" not in repr(stage) and "@Net" in repr(stage)
        assert stage._repr_html_()


def test_two_traces_give_the_same_text_and_locations_point_to_user_lines() -> None:
    net = Net()
    one, two = sg.trace(net, X).program, sg.trace(net, X).program
    assert str(one) == str(two)
    places = {op.location.file.rsplit("/", 1)[-1] for op in one.walk() if op.location.known}
    assert places == {"test_stages.py"}


def test_nodes_as_arguments_of_trace_are_part_of_the_program() -> None:
    net = Net()
    traced = sg.trace(lambda model, x: model(x), net, X)
    assert {"model.w", "model.h"} <= set(traced.program.states)
    traced.lower().compile()(X)
    assert float(net.h.value["b"]) == 1
