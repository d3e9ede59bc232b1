"""Exporting: a program and its States as one artefact that runs without the model's source.

``jax.export`` serialises StableHLO; what it does not know, State, travels beside it: paths, types, structures
and values. The format is ``container``'s, the loaded object ``exported.Exported``.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.export

from stategraph import _jax
from stategraph._version import __version__
from stategraph.backends.checks import PLACE, checks_text
from stategraph.backends.emit import HOST
from stategraph.backends.xla import Executable, build, strip_host_effects
from stategraph.errors import CallError, ExportError, describe
from stategraph.ir.arrays import nbytes
from stategraph.ir.core import Program, StateSymbol
from stategraph.ir.printer import print_program
from stategraph.ir.types import Type
from stategraph.passes.registry import closest
from stategraph.state import RUNTIME_LOCK, Poisoned, State
from stategraph.tracing.compiled import Compiled
from stategraph.tracing.container import pack
from stategraph.tracing.entry import Untraced, trace
from stategraph.tracing.exported import Exported, _Arrays, load_exported
from stategraph.tracing.portable import check_portable, from_raw, raw_struct, to_raw, tree_text
from stategraph.tracing.signature import signature_table
from stategraph.tracing.stages import Lowered, Traced
from stategraph.units import DECLARED

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
LARGEST_TEXT = 1 << 20
"""Bytes of captured arrays up to which the .sg text holds them."""

__all__ = ["Exported", "export", "export_lowered", "load_exported"]


def export(
    model: Any,
    /,
    *args: Any,
    path: str | os.PathLike[str] | None = None,
    platforms: Sequence[str] | None = None,
    strip_host_effects: bool = False,
    **kwargs: Any,
) -> Exported:
    """Export a model or function: StableHLO, a State signature and the States' present values, in one artefact.

    Args:
      model: a model or function, or one of its stages (``Traced``, ``Lowered``, ``Compiled``).
      *args, **kwargs: what it is traced at: arrays or ``jax.ShapeDtypeStruct``s. Not for stages.
      path: a file to write the artefact to.
      platforms: what it is to run on: any of ``cpu``, ``cuda``, ``rocm``, ``tpu``; this machine's if not given.
      strip_host_effects: leave out debug prints and callbacks, which no artefact can hold; ``Exported.stripped`` lists them.

    Returns:
      ``Exported``: callable, with ``states``, ``functional``, ``signature``, ``program`` and ``save``.

    Raises:
      ExportError: the program calls Python (naming op and line), or takes, gives or holds objects of classes
        that could not be rebuilt.

    Example:

    >>> import stategraph as sg
    >>> from stategraph.tracing.export import export
    >>> count = sg.State(0)
    >>> def step():
    ...     count.value += 1
    ...     return count.value
    >>> exported = export(step)
    >>> exported(), exported(), exported.states["count"], count.value
    (Array(1, dtype=int32), Array(2, dtype=int32), Array(2, dtype=int32), Array(0, dtype=int32))
    """
    lowered = _lowered(model, args, kwargs)
    return export_lowered(lowered, platforms=platforms, strip_host_effects=strip_host_effects, path=path)


def _lowered(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Lowered:
    if isinstance(model, Untraced):
        return model.lower(*args, **kwargs)
    if isinstance(model, (Traced, Lowered, Compiled)):
        if args or kwargs:
            raise ExportError(
                f"a {type(model).__name__} is already traced at its arguments: write "
                f"export({type(model).__name__.lower()}) without any"
            )
        if isinstance(model, Compiled):
            return model.lowered
        return model.lower() if isinstance(model, Traced) else model
    traced = (
        model.trace(*args, **kwargs)
        if hasattr(model, "__stategraph_function__")
        else trace(model, *args, **kwargs)
    )
    return traced.lower()  # type: ignore[no-any-return]


def export_lowered(
    lowered: Lowered,
    *,
    platforms: Sequence[str] | None = None,
    strip_host_effects: bool = False,
    path: str | os.PathLike[str] | None = None,
) -> Exported:
    """The artefact of a lowered program; see ``export``."""
    chosen = _platforms(platforms, lowered)
    program, executable, stripped = _without_host_effects(lowered, strip_host_effects)
    header, blobs = _describe_program(program, executable)
    stablehlo = _stablehlo(program, executable, chosen)
    arrays = _Arrays()
    states = _states(program, lowered.traced.trace.states, arrays)
    header |= {
        "stategraph": __version__,
        "jax": jax.__version__,
        "calling_convention": stablehlo.calling_convention_version,
        "platforms": list(chosen),
        "stripped": stripped,
        "states": states,
        "captured": arrays.add_all(list(program.captured.values())),
        "arrays": arrays.dtypes,
    }
    data = pack(header, {"stablehlo": bytes(stablehlo.serialize()), **blobs, **arrays.blobs})
    exported = load_exported(data)
    if path is not None:
        exported.save(path)
    return exported


def _platforms(given: Sequence[str] | None, lowered: Lowered) -> tuple[str, ...]:
    if isinstance(given, str):
        given = (given,)
    if given is None:
        given = lowered.platforms or (_this_platform(),)
    chosen = tuple(dict.fromkeys("cuda" if name == "gpu" else name for name in given))
    for name in chosen:
        if name not in PLATFORMS:
            raise ExportError(
                f"there is no platform {name!r}{closest(name, PLATFORMS)}; platforms are "
                f"{', '.join(PLATFORMS)}"
            )
    if not chosen:
        raise ExportError("platforms is empty; leave it out for this machine's")
    return chosen


def _this_platform() -> str:
    return str(jax.export.default_export_platform())


def _without_host_effects(lowered: Lowered, strip: bool) -> tuple[Program, Executable, list[str]]:
    program, executable, stripped = lowered.program, lowered.executable, list(lowered.stripped)
    if strip and next(program.walk(*HOST), None) is not None:
        program = program.copy()
        stripped += [f"{op.name} at {op.location}" for op in strip_host_effects(program)]
        executable = build(program, executable.in_tree, executable.out_tree, donate=False)
    for op in program.walk(*HOST):
        raise ExportError(
            describe(
                f"{op.name} cannot be exported.",
                at=op.location,
                why="it calls Python of this process"
                + (", and the program uses its result" if strip else ""),
                fix="compute it without Python"
                if strip
                else "remove it, or pass strip_host_effects=True to leave out prints and callbacks "
                "whose results are not used",
            )
        )
    return program, executable, stripped


def _describe_program(program: Program, executable: Executable) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The header without what depends on the platform and on values, and the program's text."""
    complete = sum(nbytes(array) for array in program.captured.values()) <= LARGEST_TEXT
    text = print_program(program, resources=complete)
    header = {
        "name": program.name,
        "program_complete": complete,
        "signature": [[row.group, row.name, row.type, row.nbytes] for row in signature_table(program)],
        "arguments": {
            "tree": tree_text(check_portable(program.argument_tree, "An argument")),
            "names": [name for name in program.argument_names if name not in program.captured],
            "types": _texts(value.type for value in program.arguments),
        },
        "results": {
            "tree": tree_text(check_portable(program.result_tree, "The result")),
            "types": _texts(value.type for value in program.results),
        },
        "reads": [list(leaf) for leaf in (*executable.donated, *executable.kept)],
        "writes": [list(leaf) for leaf in executable.written],
        "checks": checks_text(program),
    }
    return header, {"program": zlib.compress(text.encode())}


def _texts(types: Iterable[Type]) -> list[str]:
    return [str(type) for type in types]


def _states(program: Program, live: dict[str, State[Any]], arrays: _Arrays) -> list[dict[str, Any]]:
    found = []
    for path, symbol in program.states.items():
        if PLACE in symbol.attributes:
            continue
        what = f"State @{path}"
        values = None
        if not symbol.born:
            with RUNTIME_LOCK:  # a compiled call in another thread may have taken the arrays
                values = arrays.add_all(_present(live[path], symbol))
        found.append(
            {
                "path": path,
                "kind": symbol.kind,
                "types": _texts(symbol.types),
                "tree": tree_text(check_portable(symbol.tree, what)),
                "result_types": _texts(symbol.result_types),
                "result_tree": tree_text(check_portable(symbol.result_tree, what)),
                "born": symbol.born,
                "values": values,
                **{key: item for key, item in symbol.attributes.items() if key == DECLARED},
            }
        )
    return found


def _present(state: State[Any], symbol: StateSymbol) -> list[Any]:
    """The leaves of a State as they are now."""
    leaves = state._peek()
    for leaf in leaves:
        if isinstance(leaf, Poisoned):
            raise CallError(f"State @{symbol.path} has no value to export: {leaf.message}")
    found = tuple(_jax.type_of(_jax.strong_aval(leaf)) for leaf in leaves)
    if found != symbol.types:
        shown, traced = ", ".join(_texts(found)), ", ".join(_texts(symbol.types))
        raise ExportError(
            f"State @{symbol.path} was {traced} when the program was traced and is {shown} now; trace "
            f"and lower again"
        )
    return leaves


def _stablehlo(program: Program, executable: Executable, platforms: tuple[str, ...]) -> Any:
    """The program as ``jax.export`` has it: flat raw arrays in (States, captured arrays, arguments), flat raw
    arrays out.
    """
    types = [_jax.type_of(aval) for aval in executable.input_avals]

    def flat(*raw: Any) -> list[Any]:
        inputs = [from_raw(leaf, type) for leaf, type in zip(raw, types, strict=True)]
        return [to_raw(leaf) for leaf in _jax.call_program(executable.body, inputs, program.name)]

    flat.__name__ = program.name
    try:
        return jax.export.export(jax.jit(flat), platforms=platforms)(*map(raw_struct, types))
    except Exception as error:
        raise ExportError(
            describe(
                f"JAX cannot export {program.name!r} for {', '.join(platforms)}.",
                why=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            )
        ) from error
