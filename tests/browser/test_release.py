"""An export is looked at, read and signed: what a lead does before a set leaves the house."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from saadi.records import ExportRecord
from saadi.store import Store
from saadi.store.releases import ExportItem
from tests.browser.conftest import Studio
from tests.browser.test_draw import SCRIPT
from tests.browser.test_loop import open_tab

pytestmark = pytest.mark.browser
OWN = {
    "num_items": 40, "num_training_patients": 60, "num_held_out_patients": 60, "people_missing": 600, "isolation": None,
    "copies": {"num_flagged": 1, "expected_share": 0.04, "limit": 2.0, "false_flags": 0.02, "num_strangers": 60,
               "planted_found": 1.0},
    "nearest": {"share": 0.52, "expected": 0.5, "low": 0.4, "high": 0.6, "excess": 0.04}, "membership": None, "retrieval": None,
    "nearness": {"items": [0, 1, 1, 1, 1, 2, 2], "strangers": [0, 1, 1, 1, 1, 2, 2]},
}  # fmt: skip


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = Studio(tmp_path_factory.mktemp("release") / "home", script=SCRIPT)
    studio.start()
    yield studio
    studio.stop()


def export(store: Store, **findings: Any) -> ExportRecord:
    """An export of which the audit says this; nothing = it has not been audited."""
    sample = store.sample_rows(1)[0]
    folder = store.home.exports / uuid.uuid4().hex
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_bytes(folder.name.encode())
    sha256 = hashlib.sha256(folder.name.encode()).hexdigest()
    made = store.add_export(1, format="voc", path=str(folder), manifest_sha256=sha256, num_items=40, actor="ann",
                            items=[ExportItem("synthetic-000001", "synthetic", sample.blob)])  # fmt: skip
    if findings:
        flagged = [{"blob": sample.blob, "name": "synthetic-000001", "image_id": store.images(1)[0].id, "score": 3.0}]
        store.add_disclosure(1, export_id=made.id, actor="ann", findings={
            "reasons": [], "open_questions": [], "own": OWN, "union": None, "flagged": flagged, "looked_at": [], "variety": None,
            "texts": {"num_looked": 0, "found": [], "held": [], "reason": None},
            "earlier_exports": [one.id for one in store.earlier_exports(made)]} | findings)  # fmt: skip
    return made


def row_of(page: Page, studio: Studio, made: ExportRecord) -> Any:
    page.goto(studio.url)
    page.wait_for_selector("[data-panel=draw][data-ready]", timeout=30_000)
    open_tab(page, "Export")
    row = page.locator(f".sx-export-row[data-id='{made.id}']")
    expect(row).to_be_visible()
    return row


def test_an_export_that_nobody_looked_at_is_audited(page: Page, studio: Studio) -> None:
    with Store.open(studio.home) as store:
        made = export(store)
    row = row_of(page, studio, made)
    expect(row).to_contain_text("Not looked at yet")
    with page.expect_response(lambda answer: "/api/orders/audit" in answer.url) as placed:
        row.get_by_role("button", name="Audit", exact=True).click()
    # The little project here has too few patients, and says so.
    assert placed.value.status == 422 and "training patients, 4 needed" in placed.value.json()["error"]
    expect(page.locator(".sx-toast")).to_contain_text("needed to tell patients apart")


def test_a_clean_audit_is_signed_with_a_reason(page: Page, studio: Studio) -> None:
    with Store.open(studio.home) as store:
        made = export(store, verdict="nothing found")
    row = row_of(page, studio, made)
    expect(row).to_contain_text("No attack found anything")
    row.get_by_role("button", name="Read and release").click()
    dialog = page.get_by_role("dialog", name=f"Audit of export {made.id}")
    expect(dialog).to_contain_text("1 of 40 images flagged")
    expect(dialog).to_contain_text("no proof")
    expect(dialog.locator(".sx-audit-pairs img")).to_have_count(2)
    sign = dialog.get_by_role("button", name="Sign the release")
    expect(sign).to_be_disabled()
    dialog.get_by_label("Reason of the release").fill("for the partner hospital")
    expect(dialog.get_by_label("I have read what was found")).to_have_count(0)
    sign.click()
    expect(dialog).to_have_count(0)
    expect(row.locator(".sx-released")).to_contain_text("for the partner hospital")
    with Store.open(studio.home) as store:
        assert [one.reason for one in store.releases(1) if one.export_id == made.id] == ["for the partner hospital"]
    report = httpx.get(f"{studio.url.rstrip('/').removesuffix('/app')}/api/exports/{made.id}/audit.html")
    assert report.status_code == 200 and "attachment" in report.headers["content-disposition"]
    assert "for the partner hospital" in report.text


def test_a_failed_audit_goes_only_despite_it(page: Page, studio: Studio) -> None:
    with Store.open(studio.home) as store:
        made = export(store, verdict="fails", reasons=["9 of 40 images are nearer to a training image than strangers come"])
    row = row_of(page, studio, made)
    expect(row).to_contain_text("Something was found: 9 of 40")
    row.get_by_role("button", name="Read and release").click()
    dialog = page.get_by_role("dialog", name=f"Audit of export {made.id}")
    sign = dialog.get_by_role("button", name="Sign the release")
    dialog.get_by_label("Reason of the release").fill("they are all my own")
    expect(sign).to_be_disabled()
    dialog.get_by_label("I have read what was found").check()
    expect(sign).to_be_enabled()
    dialog.get_by_label("Reason of the release").fill("no")
    expect(sign).to_be_disabled()
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_have_count(0)
    with Store.open(studio.home) as store:
        assert made.id not in {one.export_id for one in store.releases(1)}


def test_what_was_deleted_is_said_to_have_never_left(page: Page, studio: Studio) -> None:
    with Store.open(studio.home) as store:
        made = export(store)
    shutil.rmtree(made.path)
    row = row_of(page, studio, made)
    row.get_by_role("button", name="It never left").click()
    dialog = page.get_by_role("dialog", name=f"Export {made.id} never left")
    sign = dialog.get_by_role("button", name="It never left")
    expect(sign).to_be_disabled()
    dialog.get_by_label("Why it was deleted").fill("a trial of mine")
    sign.click()
    expect(row).to_contain_text("Never left")
    expect(row).to_contain_text("a trial of mine")
    with Store.open(studio.home) as store:
        [said] = [one for one in store.releases(1) if one.export_id == made.id]
        assert said.disclosure_id is None
