"""Generate: order a pool of images, and the queue of all work."""

from __future__ import annotations

from ui.context import Context
from ui.panel import Panel


def build_generate_tab(context: Context) -> Panel:
    """Return the tab's content; it is built by `static/generate.js`."""
    return Panel(context, "generate")
