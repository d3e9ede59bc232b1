"""What a pass is: a named, frozen bundle of options with a ``run`` that edits a program in place.

    @stategraph.passes.register
    @attrs.frozen
    class DropPrints(Pass):
        '''Remove debug prints.'''

        name = "drop-prints"
        ordered: bool = False
        '''Remove ordered prints as well.'''

        def run(self, program: Program, context: Context) -> None: ...

``name`` is its spelling in a pipeline, the fields are its options, ``drop-prints{ordered=true}``. A pass says
nothing about what it changed: the manager compares fingerprints where somebody wants to know. What is worth
telling the user goes through ``context.report`` and ``context.explain``.

*Exactness* is what a pass promises about the values of the program, of the IR evaluated op by op: ``exact``
(the same bits for all inputs, NaN, infinities and signed zeros included), ``reduction-order`` (only reorders
sums whose order the backend leaves open), ``fast-math`` (equal in real arithmetic).
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import re
import textwrap
import types
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from stategraph.ir.core import Program
from stategraph.ir.errors import StateGraphError

if TYPE_CHECKING:
    from stategraph.passes.context import Context

EXACTNESS = ("exact", "reduction-order", "fast-math")
"""The levels, strictest first; a level allows itself and all before it."""

SCALARS = (bool, int, float, str)
_BARE = re.compile(r"[A-Za-z_][\w./@-]*\Z")


class PassError(StateGraphError):
    """A pass or pipeline that cannot be used as written, or a pass that did what no pass may do."""


@attrs.frozen
class Option:
    """One option of a pass: a field of its class."""

    name: str
    type: Any
    default: Any
    summary: str = ""

    @property
    def type_name(self) -> str:
        return type_name(self.type)

    def __str__(self) -> str:
        return f"{self.name}: {self.type_name} = {spell(self.default)}"


@attrs.frozen
class Pass:
    """Base class of passes. Subclasses are frozen attrs classes; every field is an option with a default."""

    name: ClassVar[str] = ""
    """How a pipeline spells the pass."""
    exactness: ClassVar[str] = "exact"
    """What the pass keeps: one of ``EXACTNESS``."""
    preserves: ClassVar[tuple[Callable[[Program], Any], ...]] = ()
    """Analyses that stay valid although the pass edits the program."""

    def run(self, program: Program, context: Context) -> None:
        """Edit ``program`` in place."""
        raise NotImplementedError(f"{type(self).__name__} has no run method")

    @classmethod
    def options(cls) -> tuple[Option, ...]:
        """The options with their types, defaults and one line each on what they do."""
        return options_of(cls)

    @classmethod
    def summary(cls) -> str:
        """The first paragraph of the docstring, on one line."""
        return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())

    def __str__(self) -> str:
        """The spelling: ``name{option=value}`` with the options that differ from their defaults."""
        given = [
            (o.name, getattr(self, o.name)) for o in self.options() if getattr(self, o.name) != o.default
        ]
        return self.name + ("{" + " ".join(f"{k}={spell(v)}" for k, v in given) + "}" if given else "")


def allows(level: str, exactness: str) -> bool:
    """Whether something of this exactness may run where ``level`` was chosen."""
    return EXACTNESS.index(exactness) <= EXACTNESS.index(level)


def check_exactness(level: str) -> str:
    """``level`` itself when it is one; raises ``PassError`` otherwise."""
    if level not in EXACTNESS:
        raise PassError(f"exactness is one of {', '.join(map(repr, EXACTNESS))}, not {level!r}")
    return level


def spell(value: Any) -> str:
    """An option's value as a pipeline spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"({', '.join(map(spell, value))})"
    if isinstance(value, str):
        return value if _BARE.match(value) and value != "none" else json.dumps(value)
    return repr(value)


def type_name(type_: Any) -> str:
    """An option's type as a user reads it."""
    return type_.__name__ if type_ in SCALARS else str(type_).replace("NoneType", "none")


_OPTIONS: dict[type[Pass], tuple[Option, ...]] = {}


def options_of(cls: type[Pass]) -> tuple[Option, ...]:
    """The options of a pass class. Raises ``PassError`` for a field that no pipeline could spell."""
    if cls not in _OPTIONS:
        _OPTIONS[cls] = _read_options(cls)
    return _OPTIONS[cls]


def _read_options(cls: type[Pass]) -> tuple[Option, ...]:
    if "__attrs_attrs__" not in vars(cls):
        why = "put @attrs.frozen between @register and it, so that its fields are its options"
        raise PassError(f"{cls.__name__} is no attrs class: {why}")
    try:
        hints = typing.get_type_hints(cls)
    except NameError:
        hints = {}
    docs = _field_docs(cls)
    found = []
    for field in attrs.fields(cls):
        type_ = hints.get(field.name, field.type)
        if field.default is attrs.NOTHING or isinstance(field.default, attrs.Factory):  # type: ignore[arg-type]
            raise PassError(f"option {field.name!r} of pass {cls.name!r} has no plain default value")
        if not _is_option_type(type_):
            raise PassError(
                f"option {field.name!r} of pass {cls.name!r} has type {type_!r}; "
                "options are bool, int, float, str, tuples of one of them, or one of these | None"
            )
        found.append(Option(field.name, type_, field.default, docs.get(field.name, "")))
    return tuple(found)


def union_member(type_: Any) -> Any:
    """``T`` for ``T | None``, else None."""
    if typing.get_origin(type_) not in (types.UnionType, typing.Union):
        return None
    members = [member for member in typing.get_args(type_) if member is not types.NoneType]
    return members[0] if len(members) == 1 and len(typing.get_args(type_)) == 2 else None


def _is_option_type(type_: Any) -> bool:
    if type_ in SCALARS:
        return True
    if typing.get_origin(type_) is tuple:
        arguments = typing.get_args(type_)
        return len(arguments) == 2 and arguments[0] in SCALARS and arguments[1] is Ellipsis
    member = union_member(type_)
    return member is not None and _is_option_type(member)


def _field_docs(cls: type) -> dict[str, str]:
    """The docstrings under the fields, as far as the source can be read."""
    try:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return {}
    found: dict[str, str] = {}
    body = getattr(node, "body", [])
    for field, doc in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(doc, ast.Expr)
        ):
            if isinstance(doc.value, ast.Constant) and isinstance(doc.value.value, str):
                found[field.target.id] = " ".join(doc.value.value.split())
    return found
