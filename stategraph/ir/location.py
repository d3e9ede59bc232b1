"""Locations: the line of the user's program that an op comes from, and its name scope.

Finding the user's frame in a traceback costs more than making the op, so a location is resolved when first
looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Location:
    """File, line, function and name scope (``jax.named_scope``); empty fields when unknown.

    ``source`` is what the tracer recorded (kept so that the compiler below can be told the same thing), and
    ``note`` what it knows for an error at this op (of lanes: a ``backends.vmap.Called``); they take no part in
    comparison.
    """

    __slots__ = ("_fallback", "_fields", "_resolve", "note", "source")

    def __init__(
        self, file: str = "", line: int = 0, function: str = "", scope: str = "", source: Any = None
    ) -> None:
        self._fields: tuple[str, int, str, str] | None = (file, line, function, scope)
        self._resolve: Callable[[Any], tuple[str, int, str, str]] | None = None
        self._fallback: Location | None = None
        self.source = source
        self.note: Any = None

    @classmethod
    def deferred(
        cls,
        source: Any,
        resolve: Callable[[Any], tuple[str, int, str, str]],
        fallback: Location | None = None,
    ) -> Location:
        """A location whose fields are computed by ``resolve(source)`` when first needed; ``fallback``'s when
        that finds no file."""
        self = object.__new__(cls)
        self._fields = None
        self._resolve = resolve
        self._fallback = fallback
        self.source = source
        self.note = None
        return self

    @property
    def fields(self) -> tuple[str, int, str, str]:
        if self._fields is None:
            assert self._resolve is not None
            self._fields = self._resolve(self.source)
            if not self._fields[0] and self._fallback is not None:
                self._fields = self._fallback.fields
        return self._fields

    @property
    def file(self) -> str:
        return self.fields[0]

    @property
    def line(self) -> int:
        return self.fields[1]

    @property
    def function(self) -> str:
        return self.fields[2]

    @property
    def scope(self) -> str:
        return self.fields[3]

    @property
    def known(self) -> bool:
        return bool(self.file)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Location) and self.fields == other.fields

    def __hash__(self) -> int:
        return hash(self.fields)

    def __str__(self) -> str:
        file, line, function, scope = self.fields
        place = f"{file}:{line}" if file and line else file or "unknown place"
        if function:
            place += f" ({function})"
        return f"{place} in scope {scope}" if scope else place

    def __repr__(self) -> str:
        return f"Location({self})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Location, self.fields)


UNKNOWN = Location()
