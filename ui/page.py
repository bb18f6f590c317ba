"""The page: header, eight tabs, the strip with the running job. Layout only; each tab has its own module."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from ui.align_tab import build_align_tab
from ui.context import Context
from ui.curate_tab import build_curate_tab
from ui.data_tab import build_data_tab
from ui.draw_tab import build_draw_tab
from ui.evidence_tab import build_evidence_tab
from ui.export_tab import build_export_tab
from ui.generate_tab import build_generate_tab
from ui.panel import Panel
from ui.vote_tab import build_vote_tab

TITLE = "SAADi Studio"
TABS: tuple[tuple[str, Callable[[Context], Panel]], ...] = (
    ("Data", build_data_tab),
    ("Draw", build_draw_tab),
    ("Generate", build_generate_tab),
    ("Curate", build_curate_tab),
    ("Vote", build_vote_tab),
    ("Align", build_align_tab),
    ("Evidence", build_evidence_tab),
    ("Export", build_export_tab),
)
FIRST_TAB = "Draw"
SHEETS = ("studio", "controls", "draw", "smart", "generate", "review", "curate", "vote", "tabs", "align", "evidence", "dialogs",
          "weakness", "classes", "release", "small")  # fmt: skip


def build_page(context: Context) -> gr.Blocks:
    """Return the Gradio page; it holds no data, so one object serves every visitor."""
    with gr.Blocks(title=TITLE, fill_width=True, analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        Panel(context, "shell")
        with gr.Tabs(selected=FIRST_TAB.lower(), elem_id="tabs"):
            for name, build in TABS:
                with gr.Tab(name, id=name.lower(), elem_id=f"tab-{name.lower()}"):
                    build(context)
    return page


def theme() -> gr.themes.Base:
    """Teal on slate with system fonts: no font is downloaded, and all text passes WCAG AA in light and dark."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        secondary_hue=gr.themes.colors.slate,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_sm,
        spacing_size=gr.themes.sizes.spacing_md,
        text_size=gr.themes.sizes.text_md,
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    ).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_text_color="white",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_border_width="0px",
        block_shadow="none",
    )


def head(context: Context) -> str:
    """Return what goes into the page's head: our style sheets, loaded before anything is drawn."""
    base = f"/static/{context.static_version}"
    sheets = "".join(f'<link rel="stylesheet" href="{base}/{name}.css">' for name in SHEETS)
    return f'{sheets}<link rel="icon" type="image/svg+xml" href="{base}/icon.svg">'
