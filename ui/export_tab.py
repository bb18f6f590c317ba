"""Export: the accepted images as a data set, verified, in a folder and as zip."""

from __future__ import annotations

from ui.context import Context
from ui.panel import Panel


def build_export_tab(context: Context) -> Panel:
    """Return the tab's content; it is built by `static/export.js`."""
    return Panel(context, "export")
