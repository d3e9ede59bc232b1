"""Looking into a model: what every layer of it gave, and its States, of one call.

While a watched model runs, ``Module.__call__`` shows every call to a ``Watcher``. An output of straight-line code
is kept as it is. A layer called in the body of a loop, a branch or a transformation gives its output through a
State that the watcher creates around that body, so the last call counts there too.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from stategraph import _jax
from stategraph.compile.cached import run_cached
from stategraph.errors import StateAccessError, describe
from stategraph.graph.node import Node
from stategraph.graph.walk import nodes
from stategraph.graph.walk import states as states_of
from stategraph.nn.module_views import dotted
from stategraph.recording import LOCAL
from stategraph.state import State
from stategraph.typing import Filter, PathParts
from stategraph.util.filter import All, to_predicate

Record = dict[str, dict[str, Any]]
"""By path of the layer: ``{"output": ..., "states": {name: value}}``."""


class _Watching(threading.local):
    """Per thread: who looks on."""

    watcher: Watcher | None = None


WATCHING = _Watching()


class Watcher:
    """Collects the outputs of the layers of one call."""

    def __init__(self, layers: dict[int, str]) -> None:
        self.layers = layers
        """Paths of the layers that are watched, by id."""
        self.trace, self.recorder = _jax.current_trace(), LOCAL.recorder
        self.outputs: dict[str, Any] = {}
        self.held: dict[str, State[Any]] = {}
        """What the layers in other bodies gave."""

    def called(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A module is called."""
        output = layer.update(*args, **kwargs)
        path = self.layers.get(id(layer))
        if path is None or LOCAL.recorder is not self.recorder:  # a run for types only
            return output
        elsewhere = _jax.current_trace() is not self.trace
        if elsewhere and self.trace is None:
            jax.debug.callback(functools.partial(self.outputs.__setitem__, path), output)
            return output
        if path not in self.held and elsewhere:
            self.held[path] = self._outside(path, layer, output)
        if path in self.held:
            self.held[path].value = output
        else:
            self.outputs[path] = output
        return output

    def _outside(self, path: str, layer: Any, output: Any) -> State[Any]:
        """A State around the body that runs now."""
        if self.recorder is None:
            raise StateAccessError(
                describe(
                    f"{type(layer).__name__} {path!r} is watched in the body of a JAX transformation that StateGraph does not trace.",
                    at=_jax.here(),
                    why="its output exists only inside that body",
                    fix="use stategraph.compile and stategraph.augment, or watch other layers: watch(model, filter)",
                )
            )
        avals = [_jax.typeof(leaf) for leaf in jax.tree.leaves(output)]
        with _jax.set_trace(self.trace):
            known = self.outputs.pop(path, None)
            if known is None or [_jax.typeof(leaf) for leaf in jax.tree.leaves(known)] != avals:
                zeros = [jnp.zeros(aval.shape, aval.dtype) for aval in avals]
                known = jax.tree.unflatten(jax.tree.structure(output), zeros)
            return State(known, name=f"output of {path or type(layer).__name__}")

    def record(self, owned: dict[str, dict[str, State[Any]]]) -> Record:
        """What there is to tell, in the order of the layers."""
        held = {path: state.value for path, state in self.held.items()}
        outputs = {**self.outputs, **held}
        return {
            path: {
                "output": outputs[path],
                "states": {name: state.value for name, state in owned.get(path, {}).items()},
            }
            for path in self.layers.values()
            if path in outputs
        }


def watch(model: Any, *filters: Filter, states: Filter = ...) -> Callable[..., tuple[Any, Record]]:
    """A model that also tells what happened inside: a function that returns ``(outputs, record)``.

    The record has, by the path of a layer (``""`` is the model itself, ``"layers.0"`` one that it holds),
    ``{"output": ..., "states": {name: value}}``: what the layer returned when it was called last, and what the
    States that it holds itself have after the call. Layers that were not called are missing. Inside
    ``compile.jit`` all of that are results of the program; called eagerly, it is compiled and kept.

    Args:
      model: a module.
      *filters: which layers, as in ``stategraph.graph.nodes``; all have to match.
      states: which of their States.

    Returns:
      A function with the arguments of the model. A layer in a loop tells of the last trip, one in a branch that
      is not taken gives zeros.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> class Scale(sg.nn.Module):
    ...     def __init__(self, by):
    ...         super().__init__()
    ...         self.by, self.calls = by, sg.State(0)
    ...     def update(self, x):
    ...         self.calls.value += 1
    ...         return self.by * x
    >>> class Net(sg.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layers = [Scale(2.), Scale(3.)]
    ...     def update(self, x):
    ...         for layer in self.layers: x = layer(x)
    ...         return x
    >>> y, record = sg.nn.watch(Net(), Scale)(1.)
    >>> float(y), {path: float(found["output"]) for path, found in record.items()}
    (6.0, {'layers.0': 2.0, 'layers.1': 6.0})
    >>> record["layers.1"]["states"]
    {'calls': Array(1, dtype=int32)}
    """
    if not isinstance(model, Node) or not callable(model):
        raise TypeError(f"watch needs a module, not a {type(model).__name__}")
    layer_filter = All(*map(to_predicate, filters)) if filters else to_predicate(...)
    state_filter = to_predicate(states)

    def body(args: Any, kwargs: Any) -> tuple[Any, Record]:
        layers = {path: node for path, node in nodes(model).items() if _is_layer(node)}
        wanted = {path: node for path, node in layers.items() if layer_filter(path, node)}
        watcher = Watcher({id(node): dotted(path) for path, node in sorted(wanted.items(), key=_depth)})
        outer, WATCHING.watcher = WATCHING.watcher, watcher
        try:
            outputs = model(*args, **kwargs)
        finally:
            WATCHING.watcher = outer
        return outputs, watcher.record(_owned(model, layers, state_filter))

    def watched(*args: Any, **kwargs: Any) -> tuple[Any, Record]:
        if LOCAL.recorder is not None or _jax.current_trace() is not None or _jax.under_disable_jit():
            return body(args, kwargs)
        return run_cached("watch", (), (), lambda: body, (args, kwargs), also=(model, *filters, states))  # type: ignore[no-any-return]

    watched.__name__ = "watch"
    return watched


def _is_layer(node: Any) -> bool:
    """Modules that compute; parameters are no layers."""
    from stategraph.nn.module import Module
    from stategraph.nn.module_params import Param

    return isinstance(node, Module) and not isinstance(node, Param)


def _depth(entry: tuple[PathParts, Any]) -> tuple[int, list[str]]:
    return len(entry[0]), list(map(str, entry[0]))


def _owned(
    model: Any, layers: dict[PathParts, Any], wanted: Callable[[Any, Any], bool]
) -> dict[str, dict[str, State[Any]]]:
    """The States that each layer holds itself, by the layer's path and their own name in it."""
    found: dict[str, dict[str, State[Any]]] = {}
    for path, state in states_of(model).items():
        if wanted(path, state):
            home = max((layer for layer in layers if path[: len(layer)] == layer), key=len)
            found.setdefault(dotted(home), {})[dotted(path[len(home) :])] = state
    return found
