"""A program from text: a recursive descent over the grammar in ``docs/ir-text.md``.

The tables at the end of the text (places, large arrays) are read first, because ops refer to them. Parsing
checks what the text alone can tell: names are defined before they are used, once. Everything else is the
verifier's.
"""

from __future__ import annotations

import difflib
from typing import Any

from stategraph.ir.arrays import KeyData, decode
from stategraph.ir.core import FORMAT_VERSION, Op, Program, Region, StateSymbol, Value
from stategraph.ir.lexer import Tokens
from stategraph.ir.location import UNKNOWN, Location
from stategraph.ir.syntax import FORMS, Form
from stategraph.ir.tree import LEAF, Tree
from stategraph.ir.types import KeyType, TensorType, Type
from stategraph.ir.value_parser import Refined, ValueParser

Binding = tuple[str, Value, Refined, int]
"""Name, operand, refined type and token index of one ``%c = %init : f32[]``."""


def parse(text: str, filename: str = "<text>") -> Program:
    """The program that ``text`` spells; ``parse(str(program)) == program``.

    Raises ``ParseError`` with line, column and what was expected there.
    """
    return Parser(text, filename).program()


class Parser(ValueParser):
    """Reads one program."""

    def __init__(self, text: str, filename: str) -> None:
        super().__init__(Tokens(text, filename))
        self._values: dict[str, Value] = {}
        self._locations: dict[str, Location] = {}

    # -------------------------------------------------------------------------------------------- the program

    def program(self) -> Program:
        tokens = self.tokens
        version = self._version()
        end = self._tables()
        program = self._head(version)
        tokens.expect("{")
        while tokens.at("state"):
            self._symbol(program)
        self._ops(program.body, program.body.args)
        self._check_results(program)
        if tokens.index != end:
            tokens.fail(f"expected the end of the program, found {tokens.found()}")
        return program

    def _version(self) -> int:
        self.tokens.expect("stategraph")
        index = self.tokens.index
        version = self.tokens.take_int("the version of the format")
        if not 1 <= version <= FORMAT_VERSION:
            self.tokens.fail(
                f"this text has format {version}, and this StateGraph reads formats 1 to {FORMAT_VERSION}",
                index,
            )
        return version

    def _tables(self) -> int:
        """Read the tables behind the program; the index of the token where they begin."""
        tokens = self.tokens
        start = tokens.index
        marks = [i for i, text in enumerate(tokens.texts) if text == "{-#" and tokens.kinds[i] == "mark"]
        end = len(tokens.texts) - 1
        if marks:
            end = marks[0]
            tokens.seek(marks[0] + 1)
            while not tokens.accept("#-}"):
                self._resource()
            if tokens.kind != "end":
                tokens.fail(f"expected the end of the text, found {tokens.found()}")
        places = [
            i
            for i, text in enumerate(tokens.texts[: end - 1])
            if text == "locations" and tokens.texts[i + 1] == "{"
        ]
        if places and tokens.kinds[places[-1]] == "word":
            tokens.seek(places[-1] + 2)
            while not tokens.accept("}"):
                self._place()
            if tokens.index != end:
                tokens.fail(f"expected the end of the text, found {tokens.found()}")
            end = places[-1]
        tokens.seek(start)
        return end

    def _resource(self) -> None:
        tokens = self.tokens
        name = tokens.take("resource")
        tokens.expect(":")
        index = tokens.index
        type = self.type()
        raw = self.type() if isinstance(type, KeyType) else type
        if not isinstance(raw, TensorType):
            tokens.fail("a resource has a tensor type", index)
        tokens.expect("=")
        rows = [tokens.take("string")[1:-1]]
        while tokens.kind == "string":
            rows.append(tokens.next()[1:-1])
        try:
            data = decode("".join(rows), raw.dtype, raw.shape)
        except ValueError as error:
            tokens.fail(f"the bits of resource {name} do not fit: {error}", index)
        self.resources[name] = KeyData(type.impl, data) if isinstance(type, KeyType) else data

    def _place(self) -> None:
        tokens = self.tokens
        number = tokens.take("location", "a location such as #0")
        tokens.expect("=")
        file = tokens.take_string("the name of a file")
        tokens.expect(":")
        line = tokens.take_int("a line number")
        function = tokens.take_string() if tokens.accept("in") else ""
        scope = tokens.take_string() if tokens.accept("scope") else ""
        self._locations[number] = Location(file, line, function, scope)

    def _head(self, version: int) -> Program:
        tokens = self.tokens
        tokens.expect("program")
        name = tokens.take_path()
        body = Region()
        tokens.expect("(")
        names = self.list_until(")", lambda: self._argument(body))
        argument_tree = self._tree_clause(len(names))
        captured: dict[str, Any] = {}
        if tokens.accept("captures"):
            tokens.expect("(")
            self.list_until(")", lambda: self._captured(body, captured))
        tokens.expect("->")
        tokens.expect("(")
        self._result_types: list[tuple[Type | None, int]] = []
        result_names = self.list_until(")", self._result)
        result_tree = self._tree_clause(len(result_names))
        attributes: dict[str, Any] = {}
        if tokens.accept("attributes"):
            tokens.expect("{")
            attributes = self.attributes("}")
        return Program(
            name=name,
            body=body,
            argument_names=names + list(captured),
            argument_tree=argument_tree,
            captured=captured,
            result_names=result_names,
            result_tree=result_tree,
            attributes=attributes,
            location=self._location(),
            version=version,
        )

    def _tree_clause(self, leaves: int) -> Tree:
        return self.tree() if self.tokens.accept("tree") else Tree("tuple", (LEAF,) * leaves)

    def _argument(self, body: Region) -> str:
        tokens = self.tokens
        index = tokens.index
        text = tokens.take("value")
        name = tokens.take_string() if tokens.kind == "string" else text[1:]
        tokens.expect(":")
        arg = _value(self.refined(), body, len(body.args), text)
        body.args.append(arg)
        self._define(text, arg, index)
        return name

    def _captured(self, body: Region, captured: dict[str, Any]) -> None:
        index = self.tokens.index
        name = self._argument(body)
        if name in captured:
            self.tokens.fail(f"two captured arrays are called {name!r}", index)
        self.tokens.expect("=")
        captured[name] = self.resource()

    def _result(self) -> str:
        name = self.tokens.take_name("the name of a result")
        index = self.tokens.index
        self._result_types.append((self.type(), index) if self.tokens.accept(":") else (None, index))
        return name

    def _check_results(self, program: Program) -> None:
        """The types in the head are there for the reader; they must not say anything else than the body."""
        ops = program.body.ops
        if not ops or len(ops[-1].operands) != len(self._result_types):
            return
        for value, (type, index) in zip(program.body.yielded, self._result_types, strict=True):
            if type is not None and type != value.type:
                self.tokens.fail(f"the program's body yields {value.type} here, not {type}", index + 1)

    def _symbol(self, program: Program) -> None:
        tokens = self.tokens
        tokens.expect("state")
        born = tokens.accept("born")
        index = tokens.index
        path = tokens.take_path()
        if path in program.states:
            tokens.fail(f"two States are called @{path}", index)
        tokens.expect(":")
        kind = tokens.take_name("the class of a State")
        tree, types = self._typed_tree()
        final = self._typed_tree() if tokens.accept("->") else (None, None)
        attributes = self.attributes("}") if tokens.accept("{") else {}
        initial = None
        if tokens.accept("="):
            tokens.expect("[")
            initial = tuple(self.list_until("]", self.resource))
        program.states[path] = StateSymbol(
            path, kind, types, tree, final[1], final[0], born, initial, attributes, self._location()
        )

    def _typed_tree(self) -> tuple[Tree, tuple[Type, ...]]:
        types: list[Type] = []
        self.tokens.expect("<")
        tree = self.tree(lambda: types.append(self.type()))
        self.tokens.expect(">")
        return tree, tuple(types)

    # ------------------------------------------------------------------------------------------ names, places

    def _location(self) -> Location:
        tokens = self.tokens
        if tokens.kind != "location":
            return UNKNOWN
        found = self._locations.get(tokens.text)
        if found is None:
            tokens.fail(f"there is no location {tokens.text} at the end of the text")
        tokens.next()
        return found

    def _define(self, name: str, value: Value, index: int) -> None:
        if name in self._values:
            self.tokens.fail(f"{name} is defined twice", index)
        self._values[name] = value

    def _operand(self) -> Value:
        tokens = self.tokens
        if tokens.kind != "value":
            return self.constant()
        value = self._values.get(tokens.text)
        if value is None:
            close = difflib.get_close_matches(tokens.text, self._values, 1)
            tokens.fail(
                f"{tokens.text} is not defined here" + (f"; do you mean {close[0]}?" if close else "")
            )
        tokens.next()
        return value

    def _operands(self) -> list[Value]:
        found = [self._operand()]
        while self.tokens.accept(","):
            found.append(self._operand())
        return found

    def _has_operands(self) -> bool:
        tokens = self.tokens
        kind = tokens.kind
        if kind in ("value", "number", "resource"):
            return tokens.on_same_line()
        return (kind == "mark" and tokens.text == "[") or (
            kind == "word" and tokens.text in ("true", "false", "complex")
        )

    # ---------------------------------------------------------------------------------------------------- ops

    def _ops(self, region: Region, args: list[Value]) -> None:
        """The ops of ``region`` up to and with the closing brace, after which its values are forgotten."""
        tokens = self.tokens
        names: list[str] = []
        while not tokens.accept("}"):
            if tokens.kind == "end":
                tokens.fail("expected '}' or an op, found end of text")
            region.append(self._op(names))
        for name in names:
            del self._values[name]

    def _op(self, names: list[str]) -> Op:
        tokens = self.tokens
        start = tokens.index
        results: list[str] = []
        if tokens.kind == "value":
            results = self._result_list()
        form = FORMS.get(tokens.text) if tokens.kind == "word" else None
        name = tokens.take_name("an op or '}'")
        op = self._generic_op(name) if form is None else self._formed_op(name, form)
        if form is None or not form.groups:
            types = self._result_types_here()
            op.location = self._location()
            self._regions(op, form)
        else:
            types = self._bound_tail(op, form)
        if len(types) != len(results):
            tokens.fail(f"{name} defines {len(results)} values and names {len(types)} types", start)
        op.results = [
            _value(type, op, i, text) for i, (type, text) in enumerate(zip(types, results, strict=True))
        ]
        for i, (text, value) in enumerate(zip(results, op.results, strict=True)):
            self._define(text, value, start + 2 * i)
        names += results
        return op

    def _result_list(self) -> list[str]:
        tokens = self.tokens
        names = [tokens.next()]
        while tokens.accept(","):
            names.append(tokens.take("value"))
        tokens.expect("=")
        return names

    def _result_types_here(self) -> list[Refined]:
        return self.types() if self.tokens.accept(":") else []

    def _generic_op(self, name: str) -> Op:
        operands = self._operands() if self._has_operands() else []
        return Op(name, operands, (), self.attributes("}") if self._opens("{") else {})

    def _opens(self, brace: str) -> bool:
        return self.tokens.accept(brace)

    def _formed_op(self, name: str, form: Form) -> Op:
        tokens = self.tokens
        head: dict[str, Any] = {}
        if form.head is not None:
            head[form.head] = tokens.take_path()
        if form.groups:
            return self._bound_op(name, form, head)
        if form.head is not None:
            operands = self._operands() if tokens.accept(form.separator) else []
        else:
            operands = self._operands() if self._has_operands() else []
        if tokens.accept("{"):
            head |= self.attributes("}")
        return Op(name, operands, (), head)

    def _bound_op(self, name: str, form: Form, attributes: dict[str, Any]) -> Op:
        tokens = self.tokens
        if tokens.accept("["):
            attributes |= self.attributes("]")
        for key, value in form.defaults:
            attributes.setdefault(key, value)
        bindings: list[Binding] = []
        for keyword, size in form.groups:
            found: list[Binding] = []
            if not keyword or tokens.accept(keyword):
                tokens.expect("(")
                found = self.list_until(")", self._binding)
            bindings += found
            if size is not None:
                attributes[size] = len(found)
        self._bindings = bindings
        return Op(name, [operand for _, operand, _, _ in bindings], (), attributes)

    def _binding(self) -> Binding:
        tokens = self.tokens
        index = tokens.index
        name = tokens.take("value")
        tokens.expect("=")
        if tokens.kind == "value":
            operand = self._operand()
            tokens.expect(":")
            return name, operand, self.refined(), index
        start = tokens.index
        literal = self.literal()
        tokens.expect(":")
        own = self.refined()
        refined = self.refined() if tokens.accept(":") else own
        return name, self.make_constant(literal, own[0], start), refined, index

    def _bound_tail(self, op: Op, form: Form) -> list[Refined]:
        """Result types, location and regions of an op whose operands are bound to its regions' arguments."""
        bindings = self._bindings
        types = self._result_types_here()
        op.location = self._location()
        for label in form.labels:
            if label:
                self.tokens.expect(label)
            region = Region()
            for i, (text, _, type, index) in enumerate(bindings):
                region.args.append(arg := _value(type, region, i, text))
                self._define(text, arg, index)
            self._body(op, region, [text for text, _, _, _ in bindings])
        return types

    def _regions(self, op: Op, form: Form | None) -> None:
        tokens = self.tokens
        if form is not None and not form.numbered:
            for label in form.labels:
                if not tokens.accept(label):
                    break
                self._labelled(op)
            return
        label = "region" if form is None else form.labels[0]
        while tokens.accept(label):
            if form is not None:
                index = tokens.index
                if tokens.take_int() != len(op.regions):
                    tokens.fail(f"expected {label} {len(op.regions)}", index)
            self._labelled(op)

    def _labelled(self, op: Op) -> None:
        """A region after its label: arguments and body."""
        region = Region()
        names: list[str] = []
        if self.tokens.accept("("):
            self.list_until(")", lambda: self._region_arg(region, names))
        self._body(op, region, names)

    def _region_arg(self, region: Region, names: list[str]) -> None:
        tokens = self.tokens
        index = tokens.index
        text = tokens.take("value")
        tokens.expect(":")
        region.args.append(arg := _value(self.refined(), region, len(region.args), text))
        self._define(text, arg, index)
        names.append(text)

    def _body(self, op: Op, region: Region, names: list[str]) -> None:
        self.tokens.expect("{")
        self._ops(region, region.args)
        region.owner = op
        op.regions.append(region)
        for name in names:
            del self._values[name]


def _value(refined: Refined, owner: Op | Region, index: int, text: str) -> Value:
    type, event = refined
    value = Value(type, owner, index, _hint(text))
    value.event = event
    return value


def _hint(text: str) -> str | None:
    """The name of ``%h``; none for a number."""
    return None if text[1:].isdecimal() else text[1:]
