"""Greedy rewriting with patterns: small rules, applied until none applies.

Three ways to write a rule:

1. a line of algebra, ``rule("jax.neg(jax.neg(x)) -> x")``. Names stand for values (the same name, the same
   value), ``x:int`` limits the dtype to a kind, a number matches a constant of exactly that value in every
   element (``~0`` is all bits set);
2. a table of such lines, ``rules("exact", '''…''')``;
3. a subclass of ``Pattern``, for what depends on attributes.

A rewrite never changes a type: a line that would is not applied. Every pattern declares its exactness.
Anything that makes ``Pattern`` objects can feed the driver, so further notations need no change here.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import numpy as np

from stategraph.ir.core import Constant, Op, Program, Region, Value
from stategraph.ir.rewriter import Rewriter
from stategraph.ir.types import TensorType, numpy_dtype
from stategraph.passes.base import PassError, check_exactness
from stategraph.passes.context import Context
from stategraph.passes.edit import REWRITER, same_value


class Pattern:
    """One rewrite. ``ops`` are the names of the ops at which it is tried."""

    name: str = ""
    ops: tuple[str, ...] = ()
    exactness: str = "exact"

    def rewrite(self, op: Op, rewriter: PatternRewriter) -> bool:
        """Rewrite ``op`` through ``rewriter`` and return True, or change nothing and return False."""
        raise NotImplementedError


class PatternRewriter(Rewriter):
    """A rewriter that remembers what should be looked at again. Ops are erased when all patterns are done."""

    def __init__(self) -> None:
        self.again: list[Op] = []
        self.doomed: dict[Op, None] = {}

    def replace(self, op: Op, values: Sequence[Value]) -> None:
        for result, value in zip(op.results, values, strict=True):
            self.again += result.users
            self.replace_uses(result, value)
        self.doomed[op] = None

    def erase(self, op: Op) -> None:
        self.doomed[op] = None

    def _adopt(self, region: Region, ops: Sequence[Op], anchor: Op | None) -> None:
        super()._adopt(region, ops, anchor)
        self.again += ops


def apply_patterns(
    program: Program, patterns: Iterable[Pattern], context: Context, *, max_rewrites: int | None = None
) -> Counter[str]:
    """Apply patterns, those of the chosen exactness, until none applies; returns how often each did.

    After ``max_rewrites`` (four for each op that could match, and 64) the driver stops with a warning that
    names the patterns which were still at it: they undo each other. The program is correct all the same.
    """
    table: dict[str, list[Pattern]] = {}
    for pattern in patterns:
        if context.allows(pattern.exactness):
            for name in pattern.ops:
                table.setdefault(name, []).append(pattern)
    pending = deque(op for op in program.walk() if op.name in table)
    limit = 4 * len(pending) + 64 if max_rewrites is None else max_rewrites
    applied: list[str] = []
    rewriter = PatternRewriter()
    while pending and len(applied) < limit:
        op = pending.popleft()
        for pattern in table.get(op.name, ()):
            if op not in rewriter.doomed and pattern.rewrite(op, rewriter):
                applied.append(pattern.name)
                pending += rewriter.again
                if op not in rewriter.doomed:
                    pending.append(op)
                rewriter.again = []
                break
    REWRITER.erase_all(list(rewriter.doomed))
    if pending and len(applied) >= limit:
        _complain(program, applied, context)
    return Counter(applied)


def _complain(program: Program, applied: list[str], context: Context) -> None:
    culprits = " and ".join(map(repr, sorted(set(applied[-16:]))))
    message = f"stopped after {len(applied)} rewrites: patterns undo each other or never end: {culprits}"
    context.report(program.name, message, rewrites=len(applied))
    warnings.warn(f"program @{program.name}: {message}", stacklevel=3)


# -------------------------------------------------------------------------------------------------------
# lines of algebra

KINDS = {"int": ("i", "u"), "float": ("f", "bf"), "complex": ("c",), "bool": ("bool",)}
"""The kinds of dtypes, and how the short names of their dtypes begin."""
COMMUTATIVE = frozenset(
    f"jax.{name}" for name in ("add", "mul", "and", "or", "xor", "max", "min", "eq", "ne")
)
_TOKEN = re.compile(r"\s*(->|[(),]|~0|-?\d+(?:\.\d+)?|[a-z_]+\.\w+|[a-z]\w*(?::[a-z|]+)?)")


@attrs.frozen
class _Name:
    name: str
    kinds: tuple[str, ...]


@attrs.frozen
class _Number:
    text: str

    def fill(self, type_: TensorType) -> np.ndarray | None:
        """An array of this number without dimensions, None where the dtype cannot hold it."""
        dtype = numpy_dtype(type_.dtype)
        if self.text == "~0":
            return np.invert(np.zeros((), dtype)) if dtype.kind in "biu" else None
        number = float(self.text)
        if (dtype.kind == "u" and number < 0) or dtype.names:
            return None
        filling = np.asarray(number).astype(dtype)
        return filling if filling == number else None


@attrs.frozen
class _Apply:
    op: str
    operands: tuple[Any, ...]


_Term = _Name | _Number | _Apply
_Bindings = dict[str, Value]


def rule(text: str, exactness: str = "exact") -> Pattern:
    """A pattern from one line: ``rule("jax.sub(0, x:int) -> jax.neg(x)")``. New ops have the type and
    attributes of the op replaced.

    Raises ``PassError`` when the line cannot be read.
    """
    tokens, position = [], 0
    text = text.strip()
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise PassError(f"rule {text!r}: cannot read {text[position:].strip()!r}")
        tokens.append(found.group(1))
        position = found.end()
    left, rest = _term(tokens, text)
    if not isinstance(left, _Apply) or rest[:1] != ["->"]:
        raise PassError(f"rule {text!r} is not of the form op(...) -> term")
    right, rest = _term(rest[1:], text)
    unbound = _names(right) - _names(left)
    if rest or unbound:
        raise PassError(
            f"rule {text!r}: "
            + (f"{', '.join(sorted(unbound))} is not bound" if unbound else f"{rest} is left over")
        )
    return _Rule(text, left, right, check_exactness(exactness))


def rules(exactness: str, table: str) -> list[Pattern]:
    """Patterns from a table, one line each; ``#`` begins a comment."""
    lines = (line.partition("#")[0].strip() for line in table.splitlines())
    return [rule(" ".join(line.split()), exactness) for line in lines if line]


class _Rule(Pattern):
    def __init__(self, text: str, left: _Apply, right: _Term, exactness: str) -> None:
        self.name = text
        self.ops = (left.op,)
        self.exactness = exactness
        self._left = left
        self._right = right
        parts = left.operands
        self._needs_kinds = next((part.kinds for part in parts if isinstance(part, _Name) and part.kinds), ())
        self._needs_number = any(isinstance(part, _Number) for part in parts)
        self._needs_twins = len(parts) == 2 and _names(parts[0]) == _names(parts[1]) != set()
        self._needs_inner = isinstance(parts[0], _Apply) and len(parts) == 1 and parts[0].op

    def _is_hopeless(self, op: Op) -> bool:
        """A quick look at what most ops fail on."""
        operands = op.operands
        if self._needs_kinds and not any(_is_kind(v, self._needs_kinds) for v in operands):
            return True
        if self._needs_number:
            return not any(type(v) is Constant or _makes(v, "jax.broadcast_in_dim") for v in operands)
        if self._needs_twins:
            return operands[0] is not operands[-1] and type(operands[0]) is not Constant
        return bool(self._needs_inner) and not _makes(operands[0], self._needs_inner)

    def rewrite(self, op: Op, rewriter: PatternRewriter) -> bool:
        if self._is_hopeless(op) or len(op.results) != 1 or op.regions:
            return False
        bound: _Bindings = {}
        if not _matches_op(self._left, op, bound):
            return False
        new: list[Op] = []
        value = _build(self._right, bound, op, new)
        if value is None or value.type != op.result.type:
            return False
        rewriter.insert_before(op, *new)
        rewriter.replace(op, [value])
        return True


def _makes(value: Value, op_name: str | bool) -> bool:
    owner = value.owner
    return type(owner) is Op and owner.name == op_name


def _term(tokens: list[str], text: str) -> tuple[_Term, list[str]]:
    if not tokens:
        raise PassError(f"rule {text!r} ends too early")
    head, rest = tokens[0], tokens[1:]
    if head == "~0" or head.lstrip("-")[:1].isdigit():
        return _Number(head), rest
    if "." not in head:
        name, _, kinds = head.partition(":")
        found = tuple(filter(None, kinds.split("|")))
        if not name.isidentifier() or any(kind not in KINDS for kind in found):
            raise PassError(f"rule {text!r}: cannot read {head!r}; kinds are {', '.join(KINDS)}")
        return _Name(name, found), rest
    operands: list[_Term] = []
    if rest[:1] != ["("]:
        raise PassError(f"rule {text!r}: expected '(' after {head}")
    while rest[:1] in (["("], [","]):
        operand, rest = _term(rest[1:], text)
        operands.append(operand)
    if rest[:1] != [")"]:
        raise PassError(f"rule {text!r}: expected ')' after the operands of {head}")
    return _Apply(head, tuple(operands)), rest[1:]


def _names(term: _Term) -> set[str]:
    if isinstance(term, _Apply):
        return {name for operand in term.operands for name in _names(operand)}
    return {term.name} if isinstance(term, _Name) else set()


def _matches_op(term: _Apply, op: Op, bound: _Bindings) -> bool:
    if op.name != term.op or len(op.operands) != len(term.operands):
        return False
    orders = (
        [op.operands, op.operands[::-1]]
        if op.name in COMMUTATIVE and len(op.operands) == 2
        else [op.operands]
    )
    for operands in orders:
        trial = dict(bound)
        if all(_matches(part, value, trial) for part, value in zip(term.operands, operands, strict=True)):
            bound.update(trial)
            return True
    return False


def _matches(term: _Term, value: Value, bound: _Bindings) -> bool:
    if isinstance(term, _Number):
        return is_filled_with(value, term)
    if isinstance(term, _Name):
        if term.kinds and not _is_kind(value, term.kinds):
            return False
        return same_value(bound.setdefault(term.name, value), value)
    made_by = value.defining_op
    return made_by is not None and len(made_by.results) == 1 and _matches_op(term, made_by, bound)


def _is_kind(value: Value, kinds: tuple[str, ...]) -> bool:
    return isinstance(value.type, TensorType) and kind_of(value.type.dtype) in kinds


@functools.cache
def kind_of(dtype: str) -> str:
    """One of ``KINDS`` for a short dtype name."""
    return (
        "bool"
        if dtype == "bool"
        else next(kind for kind, letters in KINDS.items() if dtype.startswith(letters))
    )


def is_filled_with(value: Value, number: _Number) -> bool:
    """Whether all elements are this number, bit by bit: a constant, or the broadcast of one."""
    made_by = value.defining_op
    if made_by is not None and made_by.name == "jax.broadcast_in_dim":
        value = made_by.operands[0]
    if not isinstance(value, Constant) or not isinstance(value.type, TensorType):
        return False
    wanted = number.fill(value.type)
    return wanted is not None and value.data.tobytes() == np.broadcast_to(wanted, value.data.shape).tobytes()


def _build(term: _Term, bound: _Bindings, root: Op, new: list[Op]) -> Value | None:
    """The value that the right-hand side stands for; ops that have to be made are added to ``new``."""
    if isinstance(term, _Name):
        return bound[term.name]
    type_ = root.result.type
    if isinstance(term, _Number):
        filling = term.fill(type_) if isinstance(type_, TensorType) else None
        if filling is None or not isinstance(type_, TensorType):
            return None
        scalar = Constant(filling, TensorType(type_.dtype, (), type_.weak))
        if not type_.shape:
            return scalar
        attributes = {"shape": type_.shape, "broadcast_dimensions": (), "sharding": None}
        new.append(Op("jax.broadcast_in_dim", [scalar], [type_], attributes))
        return new[-1].result
    operands = [_build(operand, bound, root, new) for operand in term.operands]
    if any(operand is None for operand in operands):
        return None
    kept = dict(root.attributes) if term.op == root.name else {}
    new.append(Op(term.op, [operand for operand in operands if operand is not None], [type_], kept))
    return new[-1].result
