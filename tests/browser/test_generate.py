"""Draw's right column and the Generate tab over a real worker with a tiny random generator."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from saadi import orders
from saadi.engines import weights
from saadi.records import Job
from saadi.store import Store
from tests import tiny
from tests.browser.conftest import Studio
from tests.browser.test_loop import LOADED, open_tab, saved, stroke

pytestmark = pytest.mark.browser
MADE = ".sx-results .sx-result[data-id]"


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """One program for all tests here: its worker takes seconds to start."""
    made = Studio(tmp_path_factory.mktemp("busy") / "home", script=Path(__file__).with_name("serve_engine.py"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def draw(page: Page, busy: Studio) -> Iterator[Page]:
    """Draw over the square image, nothing running; what a failed test left running is stopped."""
    busy.wait_for_jobs(timeout_s=120)
    page.goto(busy.url)
    page.wait_for_selector(LOADED, timeout=30_000)
    yield page
    for job in busy.get("/api/jobs")["active"]:
        httpx.post(f"{busy.url}/api/jobs/{job['id']}/cancel", json={})


def new_mask(page: Page, y: int) -> None:
    """A stroke of its own for each test, so that no image was made for it before."""
    page.keyboard.press("1")
    stroke(page, (-120, y), (60, y))
    saved(page)


def generate(page: Page) -> list[str]:
    """Press the keys and return the seeds of the new images."""
    before = page.locator(".sx-results").inner_html()
    page.keyboard.press("Control+Enter")
    page.wait_for_function("old => document.querySelector('.sx-results').innerHTML !== old", arg=before, timeout=60_000)
    page.wait_for_selector(f"{MADE} >> nth=3", timeout=60_000)
    return page.locator(f"{MADE} .sx-seed-chip").all_inner_texts()


def until_running(busy: Studio, job: Job) -> None:
    deadline = time.monotonic() + 60
    while busy.get(f"/api/jobs/{job.id}")["state"] != "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def place(busy: Studio, kind: type[orders.Order], *, actor: str = "ann", **values: object) -> Job:
    with Store.open(busy.home) as store:
        job, _ = orders.place(store, orders.order(kind, project_id=1, **values), actor=actor)
        return job


def long_drawing(busy: Studio, *, actor: str) -> Job:
    """Lasts until it is stopped; a pool would make room."""
    return place(busy, orders.DrawOrder, actor=actor, count=500, candidates=8, seed=9, settings={"num_inference_steps": 100})


def stop(busy: Studio, job: Job) -> None:
    with Store.open(busy.home) as store:
        store.cancel_job(job.id, actor="test")
    busy.wait_for_jobs(timeout_s=60)


def test_a_locked_seed_keeps_the_patient_while_the_mask_moves(draw: Page):
    new_mask(draw, -120)
    first = generate(draw)
    shown = draw.locator(f"{MADE} img").first.get_attribute("src")
    draw.click("#draw-lock")
    expect(draw.locator(".sx-strip-words")).to_contain_text("Same patient each time")
    stroke(draw, (0, 60), (100, 60))
    saved(draw)
    assert generate(draw) == first
    assert draw.locator(f"{MADE} img").first.get_attribute("src") != shown
    draw.locator(".sx-view").focus()
    draw.keyboard.down("c")
    expect(draw.locator(f"{MADE} img").first).to_have_attribute("src", shown)
    expect(draw.locator(f"{MADE} .sx-badge").first).to_have_text("BEFORE")
    draw.keyboard.up("c")
    expect(draw.locator(f"{MADE} .sx-badge").first).to_have_text("SYNTHETIC")
    generate_again = draw.locator(".sx-results-column .sx-note[role=status]").first
    draw.keyboard.press("Control+Enter")
    expect(generate_again).to_contain_text("The same images", timeout=30_000)
    draw.click("#draw-lock")
    assert generate(draw) == [f"seed {int(chip.split()[1]) + 4}" for chip in first]


def test_settings_of_history_can_be_used_and_given_back(draw: Page, busy: Studio):
    new_mask(draw, -90)
    draw.fill("#draw-steps", "5")
    draw.fill("#draw-seed", "300")
    generate(draw)
    draw.fill("#draw-steps", "7")
    draw.fill("#draw-seed", "400")
    generate(draw)
    draw.get_by_role("button", name="History", exact=True).click()
    rows = draw.locator(".sx-generation")
    expect(rows).to_have_count(2)
    expect(rows.nth(1)).to_contain_text("seeds 300\u2013303 \u00b7 5 steps \u00b7 base")
    rows.nth(1).get_by_role("button", name="Use these settings").click()
    assert (draw.input_value("#draw-seed"), draw.input_value("#draw-steps")) == ("300", "5")
    draw.get_by_role("button", name="Back to my settings").click()
    assert (draw.input_value("#draw-seed"), draw.input_value("#draw-steps")) == ("400", "7")
    masks = {item["id"]: item["rev"] for item in busy.get("/api/projects/1/drawings")["items"]}
    rows.nth(1).get_by_role("button", name="Use this mask").click()
    expect(draw.locator(".sx-doc b")).to_contain_text("(revision 1)")
    after = {item["id"]: item["rev"] for item in busy.get("/api/projects/1/drawings")["items"]}
    assert len(after) == len(masks) + 1 and after.items() >= masks.items()
    draw.fill("#draw-steps", "")


def test_recalled_settings_lead_away_from_the_same_negative_version_until_given_back(draw: Page):
    """What history tells and what is ordered are changed on the way: guidance itself is tested where a version can be learnt."""
    new_mask(draw, -75)
    generate(draw)
    orders_placed: list[dict] = []

    def with_negative(route: Route) -> None:
        answer = route.fetch()
        items = answer.json()["items"]
        for item in items:
            item["settings"]["negative"] = {"adapter_id": 9, "weight": 1.0}
        route.fulfill(response=answer, json={"items": items})

    def refused(route: Route) -> None:
        orders_placed.append(route.request.post_data_json["values"]["settings"])
        route.fulfill(status=400, json={"error": "not now"})

    draw.route("**/generations?*", with_negative)
    draw.route("**/api/orders/draw", refused)
    draw.reload()
    draw.wait_for_selector(LOADED, timeout=30_000)
    draw.get_by_role("button", name="History", exact=True).click()
    draw.locator(".sx-generation").first.get_by_role("button", name="Use these settings").click()
    expect(draw.locator(".sx-recalled")).to_contain_text("leads away from what a negative version has learnt")
    for given_back in (False, True):
        if given_back:
            draw.get_by_role("button", name="Back to my settings").click()
        with draw.expect_response("**/api/orders/draw"):
            draw.keyboard.press("Control+Enter")
    assert [settings.get("negative") for settings in orders_placed] == [{"adapter_id": 9, "weight": 1.0}, None]


def test_favourites_come_back_after_a_reload(draw: Page):
    new_mask(draw, -60)
    generate(draw)
    chosen = draw.locator(MADE).nth(1).get_attribute("data-id")
    draw.locator(f"{MADE}[data-id='{chosen}'] .sx-star").click()
    expect(draw.locator(f"{MADE}[data-id='{chosen}'] .sx-star")).to_have_attribute("aria-pressed", "true")
    draw.reload()
    draw.wait_for_selector(LOADED, timeout=30_000)
    draw.get_by_role("button", name="History", exact=True).click()
    draw.get_by_role("button", name="\u2605 Favourites").click()
    draw.locator(f".sx-favourite[data-id='{chosen}'] .sx-result-picture").click()
    expect(draw.locator(".sx-lineage li")).to_have_count(5)
    draw.keyboard.press("s")
    draw.wait_for_selector(f".sx-favourite[data-id='{chosen}']", state="detached")


def test_escape_stops_within_the_batch_and_leaves_nothing_half_done(draw: Page, busy: Studio):
    new_mask(draw, -30)
    samples = busy.get("/api/projects/1/overview")["samples"]
    draw.fill("#draw-steps", "100")
    draw.fill("#draw-guidance", "2")
    draw.keyboard.press("Control+Enter")
    draw.wait_for_selector(".sx-waiting img[alt^=Preview]", timeout=60_000)  # what the network believes so far
    draw.keyboard.press("Escape")
    expect(draw.locator(".sx-results-column .sx-note[role=status]").first).to_have_text("Stopped.", timeout=20_000)
    job = busy.wait_for_jobs(timeout_s=20)[0]
    assert job["state"] == "cancelled" and busy.get("/api/projects/1/overview")["samples"] == samples
    assert not (busy.home / "jobs" / str(job["id"])).exists()
    draw.fill("#draw-steps", "")
    draw.fill("#draw-guidance", "1")


def test_the_queue_says_whose_turn_it_is_and_survives_a_reload(draw: Page, busy: Studio):
    new_mask(draw, 0)
    pool = long_drawing(busy, actor="bob")
    until_running(busy, pool)
    draw.keyboard.press("Control+Enter")
    note = draw.locator(".sx-results-column .sx-note[role=status]").first
    expect(note).to_have_text(re.compile(r"2nd in the queue, after bob's 4000 images of a drawing"), timeout=30_000)
    draw.reload()
    expect(note).to_have_text(re.compile(r"2nd in the queue, after bob's 4000 images"), timeout=30_000)
    draw.keyboard.press("Control+Enter")  # another four behind them
    expect(note).to_contain_text("1 more of yours waiting", timeout=20_000)
    open_tab(draw, "Generate")
    rows = draw.locator(".sx-job:has(button)")
    expect(rows.nth(0)).to_contain_text("for bob")
    expect(rows.nth(1)).to_contain_text("2nd in the queue, after bob's 4000 images")
    expect(draw.locator(".sx-live")).to_contain_text("of 4000", timeout=60_000)
    open_tab(draw, "Draw")
    draw.keyboard.press("Shift+Escape")
    expect(note).to_have_text("Stopped.", timeout=20_000)
    assert [job["id"] for job in busy.get("/api/jobs")["active"]] == [pool.id]
    stop(busy, pool)


def test_only_what_changed_is_made_and_the_image_is_called_edited(draw: Page, busy: Studio):
    new_mask(draw, 60)
    generate(draw)
    expect(draw.locator("#draw-reach")).to_be_hidden()
    draw.select_option("#draw-part", "changed")
    draw.fill("#draw-reach", "5")
    assert draw.input_value("#draw-source").startswith("sample-")  # real pixels only where they are asked for
    draw.select_option("#draw-source", label="All else stays as in the real image")
    generate(draw)
    expect(draw.locator(f"{MADE} .sx-badge-edited")).to_have_count(4)
    with Store.open(busy.home) as store:
        assert store.samples(1)[-1].settings["guide"] == {"reach_px": 5, "until": 0.6}
    draw.fill("#draw-reach", "")
    draw.locator(f"{MADE} .sx-result-picture").first.click()
    expect(draw.locator(".sx-lineage li[data-kind=source]")).to_contain_text("real pixels outside the regenerated region")
    draw.get_by_role("button", name="Use these settings").click()
    expect(draw.locator("#draw-reach")).to_have_value("5")
    draw.get_by_role("button", name="Back to my settings").click()
    expect(draw.locator("#draw-reach")).to_have_value("")
    stroke(draw, (0, 120), (60, 120))
    saved(draw)
    draw.select_option("#draw-part", "class-2")  # nothing of this class was drawn
    draw.keyboard.press("Control+Enter")
    expect(draw.locator(".sx-toast-bad")).to_contain_text("there is no tip, so nothing would change")


def test_a_pool_in_real_surroundings_is_called_edited(draw: Page, busy: Studio):
    page = draw
    open_tab(page, "Generate")
    expect(page.locator("#pool-reach")).to_be_hidden()
    page.select_option("#pool-surroundings", "real")
    expect(page.locator(".sx-generate .sx-card").first).to_contain_text("EDITED, a patient's pixels stay around them")
    page.fill("#pool-reach", "8")
    page.fill("#pool-count", "1")
    page.fill("#pool-candidates", "2")
    page.click("#pool-generate")
    expect(page.locator(".sx-toast-good")).to_contain_text("2 images for 1 label map", timeout=60_000)
    job = busy.wait_for_jobs(timeout_s=120)[0]
    with Store.open(busy.home) as store:
        newest = [store.sample(number) for number in store.job(job["id"]).result["sample_ids"]]
        assert [sample.is_composite for sample in newest] == [True, True]
        assert newest[0].settings["guide"] == {"reach_px": 8, "until": 0.6}
    page.select_option("#pool-surroundings", "")
    expect(page.locator("#pool-reach")).to_be_hidden()


def test_where_there_is_nothing_to_compare_one_press_makes_it(draw: Page, busy: Studio):
    open_tab(draw, "Vote")
    expect(draw.locator(".sx-vote-info")).to_contain_text("once the scorers are trained")
    with Store.open(busy.home) as store:
        for kind in ("selector", "judge"):
            made = tiny.segmenter("unet")
            file = store.files.put(weights.to_bytes(made.network.state_dict()))
            store.add_model(1, kind=kind, architecture=made.architecture, file=file, metrics={}, actor="test")
    draw.reload()
    open_tab(draw, "Vote")
    draw.get_by_role("button", name=re.compile("Make 32")).click()
    expect(draw.locator(".sx-vote-info")).to_contain_text("the first pairs come in a moment")
    draw.wait_for_selector("[data-panel=vote][data-pair*='-']", timeout=60_000)
    draw.keyboard.press("ArrowLeft")
    draw.wait_for_selector("[data-panel=vote][data-saved='1']")
