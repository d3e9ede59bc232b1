"""The two forms of a program.

*Stateful*, as traced: State ops stand anywhere. *Functional*, after hoisting: every ``state.read`` stands
before, and every ``state.write`` after, all other ops of the program's body, one each per State; no region
contains a State op.
"""

from __future__ import annotations

from stategraph.ir.core import Op, Program

STATE_OPS = ("state.read", "state.write", "state.alloc")


def entry_reads(program: Program) -> list[Op]:
    """The ``state.read`` ops at the top of a functional program."""
    reads = []
    for op in program.body.ops:
        if op.name != "state.read":
            break
        reads.append(op)
    return reads


def exit_writes(program: Program) -> list[Op]:
    """The ``state.write`` ops at the end of a functional program."""
    writes: list[Op] = []
    for op in reversed(program.body.ops[:-1]):
        if op.name != "state.write":
            break
        writes.append(op)
    return writes[::-1]


def is_functional(program: Program) -> bool:
    """Whether the program is in functional form."""
    reads, writes = entry_reads(program), exit_writes(program)
    accesses = sum(1 for _ in program.walk(*STATE_OPS))
    once = len({op.symbol for op in reads}) == len(reads) and len({op.symbol for op in writes}) == len(writes)
    return accesses == len(reads) + len(writes) and once
