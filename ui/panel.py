"""The one Gradio component the page is made of: an empty element in which a JavaScript module builds a tab."""

from __future__ import annotations

import gradio as gr

from ui.context import Context


class Panel(gr.HTML):
    """Mounts `static/<module>.js` into an empty element.

    The template is constant: Gradio evaluates template values as code, so data never travel through it. The module
    fetches them from our routes and puts them into the page as text.
    """

    def __init__(self, context: Context, module: str) -> None:
        """Args: module: File name in `static/` without suffix; it exports `mount(element)`."""
        start = (
            f"import('/static/{context.static_version}/{module}.js').then((module) => module.mount(element.firstElementChild));"
        )
        super().__init__(
            None,
            html_template=f'<div class="sx-panel" data-panel="{module}"></div>',
            css_template="",
            js_on_load=start,
            apply_default_css=False,
            elem_id=f"panel-{module}",
            elem_classes="sx-host",
        )
