"""The page of `serve_tiny` with a real worker whose mask generator has learnt for a moment: `python serve_masks.py HOME PORT`."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import uvicorn

from app import supervise
from saadi.config import Home
from saadi.jobs import WorkerProcess
from saadi.store import Store
from tests import tiny
from tests.browser import serve_tiny
from tests.browser.serve_engine import add_generator
from ui.context import Context
from ui.server import build_app

NUM_MASKS = 30


def add_mask_generator(store: Store) -> None:
    """More training images, and a small network that has learnt their masks for some seconds."""
    from saadi.engines import weights
    from saadi.jobs import silent
    from saadi.mask_generator import fitting

    project = store.projects()[0]
    label_maps = []
    for number in range(NUM_MASKS):
        image, label_map = tiny.scene(100 + number, side=64)
        label_map[label_map == 2] = 0
        label_maps.append(label_map)
        blob = store.blobs.put_label_map(label_map)
        store.add_image(project.id, blob=store.blobs.put_image(image), size=(64, 64), group_id=f"more-{number}", split="train",
                        source_name=f"more {number}", label_map_blob=blob, actor="test")  # fmt: skip
    num_classes = len(project.classes)
    small = {"kind": "masks", "num_classes": num_classes, "grid": 32, "patch": 4, "widths": [16, 32], "shift": 3.0}
    made, metrics = fitting.fit(label_maps, num_classes=num_classes, side=64, config=fitting.MaskFitConfig(num_steps=200),
                                report=silent, architecture=small)  # fmt: skip
    file = store.files.put(weights.to_bytes(made.denoiser.state_dict()))
    bases = [store.blobs.put_label_map(label_maps[place]) for place in metrics.pop("held")]
    store.add_mask_model(project.id, architecture=made.architecture, file=file, bases=bases, metrics=metrics, actor="test")


if __name__ == "__main__":
    home = Home(Path(sys.argv[1]))
    with Store.open(home) as opened:
        if not opened.projects():
            serve_tiny.fill(opened)
            add_generator(opened)
            add_mask_generator(opened)
    stop, worker = threading.Event(), WorkerProcess(home)
    threading.Thread(target=supervise, args=(worker, stop), daemon=True).start()
    try:
        uvicorn.run(build_app(Context(home, "ann")), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
    finally:
        stop.set()
        worker.stop()
