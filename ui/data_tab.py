"""Data: real images with their masks, projects, folder import, and what is trained on them."""

from __future__ import annotations

from ui.context import Context
from ui.panel import Panel


def build_data_tab(context: Context) -> Panel:
    """Return the tab's content; it is built by `static/data.js`."""
    return Panel(context, "data")
