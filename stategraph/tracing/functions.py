"""Arguments of functions: which are static, donated, and what they are called, by the rules of ``jax.jit``."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import attrs
import jax

from stategraph.errors import TraceError, describe
from stategraph.graph.node import Node
from stategraph.state import State


@attrs.frozen
class Signature:
    """Which parameters of a function are static and which are donated, as positions and as names."""

    static_nums: frozenset[int]
    static_names: frozenset[str]
    donate_nums: frozenset[int]
    donate_names: frozenset[str]

    @property
    def plain(self) -> bool:
        return not (self.static_nums or self.static_names or self.donate_nums or self.donate_names)


@attrs.frozen(eq=False)
class Split:
    """One call's arguments, taken apart."""

    key: tuple[int, tuple[Hashable, ...]]
    """What a plan depends on besides types: the static arguments."""
    args: tuple[Any, ...]
    """Positional arguments without static ones; donated ones are None here."""
    kwargs: dict[str, Any]
    given: Any
    """Donated arguments: (by position, by name), None when there are none."""
    rebuild: Callable[[Sequence[Any], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]
    """From dynamic arguments to the function's arguments."""


def signature_of(
    function: Callable[..., Any],
    static_argnums: int | Iterable[int] | None,
    static_argnames: str | Iterable[str] | None,
    donate_argnums: int | Iterable[int] | None,
    donate_argnames: str | Iterable[str] | None,
) -> Signature:
    """Positions from names and names from positions, as ``jax.jit`` infers them."""
    names = _positional_names(function)
    static = _both(names, static_argnums, static_argnames, "static")
    donate = _both(names, donate_argnums, donate_argnames, "donated")
    overlap = (static[0] & donate[0]) | (static[1] & donate[1])
    if overlap:
        raise ValueError(f"an argument cannot be static and donated: {sorted(map(str, overlap))}")
    return Signature(*static, *donate)


def _both(
    names: list[str] | None, nums: Any, given_names: Any, what: str
) -> tuple[frozenset[int], frozenset[str]]:
    numbers = set() if nums is None else {nums} if isinstance(nums, int) else set(nums)
    called = (
        set() if given_names is None else {given_names} if isinstance(given_names, str) else set(given_names)
    )
    if names is not None:
        positional = [name for name in names if not name.startswith("*")]
        count = len(positional)
        for number in numbers:
            if "*args" not in names and not -count <= number < count:
                raise ValueError(
                    f"{what} argument number {number} does not exist: the function has {count} positional parameters"
                )
        if "**kwargs" not in names:
            keyword = [name.lstrip("=") for name in names]
            for name in called:
                if name not in keyword:
                    raise ValueError(
                        f"{what} argument {name!r} does not exist: the parameters are {', '.join(keyword)}"
                    )
        if nums is None:
            numbers |= {i for i, name in enumerate(positional) if name in called and not name.startswith("=")}
        if given_names is None:
            called |= {positional[i] for i in numbers if 0 <= i < count and not positional[i].startswith("=")}
    return frozenset(numbers), frozenset(called)


def _called(function: Any) -> Callable[..., Any]:
    """Whose parameters a call has: those of ``update`` for a Module."""
    if not isinstance(function, Node):
        return function  # type: ignore[no-any-return]
    called: Any = function
    return getattr(called, "update", called)  # type: ignore[no-any-return]


def _positional_names(function: Callable[..., Any]) -> list[str] | None:
    """Parameter names in order; ``*args``/``**kwargs`` as such, keyword-only ones with a leading ``=``."""
    try:
        parameters = inspect.signature(_called(function)).parameters.values()
    except (TypeError, ValueError):
        return None
    found = []
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            found.append("*args")
        elif parameter.kind is parameter.VAR_KEYWORD:
            found.append("**kwargs")
        elif parameter.kind is parameter.KEYWORD_ONLY:
            found.append("=" + parameter.name)
        else:
            found.append(parameter.name)
    return found


class _ByIdentity:
    """A Node or State as a static argument: equal only to itself, and not kept alive."""

    __slots__ = ("number", "reference")

    def __init__(self, obj: Any) -> None:
        self.number = id(obj)
        self.reference = weakref.ref(obj)

    @property
    def alive(self) -> bool:
        return self.reference() is not None

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, _ByIdentity) and self.alive and self.reference() is other.reference()
        )

    def __hash__(self) -> int:
        return self.number


class _Typed:
    """A static argument: ``1``, ``1.0`` and ``True`` are different programs."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Typed)
            and type(self.value) is type(other.value)
            and bool(self.value == other.value)
        )

    def __hash__(self) -> int:
        return hash(self.value)


def _static_key(value: Any, where: str) -> Hashable:
    if isinstance(value, (Node, State)):
        return _ByIdentity(value)
    try:
        hash(value)
    except TypeError:
        raise TraceError(
            describe(
                f"The static argument {where} is a {type(value).__name__}, which is not hashable.",
                why="compiled programs are kept by the values of their static arguments",
                fix="use a hashable value (a tuple instead of a list, a frozen dataclass), or do not mark it static",
            )
        ) from None
    return _Typed(value)


PLAIN = Signature(frozenset(), frozenset(), frozenset(), frozenset())
"""No static arguments but Nodes, and no donated ones."""


def of_dynamic(function: Callable[..., Any], parts: Split) -> Callable[..., Any]:
    """``function`` with the static arguments of one call filled in."""

    def run(*dynamic: Any, **named: Any) -> Any:
        positional, others = parts.rebuild(dynamic, named)
        return function(*positional, **others)

    return run


def nodes_among(function: Callable[..., Any], parts: Split) -> dict[str, Any]:
    """The Nodes among the static arguments of one call, by the names of their parameters."""
    args, kwargs = parts.rebuild(parts.args, parts.kwargs)
    try:
        bound = inspect.signature(_called(function)).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return {}
    kinds = {p.name: p.kind for p in inspect.signature(_called(function)).parameters.values()}
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: value for name, value in bound.items() if isinstance(value, Node) or kinds[name] in several}


def is_dead(key: Any) -> bool:
    """Whether a static argument of a call (see ``Split.key``) is gone, so that the call cannot come again."""
    return any(isinstance(value, _ByIdentity) and not value.alive for _, value in key[1])


def split(signature: Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Split:
    """Take one call's arguments apart."""
    fixed: dict[int, Any] = {}
    fixed_named: dict[str, Any] = {}
    key: list[Hashable] = []
    for i, value in enumerate(args):
        if i in signature.static_nums or i - len(args) in signature.static_nums or isinstance(value, Node):
            fixed[i] = value
            key.append((i, _static_key(value, f"number {i}")))
    for name in sorted(kwargs):
        if name in signature.static_names or isinstance(kwargs[name], Node):
            fixed_named[name] = kwargs[name]
            key.append((name, _static_key(kwargs[name], repr(name))))
    dynamic = [value for i, value in enumerate(args) if i not in fixed]
    numbers = [i for i in range(len(args)) if i not in fixed]
    named = {name: value for name, value in kwargs.items() if name not in fixed_named}
    positions = [
        p
        for p, i in enumerate(numbers)
        if i in signature.donate_nums or i - len(args) in signature.donate_nums
    ]
    donated_names = [name for name in named if name in signature.donate_names]
    given: Any = None
    if positions or donated_names:
        given = ({p: dynamic[p] for p in positions}, {name: named.pop(name) for name in donated_names})
        for p in positions:
            dynamic[p] = None
    total = len(args)

    def rebuild(values: Sequence[Any], others: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        rest = iter(values)
        return tuple(fixed[i] if i in fixed else next(rest) for i in range(total)), {**others, **fixed_named}

    return Split((total, tuple(key)), tuple(dynamic), named, given, rebuild)


def argument_names(
    function: Callable[..., Any], parts: Split, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[str] | None:
    """Names of the leaves of the dynamic arguments ``args`` and ``kwargs``, from the function's parameter names:
    ``x``, ``batch['image']``.
    """
    target = _called(function)
    dynamic = tuple(object() for _ in args)
    given, named = parts.rebuild(dynamic, kwargs)
    try:
        bound = inspect.signature(target).bind(*given, **named)
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        return None
    positional: list[str] = []
    for parameter in parameters:
        if parameter.name not in bound.arguments:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional += [f"{parameter.name}[{i}]" for i in range(len(bound.arguments[parameter.name]))]
        elif (
            parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            and parameter.name not in named
        ):
            positional.append(parameter.name)
    if len(positional) != len(given):
        return None
    ids = set(map(id, dynamic))
    positional = [name for name, value in zip(positional, given, strict=True) if id(value) in ids]
    names = []
    for path, _ in jax.tree_util.tree_flatten_with_path((tuple(args), dict(kwargs)))[0]:
        which, key, *rest = path
        root = positional[key.idx] if which.idx == 0 else str(key.key)
        names.append(root + jax.tree_util.keystr(tuple(rest)))
    return names if len(set(names)) == len(names) else None
