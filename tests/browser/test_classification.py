"""A project of classes as a person makes it: create, import, train, generate, sort out, vote, export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from saadi.engines import weights
from saadi.store import Store
from tests import tiny
from tests.browser.conftest import Studio
from tests.browser.test_align import assert_accessible
from tests.browser.test_loop import open_tab
from tests.test_loop_classification import NAMES, write_folders

pytestmark = pytest.mark.browser


def test_a_classification_project_from_its_images_to_an_export(page: Page, empty: Studio, tmp_path: Path):
    page.goto(empty.url)
    page.wait_for_selector("[data-panel=draw][data-ready]", timeout=30_000)
    create_and_import(page, empty, write_folders(tmp_path / "pictures"))
    train(page, empty)
    generate_one_class(page, empty)
    sort_out(page)
    vote(page, empty)
    export(page, empty)


def says_nothing_of_masks(page: Page) -> None:
    text = page.inner_text("body").casefold()
    assert not [word for word in ("dice", "mask", "segmenter") if word in text], text


def create_and_import(page: Page, empty: Studio, folder: Path) -> None:
    """The form asks for all classes; Draw says that there is nothing to draw; a look shows which labels are no class."""
    open_tab(page, "Data")
    page.get_by_text("New project").click()
    page.fill("#project-name", "phases")
    page.select_option("#project-task", "classification")
    page.fill("#project-classes", ", ".join(NAMES))
    page.locator("[data-panel=data] select[aria-label=Resolution]").select_option("64")
    page.click("#project-create")
    page.wait_for_selector("html[data-task=classification]")
    open_tab(page, "Draw")
    expect(page.locator(".sx-no-masks")).to_contain_text("Nothing to draw in this project")
    expect(page.locator(".sx-no-masks")).to_contain_text("There are no real images with a class yet")
    expect(page.locator(".sx-no-masks button")).to_have_count(3)
    assert not page.locator(".sx-view").is_visible()
    open_tab(page, "Data")
    page.get_by_text("Import a folder into phases").click()
    expect(page.locator("#import-masks")).to_be_hidden()
    page.fill("#import-images", str(folder))
    page.get_by_text("Patients, splits and table").click()
    page.fill("#import-pattern", r"^(p\d)_")
    page.click("#import-scan")
    found = page.locator(".sx-found")
    expect(found).to_contain_text("28 images, 28 with a class. 9 patients or videos.")
    expect(found.locator("tr", has_text="Suture")).to_contain_text("none: these images will be refused")
    page.click("#import-run")
    page.wait_for_selector("[data-panel=data][data-loaded='27']", timeout=60_000)
    expect(found).to_contain_text("27 images added, 1 refused")
    page.get_by_label("Class", exact=True).select_option("bleeding")
    page.wait_for_selector("[data-panel=data][data-loaded='6']")
    expect(page.locator("[data-panel=data] .sx-sample").first).to_contain_text("bleeding")
    page.get_by_text("New project").click()  # which offers masks, too
    says_nothing_of_masks(page)


def train(page: Page, empty: Studio) -> None:
    """Scorers through the page; the generator's weights are put in place, since fitting them takes a minute."""
    page.fill("#scorer-steps", "2")
    page.fill("#scorer-folds", "3")
    page.click("#train-scorers")
    models = page.locator(".sx-models")
    expect(models).to_contain_text("macro F1", timeout=120_000)
    expect(models).to_contain_text("F1 of each class on validation images")
    with Store.open(empty.home) as store:
        selector = store.active_model(1, "selector")
        assert selector is not None and selector.architecture["folds"] == 3
        made = tiny.engine(resolution=64)
        store.add_model(1, kind="engine", architecture=made.architecture, metrics={}, actor="test",
                        file=store.files.put(weights.to_bytes(made.denoiser.state_dict())))  # fmt: skip


def generate_one_class(page: Page, empty: Studio) -> None:
    """From Draw's class to Generate with that class chosen."""
    open_tab(page, "Draw")
    assert_accessible(page)
    page.locator(".sx-no-masks button", has_text="bleeding").click()
    chosen = page.locator("#pool-classes button[aria-pressed=true]")
    expect(chosen).to_have_count(1)
    expect(chosen).to_contain_text("bleeding")
    page.fill("#pool-count", "2")
    page.fill("#pool-candidates", "3")
    expect(page.locator("[data-panel=generate]")).to_contain_text("1 class \u00d7 2 sets \u00d7 3 images = 6 synthetic images")
    says_nothing_of_masks(page)
    expect(page.get_by_label("Lead away from")).to_be_hidden()  # there is no such version
    assert_accessible(page)
    page.click("#pool-generate")
    expect(page.locator("[data-panel=generate] .sx-job[data-state=done]", has_text="6 images of 1 class")).to_contain_text(
        "2 sets \u00d7 3 of bleeding", timeout=60_000
    )


def sort_out(page: Page) -> None:
    """The close look tells the probability of each class; classes are filtered by; a key accepts."""
    open_tab(page, "Curate")
    page.wait_for_selector("[data-panel=curate][data-loaded='6']", timeout=20_000)
    bars = page.locator("[data-panel=curate] .sx-detail .sx-bar-row")
    expect(bars).to_have_count(3)
    expect(bars.nth(2)).to_contain_text("bleeding")
    expect(bars.nth(2)).to_contain_text("asked for")
    expect(bars.nth(0).get_by_role("meter", name="dissection, probability")).to_be_visible()
    page.get_by_role("button", name="Filters").click()
    page.locator("#curate-filters [data-class='0']").click()
    page.wait_for_selector("[data-panel=curate][data-loaded='0']")
    expect(page.locator(".sx-curate > section > .sx-chips")).to_contain_text("asked for dissection")
    page.locator("#curate-filters [data-class='2']").click()
    page.wait_for_selector("[data-panel=curate][data-loaded='6']")
    says_nothing_of_masks(page)
    page.keyboard.press("Escape")
    page.locator("[data-panel=curate] .sx-sample").first.click()
    page.keyboard.press("a")
    expect(page.locator("[data-panel=curate] .sx-sample").first).to_contain_text("accepted")


def vote(page: Page, empty: Studio) -> None:
    """The question names the class; the vote is stored; Align counts pairs by class."""
    open_tab(page, "Vote")
    page.wait_for_selector("[data-panel=vote][data-pair]:not([data-pair=''])", timeout=20_000)
    expect(page.locator(".sx-vote-question")).to_contain_text("Which image shows bleeding better?")
    expect(page.locator("[data-panel=vote]").get_by_text("Mask outline").first).to_be_hidden()
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("[data-panel=vote][data-saved='1']", timeout=10_000)
    with Store.open(empty.home) as store:
        [cast] = store.votes(1)
        assert store.sample(cast.left_id).label_map_id == store.sample(cast.right_id).label_map_id
    says_nothing_of_masks(page)
    open_tab(page, "Align")
    expect(page.locator(".sx-plan-class[data-class='2']")).to_contain_text("bleeding", timeout=20_000)
    expect(page.locator("#align-wait")).to_contain_text("16 needed")
    says_nothing_of_masks(page)


def export(page: Page, empty: Studio) -> None:
    """Formats of masks are not offered; the first one holds a folder per class."""
    open_tab(page, "Export")
    expect(page.locator(".sx-format:visible")).to_have_count(3)
    page.wait_for_selector("[data-panel=export][data-loaded='0']")
    refuses = page.locator("#export-refused:visible")  # images of a random generator are noise
    if refuses.count():
        refuses.check()
    page.click("#export-now")
    page.wait_for_selector("[data-panel=export][data-loaded='1']", timeout=60_000)
    [folder] = [path for path in (empty.home / "exports").iterdir() if path.is_dir()]
    lines = [json.loads(line) for line in (folder / "train" / "metadata.jsonl").read_text().splitlines()]
    assert [line["file_name"] for line in lines if line["synthetic"]] == ["bleeding/synthetic-000006.png"]
    says_nothing_of_masks(page)
