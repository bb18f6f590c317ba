"""The page over a tiny prepared project, without demo and worker: `python serve_tiny.py HOME PORT`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import uvicorn

from saadi.config import Home
from saadi.records import LabelClass
from saadi.store import Store
from tests import builders
from ui.context import Context
from ui.server import build_app


def fill(store: Store) -> None:
    """A square image and a wide one, one label map each, six samples of one mask."""
    classes = [LabelClass(0, "tissue", "#000000"), LabelClass(1, "liver", "#d55e00"), LabelClass(2, "tip", "#0072b2")]
    project = store.create_project("tiny", task="segmentation", classes=classes, resolution=64, actor="test")
    for number, (height, width) in enumerate([(64, 64), (48, 96)]):
        pixels = np.full((height, width, 3), 60 + 40 * number, np.uint8)
        label_map = np.zeros((height, width), np.uint8)
        store.add_image(
            project.id,
            blob=store.blobs.put_image(pixels),
            size=(width, height),
            group_id=f"p{number}",
            split="train",
            source_name=f"{number}.png",
            label_map_blob=store.blobs.put_label_map(label_map),
            actor="test",
        )
    builders.add_samples(store, project, count=6)


if __name__ == "__main__":
    home = Home(Path(sys.argv[1]))
    with Store.open(home) as opened:
        if not opened.projects():
            fill(opened)
    uvicorn.run(build_app(Context(home, "ann")), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
