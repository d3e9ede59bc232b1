"""``native.kernel`` for JAX: a primitive whose meaning is its body, and on the CPU one call of machine code.

The body is what is lowered for every other platform, for export (machine code belongs to one process), and where no kernel
can be made: then one message says why.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import attrs
import numpy as np

from stategraph import _jax
from stategraph.backends.codegen.kernel import Code, generate
from stategraph.backends.native.binding import available
from stategraph.backends.native.frame import UnknownLayout, frame
from stategraph.ir.core import Region


@attrs.frozen(eq=False)
class Source:
    """What a kernel is made of, compared by identity."""

    region: Region
    aliases: tuple[tuple[int, int], ...]

    made: dict[bool, Code] = attrs.field(factory=dict, init=False)
    """The code, by how random numbers are counted."""

    def code(self) -> Code:
        """The text of the kernel; raises ``ImportError`` without llvmlite, ``UnknownLayout``."""
        from stategraph.backends.codegen import machine

        partitionable = _jax.threefry_partitionable()
        if partitionable not in self.made:
            self.made[partitionable] = generate(
                self.region,
                self.aliases,
                layout=frame(),
                contract=machine.contracts(),
                partitionable=partitionable,
                salt=machine.description(),
            )
        return self.made[partitionable]

    def __repr__(self) -> str:
        return "<kernel>"


def registered(source: Source) -> Code | None:
    """The code, compiled and registered; None where that fails."""
    from stategraph.backends.codegen import machine

    try:
        code = source.code()
        machine.register(code)
    except (ImportError, UnknownLayout) as error:
        if available():  # else that has said why, once for all kernels
            _say(f"a kernel could not be made ({error})", "pip install 'stategraph[events]'")
        return None
    except Exception as error:  # whatever goes wrong, the generic path gives the same values
        _say(f"a kernel could not be made: {type(error).__name__}: {error}", "please report it")
        return None
    return code


@functools.cache
def _say(what: str, fix: str) -> None:
    warnings.warn(f"{what}; XLA runs the program instead, slower\n  fix: {fix}", RuntimeWarning, stacklevel=2)


def _lower(context: Any, operands: Any, *, body: Any, source: Source) -> list[Any] | None:
    """The call of a kernel in a lowering rule; None to lower the body."""
    code = registered(source)
    if code is None:
        return None
    more = [_jax.array_aval((code.scratch,), np.uint8)] if code.scratch else []
    results = _jax.lower_foreign(context, code.handler, operands, dict(code.aliases), more)
    return results[: len(results) - len(more)]


kernel_p = _jax.new_outlined("native_kernel", _lower)
