"""Spellings of the printer."""

import numpy as np
import pytest

from stategraph import ir
from stategraph.ir import Constant, Location, Op, Program, Region, TensorType, Tree, Value
from stategraph.ir.spelling import quote, unquote
from tests.ir.programs import STRINGS

F32 = TensorType("f32")


def program_of(*ops: Op, args: int = 1) -> Program:
    body = Region([F32] * args, [f"x{i}" for i in range(args)])
    for op in ops:
        body.append(op)
    body.yield_([])
    names = [f"x{i}" for i in range(args)]
    return Program("p", body, {}, names, Tree("tuple", (ir.LEAF,) * args))


def line_of(op: Op, **options: bool) -> str:
    """The printed line of ``op``; the text reads back."""
    program = program_of(op, args=0)
    assert ir.parse(str(program)) == program
    lines = ir.print_program(program, **options).split("\n")
    return lines[lines.index("program @p() -> () {") + 1].strip()


def constant(data: object, type: ir.Type | None = None) -> str:
    return line_of(Op("jax.k", (Constant(data, type),))).removeprefix("jax.k ")


CONSTANTS = [
    (np.float32(1), "1.0:f32[]"),
    (np.float32(0.1), "0.1:f32[]"),
    (np.float32(-0.0), "-0.0:f32[]"),
    (np.float32("nan"), "nan:f32[]"),
    (np.float32("-inf"), "-inf:f32[]"),
    (np.float32(1e-45), "1e-45:f32[]"),
    (np.float64(5e-324), "5e-324:f64[]"),
    (np.uint32(0x7FC00001).view(np.float32), "0x7fc00001:f32[]"),
    (np.uint32(0xFFC00000).view(np.float32), "0xffc00000:f32[]"),
    (np.array(0.1, ir.numpy_dtype("bf16")), "0.1:bf16[]"),
    (np.array(300, ir.numpy_dtype("bf16")), "300.0:bf16[]"),
    (np.array(448, ir.numpy_dtype("f8_e4m3fn")), "448.0:f8_e4m3fn[]"),
    (np.array(-8, ir.numpy_dtype("i4")), "-8:i4[]"),
    (np.complex64(complex(1, -0.0)), "complex(1.0, -0.0):c64[]"),
    (np.bool_(True), "true:bool[]"),
    (np.uint64(2**64 - 1), "18446744073709551615:u64[]"),
    (np.array([[1, 2], [3, 4]], np.int32), "[[1, 2], [3, 4]]:i32[2,2]"),
    (np.zeros((2, 0), np.float32), "[]:f32[2,0]"),
    (np.zeros(17, np.int32), "$0:i32[17]"),
]


@pytest.mark.parametrize(("data", "text"), CONSTANTS)
def test_constants(data: np.ndarray, text: str) -> None:
    assert constant(data) == text


def test_a_weak_constant() -> None:
    assert constant(np.float32(1), TensorType("f32", (), True)) == "1.0:f32[]*"


@pytest.mark.parametrize(
    "dtype", ["f16", "bf16", "f8_e4m3fn", "f8_e5m2", "f8_e4m3b11fnuz", "f8_e8m0fnu", "i4", "u4"]
)
def test_every_value_of_a_small_dtype_survives(dtype: str) -> None:
    numpy_type = ir.numpy_dtype(dtype)
    if dtype in ("i4", "u4"):
        data = np.arange(-8, 8).astype(numpy_type) if dtype == "i4" else np.arange(16).astype(numpy_type)
    elif numpy_type.itemsize == 1:
        data = np.arange(256, dtype=np.uint8).view(numpy_type)
    else:
        data = np.arange(0, 2**16, 37, dtype=np.uint16).view(numpy_type)
    ops = [
        Op("jax.k", [Constant(data[i]) for i in range(start, min(start + 64, data.size))])
        for start in range(0, data.size, 64)
    ]
    program = program_of(*ops)
    assert ir.parse(str(program)) == program


ATTRIBUTES = [
    (None, "none"),
    (True, "true"),
    (-3, "-3"),
    (1.0, "1.0"),
    (float("inf"), "inf"),
    (1e-5, "1e-05"),
    (complex(0, -1), "complex(0.0, -1.0)"),
    ('a"b\n', '"a\\"b\\n"'),
    (b"\x00\xff", 'bytes<"00ff">'),
    ((1,), "(1,)"),
    ((), "()"),
    ([1, (2, 3)], "[1, (2, 3)]"),
    ({"a": 1, 2: None}, '{"a": 1, 2: none}'),
    (ir.DType("f32"), "f32"),
    (ir.DType("true"), 'dtype<"true">'),
    (TensorType("f32", (3,)), "f32[3]"),
    (ir.OpaqueType("Ref"), 'type<opaque<"Ref">>'),
    (ir.KeyType("fry", (2,)), "key<fry>[2]"),
    (ir.Symbol("net.layers[0].W"), "@net.layers[0].W"),
    (ir.Symbol("d['k'].x"), "@d['k'].x"),
    (ir.Symbol("a b"), '@"a b"'),
    (ir.EnumValue("GatherScatterMode", "CLIP"), "GatherScatterMode.CLIP"),
    (ir.Record("Dims", (("offset", (0,)), ("a b", 1))), 'Dims(offset = (0,), "a b" = 1)'),
    (ir.RegionRef(1), "region<1>"),
    (ir.Opaque("sharding"), 'opaque<"sharding">'),
    (ir.Dense(np.array([1, 2], np.int32)), "dense<[1, 2]:i32[2]>"),
    (ir.Dense(np.zeros(99, np.int8)), "dense<$0>"),
    (Tree("dict", (ir.LEAF, ir.NONE), ("a", 1)), 'tree<{"a": *, 1: none}>'),
    (Tree("custom", (ir.LEAF,), ("x",), "P"), "tree<P(x = *)>"),
    (Tree("custom", (ir.LEAF, ir.tuple_tree(ir.LEAF)), (), "P"), "tree<P(*, (*,))>"),
    (np.float64(0.5), "0.5"),
]


@pytest.mark.parametrize(("value", "text"), ATTRIBUTES)
def test_attributes(value: object, text: str) -> None:
    assert line_of(Op("jax.k", (), (), {"a": value})) == f"jax.k {{a = {text}}}"


def test_attributes_are_sorted() -> None:
    assert line_of(Op("jax.k", (), (), {"b": 1, "a": 2})) == "jax.k {a = 2, b = 1}"


def test_something_that_is_no_attribute_prints_as_opaque_without_an_address() -> None:
    text = str(program_of(Op("jax.k", (), (), {"f": object()})))
    assert 'jax.k {f = opaque<"object">}' in text
    assert text.split("\n")[1] == (
        "// 1 parameter has no text form (object): a program read from this text cannot be lowered."
    )


def test_names_are_hints_made_unique() -> None:
    ops = [Op("jax.k", (), (F32,)) for _ in range(6)]
    for op, name in zip(ops, ["h", "h", None, "h_1", "3", "a b"], strict=True):
        op.result.name = name
    lines = str(program_of(*ops)).split("\n")[3:9]
    assert [line.split()[0] for line in lines] == ["%h", "%h_1", "%0", "%h_1_1", "%_3", "%a_b"]


@pytest.mark.parametrize("text", STRINGS)
def test_quoting_is_undone(text: str) -> None:
    assert quote(text).isprintable()
    assert unquote(quote(text)) == text


def test_locations_can_be_left_out() -> None:
    op = Op("jax.k", location=Location("m.py", 3, "f", "s"))
    assert line_of(op) == "jax.k #0"
    assert line_of(op, locations=False) == "jax.k"


def test_resources_can_be_left_out(step: Program) -> None:
    assert "{-#" not in ir.print_program(step, resources=False)


def test_an_op_that_does_not_fit_its_form_prints_generically() -> None:
    assert line_of(Op("state.read", (), (F32,), {"symbol": 3})) == '%0 = "state.read" {symbol = 3} : f32[]'
    scan = Op("flow.scan", (), (), {"length": 3}, [Region()])
    scan.regions[0].yield_([])
    assert line_of(scan) == '"flow.scan" {length = 3} region {'


def test_an_odd_op_name_is_quoted() -> None:
    assert line_of(Op("my-op")) == '"my-op"'
    assert line_of(Op("state")) == '"state"'


def test_a_value_that_is_defined_nowhere_still_prints() -> None:
    text = str(program_of(Op("jax.k", (Value(F32, name="lost"),))))
    assert "jax.k %?lost" in text


def test_long_heads_are_broken_over_lines() -> None:
    program = program_of(args=12)
    text = str(program)
    assert "program @p(\n  %x0 : f32[],\n" in text
    assert ir.parse(text) == program


def test_a_while_loop_shares_the_names_of_its_carry(step: Program) -> None:
    condition, body = next(step.walk("flow.while")).regions
    condition.args[0].name, body.args[0].name = "first", "second"
    assert "flow.while carry(%second = %e : f32[])" in str(step)
