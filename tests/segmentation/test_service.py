"""The page's side of the smart click: SAM in a process of its own, GrabCut with a reason where it cannot answer."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from saadi.config import Home
from saadi.errors import BadInputError, NotFoundError
from saadi.segmentation import service
from saadi.segmentation.base import Prompt
from saadi.segmentation.service import NO_CHECKPOINT, SmartClick
from saadi.store import Store
from tests.segmentation import tiny_sam

CLICK = Prompt(((20.5, 14.5, True),))
START_S = 60


def wait(until: Callable[[], bool], seconds: float = START_S) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def blob(store: Store) -> str:
    """A green square on red, 40 x 30."""
    return store.blobs.put_image(picture())


def picture(shade: int = 0) -> np.ndarray:
    pixels = np.full((30, 40, 3), (150, 60 + shade, 60), np.uint8)
    pixels[8:22, 12:30] = (70, 150, 80)
    return pixels


@pytest.fixture
def smart(home: Home, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmartClick]:
    monkeypatch.setenv("SAADI_SAM_CHECKPOINT", str(tiny_sam.save(tmp_path / "tiny.pth")))
    monkeypatch.setenv("SAADI_DEVICE", "cpu")
    made = SmartClick(home.blobs)
    yield made
    made.close()


def ready(smart: SmartClick, blob: str) -> None:
    smart.open(blob)
    wait(lambda: smart.sam.status(blob).state == "ready")


def test_without_a_checkpoint_grabcut_answers_and_says_so(home: Home, blob: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SAADI_SAM_CHECKPOINT", raising=False)
    smart = SmartClick(home.blobs)
    assert smart.open(blob).state == "absent" and smart.sam.process is None
    found = smart.segment(blob, Prompt(box=(10, 6, 32, 24)))
    wanted = np.zeros((30, 40), bool)
    wanted[8:22, 12:30] = True
    assert (found.mask & wanted).sum() / (found.mask | wanted).sum() > 0.9
    assert found.method == "GrabCut" and found.why == NO_CHECKPOINT and "SAADI_SAM_CHECKPOINT" in found.why
    with pytest.raises(BadInputError, match="no preview"):
        smart.segment(blob, CLICK, is_preview=True)


def test_an_image_is_embedded_once_and_the_decoder_runs_per_click(smart: SmartClick, blob: str, store: Store):
    ready(smart, blob)
    assert smart.sam.num_embedded == 1
    first = smart.segment(blob, CLICK)
    boxed = smart.segment(blob, Prompt(CLICK.clicks, (2, 2, 20, 15)))
    beside = smart.segment(blob, Prompt(((20.5, 14.5, True), (3.5, 3.5, False)), (2, 2, 20, 15)))
    assert first.method.startswith("SAM (") and first.why == "" and first.mask.shape == (30, 40) and first.score is not None
    assert smart.sam.num_embedded == 1
    assert len({found.score for found in (first, boxed, beside)}) == 3
    smart.open(blob)
    other = store.blobs.put_image(picture(40))
    ready(smart, other)
    assert smart.sam.num_embedded == 2 and smart.sam.status(blob).state == "ready"


def test_clicks_before_the_embedding_is_there_get_grabcut_and_the_reason(smart: SmartClick, blob: str):
    found = smart.segment(blob, CLICK)
    assert found.method == "GrabCut" and "SAM is" in found.why  # starting, being loaded, or reading the image
    wait(lambda: smart.sam.status(blob).state == "ready")
    assert smart.segment(blob, CLICK).method.startswith("SAM")


def test_a_killed_process_is_started_again(smart: SmartClick, blob: str):
    ready(smart, blob)
    before = smart.segment(blob, CLICK)
    process = smart.sam.process
    assert process is not None
    process.kill()
    wait(lambda: smart.sam.process is None)
    assert smart.segment(blob, CLICK).method == "GrabCut"
    wait(lambda: smart.sam.status(blob).state == "ready")
    assert (smart.segment(blob, CLICK).mask == before.mask).all()


def test_after_three_crashes_sam_stays_off_and_says_so(smart: SmartClick, blob: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(service, "MAX_CRASHES", 1)
    smart.open(blob)
    assert smart.sam.process is not None
    smart.sam.process.kill()
    wait(lambda: smart.sam.process is None)
    found = smart.segment(blob, CLICK)
    assert found.method == "GrabCut" and "ended unexpectedly" in found.why and smart.sam.process is None


def test_who_gives_no_answer_in_time_is_replaced(smart: SmartClick, blob: str, monkeypatch: pytest.MonkeyPatch):
    ready(smart, blob)
    process = smart.sam.process
    assert process is not None
    psutil.Process(process.pid).suspend()
    monkeypatch.setattr(service, "CLICK_TIMEOUT_S", 0.3)
    found = smart.segment(blob, CLICK)
    assert found.method == "GrabCut" and "no answer within" in found.why
    wait(lambda: process.poll() is not None)
    monkeypatch.setattr(service, "CLICK_TIMEOUT_S", 20.0)
    ready(smart, blob)
    assert smart.segment(blob, CLICK).method.startswith("SAM")


def test_a_damaged_checkpoint_is_named_once_and_grabcut_answers(smart: SmartClick, blob: str, tmp_path: Path):
    (tmp_path / "tiny.pth").write_bytes(b"damaged")
    smart.open(blob)
    wait(lambda: smart.sam.status(blob).state == "refused")
    found = smart.segment(blob, CLICK)
    assert found.method == "GrabCut" and "tiny.pth cannot be read as weights" in found.why
    wait(lambda: smart.sam.process is None)
    smart.open(blob)
    assert smart.sam.process is None  # asked once, not again with every image


def test_an_unknown_image_is_refused(smart: SmartClick):
    with pytest.raises(NotFoundError):
        smart.open("0" * 64)


PARENT = """
import sys, time
from pathlib import Path
from saadi.segmentation.service import SmartClick
assert "torch" not in sys.modules, "the page process must not load torch"
smart = SmartClick(Path(sys.argv[1]))
smart.open(sys.argv[2])
print(smart.sam.process.pid, flush=True)
time.sleep(60)
"""


def test_sam_goes_with_its_parent_even_after_kill_9(smart: SmartClick, home: Home, blob: str):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(home.blobs), blob], stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert child.is_running()
    parent.kill()
    parent.wait()
    wait(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
