"""A patient withdraws in the Data tab; text that was found is called harmless in Export."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Route, expect

from saadi.store import Store
from tests.browser.conftest import Studio
from tests.browser.test_draw import SCRIPT
from tests.browser.test_loop import open_tab

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    studio = Studio(tmp_path_factory.mktemp("withdrawals") / "home", script=SCRIPT)
    studio.start()
    yield studio
    studio.stop()


def opened(page: Page, studio: Studio, tab: str) -> None:
    page.goto(studio.url)
    page.wait_for_selector("[data-panel=draw][data-ready]", timeout=30_000)
    open_tab(page, tab)


def test_a_patient_is_taken_out_and_comes_back(page: Page, studio: Studio) -> None:
    opened(page, studio, "Data")
    page.locator("#withdrawals summary").first.click()
    page.locator("#withdraw-open").click()
    dialog = page.get_by_role("dialog", name="A patient withdraws")
    sign = dialog.locator("#withdraw-sign")
    expect(sign).to_be_disabled()
    dialog.locator("#withdraw-who").select_option(index=1)
    patient = dialog.locator("#withdraw-who").input_value()
    expect(dialog.locator("#withdraw-trace")).to_contain_text("in no split once they withdraw")
    expect(sign).to_be_disabled()
    dialog.locator("#withdraw-reason").fill("the patient wrote to us")
    sign.click()
    told = page.get_by_role("dialog", name=f"What holds data of {patient}")
    expect(told).to_contain_text("no fit, training, alignment")
    told.get_by_role("button", name="Close").click()
    row = page.locator(f".sx-withdrawal[data-patient='{patient}']")
    expect(row).to_contain_text("the patient wrote to us")
    expect(page.locator("[data-panel=data] .sx-sample-foot").filter(has_text="withdrawn").first).to_be_visible()
    with Store.open(studio.home) as store:
        assert len(store.withdrawn_groups(1)) == 1
    row.get_by_text("Take it back").first.click()
    row.get_by_label("Reason, kept in the audit trail").fill("it was somebody else")
    row.get_by_role("button", name="Take it back").click()
    expect(row).to_have_attribute("data-revoked", "true")
    with Store.open(studio.home) as store:
        assert store.withdrawn_groups(1) == set()


def test_found_text_is_looked_at_and_called_harmless(page: Page, studio: Studio) -> None:
    with Store.open(studio.home) as store:
        image = store.images(1)[0]
        blob, quarter = image.blob, (image.width // 4, image.height // 4)
        store.add_texts({blob: [(*quarter, image.width // 2, image.height // 4)]}, detector="one")
    opened(page, studio, "Export")
    expect(page.locator("#export-texts")).to_contain_text("1 image shows text; 1 of them stay out")
    page.locator("#export-text-open").click()
    dialog = page.get_by_role("dialog", name="Text in the images")
    picture, place = dialog.locator(".sx-text-picture img").bounding_box(), dialog.locator(".sx-text-picture span").bounding_box()
    assert picture is not None and place is not None
    assert abs(place["x"] - picture["x"] - picture["width"] / 4) < 4
    assert abs(place["y"] - picture["y"] - picture["height"] / 4) < 4
    assert abs(place["width"] - picture["width"] / 2) < 6
    dialog.get_by_role("button", name="Harmless", exact=True).click()
    expect(dialog).to_contain_text("harmless, says")
    with Store.open(studio.home) as store:
        assert store.held_texts([blob]) == set()
    dialog.get_by_role("button", name="Hold again").click()
    expect(dialog.get_by_role("button", name="Harmless", exact=True)).to_be_visible()
    dialog.get_by_role("button", name="Close").click()
    expect(page.locator("#export-texts")).to_contain_text("1 of them stay out")


def test_a_reason_is_for_one_export_of_one_project(page: Page, studio: Studio) -> None:
    with Store.open(studio.home) as store:
        store.curate([store.sample_rows(1)[0].id], "accepted", actor="ann")
        store.create_project("other", task="segmentation", classes=store.project(1).classes, resolution=64, actor="ann")

    def tied(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"num_tied": 1, "num_tied_pairs": 2, "num_refused": 3})

    page.route("**/api/projects/*/exports", tied)
    opened(page, studio, "Export")
    reason, fields = page.locator("#export-despite-withdrawn"), page.locator("label:has(#export-despite-withdrawn)")
    expect(fields).to_contain_text("1 accepted image by a version that")
    page.locator("input[name=export-format][value=preferences]").check()
    expect(fields).to_contain_text("2 images by a version that")
    page.locator("input[name=export-format][value=folders]").check()
    reason.fill("for the ethics board alone")
    with page.expect_request(lambda request: "despite_withdrawn" in (request.post_data or "")) as sent:
        page.locator("#export-now").click()
    assert "for the ethics board alone" in (sent.value.post_data or "")
    expect(reason).to_have_value("")
    # Another project: what was typed for this one is gone.
    reason.fill("for the first project alone")
    page.locator("#export-refused").check()
    page.get_by_label("Project", exact=True).select_option(label="other")
    expect(reason).to_have_value("")
    expect(page.locator("#export-refused")).not_to_be_checked()
