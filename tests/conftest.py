"""What all tests share: no network, an empty data folder, a small project in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# Before anything imports a hub client or gradio.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
if "PYTEST_XDIST_WORKER" in os.environ:  # two torch programs with two threads each on two cores: 26 times slower
    os.environ.setdefault("SAADI_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
for variable in ("SAADI_HOME", "SAADI_USER", "SAADI_DEVICE", "SAADI_SAM_CHECKPOINT"):
    os.environ.pop(variable, None)

import numpy as np
import pytest

from saadi.config import Home
from saadi.records import LabelClass, Project
from saadi.store import Store

CLASSES = (LabelClass(0, "background", "#000000"), LabelClass(1, "polyp", "#e05263"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty data folder that does not exist yet."""
    return Home(tmp_path / "home")


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    """An open store in `home`."""
    with Store.open(home) as opened:
        yield opened


@pytest.fixture
def project(store: Store) -> Project:
    """A segmentation project of two classes at 16 pixels."""
    return store.create_project("tiny", task="segmentation", classes=CLASSES, resolution=16, actor="test")


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """An installed Chromium for Playwright's `executable_path`; skips the test where there is none."""
    found = os.environ.get("SAADI_TEST_BROWSER") or next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium found; `make test` says how to get one")
    return found
