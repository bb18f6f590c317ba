"""Suggested masks in Draw, over a real worker and a small mask generator."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from saadi.store import Store
from tests.browser.conftest import Studio
from tests.browser.test_draw import newest
from tests.browser.test_loop import LOADED, saved, stroke

pytestmark = pytest.mark.browser
MASK = ".sx-suggest-mask"


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    made = Studio(tmp_path_factory.mktemp("learnt") / "home", script=Path(__file__).with_name("serve_masks.py"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def draw(page: Page, learnt: Studio) -> Page:
    page.goto(learnt.url)
    page.wait_for_selector(LOADED, timeout=60_000)
    return page


def suggested(page: Page) -> list[str]:
    """Pictures in the window, once they are there."""
    page.wait_for_selector(MASK, timeout=90_000)
    return [str(node.get_attribute("src")) for node in page.locator(f"{MASK} img").all()]


def test_a_suggested_mask_opens_as_a_drawing_that_can_be_edited(draw: Page, learnt: Studio):
    draw.click("#draw-suggest")
    first = suggested(draw)
    assert 6 <= len(first) <= 12 and len(set(first)) == len(first)
    expect(draw.locator(".sx-suggest .sx-note[role=status]")).to_contain_text("of training images: sizes, parts and neighbours")
    with Store.open(learnt.home) as store:
        before = len(store.label_maps(1))
    draw.get_by_role("button", name="12 others").click()
    other = "old => { const now = document.querySelector('.sx-suggest-mask img'); return now && now.getAttribute('src') !== old }"
    draw.wait_for_function(other, arg=first[0], timeout=60_000)
    with Store.open(learnt.home) as store:
        assert len(store.label_maps(1)) == before  # looking stores nothing
    draw.locator(MASK).first.click()
    expect(draw.locator(".sx-suggest")).to_be_hidden()
    expect(draw.locator(".sx-doc")).to_contain_text("suggested, seed")
    number, shown = newest(learnt)
    assert (shown == 1).any() and set(np.unique(shown)) <= {0, 1}
    draw.keyboard.press("2")
    stroke(draw, (-60, 0), (60, 0))
    saved(draw)
    again, edited = newest(learnt)
    assert again == number and (edited == 2).any() and (edited == 1).any()


def test_an_answer_that_nobody_waits_for_is_stopped(draw: Page, learnt: Studio):
    draw.click("#draw-suggest")
    draw.keyboard.press("Escape")
    draw.wait_for_timeout(600)  # the next look at the job
    newest = learnt.wait_for_jobs(timeout_s=60)[0]
    assert newest["kind"] == "suggest_masks" and newest["state"] in ("cancelled", "done")
    assert "masks" not in newest["result"]  # lists of jobs stay short


def test_a_drawing_is_varied_and_must_show_what_was_chosen(draw: Page, learnt: Studio):
    draw.get_by_role("button", name="New mask").click()
    draw.click("#draw-suggest")
    expect(draw.get_by_role("button", name="Vary this mask")).to_be_disabled()
    draw.keyboard.press("Escape")
    draw.keyboard.press("1")
    stroke(draw, (-40, 0), (40, 0))
    saved(draw)
    _, start = newest(learnt)
    draw.click("#draw-suggest")
    draw.get_by_role("button", name="Vary this mask").click()
    expect(draw.locator("#suggest-strength")).to_be_visible()
    suggested(draw)
    draw.locator(MASK).first.click()
    expect(draw.locator(".sx-doc")).to_contain_text("suggested, seed")
    _, varied = newest(learnt)
    assert varied.shape == start.shape and (varied == 1).any() and (varied != start).any()
    draw.click("#draw-suggest")
    draw.locator(".sx-suggest .sx-chip", has_text=re.compile("^tip$")).click()
    told = draw.locator(".sx-suggest .sx-note[role=status]")
    expect(told).to_contain_text("no real mask holds tip, so none can be drawn with it", timeout=60_000)
