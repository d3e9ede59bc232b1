"""What a trace leaves behind: assignments to undo and to repeat, States that outlive it, and what it depends on.

While user code is traced, its assignments to attributes of Nodes take effect, and are journalled. At the end they are undone.
Those that bind States born in the trace are repeated by every call; any other traced value that is still held somewhere
is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stategraph import _jax
from stategraph.errors import StateAccessError, TraceError, describe
from stategraph.graph.node import Node, Structure, instance_dict
from stategraph.graph.walk import walk
from stategraph.recording import MISSING, Recorder, Token
from stategraph.state import State
from stategraph.tracing.importer import Importer


def rollback(recorder: Recorder) -> None:
    for node, name, before, _ in reversed(recorder.journal):
        if before is MISSING:
            instance_dict(node).pop(name, None)
        else:
            instance_dict(node)[name] = before
    for node, order in recorder.orders.values():
        attributes = instance_dict(node)
        for name in order:
            if name in attributes:
                attributes[name] = attributes.pop(name)
    for container, copy in recorder.containers.values():
        if _changed(container, copy):
            if isinstance(container, list):
                container[:] = copy
            else:
                container.clear()
                container.update(copy)


def _changed(container: Any, copy: Any) -> bool:
    if isinstance(container, dict):
        return list(container) != list(copy) or any(
            container[key] is not value for key, value in copy.items()
        )
    return len(container) != len(copy) or any(
        now is not then for now, then in zip(container, copy, strict=True)
    )


def escapes(recorder: Recorder, assignments: bool) -> tuple[set[Token], list[tuple[Node, str, Any]]]:
    """Trace-born States that attributes hold at the end, and the assignments that bind them (or all of them).
    Other traced values there are errors.
    """
    last: dict[tuple[int, str], tuple[Node, str, Any]] = {}
    for node, name, _, after in recorder.journal:
        last[(id(node), name)] = (node, name, after)
    escaping: set[Token] = set()
    replays = []
    for container, copy in recorder.containers.values():
        if _changed(container, copy):
            _check_left_behind(recorder, container)
    for node, name, value in last.values():
        tokens = set()
        for path, obj in walk(value):
            token = recorder.token(obj) if isinstance(obj, State) else None
            if token is not None and token in recorder.born_in:
                tokens.add(token)
            elif _jax.is_tracer(obj):
                raise TraceError(
                    describe(
                        f"A traced value was left on {type(node).__name__}.{name}{''.join(f'[{p!r}]' for p in path)}.",
                        at=recorder.assigned[(id(node), name)],
                        why="the value exists only while the program runs; an ordinary attribute would keep a dead placeholder",
                        fix=f"make it a State: `self.{name} = stategraph.State(...)` once, then `self.{name}.value = ...`",
                    )
                )
        escaping |= tokens
        if tokens or assignments:
            replays.append((node, name, value))
    return escaping, replays


def _check_left_behind(recorder: Recorder, container: Any) -> None:
    """A list or dict of a Node that was changed in place may hold neither traced values nor States of the
    trace.
    """
    kind = type(container).__name__
    for _, obj in walk(container):
        token = recorder.token(obj) if isinstance(obj, State) else None
        if token is not None and token in recorder.born_in:
            raise StateAccessError(
                describe(
                    f"{obj._describe()} is created while tracing and put into a {kind} that existed before.",
                    created=obj.source_location,
                    why=f"every call would put another one there, while the trace runs once; the {kind} is left as it was",
                    fix="assign a new container to the attribute: `self.items = [*self.items, stategraph.State(...)]`",
                )
            )
        if _jax.is_tracer(obj):
            raise TraceError(
                describe(
                    f"A traced value was left in a {kind} that a Node holds.",
                    at=_jax.origin_of(obj),
                    why="the value exists only while the program runs; the container would keep a dead placeholder",
                    fix="keep the value in a State, or return it",
                )
            )


def check_reused(recorder: Recorder, importer: Importer, escaping: set[Token]) -> None:
    for token in escaping:
        body = recorder.born_in[token]
        owner: State[Any] = recorder.owners[token]
        instances = importer.instances.get(body.number, 0)
        if instances == 0:
            raise StateAccessError(
                describe(
                    f"{owner._describe()} was created in a function whose result JAX discards, and is kept on the model.",
                    created=owner.source_location,
                    why="JAX traces the function only for its shapes (jax.eval_shape, jax.make_jaxpr), so the State never gets a value",
                    fix="create the State in the function itself",
                )
            )
        if not body.straight or instances > 1:
            raise StateAccessError(
                describe(
                    f"{owner._describe()} was created inside a loop, branch or function that runs several times, and is kept on the model.",
                    created=owner.source_location,
                    why="there would be one State for many runs",
                    fix="create it once, outside of that body",
                )
            )


def final_guards(
    recorder: Recorder, replays: Sequence[tuple[Node, str, Any]]
) -> list[tuple[Node, str | Structure, Any]]:
    """Attributes that the trace read.

    One that it rebinds to a trace-born State is no guard: the program sets it. But one that decided something
    is: it was missing or no State (``if not hasattr(self, "h")``), or the program uses the State that it
    held.
    """
    replayed = {(id(node), name) for node, name, _ in replays}
    guards: list[tuple[Node, str | Structure, Any]] = []
    for key, (node, name, value) in recorder.guards.items():
        if name == "*":
            ignored = frozenset(attribute for number, attribute in replayed if number == id(node))
            guards.append((node, Structure(ignored), tuple(pair for pair in value if pair[0] not in ignored)))
        elif key not in replayed or not _untouched(recorder, value):
            guards.append((node, name, value))
    return guards


def _untouched(recorder: Recorder, value: Any) -> bool:
    """Whether a value holds State, none of which the program uses."""
    found = [obj for _, obj in walk(value) if isinstance(obj, State)]
    return bool(found) and all(recorder.token(state) is None for state in found)
