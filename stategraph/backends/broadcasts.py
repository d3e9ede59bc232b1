"""Numbers beside arrays, broadcast once.

JAX's elementwise operations take a number beside an array, and lowering makes a constant and a broadcast of each:
of the update of an optimizer, half of all that XLA reads, only to find that they are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stategraph import _jax
from stategraph.ir.core import Constant, Op, Value
from stategraph.ir.types import TensorType

MIXING = frozenset(
    f"jax.{name}"
    for names in (
        ("add", "add_any", "sub", "mul", "div", "rem", "max", "min", "pow", "atan2"),
        ("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor"),
    )
    for name in names
)
"""The ops whose operands may be numbers beside arrays."""


class Broadcasts:
    """What the ops of one body share."""

    def __init__(self) -> None:
        self.made: dict[tuple[Any, tuple[int, ...]], Any] = {}
        """Variables, by number and shape."""

    def operands(self, op: Op, read: Callable[[Value], Any], eqns: list[Any]) -> list[Any]:
        """The operands of one of the ``MIXING`` ops, numbers in its shape if it has one."""
        kind = op.results[0].type
        if not isinstance(kind, TensorType) or not kind.shape:
            return [read(value) for value in op.operands]
        return [
            self.broadcast(value, kind.shape, op, read, eqns) if value.type.shape == () else read(value)  # type: ignore[union-attr]
            for value in op.operands
        ]

    def broadcast(
        self, number: Value, shape: tuple[int, ...], op: Op, read: Callable[[Value], Any], eqns: list[Any]
    ) -> Any:
        """A variable for ``number`` in a shape, with its equation when ``op`` is the first that takes it."""
        key = (number.key() if type(number) is Constant else number, shape)
        made = self.made.get(key)
        if made is None:
            kind = number.type
            assert isinstance(kind, TensorType)
            made = self.made[key] = _jax.new_var(_jax.aval_of(TensorType(kind.dtype, shape, kind.weak)))
            params = {"shape": shape, "broadcast_dimensions": (), "sharding": None}
            primitive = _jax.primitive_by_name("broadcast_in_dim")
            source = _jax.source_of(op.location)
            eqns.append(_jax.new_eqn([read(number)], [made], primitive, params, None, source))
        return made
