"""The program as Graphviz DOT text: regions as clusters, State accesses in the State's colour."""

from __future__ import annotations

from stategraph.ir.colours import state_colour, touched_state
from stategraph.ir.core import Constant, Op, Program, Region, Value
from stategraph.ir.dependencies import effect_order
from stategraph.ir.printer import Printer
from stategraph.ir.syntax import region_labels


def to_dot(program: Program, width: int = 60) -> str:
    """DOT source; labels are the printed ops, cut to ``width`` characters. Draw it with ``dot -Tsvg``."""
    return _Dot(program, width).text()


class _Dot:
    def __init__(self, program: Program, width: int) -> None:
        self.program = program
        self.width = width
        self.printer = Printer(locations=False)
        self.printer.program(program, resources=False)
        self.numbers = {op: i for i, op in enumerate(program.walk())}
        self.lines: list[str] = []
        self.edges: list[str] = []

    def text(self) -> str:
        self.lines += [
            f"digraph {_quoted(self.program.name)} {{",
            "  compound = true;",
            '  node [shape = box, style = "rounded,filled", fillcolor = "#f6f6f6"];',
            '  node [fontname = "monospace", fontsize = 10];',
            '  edge [color = "#555555"];',
        ]
        for arg in self.program.body.args:
            label = f"{self.printer.use(arg)} : {arg.type}"
            self.lines.append(f'  {self.node(arg)} [label = {self.label(label)}, fillcolor = "#e8f0fe"];')
        self.region(self.program.body, "  ")
        return "\n".join([*self.lines, *self.edges, "}", ""])

    def region(self, region: Region, indent: str) -> None:
        for op in region.ops:
            self.op(op, indent)
        for order in effect_order(region):
            colour = "#999999" if order.symbol is None else state_colour(order.symbol, dark=True)
            ends = f"n{self.numbers[order.before]} -> n{self.numbers[order.after]}"
            self.edges.append(f'  {ends} [style = dashed, color = "{colour}"];')

    def op(self, op: Op, indent: str) -> None:
        number = self.numbers[op]
        line = self.printer.lines[self.printer.op_lines[op]].strip().removesuffix(" {")
        symbol = touched_state(op)
        colour = f', fillcolor = "{state_colour(symbol)}"' if symbol is not None else ""
        tooltip = f", tooltip = {_quoted(str(op.location))}" if op.location.known else ""
        self.lines.append(f"{indent}n{number} [label = {self.label(line)}{colour}{tooltip}];")
        for operand in op.operands:
            if not isinstance(operand, Constant):
                self.edges.append(f"  {self.node(operand)} -> n{number};")
        for i, (region, name) in enumerate(zip(op.regions, region_labels(op), strict=True)):
            self.lines.append(f"{indent}subgraph cluster_{number}_{i} {{")
            label = self.label(f"{op.name} {name}" if len(op.regions) > 1 else op.name)
            self.lines.append(f'{indent}  label = {label}; style = rounded; color = "#bbbbbb";')
            for arg in region.args:
                text = self.label(f"{self.printer.use(arg)} : {arg.type}")
                self.lines.append(f'{indent}  {self.node(arg)} [label = {text}, fillcolor = "#e8f0fe"];')
                self.edges.append(f"  n{number} -> {self.node(arg)} [style = dotted];")
            self.region(region, indent + "  ")
            self.lines.append(f"{indent}}}")

    def node(self, value: Value) -> str:
        """The node of a value: its op, or an argument's own node."""
        owner = value.owner
        if isinstance(owner, Op):
            return f"n{self.numbers[owner]}"
        parent = owner.parent_op if isinstance(owner, Region) else None
        if parent is None:
            return f"arg{value.index}"
        return f"arg{self.numbers[parent]}_{parent.regions.index(owner)}_{value.index}"  # type: ignore[arg-type]

    def label(self, text: str) -> str:
        return _quoted(text if len(text) <= self.width else text[: self.width - 1] + "…")


def _quoted(text: str) -> str:
    escaped = "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in text)
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'
