"""Functions of arrays as XLA calls: what they compute, what they share, and when there are none."""

from __future__ import annotations

import ctypes
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stategraph.backends.native import binding, frame
from stategraph.backends.native.binding import Tensor, bind

AXPY = """
def axpy(a, x, y, out):
    for i in range(out.shape[0]):
        out[i] += a[()] * x[i]
"""


def axpy(size: int | None, dtype: str = "f32") -> Any:
    vector = Tensor(dtype, (size,))
    kernel = bind(AXPY, "axpy", [Tensor(dtype, ()), vector, vector], [vector], aliases=[(2, 0)])
    assert kernel is not None
    return kernel


@pytest.fixture(scope="module", autouse=True)
def _numba() -> None:
    pytest.importorskip("numba")


@pytest.mark.core
def test_the_layout_of_a_call_frame_is_that_of_c() -> None:
    """The same structs for ``ctypes``, which lays them out as the platform's C compiler does."""
    size, pointer, number = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int64

    class List(ctypes.Structure):
        _fields_ = [("s", size), ("e", pointer), ("size", number), ("types", pointer), ("items", pointer)]

    class Call(ctypes.Structure):
        _fields_ = [
            ("s", size),
            ("extension", pointer),
            ("api", pointer),
            ("ctx", pointer),
            ("stage", ctypes.c_int),
            ("args", List),
            ("rets", List),
        ]

    class Version(ctypes.Structure):
        _fields_ = [("s", size), ("e", pointer), ("major", ctypes.c_int), ("minor", ctypes.c_int)]

    class Metadata(ctypes.Structure):
        _fields_ = [("s", size), ("version", Version), ("traits", ctypes.c_uint32)]

    class Extension(ctypes.Structure):
        _fields_ = [("s", size), ("type", ctypes.c_int), ("next", pointer), ("metadata", pointer)]

    class Buffer(ctypes.Structure):
        _fields_ = [
            ("s", size),
            ("e", pointer),
            ("dtype", ctypes.c_int),
            ("data", pointer),
            ("rank", number),
            ("dims", pointer),
        ]

    class Table(ctypes.Structure):
        names = (
            "create",
            "message",
            "destroy",
            "register",
            "stream",
            "type",
            "context",
            "set",
            "get",
            "allocate",
        )
        _fields_ = [
            ("s", size),
            ("e", pointer),
            ("version", Version),
            ("internal", pointer),
            *((name, pointer) for name in (*names, "free", "schedule", "threads")),
        ]

    def request(function: Any, *fields: str) -> frame.Request:
        class Request(ctypes.Structure):
            _fields_ = [("s", size), ("e", pointer), *((name, pointer) for name in fields)]

        offsets = tuple(getattr(Request, name).offset for name in fields)
        return frame.Request(function.offset, ctypes.sizeof(Request), offsets)

    found = frame.frame()
    assert found.version[0] == 0 and found.version[1] >= 1
    assert found == frame.Frame(
        version=found.version,
        frame_extension=Call.extension.offset,
        frame_stage=Call.stage.offset,
        frame_args=Call.args.offset + List.items.offset,
        frame_rets=Call.rets.offset + List.items.offset,
        extension_type=Extension.type.offset,
        extension_metadata=Extension.metadata.offset,
        metadata_major=Metadata.version.offset + Version.major.offset,
        metadata_minor=Metadata.version.offset + Version.minor.offset,
        metadata_traits=Metadata.traits.offset,
        buffer_data=Buffer.data.offset,
        buffer_dims=Buffer.dims.offset,
        pool=frame.Pool(
            frame_api=Call.api.offset,
            frame_context=Call.ctx.offset,
            count=request(Table.threads, "context", "number"),
            schedule=request(Table.schedule, "context", "task", "data"),
            forget=request(Table.destroy, "error"),
        ),
    )


def test_a_header_of_another_version_is_not_understood() -> None:
    with pytest.raises(frame.UnknownLayout, match=r"version 1\.0"):
        frame.layout_of("#define XLA_FFI_API_MAJOR 1\n#define XLA_FFI_API_MINOR 0\n")
    with pytest.raises(frame.UnknownLayout, match="does not define"):
        frame.layout_of("")


@pytest.mark.core
@pytest.mark.parametrize("size", [100, None], ids=["size known", "size read"])
def test_an_aliased_output_begins_as_its_input_which_stays_as_it_was(size: int | None) -> None:
    kernel = axpy(size)
    x, y = jnp.arange(100.0), jnp.ones(100)
    found = jax.jit(lambda a, x, y: kernel(a, x, y, shapes=[y.shape])[0])(2.0, x, y)
    np.testing.assert_array_equal(found, 2 * np.arange(100) + 1)
    np.testing.assert_array_equal(y, np.ones(100))


def test_kernels_run_in_compiled_loops_in_place() -> None:
    kernel = axpy(100)
    run = jax.jit(lambda a, x, y: jax.lax.fori_loop(0, 7, lambda i, y: kernel(a, x, y)[0], y))
    np.testing.assert_array_equal(run(2.0, jnp.arange(100.0), jnp.ones(100)), 14 * np.arange(100) + 1)
    text = run.lower(2.0, jnp.arange(100.0), jnp.ones(100)).compile().as_text()
    loop = text[text.index("%body") if "%body" in text else 0 :]
    assert kernel.target in loop and "output_to_operand_aliasing" in loop


def test_equal_functions_are_one_kernel_and_others_have_other_names() -> None:
    assert axpy(100) is axpy(100)
    assert axpy(100).target != axpy(None).target


@pytest.mark.parametrize("dtype", ["bool", "i32", "u8", "f64", "c64"])
def test_dtypes(dtype: str) -> None:
    source = "def same(x, out):\n    for i in range(out.size):\n        out.flat[i] = x.flat[i]\n"
    tensor = Tensor(dtype, (2, 3))
    kernel = bind(source, "same", [tensor], [tensor])
    assert kernel is not None
    with jax.enable_x64(True):
        value = np.arange(6).reshape(2, 3).astype(binding.numpy_dtype(dtype))
        np.testing.assert_array_equal(jax.jit(lambda x: kernel(x)[0])(value), value)


def test_what_numba_cannot_compile_is_no_kernel_and_is_said_once() -> None:
    source = "def wrong(x, out):\n    out[0] = x.no_such_thing\n"
    with pytest.warns(RuntimeWarning, match="kernel wrong cannot be compiled"):
        assert bind(source, "wrong", [Tensor("f32", (1,))], [Tensor("f32", (1,))]) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bind(source, "wrong", [Tensor("f32", (1,))], [Tensor("f32", (1,))]) is None
        assert bind(source, "wrong", [Tensor("bf16", (1,))], [Tensor("bf16", (1,))]) is None


def test_without_numba_one_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    binding.available.cache_clear()
    monkeypatch.setitem(sys.modules, "numba", None)
    try:
        with pytest.warns(RuntimeWarning, match=r"stategraph\[events\]"):
            assert bind(AXPY, "axpy", [], []) is None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert bind(AXPY, "axpy", [], []) is None
    finally:
        binding.available.cache_clear()
