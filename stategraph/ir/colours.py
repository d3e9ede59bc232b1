"""A colour for every State, the same in every drawing."""

from __future__ import annotations

import colorsys
import zlib

from stategraph.ir.core import Op


def state_colour(path: str, dark: bool = False) -> str:
    """A light (or, for lines and text, dark) colour that depends on the path only: ``#rrggbb``."""
    hue = zlib.crc32(path.encode("utf-8", "surrogatepass")) % 360 / 360
    rgb = colorsys.hls_to_rgb(hue, 0.35 if dark else 0.85, 0.65)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def touched_state(op: Op) -> str | None:
    """The State that a ``state.*`` op accesses, None for other ops."""
    symbol = op.attributes.get("symbol") if op.name.startswith("state.") else None
    return symbol if isinstance(symbol, str) else None
