"""Mixins: what classes of models can be besides: described before they are made, of several types at once,
in a mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import attrs

from stategraph.util.static import static_key

T = TypeVar("T")


class Mixin:
    """Base of classes that add one ability to others."""


# ------------------------------------------------------------------------------- described before they are made


class ParamDesc(Mixin):
    """A class whose instances can be described now and made later: ``Class.desc(...)``.

    Example:

    >>> import stategraph as sg
    >>> class Synapse(sg.nn.Module, sg.mixin.ParamDesc):
    ...     def __init__(self, size, tau):
    ...         super().__init__()
    ...         self.size, self.tau = size, tau
    >>> description = Synapse.desc(tau=5.0)
    >>> synapse = description(10)  # where the size is known
    >>> synapse.size, synapse.tau
    (10, 5.0)
    """

    @classmethod
    def desc(cls, *args: Any, **kwargs: Any) -> ParamDescriber[Any]:
        """A description of an instance: some of the arguments to make it with."""
        return ParamDescriber(cls, *args, **kwargs)


class ParamDescriber(Generic[T]):
    """A class with some of the arguments of its instances. Call it with the others.

    Args:
      cls: the class, or any function that makes something.
      *desc_tuple: arguments that come after those of the call.
      **desc_dict: keyword arguments; those of the call come before them.
    """

    def __init__(self, cls: Callable[..., T], *desc_tuple: Any, **desc_dict: Any) -> None:
        if not callable(cls):
            raise TypeError(f"ParamDescriber needs a class, not a {type(cls).__name__}")
        self.cls = cls
        self.args = desc_tuple
        self.kwargs = desc_dict

    def __call__(self, *args: Any, **kwargs: Any) -> T:
        return self.cls(*args, *self.args, **{**self.kwargs, **kwargs})

    init = __call__

    @property
    def identifier(self) -> tuple[Any, ...]:
        """What tells descriptions apart: the class and the arguments; hashable."""
        return (self.cls, static_key(self.args), static_key(self.kwargs))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ParamDescriber) and self.identifier == other.identifier

    def __hash__(self) -> int:
        return hash(self.identifier)

    def __repr__(self) -> str:
        name = getattr(self.cls, "__name__", repr(self.cls))
        parts = [*map(repr, self.args), *(f"{key}={value!r}" for key, value in self.kwargs.items())]
        return f"{name}.desc({', '.join(parts)})"


# ------------------------------------------------------------------------------------------- combined types


class _Combination(type):
    """The class of types that are made of others."""

    members: tuple[type, ...]
    combine: Callable[[Any], bool]

    def __call__(cls, *types: type) -> Any:
        return cls[types]

    def __getitem__(cls, types: type | tuple[type, ...]) -> Any:
        members = tuple(dict.fromkeys(types if isinstance(types, tuple) else (types,)))
        for one in members:
            if not isinstance(one, type):
                raise TypeError(f"{cls.__name__} is made of types, and {one!r} is none")
        if not members:
            raise TypeError(f"{cls.__name__} needs at least one type")
        if len(members) == 1:
            return members[0]
        name = f"{cls.__name__}[{', '.join(one.__name__ for one in members)}]"
        return _Combination(name, (cls,), {"members": members, "__module__": cls.__module__})

    def __instancecheck__(cls, instance: Any) -> bool:
        return cls.combine(isinstance(instance, one) for one in cls.members)

    def __subclasscheck__(cls, other: type) -> bool:
        return cls.combine(issubclass(other, one) for one in cls.members)

    def _key(cls) -> tuple[Any, ...]:
        return (id(cls.__bases__[0]), frozenset(cls.members)) if cls.members else (id(cls),)

    def __eq__(cls, other: object) -> bool:
        return isinstance(other, _Combination) and cls._key() == other._key()

    def __hash__(cls) -> int:
        return hash(cls._key())

    def __repr__(cls) -> str:
        return cls.__name__


class JointTypes(metaclass=_Combination):
    """The type of what is an instance of all of some types.

    Example:

    >>> from stategraph.mixin import JointTypes
    >>> class A: pass
    >>> class B: pass
    >>> class C(A, B): pass
    >>> isinstance(C(), JointTypes[A, B]), isinstance(A(), JointTypes(A, B)), issubclass(C, JointTypes[A, B])
    (True, False, True)
    """

    members = ()
    combine = staticmethod(all)


class OneOfTypes(metaclass=_Combination):
    """The type of what is an instance of one of some types at least.

    Example:

    >>> from stategraph.mixin import OneOfTypes
    >>> isinstance(1, OneOfTypes[int, str]), isinstance(1.0, OneOfTypes[int, str])
    (True, False)
    """

    members = ()
    combine = staticmethod(any)


# ------------------------------------------------------------------------------------------------------ modes


class Mode(Mixin):
    """Base of modes: what a model is used for, and how."""

    def is_a(self, mode: type) -> bool:
        """Whether the mode is exactly of a type."""
        return type(self) is mode

    def has(self, mode: type) -> bool:
        """Whether the mode is, or contains one, of a type."""
        return isinstance(self, mode)


@attrs.frozen
class Batching(Mode):
    """Many samples at once.

    Args:
      batch_size: how many.
      batch_axis: along which axis.
    """

    batch_size: int = 1
    batch_axis: int = 0


@attrs.frozen
class Training(Mode):
    """Parameters are being trained."""


class JointMode(Mode):
    """Several modes at once; their options are attributes of it.

    Example:

    >>> from stategraph.mixin import Batching, JointMode, Training
    >>> mode = JointMode(Batching(32), Training())
    >>> mode.has(Training), mode.is_a(Training), mode.batch_size
    (True, False, 32)
    """

    def __init__(self, *modes: Mode) -> None:
        for one in modes:
            if not isinstance(one, Mode):
                raise TypeError(f"JointMode is made of modes, and {one!r} is none")
        self.modes: tuple[Mode, ...] = tuple(
            part for one in modes for part in (one.modes if isinstance(one, JointMode) else (one,))
        )
        self.types = frozenset(map(type, self.modes))

    def has(self, mode: type) -> bool:
        return any(one.has(mode) for one in self.modes)

    def is_a(self, mode: type) -> bool:
        """Whether the mode is exactly the combination ``JointTypes[...]``, or the single type that it has."""
        members = mode.members if isinstance(mode, _Combination) else (mode,)
        return self.types == frozenset(members)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            for one in self.__dict__.get("modes", ()):
                if hasattr(one, name):
                    return getattr(one, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JointMode) and set(self.modes) == set(other.modes)

    def __hash__(self) -> int:
        return hash(frozenset(self.modes))

    def __repr__(self) -> str:
        return f"JointMode({', '.join(map(repr, self.modes))})"
