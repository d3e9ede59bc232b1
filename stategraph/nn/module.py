"""Module: a Node that computes. Write ``update``; calling the module calls it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

from stategraph.errors import describe
from stategraph.graph.convert import treefy_states
from stategraph.graph.node import Node
from stategraph.graph.walk import ALL_LEVELS, iter_children, nodes, states
from stategraph.mixin import ParamDesc
from stategraph.nn.module_views import Collection, dotted
from stategraph.nn.watch import WATCHING
from stategraph.state import ParamState
from stategraph.typing import Filter, PathParts, Size
from stategraph.util.filter import All, to_predicate


class Module(Node, ParamDesc):
    """Base class of models and layers.

    Args:
      name: a name for messages and listings.

    Example:

    >>> import jax.numpy as jnp
    >>> import stategraph as sg
    >>> class Scale(sg.nn.Module):
    ...     def __init__(self, scale):
    ...         super().__init__()
    ...         self.scale = scale
    ...     def update(self, x):
    ...         return x * self.scale
    >>> layer = Scale(2.0)
    >>> layer(3.0), 3.0 >> layer
    (6.0, 6.0)
    """

    __array_ufunc__ = None

    training: bool | None = None
    """Whether the module is being trained; None when nobody has said so. See ``train``."""

    _in_size: tuple[int, ...] | None
    _out_size: tuple[int, ...] | None

    def __init__(self, name: str | None = None) -> None:
        self._name = name

    if not TYPE_CHECKING:  # an annotation of State promises an attribute that init_state may have to make

        def __getattr__(self, name: str) -> Any:
            if name not in _states_of(type(self)):
                return super().__getattribute__(name)  # Python's own error, or that of a property
            raise AttributeError(
                describe(
                    f"{type(self).__name__} has no State {name!r} yet.",
                    why="init_state makes it",
                    fix="stategraph.nn.init_all_states(model) before the first step",
                )
            )

    @property
    def name(self) -> str | None:
        """The name given at construction; read-only."""
        found: str | None = getattr(self, "_name", None)
        return found

    @property
    def in_size(self) -> tuple[int, ...] | None:
        """The shape of one input, without batch axes; None where the module does not say."""
        found: tuple[int, ...] | None = getattr(self, "_in_size", None)
        return found

    @in_size.setter
    def in_size(self, size: Size) -> None:
        self._in_size = _shape(size)

    @property
    def out_size(self) -> tuple[int, ...] | None:
        """The shape of one output, without batch axes; None where the module does not say."""
        found: tuple[int, ...] | None = getattr(self, "_out_size", None)
        return found

    @out_size.setter
    def out_size(self, size: Size) -> None:
        self._out_size = _shape(size)

    # -------------------------------------------------------------------------------------------- computing

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; subclasses write it."""
        raise NotImplementedError(
            f"{type(self).__name__} has no update method; write `def update(self, x): ...`"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        watcher = WATCHING.watcher
        return self.update(*args, **kwargs) if watcher is None else watcher.called(self, args, kwargs)

    def __rrshift__(self, other: Any) -> Any:
        """``x >> module`` is ``module(x)``."""
        return self(other)

    # ------------------------------------------------------------------------------- training and evaluating

    def train(self, mode: bool = True) -> Self:
        """Say of this module and those below it that they are being trained: dropout drops, batch normalisation
        uses the batch. The setting ``fit`` of ``stategraph.environ`` overrides it.

        Args:
          mode: False for evaluation.

        Returns:
          The module.

        Example:

        >>> import jax.numpy as jnp
        >>> import stategraph as sg
        >>> layer = sg.nn.Dropout(0.5)
        >>> bool((layer.eval()(jnp.ones(3)) == 1).all()), bool((layer.train()(jnp.ones(100)) == 0).any())
        (True, True)
        """
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Say of this module and those below it that they are not being trained; see ``train``."""
        return self.train(False)

    def is_fitting(self) -> bool:
        """Whether the module is being trained, for layers to ask in ``update``: what ``environ`` says under
        ``fit``, else ``training``; False when neither is set.
        """
        from stategraph.nn.mode import is_fitting

        return is_fitting(self)

    # ------------------------------------------------------------------------------------ life of its State

    def init_state(self, *args: Any, **kwargs: Any) -> None:
        """Create the State that depends on how the module is used, such as the batch size. A hook: does
        nothing.

        ``stategraph.nn.init_all_states`` calls it on every module of a model, the inner ones first, with the
        keyword arguments that it accepts; a module need not call it on the modules that it holds.
        """

    def reset_state(self, *args: Any, **kwargs: Any) -> None:
        """Put the State back to where ``init_state`` left it. A hook: does nothing.

        ``stategraph.nn.reset_all_states`` calls it on every module of a model, like ``init_state``.
        """

    def init_all_states(
        self, *args: Any, node_to_exclude: Filter = None, fn_if_not_exist: str = "pass", **kwargs: Any
    ) -> Module:
        """``stategraph.nn.init_all_states`` of this module; gives the module."""
        from stategraph.nn.collective import init_all_states

        init_all_states(
            self, *args, node_to_exclude=node_to_exclude, fn_if_not_exist=fn_if_not_exist, **kwargs
        )
        return self

    def reset_all_states(
        self, *args: Any, node_to_exclude: Filter = None, fn_if_not_exist: str = "pass", **kwargs: Any
    ) -> Module:
        """``stategraph.nn.reset_all_states`` of this module; gives the module."""
        from stategraph.nn.collective import reset_all_states

        reset_all_states(
            self, *args, node_to_exclude=node_to_exclude, fn_if_not_exist=fn_if_not_exist, **kwargs
        )
        return self

    # ---------------------------------------------------------------------------------------- what it holds

    def states(self, *filters: Filter, allowed_hierarchy: tuple[int, int] = ALL_LEVELS) -> Any:
        """The States below this module by path; see ``stategraph.graph.states``."""
        return states(self, *filters, allowed_hierarchy=allowed_hierarchy)

    def state_trees(self, *filters: Filter) -> Any:
        """The values of the States below this module as pytrees; see ``stategraph.graph.treefy_states``."""
        return treefy_states(self, *filters)

    def nodes(self, *filters: Filter, allowed_hierarchy: tuple[int, int] = ALL_LEVELS) -> Any:
        """The Nodes below this module by path, itself last, under ``()``; see ``stategraph.graph.nodes``."""
        return nodes(self, *filters, allowed_hierarchy=allowed_hierarchy)

    def children(self) -> Collection[Module]:
        """The modules that this one holds directly, also in its lists, tuples and dicts.

        Example:

        >>> import stategraph as sg
        >>> class Net(sg.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layers = [sg.nn.Module(), sg.nn.Module()]
        >>> [type(child).__name__ for child in Net().children()], list(Net().children().keys())
        (['Module', 'Module'], [('layers', 0), ('layers', 1)])
        """
        return Collection((path, node) for path, node in iter_children(self) if isinstance(node, Module))

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(dotted name, module) of the modules that this one holds directly."""
        return ((dotted(path), child) for path, child in self.children().items())

    def modules(self, include_self: bool = True) -> Collection[Module]:
        """All modules of the model, each once, what a module holds before it. Iterate over it, or use it by
        path.

        Args:
          include_self: whether this module is one of them (the last).
        """
        return Collection(
            (path, node)
            for path, node in nodes(self).items()
            if isinstance(node, Module) and (include_self or node is not self)
        )

    def named_modules(self, prefix: str = "", include_self: bool = True) -> Iterator[tuple[str, Module]]:
        """(dotted name, module) of all modules of the model; the name of this module is the prefix.

        Args:
          prefix: what the names begin with.
          include_self: whether this module is one of them (the last).
        """
        return ((dotted(path, prefix), module) for path, module in self.modules(include_self).items())

    # ------------------------------------------------------------------------------------------- parameters

    def parameters(self, recurse: bool = True) -> Collection[Any]:
        """The trainable parameters: the ``Param`` modules, and the ``ParamState`` that belong to none.

        Args:
          recurse: whether those of inner modules count, or only those that this module holds itself.
        """
        from stategraph.nn.module_params import Param

        levels = ALL_LEVELS if recurse else (0, 1)
        owners = {
            id(state): (path, param)
            for path, param in nodes(self, Param, allowed_hierarchy=levels).items()
            for state in states(param).values()
        }
        own = None if recurse else {id(state) for state in states(self, allowed_hierarchy=(0, 0)).values()}
        found: dict[PathParts, Any] = {}
        for path, state in states(self, ParamState).items():
            if id(state) in owners:
                where, param = owners[id(state)]
                found[where] = param
            elif own is None or id(state) in own:
                found[path] = state
        return Collection(found.items())

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Any]]:
        """(dotted name, parameter) of the trainable parameters; see ``parameters``."""
        return ((dotted(path, prefix), found) for path, found in self.parameters(recurse).items())

    def param_modules(
        self, *filters: Filter, allowed_hierarchy: tuple[int, int] = ALL_LEVELS
    ) -> Collection[Any]:
        """The ``Param`` modules of the model, trainable or constant.

        Args:
          *filters: which of them; all filters have to match.
          allowed_hierarchy: the lowest and highest level wanted; Params that this module holds itself are
            at level 1.
        """
        from stategraph.nn.module_params import Param

        if filters and _is_hierarchy(filters[0]):
            allowed_hierarchy, *rest = filters
            filters = tuple(rest)
        wanted = All(Param, *map(to_predicate, filters))
        return Collection(nodes(self, wanted, allowed_hierarchy=allowed_hierarchy).items())

    def named_param_modules(
        self, *filters: Filter, allowed_hierarchy: tuple[int, int] = ALL_LEVELS
    ) -> Iterator[tuple[str, Any]]:
        """(dotted name, ``Param``) of the ``Param`` modules of the model; see ``param_modules``."""
        found = self.param_modules(*filters, allowed_hierarchy=allowed_hierarchy)
        return ((dotted(path), param) for path, param in found.items())

    par_modules = para_modules = param_modules
    named_para_modules = named_param_modules

    def param_precompute(
        self, *filters: Filter, allowed_hierarchy: tuple[int, int] = ALL_LEVELS
    ) -> AbstractContextManager[None]:
        """``with model.param_precompute():`` computes the value of each ``Param`` once for the block.

        A value is computed again when its State changed. Traced code in the block computes values where it
        reads them, as it does without the block, and the compiler computes equal ones once: gradients and
        ``jit`` are safe.

        Args:
          *filters: which ``Param`` modules; see ``param_modules``.
          allowed_hierarchy: their lowest and highest level.

        Example:

        >>> import jax.numpy as jnp
        >>> import stategraph as sg
        >>> class Gain(sg.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.gain = sg.nn.Param(jnp.ones(100), t=sg.nn.SoftplusT())
        >>> model = Gain()
        >>> with model.param_precompute():
        ...     model.gain.value() is model.gain.value()
        True
        """
        from stategraph.nn.param_cache import keeping

        return keeping(self.param_modules(*filters, allowed_hierarchy=allowed_hierarchy))

    def reg_loss(self, *filters: Filter, allowed_hierarchy: tuple[int, int] = ALL_LEVELS) -> Any:
        """What the values of the ``Param`` modules cost together, a scalar; 0.0 when none has a regulariser.

        Args:
          *filters: which ``Param`` modules; see ``param_modules``.
          allowed_hierarchy: their lowest and highest level.
        """
        found = self.param_modules(*filters, allowed_hierarchy=allowed_hierarchy)
        return sum((param._cost() for param in found if param.reg is not None), 0.0)


def _shape(size: Size) -> tuple[int, ...]:
    return tuple(whole(part) for part in (size if isinstance(size, (tuple, list)) else (size,)))


def whole(number: Any) -> int:
    """A length of a shape. Raises ``ValueError`` for what is none; ``0.8 * 4000`` is one."""
    try:
        found = int(number)
    except (TypeError, ValueError):
        found = -1
    if found < 0 or found != number:
        raise ValueError(f"a size is a whole number, or a tuple of these, not {number!r}")
    return found


def _states_of(cls: type) -> frozenset[str]:
    """The attributes that a class says are States."""
    if cls not in _STATES:
        said = [item for base in cls.__mro__ for item in _annotations(base).items()]
        _STATES[cls] = frozenset(
            name for name, kind in said if isinstance(kind, str) and re.match(r"\w*State\b", kind)
        )
    return _STATES[cls]


_STATES: WeakKeyDictionary[type, frozenset[str]] = WeakKeyDictionary()


def _annotations(cls: type) -> dict[str, Any]:
    try:
        return inspect.get_annotations(cls)
    except Exception:  # Python 3.14 evaluates them, and their names may be there for type checkers only
        return {}


def _is_hierarchy(found: Any) -> bool:
    return isinstance(found, tuple) and len(found) == 2 and all(type(level) is int for level in found)
