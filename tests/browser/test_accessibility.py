"""axe-core finds nothing serious on any tab, in light and dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.browser.conftest import Studio
from tests.browser.test_draw import SCRIPT
from tests.browser.test_loop import LOADED, open_tab

pytestmark = pytest.mark.browser
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_tab_has_a_serious_finding(new_page: Callable[..., Page], tmp_path: Path, scheme: str):
    tiny = Studio(tmp_path / "home", script=SCRIPT)
    tiny.start()
    tiny.score_samples()
    page = new_page(color_scheme=scheme)
    page.goto(tiny.url)
    page.wait_for_selector(LOADED, timeout=30_000)
    found = {}
    for tab in ("Draw", "Data", "Generate", "Curate", "Vote", "Align", "Evidence", "Export"):
        open_tab(page, tab)
        page.wait_for_timeout(800)
        answer = Axe().run(page, options=RULES).response
        assert len(answer["passes"]) > 8  # it has looked at something
        for item in answer["violations"]:
            if item["impact"] in ("serious", "critical"):
                found[tab, item["id"]] = [node["html"][:160] for node in item["nodes"][:4]]
    tiny.stop()
    assert not found, found
