"""A program as a pure function that JAX can differentiate.

State leaves in, State leaves out, functions keep their derivative rules. For eager ``vjp``, whose pullback
lives outside of any program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from stategraph import _jax
from stategraph.backends import grad as _grad
from stategraph.backends.emit import emit_region
from stategraph.backends.pin import pin_host_effects
from stategraph.backends.xla import Leaf, check_functional
from stategraph.ir.core import Op, Program, Region
from stategraph.ir.forms import STATE_OPS, entry_reads, exit_writes
from stategraph.passes.manager import PassManager

_ = _grad  # registers how derivatives are expanded

PASSES = (
    "inline-calls,hoist-state,forward-state,eliminate-local-state,"
    "expand-transforms{differentiable=true},inline-calls,dce"
)
"""To functional form, without passes that assume that nobody differentiates the result."""


@attrs.frozen(eq=False)
class PureFunction:
    """``run(*State leaves read, *captured arrays, *arguments)`` gives results, then the State leaves
    written.
    """

    program: Program
    run: Callable[..., list[Any]]
    read: list[Leaf]
    written: list[Leaf]


def pure_function(program: Program) -> PureFunction:
    """Hoist State out of ``program`` (which changes) and emit it. Raises ``LoweringError`` naming the op that
    cannot run.
    """
    program = PassManager(PASSES).run(program, copy=False).program
    check_functional(program)
    reads, writes = entry_reads(program), exit_writes(program)
    region = Region()
    region.ops = [op for op in program.body.ops[:-1] if op.name not in STATE_OPS]
    terminator = Op("flow.yield")
    terminator.operands = [*program.body.yielded, *(value for op in writes for value in op.operands)]
    region.ops.append(terminator)
    pin_host_effects(region)
    inputs = [*(value for op in reads for value in op.results), *program.captured_args, *program.arguments]
    body, _ = emit_region(region, inputs, differentiable=True, name=program.name)
    return PureFunction(
        program=program,
        run=_jax.body_as_function(body),
        read=[(op.symbol, i) for op in reads for i in range(len(op.results))],
        written=[(op.symbol, i) for op in writes for i in range(len(op.operands))],
    )
