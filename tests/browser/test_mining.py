"""What the segmenter misses, told in Generate; what is hard and right, shown in Curate."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from saadi.curation import quadrants_of
from saadi.mining import seen
from saadi.mining.weakness import Part
from saadi.records import Score
from saadi.store import Store
from tests.browser.conftest import Studio
from tests.browser.test_draw import SCRIPT
from tests.browser.test_loop import open_tab

pytestmark = pytest.mark.browser
PANEL = "[data-panel=curate]"
SELECTOR = [0.2, 0.5, 0.7, 0.95, 0.97, 0.6]
JUDGE = [0.9, 0.92, 0.3, 0.95, 0.2, 0.93]
"""Of the six samples: right are those from 0.9 on, hard those that the selector finds less than 0.9."""


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = Studio(tmp_path_factory.mktemp("mined") / "home", script=SCRIPT)
    studio.start()
    with Store.open(studio.home) as store:
        project = store.project(1)
        rows = store.sample_rows(1)
        label_map = np.zeros((64, 64), np.uint8)
        label_map[8:24, 8:24], label_map[40:48, 40:48] = 1, 2
        for number in range(12):
            blob = store.blobs.put_image(np.full((64, 64, 3), 20 * number + 7, np.uint8))
            store.add_image(1, blob=blob, size=(64, 64), group_id=f"v{number}", split="val", source_name=f"v{number}",
                            label_map_blob=store.blobs.put_label_map(label_map), actor="test")  # fmt: skip
        for kind, dice in (("selector", SELECTOR), ("judge", JUDGE)):
            model = store.add_model(1, kind=kind, architecture={}, file=store.files.put(kind.encode()), metrics={}, actor="test")
            store.add_scores([Score(row.id, model.id, kind, value, value, 0.9, {"liver": {"dice": value}, "tip": {"dice": value}},
                                    row.label_map_blob) for row, value in zip(rows, dice, strict=True)])  # fmt: skip
            for number, one in enumerate(seen.unseen_by(model, seen.labelled(store, project))):
                parts = (Part(1, 0.06, 20.0, 0, 0.95, one.image.group_id), Part(2, 0.015, 5.0, 8, 0.3, one.image.group_id))
                store.put_descriptors(seen.space(model), {one.key: seen.pack(seen.Seen(0.9 + 0.001 * (number % 3), parts))})
    yield studio
    studio.stop()


@pytest.fixture
def page_of(page: Page, mined: Studio) -> Page:
    page.goto(mined.url)
    page.wait_for_selector("[data-panel=draw][data-ready]", timeout=30_000)
    return page


def test_generate_tells_what_is_missed_and_leads_to_the_hard_ones(page_of: Page, mined: Studio):
    page = page_of
    open_tab(page, "Generate")
    card = page.locator("#weak-places")
    expect(card.locator(".sx-weak-words")).to_have_text("Found least: tip, 30\u00a0%.")
    tip = card.locator("[data-class='2']")
    expect(tip.locator(".sx-weak-cell")).to_have_count(15)
    expect(tip.get_by_role("img", name="bottom right: 30\u00a0% found, 12 parts in 12 patients or images")).to_be_visible()
    expect(tip.get_by_role("img", name="centre: 0 parts, too few to tell")).to_be_visible()
    expect(card.get_by_role("button", name="Let it look at the real images")).to_be_hidden()
    with Store.open(mined.home) as store:
        uses = quadrants_of(store, store.project(1))
    prizes = [number for number, use in uses.items() if use == "prize"]
    assert len(prizes) == 3 and len(uses) == 6
    card.get_by_role("button", name="Hard ones in Curate").click()
    page.wait_for_selector(f"{PANEL}[data-loaded='3']:visible", timeout=20_000)
    expect(page.get_by_role("button", name="Take away: hard and right")).to_be_visible()
    open_tab(page, "Generate")  # asked for once: Curate is left as one left it
    page.get_by_role("tab", name="Curate", exact=True).click()
    page.get_by_role("button", name="Take away: hard and right").click()
    page.wait_for_selector(f"{PANEL}[data-loaded='6']")
    open_tab(page, "Generate")
    open_tab(page, "Curate")
    page.wait_for_selector(f"{PANEL}[data-loaded='6']:visible")


def test_the_map_lays_out_by_hard_and_right_and_a_loop_chooses(page_of: Page):
    page = page_of
    open_tab(page, "Curate")
    page.wait_for_selector(f"{PANEL}[data-loaded='6']:visible", timeout=20_000)
    page.get_by_role("button", name="Map", exact=True).click()
    page.get_by_role("button", name="Hard \u00d7 right").click()
    page.wait_for_selector(".sx-map[data-dots='6']")
    page.get_by_role("button", name="Use", exact=True).click()
    expect(page.locator(".sx-map-legend")).to_contain_text("hard and right")
    box = page.locator(".sx-map-canvas").bounding_box()
    assert box is not None
    corners = [(0.02, 0.02), (0.98, 0.02), (0.98, 0.3), (0.02, 0.3)]  # what the judge finds
    page.mouse.move(box["x"] + corners[0][0] * box["width"], box["y"] + corners[0][1] * box["height"])
    page.mouse.down()
    for x, y in [*corners[1:], corners[0]]:
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
    page.mouse.up()
    expect(page.locator(".sx-bulk")).to_contain_text("4")


def test_a_search_is_ordered_with_what_the_fields_say(page_of: Page, mined: Studio):
    page = page_of
    open_tab(page, "Generate")
    page.fill("#mine-count", "3")
    page.fill("#mine-turns", "2")
    page.check("#mine-learned")
    page.click("#mine-start")
    expect(page.locator(".sx-toast")).to_contain_text("Started")
    job = mined.job_of_kind("mine")
    assert job["title"] == "Searching for hard images"
    with Store.open(mined.home) as store:
        params = store.job(job["id"]).params
    assert (params["count"], params["candidates"], params["turns"], params["focus"], params["learned"]) == (3, 2, 2, "weak", True)
    httpx.post(f"{mined.url}/api/jobs/{job['id']}/cancel", json={})


def test_masks_where_the_segmenter_is_weak_can_be_chosen_for_a_pool(page_of: Page, mined: Studio):
    page = page_of
    open_tab(page, "Generate")
    page.select_option("#pool-from", "weak")
    expect(page.get_by_text("16 masks like those that the segmenter misses")).to_be_visible()
    page.click("#pool-generate")
    job = mined.job_of_kind("generate")
    with Store.open(mined.home) as store:
        assert store.job(job["id"]).params["focus"] == "weak"
    httpx.post(f"{mined.url}/api/jobs/{job['id']}/cancel", json={})
