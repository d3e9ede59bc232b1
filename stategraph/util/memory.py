"""Small things with a memory: a cache that forgets, unique names, and freeing what devices hold."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict, defaultdict
from typing import Any

import jax


class BoundedCache:
    """A dict that keeps the ``maxsize`` entries used last. Threads may share it.

    Example:

    >>> import stategraph as sg
    >>> cache = sg.util.BoundedCache(maxsize=2)
    >>> for key in "abc":
    ...     cache.set(key, key.upper())
    >>> cache.get("a"), cache.get("c"), cache.get_stats()["hits"]
    (None, 'C', 1)
    """

    def __init__(self, maxsize: int = 128) -> None:
        if maxsize < 1:
            raise ValueError(f"maxsize is at least 1, not {maxsize}")
        self.maxsize = maxsize
        self._entries: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.RLock()
        self._hits = self._misses = 0

    def get(
        self, key: Any, default: Any = None, raise_on_miss: bool = False, error_context: str = "item"
    ) -> Any:
        """The value of a key.

        Args:
          key: the key.
          default: what to give where it is missing.
          raise_on_miss: whether that is an error instead.
          error_context: what the error calls it.

        Raises:
          ValueError: with ``raise_on_miss``, for a key that is missing.
        """
        with self._lock:
            if key in self._entries:
                self._hits += 1
                self._entries.move_to_end(key)
                return self._entries[key]
            self._misses += 1
        if raise_on_miss:
            raise ValueError(f"no {error_context} for {key!r} is kept")
        return default

    def set(self, key: Any, value: Any) -> None:
        """Keep a value; the one that was not used for longest goes where there are too many.

        Raises:
          ValueError: when the key has a value; see ``replace``.
        """
        with self._lock:
            if key in self._entries:
                raise ValueError(f"{key!r} has a value; replace() gives it another")
            self._entries[key] = value
            if len(self._entries) > self.maxsize:
                self._entries.popitem(last=False)

    def replace(self, key: Any, value: Any) -> None:
        """Give a key that is there another value.

        Raises:
          KeyError: when it is not.
        """
        with self._lock:
            if key not in self._entries:
                raise KeyError(f"{key!r} is not kept")
            self._entries[key] = value
            self._entries.move_to_end(key)

    def pop(self, key: Any, default: Any = None) -> Any:
        """Remove a key; gives its value."""
        with self._lock:
            return self._entries.pop(key, default)

    def clear(self) -> None:
        """Forget everything, the statistics too."""
        with self._lock:
            self._entries.clear()
            self._hits = self._misses = 0

    def keys(self) -> list[Any]:
        """The keys, the one used last at the end."""
        with self._lock:
            return list(self._entries)

    def get_stats(self) -> dict[str, Any]:
        """``size``, ``maxsize``, ``hits``, ``misses`` and ``hit_rate`` (0 to 100)."""
        with self._lock:
            asked = self._hits + self._misses
            return {
                "size": len(self._entries),
                "maxsize": self.maxsize,
                "hits": self._hits,
                "misses": self._misses,
                "hit_rate": 100 * self._hits / asked if asked else 0.0,
            }

    def __contains__(self, key: object) -> bool:
        with self._lock:
            return key in self._entries

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)


_COUNTERS: defaultdict[str, itertools.count[int]] = defaultdict(itertools.count)


def get_unique_name(type_: str, prefix: str = "") -> str:
    """A name that this function has not given before in this process: ``prefix`` + ``type_`` + a number.

    Example:

    >>> import stategraph as sg
    >>> a, b = (sg.util.get_unique_name("Linear") for _ in range(2))
    >>> a.startswith("Linear") and a != b
    True
    """
    stem = prefix + type_
    return f"{stem}{next(_COUNTERS[stem])}"


def clear_buffer_memory(platform: str | None = None, array: bool = True, compilation: bool = False) -> None:
    """Free what devices hold. Every array made before is unusable then, those in States too.

    Args:
      platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``; the default platform if None.
      array: whether arrays are deleted.
      compilation: whether JAX forgets what it compiled.
    """
    if array:
        for buffer in jax.live_arrays(platform):
            buffer.delete()
    if compilation:
        jax.clear_caches()
