"""What the source of a native kernel may use: compiled helpers, imported by generated modules only (needs numba).

``njit`` compiles a helper function the way kernels are compiled. ``word``, ``half`` and ``buffer`` read the call frame;
``prefetch`` asks for memory that is needed soon; ``first_bit`` finds the lowest bit that is set.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

njit = functools.partial(numba.njit, error_model="numpy", fastmath=False, boundscheck=False)
"""``numba.njit`` with the options of kernels: IEEE arithmetic, no checks that stop a loop from being vectorised."""


def _pointer(builder: Any, address: Any, offset: Any, kind: Any) -> Any:
    return builder.inttoptr(builder.add(address, offset), kind.as_pointer())


@intrinsic
def word(context: Any, address: Any, offset: Any) -> Any:
    """The 64-bit number at ``address + offset``."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(builder, args[0], args[1], ir.IntType(64)))

    return types.int64(types.int64, types.int64), code


@intrinsic
def half(context: Any, address: Any, offset: Any) -> Any:
    """The 32-bit number at ``address + offset``."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(builder, args[0], args[1], ir.IntType(32)))

    return types.int32(types.int64, types.int64), code


@intrinsic
def put_half(context: Any, address: Any, offset: Any, value: Any) -> Any:
    """Store a 32-bit number at ``address + offset``."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _pointer(builder, args[0], args[1], ir.IntType(32)))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int32), code


@intrinsic
def memory(context: Any, address: Any) -> Any:
    """An untyped pointer, for ``numba.carray``."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), code


@intrinsic
def prefetch(context: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of ``array[index]``, which may lie outside."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        data = context.make_array(kind)(context, builder, args[0]).data
        byte = ir.IntType(8).as_pointer()
        place = builder.bitcast(builder.gep(data, [args[1]]), byte)
        i32 = ir.IntType(32)
        call = builder.module.declare_intrinsic(
            "llvm.prefetch", (byte,), ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        )
        builder.call(call, [place, i32(0), i32(3), i32(1)])  # for reading, keep it, data
        return context.get_dummy_value()

    return types.void(array, types.int64), code


@intrinsic
def first_bit(context: Any, value: Any) -> Any:
    """The index of the lowest bit that is set in a 64-bit number that is not 0."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.int64(types.uint64), code
