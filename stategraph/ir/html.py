"""The program in a notebook: coloured text whose regions fold. One self-contained fragment, nothing is loaded
from anywhere."""

from __future__ import annotations

import re
from html import escape

from stategraph.ir.core import Program
from stategraph.ir.printer import print_program
from stategraph.ir.spelling import PATH, SHAPE, STRING

MAX_LINES = 2000
"""Longer programs are cut; their text has everything."""

_STYLE = """<style>
.sg-ir{font:12px/1.45 ui-monospace,Menlo,Consolas,monospace;white-space:pre;overflow-x:auto}
.sg-ir div{white-space:pre}.sg-ir details>summary{cursor:pointer;white-space:pre;list-style:none}
.sg-ir summary::-webkit-details-marker{display:none}
.sg-ir details:not([open])>summary::after{content:" \\2026 }";color:#888}
.sg-ir .v{color:#0550ae}.sg-ir .t{color:#1a7f37}.sg-ir .s{color:#953800;font-weight:600}
.sg-ir .o{color:#6639ba}.sg-ir .q{color:#0a3069}.sg-ir .c{color:#888}
@media(prefers-color-scheme:dark){.sg-ir .v{color:#79c0ff}.sg-ir .t{color:#7ee787}.sg-ir .s{color:#ffa657}
.sg-ir .o{color:#d2a8ff}.sg-ir .q{color:#a5d6ff}}
</style>"""

_PARTS = re.compile(
    rf"""(?P<c>//.*|\#\d+\b|\{{-\#|\#-\}})|(?P<q>{STRING})|(?P<s>@(?:{PATH}|{STRING}))|(?P<v>%[\w.]+)"""
    rf"""|(?P<t>[^\W\d]\w*{SHAPE}\*?|key<\w+>{SHAPE})|(?P<o>\b[a-z_]\w*\.[\w.]+\b"""
    r"""|\b(?:program|state|captures|carry|xs|region|branch|cond|body|call|jvp|fwd|bwd|locations|tree|born)\b)"""
)


def program_html(program: Program) -> str:
    """An HTML fragment for notebooks."""
    lines = print_program(program, resources=False).rstrip("\n").split("\n")
    cut = len(lines) - MAX_LINES
    if cut > 0:
        lines = lines[:MAX_LINES]
    out = [_STYLE, '<div class="sg-ir">']
    depth = 0
    for line in lines:
        text = line.strip()
        if text.startswith("}") and depth:
            out.append("</details>")
            depth -= 1
        if text.endswith("{"):
            folded = "" if text.startswith("locations") else " open"
            out.append(f"<details{folded}><summary>{_coloured(line)}</summary>")
            depth += 1
        else:
            out.append(f"<div>{_coloured(line) or ' '}</div>")
    out += ["</details>"] * depth
    if cut > 0:
        out.append(f'<div class="c">… {cut} more lines: print(program) shows them</div>')
    out.append("</div>")
    return "\n".join(out)


def _coloured(line: str) -> str:
    out, end = [], 0
    for match in _PARTS.finditer(line):
        out.append(escape(line[end : match.start()]))
        out.append(f'<span class="{match.lastgroup}">{escape(match[0])}</span>')
        end = match.end()
    out.append(escape(line[end:]))
    return "".join(out)
