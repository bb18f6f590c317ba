"""Align: one button from votes and scores to a better generator, and its versions."""

from __future__ import annotations

from ui.context import Context
from ui.panel import Panel


def build_align_tab(context: Context) -> Panel:
    """Return the tab's content; it is built by `static/align.js`."""
    return Panel(context, "align")
