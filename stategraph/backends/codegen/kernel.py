"""A whole kernel: a function of pointers, and the handler through which XLA calls it.

The handler gets XLA's call frame (``xla/ffi/api/c_api.h``): at first a question for the version of the interface it was
made for, later calls with arguments and results. It takes the data pointers out of the frame and calls the function.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import attrs

from stategraph.backends.codegen.blocks import Block, Kernel, Memory, Scalar, Target
from stategraph.backends.codegen.llvm import Function
from stategraph.backends.codegen.schedule import tensor
from stategraph.ir.core import Region

EXTENSION, ARGUMENTS, RESULTS = 8, 72, 112
"""Offsets in the call frame: the extension, the list of arguments, the list of results."""
DATA = 24
"""Offset of the data in a buffer."""


@attrs.frozen
class Code:
    """A kernel as text."""

    text: str
    handler: str
    """The name of the handler: it contains a hash of all that the code depends on."""
    scratch: int
    """Bytes of working memory, the last result of the call."""
    aliases: tuple[tuple[int, int], ...]
    """(operand, result) that share memory."""


def generate(
    region: Region,
    aliases: Sequence[tuple[int, int]] = (),
    *,
    version: tuple[int, int] = (0, 1),
    contract: bool = True,
    salt: str = "",
) -> Code:
    """The code of a region.

    Args:
      region: its arguments are the kernel's operands, what it yields are the results.
      aliases: (operand, result) that share memory.
      version: of XLA's interface.
      contract: whether a product and a sum may be rounded once.
      salt: what else the machine code depends on (processor, compiler).
    """
    f = Function("contract " if contract else "")
    kernel = Kernel(f)
    inputs = [f"%in{i}" for i in range(len(region.args))]
    outputs = [f"%out{i}" for i in range(len(region.yielded))]
    shared = dict(aliases)
    places: dict[object, Memory | Scalar] = {}
    old: dict[int, object] = {}
    for index, arg in enumerate(region.args):
        pointer = inputs[index]
        if index in shared:
            pointer = outputs[shared[index]]
            old[shared[index]] = arg
        type_ = tensor(arg)
        places[arg] = (
            Scalar(f.load(pointer, type_.dtype)) if type_.size == 1 else Memory(pointer, type_.dtype)
        )
    targets = [Target(pointer, old.get(i)) for i, pointer in enumerate(outputs)]  # type: ignore[arg-type]
    Block(kernel, places, region, targets).write()  # type: ignore[arg-type]
    f.emit("ret void")
    given = [i for i in range(len(inputs)) if i not in shared]
    scratch = [f"%scratch{i}" for i in range(len(kernel.scratch))]
    parameters = [f"ptr noalias nocapture readonly {inputs[i]}" for i in given]
    parameters += [f"ptr noalias nocapture {name}" for name in (*outputs, *scratch)]
    body = f.text(f"define internal void @kernel({', '.join(parameters)}) #0")
    text = "\n\n".join(
        [
            "\n".join(f.declarations),
            *kernel.functions,
            body,
            _handler(given, len(outputs), kernel.scratch, version),
            'attributes #0 = { noinline nounwind "prefer-vector-width"="512" }',
        ]
    )
    name = f"stategraph_kernel_{hashlib.sha256((text + salt).encode()).hexdigest()[:24]}"
    return Code(text.replace("@HANDLER", f"@{name}"), name, sum(kernel.scratch), tuple(aliases))


def _handler(given: Sequence[int], results: int, scratch: Sequence[int], version: tuple[int, int]) -> str:
    f = Function()

    def pointer(base: str, offset: int) -> str:
        return f.let(f"load ptr, ptr {f.let(f'getelementptr i8, ptr {base}, i64 {offset}')}, align 8")

    extension = pointer("%frame", EXTENSION)
    asked = f.let(f"icmp ne ptr {extension}, null")
    answer, call = f.fresh("answer"), f.fresh("call")
    f.emit(f"br i1 {asked}, label {answer}, label {call}")
    f.label(answer)
    metadata = pointer(extension, 24)
    for offset, number in ((24, version[0]), (28, version[1])):
        where = f.let(f"getelementptr i8, ptr {metadata}, i64 {offset}")
        f.emit(f"store i32 {number}, ptr {where}, align 4")
    f.emit("ret ptr null")
    f.label(call)
    arguments, returned = pointer("%frame", ARGUMENTS), pointer("%frame", RESULTS)
    taken = [pointer(pointer(arguments, 8 * i), DATA) for i in given]
    taken += [pointer(pointer(returned, 8 * i), DATA) for i in range(results)]
    if scratch:
        working, offset = pointer(pointer(returned, 8 * results), DATA), 0
        for size in scratch:
            taken.append(f.let(f"getelementptr i8, ptr {working}, i64 {offset}"))
            offset += size
    f.emit(f"call void @kernel({', '.join(f'ptr {name}' for name in taken)})")
    f.emit("ret ptr null")
    return f.text("define ptr @HANDLER(ptr %frame)")
