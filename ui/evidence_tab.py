"""Evidence: does it help? Arms with and without synthetic images, measured on patients that nothing has seen."""

from __future__ import annotations

from ui.context import Context
from ui.panel import Panel


def build_evidence_tab(context: Context) -> Panel:
    """Return the tab's content; it is built by `static/evidence.js`."""
    return Panel(context, "evidence")
