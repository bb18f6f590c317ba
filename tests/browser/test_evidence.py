"""The Evidence tab: a finished measurement is read, another one is planned, started, watched and stopped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from saadi import orders
from saadi.records import Job
from saadi.store import Store
from tests import builders
from tests.browser.conftest import Studio
from tests.browser.test_align import assert_accessible
from tests.browser.test_draw import SCRIPT
from tests.browser.test_loop import LOADED, open_tab

pytestmark = pytest.mark.browser
CLASSES = ("liver", "gallbladder")


def arm(mean: float, over: dict[str, float]) -> dict[str, Any]:
    """A row as `saadi.evidence.tables.summary` makes it."""
    def around(value: float, width: float = 0.02) -> list[float]:
        return [round(value, 4), round(value - width, 4), round(value + width, 4)]

    row: dict[str, Any] = {"minutes": 2.5, "dice": around(mean), "iou": around(mean - 0.1), "hd95": around(20.0)}
    row["dice_per_class"] = {name: around(mean) for name in CLASSES}
    for other, base in over.items():
        row[f"gain over {other}"] = around(mean - base)
        row[f"gain per class over {other}"] = {"liver": around(mean - base - 0.01), "gallbladder": around(mean - base + 0.04)}
    return row


RESULT = {
    "case": "tiny",
    "task": "segmentation",
    "class_names": ["background", *CLASSES],
    "num_real": 50,
    "num_test": 40,
    "num_test_patients": 12,
    "arms": {
        "plain 0": arm(0.5, {}),
        "augmented 0": arm(0.55, {"plain 0": 0.5}),
        "base 1": arm(0.57, {"plain 0": 0.5, "augmented 0": 0.55}),
        "aligned 1 1": arm(0.6, {"plain 0": 0.5, "augmented 0": 0.55, "base 1": 0.57}),
    },
    "rarest_class": "gallbladder",
    "rounds": [[{"win_rate": 0.875, "gain": [0.018, 0.011, 0.026], "step": 150, "num_pairs": 96}]] * 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """Nine images of training patients and one of a test patient; one measurement is done. Nothing works off the queue."""
    made = Studio(tmp_path_factory.mktemp("evidence") / "home", script=SCRIPT)
    made.start()
    with Store.open(made.home) as store:
        for number in range(8):
            pixels = np.full((64, 64, 3), 10 * number, np.uint8)
            store.add_image(1, blob=store.blobs.put_image(pixels), size=(64, 64), group_id=f"more {number}",
                            split="train" if number else "test", source_name=f"more {number}.png", actor="test",
                            label_map_blob=store.blobs.put_label_map(np.eye(64, dtype=np.uint8)))  # fmt: skip
        order = orders.EvidenceOrder(project_id=1, num_real=9, rounds=1, seeds=2).model_dump(mode="json")
        store.add_job("evidence", order, project_id=1, actor="ann", request_id=builders.new_request())
        store.finish_job(claimed(store), state="done", message="4 arms measured", result=RESULT)
    yield made
    made.stop()


def claimed(store: Store) -> Job:
    found = store.claim_job("test")
    assert found is not None
    return found


@pytest.fixture
def view(page: Page, measured: Studio) -> Page:
    page.goto(measured.url)
    page.wait_for_selector(LOADED, timeout=60_000)
    open_tab(page, "Evidence")
    page.wait_for_selector("[data-panel=evidence][data-loaded]")
    return page


def test_a_measurement_says_what_it_found_with_its_range(view: Page):
    result = view.locator(".sx-evidence-result")
    expect(result.locator(".sx-evidence-head")).to_contain_text("It helps")
    expect(result.locator(".sx-evidence-head")).to_contain_text(
        "Dice on unseen patients: 0.500 with 50 real images only, 0.600 with aligned, round 1 images added: +20 % (+16 to +24 %)"
    )
    expect(result).to_contain_text("gallbladder (rarest)")
    expect(result).to_contain_text("40 test images of 12 patients, 2 repeats")
    expect(result.get_by_role("img", name="Each arm with its 95 % interval")).to_be_visible()
    result.get_by_text("All numbers").click()
    expect(result.get_by_role("row", name="+ aligned, round 1")).to_contain_text("+0.050 (0.030 to 0.070)")
    assert_accessible(view)


def test_one_is_planned_started_watched_and_stopped_by_keys(view: Page, measured: Studio):
    promise, button = view.locator("[data-panel=evidence] .sx-promise"), view.locator("#evidence-now")
    expect(promise).to_contain_text("50 and 1; import more, or choose fewer real images")
    expect(button).to_be_disabled()
    view.locator("#evidence-real").fill("8")
    expect(promise).to_contain_text("About")
    button.focus()
    view.keyboard.press("Enter")
    row = view.locator(".sx-evidence-row").first
    expect(row).to_contain_text("8 real images, 3 repeats, 2 rounds")
    expect(button).to_be_disabled()
    expect(promise).to_have_text("A measurement is under way.")
    with Store.open(measured.home) as store:
        job = claimed(store)
        store.report_job(job, step=1, total=18, message="measured an arm", eta_s=60.0, metrics={"plain 0": 0.5})
    running = view.get_by_role("region", name="Measuring")
    expect(running).to_contain_text("Measuring: 1 of 18 arms", timeout=15_000)
    row.click()
    expect(view.locator(".sx-evidence-result")).to_contain_text("So far")
    expect(view.locator(".sx-evidence-result")).to_contain_text("Real images only")
    view.locator("#evidence-stop").focus()
    view.keyboard.press("Enter")
    with Store.open(measured.home) as store:
        for _ in range(250):
            if store.is_cancel_requested(job.id):
                break
            view.wait_for_timeout(20)
        store.finish_job(job, state="cancelled", message="stopped")
    expect(row).to_contain_text("stopped; goes on where it was when asked again", timeout=15_000)
    expect(button).to_be_enabled()
