"""``save`` and ``load``: the State of objects in a file, and back into objects made alike.

What is saved is the values of States by path (``entries``), not the objects: to load, make them as before.
Everything is checked before anything changes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from stategraph import _jax
from stategraph._files import write_atomically
from stategraph.errors import CheckpointError, TraceError, describe
from stategraph.recording import LOCAL
from stategraph.saving import directories, files
from stategraph.saving.entries import (
    RANDOM,
    assign,
    check_types,
    checksum,
    described,
    entries_of,
    to_host,
)

FORMATS = ("safetensors", "npz", "orbax")


def save(
    path: str | os.PathLike[str],
    *objects: Any,
    random: bool = True,
    format: str | None = None,
    **metadata: Any,
) -> None:
    """Save the values of all States of some objects.

    The file is written whole or not at all: a process killed in the middle leaves the old one.

    Args:
      path: the file; its suffix ``.safetensors`` or ``.npz`` chooses the format.
      *objects: models, optimisers, States, or dicts and lists of these.
      random: whether the default random stream is saved as well, so that a run can go on as if it had not
        stopped.
      format: ``"safetensors"`` (needs the extra ``save``), ``"npz"``, or ``"orbax"`` (a directory, sharded;
        needs the extra ``orbax``). By default what the suffix says, else safetensors if it is installed,
        else npz.
      **metadata: anything else to remember, as JSON knows it: ``step=100``.

    Raises:
      CheckpointError: when a State holds something else than arrays, or the file cannot be written.
      TypeError: for metadata that JSON does not know.

    Example:

    >>> import tempfile, os
    >>> import stategraph as sg
    >>> path = os.path.join(tempfile.mkdtemp(), "model")
    >>> w = sg.ParamState({"weight": 1.0, "bias": 2.0})
    >>> sg.save(path, w, step=100)
    >>> w.value = {"weight": 0.0, "bias": 0.0}
    >>> sg.load(path, w)
    {'step': 100}
    >>> float(w.value["bias"])
    2.0
    """
    _refuse_in_trace("save")
    where = Path(path)
    format = format or files.default_format(where)
    if format not in FORMATS:
        raise ValueError(f"format is one of {', '.join(FORMATS)}, not {format!r}")
    header: dict[str, Any] = {
        "version": files.VERSION,
        "objects": len(objects),
        "metadata": _jsonable(metadata),
    }
    entries = entries_of(objects, random)
    try:
        if format == "orbax":
            header["arrays"] = {name: entry.type() for name, entry in entries.items()}
            directories.write(where, header, entries)
        else:
            arrays = to_host(entries)
            header["arrays"] = described(entries, arrays)
            write_atomically(where, files.pack(format, header, arrays))
    except OSError as error:
        raise CheckpointError(f"cannot write {os.fspath(path)!r}: {error.strerror or error}") from error


def load(path: str | os.PathLike[str], *objects: Any, random: bool = True) -> dict[str, Any]:
    """Give the States of objects the values that ``save`` wrote.

    Args:
      path: the file or directory; its format is recognised.
      *objects: objects made like those that were saved, in the same order. The last ones may be left out: of
        a file with model and optimiser, the model alone can be loaded.
      random: whether the default random stream is restored as well, if it was saved.

    Returns:
      The metadata that was given to ``save``.

    Raises:
      CheckpointError: for a file that is missing, cut off, damaged, of another kind, or whose names, shapes
        or dtypes are not those of the objects. Nothing has changed then.
    """
    _refuse_in_trace("load")
    where, source = Path(path), repr(os.fspath(path))
    directory = directories.find(where) if not where.is_file() else None
    if directory is not None:
        header = directories.read_header(directory, source)
        entries = _wanted(header, objects, random, source)
        arrays = directories.read_arrays(directory, source, header, entries)
    else:
        header, found = files.unpack(_read(where, source), source)
        entries = _wanted(header, objects, random, source)
        arrays = {name: _intact(name, found[name], header, source) for name in entries}
    assign(entries, arrays, header["arrays"])
    metadata: dict[str, Any] = header["metadata"]
    return metadata


def _wanted(header: dict[str, Any], objects: tuple[Any, ...], random: bool, source: str) -> dict[str, Any]:
    """The entries to restore, which fit what the file says it holds."""
    saved = dict(header["arrays"])
    count = header["objects"]
    if len(objects) > count:
        raise CheckpointError(f"{source} holds {count} objects, and {len(objects)} are to be loaded")
    if not random:
        saved.pop(RANDOM, None)
    padded = [*objects, *([{}] * (count - len(objects)))]
    entries = entries_of(padded, RANDOM in saved, to_restore=True)
    given = tuple(f"{i}." for i in range(len(objects)))
    if len(objects) < count:
        exact = {prefix[:-1] for prefix in given}
        saved = {
            name: kind
            for name, kind in saved.items()
            if name.startswith(given) or name in exact or name == RANDOM
        }
    check_types(entries, saved, source)
    return entries


def _intact(name: str, array: np.ndarray, header: dict[str, Any], source: str) -> np.ndarray:
    if checksum(array) != header["arrays"][name]["crc32"]:
        raise files.damaged(source, f"the checksum of {name!r} does not fit")
    return array


def _read(path: Path, source: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {source}: {error.strerror or error}") from error


def _jsonable(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata as JSON gives it back; arrays of one number become numbers."""

    def convert(value: Any) -> Any:
        if getattr(value, "shape", None) == () and hasattr(value, "item"):
            return value.item()
        raise TypeError(
            f"metadata is what JSON knows: numbers, strings, lists and dicts, not a {type(value).__name__}"
        )

    found: dict[str, Any] = json.loads(json.dumps(metadata, default=convert))
    return found


def _refuse_in_trace(what: str) -> None:
    if LOCAL.recorder is None and _jax.current_trace() is None:
        return
    raise TraceError(
        describe(
            f"stategraph.{what} is called in traced code.",
            at=_jax.here(),
            why="values are only known when the program runs",
            fix=f"call {what} outside of the compiled function",
        )
    )
