"""Text in a picture: names, dates and what devices write over a frame. Boxes come out, never the words.

Detection and recognition are PP-OCRv4's small networks (Apache-2.0), which `rapidocr-onnxruntime` brings along, so nothing is
downloaded. Recognition only confirms: a region in which no two letters or digits can be read is a highlight or an edge. What was
read is forgotten at once, as it may be a patient's name. Imports no torch. Measured in docs/design.md, "Burnt-in text".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import cv2
import numpy as np

from saadi import config
from saadi.errors import BadInputError
from saadi.records import Image

SIDE = 512
"""Short side in pixels to which smaller images are enlarged: letters of 5 px are too small for the detector."""
MAX_SIDE = 576
"""Short side to which larger ones are reduced: at 720 px a 1080p frame takes half a second."""
MAX_LONG_SIDE = 2000
"""Of a very wide or tall image, which is enlarged less."""
MIN_CONFIDENCE = 0.5
"""Mean certainty of the characters of a region from which on it counts as text."""
MIN_CHARACTERS = 2
"""Letters or digits; single ones are read into highlights."""
DETECTOR = f"rapidocr-onnxruntime 1.4.4, {SIDE}-{MAX_SIDE} px, {MIN_CONFIDENCE}, {MIN_CHARACTERS}"
"""Changes with everything that decides what is found: images that an earlier one has looked at are looked at again."""


class Box(NamedTuple):
    """A region with text, in pixels of the image that was given; upright."""

    x: int
    y: int
    width: int
    height: int


def is_available() -> bool:
    """Whether the library is there: it has no release for Python 3.13 and later."""
    return find_spec("rapidocr_onnxruntime") is not None


def find_text(image: Image) -> list[Box]:
    """Where text is, from top to bottom; [] where there is none.

    Args:
        image: (H, W, 3) uint8 RGB.

    Raises:
        BadInputError: Another shape or type.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise BadInputError(f"an image is (H, W, 3) uint8, got {image.shape} {image.dtype}; convert it first")
    height, width = image.shape[:2]
    scale = min(max(SIDE, min(MAX_SIDE, height, width)) / min(height, width), MAX_LONG_SIDE / max(height, width))
    sized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    # The library would enlarge a narrow strip until its short side is SIDE, however long that makes it.
    missing = [max(0, SIDE - side) for side in sized.shape[:2]]
    sized = cv2.copyMakeBorder(sized, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
    found, _ = _reader(config.num_threads())(cv2.cvtColor(sized, cv2.COLOR_RGB2BGR), use_cls=False)
    boxes = [_upright(corners, scale, width, height) for corners, words, certainty in found or ()
             if certainty >= MIN_CONFIDENCE and sum(letter.isalnum() for letter in words) >= MIN_CHARACTERS]  # fmt: skip
    return sorted(boxes, key=lambda box: (box.y, box.x))


def _upright(corners: Sequence[Sequence[float]], scale: float, width: int, height: int) -> Box:
    points = np.asarray(corners, np.float64) / scale
    left, top = (max(0, int(value)) for value in np.floor(points.min(0)))
    right, bottom = (int(value) for value in np.ceil(points.max(0)))
    return Box(left, top, max(1, min(width, right) - left), max(1, min(height, bottom) - top))


@lru_cache(maxsize=1)
def _reader(num_threads: int) -> Any:
    # On first use: opening the networks takes half a second, and whoever never looks for text needs no onnxruntime.
    return import_module("rapidocr_onnxruntime").RapidOCR(
        intra_op_num_threads=num_threads, inter_op_num_threads=1, text_score=0.0,
        det_limit_type="min", det_limit_side_len=SIDE, width_height_ratio=-1)  # fmt: skip
