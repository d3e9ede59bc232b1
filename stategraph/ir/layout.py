"""Where the boxes of a drawing go: ops in layers below what they depend on, regions as boxes in boxes.

Layers come from data and effects, rows are packed from left to right in the order of the mean position of
what they depend on, and rows that would be too wide are broken.
"""

from __future__ import annotations

from collections import deque

import attrs

from stategraph.ir.core import Constant, Op, Program, Region, Value
from stategraph.ir.dependencies import captured_values, effect_order
from stategraph.ir.printer import Printer
from stategraph.ir.syntax import region_labels

CHARACTER, LINE, GAP, ROW_GAP, PADDING, MAX_WIDTH, MAX_TEXT = 6.65, 24.0, 14.0, 26.0, 12.0, 1300.0, 52


@attrs.define(eq=False)
class Box:
    """An op, an argument, or a note (``op`` is None). ``x`` and ``y`` are absolute after ``place``."""

    text: str
    kind: str
    tooltip: str = ""
    op: Op | None = None
    frames: list[Frame] = attrs.Factory(list)
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = LINE

    def __attrs_post_init__(self) -> None:
        self.width = len(self.text) * CHARACTER + 16
        if self.frames:
            inner = sum(frame.width for frame in self.frames) + GAP * (len(self.frames) - 1)
            self.width = max(self.width, inner + 2 * PADDING)
            self.height = LINE + max(frame.height for frame in self.frames) + PADDING


@attrs.define(eq=False)
class Frame:
    """A region: its boxes and the edges between them. An edge's last field is the State symbol; ``""`` for
    data."""

    label: str
    boxes: list[Box]
    edges: list[tuple[Box, Box, str | None]]
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0


class Layout:
    """Lays out one program, showing at most about ``limit`` ops."""

    def __init__(self, program: Program, limit: int = 80) -> None:
        self.printer = Printer(locations=False)
        self.printer.program(program, resources=False)
        self.limit = limit
        self.expanded = self._expanded(program)

    def _expanded(self, program: Program) -> set[Region]:
        """Regions to draw, outermost first, as long as there is room; the others become a note."""
        expanded: set[Region] = set()
        room = self.limit
        waiting = deque([program.body])
        while waiting:
            region = waiting.popleft()
            if region is not program.body and len(region.ops) > room:
                continue
            room -= min(len(region.ops), self.limit)
            expanded.add(region)
            waiting.extend(nested for op in region.ops for nested in op.regions)
        return expanded

    # -------------------------------------------------------------------------------------------------- boxes

    def frame(self, region: Region, label: str) -> Frame:
        if region not in self.expanded:
            count = sum(1 for _ in region.walk())
            folded = Box(f"… {count} op{'s' if count != 1 else ''}", "note")
            return _pack(Frame(label, [folded], []), [[folded]])
        arguments = {arg: self._argument(arg) for arg in region.args}
        hidden = self._hidden(region.ops)
        note = Box(f"… {len(hidden)} more ops", "note", "print(program) shows all of them")
        boxes = {op: note if op in hidden else self._op(op) for op in region.ops}
        edges = self._edges(region, boxes, arguments)
        frame = Frame(label, [*arguments.values(), *dict.fromkeys(boxes.values())], edges)
        return _pack(frame, _rows(frame.boxes, edges, set(arguments.values())))

    def _hidden(self, ops: list[Op]) -> set[Op]:
        """What to leave out of the middle of a list that is too long."""
        last = max(self.limit // 3, 1)
        return set(ops[self.limit - last : -last]) if len(ops) > self.limit else set()

    def _argument(self, arg: Value) -> Box:
        text = f"{self.printer.use(arg)} : {self.printer.write.refined(arg)}"
        return Box(_cut(text), "argument", text)

    def _op(self, op: Op) -> Box:
        use = self.printer.use
        line = self.printer.lines[self.printer.op_lines[op]].strip().removesuffix(" {")
        results = ", ".join(map(use, op.results))
        head = op.attributes.get("symbol") or op.attributes.get("name")
        text = f"{results} = " if results else ""
        text += (
            f"{op.name} @{head}"
            if isinstance(head, str) and op.name.startswith(("state.", "flow.call"))
            else op.name
        )
        if op.operands:
            text += " " + ", ".join(map(use, op.operands))
        if op.results:
            text += " : " + ", ".join(map(self.printer.write.refined, op.results))
        where = f"\n{op.location}" if op.location.known else ""
        labels = region_labels(op) if len(op.regions) > 1 else [""] * len(op.regions)
        frames = [self.frame(region, label) for region, label in zip(op.regions, labels, strict=True)]
        return Box(_cut("".join(c if c.isprintable() else "?" for c in text)), "op", line + where, op, frames)

    def _edges(
        self, region: Region, boxes: dict[Op, Box], args: dict[Value, Box]
    ) -> list[tuple[Box, Box, str | None]]:
        edges: dict[tuple[Box, Box, str | None], None] = {}
        for op in region.ops:
            for value in (*op.operands, *(captured_values(op) if op.regions else ())):
                if isinstance(value, Constant):
                    continue
                source = args.get(value) or (boxes.get(value.owner) if isinstance(value.owner, Op) else None)
                if source is not None and source is not boxes[op]:
                    edges[source, boxes[op], ""] = None
        for order in effect_order(region):
            if boxes[order.before] is not boxes[order.after]:
                edges[boxes[order.before], boxes[order.after], order.symbol] = None
        return list(edges)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _rows(boxes: list[Box], edges: list[tuple[Box, Box, str | None]], arguments: set[Box]) -> list[list[Box]]:
    """Boxes by layer, each layer ordered by the mean position of what its boxes depend on."""
    before: dict[Box, list[Box]] = {box: [] for box in boxes}
    for source, target, _ in edges:
        before[target].append(source)
    layers: dict[Box, int] = {}
    for box in boxes:  # program order is a topological order, but for a note, which stands for many ops
        known = [layers[source] + 1 for source in before[box] if source in layers]
        layers[box] = max(known, default=0 if box in arguments else 1)
    if boxes and boxes[-1].op is not None and boxes[-1].op.name == "flow.yield":
        layers[boxes[-1]] = max(layers.values()) + (len(boxes) > 1)
    rows: list[list[Box]] = [[] for _ in range(max(layers.values(), default=0) + 1)]
    for box in boxes:
        rows[layers[box]].append(box)
    position: dict[Box, float] = {}
    for row in rows:
        place = {box: i for i, box in enumerate(row)}

        def mean(box: Box, place: dict[Box, int] = place) -> float:
            known = [position[source] for source in before[box] if source in position]
            return sum(known) / len(known) if known else float(place[box])

        row.sort(key=mean)
        x = 0.0
        for box in row:
            position[box] = x + box.width / 2
            x += box.width + GAP
    return [row for row in rows if row]


def _pack(frame: Frame, rows: list[list[Box]]) -> Frame:
    """Positions relative to the frame, and its size."""
    y = PADDING + (LINE if frame.label else 0.0)
    width = 0.0
    for row in rows:
        x, height = PADDING, 0.0
        for box in row:
            if x > PADDING and x + box.width > MAX_WIDTH:
                y += height + GAP
                x, height = PADDING, 0.0
            box.x, box.y = x, y
            x += box.width + GAP
            height = max(height, box.height)
            width = max(width, x - GAP)
        y += height + ROW_GAP
    frame.width = width + PADDING
    frame.height = max(y - ROW_GAP + PADDING, LINE)
    return frame


def place(frame: Frame, x: float, y: float) -> None:
    """Move a frame and everything in it to absolute positions."""
    frame.x, frame.y = x, y
    for box in frame.boxes:
        box.x += x
        box.y += y
        inner = box.x + PADDING
        for nested in box.frames:
            place(nested, inner, box.y + LINE)
            inner += nested.width + GAP
