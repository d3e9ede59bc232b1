"""Where values are: in a register, in memory; where results go; and what the blocks of one kernel share."""

from __future__ import annotations

import attrs

from stategraph.backends.codegen.llvm import Function
from stategraph.backends.codegen.schedule import Aliases
from stategraph.ir.core import Value


@attrs.frozen
class Scalar:
    """A uniform value in a register."""

    name: str


@attrs.frozen
class Memory:
    """An array in memory, in row-major order without gaps."""

    pointer: str
    dtype: str
    """What is stored: bool, 0 or 1, may stand for a number."""


Place = Scalar | Memory


@attrs.frozen
class Target:
    """Where a result of a region goes."""

    pointer: str
    old: Value | None = None
    """The argument of the region whose memory this is."""


@attrs.define(eq=False)
class Kernel:
    """What all blocks of one kernel share."""

    f: Function
    scratch: list[int] = attrs.Factory(list)
    """Bytes of each piece of working memory."""
    aliases: Aliases = attrs.Factory(Aliases)
    functions: list[str] = attrs.Factory(list)
    """Loops of elementwise ops, each a function of its own: so its constants need not live outside of it."""

    repeated: bool = False
    """Whether what is being written runs many times in a call."""
    shared: bool = False
    """Whether threads share some of its loops."""

    def allocate(self, nbytes: int) -> str:
        """Working memory for the whole call."""
        self.scratch.append(-(-nbytes // 64) * 64)
        return f"%scratch{len(self.scratch) - 1}"
