"""Arrays in text: bits survive, equal arrays are stored once, large ones are left alone where nobody asks."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stategraph import ir
from stategraph.ir import KeyData, Program
from stategraph.ir.arrays import Resources, decode, digest, encode, from_elements, size_text


@pytest.mark.parametrize("dtype", ["f32", "bf16", "i4", "bool", "c64", "f8_e4m3fn"])
def test_base64_is_exact(dtype: str) -> None:
    bits = np.arange(12, dtype=np.uint8) % 2
    array = bits.astype(ir.numpy_dtype(dtype)).reshape(3, 4)
    again = decode(encode(array), dtype, (3, 4))
    assert again.dtype == array.dtype and again.tobytes() == array.tobytes() and not again.flags.writeable


def test_float0_has_no_bits() -> None:
    array = np.zeros((2,), jax.dtypes.float0)
    program = ir.parse("stategraph 1 program @p() -> () { flow.yield }")
    program.body.ops.insert(0, op := ir.Op("jax.k", [ir.Constant(array)]))
    op.parent = program.body
    assert op.operands[0].type == ir.TensorType("f0", (2,))
    ir.verify(program)
    assert ir.parse(str(program)) == program


def test_equal_arrays_are_stored_once() -> None:
    resources = Resources()
    a, b, c = np.zeros(3, np.float32), jnp.zeros(3), np.zeros(3, np.int32)
    assert [resources.reference(x) for x in (a, b, c, a)] == ["$0", "$0", "$1", "$0"]


def test_typed_keys_survive(step: Program) -> None:
    keys = jax.random.split(jax.random.key(7), 3)
    step.body.args[2].type = ir.KeyType("fry", (3,))
    ir.Rewriter().set_operands(next(step.walk("flow.cond")), [ir.Constant(np.bool_(True))])
    step.captured["table"] = keys
    ir.verify(step)
    again = ir.parse(str(step))
    found = again.captured["table"]
    assert isinstance(found, KeyData) and found.impl == "fry" and found.shape == (3,)
    assert np.array_equal(found.data, jax.random.key_data(keys))
    assert again == step and ir.from_json(ir.to_json(step)) == step
    assert found == KeyData("fry", np.array(found.data)) != KeyData("rbg", found.data)


class Large:
    """An array whose data must not be asked for."""

    dtype, shape, nbytes = np.dtype(np.float32), (2,), 8

    def __array__(self, *args: object, **kwargs: object) -> np.ndarray:
        raise AssertionError("the data was looked at")


def test_excerpts_drawings_and_checks_leave_large_arrays_alone(step: Program) -> None:
    step.captured["table"] = Large()
    step.states["net.h"].initial = None
    ir.verify(step)
    for show in (lambda p: p.to_text(resources=False), ir.to_svg, ir.to_dot, ir.to_networkx, ir.program_html):
        assert show(step)


def test_the_hash_of_an_immutable_array_is_remembered_as_long_as_it_lives() -> None:
    from stategraph.ir.arrays import _DIGESTS

    array = jnp.arange(5000.0)
    assert digest(array) is digest(array) and digest(array) == digest(np.arange(5000, dtype=np.float32))
    key = id(array)
    assert key in _DIGESTS
    del array
    gc.collect()
    assert key not in _DIGESTS


def test_the_hash_of_an_array_that_may_change_is_not_remembered() -> None:
    array = np.zeros(5000)
    before = digest(array)
    array[0] = 1
    assert digest(array) != before


def test_elements_have_to_fit() -> None:
    for elements, dtype in (
        ([1.5], "i32"),
        ([300], "u8"),
        ([1], "bool"),
        ([True], "f32"),
        (["0x1ffffffff"], "f32"),
    ):
        with pytest.raises((ValueError, OverflowError)):
            from_elements(elements, dtype, ())


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2_560_000, "2.56 MB"), (10**9, "1 GB")]
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text
