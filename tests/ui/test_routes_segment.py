"""The smart click's routes: bounds, sizes, words; another person's strokes are not kept waiting."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from saadi.config import Home
from saadi.records import RealImage
from saadi.segmentation import grabcut
from saadi.store import Store
from tests.segmentation import tiny_sam
from ui.context import Context
from ui.payloads import unpack
from ui.server import build_app


@pytest.fixture(autouse=True)
def no_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAADI_SAM_CHECKPOINT", raising=False)


@pytest.fixture
def blob(store: Store) -> str:
    """A green square on red, 48 x 32."""
    pixels = np.full((32, 48, 3), (150, 60, 60), np.uint8)
    pixels[8:24, 12:36] = (70, 150, 80)
    return store.blobs.put_image(pixels)


def click(client: TestClient, blob: str, **changes: Any) -> Any:
    return client.post("/api/segment/click", json={"image_blob": blob, "w": 48, "h": 32, "number": 7} | changes)


def test_a_box_becomes_a_mask_with_words_about_the_method(client: TestClient, blob: str):
    assert client.post("/api/segment/open", json={"image_blob": blob}).json() == {
        "state": "absent", "method": "GrabCut", "words": "no SAM checkpoint is set (SAADI_SAM_CHECKPOINT)"}  # fmt: skip
    found = click(client, blob, box=[10, 6, 38, 26]).json()
    wanted = np.zeros((32, 48), np.uint8)
    wanted[8:24, 12:36] = 1
    mask = unpack(found["mask"], size=(32, 48))
    assert (mask & wanted).sum() / (mask | wanted).sum() > 0.9 and set(np.unique(mask)) == {0, 1}
    assert (found["number"], found["method"], found["pixels"]) == (7, "GrabCut", int(mask.sum()))
    assert "SAADI_SAM_CHECKPOINT" in found["why"]


def test_a_mask_has_the_size_of_the_label_map(client: TestClient, blob: str):
    mask = unpack(click(client, blob, w=24, h=16, box=[5, 3, 19, 13]).json()["mask"], size=(16, 24))
    assert mask[4:12, 6:18].mean() > 0.9 and mask.sum() < 1.2 * 8 * 12


@pytest.mark.parametrize(("changes", "status", "words"), [
    ({"points": [[48, 3, True]]}, 400, "outside the mask of 48 x 32"),
    ({"points": [[3, 3, False]]}, 400, "click the object first"),
    ({}, 400, "click the object first"),
    ({"box": [3, 3, 4, 4]}, 400, "smaller than 3 pixels"),
    ({"points": [[3, 3, True]] * 65}, 422, "points"),
    ({"points": [[1e30, 3, True]]}, 422, "points"),
    ({"w": 100_000}, 422, "w:"),
    ({"image_blob": "../etc"}, 422, "image_blob"),
    ({"image_blob": "0" * 64, "points": [[3, 3, True]]}, 404, "missing"),
    ({"points": [[3, 3, True]], "is_preview": True}, 400, "no preview"),
    ({"surprise": 1}, 422, "surprise"),
])  # fmt: skip
def test_what_fits_no_image_is_refused_in_a_sentence(client: TestClient, blob: str, changes: dict, status: int, words: str):
    answer = click(client, blob, **changes)
    assert answer.status_code == status and words in answer.json()["error"]


def test_a_slow_click_keeps_no_stroke_waiting(client: TestClient, image: RealImage, blob: str, monkeypatch: pytest.MonkeyPatch):
    """Both go through one event loop."""
    release, entered = threading.Event(), threading.Event()

    def slow(pixels: np.ndarray, prompt: object) -> np.ndarray:
        entered.set()
        assert release.wait(20)
        return np.zeros(pixels.shape[:2], bool)

    monkeypatch.setattr(grabcut, "segment", slow)
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(click(client, blob, box=[10, 6, 38, 26]).status_code))
    thread.start()
    assert entered.wait(20)
    assert client.get(f"/api/label_maps/{image.label_map_id}").status_code == 200 and thread.is_alive()
    release.set()
    thread.join(20)
    assert answers == [200]


def test_sam_answers_once_its_embedding_is_there(home: Home, blob: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAADI_SAM_CHECKPOINT", str(tiny_sam.save(tmp_path / "tiny.pth")))
    monkeypatch.setenv("SAADI_DEVICE", "cpu")
    with TestClient(build_app(Context(home, "ann"), with_page=False), base_url="http://127.0.0.1:7860") as opened:
        deadline = time.monotonic() + 60
        states = []
        while (status := opened.post("/api/segment/open", json={"image_blob": blob}).json())["state"] != "ready":
            states.append(status["state"])
            assert status["words"] and time.monotonic() < deadline
            time.sleep(0.05)
        assert states and status["method"].startswith("SAM (")
        found = click(opened, blob, points=[[20, 15, True]], is_preview=True).json()
        assert found["method"] == status["method"] and found["why"] == "" and 0 <= found["score"] <= 1
