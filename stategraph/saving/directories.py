"""Checkpoints as directories, by orbax: every device writes its own shards.

The directory is written under another name, and takes the place of the old one by renaming. A process killed
between two renames leaves the old one as ``.<name>.previous``, which ``load`` then finds.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from stategraph import _extras, _jax
from stategraph._files import sync_directory
from stategraph.errors import CheckpointError
from stategraph.saving import files
from stategraph.saving.entries import Entry
from stategraph.state import Poisoned


def _orbax() -> Any:
    return _extras.load("orbax.checkpoint", "orbax", "A checkpoint with format='orbax'")


def _previous(path: Path) -> Path:
    return path.with_name(f".{path.name}.previous")


def write(path: Path, header: Mapping[str, Any], entries: Mapping[str, Entry]) -> None:
    """Write a directory with the arrays of entries."""
    ocp = _orbax()
    path = path.absolute()
    if path.is_file():
        raise CheckpointError(f"{str(path)!r} is a file, and orbax writes a directory")
    staged, previous = path.with_name(f".{path.name}.{os.getpid()}"), _previous(path)
    arrays = {
        str(i): _stored(entry.leaf)
        for i, entry in enumerate(entries.values())
        if entry.leaf.size  # orbax refuses empty arrays; their type says all
    }
    shutil.rmtree(staged, ignore_errors=True)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            parts = ocp.args.Composite(
                arrays=ocp.args.StandardSave(arrays), header=ocp.args.JsonSave(dict(header))
            )
            checkpointer.save(staged, args=parts)
        if path.exists():
            shutil.rmtree(previous, ignore_errors=True)
            os.rename(path, previous)
        os.rename(staged, path)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    sync_directory(path.parent)
    shutil.rmtree(previous, ignore_errors=True)


def find(path: Path) -> Path | None:
    """The directory of a checkpoint; None where there is none."""
    return next((found for found in (path, _previous(path)) if found.is_dir()), None)


def read_header(path: Path, source: str) -> dict[str, Any]:
    """The header of a directory."""
    ocp = _orbax()
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            parts = ocp.args.Composite(header=ocp.args.JsonRestore())
            header = checkpointer.restore(path.absolute(), args=parts).header
    except Exception as error:  # orbax raises many kinds of errors for what is no checkpoint
        raise files.foreign(source) from error
    if not isinstance(header, dict) or "arrays" not in header:
        raise files.foreign(source)
    return files.checked_header(header, source)


def read_arrays(
    path: Path, source: str, header: Mapping[str, Any], entries: Mapping[str, Entry]
) -> dict[str, Any]:
    """The arrays of entries, where the States' old ones are. Types have been checked."""
    ocp = _orbax()
    positions = {name: str(i) for i, name in enumerate(header["arrays"])}
    lost = [name for name, entry in entries.items() if isinstance(entry.leaf, Poisoned)]
    if lost:
        raise CheckpointError(
            f"{lost[0]!r} was lost by a failed call, so orbax cannot know where its shards go: make the objects anew"
        )
    wanted = {}
    for name, entry in entries.items():
        if not entry.leaf.size:
            continue
        like = _stored(entry.leaf)
        wanted[positions[name]] = jax.ShapeDtypeStruct(like.shape, like.dtype, sharding=like.sharding)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            restore = ocp.args.PyTreeRestore(
                item=wanted,
                restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
                partial_restore=True,
            )
            parts = ocp.args.Composite(arrays=restore)
            found = checkpointer.restore(path.absolute(), args=parts).arrays
    except Exception as error:
        raise files.damaged(source, str(error).splitlines()[0]) from error
    return {
        name: found[positions[name]] if entry.leaf.size else _stored(entry.leaf)
        for name, entry in entries.items()
    }


def _stored(leaf: Any) -> Any:
    """What stands for an array in the directory: itself, or the numbers that keys are made of."""
    return jax.random.key_data(leaf) if _jax.is_key_array(leaf) else leaf
