"""Vote: two images of one mask, blind, by keys."""

from __future__ import annotations

from ui.context import Context
from ui.panel import Panel


def build_vote_tab(context: Context) -> Panel:
    """Return the tab's content; it is built by `static/vote.js`."""
    return Panel(context, "vote")
