"""The signature of a program: inputs, State in, results and State out, by name."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import attrs

from stategraph.ir.core import Program
from stategraph.ir.shards import sharding_text


@attrs.frozen
class Row:
    """One line of a signature table."""

    group: str
    name: str
    type: str
    nbytes: int


@attrs.frozen
class SignatureTable:
    """Inputs, States read, results and States written, by name."""

    rows: list[Row]

    def __str__(self) -> str:
        widths = [
            max([len(str(getattr(row, field))) for row in self.rows] + [len(field)])
            for field in ("group", "name", "type")
        ]
        lines = []
        for row in self.rows:
            cells = [
                str(getattr(row, field)).ljust(width)
                for field, width in zip(("group", "name", "type"), widths, strict=True)
            ]
            lines.append("  ".join([*cells, f"{row.nbytes:>12,} B"]))
        return "\n".join(lines)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def names(self, group: str) -> list[str]:
        """The names in one group: ``inputs``, ``state in``, ``captured``, ``results`` or ``state out``."""
        return [row.name for row in self.rows if row.group == group]


def signature_table(program: Program) -> SignatureTable:
    """What goes into a program and what comes out, by name."""
    rows = []
    values = program.body.args
    for name, value in zip(program.argument_names, values, strict=True):
        rows.append(
            Row(
                "captured" if name in program.captured else "inputs", name, str(value.type), value.type.nbytes
            )
        )
    read = {op.symbol for op in program.walk("state.read")}
    written = {op.symbol for op in program.walk("state.write")}
    for group, paths in (
        ("state in", read),
        ("state out", written | {p for p, s in program.states.items() if s.born}),
    ):
        for path, symbol in program.states.items():
            if path in paths:
                types = symbol.types if group == "state in" else symbol.result_types
                lies = map(sharding_text, symbol.attributes.get("sharding", ()))
                unit = symbol.attributes.get("unit", ())
                in_units = (unit,) * len(types) if isinstance(unit, str) else unit
                texts = [
                    " ".join(filter(None, map(str, words)))
                    for words in itertools.zip_longest(types, in_units, lies, fillvalue="")
                ]
                rows.append(Row(group, f"@{path}", ", ".join(texts), sum(t.nbytes for t in types)))
    for name, value in zip(program.result_names, program.results, strict=True):
        rows.append(Row("results", name, str(value.type), value.type.nbytes))
    return SignatureTable(rows)
