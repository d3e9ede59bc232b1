"""From a functional program to one XLA executable.

The function that JAX compiles takes State leaves and arguments as flat lists and returns the results and the
written leaves. Which leaves may be donated is decided here, from the program: a leaf that is read and
written, whose old value leaves the program on no other way, and whose new value is computed (a forwarded
input would be the very array that somebody else holds).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import jax

from stategraph import _jax
from stategraph.backends import grad as _grad
from stategraph.backends import vmap as _vmap
from stategraph.backends.checks import Checks, checks_of
from stategraph.backends.emit import HOST, emit_region
from stategraph.backends.params import treedef_of
from stategraph.backends.placement import Placement, placement_of
from stategraph.errors import LoweringError, describe
from stategraph.ir.core import Constant, Op, Program, Region, Value
from stategraph.ir.forms import STATE_OPS, entry_reads, exit_writes

Leaf = tuple[str, int]
"""A State leaf: path and position."""

_ = (_grad, _vmap)  # register how transformations are expanded


class SignatureMiss(Exception):
    """JAX met types that this executable was not built for."""


@attrs.define(eq=False)
class Executable:
    """A functional program as a function for ``jax.jit``."""

    program: Program
    body: Any
    """The whole program as a jaxpr: donated leaves, kept leaves, captured arrays, arguments."""
    donated: list[Leaf]
    kept: list[Leaf]
    written: list[Leaf]
    """Those that are donated first, in their order."""
    ownable: list[bool]
    """For each written leaf: whether nobody else can hold its array."""
    has_callbacks: bool
    """Whether it calls Python that may look at State, or raise."""
    in_tree: Any
    out_tree: Any
    input_avals: list[Any]
    """Avals of all inputs, in the order of the body."""
    checks: Checks | None = None
    """Runtime checks: where there are any, a result comes with the leaves that say which one failed."""
    placement: Placement | None = None
    """Where State leaves, arguments and results lie; None where nobody said."""
    x64: bool | None = None
    """Whether JAX's 64-bit types have to be on, or off, because they were when it was traced; None for either."""

    @property
    def jit(self) -> Any:
        """``call`` under ``jax.jit``: State leaves and given arguments are donated."""
        return self._jit(donate_argnums=0)

    @property
    def lending_jit(self) -> Any:
        """``jit`` without donation: for State that somebody else holds too."""
        return self._jit()

    def _jit(self, **options: Any) -> Any:
        if self.placement is not None:
            options |= self.placement.options(self.written, self.in_tree, self.checks is not None)
        return jax.jit(self.call, **options)

    def call(self, donated: Any, kept: Sequence[Any], /, *args: Any, **kwargs: Any) -> Any:
        """What JAX traces: check the types, then one equation that holds the whole program. The result is (new
        leaves, results): JAX hands the memory of donated inputs to outputs of their type in order of appearance, so
        each leaf gets its own.

        ``donated`` are State leaves, ``kept`` the other State leaves and the captured arrays. Arguments that
        are donated too come with the leaves: (leaves, arguments).
        """
        if type(donated) is tuple:
            donated, given = donated
            args, kwargs = merge_given(args, kwargs, given)
        leaves, tree = jax.tree.flatten((args, kwargs))
        if tree != self.in_tree or _jax.DISABLE_JIT.value or self.x64 not in (None, _jax.x64()):
            raise SignatureMiss
        inputs = [*donated, *kept, *leaves]
        if len(inputs) != len(self.input_avals):
            raise SignatureMiss
        for value, expected in zip(inputs, self.input_avals, strict=True):
            aval = _jax.typeof(value)
            if (
                aval.shape != expected.shape
                or aval.dtype != expected.dtype
                or aval.weak_type != expected.weak_type
            ):
                raise SignatureMiss
        outputs = _jax.call_program(self.body, inputs, self.program.name)
        count = len(self.program.body.yielded)
        result = jax.tree.unflatten(self.out_tree, outputs[:count])
        if self.checks is not None:
            after = count + self.checks.leaves
            return outputs[after:], (result, outputs[count:after])
        return outputs[count:], result


def merge_given(args: Any, kwargs: Any, given: Any) -> tuple[Any, Any]:
    """Put donated arguments back among the others: ``given`` is (by position, by name)."""
    positions, named = given
    merged = list(args)
    for position, value in positions.items():
        merged[position] = value
    return tuple(merged), {**kwargs, **named}


def build(
    program: Program,
    in_tree: Any = None,
    out_tree: Any = None,
    *,
    donate: bool = True,
    in_shardings: Any = None,
    out_shardings: Any = None,
    given: Sequence[int] = (),
) -> Executable:
    """Emit a functional program. Raises ``LoweringError`` naming the op when something in it cannot run."""
    check_functional(program)
    reads, writes = entry_reads(program), exit_writes(program)
    checks = checks_of(program)
    outcome: list[Value] = []
    written: list[Leaf] = []
    values: list[Value] = []
    for op in writes:
        if checks is not None and op.symbol == checks.path:
            outcome = list(op.operands)
            continue
        symbol = program.states[op.symbol]
        same_layout = symbol.final_types is None
        old = next((r.results for r in reads if r.symbol == op.symbol), None)
        for i, value in enumerate(op.operands):
            if same_layout and old is not None and value is old[i]:
                continue
            written.append((op.symbol, i))
            values.append(value)
    results = [*program.body.yielded, *outcome]
    used: list[tuple[Leaf, Value]] = []
    for op in reads:
        for i, value in enumerate(op.results):
            if value.has_uses and _really_used(value, values, results):
                used.append(((op.symbol, i), value))
    inputs = {value for _, value in used} | set(program.body.args)
    outgoing: dict[Value, int] = {}
    for value in (*values, *results):
        outgoing[value] = outgoing.get(value, 0) + 1
    calls = any(True for _ in program.walk(*HOST - {"host.debug_print"}))
    may_donate = donate and not calls
    target = dict(zip(written, values, strict=True))
    can_own = {leaf: value not in inputs and type(value) is not Constant for leaf, value in target.items()}

    def donates(leaf: Leaf, value: Value) -> bool:
        return (
            may_donate
            and can_own.get(leaf, False)
            and value not in outgoing
            and target[leaf].type == value.type
        )

    donated = [(leaf, value) for leaf, value in used if donates(leaf, value)]
    kept = [(leaf, value) for leaf, value in used if not donates(leaf, value)]
    rank = {leaf: i for i, (leaf, _) in enumerate(donated)}
    written.sort(key=lambda leaf: rank.get(leaf, len(rank)))
    values = [target[leaf] for leaf in written]
    captured = program.captured_args
    order = [*(v for _, v in donated), *(v for _, v in kept), *captured, *program.arguments]
    body = _emit(program, order, [*results, *values])
    return Executable(
        program=program,
        body=body,
        donated=[leaf for leaf, _ in donated],
        kept=[leaf for leaf, _ in kept],
        written=written,
        ownable=[can_own[leaf] and may_donate for leaf in written],
        has_callbacks=calls,
        in_tree=in_tree if in_tree is not None else treedef_of(program.argument_tree),
        out_tree=out_tree if out_tree is not None else treedef_of(program.result_tree),
        input_avals=[_jax.aval_of(value.type) for value in order],
        checks=checks,
        placement=placement_of(program, in_shardings, out_shardings, given),
    )


def _really_used(value: Value, written: Sequence[Value], results: Sequence[Value]) -> bool:
    """Whether a leaf read at entry is used by more than writing it back unchanged."""
    return any(op.name != "state.write" for op in value._users) or any(
        value is other for other in (*written, *results)
    )


def _emit(program: Program, inputs: Sequence[Value], outputs: Sequence[Value]) -> Any:
    """The program's ops without its State ops, as one body."""
    region = Region()
    region.ops = [op for op in program.body.ops[:-1] if op.name not in STATE_OPS]
    terminator = Op("flow.yield")
    terminator.operands = list(outputs)
    region.ops.append(terminator)
    body, captured = emit_region(region, inputs, final=True, name=program.name)
    if captured:
        names = ", ".join(f"%{value.name or '?'}" for value in captured)
        raise LoweringError(
            f"program @{program.name} uses values that nothing defines: {names}; verify it first"
        )
    return body


def check_functional(program: Program) -> None:
    """Raise ``LoweringError`` when State is touched anywhere but at entry and exit."""
    if program.functional:
        return
    top = {id(op) for op in (*entry_reads(program), *exit_writes(program))}
    for op in program.walk(*STATE_OPS):
        if id(op) not in top:
            raise LoweringError(
                describe(
                    f"{op.name} @{op.symbol} stands in the middle of the program.",
                    at=op.location,
                    why="only a program in functional form can be compiled (State is read at entry and written at exit)",
                    fix="run the default passes (hoist-state, forward-state, eliminate-local-state) before lowering",
                )
            )
    raise LoweringError(
        f"program @{program.name} reads or writes a State twice; run the default passes before lowering"
    )


def strip_host_effects(program: Program) -> list[Op]:
    """Remove callbacks and prints whose results nobody takes; returns what was removed."""
    from stategraph.passes.edit import REWRITER

    doomed = [op for op in program.walk(*HOST) if not any(result.has_uses for result in op.results)]
    REWRITER.erase_all(doomed)
    return doomed
