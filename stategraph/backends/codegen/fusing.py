"""What kernels compute with fewer roundings than the ops one by one, decided from how an op is defined, and nothing else.

Processors add a product faster than they multiply and add. If LLVM chose where, a product that someone else takes too
(a monitor) would be rounded before it is added, and others not: what a step computes would depend on what is recorded,
and on what shares a loop with it. So LLVM may change nothing, and this is what an op of a region becomes, whoever else takes
its operands:

- ``a * b + c`` is one op, ``fused.add``, rounded once, unless ``c`` is made of the rounded product: ``p - p`` is 0,
  ``p - floor(p)`` and ``max(p, q) - p`` are not less;
- ``(x * c) * d`` of literals is ``x * (c * d)``, as XLA has it, and so with ``x / (1 / c)``;
- ``expm1(x) / x`` is ``fused.quotient``, near 0 a polynomial.

What they are made of has to be in the same region, where ``outline-native`` puts it (``passes.native_roundings``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from stategraph.backends.codegen.llvm import is_float
from stategraph.ir.core import Constant, Op, Value
from stategraph.ir.types import TensorType, numpy_dtype
from stategraph.passes.native_ops import RESHAPES, SUMS
from stategraph.passes.native_roundings import EXACT

FUSED, QUOTIENT = "fused.add", "fused.quotient"
"""``a * b + c``, where ``negated`` says which of ``a`` and ``c`` are negated first; ``expm1(x) / x``."""
_KEEPS = EXACT | RESHAPES | {"jax.broadcast_in_dim", "jax.convert_element_type"}
"""Ops by which a number is still known to be this one, or not less, or the next whole one."""


class Fuser:
    """Rewrites the ops of a region, in order.

    Args:
      aliases: values that are others, which grow by the results of what is rewritten.
      of: what a value is, by them.
      contract: whether a product and a sum may be rounded once.
    """

    def __init__(self, aliases: dict[Value, Value], of: Callable[[Value], Value], contract: bool) -> None:
        self.aliases, self.of, self.contract = aliases, of, contract
        self.here: set[Op] = set()

    def run(self, ops: Iterable[Op]) -> list[Op]:
        """The ops that compute the same, or fewer roundings of it."""
        found = []
        for op in ops:
            new = self.rewritten(op)
            if new is not op:
                self.aliases[op.result] = new.result
            self.here.add(new)
            found.append(new)
        return found

    def rewritten(self, op: Op) -> Op:
        if op.name not in ("jax.mul", "jax.div", *SUMS) or not is_float(_tensor(op.result).dtype):
            return op
        if op.name == "jax.div":
            return self.quotient(op) or op
        if not self.contract:
            return op
        return (self.scaled(op) if op.name == "jax.mul" else self.fused(op)) or op

    def owner(self, value: Value) -> Op | None:
        """The op of the region that computes a value."""
        owner = self.of(value).owner
        return owner if isinstance(owner, Op) and owner in self.here else None

    def fused(self, op: Op) -> Op | None:
        """A sum with a product for one of its terms."""
        for place, other in ((0, 1), (1, 0)):
            product = self.owner(op.operands[place])
            if product is None or product.name != "jax.mul":
                continue
            if _tensor(product.result).shape != _tensor(op.result).shape:
                continue
            if self.is_made_of(op.operands[other], product):
                continue
            minus = op.name == "jax.sub"
            negated = (minus and place == 1, minus and place == 0)
            operands = [*map(self.of, product.operands), self.of(op.operands[other])]
            return Op(FUSED, operands, [op.result.type], {"negated": negated}, location=op.location)
        return None

    def is_made_of(self, value: Value, product: Op) -> bool:
        """Whether a value is a rounded product, or made of it without rounding."""
        seen: set[Op] = set()
        left = [value]
        while left:
            owner = self.owner(left.pop())
            if owner is product:
                return True
            if owner is not None and owner.name in _KEEPS and owner not in seen:
                seen.add(owner)
                left += owner.operands
        return False

    def quotient(self, op: Op) -> Op | None:
        """``expm1(x) / x``."""
        above, x = self.owner(op.operands[0]), self.of(op.operands[1])
        if above is None or above.name != "jax.expm1" or self.of(above.operands[0]) is not x:
            return None
        return Op(QUOTIENT, [x], [op.result.type], location=op.location)

    def scaled(self, op: Op) -> Op | None:
        """``(x * c) * d -> x * (c * d)``, where that is a normal number."""
        outer = self.factor(op)
        inner = self.owner(outer[0]) if outer else None
        first = self.factor(inner) if inner is not None else None
        if outer is None or first is None or inner is None:
            return None
        if _tensor(inner.result).shape != _tensor(op.result).shape:
            return None
        with np.errstate(all="ignore"):
            product = first[1] * outer[1]
        if not np.finfo(product.dtype).tiny <= abs(product) < np.inf:
            return None
        literal = Constant(product, TensorType(_tensor(op.result).dtype))
        return Op("jax.mul", [first[0], literal], [op.result.type], dict(op.attributes), location=op.location)

    def factor(self, op: Op) -> tuple[Value, Any] | None:
        """(x, c) of an op that is ``c * x`` for a literal c, or ``x / (1 / c)``."""
        if op.name not in ("jax.mul", "jax.div"):
            return None
        a, b = map(self.of, op.operands)
        if op.name == "jax.mul" and type(a) is Constant:
            a, b = b, a
        if type(b) is not Constant or type(a) is Constant:
            return None
        number = np.asarray(b.data).reshape(-1)[0].astype(numpy_dtype(_tensor(op.result).dtype))
        with np.errstate(all="ignore"):
            return a, (1 / number).astype(number.dtype) if op.name == "jax.div" else number


def without_unused(
    ops: Sequence[Op], operands: Callable[[Op], Iterable[Value]], needed: Iterable[Value]
) -> list[Op]:
    """The ops without those that nobody takes any more."""
    wanted, found = set(needed), []
    for op in reversed(ops):
        if op.name in ("jax.mul", "jax.div", "jax.expm1") and op.result not in wanted:
            continue
        wanted.update(operands(op))
        found.append(op)
    return found[::-1]


def _tensor(value: Value) -> TensorType:
    if not isinstance(value.type, TensorType):
        raise TypeError(f"no kernel computes with {value.type}")
    return value.type
