"""A progress bar over a compiled loop.

Every ``freq`` trips the loop calls back to move a bar of tqdm. The calls do not depend on lanes, so a loop under
``vmap`` has one bar; they are prints to the compiler, so gradients keep them. What a gradient computes a second
time does not move a bar back. Nothing else orders prints on GPUs, so the loop counts from a number that is known once the
bar has begun.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from stategraph._extras import load
from stategraph.compile.lanes import first_lane
from stategraph.tracing.plan import WHEN_A_CALL_FAILS

Step = Callable[[Any, Any], tuple[Any, Any]]
Description = str | tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]


class ProgressBar:
    """A bar for ``pbar=`` of ``for_loop``, ``scan``, their checkpointed forms, and ``augment.map``.

    A loop with a bar calls Python, so it is compiled without donation. It can be exported when host effects are
    stripped.

    Args:
      freq: move the bar every so many trips.
      count: or: move it so many times in all. Without either it moves about 20 times.
      desc: what stands before the bar; or a format string and a function that computes its values from a dict
        with ``i`` (how many trips are done), ``carry`` and ``y`` of the trip. Under ``vmap`` they are those of
        the first lane.
      **kwargs: for ``tqdm``, such as ``ncols`` or ``file``.

    Raises:
      ImportError: tqdm is not installed (``pip install 'stategraph[progress]'``).

    Example:

    >>> import io
    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> bar = sg.compile.ProgressBar(freq=50, desc="simulate", file=io.StringIO())
    >>> sg.compile.for_loop(lambda x: x + 1, jnp.zeros(100), pbar=bar).sum()
    Array(100., dtype=float32)
    """

    def __init__(
        self,
        freq: int | None = None,
        count: int | None = None,
        desc: Description | None = None,
        **kwargs: Any,
    ) -> None:
        if freq is not None and count is not None:
            raise ValueError("a progress bar moves every freq trips or count times: give one of the two")
        for name, value in (("freq", freq), ("count", count)):
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name} of a progress bar is a number of at least 1, not {value!r}")
        if isinstance(desc, tuple) and not (
            len(desc) == 2 and isinstance(desc[0], str) and callable(desc[1])
        ):
            raise TypeError("desc of a progress bar is a text, or a format string and a function")
        if desc is not None and not isinstance(desc, (str, tuple)):
            raise TypeError(f"desc of a progress bar is a text, not a {type(desc).__name__}")
        self.tqdm = load("tqdm", "progress", "A progress bar").tqdm
        self.freq = freq
        self.count = count
        self.desc = desc
        self.kwargs = kwargs

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ProgressBar):
            return NotImplemented
        same = (self.freq, self.count, self.desc) == (other.freq, other.count, other.desc)
        return (
            same
            and self.kwargs.keys() == other.kwargs.keys()
            and all(
                value is other.kwargs[key] or (type(value) in _SCALARS and value == other.kwargs[key])
                for key, value in self.kwargs.items()
            )
        )

    def __hash__(self) -> int:
        return hash((self.freq, self.count, self.desc, tuple(self.kwargs)))

    def __repr__(self) -> str:
        said = {"freq": self.freq, "count": self.count, "desc": self.desc}
        given = [f"{name}={value!r}" for name, value in said.items() if value is not None]
        return f"ProgressBar({', '.join([*given, *self.kwargs])})"

    def every(self, total: int) -> int:
        """How many trips lie between two moves in a loop of ``total``."""
        if self.freq is not None:
            return self.freq
        return max(1, total // (self.count or 20))


_SCALARS = (int, float, bool, str, type(None))


def as_bar(pbar: ProgressBar | int | bool | None) -> ProgressBar | None:
    """What ``pbar=`` and ``progress=`` may be: a bar, how often it moves, True for the usual one, or nothing."""
    if pbar is None or pbar is False or isinstance(pbar, ProgressBar):
        return pbar or None
    if pbar is True:
        return ProgressBar()
    if isinstance(pbar, int):
        return ProgressBar(freq=pbar)
    raise TypeError(f"pbar is a ProgressBar or a number of trips, not a {type(pbar).__name__}")


_OPEN: weakref.WeakSet[Live] = weakref.WeakSet()


class Live:
    """The bar of one loop while it runs."""

    def __init__(self, bar: ProgressBar, total: int) -> None:
        self.bar = bar
        self.total = total
        self.shown: Any = None
        self.finished = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """The loop begins."""
        with self._lock:
            if self.shown is not None and self.shown.n:
                self.shown.close()
                self.shown = None
            self.finished = False
            self._show()

    def _show(self) -> None:
        if self.shown is None:
            desc = self.bar.desc if isinstance(self.bar.desc, str) else None
            self.shown = self.bar.tqdm(**{"desc": desc, "total": self.total, **self.bar.kwargs})
            _OPEN.add(self)

    def move(self, done: Any, values: dict[str, Any]) -> None:
        """So many trips are done. What was done before, and is computed again, moves nothing."""
        with self._lock:
            if self.finished:
                return
            self._show()
            step = int(done) - self.shown.n
            if step <= 0:
                return
            if isinstance(self.bar.desc, tuple):
                self.shown.set_description_str(self.bar.desc[0].format(**values), refresh=False)
            self.shown.update(step)
            if int(done) == self.total:
                self._close()

    def _close(self) -> None:
        self.finished = True
        if self.shown is not None:
            self.shown.close()
            self.shown = None
        _OPEN.discard(self)

    def close(self) -> None:
        """The loop ends early."""
        with self._lock:
            self._close()


def close_bars() -> None:
    """Close the bars of loops that did not come to their end."""
    for live in list(_OPEN):
        live.close()


WHEN_A_CALL_FAILS.append(close_bars)


def with_bar(
    pbar: ProgressBar | int | bool | None,
    loop: Callable[[Step, Any], tuple[Any, Any]],
    step: Step,
    carry: Any,
    total: int,
) -> tuple[Any, Any]:
    """``loop(step, carry)``, a scan of ``total`` trips, with a bar if there is to be one."""
    bar = as_bar(pbar)
    if bar is None or not total:
        return loop(step, carry)
    live, every = Live(bar, total), bar.every(total)
    compute = bar.desc[1] if isinstance(bar.desc, tuple) else None

    def counted(held: tuple[Any, Any], x: Any) -> tuple[tuple[Any, Any], Any]:
        before, inner = held
        inner, y = step(inner, x)
        done = before + 1
        values = {} if compute is None else dict(compute({"i": done, "carry": inner, "y": y}))
        values = jax.tree.map(lambda value: first_lane(jax.lax.stop_gradient(value)), values)
        jax.lax.cond(
            (done % every == 0) | (done == total),
            lambda: jax.debug.callback(live.move, done, values),
            lambda: None,
        )
        return (done, inner), y

    try:
        (_, carry), ys = loop(counted, (_begun(live), carry))
    except BaseException:
        live.close()
        raise
    return carry, ys


def _begun(live: Live) -> Any:
    """0, in a program that begins the bar before. A loop, since compilers do not work out that its second trip is the last: with
    what they know ahead, they would part the number from the callback.
    """
    two = jnp.asarray(2, jnp.int32)

    def begin(_: Any) -> Any:
        jax.debug.callback(live.start)
        return two

    def trip(k: Any) -> Any:
        return jax.lax.cond(k == 1, begin, lambda k: k + 1, k)

    return jax.lax.while_loop(lambda k: k < two, trip, jnp.asarray(0, jnp.int32)) - two
