"""A program as text.

    stategraph 1

    program @step(%x : f32[3]) -> (loss : f32[]) {
      state @net.h : HiddenState<f32[3]> #0
      %0 = state.read @net.h : f32[3] #1
      %1 = jax.add %0, %x : f32[3] #1
      state.write @net.h, %1 #1
      ...
    }

    locations {
      #0 = "model.py":7
      #1 = "model.py":12 in "step"
    }

``parser.parse`` reads it back; ``docs/ir-text.md`` is the grammar. Names of values are hints made unique, and
mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from stategraph.ir.arrays import Resources, dtype_name, encode, host_data, key_impl, nbytes, size_text
from stategraph.ir.attribute_text import AttributeWriter
from stategraph.ir.core import Constant, Op, Program, Region, StateSymbol, Value
from stategraph.ir.location import UNKNOWN, Location
from stategraph.ir.spelling import is_word, path, quote, word
from stategraph.ir.syntax import FORMS, Form, form_of, group_sizes, region_labels
from stategraph.ir.tree import LEAF, Tree
from stategraph.ir.types import KeyType, TensorType, Type

WIDTH = 110
"""Lines of the program's head are broken beyond this."""
_ODD = re.compile(r"[^\w.]|^(?=\d)")


def print_program(program: Program, locations: bool = True, resources: bool = True) -> str:
    """The text form of ``program``.

    Without ``locations`` or ``resources`` (the table of places, the bits of large arrays) the text is
    shorter, for reading; the parser wants both.
    """
    return Printer(locations).program(program, resources)


class Printer:
    """Writes one program. After that ``op_lines`` tells which line (of ``lines``) each op begins on."""

    def __init__(self, locations: bool = True) -> None:
        self.lines: list[str] = []
        self.op_lines: dict[Op, int] = {}
        self.show_locations = locations
        self.resources = Resources()
        self.write = AttributeWriter(self.resources)
        self._names: dict[Value, str] = {}
        self._taken: set[str] = set()
        self._suffixes: dict[str, int] = {}
        self._unnamed = 0
        self._locations: dict[tuple[str, int, str, str], str] = {}
        self._location_ids: dict[int, str] = {id(UNKNOWN): ""}
        self._heads: dict[str, str] = {}

    # -------------------------------------------------------------------------------------------- the program

    def program(self, program: Program, resources: bool = True) -> str:
        self.resources.bits = resources
        self._head(program)
        for symbol in program.states.values():
            self.lines.append("  " + self.symbol(symbol))
        self._ops(program.body, "  ")
        self.lines.append("}")
        if self._locations:
            self.lines += ["", "locations {"]
            self.lines += [f"  {number} = {_place(*fields)}" for fields, number in self._locations.items()]
            self.lines.append("}")
        if self.resources.bits and self.resources.arrays:
            self.lines += ["", "{-#"]
            for number in range(len(self.resources.arrays)):
                self.lines.append(self._resource(number))
            self.lines.append("#-}")
        top = [f"stategraph {program.version}", *self._opaque_note(), ""]
        return "\n".join([*top, *self.lines, ""])

    def _opaque_note(self) -> list[str]:
        names = list(dict.fromkeys(self.write.opaque))
        if not names:
            return []
        shown = quote(", ".join(names[:5]) + (", …" if len(names) > 5 else ""))[1:-1]
        count = len(self.write.opaque)
        subject = "1 parameter has" if count == 1 else f"{count} parameters have"
        return [f"// {subject} no text form ({shown}): a program read from this text cannot be lowered."]

    def _head(self, program: Program) -> None:
        args = program.body.args
        names: list[str | None] = [*program.argument_names, *[None] * len(args)]
        first_captured = len(args) - len(program.captured)
        items = [self._argument(arg, name) for arg, name in zip(args, names, strict=False)]
        captured = [
            f"{item} = {self.resources.reference(array)},  // {size_text(nbytes(array))}"
            for item, array in zip(items[first_captured:], program.captured.values(), strict=False)
        ]
        clauses = [f"program {path(program.name)}{_listed(items[:first_captured])}"]
        clauses += self._tree(program.argument_tree, first_captured)
        if captured:
            clauses.append("captures(\n" + "".join(f"  {item}\n" for item in captured) + ")")
        clauses.append("-> " + _listed(self._results(program)))
        clauses += self._tree(program.result_tree, len(program.result_names))
        if program.attributes:
            clauses.append("attributes " + self.write.attributes(program.attributes))
        end = f"{self.location(program.location)} {{"
        one_line = " ".join(clauses) + end
        text = one_line if max(map(len, one_line.split("\n"))) <= WIDTH else "\n".join(clauses) + end
        self.lines += text.split("\n")

    def _argument(self, arg: Value, name: str | None) -> str:
        text = self.define(arg, arg.name if arg.name is not None else name)
        label = "" if name is None or text == f"%{name}" else f" {quote(name)}"
        return f"{text}{label} : {self.write.refined(arg)}"

    def _results(self, program: Program) -> list[str]:
        names = [word(name) for name in program.result_names]
        ops = program.body.ops
        if not ops or len(ops[-1].operands) != len(names):
            return names
        yielded = zip(names, program.body.yielded, strict=True)
        return [f"{name} : {self.write.type(value.type)}" for name, value in yielded]

    def _tree(self, tree: Tree, leaves: int) -> list[str]:
        plain = tree == Tree("tuple", (LEAF,) * leaves)
        return [] if plain else [f"tree {self.write.tree(tree)}"]

    def symbol(self, symbol: StateSymbol) -> str:
        """The line of the State table: ``state @net.h : HiddenState<f32[3]>``."""
        text = f"state {'born ' if symbol.born else ''}{path(symbol.path)} : {word(symbol.kind)}"
        text += f"<{self._typed_tree(symbol.tree, symbol.types)}>"
        if (symbol.result_types, symbol.result_tree) != (symbol.types, symbol.tree):
            text += f" -> <{self._typed_tree(symbol.result_tree, symbol.result_types)}>"
        if symbol.attributes:
            text += " " + self.write.attributes(symbol.attributes)
        if symbol.initial is not None:
            text += f" = [{', '.join(map(self.resources.reference, symbol.initial))}]"
        return text + self.location(symbol.location)

    def _typed_tree(self, tree: Tree, types: Iterable[Type]) -> str:
        return self.write.tree(tree, map(self.write.type, types))

    def _resource(self, number: int) -> str:
        array = self.resources.arrays[number]
        data = host_data(array)
        impl = key_impl(array)
        raw = str(TensorType(dtype_name(data.dtype), data.shape))
        type = raw if impl is None else f"{KeyType(impl, data.shape[:-1])} {raw}"
        text = encode(array)
        if len(text) <= 80:
            return f'  ${number} : {type} = "{text}"'
        rows = (f'    "{text[i : i + 104]}"' for i in range(0, len(text), 104))
        return f"  ${number} : {type} =\n" + "\n".join(rows)

    # ------------------------------------------------------------------------------------------ names, places

    def define(self, value: Value, hint: str | None = None) -> str:
        """Give ``value`` its name: the hint made unique, or the next number."""
        name = hint if hint is not None else value.name
        if name is None:
            text = f"%{self._unnamed}"
            self._unnamed += 1
        else:
            if not (name.isascii() and name.isidentifier()):
                name = _ODD.sub("_", name) or "_"
            text = f"%{name}"
            while text in self._taken:
                self._suffixes[name] = number = self._suffixes.get(name, 0) + 1
                text = f"%{name}_{number}"
            self._taken.add(text)
        self._names[value] = text
        return text

    def use(self, value: Value) -> str:
        """An operand: a name, or a literal with its type."""
        text = self._names.get(value)
        if text is not None:
            return text
        if isinstance(value, Constant):
            return f"{self.write.constant(value)}:{self.write.type(value.type)}"
        return f"%?{value.name or ''}"  # defined nowhere above: the verifier says so

    def location(self, location: Location) -> str:
        """`` #3``, empty when unknown or not wanted."""
        if not self.show_locations:
            return ""
        text = self._location_ids.get(id(location))
        if text is None:
            text = self._new_location(location)
        return text

    def _new_location(self, location: Location) -> str:
        fields = location.fields
        if fields == UNKNOWN.fields:
            return ""
        number = self._locations.setdefault(fields, f"#{len(self._locations)}")
        self._location_ids[id(location)] = f" {number}"  # the program keeps it alive while we print
        return f" {number}"

    # ---------------------------------------------------------------------------------------------------- ops

    def _ops(self, region: Region, indent: str) -> None:
        for op in region.ops:
            self._op(op, indent)

    def _op(self, op: Op, indent: str) -> None:
        lines, regions = self.lines, op.regions
        self.op_lines[op] = len(lines)
        results = ", ".join(map(self.define, op.results))
        form = form_of(op) if op.name in FORMS else None
        bound: list[str] | None = None
        if form is None:
            text = self._op_name(op.name)
            if op.operands:
                text += " " + ", ".join(map(self.use, op.operands))
            if op.attributes:
                text += " " + self.write.attributes(op.attributes)
        elif form.groups:
            text, bound = self._bound(op, form)
        else:
            text = self._headed(op, form)
        if results:
            text = f"{results} = {text} : {', '.join(map(self.write.refined, op.results))}"
        text = indent + text + self.location(op.location)
        if not regions:
            lines.append(text)
            return
        for i, (region, label) in enumerate(zip(regions, region_labels(op), strict=True)):
            if bound is not None:
                self._names.update(zip(region.args, bound, strict=True))
                arguments = ""
            else:
                args = [f"{self.define(arg)} : {self.write.refined(arg)}" for arg in region.args]
                arguments = f"({', '.join(args)})" if args else ""
            start = text if i == 0 else indent + "}"
            lines.append(" ".join(filter(None, (start, label + arguments, "{"))))
            self._ops(region, indent + "  ")
        lines.append(indent + "}")

    def _op_name(self, name: str) -> str:
        text = self._heads.get(name)
        if text is None:
            bare = "." in name and is_word(name) and name not in FORMS
            text = self._heads[name] = name if bare else quote(name)
        return text

    def _headed(self, op: Op, form: Form) -> str:
        text = op.name
        attributes = op.attributes
        if form.head is not None:
            text += " " + path(attributes[form.head])
            if op.operands:
                text += ", " if form.separator == "," else f" {form.separator} "
            attributes = {key: value for key, value in attributes.items() if key != form.head}
        elif op.operands:
            text += " "
        text += ", ".join(map(self.use, op.operands))
        return f"{text} {self.write.attributes(attributes)}" if attributes else text

    def _bound(self, op: Op, form: Form) -> tuple[str, list[str]]:
        """The text of an op whose operands are bound to its regions' arguments, and the names of these."""
        text = op.name
        if form.head is not None:
            text += " " + path(op.attributes[form.head])
        hidden = form.counted() | {form.head} | {n for n, v in form.defaults if _same(op.attributes[n], v)}
        attributes = {key: value for key, value in op.attributes.items() if key not in hidden}
        if attributes:
            text += " " + self.write.attributes(attributes, "[]")
        inits = [
            self._init(operand, arg) for operand, arg in zip(op.operands, op.regions[0].args, strict=True)
        ]
        names = []
        for args in zip(*(region.args for region in op.regions), strict=True):
            hints = [arg.name for arg in reversed(args) if arg.name is not None]
            names.append(self.define(args[0], hints[0] if hints else None))
        start = 0
        for (keyword, _), size in zip(form.groups, group_sizes(form, op), strict=True):
            bindings = zip(names[start : start + size], inits[start : start + size], strict=True)
            items = [f"{name} = {init}" for name, init in bindings]
            start += size
            if items and keyword:
                text += f" {keyword}({', '.join(items)})"
            elif not keyword:
                space = " " if attributes or form.head is None else ""
                text += f"{space}({', '.join(items)})"
        return text, names

    def _init(self, operand: Value, arg: Value) -> str:
        if isinstance(operand, Constant) and operand.type == arg.type:
            return f"{self.write.constant(operand)} : {self.write.refined(arg)}"
        return f"{self.use(operand)} : {self.write.refined(arg)}"


def _same(value: object, default: object) -> bool:
    return type(value) is type(default) and value == default


def _listed(items: list[str]) -> str:
    text = f"({', '.join(items)})"
    return text if len(text) <= WIDTH - 20 else "(\n" + "".join(f"  {item},\n" for item in items) + ")"


def _place(file: str, line: int, function: str, scope: str) -> str:
    text = f"{quote(file)}:{line}"
    if function:
        text += f" in {quote(function)}"
    return f"{text} scope {quote(scope)}" if scope else text
