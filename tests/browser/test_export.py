"""The tab Export: pairs need no accepted image, and what the data folder has lost is left out only when somebody says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from saadi.records import Job, Score
from saadi.store import Store
from tests.browser.conftest import Studio
from tests.browser.test_draw import SCRIPT
from tests.browser.test_loop import open_tab
from tests.exports.builders import run

pytestmark = pytest.mark.browser


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    studio = Studio(tmp_path / "home", script=SCRIPT)
    studio.start()
    with Store.open(studio.home) as store:
        samples = store.samples(1)
        for kind in ("selector", "judge"):
            model = store.add_model(1, kind=kind, architecture={}, file=store.files.put(kind.encode()), metrics={}, actor="test")
            store.add_scores([Score(sample.id, model.id, kind, 0.9 - 0.1 * place, 0.5, 0.9, {}, sample.label_map_blob)
                              for place, sample in enumerate(samples)])  # fmt: skip
    yield studio
    studio.stop()


def ordered(page: Page, studio: Studio) -> Job:
    """Press the button and run what was ordered, as a worker would."""
    with page.expect_response(lambda answer: "/api/orders/export" in answer.url) as placed:
        page.locator("#export-now:enabled").click()
    with Store.open(studio.home) as store:
        return run(store, store.job(placed.value.json()["job"]["id"]))


def test_pairs_are_exported_and_a_lost_image_is_left_out_when_asked(page: Page, studio: Studio) -> None:
    page.goto(studio.url)
    page.wait_for_selector("[data-panel=draw][data-ready]", timeout=30_000)
    open_tab(page, "Export")
    button, tick = page.locator("#export-now"), page.locator("#export-unreadable")
    expect(button).to_have_text("Accept images in Curate first")
    expect(button).to_be_disabled()
    page.get_by_text("Preference pairs").click()
    expect(button).to_have_text("Export the pairs")
    expect(page.locator("#export-refinement")).to_be_hidden()
    expect(tick).to_be_hidden()
    done = ordered(page, studio)
    assert done.state == "done" and done.result["num_items"] >= 2, done.error
    expect(page.locator(".sx-export-row")).to_contain_text("Preference pairs", timeout=15_000)

    with Store.open(studio.home) as store:
        worst = min(store.score_rows(1), key=lambda row: row.dice).sample_id
        store.blobs.path(store.sample(worst).blob).unlink()
    assert ordered(page, studio).state == "failed"
    expect(page.locator(".sx-outcome")).to_contain_text(f"cannot be read (synthetic-{worst:06d})", timeout=15_000)
    expect(tick).to_be_visible()
    tick.check()
    done = ordered(page, studio)
    assert done.params["without_unreadable"] and "cannot be read" in str(done.result.get("left_out", done.error)), done.error
