"""The program: values, ops, regions, State symbols.

Vocabulary, in the sense of MLIR:

- a **value** is defined once, by an op or as an argument of a region, and has a type;
- an **op** has a name, operands, results, attributes, regions, effects (declared per op name, see
  ``registry``) and a location;
- a **region** is one straight list of ops with arguments; its last op, ``flow.yield``, names what it returns.
  A region may use every value visible where its op stands (it *captures* them), so a loop body lists only
  what changes from trip to trip;
- a **State symbol** ``@net.h`` is one State of the model. State is touched only by ``state.read``,
  ``state.write`` and ``state.alloc``; a symbol is no pointer, so there is no aliasing;
- a **program** is a region with named arguments, named results and a table of State symbols.

``Op`` and ``Value`` compare by identity; programs compare by structure. Edit with ``rewriter.Rewriter``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from stategraph.ir.location import UNKNOWN, Location
from stategraph.ir.tree import LEAF, Tree
from stategraph.ir.types import TensorType, Type, short_dtype

if TYPE_CHECKING:
    from stategraph.ir.effects import Effect

FORMAT_VERSION = 1


class Value:
    """An SSA value: the result of an op, or an argument of a region."""

    __slots__ = ("_users", "event", "index", "name", "owner", "type")

    def __init__(
        self, type: Type, owner: Op | Region | None = None, index: int = 0, name: str | None = None
    ) -> None:
        self.type = type
        self.owner = owner
        self.index = index
        self.name = name
        self.event: str | None = None
        """What ``infer-events`` knows of the elements: one of ``types.EVENTS``, printed ``event<f32[3]>``. It may be
        forgotten at any time, and means nothing to types: a value stands wherever another of its type may."""
        self._users: list[Op] = []

    @property
    def users(self) -> list[Op]:
        """The ops that take this value, each once, in no particular order."""
        return list(dict.fromkeys(self._users))

    @property
    def uses(self) -> list[tuple[Op, int]]:
        """Every (op, operand position) where this value is taken."""
        return [(op, i) for op in self.users for i, operand in enumerate(op.operands) if operand is self]

    @property
    def has_uses(self) -> bool:
        return bool(self._users)

    @property
    def defining_op(self) -> Op | None:
        """The op whose result this is; None for region arguments and constants."""
        return self.owner if isinstance(self.owner, Op) else None

    def __repr__(self) -> str:
        return f"<value %{self.name or '?'} : {self.type}>"


class Constant(Value):
    """A literal operand, written in place; it has no defining op."""

    __slots__ = ("data",)

    def __init__(self, data: Any, type: Type | None = None) -> None:
        array = np.asarray(data)
        super().__init__(type if type is not None else TensorType(short_dtype(array.dtype.name), array.shape))
        self.data = array

    def key(self) -> tuple[Type, bytes]:
        """What makes two constants the same: type and bits."""
        return (self.type, self.data.tobytes())

    def __repr__(self) -> str:
        return f"<constant {self.data} : {self.type}>"


class Op:
    """One operation. Build with ``Op(...)`` and place it with a ``Rewriter`` or by appending to
    ``region.ops`` of a new region."""

    __slots__ = ("attributes", "location", "name", "operands", "parent", "regions", "results")

    def __init__(
        self,
        name: str,
        operands: Iterable[Value] = (),
        result_types: Iterable[Type] = (),
        attributes: dict[str, Any] | None = None,
        regions: Iterable[Region] = (),
        location: Location = UNKNOWN,
    ) -> None:
        self.name = name
        self.operands: list[Value] = list(operands)
        self.attributes: dict[str, Any] = {} if attributes is None else attributes
        self.location = location
        self.parent: Region | None = None
        self.results: list[Value] = [Value(type, self, i) for i, type in enumerate(result_types)]
        self.regions: list[Region] = list(regions)
        for operand in self.operands:
            operand._users.append(self)
        for region in self.regions:
            region.owner = self

    @property
    def result(self) -> Value:
        """The only result; a ``ValueError`` when there is not exactly one."""
        (value,) = self.results
        return value

    @property
    def effects(self) -> tuple[Effect, ...]:
        """What the op does besides computing its results, regions included."""
        from stategraph.ir.registry import effects_of

        return effects_of(self)

    @property
    def symbol(self) -> str:
        """The path of the State that a ``state.*`` op touches."""
        path: str = self.attributes["symbol"]
        return path

    def walk(self, *names: str) -> Iterator[Op]:
        """Every op inside this op's regions, outermost first, optionally only those with one of ``names``."""
        for region in self.regions:
            yield from region.walk(*names)

    def __repr__(self) -> str:
        results = ", ".join(f"%{r.name or '?'}" for r in self.results)
        return f"<op {results + ' = ' if results else ''}{self.name} at {self.location}>"


class Region:
    """A body: arguments and a list of ops that ends with ``flow.yield``."""

    __slots__ = ("args", "ops", "owner")

    def __init__(self, arg_types: Iterable[Type] = (), names: Iterable[str | None] | None = None) -> None:
        self.args: list[Value] = [Value(type, self, i) for i, type in enumerate(arg_types)]
        if names is not None:
            for arg, name in zip(self.args, names, strict=True):
                arg.name = name
        self.ops: list[Op] = []
        self.owner: Op | Program | None = None

    def append(self, op: Op) -> Op:
        """Put ``op`` at the end (while building a region)."""
        op.parent = self
        self.ops.append(op)
        return op

    def yield_(self, values: Iterable[Value], location: Location = UNKNOWN) -> Op:
        """Close the region: its results are ``values``."""
        return self.append(Op("flow.yield", values, location=location))

    @property
    def terminator(self) -> Op:
        return self.ops[-1]

    @property
    def yielded(self) -> list[Value]:
        """What the region returns."""
        return self.ops[-1].operands

    @property
    def parent_op(self) -> Op | None:
        return self.owner if isinstance(self.owner, Op) else None

    def walk(self, *names: str) -> Iterator[Op]:
        """Every op in this region and below, outermost first, optionally only those with one of ``names``."""
        for op in list(self.ops):
            if not names or op.name in names:
                yield op
            for region in op.regions:
                yield from region.walk(*names)


@attrs.define(eq=False)
class StateSymbol:
    """One State of the model, as the program knows it.

    ``types`` are the leaf types at entry (for a State born in the trace: when it is born) and ``tree`` how
    they nest. ``final_types``/``final_tree`` differ from them only when the program changes the State's type.
    """

    path: str
    """Identity and name, e.g. ``net.E.V``; printed ``@net.E.V``."""
    kind: str
    """Name of the State class, e.g. ``ParamState``."""
    types: tuple[Type, ...]
    tree: Tree = LEAF
    final_types: tuple[Type, ...] | None = None
    final_tree: Tree | None = None
    born: bool = False
    """Created while tracing and alive afterwards: an output of the program that is no input."""
    initial: tuple[Any, ...] | None = None
    """Leaf arrays at trace time, when they are to travel with the program."""
    attributes: dict[str, Any] = attrs.Factory(dict)
    location: Location = UNKNOWN
    """Where the State was created."""

    @property
    def nbytes(self) -> int:
        return sum(type.nbytes for type in self.types)

    @property
    def result_types(self) -> tuple[Type, ...]:
        return self.types if self.final_types is None else self.final_types

    @property
    def result_tree(self) -> Tree:
        return self.tree if self.final_tree is None else self.final_tree


@attrs.define(eq=False)
class Program:
    """A named program over State.

    ``body.args`` are the leaves of the arguments, then the captured arrays. ``argument_names`` names each of
    them; ``captured`` maps the names of captured ones to their arrays. ``body.yielded`` are the leaves of the
    results, named by ``result_names``.
    """

    name: str
    body: Region
    states: dict[str, StateSymbol] = attrs.Factory(dict)
    argument_names: list[str] = attrs.Factory(list)
    argument_tree: Tree = attrs.field(factory=lambda: Tree("tuple"))
    captured: dict[str, Any] = attrs.Factory(dict)
    result_names: list[str] = attrs.Factory(list)
    result_tree: Tree = attrs.field(factory=lambda: Tree("tuple"))
    attributes: dict[str, Any] = attrs.Factory(dict)
    location: Location = UNKNOWN
    version: int = FORMAT_VERSION

    def __attrs_post_init__(self) -> None:
        self.body.owner = self

    def walk(self, *names: str) -> Iterator[Op]:
        """Every op of the program, outermost first, optionally only those with one of ``names``:
        ``program.walk('flow.scan')``."""
        return self.body.walk(*names)

    @property
    def arguments(self) -> list[Value]:
        """The leaves of the arguments, without captured arrays."""
        return self.body.args[: len(self.body.args) - len(self.captured)]

    @property
    def captured_args(self) -> list[Value]:
        return self.body.args[len(self.body.args) - len(self.captured) :]

    @property
    def results(self) -> list[Value]:
        return self.body.yielded

    @property
    def functional(self) -> bool:
        """Whether State is read only at entry and written only at exit, with no access inside any region."""
        from stategraph.ir.forms import is_functional

        return is_functional(self)

    def copy(self) -> Program:
        """An independent copy (arrays and locations are shared)."""
        from stategraph.ir.clone import clone_program

        return clone_program(self)

    def to_text(self, *, locations: bool = True, resources: bool = True) -> str:
        """The text form; ``stategraph.ir.parse`` reads it back.

        Without ``locations`` or ``resources`` (the bits of large arrays) it is for reading only.
        """
        from stategraph.ir.printer import print_program

        return print_program(self, locations=locations, resources=resources)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Program):
            return NotImplemented
        from stategraph.ir.structure import structure

        return structure(self) == structure(other)

    def __hash__(self) -> int:
        return id(self)

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        count = sum(1 for _ in self.walk())
        return f"<program @{self.name}: {count} ops, {len(self.states)} states>"

    def _repr_html_(self) -> str:
        from stategraph.ir.html import program_html

        return program_html(self)
