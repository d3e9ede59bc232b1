"""Exact arithmetic on constants agrees with JAX, bit for bit, on random operands."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stategraph import _jax
from stategraph.ir import Constant, Op
from stategraph.ir.types import TensorType
from stategraph.passes.arithmetic import evaluate_exactly

BINARY = ("add", "sub", "mul", "div", "max", "min", "and", "or", "xor", "lt", "le", "gt", "ge", "eq", "ne")
SPECIAL = {
    np.float32: [0.0, -0.0, 1.0, -1.5, 3e38, 1e-38, 1e-45, np.inf, -np.inf, np.nan],
    np.int32: [0, 1, -1, 7, 2**31 - 1, -(2**31)],
    np.bool_: [False, True],
}


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("dtype", list(SPECIAL))
def test_what_is_evaluated_has_the_bits_that_jax_computes(name: str, dtype: type) -> None:
    if name == "div" and jax.default_backend() == "gpu":
        pytest.skip("GPUs divide with an error of a bit")
    primitive = _jax.primitive_by_name(name)
    for x in SPECIAL[dtype]:
        for y in SPECIAL[dtype]:
            a, b = np.asarray(x, dtype), np.asarray(y, dtype)
            kind = "bool" if name in ("lt", "le", "gt", "ge", "eq", "ne") else str(Constant(a).type.dtype)
            op = Op(f"jax.{name}", [Constant(a), Constant(b)], [TensorType(kind)])
            found = evaluate_exactly(op)
            if found is None:
                continue
            params = {"out_dtype": None} if name == "mul" else {}
            expected = np.asarray(primitive.bind(jnp.asarray(a), jnp.asarray(b), **params))
            assert found[0].dtype == expected.dtype
            assert found[0].tobytes() == expected.tobytes(), (name, x, y, found[0], expected)


def test_nothing_subnormal_infinite_or_transcendental_is_evaluated() -> None:
    tiny, one = np.float32(1e-45), np.float32(1)
    assert evaluate_exactly(Op("jax.add", [Constant(tiny), Constant(one)], [TensorType("f32")])) is None
    assert (
        evaluate_exactly(Op("jax.div", [Constant(one), Constant(np.float32(0))], [TensorType("f32")])) is None
    )
    assert evaluate_exactly(Op("jax.exp", [Constant(one)], [TensorType("f32")])) is None


def test_conversions_that_lose_nothing_are_evaluated() -> None:
    kind = TensorType("f32")
    assert evaluate_exactly(Op("jax.convert_element_type", [Constant(np.int32(7))], [kind])) == [
        np.float32(7)
    ]
    assert evaluate_exactly(Op("jax.convert_element_type", [Constant(np.int32(2**24 + 1))], [kind])) is None


def test_select_takes_the_chosen_constant() -> None:
    operands = [Constant(np.bool_(True)), Constant(np.int32(3)), Constant(np.int32(5))]
    assert evaluate_exactly(Op("jax.select_n", operands, [TensorType("i32")])) == [np.int32(5)]
    assert jax.lax.select_n(True, 3, 5) == 5
