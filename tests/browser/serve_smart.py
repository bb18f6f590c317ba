"""The tiny page with one more image, on which there is something to click: `python serve_smart.py HOME PORT`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import uvicorn

from saadi.config import Home
from saadi.store import Store
from tests.browser.serve_tiny import fill
from ui.context import Context
from ui.server import build_app

WIDTH, HEIGHT = 96, 64


def organ() -> np.ndarray:
    """(H, W) bool: an ellipse."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return ((x - 34) / 18) ** 2 + ((y - 32) / 20) ** 2 < 1


def bar() -> np.ndarray:
    """(H, W) bool: a grey bar that touches the ellipse."""
    made = np.zeros((HEIGHT, WIDTH), bool)
    made[28:36, 52:84] = True
    return made


def picture() -> np.ndarray:
    """Red tissue, a green organ, a grey bar; a little noise."""
    pixels = np.full((HEIGHT, WIDTH, 3), (165, 70, 62), np.float64)
    pixels[organ()], pixels[bar()] = (80, 150, 75), (168, 168, 176)
    return (pixels + np.random.default_rng(1).normal(0, 5, pixels.shape)).clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    home = Home(Path(sys.argv[1]))
    with Store.open(home) as opened:
        if not opened.projects():
            fill(opened)
            empty = opened.blobs.put_label_map(np.zeros((HEIGHT, WIDTH), np.uint8))
            opened.add_image(
                1,
                blob=opened.blobs.put_image(picture()),
                size=(WIDTH, HEIGHT),
                group_id="p2",
                split="train",
                source_name="organ.png",
                label_map_blob=empty,
                actor="test",
            )
    uvicorn.run(build_app(Context(home, "ann")), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
