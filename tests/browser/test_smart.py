"""The smart click in a browser: shown first, painted when it is wanted, one step to undo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Studio
from tests.browser.serve_smart import HEIGHT, WIDTH, bar, organ
from tests.browser.test_draw import newest
from tests.browser.test_loop import LOADED, saved
from tests.segmentation import tiny_sam

pytestmark = pytest.mark.browser
SCRIPT = Path(__file__).with_name("serve_smart.py")
SHOWN = """wanted => {
    const layer = document.querySelector('.sx-layer-smart');
    if (!layer.width) return wanted === 'count' ? 0 : [];  // nothing was shown yet
    const pixels = layer.getContext('2d').getImageData(0, 0, layer.width, layer.height).data;
    const found = Array.from({length: layer.width * layer.height}, (_, i) => pixels[4 * i + 3] > 0);
    return wanted === 'count' ? found.filter(Boolean).length : found;
}"""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """No checkpoint: GrabCut answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SAADI_SAM_CHECKPOINT", raising=False)
        made = Studio(tmp_path_factory.mktemp("smart") / "home", script=SCRIPT)
        made.start()
    yield made
    made.stop()


def open_organ(page: Page, studio: Studio) -> Callable[[float, float], tuple[float, float]]:
    """Show the third image with the smart tool in hand; returns where a pixel of it is on the screen."""
    page.goto(studio.url)
    page.wait_for_selector(LOADED, timeout=30_000)
    page.locator(".sx-frame[title='organ.png']").click()
    page.wait_for_selector("[data-panel=draw][data-loaded^='3-']")
    page.keyboard.press("1")
    page.keyboard.press("s")
    expect(page.locator(".sx-smart-words")).to_contain_text("box around", timeout=10_000)
    view = page.locator(".sx-view").bounding_box()
    zoom = min(view["width"] / WIDTH, view["height"] / HEIGHT)
    left, top = view["x"] + (view["width"] - WIDTH * zoom) / 2, view["y"] + (view["height"] - HEIGHT * zoom) / 2
    return lambda x, y: (left + x * zoom, top + y * zoom)


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end)
    page.mouse.up()


def shown(page: Page) -> np.ndarray:
    """The mask that is shown and not painted yet, once no answer is awaited."""
    page.wait_for_function("!document.querySelector('.sx-draw').dataset.smart", timeout=20_000)
    return np.array(page.evaluate(SHOWN, "all")).reshape(HEIGHT, WIDTH)


def iou(found: np.ndarray, wanted: np.ndarray) -> float:
    return float((found & wanted).sum() / (found | wanted).sum())


def test_a_box_becomes_the_object_and_undo_takes_it_back_as_one_step(page: Page, studio: Studio):
    at = open_organ(page, studio)
    expect(page.locator(".sx-smart-words")).to_contain_text("GrabCut: no SAM checkpoint is set")
    drag(page, at(14, 10), at(54, 55))
    assert iou(shown(page), organ()) > 0.9
    assert "variant" not in str(studio.get("/api/projects/1/drawings"))  # only shown so far
    page.keyboard.press("Enter")
    saved(page)
    assert iou(newest(studio)[1] == 1, organ()) > 0.9 and not shown(page).any()
    page.keyboard.press("Control+z")
    saved(page)
    assert not newest(studio)[1].any()
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()


def test_clicks_take_away_are_taken_back_and_given_up(page: Page, studio: Studio):
    at = open_organ(page, studio)
    before = studio.get("/api/projects/1/drawings")
    page.mouse.click(*at(70, 32), button="right")
    expect(page.locator(".sx-toast")).to_contain_text("Click the object first")
    drag(page, at(13, 9), at(86, 55))
    first = shown(page)
    assert first[organ()].mean() > 0.9
    page.keyboard.down("Shift")
    page.mouse.click(*at(70, 32))
    page.keyboard.up("Shift")
    less = shown(page)
    assert not less[32, 70] and less[bar()].mean() < 0.3 and less[organ()].mean() > 0.9
    page.get_by_role("button", name="Take away").click()
    page.mouse.click(*at(34, 32))
    assert not shown(page)[32, 34]
    page.keyboard.press("Control+z")
    np.testing.assert_array_equal(shown(page), less)
    page.keyboard.press("Escape")
    assert not shown(page).any() and page.locator("#smart-use").is_hidden()
    expect(page.locator(".sx-save")).to_have_text("unchanged")
    assert studio.get("/api/projects/1/drawings") == before


def test_another_tool_paints_what_is_shown_and_an_empty_field_says_why_not(page: Page, studio: Studio):
    at = open_organ(page, studio)
    page.mouse.click(*at(34, 32))
    assert iou(shown(page), organ()) > 0.85
    page.keyboard.press("b")
    saved(page)
    assert iou(newest(studio)[1] == 1, organ()) > 0.85
    page.get_by_role("button", name="New mask").click()
    page.keyboard.press("s")
    expect(page.locator(".sx-smart-words")).to_contain_text("there is none here")
    page.locator(".sx-view").click()
    expect(page.locator(".sx-toast")).to_contain_text("goes by an image")


def test_with_sam_the_pointer_shows_what_a_click_would_give(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAADI_SAM_CHECKPOINT", str(tiny_sam.save(tmp_path / "tiny.pth")))
    monkeypatch.setenv("SAADI_DEVICE", "cpu")
    studio = Studio(tmp_path / "home", script=SCRIPT)
    studio.start()
    try:
        at = open_organ(page, studio)
        expect(page.locator(".sx-smart-words")).to_contain_text("SAM (2 blocks of 32)", timeout=60_000)
        page.mouse.move(*at(34, 32))
        page.wait_for_function(f"({SHOWN})('count') > 0", timeout=20_000)
        assert page.locator("#smart-use").is_hidden()  # a preview, no click
        page.mouse.move(5, 5)
        page.wait_for_function(f"({SHOWN})('count') === 0")
        page.mouse.click(*at(34, 32))
        assert shown(page).any()
        page.click("#smart-use")
        saved(page)
        assert newest(studio)[1].any()
    finally:
        studio.stop()
