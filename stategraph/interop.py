"""Modules of other libraries inside StateGraph programs.

``from_nnx`` and ``from_equinox`` make a Module of a foreign one: its arrays are States, by the path that they
have in it, so that they are traced, differentiated, listed, saved and trained like any others. A call makes
the foreign module anew from the current values, calls it, and takes back what it changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from stategraph import _extras, _jax, environ
from stategraph.errors import TraceError, describe
from stategraph.nn.mode import is_fitting
from stategraph.nn.module import Module
from stategraph.state import LongTermState, ParamState, ShortTermState, State
from stategraph.typing import PathParts
from stategraph.util.mapping import nest_mapping
from stategraph.util.static import same_value, static_key


class Template:
    """All of a foreign module but its arrays: immutable, and equal to that of a module of the same structure."""

    def __init__(self, library: str, module: Any, key: Any, **parts: Any) -> None:
        self.library = library
        self.name = type(module).__name__
        self.key = key
        self.parts = parts

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("parts", ()):
            return self.parts[name]
        raise AttributeError(name)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Template) and self.library == other.library and same_value(self.key, other.key)
        )

    def __hash__(self) -> int:
        return hash((self.library, self.name))

    def __deepcopy__(self, memo: Any) -> Template:
        return self

    def __repr__(self) -> str:
        return f"<{self.name} of {self.library}>"


class Foreign(Module):
    """Base of modules that hold one of another library.

    Attributes:
      variables: the States, as nested dicts by path.
      template: what else it takes to make the module.
      call: how the module is called: ``call(module, *args, **kwargs)``.
    """

    def __init__(
        self, template: Template, states: Mapping[PathParts, State[Any]], call: Callable[..., Any] | None
    ) -> None:
        super().__init__()
        self.template = template
        self.variables: dict[Any, Any] = nest_mapping(states)
        self.call = call

    @property
    def _paths(self) -> tuple[PathParts, ...]:
        paths: tuple[PathParts, ...] = self.template.paths
        return paths

    def _state(self, path: PathParts) -> State[Any]:
        found: Any = self.variables
        for step in path:
            found = found[step]
        state: State[Any] = found
        return state

    def module(self) -> Any:
        """The foreign module, with the current values."""
        raise NotImplementedError

    def _fitting(self) -> bool | None:
        """Whether to train or evaluate; None where nobody has said so, and the foreign module decides."""
        said = self.training is not None or environ.get(environ.FIT, None) is not None
        return is_fitting(self) if said else None

    def _call(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return module(*args, **kwargs) if self.call is None else self.call(module, *args, **kwargs)


# --------------------------------------------------------------------------------------------------- flax nnx


class NNXModule(Foreign):
    """A flax nnx module; made by ``from_nnx``."""

    def __init__(self, module: Any, call: Callable[..., Any] | None) -> None:
        nnx = _extras.load("flax.nnx", "nnx", "stategraph.interop.from_nnx")
        if not isinstance(module, nnx.Module):
            raise TypeError(f"from_nnx needs a flax.nnx.Module, not a {type(module).__name__}")
        graphdef, state = nnx.split(module)
        variables = dict(nnx.to_flat_state(state))
        template = Template(
            "flax.nnx",
            module,
            key=(graphdef, tuple(map(type, variables.values()))),
            graphdef=graphdef,
            paths=tuple(variables),
            kinds=tuple(variable.replace(None) for variable in variables.values()),
        )
        states = {path: _nnx_state(nnx, variable) for path, variable in variables.items()}
        super().__init__(template, states, call)

    def module(self) -> Any:
        return self._merged({path: self._state(path).value for path in self._paths})

    def _merged(self, values: Mapping[PathParts, Any]) -> Any:
        nnx = _extras.load("flax.nnx", "nnx", "stategraph.interop.from_nnx")
        kinds = zip(self._paths, self.template.kinds, strict=True)
        flat = {path: kind.replace(values[path]) for path, kind in kinds}
        return nnx.merge(self.template.graphdef, nnx.from_flat_state(flat))

    def update(self, *args: Any, **kwargs: Any) -> Any:
        nnx = _extras.load("flax.nnx", "nnx", "stategraph.interop.from_nnx")
        values = {path: self._state(path).value for path in self._paths}
        module = self._merged(values)
        fitting = self._fitting()
        if fitting is not None:
            module.train() if fitting else module.eval()
        result = self._call(module, args, kwargs)
        after = {path: _nnx_value(variable) for path, variable in nnx.to_flat_state(nnx.state(module))}
        self._check_paths(after)
        for path, value in after.items():
            if value is not values[path]:
                self._state(path).value = value
        return result

    def _check_paths(self, after: Mapping[PathParts, Any]) -> None:
        new = [".".join(map(str, path)) for path in after if path not in self._paths]
        if not new and len(after) == len(self._paths):
            return
        raise TraceError(
            describe(
                "The nnx module has other variables after its call than before.",
                at=_jax.here(),
                why=f"new: {', '.join(new[:5])}" if new else "some are gone",
                fix="call the nnx module once before from_nnx, so that all of its variables exist",
            )
        )


def _nnx_value(variable: Any) -> Any:
    return variable.get_value() if hasattr(variable, "get_value") else variable.value


def _nnx_state(nnx: Any, variable: Any) -> State[Any]:
    kinds: list[tuple[Any, type[State[Any]]]] = [
        (nnx.Param, ParamState),
        (nnx.RngState, State),
        ((nnx.Cache, nnx.Intermediate), ShortTermState),
    ]
    kind = next((ours for theirs, ours in kinds if isinstance(variable, theirs)), LongTermState)
    return kind(_nnx_value(variable), tag=type(variable).__name__)


def from_nnx(module: Any, call: Callable[..., Any] | None = None) -> NNXModule:
    """A StateGraph module of a flax nnx module. Needs the extra ``nnx``.

    ``nnx.Param`` become ``ParamState``, other variables ``LongTermState`` (caches and intermediates
    ``ShortTermState``, random keys and counts plain ``State``), each with the name of its type as tag. What
    the call changes in them, such as batch statistics, is written. ``model.train()``, ``model.eval()`` and
    ``environ.context(fit=…)`` reach the module where they are used.

    Args:
      module: the module; it is copied, and later changes of it are not seen.
      call: how it is called, if not as ``module(*args, **kwargs)``: ``call(module, *args, **kwargs)``.

    Raises:
      TypeError: for something that is no nnx module.
      ImportError: without flax.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> from flax import nnx
    >>> layer = sg.interop.from_nnx(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    >>> list(layer.states())
    [('variables', 'bias'), ('variables', 'kernel')]
    >>> layer(jnp.ones((4, 2))).shape
    (4, 3)
    """
    return NNXModule(module, call)


# ---------------------------------------------------------------------------------------------------- equinox


class EquinoxModule(Foreign):
    """An equinox module; made by ``from_equinox``."""

    def __init__(self, module: Any, state: Any, call: Callable[..., Any] | None) -> None:
        eqx = _extras.load("equinox", "equinox", "stategraph.interop.from_equinox")
        if not isinstance(module, eqx.Module):
            raise TypeError(f"from_equinox needs an equinox.Module, not a {type(module).__name__}")
        arrays, static = eqx.partition(module, eqx.is_array)
        keyed, tree = jax.tree_util.tree_flatten_with_path(arrays)
        states = {tuple(map(_step, path)): _equinox_state(leaf) for path, leaf in keyed}
        template = Template(
            "equinox",
            module,
            key=(tree, jax.tree.structure(static), tuple(map(static_key, jax.tree.leaves(static)))),
            tree=tree,
            static=static,
            paths=tuple(states),
        )
        super().__init__(template, states, call)
        self.memory: State[Any] | None = None if state is None else LongTermState(state)

    def module(self) -> Any:
        eqx = _extras.load("equinox", "equinox", "stategraph.interop.from_equinox")
        leaves = [self._state(path).value for path in self._paths]
        module = eqx.combine(jax.tree.unflatten(self.template.tree, leaves), self.template.static)
        fitting = self._fitting()
        return module if fitting is None else eqx.nn.inference_mode(module, value=not fitting)

    def update(self, *args: Any, **kwargs: Any) -> Any:
        if self.memory is None:
            return self._call(self.module(), args, kwargs)
        result, self.memory.value = self._call(self.module(), (*args, self.memory.value), kwargs)
        return result


def _step(key: Any) -> Any:
    for name in ("name", "idx", "key"):
        if hasattr(key, name):
            return getattr(key, name)
    return str(key)


def _equinox_state(leaf: Any) -> State[Any]:
    trained = jnp.issubdtype(leaf.dtype, jnp.inexact)
    return ParamState(leaf) if trained else State(leaf)


def from_equinox(module: Any, state: Any = None, call: Callable[..., Any] | None = None) -> EquinoxModule:
    """A StateGraph module of an equinox module. Needs the extra ``equinox``.

    Its floating-point arrays become ``ParamState``, other arrays ``State``; functions and settings stay as
    they are. ``model.train()``, ``model.eval()`` and ``environ.context(fit=…)`` set equinox's inference mode
    where they are used.

    Args:
      module: the module.
      state: the ``equinox.nn.State`` of a module that has one (``equinox.nn.make_with_state``). It becomes one
        State; the module is called with it as last positional argument, and returns ``(result, state)``.
      call: how the module is called, if not as ``module(*args)``: ``call(module, *args)``, for example with
        ``jax.vmap`` over a batch.

    Raises:
      TypeError: for something that is no equinox module.
      ImportError: without equinox.

    Example:

    >>> import equinox as eqx
    >>> import jax
    >>> import stategraph as sg
    >>> layer = sg.interop.from_equinox(
    ...     eqx.nn.Linear(2, 3, key=jax.random.key(0)), call=lambda layer, x: jax.vmap(layer)(x)
    ... )
    >>> list(layer.states())
    [('variables', 'bias'), ('variables', 'weight')]
    >>> layer(jax.numpy.ones((4, 2))).shape
    (4, 3)
    """
    return EquinoxModule(module, state, call)
