"""Types: spelling, sizes, and dtypes without JAX."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from stategraph.ir import KeyType, OpaqueType, TensorType, numpy_dtype, short_dtype

NAMES = {
    "float32": "f32",
    "bfloat16": "bf16",
    "int4": "i4",
    "uint8": "u8",
    "bool": "bool",
    "complex64": "c64",
    "float8_e4m3fn": "f8_e4m3fn",
    "float8_e4m3b11fnuz": "f8_e4m3b11fnuz",
    "float4_e2m1fn": "f4_e2m1fn",
}


@pytest.mark.parametrize("name", NAMES)
def test_short_names_go_both_ways(name: str) -> None:
    assert short_dtype(name) == NAMES[name]
    assert numpy_dtype(NAMES[name]) == np.dtype(getattr(ml_dtypes, name, name))


def test_an_unknown_dtype_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        numpy_dtype("f33")


@pytest.mark.parametrize("name", ["float32", "bfloat16", "int8", "bool", "float16"])
def test_sizes_are_those_of_jax(name: str) -> None:
    array = jnp.zeros((3, 5), name)
    type = TensorType(short_dtype(name), (3, 5))
    assert (type.size, type.nbytes) == (array.size, array.nbytes)


def test_four_bits_take_half_a_byte() -> None:
    assert TensorType("i4", (3,)).nbytes == 2


def test_spelling() -> None:
    assert str(TensorType("f32", (2, 3))) == "f32[2,3]"
    assert str(TensorType("f32", (), True)) == "f32[]*"
    assert str(KeyType("fry", (2,))) == "key<fry>[2]"
    assert str(KeyType("a b")) == 'key<"a b">[]'
    assert str(OpaqueType('Ref"')) == 'opaque<"Ref\\"">'


def test_strong_drops_the_weak_flag_only() -> None:
    assert TensorType("f32", (2,), True).strong() == TensorType("f32", (2,)) != TensorType("f32", (2,), True)
