"""The Data tab: choosing the engine of a fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Studio
from tests.browser.test_loop import LOADED, open_tab

pytestmark = pytest.mark.browser


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Studio]:
    """A tiny project without a worker."""
    made = Studio(tmp_path / "home", script=Path(__file__).with_name("serve_tiny.py"))
    made.start()
    yield made
    made.stop()


def test_stable_diffusion_asks_for_its_folder_and_says_how_to_get_the_weights(page: Page, plain: Studio) -> None:
    page.goto(plain.url)
    page.wait_for_selector(LOADED, timeout=30_000)
    open_tab(page, "Data")
    expect(page.locator("#fit-base")).to_be_hidden()
    page.select_option("#fit-engine", "stable-diffusion")
    page.fill("#fit-base", "/nowhere/sd")
    page.click("#fit-generator")
    told = page.locator("#fit-missing")
    expect(told).to_contain_text("the folder /nowhere/sd does not exist; get the weights with: hf download stable-diffusion-v1-5")
    expect(page.locator(".sx-toast")).to_have_count(0)
    page.select_option("#fit-engine", "compact")
    expect(told).to_be_hidden()
    expect(page.locator("#fit-base")).to_be_hidden()


def test_few_images_are_offered_where_there_are_few_and_refused_where_there_are_too_few(page: Page, plain: Studio) -> None:
    page.goto(plain.url)
    page.wait_for_selector(LOADED, timeout=30_000)
    open_tab(page, "Data")
    expect(page.locator("#fit-few")).to_be_checked()  # two images
    expect(page.locator("#fit-minutes")).to_have_value("6")
    page.click("#fit-generator")
    expect(page.locator(".sx-toast")).to_contain_text("5 needed to adapt a generator")
    page.uncheck("#fit-few")
    expect(page.locator("#fit-minutes")).to_have_value("20")
    page.select_option("#fit-engine", "stable-diffusion")
    expect(page.locator("#fit-few")).to_be_visible()
    expect(page.locator("#fit-references")).to_be_hidden()
