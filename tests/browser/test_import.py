"""Data: a foreign data set is looked at, its values are named with the help of examples, and it becomes part of the project."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect

from saadi.datasets.phantom import CLASS_NAMES, render
from saadi.privacy import burnt_in
from saadi.store import Store
from tests.browser.conftest import Studio
from tests.browser.test_loop import open_tab

pytestmark = pytest.mark.browser


COLOURS = np.array([[0, 0, 0], [250, 30, 10], [20, 200, 40], [90, 90, 250], [250, 250, 20], [200, 20, 250], [9, 90, 90]],
                   np.uint8)  # fmt: skip


def write_scenes(folder: Path) -> int:
    """Three scenes, a name in one of them, with masks in colours of nobody's palette, a part of one smoothed; returns how many
    classes they show."""
    shown: set[int] = set()
    for number in range(3):
        scene = render(number, patient=number, size_px=64)
        shown |= set(np.unique(scene.label_map).tolist())
        mask = COLOURS[scene.label_map]
        if number == 0:
            smooth = cv2.resize(cv2.resize(mask, (48, 48)), (64, 64))
            mask[28:32] = smooth[28:32]
        image = scene.image.copy()
        if number == 2:
            cv2.putText(image, "JANE", (3, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
        for part, pixels in (("images", image), ("masks", mask)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / part / f"case{number}.png"), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    cv2.imwrite(str(folder / "masks" / "orphan.png"), mask)
    return len(shown)


def a_long_look_is_told_and_stopped(page: Page) -> None:
    """Its answer is held back; then it comes after all, and takes the place of the bar."""
    held: list[Route] = []
    page.route("**/api/import/scan", lambda route: held.append(route))
    page.route("**/api/import/scan/*", lambda route: route.fulfill(json={"step": 3, "total": 10, "message": "looking at images"}))
    page.click("#import-scan")
    expect(page.locator(".sx-looking")).to_contain_text("Looking at images, 3 of 10")
    with page.expect_request("**/api/import/scan/*/stop") as stopping:
        page.click("#import-stop-look")
    assert stopping.value.method == "POST"
    held[0].continue_()
    expect(page.locator(".sx-looking")).to_be_empty()
    page.unroute("**/api/import/scan")
    page.unroute("**/api/import/scan/*")


def test_a_foreign_data_set_becomes_part_of_the_project(page: Page, empty: Studio, tmp_path: Path) -> None:
    num_classes = write_scenes(tmp_path / "set")
    page.goto(empty.url)
    page.wait_for_selector("[data-panel=draw][data-ready]", timeout=30_000)
    open_tab(page, "Data")
    page.get_by_text("New project").click()
    page.fill("#project-name", "scenes")
    page.fill("#project-classes", ", ".join(CLASS_NAMES[1:]))
    page.click("#project-create")
    page.get_by_text("Import a folder into scenes").click()
    page.fill("#import-images", str(tmp_path / "set"))
    a_long_look_is_told_and_stopped(page)
    found = page.locator(".sx-found")
    expect(found).to_contain_text("3 pairs of image and mask. Read as a folder of images. 1 files cannot be used")
    expect(found.locator(".sx-odd").first).to_contain_text("look like smoothed edges")
    expect(found.locator(".sx-example")).to_have_count(num_classes)
    width = found.locator(".sx-example").first.evaluate("async (image) => { await image.decode(); return image.naturalWidth; }")
    assert width == 96
    page.click("#import-run")  # nothing becomes background by itself
    expect(page.locator(".sx-toast-bad")).to_contain_text("Say which class each value is")
    for index, colour in enumerate(COLOURS.tolist()):
        name = "0" if index == 0 else "#{:02x}{:02x}{:02x}".format(*colour)
        chooser = found.get_by_label(f"Class of value {name}", exact=True)
        if chooser.count():
            chooser.select_option(str(index))
    page.click("#import-run")
    page.wait_for_selector("[data-panel=data][data-loaded='3']", timeout=60_000)
    with Store.open(empty.home) as store:
        maps = {record.image_id: store.blobs.label_map(record.blob) for record in store.label_maps(1)}
        by_name = {image.source_name: maps[image.id] for image in store.images(1)}
    assert np.array_equal(by_name["images/case1.png"], render(1, patient=1, size_px=64).label_map)
    assert (by_name["images/case0.png"][28:32] == 255).any() and not (by_name["images/case0.png"][40:] == 255).any()
    text = found.locator("[role=status]")  # what was imported is looked at for names, too
    if not burnt_in.is_available():
        expect(text).to_contain_text("rapidocr-onnxruntime, which is not installed")
        return
    expect(text).to_contain_text("1 of 3 images show text; 1 of them stay out of exports", timeout=60_000)
    text.get_by_role("button", name="Look at them").click()
    expect(page.get_by_role("dialog", name="Text in the images")).to_contain_text("1 image shows text, 1 of them held")
