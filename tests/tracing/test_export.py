"""Exported programs: one file, no source, the same two call forms; and a clear error for everything that is
not one.
"""

from __future__ import annotations

import collections
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategraph as sg
from stategraph import ir
from stategraph.errors import CallError, ExportError
from stategraph.tracing import container
from stategraph.tracing.export import export, load_exported
from tests.support import ROOT, assert_same


class Pair(NamedTuple):
    a: Any
    b: Any


TABLE = jnp.arange(6.0).reshape(2, 3)


class Net(sg.nn.Module):
    """States of every kind that crosses a file: arrays, dicts, keys, bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.w = sg.ParamState({"weight": jnp.ones((3, 2)), "bias": jnp.zeros(2)})
        self.h = sg.HiddenState(jnp.zeros(2, jnp.bfloat16))
        self.key = sg.State(jax.random.key(3))
        self.keys = sg.State((jax.random.split(jax.random.key(1, impl="rbg"), 2), None, [jnp.int32(4)]))

    def update(self, x: Any, scale: Any = 1.0) -> Any:
        self.key.value, use = jax.random.split(self.key.value)
        y = x @ self.w.value["weight"] + self.w.value["bias"] + jax.random.normal(use, (2,))
        self.h.value = self.h.value + y.astype(jnp.bfloat16)
        keys, _, (count,) = self.keys.value
        self.keys.value = (
            jax.random.wrap_key_data(jax.random.key_data(keys) + 1, impl="rbg"),
            None,
            [count + 1],
        )
        return Pair(y * scale + TABLE.sum(), {"h": self.h.value, "key": use})


X = jnp.array([1.0, 2.0, 3.0])


def run_elsewhere(script: str, directory: Path) -> str:
    """Run a script in a process that has the package and nothing of these tests."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    guard = "import sys\nsys.modules['tests'] = None\n"
    found = subprocess.run(
        [sys.executable, "-c", guard + script],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_an_exported_program_is_the_compiled_one() -> None:
    net = Net()
    exported = export(net, X, scale=2.0)
    compiled = sg.trace(net, X, scale=2.0).lower().compile()
    for _ in range(3):
        expected, found = compiled(X, scale=2.0), exported(X, scale=2.0)
        assert type(found).__name__ == "Pair" and found._fields == ("a", "b")
        assert_same(jax.tree.leaves(found), jax.tree.leaves(expected), exact=False)
    for path in ("w", "h", "key", "keys"):
        assert_same(exported.states[path], getattr(net, path).value, exact=False)
    assert jax.tree.structure(exported.states["keys"]) == jax.tree.structure(net.keys.value)


@pytest.mark.for_cpus
def test_a_fresh_process_runs_it_without_the_source(tmp_path: Path) -> None:
    net = Net()
    export(net, X, scale=2.0, path=tmp_path / "net.sgx")
    out = run_elsewhere(
        """
import jax, json, numpy as np
from stategraph.tracing.export import load_exported
net = load_exported("net.sgx")
x = np.array([1, 2, 3], np.float32)
net(x, scale=2.0)
before = dict(net.states)
y, states = net.functional(before, x, scale=2.0)
same = net(x, scale=2.0)
print(json.dumps({
    "y": y.a.tolist(), "same": same.a.tolist(), "h": states["h"].astype(float).tolist(), "count":
    int(net.states["keys"][2][0]), "impl": str(jax.random.key_impl(net.states["keys"][0])), "paths":
    sorted(net.states), "dtype": str(net.states["h"].dtype),
}))
""",
        tmp_path,
    )
    found = json.loads(out)
    call = sg.trace(net, X, scale=2.0).lower().compile()
    call(X, scale=2.0)
    expected = call(X, scale=2.0)
    np.testing.assert_allclose(found["y"], expected.a, rtol=1e-5)
    assert found["y"] == found["same"] and found["count"] == 6
    assert found["h"] == np.asarray(expected.b["h"], float).tolist()
    assert (
        "rbg" in found["impl"]
        and found["paths"] == ["h", "key", "keys", "w"]
        and found["dtype"] == "bfloat16"
    )


def test_the_model_is_untouched_and_functional_touches_nothing() -> None:
    count = sg.State(0)

    def step(by: Any) -> Any:
        count.value += by
        return count.value

    exported = export(step, 1)
    assert int(exported(2)) == 2 and int(exported(2)) == 4 and int(count.value) == 0
    result, states = exported.functional({"count": 10, "other": "kept"}, 1)
    assert (int(result), int(states["count"]), states["other"], int(exported.states["count"])) == (
        11,
        11,
        "kept",
        4,
    )
    with pytest.raises(CallError, match="the mapping of States has no @count; it has nothing"):
        exported.functional({}, 1)


def test_states_are_a_mapping_that_checks_what_is_assigned() -> None:
    exported = export(Net(), X)
    assert sorted(exported.states) == ["h", "key", "keys", "w"] and len(exported.states) == 4
    exported.states["w"] = {"weight": np.zeros((3, 2), np.float32), "bias": jnp.ones(2)}
    assert_same(exported.states["@w"]["bias"], jnp.ones(2))
    exported.states["w"]["bias"] = None  # a container is handed out fresh
    assert_same(exported.states["w"]["bias"], jnp.ones(2))
    for path, value, message in [
        ("h", jnp.zeros(2), r"State @h is f32\[2\], and the exported program takes bf16\[2\]"),
        (
            "w",
            {"weight": jnp.zeros((3, 2))},
            "State @w has to be a dict with the keys bias, weight, not a dict with the keys weight",
        ),
        ("w", {"weight": jnp.zeros(3), "bias": jnp.zeros(2)}, r"State @w\['weight'\] is f32\[3\]"),
        ("w", jnp.zeros(3), "State @w has to be a dict"),
        ("key", jnp.zeros(2), r"State @key is f32\[2\], and the exported program takes key<fry>\[\]"),
        ("keys", (1, None), "State @keys has to be a tuple of 3, not a tuple of 2"),
        ("keys", (1, 2, [3]), r"State @keys\[1\] is a int, and was None"),
        ("h", "text", "State @h is a str"),
        ("hh", 0, "there is no State 'hh'"),
    ]:
        with pytest.raises(CallError, match=message):
            exported.states[path] = value
    with pytest.raises(KeyError, match="there is no State 'ww'; did you mean 'w'"):
        exported.states["ww"]
    with pytest.raises(CallError, match="cannot be removed"):
        del exported.states["w"]


def test_calls_with_other_arguments_name_argument_and_types() -> None:
    exported = export(
        lambda batch, *, mask: batch["image"].sum() * mask, {"image": jnp.zeros((2, 2))}, mask=True
    )
    assert float(exported({"image": np.ones((2, 2), np.float32)}, mask=False)) == 0.0
    for args, kwargs, message in [
        (
            ({"image": jnp.zeros(3)},),
            {"mask": True},
            r"argument \"batch\['image'\]\" is f32\[3\], and the exported program takes f32\[2,2\]",
        ),
        (({"image": jnp.zeros((2, 2), int)},), {"mask": True}, r"is i32\[2,2\]"),
        (
            ({"image": jnp.zeros((2, 2))},),
            {"mask": 1.0},
            r"argument 'mask' is f32\[\], and the exported program takes bool\[\]",
        ),
        (
            ({"img": 0},),
            {"mask": True},
            "argument 0 has to be a dict with the keys image, not a dict with the keys img",
        ),
        ((), {"mask": True}, "takes 1 arguments by position and was given 0"),
        (({"image": 0},), {}, "needs the argument 'mask'"),
        (({"image": 0},), {"mask": True, "x": 1}, "has no argument 'x' by name"),
        (({"image": object()},), {"mask": True}, "is a object"),
    ]:
        with pytest.raises(CallError, match=message):
            exported(*args, **kwargs)


def test_weakly_typed_arguments_take_python_scalars_and_arrays() -> None:
    exported = export(lambda x: x * 2, 1.5)
    assert (
        float(exported(1.0)) == float(exported(jnp.float32(1.0))) == float(exported(np.float32(1.0))) == 2.0
    )


@pytest.mark.for_cpus
def test_platforms_are_lowered_for_on_a_machine_that_has_only_a_cpu(tmp_path: Path) -> None:
    net = Net()
    exported = export(net, X, platforms=("cpu", "cuda", "tpu"), path=tmp_path / "net.sgx")
    assert load_exported(tmp_path / "net.sgx").platforms == exported.platforms == ("cpu", "cuda", "tpu")
    exported(X)
    elsewhere = export(net, X, platforms="tpu")
    with pytest.raises(CallError, match="was exported for tpu, and this process runs on cpu"):
        elsewhere(X)
    assert sg.trace(net, X).lower(platforms=["cuda"]).export().platforms == ("cuda",)
    assert export(net, X, platforms=["gpu"]).platforms == ("cuda",)
    assert export(net, X).platforms == ("cpu",)
    with pytest.raises(ExportError, match="there is no platform 'cdua'; did you mean 'cuda'"):
        export(net, X, platforms=["cdua"])


def test_host_effects_are_refused_by_name_and_line_or_stripped_and_recorded() -> None:
    def step(x: Any) -> Any:
        jax.debug.print("x = {}", x)
        return x + 1

    with pytest.raises(
        ExportError,
        match=r"(?s)host.debug_print cannot be exported.*test_export.py:\d+.*strip_host_effects=True",
    ):
        export(step, 1.0)
    lowered = sg.trace(step, 1.0).lower()
    exported = lowered.export(strip_host_effects=True)
    assert float(exported(1.0)) == 2.0
    assert (
        len(exported.stripped) == 1
        and "host.debug_print at" in exported.stripped[0]
        and "test_export.py" in exported.stripped[0]
    )
    assert "host.debug_print" in str(lowered.program) and "host." not in exported.program
    assert load_exported(exported.to_bytes()).stripped == exported.stripped

    def asks(x: Any) -> Any:
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), np.float32), x)

    with pytest.raises(ExportError, match="the program uses its result"):
        export(asks, 1.0, strip_host_effects=True)


def test_what_is_exported_may_be_any_stage() -> None:
    def f(x: Any) -> Any:
        return x + 1

    traced = sg.trace(f, 1.0)
    for model in (traced, traced.lower(), traced.lower().compile()):
        assert float(export(model)(1.0)) == 2.0
        with pytest.raises(ExportError, match="already traced at its arguments"):
            export(model, 1.0)
    assert float(export(sg.trace(f), 1.0)(1.0)) == 2.0
    assert float(export(sg.compile.jit(lambda x, n: x * n, static_argnums=1), 1.0, 3)(2.0)) == 6.0


@pytest.mark.for_cpus
def test_signature_program_and_versions_travel() -> None:
    lowered = sg.trace(Net(), X).lower()
    exported = load_exported(lowered.export().to_bytes())
    assert str(exported.signature) == str(lowered.signature)
    assert set(exported.signature.names("state in")) == {"@w", "@h", "@key", "@keys"}
    assert len(exported.signature.names("captured")) == 1
    assert ir.parse(exported.program) == ir.parse(str(lowered.program))
    assert (exported.jax_version, exported.name) == (
        jax.__version__,
        "Net",
    ) and exported.calling_convention >= 9
    assert "stablehlo" in exported.as_text("stablehlo") and exported.as_text() == exported.program
    assert repr(exported) == "<exported @Net for cpu: 1 inputs, 4 States, 3 results>"
    assert "@h : HiddenState<bf16[2]>" in repr(exported.states)


def test_the_text_leaves_out_large_captured_arrays() -> None:
    table = jnp.zeros((1024, 1024))
    exported = export(lambda x: table[x], 1)
    assert "captures" in exported.program and len(exported.program) < 10_000
    assert float(exported(1).sum()) == 0.0


def test_saving_keeps_the_states_as_they_are_now(tmp_path: Path) -> None:
    count = sg.State(0)

    def step() -> Any:
        count.value += 1
        return count.value

    exported = export(step)
    exported()
    exported.save(tmp_path / "a.sgx")
    assert int(load_exported(tmp_path / "a.sgx")()) == 2
    assert os.listdir(tmp_path) == ["a.sgx"]
    with pytest.raises(ExportError, match=r"cannot write .*no/such"):
        exported.save(tmp_path / "no" / "such")


def test_a_state_that_the_program_creates_appears_after_the_first_call() -> None:
    class Lazy(sg.nn.Module):
        def update(self, x: Any) -> Any:
            self.s = sg.State(x * 2)
            return x

    exported = export(Lazy(), 1.0)
    assert list(exported.states) == []
    with pytest.raises(KeyError, match="no value yet"):
        exported.states["s"]
    exported(3.0)
    assert float(exported.states["s"]) == 6.0
    with pytest.raises(CallError, match="is created by the program"):
        exported.states["s"] = 1.0


def test_a_state_whose_type_the_program_changes_runs_once() -> None:
    s = sg.State(jnp.zeros(2))

    def grow() -> None:
        s.value = jnp.concatenate([s.value, s.value])

    exported = export(grow)
    exported()
    assert exported.states["s"].shape == (4,)
    with pytest.raises(CallError, match=r"State @s is f32\[4\], and the exported program takes f32\[2\]"):
        exported()


def test_classes_that_cannot_be_rebuilt_are_refused_where_they_stand() -> None:
    @jax.tree_util.register_pytree_node_class
    @attrs.define
    class Mine:
        x: Any

        def tree_flatten(self) -> Any:
            return (self.x,), None

        @classmethod
        def tree_unflatten(cls, aux: Any, children: Any) -> Any:
            return cls(*children)

    state = sg.State(Mine(jnp.zeros(2)))
    with pytest.raises(ExportError, match="An argument holds a Mine"):
        export(lambda m: m.x, Mine(1.0))
    with pytest.raises(ExportError, match="The result holds a Mine"):
        export(lambda x: Mine(x), 1.0)
    with pytest.raises(ExportError, match="State @state holds a Mine"):
        export(lambda: state.value.x)
    ordered = export(lambda x: collections.OrderedDict(b=x, a=x + 1), 1.0)(1.0)
    assert type(ordered) is collections.OrderedDict and list(ordered) == ["b", "a"]


def test_a_state_that_changed_since_the_trace_is_an_error() -> None:
    s = sg.State(jnp.zeros(2))
    lowered = sg.trace(lambda: s.value).lower()
    s.value = jnp.zeros(3)
    with pytest.raises(
        ExportError, match=r"State @s was f32\[2\] when the program was traced and is f32\[3\] now"
    ):
        lowered.export()


# ------------------------------------------------------------------------------------------------ other bytes


@pytest.fixture(scope="module")
def data() -> bytes:
    return export(lambda x: x + 1, 1.0).to_bytes()


def test_bytes_that_are_no_exported_program(data: bytes, tmp_path: Path) -> None:
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    newer = data[:8] + struct.pack("<I", 99) + data[12:]
    for broken, message in [
        (b"", "it is empty"),
        (b"hello", "is no program exported by StateGraph"),
        (b"\x00" * 1000, "is no program exported by StateGraph"),
        (data[:4] + b"\n\x1a\n" + data[8:], "transfer it as binary"),
        (newer, "has version 99 of the format, and this StateGraph reads version 1"),
        (bytes(flipped), "its checksum does not fit"),
        (data + b"x", "its checksum does not fit"),
        *[(data[:n], "is cut off") for n in (9, 40, 60, len(data) // 2, len(data) - 1)],
    ]:
        with pytest.raises(ExportError, match=message):
            load_exported(broken)
    (tmp_path / "x.sgx").write_bytes(data[:50])
    with pytest.raises(ExportError, match=r"x.sgx' is cut off"):
        load_exported(tmp_path / "x.sgx")
    with pytest.raises(ExportError, match=r"cannot read .*none.sgx"):
        load_exported(tmp_path / "none.sgx")


def test_a_container_of_something_else(data: bytes) -> None:
    header, blobs = container.unpack(data, "this")
    for wrong in ({}, {**header, "states": 3}):
        with pytest.raises(ExportError, match="is no program that StateGraph"):
            load_exported(container.pack(wrong, blobs))
    with pytest.raises(ExportError, match=r"which JAX .* cannot read"):
        load_exported(container.pack(header, {**blobs, "stablehlo": b"nonsense"}))


def test_arrays_of_all_dtypes_survive() -> None:
    for name in ("float32", "bfloat16", "float8_e4m3fn", "int4", "bool", "complex64", "uint16", "float64"):
        for shape in ((), (0,), (2, 3)):
            array = np.ones(shape).astype(jnp.dtype(name))
            again = container.unpack_array(*container.pack_array(array))
            assert (again.dtype, again.shape, again.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_64_bit_programs_say_what_they_need(tmp_path: Path) -> None:
    script = """
import jax; jax.config.update("jax_enable_x64", True)
import numpy as np
from stategraph.tracing.export import export
export(lambda x: x + 1, np.float64(1), path="wide.sgx")
"""
    run_elsewhere(script, tmp_path)
    with pytest.raises(ExportError, match="JAX_ENABLE_X64"):
        load_exported(tmp_path / "wide.sgx")
