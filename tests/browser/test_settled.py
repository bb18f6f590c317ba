"""The settled pairs of the Align tab: who decided what, pages and filters by mouse and keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from saadi.records import Score
from saadi.store import Store
from tests import builders
from tests.browser.conftest import Studio
from tests.browser.test_align import assert_accessible, opened
from tests.browser.test_draw import SCRIPT

pytestmark = pytest.mark.browser
WEAK = {"val": {"dice_per_class": {"liver": 0.45}}}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """Fourteen masks of two images: one pair decided by two people, one left out, the others by a weak score."""
    made = Studio(tmp_path_factory.mktemp("settled") / "home", script=SCRIPT)
    made.start()
    with Store.open(made.home) as store:
        project = store.project(1)
        for kind in ("selector", "judge"):
            store.add_model(1, kind=kind, architecture={}, file=kind, metrics=WEAK, actor="test")
        selector = store.active_model(1, "selector")
        assert selector is not None
        for number in range(14):
            record = builders.add_label_map(store, project, size_px=16 + number)
            pair = builders.add_samples(store, project, count=2, label_map=record)
            for sample, dice in zip(pair, (0.9, 0.5), strict=True):
                part = {"liver": {"dice": dice, "iou": dice, "recall": dice}}
                store.add_scores([Score(sample.id, selector.id, "selector", dice, dice, 0.9, part, record.blob)])
            votes = {0: [("ann", "left"), ("bob", "left")], 1: [("ann", "both_bad")]}.get(number, [])
            for voter, answer in votes:
                store.add_vote(1, left_id=pair[0].id, right_id=pair[1].id, answer=answer, voter=voter,
                               request_id=builders.new_request())  # fmt: skip
    yield made
    made.stop()


@pytest.fixture
def view(page: Page, tiny: Studio) -> Page:
    opened(page, tiny)
    expect(page.locator("#align-singles")).to_contain_text("Also 2 single images: 2 disliked, 2 real images")
    page.locator("#align-pairs").click()
    page.wait_for_selector(".sx-settled[data-shown='all:0']:visible", timeout=10_000)
    return page


def test_each_pair_says_who_decided_it_and_where_the_segmenter_is_weak(view: Page):
    cards = view.locator(".sx-settled-pair")
    expect(cards).to_have_count(12)
    expect(cards.first).to_contain_text("2 people and the score agree")
    expect(cards.first).to_contain_text("counts fully")
    expect(cards.nth(1)).to_contain_text("The score decided")
    expect(cards.nth(1)).to_contain_text("counts a quarter")
    expect(cards.nth(1)).to_contain_text("The segmenter is weak on liver (45\u00a0% on real images).")
    expect(cards.first.get_by_role("button", name="chosen: image", exact=False).first).to_be_visible()
    assert_accessible(view)


def test_pages_and_filters_by_mouse_and_keys(view: Page):
    where, cards = view.locator(".sx-settled-pages [role=status]"), view.locator(".sx-settled-pair")
    expect(where).to_have_text("1\u201312 of 13")
    view.keyboard.press("ArrowRight")
    expect(where).to_have_text("13\u201313 of 13")
    expect(cards).to_have_count(1)
    view.keyboard.press("ArrowRight")  # there is no third page
    view.keyboard.press("ArrowLeft")
    expect(cards).to_have_count(12)
    view.get_by_role("button", name="Left out 1").click()
    expect(cards).to_have_count(1)
    expect(cards).to_contain_text("Somebody called an image bad: it cannot win")
    expect(view.get_by_role("button", name="Left out 1")).to_have_attribute("aria-pressed", "true")
    view.get_by_role("button", name="Single images 4").click()
    expect(cards).to_have_count(4)
    expect(cards.first).to_contain_text("1 person does not like it")
    expect(cards.last).to_contain_text("A real image stands for a liked one")
    assert_accessible(view)
    view.keyboard.press("Escape")
    expect(view.locator(".sx-settled")).to_be_hidden()
    expect(view.locator("#align-pairs")).to_be_focused()


def test_an_image_opens_and_closing_it_leads_back(view: Page):
    view.locator(".sx-settled-picture").first.click()
    dialog = view.get_by_role("dialog")
    expect(dialog).to_contain_text("The segmenter is 90\u00a0% sure; it is weak on liver")
    view.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(view.locator(".sx-settled-pair")).to_have_count(12)
