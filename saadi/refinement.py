"""Labels without the soft rim that a generator leaves around what it draws: erosion by class, chosen on validation images only.

After the mask refinement of MedDiff-FT (arXiv:2507.00377), whose law is not published. Pure arrays; imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from saadi.masks import BACKGROUND
from saadi.quality import paired_interval
from saadi.records import IGNORE, LabelMap

MAX_RADIUS_PX = 3
KEPT_SHARE = 0.5
"""Of a part's area that an erosion leaves at least; a part that would lose more is thin and is eroded less, or not at all."""
MIN_IMAGES = 8
"""With the class, on which a radius is chosen."""


def eroded(label_map: LabelMap, radii: Mapping[int, int]) -> LabelMap:
    """The label map without the outermost pixels of each class, where it borders on background; those become background.

    Borders between two classes stay: what one of them loses would be the other's. Each connected part is eroded by the largest
    radius up to the one asked for that neither splits nor removes it nor takes more than half of it, so that no area grows with
    the radius and thin instruments stay whole. The edge of the image is no border.

    Args:
        label_map: (H, W) uint8.
        radii: Class index -> pixels; classes left out stay as they are.
    """
    out = label_map.copy()
    depth = cv2.distanceTransform((label_map != BACKGROUND).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    if (label_map != BACKGROUND).all():
        return out  # no border anywhere; OpenCV measures from a zero that is not there
    for index, radius in radii.items():
        if index in (BACKGROUND, IGNORE) or radius <= 0:
            continue
        count, parts = cv2.connectedComponents((label_map == index).astype(np.uint8), connectivity=8)
        for number in range(1, count):
            part = parts == number
            for pixels in range(radius, 0, -1):
                kept = part & (depth > pixels)
                is_one = cv2.connectedComponents(kept.astype(np.uint8), connectivity=8)[0] == 2
                if is_one and kept.sum() >= KEPT_SHARE * part.sum():
                    out[part & ~kept] = BACKGROUND
                    break
    return out


@dataclass(frozen=True)
class Choice:
    """What was measured for one class."""

    radius: int
    """In pixels of the label maps that it was chosen on; 0 = leave the class as it is."""
    gains: dict[int, tuple[float, float, float]]
    """Radius -> gain in Dice over no erosion on synthetic images, with its 95 % interval."""
    real_gains: dict[int, float]
    """Radius -> the same on real images: above 0 where the segmenter draws the class too small by itself."""
    num_images: int


def choose(
    seen: Sequence[LabelMap],
    asked: Sequence[LabelMap],
    seen_real: Sequence[LabelMap],
    real: Sequence[LabelMap],
    *,
    num_classes: int,
    max_radius: int = MAX_RADIUS_PX,
) -> dict[int, Choice]:
    """The radius of each class at which a segmenter of real images finds the label maps of synthetic ones best.

    A segmenter that draws a class too small would ask for erosion on real images as well, where the labels are right; so a radius
    must gain more on synthetic images than on real ones, with its interval above that, or the class stays as it is.

    Args:
        seen, asked: What the segmenter sees in synthetic images, and the label maps they were made of: of validation patients,
            all of one size.
        seen_real, real: The same of real validation images and their label maps.
    """
    found: dict[int, Choice] = {}
    radii = range(1, max_radius + 1)
    for index in range(1, num_classes):
        gains, num_images = _gains(seen, asked, index, max_radius)
        real_gains, num_real = _gains(seen_real, real, index, max_radius)
        if num_images < MIN_IMAGES:
            found[index] = Choice(0, {}, {}, num_images)
            continue
        own = {radius: float(np.mean(real_gains[radius])) if num_real else 0.0 for radius in radii}
        intervals = {radius: paired_interval(gains[radius]) for radius in radii}
        passing = [radius for radius in radii if intervals[radius][1] > max(0.0, own[radius])]
        best = max(passing, key=lambda radius: (intervals[radius][0], -radius), default=0)
        found[index] = Choice(best, intervals, own, num_images)
    return found


def _gains(
    seen: Sequence[LabelMap], asked: Sequence[LabelMap], index: int, max_radius: int
) -> tuple[dict[int, list[float]], int]:
    """Radius -> gain in Dice of each image that asks for the class."""
    gains: dict[int, list[float]] = {radius: [] for radius in range(1, max_radius + 1)}
    count = 0
    for prediction, label_map in zip(seen, asked, strict=True):
        if not (label_map == index).any():
            continue
        count += 1
        before = _dice(prediction == index, label_map == index)
        for radius, values in gains.items():
            values.append(_dice(prediction == index, eroded(label_map, {index: radius}) == index) - before)
    return gains, count


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    return float(2 * (first & second).sum() / max(1, first.sum() + second.sum()))
