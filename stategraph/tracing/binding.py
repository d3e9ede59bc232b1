"""Matching a program's State symbols with live States or values, by path.

A program says ``@net.E.V`` when it was traced as a closure and ``@E.V`` when the model itself was traced;
both find the State ``E.V`` of a model when only one fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from stategraph import _jax, units
from stategraph.backends.params import state_tree_of, treedef_of
from stategraph.errors import CallError
from stategraph.graph.walk import path_text, walk
from stategraph.ir.core import Program, StateSymbol
from stategraph.state import Cell, State

COMMON: dict[str, State[Any]] = {}
"""States that belong to no model, by path, which programs find without being given them: the default random State."""


def available_states(given: Any) -> dict[str, Any]:
    """States or values by path text: from a model, or from a mapping whose keys are paths (texts or tuples)."""
    if isinstance(given, Mapping):
        return {key_text(key): value for key, value in given.items()}
    if given is None:
        return {}
    return {path_text(path): obj for path, obj in walk(given) if isinstance(obj, State)}


def key_text(key: Any) -> str:
    """The path that a mapping's key stands for."""
    return path_text(key) if isinstance(key, tuple) else str(key)


def find(path: str, available: Mapping[str, Any]) -> str | None:
    """The name under which ``path`` is available: itself, or the only name that it ends with or that ends
    with it.
    """
    if path in available:
        return path
    fits = [name for name in available if path.endswith("." + name) or name.endswith("." + path)]
    return fits[0] if len(fits) == 1 else None


def states_for(program: Program, given: Any) -> dict[str, State[Any]]:
    """A live State for every symbol; raises ``CallError`` for one that is missing or of another type."""
    available = available_states(given)
    found: dict[str, State[Any]] = {}
    for path, symbol in program.states.items():
        name = find(path, available)
        value = COMMON.get(path) if name is None else available[name]
        if value is None and symbol.initial is not None:
            value = jax.tree.unflatten(
                treedef_of(symbol.tree), [jax.numpy.asarray(leaf) for leaf in symbol.initial]
            )
        if value is None and symbol.born:
            value = State(0)
            value._cells = tuple(Cell(None) for _ in symbol.types)
            found[path] = value
            continue
        if value is None:
            raise CallError(
                f"no State @{path} was given to lower(); given: {', '.join(sorted(available)) or 'nothing'}\n"
                "  fix:   lower(program, states=model) or states={'path': value}"
            )
        state = value if isinstance(value, State) else State(value)
        if not symbol.born:
            check_type(symbol, state)
            _check_unit(symbol, state, isinstance(value, State))
        found[path] = state
    return found


def check_type(symbol: StateSymbol, state: State[Any]) -> None:
    """Raise ``CallError`` when a State is not what the program was made for."""
    types = [_jax.type_of(_jax.typeof(leaf)) if hasattr(leaf, "dtype") else None for leaf in state._peek()]
    if state_tree_of(state._tree) != symbol.tree or types != [t for t in symbol.types]:
        raise CallError(
            f"State @{symbol.path} is {state_type(types)} {state_tree_of(state._tree)}, and the program was made for "
            f"{state_type(symbol.types)} {symbol.tree}\n  fix:   give a State of that type, or trace the model again"
        )


def _check_unit(symbol: StateSymbol, state: State[Any], strict: bool) -> None:
    """Raise ``CallError`` when a State has another unit than the program was made for; plain values are taken to be in it."""
    wanted, found = symbol.attributes.get(units.DECLARED), units.attribute_of(state, state._tree)
    if wanted != found and (strict or found is not None):
        raise CallError(
            f"State @{symbol.path} is in {found or 'plain numbers'}, and the program was made for "
            f"{wanted or 'plain numbers'}\n  fix:   give a State in that unit, or trace the model again"
        )


def state_type(types: Sequence[Any]) -> str:
    return ", ".join(map(str, types))


def different(name: str, names: Sequence[str], inputs: Sequence[Any], expected: Sequence[Any]) -> CallError:
    """The error for a call whose inputs have other types than those compiled for, naming each."""
    wrong = []
    for label, value, aval in zip(names, inputs, expected, strict=True):
        try:
            kind: Any = _jax.type_of(_jax.typeof(value))
        except TypeError:
            kind = type(value).__name__
        if str(kind) != str(_jax.type_of(aval)):
            wrong.append(f"{label} is {kind} and was compiled as {_jax.type_of(aval)}")
    return CallError(
        f"{name!r} was compiled for other types: {'; '.join(wrong)}\n  fix:   compile again, or use stategraph.compile.jit"
    )
