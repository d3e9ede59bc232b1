"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that at every moment, also after a crash, the old or the new one is there.

    Raises:
      OSError: when it cannot be written; the old file is then as it was.
    """
    target = Path(path)
    name = None
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            name = file.name
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # as open() would have made it
        os.replace(name, target)
    except BaseException:
        if name is not None and os.path.exists(name):
            os.unlink(name)
        raise
    sync_directory(target.parent)


def sync_directory(path: Path) -> None:
    """Make renames in a directory last, where the system can."""
    with contextlib.suppress(OSError, AttributeError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
