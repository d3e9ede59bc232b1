"""The program as an SVG picture, without external programs.

Ops stand below what they depend on; regions are boxes in boxes; State accesses have the State's colour,
dashed lines are the order that effects impose. Hovering shows the whole op and the line it comes from.
Programs with many ops show their outer regions.
"""

from __future__ import annotations

from html import escape

from stategraph.ir.colours import state_colour, touched_state
from stategraph.ir.core import Program
from stategraph.ir.layout import CHARACTER, LINE, Box, Frame, Layout, place
from stategraph.ir.printer import Printer
from stategraph.ir.spelling import path

MAX_STATES = 24
"""States in the legend."""

_STYLE = (
    "text{font:11px ui-monospace,Menlo,Consolas,monospace;fill:#1f2328}"
    ".title{font-weight:600;font-size:13px}.label,.more{fill:#656d76}"
    ".box{fill:#f6f8fa;stroke:#afb8c1}.argument{fill:#e8f0fe;stroke:#9db7e0}"
    ".note{fill:#fff;stroke:#afb8c1;stroke-dasharray:3 3}.frame{fill:#fff;stroke:#d0d7de}"
    ".edge{fill:none;stroke:#8c959f;stroke-width:1}.order{stroke-dasharray:4 3}"
)


def to_svg(program: Program, limit: int = 80) -> str:
    """An SVG document that shows about ``limit`` ops."""
    frame = Layout(program, limit).frame(program.body, "")
    legend = _legend(program)
    top = 34.0 + LINE * len(legend)
    place(frame, 8.0, top)
    words = max([len(program.name) + 10, *(len(text) + 4 for _, text in legend)])
    width, height = max(frame.width, words * CHARACTER) + 16, top + frame.height + 8
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">',
        f"<style>{_STYLE}</style>",
        '<defs><marker id="sg-arrow" viewBox="0 0 6 6" refX="6" refY="3" '
        'markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0L6 3L0 6z" fill="#8c959f"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#fff"/>',
        _text(10, 21, f"program {path(program.name)}", "title"),
    ]
    for i, (colour, text) in enumerate(legend):
        y = 30 + LINE * i
        if colour:
            out.append(_rect(10, y + 5, 13, 13, f'fill="{colour}" stroke="#afb8c1"'))
        out.append(_text(30, y + 16, text, "" if colour else "more"))
    _frame(frame, out)
    out.append("</svg>")
    return "\n".join(out) + "\n"


def _legend(program: Program) -> list[tuple[str, str]]:
    printer = Printer(locations=False)
    printer.resources.bits = False
    symbols = list(program.states.values())
    rows = []
    for symbol in symbols[:MAX_STATES]:
        text = printer.symbol(symbol).removeprefix("state ").partition(" {")[0]
        rows.append((state_colour(symbol.path), text if len(text) <= 120 else text[:119] + "…"))
    if len(symbols) > MAX_STATES:
        rows.append(("", f"… {len(symbols) - MAX_STATES} more States"))
    return rows


def _frame(frame: Frame, out: list[str]) -> None:
    out.append(_rect(frame.x, frame.y, frame.width, frame.height, 'class="frame"'))
    if frame.label:
        out.append(_text(frame.x + 8, frame.y + 16, frame.label, "label"))
    for source, target, symbol in frame.edges:
        out.append(_edge(source, target, symbol))
    for box in frame.boxes:
        _box(box, out)


def _box(box: Box, out: list[str]) -> None:
    symbol = touched_state(box.op) if box.op is not None else None
    fill = f' style="fill:{state_colour(symbol)}"' if symbol is not None else ""
    kind = "box" if box.kind == "op" else box.kind
    title = f"<title>{_escaped(box.tooltip)}</title>" if box.tooltip else ""
    out.append(f"<g>{title}" + _rect(box.x, box.y, box.width, box.height, f'class="{kind}"{fill}'))
    out.append(_text(box.x + 8, box.y + 16, box.text) + "</g>")
    for frame in box.frames:
        _frame(frame, out)


def _edge(source: Box, target: Box, symbol: str | None) -> str:
    x1, y1 = source.x + source.width / 2, source.y + source.height
    x2, y2 = target.x + target.width / 2, target.y
    bend = max(abs(y2 - y1) / 2, 10.0)
    colour = f' style="stroke:{state_colour(symbol, dark=True)}"' if symbol else ""
    kind = "edge" if symbol == "" else "edge order"
    curve = f"M{x1:.1f} {y1:.1f}C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2:.1f}"
    return f'<path class="{kind}"{colour} d="{curve}" marker-end="url(#sg-arrow)"/>'


def _rect(x: float, y: float, width: float, height: float, attributes: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="5" {attributes}/>'


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{kind}>{_escaped(text)}</text>'


def _escaped(text: str) -> str:
    """XML has no way to write control characters and lone surrogates."""
    return escape("".join(c if c.isprintable() or c == "\n" else "�" for c in text))
