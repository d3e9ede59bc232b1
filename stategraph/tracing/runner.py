"""What a call of a plan does, written out as one straight-line function.

Collecting the State leaves and putting the new ones back is most of what a call costs besides XLA. A comprehension
and a loop over cells cost a tenth of a call with ten States, so the function names every cell instead:

    donated = [d0.v, d1.v]
    ...
    w0.v, w1.v, = new

Its text depends on the numbers of cells only, so functions are made once per numbers and bound to cells cheaply. Beyond ``MOST``
cells Python would take longer to compile the text than it saves; then it loops.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from stategraph.backends.xla import SignatureMiss
from stategraph.recording import EPOCHS
from stategraph.state import RUNTIME_LOCK, Cell

Run = Callable[[Any, Any, Any], Any]
"""From positional arguments, arguments by name and donated arguments (or None) to the result."""

MOST = 100
"""How many cells of one kind are named at most."""

_TEMPLATE = """
def bind(plan, jitted, shared, captured, acquire, release, epochs, SignatureMiss, unshared, d, k, w):
    {names}
    def run(args, kwargs, given):
        acquire()
        try:
            donated = [{donated}]
            call = jitted
            stale = plan.released != epochs.released
            if stale:
                donated, call = plan._claim(donated)
            kept = {kept}
            try:
                if given is not None:
                    given = unshared(given, (donated, kept, args, kwargs))
                    new, result = call((donated, given), kept, *args, **kwargs)
                elif kwargs:
                    new, result = call(donated, kept, *args, **kwargs)
                elif args:
                    new, result = call(donated, kept, *args)
                else:
                    new, result = call(donated, kept)
            except SignatureMiss:
                raise
            except BaseException as error:
                plan._failed(donated, error)
                raise
            {scatter}
            return result
        finally:
            release()
    return run
"""
_SCATTER = """{scatter}
            if stale or shared:
                plan._own()"""


def runner(
    plan: Any,
    jitted: Callable[..., Any],
    captured: Sequence[Any],
    donated: Sequence[Cell],
    kept: Sequence[Cell],
    written: Sequence[Cell] | None,
    shared: bool,
    unshared: Callable[[Any, Any], Any],
) -> Run:
    """The function that calls ``jitted`` on what the cells hold and fills ``written``; where that is None, the
    plan itself puts the new leaves back.
    """
    bind = _binder(len(donated), len(kept), None if written is None else len(written))
    run: Run = bind(
        plan,
        jitted,
        shared,
        captured,
        RUNTIME_LOCK.acquire,
        RUNTIME_LOCK.release,
        EPOCHS,
        SignatureMiss,
        unshared,
        donated,
        kept,
        written,
    )
    return run


@functools.lru_cache(maxsize=256)
def _binder(donated: int, kept: int, written: int | None) -> Callable[..., Run]:
    counts = {"d": donated, "k": kept, "w": written or 0}
    unpacked = [f"{_each(kind, count, '')} = {kind}" for kind, count in counts.items() if 0 < count <= MOST]
    scatter = "plan._refill(new)"
    if written is not None:
        fill = (
            f"{_each('w', written, '.v')} = new"
            if 0 < written <= MOST
            else "for c, v in zip(w, new): c.v = v"
        )
        scatter = _SCATTER.format(scatter=fill)
    text = _TEMPLATE.format(
        names="; ".join(unpacked) or "pass",
        donated=_gather("d", donated),
        kept=f"[{_gather('k', kept)}, *captured]" if kept else "captured",
        scatter=scatter,
    )
    namespace: dict[str, Any] = {}
    exec(compile(text, "<stategraph call>", "exec"), namespace)
    bind: Callable[..., Run] = namespace["bind"]
    return bind


def _each(kind: str, count: int, attribute: str) -> str:
    return "".join(f"{kind}{i}{attribute}, " for i in range(count))


def _gather(kind: str, count: int) -> str:
    """The values of cells, as the inside of a list."""
    return _each(kind, count, ".v").rstrip(", ") if count <= MOST else f"*[c.v for c in {kind}]"
