"""The errors of this project.

Every message answers, in this order: what happened, to which State (path and where it was created), at which
line of yours, why, and what to write instead. ``describe`` lays these parts out.
"""

from __future__ import annotations

import linecache
import pickle
import sys
from collections.abc import Mapping

from stategraph.ir.errors import StateGraphError as StateGraphError
from stategraph.ir.location import Location


class TraceError(StateGraphError):
    """Something in a traced function that cannot become part of a program."""


class StateTypeError(StateGraphError, TypeError):
    """A State was given a value of another type where that is not possible, or was used like an array itself."""


class UnitError(StateGraphError, TypeError):
    """A quantity in a unit of another dimension than is needed, or a plain number where a quantity is needed."""


class StateAccessError(StateGraphError):
    """A State was read or written where its value cannot be known or kept."""


class BatchAxisError(StateAccessError):
    """Lanes of a ``vmap`` leave different values in a State that is said to have one for all of them."""


class ConcretizationError(TraceError, TypeError):
    """Python asked for the concrete value of something that is only known when the program runs."""


class LoweringError(StateGraphError):
    """A program that cannot be turned into an executable, with the op and the reason."""


class CallError(StateGraphError):
    """A compiled program was called with something that it was not compiled for, or its last call failed."""


class CheckError(StateGraphError, RuntimeError):
    """A runtime check of a program failed; see ``stategraph.compile.jit_error_if``."""


class NanError(StateGraphError, FloatingPointError):
    """A program gave NaN or infinity; says which op made it, on which line, and which State it reached first."""


class ExportError(StateGraphError):
    """A program that cannot be exported, or a file that is not an exported program."""


class PickleError(StateGraphError, pickle.PicklingError):
    """Something that exists only in this process is pickled or copied."""


class NIRError(StateGraphError, ValueError):
    """A NIR graph that cannot become a module as it is, or a module that has no counterpart in NIR."""


class CheckpointError(StateGraphError):
    """Saved State that cannot be written or read, or that does not fit the objects it is to be loaded into."""


def underivable(what: str, at: Location, error: Exception) -> LoweringError:
    """The error for what JAX cannot differentiate."""
    loop = "while_loop" in str(error)
    return LoweringError(
        describe(
            f"{what} cannot be taken.",
            at=at,
            why=str(error),
            fix="use stategraph.compile.bounded_while_loop(..., max_steps=n), for_loop or scan"
            if loop
            else "",
        )
    )


def describe(
    what: str,
    *,
    state: str = "",
    created: Location | str | None = None,
    at: Location | str | None = None,
    why: str = "",
    fix: str = "",
) -> str:
    """Lay out one error message. Parts that are empty or unknown are left out."""
    lines = [what]
    origin = f"created at {_place(created)}" if created and str(created) else ""
    if state or origin:
        lines.append(f"  state: {', '.join(filter(None, (state, origin)))}")
    if at and str(at):
        lines.append(f"  at:    {_place(at)}")
        source = source_line(at) if isinstance(at, Location) else ""
        if source:
            lines.append(f"           {source}")
    if why:
        lines.append(f"  why:   {why}")
    if fix:
        lines.append(f"  fix:   {fix}")
    return "\n".join(lines)


def no_such_name(module: str, name: str, others: Mapping[str, tuple[str, str]]) -> AttributeError:
    """The error of a name that a module does not have; ``others`` says for some why, and what to write."""
    if name not in others:
        return AttributeError(f"module {module!r} has no attribute {name!r}")
    why, fix = others[name]
    return AttributeError(describe(f"{module} has no {name}.", why=why, fix=fix))


def different_on_devices(
    states: list[str], axes: list[str], at: Location | str, created: Location | str | None
) -> str:
    """The message for States that devices leave different, although nothing says how they are put together."""
    names, spec = " and ".join(states), ", ".join(map(repr, axes))
    return describe(
        f"{names} {'is' if len(states) == 1 else 'are'} written inside shard_map with a value that may differ "
        f"between the devices along {spec}.",
        at=at,
        created=created,
        why="a State without specs is the same on every device",
        fix="make it the same (jax.lax.pmean, psum), or say how the devices' values are put together: "
        f"state_out_specs={{{states[0]}: PartitionSpec({spec})}} of stategraph.augment.shard_map, "
        f"out_states={{0: [{states[0]}]}} of stategraph.augment.pmap",
    )


def source_line(location: Location) -> str:
    """The text of the user's line, empty when it cannot be read."""
    if not location.known:
        return ""
    line = linecache.getline(location.file, location.line).strip()
    return line or _cell_line(location.file, location.line)


def _cell_line(file: str, line: int) -> str:
    """The text of a line of the notebook cell ``In[5]``, empty for anything else."""
    ipython = sys.modules.get("IPython")
    number = file.removeprefix("In[").removesuffix("]")
    if ipython is None or not number.isdigit():
        return ""
    shell = ipython.get_ipython()
    cells = shell.user_ns.get("In", []) if shell is not None else []
    lines = cells[int(number)].splitlines() if int(number) < len(cells) else []
    return lines[line - 1].strip() if 0 < line <= len(lines) else ""


def _place(place: Location | str | None) -> str:
    if isinstance(place, Location):
        return f"{place.file}:{place.line}" if place.known else "an unknown line"
    return str(place)
