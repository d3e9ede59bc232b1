"""Memory that nobody has written to: arrays that are to be filled, and are not filled with zeros before.

``jax.lax.empty`` is a loop that writes zeros. A result that a native function leaves alone costs nothing, until it is written to.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import jax

from stategraph.backends.native.binding import Kernel, bind

_SOURCE = """
def untouched():
    pass
"""


def untouched(shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of anything on the CPU, of the memory of the host; of zeros where there are no native kernels."""
    kernel = _kernel()
    if kernel is None or 0 in shape:
        return jax.lax.empty(shape, dtype)
    return _reserve(kernel.target, shape, dtype)


@functools.cache
def _kernel() -> Kernel | None:
    return bind(_SOURCE, "untouched", [], [])


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _reserve(target: str, shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.ffi.ffi_call(target, jax.ShapeDtypeStruct(shape, dtype))()


class TouchedAhead:
    """Has the system make the pages of arrays ready, in a thread, before they are written to: one after another, as the program
    would that is going to fill them, but many at once. What they hold does not change.

    Args:
      arrays: on the CPU; their memory may be donated meanwhile.
    """

    def __init__(self, arrays: Iterable[Any]) -> None:
        self._pieces = [piece for array in arrays for piece in _pieces(array)] if _LINUX else []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        if len(self._pieces) >= _FEWEST:
            self._thread = threading.Thread(target=self._touch, name="stategraph-memory", daemon=True)
            self._thread.start()

    def _touch(self) -> None:
        for address, size in self._pieces:
            if self._ended.is_set() or _library().madvise(address, size, _POPULATE_WRITE):
                return  # a system that does not know it, or memory that is no longer there

    def end(self) -> None:
        """Stop: the arrays are full."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()


_LINUX = sys.platform == "linux"
_POPULATE_WRITE = 23
"""An advice of Linux, since 5.14."""
_PIECE = 1 << 20
"""Bytes of which the pages are made ready at once: others that want memory of the system wait for it."""
_FEWEST = 16
"""Pieces that are worth a thread."""


def _pieces(array: Any) -> Iterator[tuple[ctypes.c_void_p, ctypes.c_size_t]]:
    """(address, size) of the whole pages of an array."""
    page, begin = mmap.PAGESIZE, array.unsafe_buffer_pointer()
    end = (begin + array.nbytes) // page * page
    for address in range(-(-begin // page) * page, end, _PIECE):
        yield ctypes.c_void_p(address), ctypes.c_size_t(min(_PIECE, end - address))


@functools.cache
def _library() -> Any:
    return ctypes.CDLL(None)
