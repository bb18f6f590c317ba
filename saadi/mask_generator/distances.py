"""Label maps as signed distances: smooth pictures that a diffusion model can draw, and back without losing thin classes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from saadi.masks import BACKGROUND
from saadi.records import LabelMap

REACH = 0.12
"""Distances are cut off at this share of the side: what lies deeper in a class, or farther away, tells nothing about its edge."""
SMOOTHING = 0.6
"""Standard deviation in cells of the grid: the root makes small errors of a network large at the edge."""


def encode(label_map: LabelMap, *, num_classes: int, grid: int) -> NDArray[np.float32]:
    """(num_classes - 1, grid, grid) in [-1, 1], one picture per class but the background: above 0 inside, below outside.

    The root of the distance, so that an instrument two pixels wide stands out of the noise as a large organ's edge does. Measured
    at the label map's own size and averaged down to the grid. 255 (ignore) counts as background.
    """
    height, width = label_map.shape
    out = np.full((num_classes - 1, grid, grid), -1.0, np.float32)
    for index in range(1, num_classes):
        inside = (label_map == index).astype(np.uint8)
        if not inside.any():
            continue
        within = cv2.distanceTransform(cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_REPLICATE), cv2.DIST_L2, 5)[1:-1, 1:-1]
        beyond = cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
        # Distances are to the centres of the nearest other pixels; the edge lies half a pixel nearer.
        signed = np.where(inside > 0, np.minimum(within, height + width) - 0.5, 0.5 - beyond) / (REACH * max(height, width))
        small = cv2.resize(signed.astype(np.float32), (grid, grid), interpolation=cv2.INTER_AREA)
        out[index - 1] = np.sign(small) * np.sqrt(np.abs(small).clip(0, 1))
    return out


def decode(pictures: NDArray[np.float32], *, side: int, smooths: bool = False) -> LabelMap:
    """(side, side) uint8: in each pixel the class that lies deepest inside its edge, background where none does.

    Args:
        pictures: (num_classes - 1, grid, grid), as from `encode`.
        smooths: Take the tremor out of drawn edges, `SMOOTHING` wide.
    """
    if smooths:
        pictures = np.stack([cv2.GaussianBlur(picture, (0, 0), SMOOTHING) for picture in pictures])
    signed = np.sign(pictures) * np.square(pictures)
    large = np.stack([cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC) for picture in signed])
    deepest = large.argmax(0)
    return np.where(large.max(0) > 0, deepest + 1, BACKGROUND).astype(np.uint8)
