"""A browserless client of the page's routes, over a small filled project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from saadi.config import Home
from saadi.records import Project, RealImage, Score
from saadi.store import Store
from tests import builders
from ui.context import Context
from ui.server import build_app

BASE = "http://127.0.0.1:7860"


@pytest.fixture
def client(home: Home, store: Store) -> Iterator[TestClient]:
    """The app without Gradio; server errors are raised, not answered."""
    with TestClient(build_app(Context(home, "ann"), with_page=False), base_url=BASE) as opened:
        yield opened


@pytest.fixture
def image(store: Store, project: Project) -> RealImage:
    """A real image of 24 x 16 pixels with a label map."""
    pixels = np.full((16, 24, 3), 90, np.uint8)
    label_map = np.zeros((16, 24), np.uint8)
    label_map[4:9, 4:9] = 1
    added = store.add_image(
        project.id,
        blob=store.blobs.put_image(pixels),
        size=(24, 16),
        group_id="p1",
        split="train",
        source_name="a.png",
        label_map_blob=store.blobs.put_label_map(label_map),
        actor="test",
    )
    assert added is not None
    return added


@pytest.fixture
def scored(store: Store, project: Project) -> list[int]:
    """Ids of four samples of one label map, scored by selector and judge."""
    samples = builders.add_samples(store, project, count=4)
    models = {
        kind: store.add_model(
            project.id, kind=kind, architecture={}, file=store.files.put(kind.encode()), metrics={}, actor="test"
        )
        for kind in ("selector", "judge")
    }
    for rank, sample in enumerate(samples):
        dice = 0.9 - 0.2 * rank
        parts = {"polyp": {"dice": dice, "iou": dice, "recall": dice}}
        store.add_scores(
            Score(sample.id, model.id, kind, dice, dice, 0.8, parts, sample.label_map_blob) for kind, model in models.items()
        )
    return [sample.id for sample in samples]


@pytest.fixture
def folder_of_pairs(tmp_path: Path) -> Path:
    """Three images and masks (values 0 and 255) with the same stems."""
    import cv2

    for number in range(3):
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
        mask = np.zeros((32, 32), np.uint8)
        mask[4 : 10 + number, 4:10] = 255
        picture = np.full((32, 32, 3), 40 * number + 30, np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"case{number}_1.png"), picture)
        cv2.imwrite(str(tmp_path / "masks" / f"case{number}_1.png"), mask)
    return tmp_path
