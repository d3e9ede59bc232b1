"""Running a program's body as one kernel, for comparison with JAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

import stategraph as sg
from stategraph.backends.codegen import machine
from stategraph.backends.codegen.kernel import generate
from stategraph.backends.native.frame import frame
from stategraph.ir.core import Program
from stategraph.ir.types import numpy_dtype
from stategraph.passes import DEFAULT
from stategraph.passes.native_ops import why_not


def kernel_of(program: Program) -> Callable[..., list[Any]]:
    """The body of a program without State as a kernel, called through XLA."""
    reasons = [why_not(op) for op in program.body.ops[:-1]]
    assert not any(reasons), [reason for reason in reasons if reason]
    code = generate(program.body, layout=frame(), salt=machine.description())
    target = machine.register(code)
    results = [
        jax.ShapeDtypeStruct(value.type.shape, numpy_dtype(value.type.dtype))
        for value in program.body.yielded
    ]
    count = len(results)
    if code.scratch:
        results.append(jax.ShapeDtypeStruct((code.scratch,), np.uint8))
    return jax.jit(lambda *args: list(jax.ffi.ffi_call(target, results)(*args))[:count])


def without_kernels(function: Callable[..., Any], *args: Any) -> Program:
    """The program of a function after all other passes."""
    passes = [name for name in DEFAULT if name not in ("outline-native", "outline-recording")]
    return sg.trace(function, *args).lower(passes=",".join(passes)).program


def natively(function: Callable[..., Any], *args: Any) -> list[np.ndarray]:
    """What a function gives as one kernel."""
    program = without_kernels(function, *args)
    given = [*jax.tree.leaves(args), *program.captured.values()]
    return [np.asarray(x) for x in kernel_of(program)(*given)]


def assert_same(
    found: Sequence[np.ndarray], wanted: Sequence[Any], names: Sequence[str] | None = None, ulps: int = 4
) -> None:
    """Equal whole numbers and booleans; floats within some units in the last place, NaN and infinities in their places."""
    for number, (a, b) in enumerate(zip(found, map(np.asarray, wanted), strict=True)):
        name = names[number] if names else str(number)
        assert a.dtype == b.dtype and a.shape == b.shape, name
        if a.dtype.kind != "f":
            np.testing.assert_array_equal(a, b, err_msg=name)
            continue
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b), err_msg=name)
        with np.errstate(all="ignore"):
            difference = np.where((a == b) | np.isnan(a), 0, np.abs(a - b) / np.spacing(np.abs(b)))
        worst = int(np.argmax(difference))
        assert difference.max(initial=0) <= ulps, (name, a.flat[worst], b.flat[worst], difference.max())
