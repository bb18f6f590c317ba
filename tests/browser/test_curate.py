"""Curate in a real browser: filters, keys, ranges, the lasso, one zoom for all, undo, and 10,000 images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from saadi import atlas, curation, quality
from saadi.jobs import silent
from saadi.records import Score
from saadi.store import Store
from tests import builders
from tests.browser.conftest import Studio
from tests.browser.test_draw import SCRIPT
from tests.browser.test_loop import open_tab
from tests.test_curation import add_real

pytestmark = pytest.mark.browser
NUM = 60
PANEL = "[data-panel=curate]"
CURRENT = f"{PANEL} .sx-sample.sx-current"
SHOWN = """() => {
  const grid = document.querySelector('[data-panel=curate] .sx-grid'), box = grid.getBoundingClientRect();
  const cards = [...grid.querySelectorAll('.sx-sample')].filter((card) => {
    const r = card.getBoundingClientRect();
    return r.bottom > box.top + 8 && r.top < box.bottom - 8;
  });
  return cards.length > 5 && cards.every((card) => card.querySelector('img')?.complete && card.querySelector('img').naturalWidth);
}"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """60 images of two masks with rising scores, measured and laid out; served without a worker."""
    tiny = Studio(tmp_path_factory.mktemp("curate") / "home", script=SCRIPT)
    tiny.start()
    with Store.open(tiny.home) as store:
        project = store.project("tiny")
        add_real(store, project, 12, first_seed=900)
        draw = np.random.default_rng(0)
        for value in (1, 2):
            drawing = builders.add_label_map(store, project, value=value, size_px=64)
            model = store.active_model(project.id, "engine")
            assert model is not None
            for seed in range(NUM // 2):
                pixels = (draw.uniform(0, 60, (64, 64, 3)) + (seed * 6) * np.array([1, value == 1, value == 2])).clip(0, 255)
                store.add_sample(project.id, label_map_id=drawing.id, label_map_rev=1, label_map_blob=drawing.blob,
                                 blob=store.blobs.put_image(pixels.astype(np.uint8)), seed=seed, engine="compact",
                                 model_id=model.id, adapter_id=None, settings={}, purpose="pool")  # fmt: skip
        for kind, shift in (("selector", 0.0), ("judge", 0.05)):
            scorer = store.add_model(project.id, kind=kind, architecture={}, file=store.files.put(kind.encode()), metrics={},
                                     actor="test")  # type: ignore[arg-type]  # fmt: skip
            store.add_scores(Score(row.id, scorer.id, scorer.kind, row.id / 100 + shift, 0.5, 0.5,
                                   {"liver": {"dice": row.id / 100}}, row.label_map_blob)
                             for row in store.sample_rows(project.id))  # fmt: skip
        curation.describe_project(store, project, silent)
        rows, images = store.sample_rows(project.id), store.images(project.id)
        vectors = store.descriptors(quality.LOOK, [*(row.blob for row in rows), *(image.blob for image in images)])
        stacked = np.stack([vectors[item.blob] for item in (*rows, *images)])
        store.set_projection(project.id, input=store.projection_input(project.id, quality.LOOK),
                             sample_ids=[row.id for row in rows], image_ids=[image.id for image in images],
                             points=atlas.lay_out(stacked))  # fmt: skip
    yield tiny
    tiny.stop()


@pytest.fixture
def curate(served: Studio, new_page: Callable[..., Page]) -> Page:
    """Curate on a fresh browser with every image open and unmarked."""
    with Store.open(served.home) as store:
        ids = [row.id for row in store.sample_rows(1)]
        store.curate(ids, "pending", actor="test")
        store.mark(1, ids, "flag", is_set=False, person="ann")
    page = new_page()
    page.goto(served.url)
    page.wait_for_selector("[data-panel=draw][data-ready]", timeout=30_000)
    open_tab(page, "Curate")
    page.wait_for_selector(f"{PANEL}[data-loaded]", timeout=20_000)
    page.wait_for_selector(CURRENT)
    return page


def states(served: Studio) -> dict[str, int]:
    return {name: count for name, count in served.get("/api/projects/1/overview")["curation"].items() if count}


def wait_for_states(served: Studio, page: Page, wanted: dict[str, int]) -> None:
    for _ in range(100):
        if states(served) == wanted:
            return
        page.wait_for_timeout(50)
    assert states(served) == wanted


def shown(page: Page) -> int:
    return int(page.get_attribute(PANEL, "data-loaded") or -1)


def test_an_opened_tab_asks_for_its_images_once(curate: Page):
    asked: list[str] = []
    curate.on("request", lambda request: asked.append(request.url) if request.url.endswith("/facts") else None)
    curate.reload()
    curate.wait_for_selector("[data-panel=draw][data-ready]", timeout=30_000)
    open_tab(curate, "Curate")
    curate.wait_for_selector(f"{PANEL}[data-loaded]:visible")
    curate.wait_for_selector(CURRENT)
    curate.evaluate("fetch('/api/projects/1/overview').then((answer) => answer.text())")  # time for a second one to set out
    assert len(asked) == 1


def test_filters_are_chips_and_survive_a_reload(curate: Page, served: Studio):
    page, total = curate, shown(curate)
    page.get_by_role("button", name="Filters", exact=True).click()
    page.fill("#filter-selector-from", "40")
    page.locator(".sx-filters").get_by_role("button", name="tip").click()
    matching = [row for row in _facts(served) if row["selector"] >= 0.395 and 2 in row["classes"]]
    page.wait_for_selector(f"{PANEL}[data-loaded='{len(matching)}']")
    assert 0 < len(matching) < total
    expect(page.locator(".sx-filter-foot b")).to_have_text(f"{len(matching)} of {total} images")
    page.keyboard.press("Escape")
    expect(page.locator(".sx-filters")).to_be_hidden()
    expect(page.locator(".sx-main-column > .sx-chips .sx-chip")).to_have_text(["with tip×", "Segmenter ≥ 40\u00a0%×"])
    page.select_option(f"{PANEL} .sx-filter-row select", "worst")
    worst = min(matching, key=lambda row: row["selector"])
    expect(page.locator(f"{PANEL} .sx-sample[data-index='0']")).to_have_attribute("data-id", str(worst["id"]))
    page.reload()
    page.wait_for_selector("[data-panel=draw][data-ready]", timeout=30_000)
    open_tab(page, "Curate")
    page.wait_for_selector(f"{PANEL}[data-loaded='{len(matching)}']")
    expect(page.locator(f"{PANEL} .sx-sample[data-index='0']")).to_have_attribute("data-id", str(worst["id"]))
    page.get_by_role("button", name="Take away: with tip").click()
    assert shown(page) == len([row for row in _facts(served) if row["selector"] >= 0.395])
    page.locator(".sx-main-column > .sx-chips").get_by_role("button", name="Clear").click()
    assert shown(page) == total


def _facts(served: Studio) -> list[dict]:
    facts = served.get("/api/projects/1/facts")
    names = [name for name, values in facts.items() if isinstance(values, list) and len(values) == len(facts["id"])]
    rows = [dict(zip(names, values, strict=True)) for values in zip(*(facts[name] for name in names), strict=True)]
    return [row | {"classes": facts["masks"][row["mask"]]["classes"]} for row in rows]


def test_a_range_by_keys_is_decided_at_once_and_undone_at_once(curate: Page, served: Studio):
    page, total = curate, shown(curate)
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    expect(page.locator(".sx-bulk b")).to_have_text("4 chosen")
    page.keyboard.press("Shift+ArrowLeft")
    expect(page.locator(".sx-bulk b")).to_have_text("3 chosen")
    page.keyboard.press("r")
    wait_for_states(served, page, {"rejected": 3, "pending": total - 3})
    page.keyboard.press("End")
    expect(page.locator(CURRENT)).to_have_attribute("data-index", str(total - 1))
    page.keyboard.press("a")
    wait_for_states(served, page, {"rejected": 3, "accepted": 1, "pending": total - 4})
    for wanted in ({"rejected": 3, "pending": total - 3}, {"pending": total}):
        page.keyboard.press("z")
        wait_for_states(served, page, wanted)


def test_the_way_back_survives_a_reload_and_spares_what_somebody_else_decided_since(curate: Page, served: Studio):
    page, total = curate, shown(curate)
    for _ in range(2):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("r")
    page.keyboard.press("End")
    page.keyboard.press("a")
    wait_for_states(served, page, {"rejected": 3, "accepted": 1, "pending": total - 4})
    other = next(row["id"] for row in _facts(served) if row["state"] == 2)
    with Store.open(served.home) as store:
        store.curate([other], "quarantined", actor="bob")
    page.reload()
    page.wait_for_selector("[data-panel=draw][data-ready]", timeout=30_000)
    open_tab(page, "Curate")
    page.wait_for_selector(f"{PANEL}[data-loaded='{total}']")
    page.keyboard.press("z")
    wait_for_states(served, page, {"rejected": 2, "quarantined": 1, "pending": total - 3})
    page.keyboard.press("z")
    wait_for_states(served, page, {"quarantined": 1, "pending": total - 1})
    expect(page.locator(".sx-toast", has_text="1 image decided anew since: it stays")).to_be_visible()
    page.keyboard.press("z")
    expect(page.locator(".sx-toast", has_text="Nothing to undo")).to_be_visible()
    with Store.open(served.home) as store:
        store.curate([other], "pending", actor="bob")


def test_an_undo_spares_what_somebody_else_decided_though_this_page_has_not_heard_of_it(curate: Page, served: Studio):
    page, total = curate, shown(curate)
    first = int(page.get_attribute(CURRENT, "data-id") or 0)
    page.keyboard.press("a")
    wait_for_states(served, page, {"accepted": 1, "pending": total - 1})
    with Store.open(served.home) as store:
        store.curate([first], "quarantined", actor="bob")
    page.keyboard.press("z")
    expect(page.locator(".sx-toast", has_text="1 image decided anew since: it stays")).to_be_visible()
    expect(page.locator(f"{PANEL} .sx-sample[data-id='{first}']")).to_have_attribute("data-state", "quarantined")
    assert states(served) == {"quarantined": 1, "pending": total - 1}


def test_a_decision_made_while_the_facts_are_on_their_way_stays_and_can_be_taken_back(curate: Page, served: Studio):
    page, total = curate, shown(curate)
    first = page.get_attribute(CURRENT, "data-id")
    facts = served.get("/api/projects/1/facts")  # as read before the decision
    page.route("**/facts", lambda route: (page.wait_for_timeout(400), route.fulfill(json=facts)))
    page.get_by_role("tab", name="Vote", exact=True).click()
    with page.expect_request("**/facts"):
        page.get_by_role("tab", name="Curate", exact=True).click()
    with page.expect_response("**/facts"):
        page.keyboard.press("a")
    page.unroute("**/facts")
    expect(page.locator(f"{PANEL} .sx-sample[data-id='{first}']")).to_have_attribute("data-state", "accepted")
    wait_for_states(served, page, {"accepted": 1, "pending": total - 1})
    page.keyboard.press("z")
    wait_for_states(served, page, {"pending": total})


def test_who_writes_a_note_decides_nothing_not_even_in_a_window_or_when_a_job_ends(curate: Page, served: Studio):
    page, total = curate, shown(curate)
    first = int(page.get_attribute(CURRENT, "data-id") or 0)
    page.keyboard.press("f")
    note = page.get_by_label("Why this image is flagged")
    note.press_sequentially("arq")
    page.evaluate("version => import(`/static/${version}/lib.js`).then((lib) => lib.emit('job:end', {}))", _version(page))
    with page.expect_response("**/facts"):
        pass
    note.press_sequentially("sfx")
    expect(note).to_have_value("arqsfx")
    note.press("Enter")
    page.evaluate("([version, id]) => import(`/static/${version}/detail.js`).then((detail) => detail.openDetail(id))",
                  [_version(page), first])  # fmt: skip
    inside = page.locator("dialog").get_by_label("Why this image is flagged")
    expect(inside).to_have_value("arqsfx")
    inside.press("End")
    inside.press_sequentially(" arqs")
    inside.press("Enter")
    for _ in range(100):
        with Store.open(served.home) as store:
            marks = store.marks(1, sample_id=first)
        if marks[0].note == "arqsfx arqs":
            break
        page.wait_for_timeout(50)
    assert [(mark.kind, mark.note) for mark in marks] == [("flag", "arqsfx arqs")]
    assert states(served) == {"pending": total}


def _version(page: Page) -> str:
    """Where this page's modules lie."""
    names = page.evaluate("performance.getEntriesByType('resource').map((one) => one.name)")
    return next(name for name in names if name.endswith("/curate.js")).split("/")[-2]


def test_a_flag_set_while_the_marks_are_on_their_way_is_shown(curate: Page, served: Studio):
    page = curate
    expect(page.locator(".sx-mark-flag")).to_be_visible()  # the first card's own lookup is over
    held: list[Route] = []
    # The first lookup of the next card waits; where the card is opened again meanwhile, its further ones are answered at once.
    page.route("**/nearest", lambda route: route.continue_() if held else held.append(route))
    page.keyboard.press("ArrowRight")
    for _ in range(250):
        if held:
            break
        page.wait_for_timeout(20)
    answer = held[0].fetch()  # read before the flag is set
    page.keyboard.press("f")
    expect(page.locator(f"{CURRENT} .sx-sample-marks")).to_have_text("\u2691")
    held[0].fulfill(response=answer)
    expect(page.locator(".sx-mark-flag")).to_have_attribute("aria-pressed", "true")
    page.unroute("**/nearest")


def test_55_single_decisions_are_taken_back_one_by_one(curate: Page, served: Studio):
    page, total = curate, shown(curate)
    for _ in range(55):
        page.keyboard.press("a")  # faster than the server answers
    wait_for_states(served, page, {"accepted": 55, "pending": total - 55})
    for _ in range(55):
        page.keyboard.press("z")
    wait_for_states(served, page, {"pending": total})


def test_flags_and_favourites_show_on_cards_and_filter(curate: Page, served: Studio):
    page = curate
    first = page.get_attribute(CURRENT, "data-id")
    page.keyboard.press("f")
    expect(page.locator(f".sx-sample[data-id='{first}'] .sx-sample-marks")).to_have_text("\u2691")
    expect(page.locator(".sx-mark-flag")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("s")
    expect(page.locator(f".sx-sample[data-id='{first}'] .sx-sample-marks")).to_have_text("\u2691\u2605")
    page.get_by_role("button", name="Filters", exact=True).click()
    page.get_by_role("checkbox", name="Flagged").check()
    page.wait_for_selector(f"{PANEL}[data-loaded='1']")
    page.get_by_role("checkbox", name="Flagged").uncheck()
    page.keyboard.press("Escape")
    note = page.get_by_label("Why this image is flagged")
    note.fill("no tip")  # typing decides nothing: F and S are keys elsewhere
    note.press("Enter")
    with Store.open(served.home) as store:
        for _ in range(100):
            if (marked := next(mark for mark in store.marks(1) if mark.kind == "flag")).note:
                break
            page.wait_for_timeout(50)
        assert (marked.sample_id, marked.note) == (int(first or 0), "no tip")
        store.mark(1, [int(first or 0)], "flag", is_set=True, person="bob", note="see the border")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".sx-marks")).to_contain_text("flagged by bob: see the border")
    expect(note).to_have_value("no tip")
    with Store.open(served.home) as store:
        store.mark(1, [int(first or 0)], "flag", is_set=False, person="bob")
    page.locator(f"{PANEL} .sx-grid").focus()
    for key in ("f", "s"):
        page.keyboard.press(key)
    expect(page.locator(f".sx-sample[data-id='{first}'] .sx-sample-marks")).to_have_text("")
    with Store.open(served.home) as store:
        assert store.marks(1) == []


def lasso(page: Page, left: float, right: float, *, adds: bool = False) -> None:
    """A loop over the whole height between two shares of the width."""
    box = page.locator(".sx-map-canvas").bounding_box()
    assert box is not None
    corners = [(left, 0.004), (right, 0.004), (right, 0.996), (left, 0.996)]
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    if adds:
        page.keyboard.down("Shift")
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()
    if adds:
        page.keyboard.up("Shift")


def chosen_ids(page: Page) -> set[int]:
    """Shown in the grid, where each is a card; then back to the map."""
    page.locator(".sx-bulk").get_by_role("button", name="Show in grid").click()
    count = shown(page)
    page.set_viewport_size({"width": 1366, "height": 5000})
    expect(page.locator(f"{PANEL} .sx-sample")).to_have_count(count)
    found = {int(card.get_attribute("data-id") or 0) for card in page.locator(f"{PANEL} .sx-sample").all()}
    page.set_viewport_size({"width": 1366, "height": 768})
    page.locator(".sx-chip[data-key=ids]").click()
    page.get_by_role("button", name="Map", exact=True).click()
    page.wait_for_selector(".sx-map-canvas:visible")
    return found


def test_the_lasso_chooses_what_it_encloses(curate: Page, served: Studio):
    page, total = curate, shown(curate)
    page.get_by_role("button", name="Map", exact=True).click()
    page.wait_for_selector(".sx-map[data-dots]")
    lasso(page, 0.004, 0.5)
    left = chosen_ids(page)
    lasso(page, 0.5, 0.996)
    right = chosen_ids(page)
    assert left and right and not left & right and len(left | right) == total
    laid_out = served.get("/api/projects/1/map")
    across = dict(zip(laid_out["samples"], laid_out["points"][0], strict=False))
    assert max(across[number] for number in left) <= min(across[number] for number in right)
    lasso(page, 0.004, 0.5)
    lasso(page, 0.5, 0.996, adds=True)
    expect(page.locator(".sx-bulk b")).to_have_text(f"{total} chosen")
    page.locator(".sx-bulk").get_by_role("button", name="Quarantine").click()
    wait_for_states(served, page, {"quarantined": total})
    page.keyboard.press("z")
    wait_for_states(served, page, {"pending": total})


def transforms(page: Page) -> list[str]:
    return page.eval_on_selector_all(".sx-compare-stage", "stages => stages.map((stage) => stage.style.transform)")


def frame_box(frame: Locator) -> dict[str, float]:
    box = frame.bounding_box()
    assert box is not None
    return dict(box)


def test_compared_images_share_one_zoom_and_keep_their_own_decisions(curate: Page, served: Studio):
    page, total = curate, shown(curate)
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("c")
    frames = page.locator(".sx-compare-frame")
    expect(frames).to_have_count(3)
    expect(frames.locator(".sx-badge-synthetic")).to_have_count(3)
    box = frame_box(frames.nth(1))
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.4 * box["height"])
    page.mouse.wheel(0, -400)
    page.wait_for_function("document.querySelector('.sx-compare').dataset.zoom > 2")
    zoomed = transforms(page)
    assert len(set(zoomed)) == 1 and "scale(2.7" in zoomed[0]
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.3 * box["height"], steps=3)
    page.mouse.up()
    moved = transforms(page)
    assert len(set(moved)) == 1 and moved != zoomed
    page.keyboard.down("h")
    expect(page.locator(".sx-compare.sx-no-outline")).to_be_visible()
    page.keyboard.up("h")
    expect(page.locator(".sx-compare.sx-no-outline")).to_have_count(0)
    page.keyboard.press("2")
    page.keyboard.press("a")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("r")
    wait_for_states(served, page, {"accepted": 1, "rejected": 1, "pending": total - 2})
    page.keyboard.press("z")
    wait_for_states(served, page, {"accepted": 1, "pending": total - 1})
    expect(page.locator(".sx-compare-panel [aria-pressed=true]")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator(".sx-compare")).to_have_count(0)
    page.keyboard.press("z")
    wait_for_states(served, page, {"pending": total})


def test_the_nearest_real_image_stands_beside_and_opens_a_comparison(curate: Page):
    page = curate
    page.wait_for_selector(".sx-nearest .sx-badge-real")
    expect(page.locator(".sx-nearest")).to_contain_text("A hint, no privacy test")
    page.get_by_role("button", name="Compare with the nearest real training image").click()
    expect(page.locator(".sx-compare-frame .sx-badge")).to_have_text(["SYNTHETIC", "REAL"])
    expect(page.locator(".sx-compare-panel .sx-decisions")).to_have_count(1)  # nobody decides on a real image here


def test_ten_thousand_images_scroll_without_blanks_and_are_decided_at_once(
    new_page: Callable[..., Page], tmp_path: Path, request: pytest.FixtureRequest
):
    tiny = Studio(tmp_path / "home", script=SCRIPT)
    tiny.start()
    request.addfinalizer(tiny.stop)
    with Store.open(tiny.home) as store:
        total = len(builders.add_many_samples(store, store.project("tiny"), count=10_000))
    page = new_page()
    page.goto(tiny.url)
    page.wait_for_selector("[data-panel=draw][data-ready]", timeout=30_000)
    open_tab(page, "Curate")
    page.wait_for_selector(f"{PANEL}[data-loaded='{total}']", timeout=30_000)
    page.locator(f"{PANEL} .sx-grid").hover()
    scroll = f"share => {{ const grid = document.querySelector('{PANEL} .sx-grid'); grid.scrollTop = share * grid.scrollHeight }}"
    jumps: list[tuple[str, str | float]] = [("press", key) for key in ("End", "Home", "PageDown", "PageDown")]
    jumps += [("wheel", 5000), ("wheel", -900), ("scroll", 0.5), ("scroll", 0.97), ("scroll", 0.2)]
    waits = []
    for way, value in jumps:
        started = page.evaluate("performance.now()")
        if way == "press":
            page.keyboard.press(str(value))
        elif way == "wheel":
            page.mouse.wheel(0, float(value))
        else:
            page.evaluate(scroll, value)
        page.wait_for_function(SHOWN, timeout=3000)
        waits.append(page.evaluate("performance.now()") - started)
        assert page.locator(f"{PANEL} .sx-sample").count() < 80
    assert sorted(waits)[len(waits) // 2] < 1000, waits  # measured: 0.1 s; the slack is for a busy machine
    page.locator(f"{PANEL} .sx-grid").focus()
    page.keyboard.press("Control+a")
    expect(page.locator(".sx-bulk b")).to_have_text("10,000 chosen")
    page.keyboard.press("a")
    wait_for_states(tiny, page, {"accepted": total})
    page.keyboard.press("z")
    wait_for_states(tiny, page, {"pending": total})


def test_a_decision_that_could_not_be_stored_is_taken_off_the_screen_again(curate: Page, served: Studio):
    page, total = curate, shown(curate)
    first = page.get_attribute(CURRENT, "data-id")
    page.route("**/api/samples/curate", lambda route: route.abort())
    page.keyboard.press("a")
    expect(page.locator(".sx-toast-bad")).to_contain_text("does not answer")
    expect(page.locator(f"{PANEL} .sx-sample[data-id='{first}']")).to_have_attribute("data-state", "pending")
    page.unroute("**/api/samples/curate")
    page.keyboard.press("z")
    expect(page.locator(".sx-toast", has_text="Nothing to undo")).to_be_visible()
    assert states(served) == {"pending": total}
