"""axe-core finds nothing serious on any tab, in light and dark."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.browser.conftest import Studio
from tests.browser.test_draw import SCRIPT
from tests.browser.test_loop import LOADED, open_tab

pytestmark = pytest.mark.browser
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    made = Studio(tmp_path_factory.mktemp("accessible") / "home", script=SCRIPT)
    made.start()
    made.score_samples()
    yield made
    made.stop()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_tab_has_a_serious_finding(new_page: Callable[..., Page], tiny: Studio, scheme: str):
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
    assert not found, found
