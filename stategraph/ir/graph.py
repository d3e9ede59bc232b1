"""The program as a networkx graph, for everything that library is good at: paths, components, export,
drawing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stategraph.ir.core import Constant, Op, Program, Region, Value
from stategraph.ir.dependencies import effect_order
from stategraph.ir.printer import Printer
from stategraph.ir.registry import effects_of

if TYPE_CHECKING:
    import networkx


def to_networkx(program: Program) -> networkx.MultiDiGraph[Any]:
    """A ``MultiDiGraph`` whose nodes are the program's arguments (``"%x"``) and its ops (0, 1, …, in order).

    Node data: ``kind`` (``"op"`` or ``"argument"``), ``name``, ``text`` (the printed line), ``location``,
    ``region`` (where it stands: ``"body"``, or ``"3.0"`` for the first region of op 3), ``effects`` (a list
    of str). Edge data: ``kind="data"`` with the value's name and type, from the op that makes a value (for a
    region's argument: the op of the region) to each op that takes it; ``kind="state"`` with ``symbol``
    between ops of one region whose effects keep them in order (``symbol`` is None for host effects). The
    graph has no cycles.
    """
    import networkx

    printer = Printer(locations=False)
    printer.program(program, resources=False)
    graph: networkx.MultiDiGraph[Any] = networkx.MultiDiGraph(name=program.name)
    numbers: dict[Op, int] = {op: i for i, op in enumerate(program.walk())}
    for arg, name in zip(program.body.args, program.argument_names, strict=False):
        text = f"{printer.use(arg)} : {arg.type}"
        graph.add_node(
            printer.use(arg), kind="argument", name=name, text=text, location="", region="body", effects=[]
        )
    for op, number in numbers.items():
        graph.add_node(
            number,
            kind="op",
            name=op.name,
            text=printer.lines[printer.op_lines[op]].strip(),
            location=str(op.location) if op.location.known else "",
            region=_region_name(op.parent, numbers),
            effects=[str(effect) for effect in effects_of(op)],
        )
    for op, number in numbers.items():
        for operand in op.operands:
            source = _source(operand, numbers, printer)
            if source is not None:
                graph.add_edge(
                    source, number, kind="data", value=printer.use(operand), type=str(operand.type)
                )
    for region in (program.body, *(region for op in numbers for region in op.regions)):
        for order in effect_order(region):
            graph.add_edge(numbers[order.before], numbers[order.after], kind="state", symbol=order.symbol)
    return graph


def _source(value: Value, numbers: dict[Op, int], printer: Printer) -> int | str | None:
    if isinstance(value, Constant):
        return None
    owner = value.owner
    if isinstance(owner, Op):
        return numbers[owner]
    if isinstance(owner, Region) and owner.parent_op is not None:
        return numbers[owner.parent_op]
    return printer.use(value)


def _region_name(region: Region | None, numbers: dict[Op, int]) -> str:
    op = region.parent_op if region is not None else None
    return "body" if op is None else f"{numbers[op]}.{op.regions.index(region)}"  # type: ignore[arg-type]
