"""The text form as a whole: whatever the printer writes, the parser reads back to the same."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stategraph import ir
from stategraph.ir import Constant, Op, Program, Region, TensorType, Tree
from tests.ir.conftest import STEP
from tests.ir.programs import random_program


def straight(count: int) -> Program:
    """``count`` additions in a row."""
    kind = TensorType("f32", (3,))
    body = Region([kind], ["x"])
    value = body.args[0]
    places = [ir.Location("m.py", line, "f") for line in range(20)]
    for i in range(count):
        operands = (value, Constant(np.float32(1)))
        value = body.append(Op("jax.add", operands, (kind,), {"axes": (0, 1)}, (), places[i % 20])).result
    body.yield_([value])
    return Program("long", body, {}, ["x"], ir.tuple_tree(ir.LEAF), {}, ["y"], ir.LEAF)


def deep(levels: int) -> Program:
    """Calls nested ``levels`` deep."""
    kind = TensorType("f32")
    region = Region([kind])
    region.yield_([region.args[0]])
    for _ in range(levels):
        outer = Region([kind])
        call = outer.append(Op("flow.call", (outer.args[0],), (kind,), {"name": "f"}, [region]))
        outer.yield_([call.result])
        region = outer
    return Program("deep", region, {}, ["x"], ir.tuple_tree(ir.LEAF), {}, ["y"], ir.LEAF)


@pytest.mark.parametrize("block", range(6))
def test_random_programs_survive_text(block: int) -> None:
    for seed in range(20 * block, 20 * block + 20):
        program = random_program(seed)
        text = str(program)
        again = ir.parse(text)
        assert again == program, seed
        assert str(again) == text, seed
        ir.verify(again)


@settings(max_examples=25)
@given(st.integers(0, 2**64), st.integers(0, 30))
def test_chosen_random_programs_survive_text(seed: int, size: int) -> None:
    program = random_program(seed, size)
    assert ir.parse(str(program)) == program


def test_the_text_of_a_program_is_as_written() -> None:
    assert str(ir.parse(STEP)) == STEP


def test_equal_programs_print_equal_text(step: Program) -> None:
    assert str(step.copy()) == str(step)


def test_a_long_straight_program_prints_and_parses() -> None:
    program = straight(20_000)
    again = ir.parse(str(program))
    assert ir.fingerprint(again) == ir.fingerprint(program)
    ir.verify(again)


def test_a_hundred_nested_regions_are_no_problem() -> None:
    program = deep(100)
    again = ir.parse(str(program))
    assert again == program == program.copy()
    ir.verify(again)
    assert ir.from_json(ir.to_json(program)) == program


def test_text_does_not_depend_on_the_process(step: Program) -> None:
    code = "from tests.ir.programs import random_program\nprint(random_program(7))"
    texts = []
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": ".", "PYTHONIOENCODING": "utf-8"}
        texts.append(
            subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=env).stdout
        )
    assert texts[0] == texts[1] != b""


def test_the_ir_imports_no_jax() -> None:
    code = f"""
import sys, types
package = sys.modules["stategraph"] = types.ModuleType("stategraph")  # the public face imports everything
package.__path__ = [{str(Path(ir.__file__).parent.parent)!r}]
import stategraph.ir
print([name for name in ("jax", "networkx", "stategraph.errors") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_a_tree_in_a_name_is_not_lost() -> None:
    program = straight(1)
    program.argument_tree = Tree("tuple", (Tree("custom", (ir.LEAF,), ("x",), "my.Args"), Tree("dict")))
    assert ir.parse(str(program)).argument_tree == program.argument_tree
