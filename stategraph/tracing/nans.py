"""Calls out of which no NaN may come: they run compiled, and are run again op by op if one does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from stategraph import _jax
from stategraph.backends.nans import hunt, kind_of
from stategraph.recording import EPOCHS
from stategraph.state import State
from stategraph.tracing.tracer import Trace

_jax.when_watching_changes(EPOCHS.moved)  # compiled calls look again at what they do


def raise_if_found(
    record: Trace,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    states: Mapping[str, Any],
    *,
    infinities: bool = True,
    phase: str = "",
) -> None:
    """Run a traced function op by op from these values of its States, and raise what there is to say."""
    error = hunt(
        record.program,
        jax.tree.leaves((tuple(args), dict(kwargs))),
        {path: tuple(jax.tree.leaves(value)) for path, value in states.items()},
        infinities=infinities,
        phase=phase,
        created={path: state.source_location for path, state in record.states.items()},
    )
    if error is not None:
        raise error


def watched_call(
    call: Callable[[], Any],
    states: Mapping[str, State[Any] | None],
    retrace: Callable[[], Trace],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    infinities: bool,
) -> Any:
    """A compiled call, and the hunt if NaN (or infinity) comes out of it; its States are committed by then."""
    live = {path: state for path, state in states.items() if state is not None}
    before = {path: state._release() for path, state in live.items()}
    with _jax.unwatched_numbers():
        result = call()
        after = [leaf for state in live.values() for leaf in state._release()]
        if any(kind_of(leaf, infinities) for leaf in (*jax.tree.leaves(result), *after)):
            record = retrace()
            known = {path: before[path] for path in record.states if path in before}
            raise_if_found(record, args, kwargs, known, infinities=infinities)
    return result
