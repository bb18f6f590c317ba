"""Curate: the grid of synthetic images with scores; accept, reject, quarantine."""

from __future__ import annotations

from ui.context import Context
from ui.panel import Panel


def build_curate_tab(context: Context) -> Panel:
    """Return the tab's content; it is built by `static/curate.js`."""
    return Panel(context, "curate")
