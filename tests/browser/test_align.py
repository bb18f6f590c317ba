"""The Align tab over constructed versions and jobs: the plan, the live view, going on, the blind test, the tree."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from safetensors.numpy import save_file

from saadi.alignment import resume
from saadi.records import Adapter, Job, Pair, Score
from saadi.store import Store
from tests import builders
from tests.browser.conftest import Studio
from tests.browser.test_accessibility import RULES
from tests.browser.test_draw import SCRIPT
from tests.browser.test_loop import LOADED, open_tab

pytestmark = pytest.mark.browser
METRICS = {
    "win_rate": 0.8, "win_rate_interval": [0.6, 0.9], "num_masks": 6, "dice_before": 0.8, "dice_after": 0.82,
    "dice_interval": [0.01, 0.03], "feature_distance_before": 1.0, "feature_distance_after": 0.9, "features_moved": False,
    "appearance_distance_before": 1.0, "appearance_distance_after": 1.1, "appearance_moved": False, "vendi_before": 5.0,
    "vendi_after": 5.1, "nearest_before": 3.0, "nearest_after": 3.0, "winner_ratio": 1.01, "verdict": "accept", "reasons": [],
    "classes": [{"class": 1, "num_masks": 6, "before": 0.8, "after": 0.82, "change": [0.02, 0.01, 0.03]},
                {"class": 2, "num_masks": 4, "before": 0.7, "after": 0.69, "change": [-0.01, -0.03, 0.01]}],
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """Versions base -> v2 (in use) -> v3 (waits), v4 (turned down); v1 was made for an earlier generator."""
    made = Studio(tmp_path_factory.mktemp("align") / "home", script=SCRIPT)
    made.start()
    made.score_samples()
    with Store.open(made.home) as store:
        project = store.project(1)
        add_version(store, None)
        builders.add_engine(store, project, content=b"fitted anew")
        used = add_version(store, None)
        add_version(store, used.id)
        store.reject_adapter(add_version(store, used.id).id, actor="bob", reason="blurred")
        store.accept_adapter(used.id, project_id=1, actor="lead", reason="sharper")
    yield made
    made.stop()


def pictures(store: Store, first: int) -> list[str]:
    return [store.blobs.put_image(np.full((16, 16, 3), first + number, np.uint8)) for number in range(6)]


def add_version(store: Store, parent_id: int | None, **config: float) -> Adapter:
    old, new = pictures(store, 0), pictures(store, 100)
    maps = [store.blobs.put_label_map(np.eye(16, dtype=np.uint8))] * 6
    strips = {"strip_before": old, "strip_after": new, "strip_label_maps": maps,
              "strip_trial_old": old, "strip_trial_new": new, "strip_trial_label_maps": maps}  # fmt: skip
    engine = store.active_model(1, "engine")
    assert engine is not None
    return store.add_adapter(1, model_id=engine.id, parent_id=parent_id, file=engine.file, scale=1, config=config,
                             metrics=METRICS | strips, actor="test")  # fmt: skip


@pytest.fixture
def tab(page: Page, tiny: Studio) -> Page:
    return opened(page, tiny)


def opened(page: Page, tiny: Studio) -> Page:
    page.goto(tiny.url)
    page.wait_for_selector(LOADED, timeout=30_000)
    open_tab(page, "Align")
    page.wait_for_selector("[data-panel=align][data-loaded='1']", timeout=20_000)
    return page


def assert_accessible(page: Page) -> None:
    answer = Axe().run(page, options=RULES).response
    assert [(item["id"], item["nodes"][0]["html"][:200]) for item in answer["violations"]] == [] and len(answer["passes"]) > 8


def test_before_there_are_enough_pairs_it_says_what_is_missing_and_where_to_get_it(tab: Page):
    plan = tab.locator(".sx-plan-card")
    expect(plan).to_contain_text("0 pairs to learn from")
    expect(plan.locator("[data-reason=other_generator]")).to_have_text("6 images made by an earlier generator")
    expect(tab.locator("#align-wait")).to_contain_text("0 usable pairs, 16 needed: 16 missing")
    expect(tab.locator("#align-now")).to_be_disabled()
    tab.get_by_role("button", name="Open Generate").click()
    expect(tab.locator("[data-panel=generate]")).to_be_visible()


def start_job(store: Store) -> Job:
    engine = store.active_model(1, "engine")
    assert engine is not None
    pairs = [Pair("m", "a", "b", "score", 0.5, 0.1 + index) for index in range(16)]
    pair_set = store.freeze_pairs(1, pairs, {}, actor="ann")
    params = {"project_id": 1, "pair_set_id": pair_set.id, "steps": 40, "seed": 5, "model_id": engine.id}
    store.add_job("align", params, project_id=1, actor="ann", request_id=builders.new_request())
    job = store.claim_job("test-worker")
    assert job is not None
    return job


def report(store: Store, job: Job, step: int, images: dict[str, str] | None = None, **metrics: float) -> None:
    store.report_job(job, step=step, total=40, message="learning from the pairs", eta_s=9.0, metrics=metrics, images=images)


def test_a_run_is_watched_stopped_and_continued(page: Page, tiny: Studio):
    with Store.open(tiny.home) as store:
        job = start_job(store)
        tab = opened(page, tiny)
        maps = {f"label map {number}": store.blobs.put_label_map(np.eye(16, dtype=np.uint8)) for number in (1, 2)}
        old, new = pictures(store, 0), pictures(store, 50)
        report(store, job, 0, maps | {"image 1": old[0], "image 2": old[1]}, dice=0.8, held_pairs=30)
        for step in range(1, 21):
            report(store, job, step, loss=0.7 - step / 100, winner_error=1.0, loser_error=1 + step / 100, accuracy=0.6,
                   gradient_ratio=1.0)  # fmt: skip
        report(store, job, 20, {"image 1": new[0], "image 2": new[1]}, dice=0.85, win_rate=0.7, winner_ratio=1.02,
               accuracy_gap=0.12, held_accuracy=0.6)  # fmt: skip
        card = tab.locator(".sx-running")
        expect(card.locator("[data-lamp='Winner error'][data-state=calm]")).to_contain_text("1.02", timeout=20_000)
        expect(card.locator("[data-lamp='Learning by heart'][data-state=near]")).to_contain_text("gap 0.12; alarm above 0.15")
        expect(card.locator(".sx-live-head > b")).to_have_text("Watch: learning by heart.")
        assert card.locator("figure[data-curve]").evaluate_all("nodes => nodes.map((node) => node.dataset.curve)") == [
            "loss", "accuracy", "winner_error", "win_rate", "dice"]  # fmt: skip
        assert card.locator("[data-curve=winner_error] path").count() == 2  # winner and loser
        assert card.locator("[data-curve=winner_error] .sx-chart-reference").count() == 1
        assert card.locator("thead th").all_inner_texts() == ["now in use", "step 20"]
        assert card.locator("tbody tr").count() == 2 and old[1] in (card.locator("tbody img").nth(2).get_attribute("src") or "")
        assert_accessible(tab)
        tab.keyboard.down("h")
        expect(card.locator(".sx-outline").first).to_be_visible()
        tab.keyboard.up("h")
        expect(card.locator(".sx-outline").first).to_be_hidden()
        report(store, job, 21, winner_ratio=1.3)
        expect(card.locator(".sx-live-head > b")).to_have_text("Alarm: winner error.", timeout=10_000)

        tab.click("#align-stop")
        folder = store.home.job_dir(job.id)
        folder.mkdir(parents=True)
        save_file({"x": np.zeros(1)}, folder / resume.CHECKPOINT, metadata={"state": json.dumps({"step": 21})})
        for _ in range(100):
            if store.job(job.id).cancel_requested:
                break
            tab.wait_for_timeout(50)
        assert store.job(job.id).cancel_requested
        store.finish_job(job, state="cancelled", message="cancelled")
        expect(card).to_contain_text("Stopped at step 21 of 40; nothing was changed.", timeout=10_000)
        tab.get_by_role("button", name="Continue from step 21").click()
        expect(card).to_contain_text("Starting", timeout=10_000)
        queued = store.jobs(1, active_only=True)
        assert [(item.params["continues"], item.params["seed"], item.params["model_id"]) for item in queued] == [
            (job.id, 5, job.params["model_id"])]  # fmt: skip
        assert card.locator("[data-curve=loss] path").count() == 1  # the first part's curve is still there
        store.cancel_job(queued[0].id, actor="ann")
        expect(card).to_contain_text("Stopped", timeout=10_000)
        card.get_by_role("button", name="Close").click()
        expect(card).to_be_hidden()


def test_the_card_names_what_is_red_first_and_asks_for_eyes(tab: Page):
    card = tab.locator(".sx-verdict")
    expect(card).to_contain_text("4 of 4 say yes: accept it.")
    expect(card.locator("[data-question=people]")).to_contain_text("Not tested by a person yet.")
    rows = card.locator(".sx-numbers table").first.locator("tbody tr").all_inner_texts()
    assert rows[0].startswith("tip") and "\u2248" in rows[0] and "\u25b2" in rows[1]  # weakest class first
    assert_accessible(tab)
    tab.emulate_media(color_scheme="dark")
    tab.evaluate("document.body.classList.add('dark')")
    assert_accessible(tab)


def test_a_blind_test_by_keys_stores_the_sides_and_tells_at_the_end(tab: Page, tiny: Studio):
    tab.click("#trial-start")
    trial = tab.locator(".sx-trial")
    with Store.open(tiny.home) as store:
        version = next(item for item in store.adapters(1) if item.name == "v3")
        new = set(version.metrics["strip_trial_new"])
        chosen: list[bool] = []
        for number in range(6):
            tab.wait_for_selector(f".sx-trial[data-pair] .sx-note:has-text('Pair {number + 1} of 6')")
            assert version.name not in trial.inner_text() and "wins" not in trial.inner_text()  # blind
            source = trial.locator(".sx-vote-stage img").first.get_attribute("src") or ""
            new_is_left = source.split("/")[-1].removesuffix(".png") in new
            key = ["ArrowLeft", "ArrowLeft", "ArrowRight", "ArrowRight", "ArrowUp", " "][number]
            chosen += [new_is_left == (key == "ArrowLeft")] if number < 4 else []
            tab.keyboard.press(key)
        result = trial.locator(".sx-trial-result h2")
        expect(result).to_contain_text(f"You preferred the new version in {sum(chosen)} of 4", timeout=10_000)
        expect(result).to_contain_text("1 without a preference, 1 skipped")
        stored = store.trials(1, adapter_id=version.id, voter="ann")
        assert [item.prefers_new for item in stored] == [*chosen, None, None]
        assert [item.answer for item in stored] == ["left", "left", "right", "right", "both_good", "skip"]
    assert_accessible(tab)
    tab.keyboard.press("Enter")  # the way back has the focus
    expect(tab.locator("[data-question=people]")).to_contain_text(f"in {sum(chosen)} of 4")
    assert tab.locator("#trial-start").count() == 0


def test_versions_are_a_tree_with_reasons_and_a_way_back(tab: Page, tiny: Studio):
    tree = tab.locator(".sx-versions").first
    names = tree.locator(".sx-version-facts > b").all_inner_texts()
    assert names == ["v4", "v3", "v2", "base"]
    expect(tree.locator(".sx-version[data-state=rejected]")).to_contain_text("turned down by bob: blurred")
    expect(tree.locator("[aria-current=true]")).to_contain_text("accepted by lead: sharper")
    other = tab.locator(".sx-version[data-usable=false][data-state]")
    tab.get_by_text("1 made for an earlier generator").click()
    expect(other).to_contain_text("v1")
    assert other.get_by_role("button").all_inner_texts() == ["Look"]  # it cannot be put into use
    tab.locator("#roll-back").focus()
    tab.keyboard.press("Enter")
    question = tab.locator(".sx-confirm")
    expect(question).to_contain_text("From v2 to base? The next images come from base; v2 stays in the list.")
    tab.keyboard.press("Escape")
    expect(question).to_be_hidden()
    tab.click("#roll-back")
    question.get_by_label("Reason for the change").fill("too dark")
    tab.click("#confirm-version")
    expect(tree.locator("[data-id=base]")).to_contain_text("rolled back by ann: too dark")
    with Store.open(tiny.home) as store:
        assert store.accepted_adapter(1) is None
        last = store.adapter_decisions(1)[-1]
        assert (last.actor, last.subject, last.details["reason"]) == ("ann", "adapter:base", "too dark")
    tree.get_by_role("button", name="Use v2 again").click()
    tab.click("#confirm-version")
    expect(tree.locator(".sx-version[data-state=accepted]")).to_contain_text("v2")


def test_with_enough_pairs_it_tells_classes_minutes_and_whom_it_waits_for(page: Page, tiny: Studio):
    with Store.open(tiny.home) as store:
        project, selector = store.project(1), store.active_model(1, "selector")
        assert selector is not None
        for number in range(17):
            pixels = np.zeros((16, 16), np.uint8)
            pixels[number % 15, number // 15] = 1
            pixels[15] = 2 * (number < 3)
            drawing = store.add_label_map(1, blob=store.blobs.put_label_map(pixels), name=str(number), author="ann",
                                          request_id=builders.new_request(), origin="drawn")  # fmt: skip
            for sample, dice in zip(builders.add_samples(store, project, label_map=drawing), (0.9, 0.4), strict=True):
                store.add_scores([Score(sample.id, selector.id, "selector", dice, dice, 0.9, {}, sample.label_map_blob)])
        other, _ = store.add_job("generate", {}, project_id=1, actor="ann", request_id=builders.new_request())
        tab = opened(page, tiny)
        plan = tab.locator(".sx-plan-card")
        expect(plan.locator(".sx-promise")).to_contain_text("17 pairs to learn from")
        expect(plan.locator(".sx-promise")).to_contain_text("(a guess)")
        short = plan.locator(".sx-promise").inner_text()
        tab.get_by_text("Settings").click()
        tab.fill("#align-steps", "100000")
        assert plan.locator(".sx-promise").inner_text() != short
        tab.fill("#align-steps", "150")
        expect(tab.locator("#align-consent")).to_contain_text("Nothing changes until you accept")
        tab.fill("#align-rounds", "3")
        expect(tab.locator("#align-consent")).to_contain_text("comes into use by itself if it wins")
        tab.fill("#align-rounds", "1")
        expect(plan.locator("[data-source=score]").last).to_have_text("17 the score decides")
        expect(plan.locator("[data-class='1'][data-thin=false] b")).to_have_text("17")
        expect(plan.locator("[data-class='2'][data-thin=true]")).to_contain_text("Few: generate images for more masks with it.")
        expect(tab.locator("#align-wait")).to_contain_text("It will wait: generating images comes first")
        tab.click("#align-now")
        expect(tab.locator(".sx-running")).to_contain_text("Waiting for 1 other job", timeout=10_000)
        expect(plan).to_be_hidden()
        store.cancel_job(other.id, actor="ann")
        for job in store.jobs(1, active_only=True):
            assert (job.kind, job.params["steps"], job.params["gate_masks"]) == ("align", 150, 32)
            store.cancel_job(job.id, actor="ann")


def test_answers_given_while_the_program_is_away_wait_in_the_browser_and_are_not_asked_again(page: Page, tiny: Studio):
    with Store.open(tiny.home) as store:
        version = add_version(store, None)
        tab = opened(page, tiny)
        tab.route("**/api/trials", lambda route: route.abort())
        tab.click("#trial-start")
        for number in (1, 2):
            tab.wait_for_selector(f".sx-trial[data-pair] .sx-note:has-text('Pair {number} of 6')")
            tab.keyboard.press("ArrowLeft")
        expect(tab.locator(".sx-trial")).to_contain_text("your answers are kept here and sent again")
        assert store.trials(1, adapter_id=version.id) == []
        tab.unroute("**/api/trials")
        opened(tab, tiny)  # as after a closed tab: nothing is in this page's memory
        tab.wait_for_selector(".sx-trial[data-saved='2']", state="attached", timeout=10_000)
        assert [item.answer for item in store.trials(1, adapter_id=version.id)] == ["left", "left"]
        tab.click("#trial-start")
        tab.wait_for_selector(".sx-trial[data-pair] .sx-note:has-text('Pair 3 of 6')")


def test_a_negative_version_is_explained_and_cannot_be_put_into_use(page: Page, tiny: Studio):
    with Store.open(tiny.home) as store:
        version = add_version(store, None, negative=2.0)
    tab = opened(page, tiny)
    row = tab.locator(f".sx-version[data-id='{version.id}']")
    expect(row).to_contain_text("negative")
    row.get_by_role("button", name="Look").click()
    card = tab.get_by_role("region", name="Acceptance")
    expect(card).to_contain_text(f"saadi generate --guidance 2 --negative-adapter {version.id}")
    expect(card.get_by_role("button", name="Accept")).to_have_count(0)
    expect(row.locator("[data-use]")).to_have_count(0)
    open_tab(tab, "Generate")
    away = tab.get_by_label("Lead away from")
    expect(away.locator("option")).to_have_text(["nothing", version.name])
    makes_images = tab.locator("[data-panel=generate]").get_by_label("Version").locator("option")
    assert str(version.id) not in makes_images.evaluate_all("options => options.map((option) => option.value)")
    in_draw = tab.locator("#draw-version option")
    assert str(version.id) not in in_draw.evaluate_all("options => options.map((option) => option.value)")
    away.select_option(version.name)
    tab.click("#pool-generate")
    tab.wait_for_selector(".sx-toast")
    with Store.open(tiny.home) as store:
        order = next(job for job in store.jobs(1) if job.kind == "generate")
        store.cancel_job(order.id, actor="test")
    assert order.params["settings"]["guidance_scale"] == 2.0
    assert order.params["settings"]["negative"] == {"adapter_id": version.id, "weight": 1.0}
