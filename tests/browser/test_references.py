"""Paint it like this one: offered where the generator has learnt to, chosen by a picture, and part of the order."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from saadi.store import Store
from tests.browser.conftest import Studio
from tests.browser.test_draw import SCRIPT, open_draw
from tests.browser.test_loop import open_tab, saved, stroke

pytestmark = pytest.mark.browser
DIALOG = ".sx-reference-dialog[open]"


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A generator that says it has learnt references, and three training images with a liver, one of them with a tip."""
    studio = Studio(tmp_path_factory.mktemp("listening") / "home", script=SCRIPT)
    studio.start()
    with Store.open(studio.home) as store:
        store.add_model(1, kind="engine", architecture={"style_dim": 8, "num_classes": 3}, file=store.files.put(b"w"), metrics={},
                        actor="test")  # fmt: skip
        for number in range(3):
            label_map = np.zeros((64, 64), np.uint8)
            label_map[: 20 + 10 * number] = 1
            label_map[58:, : 60 if number == 2 else 0] = 2
            blob = store.blobs.put_image(np.full((64, 64, 3), 11 + number, np.uint8))
            store.add_image(1, blob=blob, size=(64, 64), group_id=f"r{number}", split="train", source_name=f"liver {number}",
                            label_map_blob=store.blobs.put_label_map(label_map), actor="test")  # fmt: skip
    yield studio
    studio.stop()


def settings_of(listening: Studio) -> dict:
    job = listening.job_of_kind("generate")
    with Store.open(listening.home) as store:
        found = store.job(job["id"]).params["settings"]
    httpx.post(f"{listening.url}/api/jobs/{job['id']}/cancel", json={})
    return found


def choose_liver(page: Page, within: str) -> str:
    """Press the button, choose the image with most of the liver; returns its name."""
    page.locator(within).get_by_role("button", name="Paint like\u2026").click()
    page.wait_for_selector(f"{DIALOG} .sx-reference-choice")
    expect(page.locator(f"{DIALOG} .sx-note")).to_contain_text("whose liver it is to look like (3 training images)")
    first = page.locator(f"{DIALOG} .sx-reference-choice").first
    name = first.get_attribute("title") or ""
    first.click()
    expect(page.locator(DIALOG)).to_be_hidden()
    return name


def test_a_pool_is_painted_like_a_chosen_image(page: Page, listening: Studio):
    open_draw(page, listening)
    open_tab(page, "Generate")
    assert choose_liver(page, ".sx-generate") == "liver 2"  # most of it first
    page.click("#pool-generate")
    [told] = settings_of(listening)["references"]
    with Store.open(listening.home) as store:
        assert told["class_index"] == 1 and store.image(told["image_id"]).source_name == "liver 2"
    page.locator(".sx-generate").get_by_role("button", name="Take away: liver like image").click()
    page.fill("#pool-seed", "77")
    page.click("#pool-generate")
    assert "references" not in settings_of(listening)


def test_the_dialog_shows_the_images_of_the_class_that_is_chosen(page: Page, listening: Studio):
    open_draw(page, listening)
    open_tab(page, "Generate")
    page.locator(".sx-generate").get_by_role("button", name="Paint like\u2026").click()
    page.wait_for_selector(f"{DIALOG} .sx-reference-choice >> nth=2")
    page.locator(DIALOG).get_by_role("button", name="tip").click()
    expect(page.locator(f"{DIALOG} .sx-reference-choice")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator(DIALOG)).to_have_count(0)


def test_in_draw_it_is_one_of_the_settings(page: Page, listening: Studio):
    open_draw(page, listening)
    page.keyboard.press("1")
    stroke(page, (-100, 0), (100, 0))
    saved(page)
    choose_liver(page, ".sx-results-column")
    page.keyboard.press("Control+Enter")
    assert settings_of(listening)["references"][0]["class_index"] == 1


def test_where_the_generator_has_not_learnt_it_nothing_is_offered(page: Page, tmp_path):
    plain = Studio(tmp_path / "home", script=SCRIPT)
    plain.start()
    try:
        open_draw(page, plain)
        open_tab(page, "Generate")
        page.wait_for_selector("#pool-generate")
        expect(page.get_by_role("button", name="Paint like\u2026")).to_have_count(0)
        open_tab(page, "Data")
        page.uncheck("#fit-few")
        page.check("#fit-references")
        page.click("#fit-generator")
        expect(page.locator(".sx-toast")).to_contain_text("8 needed to fit")
    finally:
        plain.stop()
