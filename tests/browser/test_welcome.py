"""The first minute: three cards, who is here, sizes of screens."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Studio
from tests.browser.test_draw import SCRIPT
from tests.browser.test_loop import LOADED, open_tab, stroke

pytestmark = pytest.mark.browser
TABS = ("Draw", "Data", "Generate", "Curate", "Vote", "Align", "Evidence", "Export")
OVERFLOWING = """() => {
    const panel = [...document.querySelectorAll('.sx-panel:not([data-panel=shell])')].find((one) => one.offsetParent);
    const header = [...document.querySelectorAll('.sx-header button, .sx-header select, [role=tab]')];
    const scrolls = (node) =>
        node && node !== panel && (/auto|scroll/.test(getComputedStyle(node).overflowX) || scrolls(node.parentElement));
    return [...header, ...panel.querySelectorAll('button, input, select, h2, canvas')]
        .filter((node) => node.offsetParent && !scrolls(node.parentElement))
        .filter((node) => !node.closest('details:not([open]) > :not(summary)'))
        .map((node) => [node.getBoundingClientRect(), node])
        .filter(([box]) => box.width && (box.right > innerWidth + 1 || box.left < -1))
        .map(([, node]) => `${node.tagName} ${node.className} ${node.textContent.slice(0, 20)}`);
}"""

OVERLAPPING = """() => {
    const panel = [...document.querySelectorAll('.sx-panel:not([data-panel=shell])')].find((one) => one.offsetParent);
    const cut = (node, box) => {  // what of it is seen through the boxes that scroll or clip it
        for (let outer = node.parentElement; outer; outer = outer.parentElement) {
            if (getComputedStyle(outer).overflow === 'visible') continue;
            const own = outer.getBoundingClientRect();
            box = { left: Math.max(box.left, own.left), right: Math.min(box.right, own.right),
                    top: Math.max(box.top, own.top), bottom: Math.min(box.bottom, own.bottom) };
        }
        return box;
    };
    const seen = [...panel.querySelectorAll('button, input, select')]
        .filter((node) => node.offsetParent && !node.closest('details:not([open]) > :not(summary)'))
        .map((node) => [node, cut(node, node.getBoundingClientRect())])
        .filter(([node, box]) => box.right - box.left > 4 && box.bottom - box.top > 4 && !node.matches('.sx-star'));
    const found = [];
    seen.forEach(([node, a], index) => seen.slice(index + 1).forEach(([other, b]) => {
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (wide > 3 && high > 3 && !node.contains(other) && !other.contains(node))
            found.push(`${node.textContent || node.className} | ${other.textContent || other.className}`.slice(0, 90));
    }));
    return found;
}"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    made = Studio(tmp_path_factory.mktemp("welcome") / "home", script=SCRIPT)
    made.start()
    made.score_samples()
    yield made
    made.stop()


def test_the_first_visit_leads_to_a_vote(new_page: Callable[..., Page], tiny: Studio):
    page = new_page(is_first_visit=True)
    page.goto(tiny.url)
    expect(page.locator(".sx-welcome-card")).to_have_count(3, timeout=30_000)
    page.keyboard.press("Enter")  # the card in focus
    page.wait_for_selector("[data-panel=vote][data-pair*='-']")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("[data-panel=vote][data-saved='1']")
    page.reload()
    page.wait_for_selector(LOADED)
    expect(page.locator(".sx-welcome")).to_have_count(0)
    page.get_by_role("button", name="What is this?").click()
    expect(page.locator(".sx-welcome")).to_be_visible()


def test_what_somebody_draws_carries_the_name_chosen_above(page: Page, tiny: Studio):
    page.goto(tiny.url)
    page.wait_for_selector(LOADED, timeout=30_000)
    page.get_by_role("button", name="You are ann; change").click()
    page.get_by_label("Your name").fill("Dr. Zoë")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="You are Dr. Zoë; change")).to_be_visible(timeout=20_000)
    page.wait_for_selector(LOADED)
    stroke(page, (-50, 0), (50, 0))
    page.wait_for_selector(".sx-save[data-state=saved]")
    assert tiny.get("/api/projects/1/drawings")["items"][0]["author"] == "Dr. Zoë"
    assert "Dr. Zoë" in tiny.get("/api/start")["people"]


@pytest.mark.parametrize("size", [(1366, 768), (1920, 1080), (1024, 768), (820, 1180), (683, 384)])
def test_nothing_is_cut_off(new_page: Callable[..., Page], tiny: Studio, size: tuple[int, int]):
    """Hospital screen, large screen, tablet in both directions, and the hospital screen at 200 % zoom."""
    page = new_page()
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.goto(tiny.url)
    page.wait_for_selector(LOADED, timeout=30_000)
    for tab in TABS:
        open_tab(page, tab)
        page.wait_for_timeout(400)
        assert page.evaluate(OVERFLOWING) == [], tab
        assert page.evaluate(OVERLAPPING) == [], tab
