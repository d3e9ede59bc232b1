"""The structure of a program as plain comparable data: what ``==`` and fingerprints look at.

Values are numbered in order of definition, so names do not count; locations, attributes and effects do.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import numpy as np

from stategraph.ir.arrays import digest
from stategraph.ir.attributes import Dense, DType, EnumValue, Opaque, Record, RegionRef, Symbol
from stategraph.ir.core import Constant, Op, Program, Region, StateSymbol, Value
from stategraph.ir.tree import Tree
from stategraph.ir.types import KeyType, OpaqueType, TensorType

_PLAIN = (str, bytes, DType, Symbol, EnumValue, RegionRef, Opaque, TensorType, KeyType, OpaqueType)


def structure(program: Program) -> tuple[Any, ...]:
    """Nested tuples that are equal exactly when two programs have the same structure."""
    numbers: dict[Value, int] = {}
    return (
        program.name,
        program.version,
        tuple(_symbol(symbol) for symbol in program.states.values()),
        tuple(program.argument_names),
        _tree(program.argument_tree),
        tuple((name, _array(array)) for name, array in program.captured.items()),
        tuple(program.result_names),
        _tree(program.result_tree),
        _attributes(program.attributes),
        program.location.fields,
        _region(program.body, numbers),
    )


def fingerprint(program: Program) -> str:
    """A short digest of the structure: equal programs have equal fingerprints."""
    return hashlib.sha256(repr(structure(program)).encode()).hexdigest()[:16]


def _symbol(symbol: StateSymbol) -> tuple[Any, ...]:
    initial = None if symbol.initial is None else tuple(_array(leaf) for leaf in symbol.initial)
    return (
        symbol.path,
        symbol.kind,
        symbol.types,
        _tree(symbol.tree),
        symbol.result_types,
        _tree(symbol.result_tree),
        symbol.born,
        initial,
        _attributes(symbol.attributes),
        symbol.location.fields,
    )


def _array(array: Any) -> tuple[Any, ...]:
    """An array as comparable data."""
    return digest(array)


def _attributes(attributes: dict[str, Any]) -> tuple[Any, ...]:
    return tuple((key, _attribute(attributes[key])) for key in sorted(attributes))


def _attribute(value: Any) -> Any:
    """An attribute as data that is equal exactly when the attribute is the same.

    Python calls 1, 1.0 and True equal, 0.0 equal to -0.0, and nan unequal to itself.
    """
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, np.generic) and not isinstance(value, np.void):
        value = value.item()
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, int):
        return ("int", int(value))
    if isinstance(value, float):
        return ("float", struct.pack("<d", value))
    if isinstance(value, complex):
        return ("complex", struct.pack("<dd", value.real, value.imag))
    if isinstance(value, tuple):
        return ("tuple", *map(_attribute, value))
    if isinstance(value, list):
        return ("list", *map(_attribute, value))
    if isinstance(value, dict):
        return ("dict", *((_attribute(k), _attribute(v)) for k, v in value.items()))
    if isinstance(value, Record):
        return ("record", value.name, *((name, _attribute(field)) for name, field in value.fields))
    if isinstance(value, Tree):
        return ("tree", _tree(value))
    if isinstance(value, (Dense, np.ndarray)):
        return ("dense", _array(value.data if isinstance(value, Dense) else value))
    return Opaque(type(value).__qualname__)


def _tree(tree: Tree) -> tuple[Any, ...]:
    return (tree.kind, tree.name, tuple(map(_attribute, tree.keys)), tuple(map(_tree, tree.children)))


def _operand(value: Value, numbers: dict[Value, int]) -> Any:
    if isinstance(value, Constant):
        return value.key()
    return numbers.get(value, -1)  # -1: not defined before, which the verifier refuses


def _refined(value: Value) -> Any:
    return value.type if value.event is None else (value.event, value.type)


def _op(op: Op, numbers: dict[Value, int]) -> tuple[Any, ...]:
    operands = tuple(_operand(value, numbers) for value in op.operands)
    regions = tuple(_region(region, numbers) for region in op.regions)
    for result in op.results:
        numbers[result] = len(numbers)
    types = tuple(map(_refined, op.results))
    return (op.name, operands, types, _attributes(op.attributes), regions, op.location.fields)


def _region(region: Region, numbers: dict[Value, int]) -> tuple[Any, ...]:
    for arg in region.args:
        numbers[arg] = len(numbers)
    return (tuple(map(_refined, region.args)), tuple(_op(op, numbers) for op in region.ops))
