"""Measuring side by side: medians of interleaved rounds in one process, ratios to a baseline.

This machine and yours are noisy; ratios of medians taken in the same run travel, absolute times do not.
"""

from __future__ import annotations

import contextlib
import io
import random
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax


def interleaved(calls: dict[str, Callable[[], Any]], *, inner: int, rounds: int) -> dict[str, float]:
    """Median seconds per call of each function; a round runs each ``inner`` times, in another order each round, so that
    none always follows the one that leaves the caches cold.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(3):
            call()
    order, shuffle = list(calls), random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            call = calls[name]
            start = time.perf_counter()
            for _ in range(inner):
                result = call()
            jax.block_until_ready(result)
            times[name].append((time.perf_counter() - start) / inner)
    return {name: statistics.median(values) for name, values in times.items()}


def ratios(times: dict[str, float], baseline: str) -> dict[str, float]:
    return {name: value / times[baseline] for name, value in times.items()}


def peer(name: str) -> Any | None:
    """A peer's package, None when it is not installed."""
    import importlib

    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError:
        return None


def table(rows: list[list[str]], header: list[str]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)
