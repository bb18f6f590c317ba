"""Vote: every key, undo, looking closely, reasons, the end of a block, thumbs, and the lead's rulings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from saadi.records import Vote
from saadi.store import Store
from tests import builders
from tests.browser.conftest import Studio
from tests.browser.test_draw import SCRIPT
from tests.browser.test_loop import LOADED, open_tab

pytestmark = pytest.mark.browser
PANEL = "[data-panel=vote]"
LOOK = "() => [...document.querySelectorAll('.sx-pair .sx-vote-stage')].slice(0, 2).map((stage) => stage.style.transform)"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """One program for all tests here, with 43 pairs under two masks; each test is a reviewer of its own."""
    made = Studio(tmp_path_factory.mktemp("vote") / "home", script=SCRIPT)
    made.start()
    with Store.open(made.home) as store:
        project = store.project(1)
        builders.add_samples(store, project, count=8, label_map=builders.add_label_map(store, project, value=2))
    made.score_samples()
    yield made
    made.stop()


@pytest.fixture
def reviewer(page: Page, tiny: Studio) -> Callable[[str], Page]:
    """Open Vote under a name."""

    def sit_down(name: str) -> Page:
        page.add_init_script(f"localStorage.setItem('saadi.person', '{name}')")
        page.goto(tiny.url)
        page.wait_for_selector(LOADED, timeout=30_000)
        open_tab(page, "Vote")
        page.wait_for_selector(f"{PANEL}[data-pair*='-']")
        return page

    return sit_down


def shown(page: Page) -> str:
    return page.get_attribute(PANEL, "data-pair") or ""


def press(page: Page, *keys: str) -> list[str]:
    """Press keys that answer; the pairs that were answered."""
    pairs = []
    for key in keys:
        pairs.append(shown(page))
        page.keyboard.press(key)
        page.wait_for_function("([panel, old]) => !['', old].includes(document.querySelector(panel).dataset.pair)",
                               arg=[PANEL, pairs[-1]])  # fmt: skip
    return pairs


def stored(page: Page, tiny: Studio, name: str, count: int) -> list[Vote]:
    """The reviewer's votes once the page has delivered `count` messages."""
    page.wait_for_selector(f"{PANEL}[data-saved='{count}']", timeout=15_000)
    with Store.open(tiny.home) as store:
        return store.votes(1, voter=name)


def seconds_left(page: Page) -> int:
    minutes, seconds = page.inner_text(".sx-ring-text").split(" ")[0].split(":")
    return 60 * int(minutes) + int(seconds)


def test_every_key_answers_and_reasons_belong_to_one_answer(reviewer: Callable[[str], Page], tiny: Studio):
    page = reviewer("keys")
    pairs = press(page, "ArrowLeft")
    page.keyboard.press("1")
    page.keyboard.press("3")
    page.get_by_role("button", name="Artefact").click()
    page.keyboard.press("3")  # taken off again
    expect(page.locator(".sx-chip[aria-pressed=true]")).to_have_count(2)
    pairs += press(page, "ArrowRight")
    expect(page.locator(".sx-chip[aria-pressed=true]")).to_have_count(0)
    pairs += press(page, "ArrowUp", "ArrowDown", "Space")
    votes = stored(page, tiny, "keys", 5)
    assert [vote.answer for vote in votes] == ["left", "right", "both_good", "both_bad", "skip"]
    assert [f"{vote.left_id}-{vote.right_id}" for vote in votes] == pairs and len(set(pairs)) == 5
    assert [vote.reasons for vote in votes] == [(), ("anatomy", "artefact"), (), (), ()]
    assert len({vote.block for vote in votes}) == 1 and all(vote.response_ms is not None for vote in votes)


def test_twenty_answers_are_taken_back_also_after_a_reload(reviewer: Callable[[str], Page], tiny: Studio):
    page = reviewer("undo")
    pairs = press(page, *["ArrowLeft", "ArrowRight"] * 11)
    for expected in pairs[:-11:-1]:
        page.keyboard.press("z")
        page.wait_for_selector(f"{PANEL}[data-pair='{expected}']")
    stored(page, tiny, "undo", 32)
    page.reload()
    page.wait_for_selector(LOADED, timeout=30_000)
    open_tab(page, "Vote")
    page.wait_for_selector(f"{PANEL}[data-pair*='-']")
    for expected in pairs[11:1:-1]:
        page.keyboard.press("z")
        page.wait_for_selector(f"{PANEL}[data-pair='{expected}']")
    page.keyboard.press("z")
    expect(page.locator(".sx-toast")).to_contain_text("Nothing more to take back")
    left = stored(page, tiny, "undo", 10)
    assert [f"{vote.left_id}-{vote.right_id}" for vote in left] == pairs[:2]


def test_both_images_are_looked_at_in_the_same_place(reviewer: Callable[[str], Page]):
    page = reviewer("look")
    box = page.locator(".sx-pair .sx-vote-frame").first.bounding_box()
    assert box["height"] > 480  # of 768
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -400)
    page.wait_for_function(f"({LOOK})()[0].includes('scale(2.7')")
    left, right = page.evaluate(LOOK)
    assert left == right
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4 - 50, box["y"] + box["height"] / 2 - 40)
    page.mouse.up()
    moved = page.evaluate(LOOK)
    assert moved[0] == moved[1] != left
    page.mouse.dblclick(box["x"] + 30, box["y"] + 30)
    assert page.evaluate(LOOK) == ["translate(0%, 0%) scale(1)"] * 2
    page.keyboard.press("+")
    assert float(page.get_attribute(PANEL, "data-zoom") or 0) == 1.4
    page.keyboard.press("Shift+ArrowRight")  # moves the picture, votes not
    assert page.evaluate(LOOK)[1].startswith("translate(-30%")
    page.keyboard.press("-")
    assert page.get_attribute(PANEL, "data-zoom") == "1.00"
    page.keyboard.press("+")
    press(page, "ArrowLeft")
    assert page.get_attribute(PANEL, "data-zoom") == "1.00"  # the next pair is seen whole


def test_outline_and_difference_are_shown_while_a_key_is_held(reviewer: Callable[[str], Page], tiny: Studio):
    page = reviewer("hold")
    outline = "getComputedStyle(document.querySelector('.sx-pair .sx-vote-outline')).visibility"
    page.keyboard.down("h")
    assert page.evaluate(outline) == "hidden"
    page.keyboard.up("h")
    assert page.evaluate(outline) == "visible"
    page.keyboard.down("d")
    expect(page.locator(".sx-vote-word:visible")).to_have_text(["difference: brighter = more"] * 2)
    greys = page.evaluate("""() => [...document.querySelectorAll('canvas.sx-vote-difference')].map((canvas) =>
        [...canvas.getContext('2d').getImageData(3, 3, 1, 1).data])""")
    with Store.open(tiny.home) as store:  # each image is of one grey, its seed
        first, second = (store.sample(int(part)).seed for part in shown(page).split("-"))
    assert greys == [[4 * abs(first - second)] * 3 + [255]] * 2
    page.keyboard.up("d")
    expect(page.locator("canvas.sx-vote-difference")).to_have_count(0)


def test_a_block_survives_a_reload_and_ends_with_a_card(page: Page, reviewer: Callable[[str], Page], tiny: Studio):
    page.clock.install()
    reviewer("block")
    press(page, *["ArrowLeft"] * 3)
    expect(page.locator(".sx-ring-text")).to_contain_text("3 votes")
    stored(page, tiny, "block", 3)
    page.clock.run_for(100_000)
    page.reload()
    page.wait_for_selector(LOADED, timeout=30_000)
    open_tab(page, "Vote")
    page.wait_for_selector(f"{PANEL}[data-pair*='-']")
    before = seconds_left(page)
    assert 130 < before <= 201
    expect(page.locator(".sx-ring")).to_have_attribute("data-votes", "3")
    open_tab(page, "Curate")
    page.clock.run_for(100_000)  # another tab is open: the clock stands
    open_tab(page, "Vote")
    assert before - seconds_left(page) < 50
    page.clock.run_for(210_000)
    expect(page.locator(".sx-ring-text")).to_contain_text("last one")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".sx-vote-end[data-ready]")
    with Store.open(tiny.home) as store:
        assert len({vote.block for vote in store.votes(1, voter="block")}) == 1
    card = page.locator(".sx-vote-end")
    expect(card).to_contain_text("Thank you: 4 votes in this block")
    expect(card).to_contain_text("No pair was shown to you twice")
    expect(card).to_contain_text("training pair")
    page.keyboard.press("ArrowLeft")  # no pair is shown, so nothing is voted
    page.get_by_role("button", name="Another 5 minutes").click()
    press(page, "ArrowLeft")
    expect(page.locator(".sx-ring-text")).to_contain_text("1 vote")
    assert len(stored(page, tiny, "block", 2)) == 5


def test_single_images_get_thumbs_by_keys(reviewer: Callable[[str], Page], tiny: Studio):
    page = reviewer("thumb")
    page.get_by_role("button", name="Single images").click()
    seen = []
    for key in ("ArrowUp", "ArrowDown", "Space", "ArrowUp"):
        page.wait_for_selector(".sx-vote-view[data-sample]:visible:not([data-sample=''])")
        seen.append(page.get_attribute(".sx-vote-view[data-sample]", "data-sample"))
        page.keyboard.press(key)
        page.wait_for_function("old => document.querySelector('.sx-vote-view[data-sample]').dataset.sample !== old", arg=seen[-1])
    page.keyboard.press("z")
    page.wait_for_selector(f".sx-vote-view[data-sample='{seen[3]}']")
    page.wait_for_selector(f"{PANEL}[data-saved='4']")
    with Store.open(tiny.home) as store:
        given = {str(item.sample_id): item.value for item in store.thumbs(1) if item.voter == "thumb"}
        assert given == {seen[0]: "up", seen[1]: "down"}
        assert store.votes(1, voter="thumb") == []


def test_the_lead_rules_on_a_contested_pair(reviewer: Callable[[str], Page], tiny: Studio):
    with Store.open(tiny.home) as store:
        pair = [sample.id for sample in store.samples(1)[:2]]
        for voter, answer in (("una", "left"), ("vic", "right")):
            store.add_vote(1, left_id=pair[0], right_id=pair[1], answer=answer, voter=voter, request_id=builders.new_request())
    page = reviewer("lead")
    page.get_by_role("button", name="Agreement").click()
    expect(page.locator(".sx-verdict")).to_contain_text("Low data")
    assert "una" not in page.inner_text(PANEL)
    page.get_by_text("For the lead").click()
    contest = page.locator(f".sx-contest[data-pair='{pair[0]}-{pair[1]}']")
    expect(contest).to_contain_text("una: left is better")
    expect(contest).to_contain_text("vic: right is better")
    contest.get_by_role("button", name="Right is better").click()
    expect(contest).to_have_count(0)
    with Store.open(tiny.home) as store:
        rulings = [vote for vote in store.votes(1, voter="lead") if vote.kind == "ruling"]
    assert [(vote.left_id, vote.answer) for vote in rulings] == [(pair[0], "right")]
    page.get_by_role("button", name="Undo").last.click()
    expect(contest).to_have_count(1)


def test_another_reviewer_gets_pairs_of_their_own_and_no_vote_changes_hands(reviewer: Callable[[str], Page], tiny: Studio):
    page = reviewer("first")
    press(page, "ArrowLeft")
    stored(page, tiny, "first", 1)
    page.evaluate("localStorage.setItem('saadi.person', 'second')")
    page.keyboard.press("ArrowRight")  # meant for a pair that was chosen for the first one: no vote
    expect(page.locator(".sx-vote-head .sx-note")).to_have_text("0 votes by you")
    page.wait_for_selector(f"{PANEL}[data-pair*='-']")
    press(page, "ArrowRight")
    assert [vote.answer for vote in stored(page, tiny, "second", 2)] == ["right"]
    with Store.open(tiny.home) as store:
        assert [vote.answer for vote in store.votes(1, voter="first")] == ["left"]
