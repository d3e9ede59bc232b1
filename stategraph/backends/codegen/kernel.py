"""A whole kernel: a function of pointers, and the handler through which XLA calls it.

The handler gets XLA's call frame, whose layout ``native.frame`` reads from the installed header: at first a question for
the version of the interface it was made for, later calls with arguments and results. It takes the data pointers out of the
frame and calls the function.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import attrs

from stategraph.backends.codegen.blocks import Block
from stategraph.backends.codegen.keys import without_keys
from stategraph.backends.codegen.llvm import Function
from stategraph.backends.codegen.places import Kernel, Memory, Place, Scalar, Target
from stategraph.backends.codegen.schedule import tensor
from stategraph.backends.native import threads
from stategraph.backends.native.frame import EXECUTE, METADATA, Frame
from stategraph.ir.clone import clone_region
from stategraph.ir.core import Region, Value

THREADS = {
    "BEGIN": "ptr {}(ptr, i64)",
    "RUN": "void {}(ptr, ptr, ptr)",
    "END": "void {}(ptr)",
    "SPLIT": "i64 {}(ptr, i64, i64, i64) nounwind willreturn memory(argmem: read)",
}
"""The functions of ``native.threads``, declared."""


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
    shared: bool = False
    """Whether threads share loops of it."""


def generate(
    region: Region,
    aliases: Sequence[tuple[int, int]] = (),
    *,
    layout: Frame,
    contract: bool = True,
    partitionable: bool = True,
    salt: str = "",
) -> Code:
    """The code of a region.

    Args:
      region: its arguments are the kernel's operands, what it yields are the results.
      aliases: (operand, result) that share memory.
      layout: where the fields of a call frame are.
      contract: whether a product and a sum may be rounded once.
      partitionable: JAX's option of this name for random numbers.
      salt: what else the machine code depends on (processor, compiler).
    """
    f = Function("contract " if contract else "")
    kernel = Kernel(f)
    region = without_keys(clone_region(region, {}), partitionable)
    inputs = [f"%in{i}" for i in range(len(region.args))]
    outputs = [f"%out{i}" for i in range(len(region.yielded))]
    shared = dict(aliases)
    places: dict[Value, Place] = {}
    old: dict[int, Value] = {}
    for index, arg in enumerate(region.args):
        pointer = inputs[index]
        if index in shared:
            pointer = outputs[shared[index]]
            old[shared[index]] = arg
        type_ = tensor(arg)
        places[arg] = (
            Scalar(f.load(pointer, type_.dtype)) if type_.size == 1 else Memory(pointer, type_.dtype)
        )
    targets = [Target(pointer, old.get(i)) for i, pointer in enumerate(outputs)]
    Block(kernel, places, region, targets).write()
    f.emit("ret void")
    given = [i for i in range(len(inputs)) if i not in shared]
    scratch = [f"%scratch{i}" for i in range(len(kernel.scratch))]
    kept = "" if kernel.shared else "nocapture "
    parameters = [f"ptr noalias {kept}readonly {inputs[i]}" for i in given]
    parameters += [f"ptr noalias {kept}{name}" for name in (*outputs, *scratch)]
    if kernel.shared:
        parameters.append("ptr %team")
        for name, declared in THREADS.items():
            f.declarations[f"declare {declared.format(f'@{name}')}"] = None
    body = f.text(f"define internal void @kernel({', '.join(parameters)}) #0")
    text = "\n\n".join(
        [
            "\n".join(f.declarations),
            *kernel.functions,
            body,
            _handler(given, len(outputs), kernel, layout),
            'attributes #0 = { noinline nounwind "prefer-vector-width"="512" }',
        ]
    )
    for name, known in threads.names(layout).items():
        text = text.replace(f"@{name.upper()}(", f"@{known}(")
    name = f"stategraph_kernel_{hashlib.sha256((text + salt).encode()).hexdigest()[:24]}"
    return Code(
        text.replace("@HANDLER", f"@{name}"), name, sum(kernel.scratch), tuple(aliases), kernel.shared
    )


def _handler(given: Sequence[int], results: int, kernel: Kernel, layout: Frame) -> str:
    f = Function()

    def at(base: str, offset: int) -> str:
        return f.let(f"getelementptr i8, ptr {base}, i64 {offset}")

    def pointer(base: str, offset: int) -> str:
        return f.let(f"load ptr, ptr {at(base, offset)}, align 8")

    def is_number(base: str, offset: int, number: int) -> str:
        return f.let(f"icmp eq i32 {f.let(f'load i32, ptr {at(base, offset)}, align 4')}, {number}")

    extension = pointer("%frame", layout.frame_extension)
    extended = f.let(f"icmp ne ptr {extension}, null")
    look, answer, ready, call, done = (f.fresh(part) for part in ("look", "answer", "ready", "call", "done"))
    f.emit(f"br i1 {extended}, label {look}, label {ready}")
    f.label(look)
    f.emit(f"br i1 {is_number(extension, layout.extension_type, METADATA)}, label {answer}, label {ready}")
    f.label(answer)
    metadata = pointer(extension, layout.extension_metadata)
    major, minor = layout.version
    for offset, number in (
        (layout.metadata_major, major),
        (layout.metadata_minor, minor),
        (layout.metadata_traits, 0),
    ):
        f.emit(f"store i32 {number}, ptr {at(metadata, offset)}, align 4")
    f.jump(done)
    f.label(ready)
    f.emit(f"br i1 {is_number('%frame', layout.frame_stage, EXECUTE)}, label {call}, label {done}")
    f.label(call)
    arguments, returned = pointer("%frame", layout.frame_args), pointer("%frame", layout.frame_rets)
    taken = [pointer(pointer(arguments, 8 * i), layout.buffer_data) for i in given]
    taken += [pointer(pointer(returned, 8 * i), layout.buffer_data) for i in range(results)]
    if kernel.scratch:
        working, offset = pointer(pointer(returned, 8 * results), layout.buffer_data), 0
        for size in kernel.scratch:
            taken.append(at(working, offset))
            offset += size
    if kernel.shared:
        taken.append(f.let(f"call ptr @BEGIN(ptr %frame, i64 {threads.MOST})"))
    f.emit(f"call void @kernel({', '.join(f'ptr {name}' for name in taken)})")
    if kernel.shared:
        f.emit(f"call void @END(ptr {taken[-1]})")
    f.jump(done)
    f.label(done)
    f.emit("ret ptr null")
    return f.text("define ptr @HANDLER(ptr %frame)")
