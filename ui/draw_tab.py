"""Draw: a mask on a canvas that never loses a stroke, and four synthetic images for it beside the canvas."""

from __future__ import annotations

from ui.context import Context
from ui.panel import Panel


def build_draw_tab(context: Context) -> Panel:
    """Return the tab's content; it is built by `static/draw.js`."""
    return Panel(context, "draw")
