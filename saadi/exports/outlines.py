"""Connected parts of a label map and their outlines, for formats that hold shapes in the place of pixels.

Outlines run along the corners of pixels, so that a part without holes comes back pixel for pixel when its outline is filled. A
polygon has no holes: what lies in one is filled as well, and is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from saadi.records import IGNORE, LabelMap

Instances = Literal["component", "class"]
"""One object for each connected part (8-neighbourhood), or one for each class."""
Mask = NDArray[np.uint8]
Corner = tuple[int, int]
"""x, y of a corner of pixels; also a step of one pixel along the grid."""


class Shape(NamedTuple):
    """One object of a label map."""

    class_index: int
    mask: Mask
    """(H, W), 1 inside."""


def shapes(label_map: LabelMap, *, instances: Instances, background: int | None = 0) -> Iterator[Shape]:
    """Objects by class, then from the top left; neither background nor pixels that do not count.

    Args:
        label_map: (H, W) uint8.
        background: The class that is no object; None = all are.
    """
    for index in np.unique(label_map).tolist():
        if index in (IGNORE, background):
            continue
        whole = (label_map == index).astype(np.uint8)
        if instances == "class":
            yield Shape(index, whole)
            continue
        count, labelled, boxes, _ = cv2.connectedComponentsWithStats(whole, connectivity=8)
        for number in range(1, count):
            left, top, width, height = boxes[number, :4].tolist()
            box = np.s_[top : top + height, left : left + width]
            mask = np.zeros_like(whole)
            mask[box] = labelled[box] == number
            yield Shape(index, mask)


def rings(mask: Mask) -> list[list[Corner]]:
    """Outer outlines of a mask's parts as (x, y) corners of pixels, clockwise on the screen, straight runs as two corners.

    Parts that touch at a corner alone have an outline each.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return []
    top, left = int(rows[0]), int(columns[0])
    padded = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(bool), 1)
    inside = padded[1:-1, 1:-1]
    # Directed edges with the part on their right: along the top to the right, down the right side, and so on.
    steps = ((inside & ~padded[:-2, 1:-1], (0, 0), (1, 0)), (inside & ~padded[1:-1, 2:], (1, 0), (0, 1)),
             (inside & ~padded[2:, 1:-1], (1, 1), (-1, 0)), (inside & ~padded[1:-1, :-2], (0, 1), (0, -1)))  # fmt: skip
    leaving: dict[Corner, list[Corner]] = {}
    for edge, (x_off, y_off), step in steps:
        for row, column in np.argwhere(edge).tolist():
            leaving.setdefault((left + column + x_off, top + row + y_off), []).append(step)
    unused = {(corner, step) for corner, choices in leaving.items() for step in choices}
    found: list[list[Corner]] = []
    for corner in sorted(leaving, key=lambda one: (one[1], one[0])):
        for step in leaving[corner]:
            if (corner, step) in unused:
                ring = _followed(leaving, unused, corner, step)
                if _signed_area(ring) > 0:  # a hole runs the other way round
                    found.append(ring)
    return found


def _followed(
    leaving: dict[Corner, list[Corner]], unused: set[tuple[Corner, Corner]], corner: Corner, step: Corner
) -> list[Corner]:
    """The ring of an edge (a corner and the step from it), whose edges are taken out of `unused`."""
    first, ring, before = (corner, step), list[Corner](), None
    while (corner, step) in unused:
        unused.discard((corner, step))
        if step != before:
            ring.append(corner)
        corner, before = (corner[0] + step[0], corner[1] + step[1]), step
        # Where two pixels touch at this corner the outline turns right, around its own pixel.
        right = (-step[1], step[0])
        step = right if right in leaving[corner] else leaving[corner][0]
    assert (corner, step) == first, "each edge has one before it"
    return ring if before != first[1] else ring[1:]  # it may have begun in the middle of a straight run


def _signed_area(ring: list[Corner]) -> float:
    x, y = np.array(ring, np.float64).T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def filled(outlines: list[list[Corner]], *, size: tuple[int, int]) -> Mask:
    """(H, W) the pixels inside outlines along pixel corners: by the parity of crossings to the left of each pixel."""
    crossings = np.zeros((size[0], size[1] + 1), np.int64)
    for ring in outlines:
        for (x, top), (other, bottom) in zip(ring, [*ring[1:], ring[0]], strict=True):
            if x == other:
                crossings[min(top, bottom) : max(top, bottom), x] += 1
    return (crossings.cumsum(1)[:, :-1] % 2).astype(np.uint8)


def closed(mask: Mask) -> Mask:
    """The mask with its holes filled, as its outlines show it."""
    size = (mask.shape[0], mask.shape[1])
    found = np.zeros(size, np.uint8)
    for ring in rings(mask):
        found |= filled([ring], size=size)
    return found


def holes(label_map: LabelMap, *, instances: Instances) -> dict[int, int]:
    """Class -> pixels in holes of its objects, which polygons fill; classes without any are left out."""
    lost: dict[int, int] = {}
    for index, mask in shapes(label_map, instances=instances):
        if more := int(closed(mask).sum()) - int(mask.sum()):
            lost[index] = lost.get(index, 0) + more
    return lost
