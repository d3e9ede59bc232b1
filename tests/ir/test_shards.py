"""What specs mean for types, and what the verifier says of an ``xform.shard_map`` that breaks its rules."""

from __future__ import annotations

import pytest

from stategraph import ir
from stategraph.ir.attributes import Record
from stategraph.ir.shards import global_type, local_type, sharding_text
from stategraph.ir.types import KeyType, TensorType
from tests.support import program

SIZES = {"i": 4, "j": 2}
GOOD = """
program @p(%x : f32[8,3]) -> (out : f32[8,3]) {
  state @h : State<f32[4]>
  %y = xform.shard_map [axes = ("i", "j"), in_specs = (("i",),), mesh = mesh(axes = (("i", 4), ("j", 2)),
      devices = (0, 1, 2, 3, 4, 5, 6, 7)), out_specs = (("i",),), states = ((@h, (("i",),), (("i",),)),)]
      (%s = %x : f32[2,3]) : f32[8,3] {
    %old = state.read @h : f32[1]
    state.write @h, %old
    flow.yield %s
  }
  flow.yield %y
}
""".replace("\n      ", " ")


@pytest.mark.parametrize(
    "type", [TensorType("f32", (8, 6)), KeyType("fry", (8, 2)), TensorType("i32", (8, 4), True)]
)
@pytest.mark.parametrize("spec", [(), ("i",), (None, "j"), (("i", "j"),), ("i", "j")])
def test_shards_put_together_are_the_whole(type: ir.TensorType, spec: tuple[object, ...]) -> None:
    shard = local_type(type, spec, SIZES)  # type: ignore[arg-type]
    assert global_type(shard, spec, SIZES) == type  # type: ignore[arg-type]
    assert bool(spec) == (shard != type)


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be cut into 4"):
        local_type(TensorType("f32", (6,)), ("i",), SIZES)
    with pytest.raises(ValueError, match="more entries"):
        local_type(TensorType("f32", ()), ("i",), SIZES)


def test_shardings_in_words() -> None:
    spec = lambda *entries: Record("sharding", (("spec", Record("spec", (("partitions", entries),))),))
    assert sharding_text(None) == "" and sharding_text(spec()) == "replicated"
    assert sharding_text(spec(None, "i", ("i", "j"))) == "sharded (-, i, i+j)"


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("%s = %x : f32[2,3]", "%s = %x : f32[8,3]", "a shard of the operands"),
        ('in_specs = (("i",),)', 'in_specs = (("k",),)', "not a tuple of specs"),
        ('in_specs = (("i",),)', "in_specs = ()", "in_specs are 0, for 1 values"),
        ('in_specs = (("i",),)', 'in_specs = ((none, "j"),)', "cannot be cut into 2"),
        ('axes = ("i", "j"),', 'axes = ("k",),', "not a tuple of axes of the mesh"),
        ("mesh = mesh(", "mesh = grid(", "no mesh"),
        (
            "state.read @h : f32[1]",
            "state.read @h : f32[4]",
            "this reads State @h as f32[4], and here it is f32[1]",
        ),
        ('(@h, (("i",),), (("i",),))', '(@h, (("i",),), ((),))', "State @h ends as f32[1]"),
        ('(@h, (("i",),), (("i",),))', '(@h, (("i",),))', "specs at entry, specs at exit"),
        ('(@h, (("i",),), (("i",),))', '(@g, (("i",),), (("i",),))', "there is no State @g here"),
    ],
)
def test_a_defect_is_named(old: str, new: str, message: str) -> None:
    assert old in GOOD
    program(GOOD)
    with pytest.raises(ir.VerifyError) as error:
        program(GOOD.replace(old, new, 1))
    assert message in str(error.value)
