"""Packages that only some features need: imported when used, with an error that names the extra."""

from __future__ import annotations

import importlib
from typing import Any


def load(package: str, extra: str, purpose: str) -> Any:
    """An optional package.

    Args:
      package: what to import.
      extra: the extra of this project that installs it.
      purpose: what needs it, as the beginning of a sentence.

    Raises:
      ImportError: when it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        if error.name is not None and error.name.split(".")[0] != package.split(".")[0]:
            raise
        raise ImportError(
            f"{purpose} needs {package.split('.')[0]}, which is not installed: pip install 'stategraph[{extra}]'",
            name=error.name,
        ) from None
