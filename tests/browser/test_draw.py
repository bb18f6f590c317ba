"""The canvas keeps every stroke and paints exactly; keys do nothing where they should not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Studio
from tests.browser.test_loop import LOADED, labels, open_tab, saved, stroke

pytestmark = pytest.mark.browser
SCRIPT = Path(__file__).with_name("serve_tiny.py")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """The page over a tiny project, without models; each test is a new visitor."""
    made = Studio(tmp_path_factory.mktemp("draw") / "home", script=SCRIPT)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def tiny(program: Studio) -> Studio:
    """The program, started again where a test that killed it has failed."""
    if program.process is None or program.process.poll() is not None:
        program.start()
    return program


def open_draw(page: Page, tiny: Studio) -> None:
    page.goto(tiny.url)
    page.wait_for_selector(LOADED, timeout=30_000)


def newest(tiny: Studio) -> tuple[int, np.ndarray]:
    number = tiny.get("/api/projects/1/drawings")["items"][0]["id"]
    return number, labels(tiny, number)


@pytest.mark.parametrize("ratio", [1, 1.5, 2])
def test_tools_paint_whole_classes_at_every_pixel_ratio(new_page, tiny: Studio, ratio: float):
    page = new_page(device_scale_factor=ratio)
    open_draw(page, tiny)
    page.keyboard.press("2")
    stroke(page, (-100, -100), (100, -100))
    saved(page)
    _, brushed = newest(tiny)
    assert set(np.unique(brushed)) == {0, 2}
    page.keyboard.press("1")
    page.keyboard.press("p")
    box = page.locator(".sx-view").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for dx, dy in ((-100, 50), (100, 50), (100, 150), (-100, 150)):
        page.mouse.click(x + dx, y + dy)
    page.keyboard.press("Enter")
    saved(page)
    _, with_polygon = newest(tiny)
    area = (200 * 100) / (box["height"] / 64) ** 2
    assert abs((with_polygon == 1).sum() - area) < 0.1 * area and (with_polygon == 2).sum() == (brushed == 2).sum()
    page.keyboard.press("g")
    page.mouse.click(x, y + 10)
    saved(page)
    assert (newest(tiny)[1] == 0).sum() == 0  # all background was one region
    for _ in range(3):
        page.keyboard.press("Control+z")
    saved(page)
    assert (newest(tiny)[1] == 0).all()
    page.keyboard.press("Control+Shift+z")
    saved(page)
    assert (newest(tiny)[1] == brushed).all()


def test_the_real_mask_changes_only_when_asked(page: Page, tiny: Studio):
    def drawings() -> dict[int, str]:
        return {item["id"]: item["name"] for item in tiny.get("/api/projects/1/drawings")["items"]}

    before = drawings()
    open_draw(page, tiny)
    page.get_by_role("button", name="Correct the real mask").click()
    stroke(page, (-50, 0), (50, 0))
    saved(page)
    real = tiny.get("/api/projects/1/images")["items"][0]["label_map_id"]
    assert drawings() == before
    assert (labels(tiny, real) > 0).any()


def test_keys_stay_out_of_fields_and_hidden_tabs(page: Page, tiny: Studio):
    before = tiny.get("/api/projects/1/overview")["votes"]
    open_draw(page, tiny)
    page.keyboard.press("b")
    page.click("#draw-seed")
    page.keyboard.press("2")
    page.keyboard.press("e")
    assert page.get_attribute("[data-tool=brush]", "aria-pressed") == "true"
    page.locator(".sx-view").click(button="middle")
    page.keyboard.down("h")
    assert page.evaluate("getComputedStyle(document.querySelector('.sx-layer-labels')).visibility") == "hidden"
    page.keyboard.up("h")
    assert page.evaluate("getComputedStyle(document.querySelector('.sx-layer-labels')).visibility") == "visible"
    open_tab(page, "Curate")
    page.wait_for_selector(".sx-sample.sx-current")
    page.keyboard.press("ArrowRight")  # must not vote
    open_tab(page, "Vote")
    assert tiny.get("/api/projects/1/overview")["votes"] == before


def test_votes_wait_while_the_program_is_dead(page: Page, tiny: Studio):
    before = tiny.get("/api/projects/1/overview")["votes"]
    open_draw(page, tiny)
    tiny.score_samples()
    open_tab(page, "Vote")
    page.wait_for_selector("[data-panel=vote][data-pair*='-']")
    tiny.kill()
    for key in ("ArrowLeft", "ArrowRight"):
        page.keyboard.press(key)
    expect(page.locator(".sx-vote-info")).to_contain_text("kept in this browser", timeout=10_000)
    tiny.start()
    page.wait_for_selector("[data-panel=vote][data-saved='2']", timeout=20_000)
    assert tiny.get("/api/projects/1/overview")["votes"] == before + 2


def test_a_card_in_data_opens_in_draw(page: Page, tiny: Studio):
    open_draw(page, tiny)
    open_tab(page, "Data")
    page.locator(".sx-data .sx-sample").nth(1).click()
    page.wait_for_selector("[data-panel=draw][data-loaded^='2-']:visible")
    expect(page.locator(".sx-zoom")).to_contain_text("96 \u00d7 48 px")
