"""Label maps as pictures and numbers: colours, overlays, disagreement, validity. Calculations on arrays only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from saadi.errors import BadInputError, SizeMismatchError, UnknownClassError
from saadi.records import IGNORE, Image, LabelClass, LabelMap

BACKGROUND = 0
IGNORE_COLOR = (128, 128, 128)
MISSED_COLOR = (230, 159, 0)
"""Asked for, not found by the model. These three are Okabe-Ito colours: told apart by colour-blind readers."""
INVENTED_COLOR = (86, 180, 233)
"""Seen by the model where background was asked for."""
MISTAKEN_COLOR = (204, 121, 167)
"""Seen by the model as another class than the asked one."""
AGREED_BRIGHTNESS = 0.35
"""Pixels on which both agree keep their class colour, dimmed, so that the eye goes to the rest."""


@dataclass(frozen=True)
class ClassStatistic:
    """How much of a label map one class covers."""

    index: int
    name: str
    num_pixels: int
    share: float
    """Of all pixels, 0-1."""


def rgb(color: str) -> tuple[int, int, int]:
    """Return '#rrggbb' as three values 0-255."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def palette(classes: Sequence[LabelClass]) -> NDArray[np.uint8]:
    """Return (256, 3) uint8: row = class index; background black, 255 (ignore) grey, unknown values black."""
    table = np.zeros((256, 3), np.uint8)
    for label in classes:
        if label.index != BACKGROUND:
            table[label.index] = rgb(label.color)
    table[IGNORE] = IGNORE_COLOR
    return table


def validate(label_map: LabelMap, *, num_classes: int, size: tuple[int, int]) -> LabelMap:
    """Return the label map unchanged when a project can use it.

    Args:
        label_map: (H, W) uint8.
        num_classes: Values 0 .. num_classes - 1 and 255 (ignore) are allowed.
        size: (height, width) that it must have.

    Raises:
        SizeMismatchError: Other height or width.
        UnknownClassError: Names each unknown value with its number of pixels.
    """
    if label_map.ndim != 2 or label_map.shape != size:
        shape = " x ".join(str(side) for side in label_map.shape)
        raise SizeMismatchError(
            f"the label map is {shape} (height x width), {size[0]} x {size[1]} was expected; fit the label map first"
        )
    counts = np.bincount(label_map.ravel(), minlength=256)
    unknown = [value for value in range(num_classes, IGNORE) if counts[value]]
    if unknown:
        listed = ", ".join(f"{value} ({counts[value]} pixels)" for value in unknown[:8]) + (" ..." if len(unknown) > 8 else "")
        raise UnknownClassError(
            f"the label map holds values that the project does not know: {listed}; "
            f"allowed are 0 to {num_classes - 1} and {IGNORE} (ignore)"
        )
    return label_map


def whole(index: int, *, side: int) -> LabelMap:
    """The label map that asks for one class of the whole image: what stands for a class in a classification project."""
    return np.full((side, side), index, np.uint8)


def class_of(label_map: LabelMap) -> int:
    """The class that a label map asks of the whole image.

    Raises:
        BadInputError: It holds several classes.
    """
    if label_map.min() != label_map.max():
        found = np.unique(label_map).tolist()
        raise BadInputError(f"one class for the whole image is expected, this label map holds {found}; choose one of them")
    return int(label_map.flat[0])


def class_statistics(label_map: LabelMap, classes: Sequence[LabelClass]) -> list[ClassStatistic]:
    """Return one entry per class of the project, present or not, by index; ignored pixels count for the whole."""
    counts = np.bincount(label_map.ravel(), minlength=256)
    total = max(1, label_map.size)
    return [
        ClassStatistic(label.index, label.name, int(counts[label.index]), float(counts[label.index] / total)) for label in classes
    ]


def colorize(label_map: LabelMap, classes: Sequence[LabelClass], *, hatched: bool = False) -> Image:
    """Return (H, W, 3) uint8: each pixel in its class colour, background black; `hatched` adds the stripes of `hatch`."""
    color = palette(classes)[label_map]
    if hatched:
        color[hatch(label_map)] //= 2
    return color


def hatch(label_map: LabelMap) -> NDArray[np.bool_]:
    """Return where a class wears the dark part of its pattern, for those who cannot tell its colour; six patterns that repeat.

    The canvas paints the same ones (ui/static/canvas.js). About 36 stripes across, whatever the size.
    """
    width = max(2, round(label_map.shape[1] / 72))  # at one pixel both diagonals and the chequers are the same
    y, x = np.ogrid[: label_map.shape[0], : label_map.shape[1]]

    def striped(position: NDArray[np.int_]) -> NDArray[np.bool_]:
        return np.asarray(position % (2 * width) < width)

    across, down = striped(x), striped(y)
    patterns = (striped(x + y), striped(x - y), down, across, across & down, across != down)
    is_dark = np.zeros(label_map.shape, bool)
    for index in np.unique(label_map):
        if index not in (BACKGROUND, IGNORE):
            is_dark |= (label_map == index) & patterns[(int(index) - 1) % len(patterns)]
    return is_dark


def borders(label_map: LabelMap, *, width_px: int) -> NDArray[np.bool_]:
    """Return where a class meets another one, `width_px` wide, measured into both sides; 0 gives no border."""
    if width_px <= 0:
        return np.zeros(label_map.shape, bool)
    kernel = np.ones((3, 3), np.uint8)
    inner = max(1, width_px // 2 + width_px % 2)
    highest = cv2.dilate(label_map, kernel, iterations=inner)
    lowest = cv2.erode(label_map, kernel, iterations=inner)
    return np.asarray(highest != lowest, dtype=bool)


def overlay(
    image: Image,
    label_map: LabelMap,
    classes: Sequence[LabelClass],
    *,
    opacity: float = 0.45,
    outline_px: int = 0,
    hatched: bool = False,
) -> Image:
    """Return the image with class colours laid over it; background pixels stay as they are.

    Args:
        opacity: 0 shows the image alone, 1 hides it below the classes.
        outline_px: Width of a full-strength outline around each class; 0 for none.
        hatched: Patterns beside colours, see `hatch`.

    Raises:
        SizeMismatchError: Image and label map differ in height or width.
    """
    if image.shape[:2] != label_map.shape:
        raise SizeMismatchError(f"label map is {label_map.shape}, image is {image.shape[:2]}; fit the label map first")
    color = colorize(label_map, classes, hatched=hatched)
    weight = np.where(label_map == BACKGROUND, 0.0, opacity).astype(np.float32)
    weight[borders(label_map, width_px=outline_px) & (label_map != BACKGROUND)] = 1.0
    mixed = image * (1 - weight[..., None]) + color * weight[..., None]
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def outline(label_map: LabelMap, classes: Sequence[LabelClass], *, width_px: int = 2) -> NDArray[np.uint8]:
    """Return (H, W, 4) uint8 RGBA: class outlines in their colours, all else transparent."""
    edge = borders(label_map, width_px=width_px) & (label_map != BACKGROUND)
    return np.dstack([colorize(label_map, classes), np.where(edge, 255, 0).astype(np.uint8)])


def disagreement(asked: LabelMap, predicted: LabelMap, classes: Sequence[LabelClass]) -> Image:
    """Return a picture of where a model saw something else than was asked for.

    Orange: asked for but missed. Blue: invented. Purple: taken for another class. Agreement: class colour, dimmed.
    Pixels marked 255 (ignore) in `asked` stay black.

    Raises:
        SizeMismatchError: The two label maps differ in height or width.
    """
    if asked.shape != predicted.shape:
        raise SizeMismatchError(f"asked label map is {asked.shape}, predicted is {predicted.shape}; fit them to one size first")
    picture = np.asarray(colorize(asked, classes) * AGREED_BRIGHTNESS, dtype=np.uint8)
    wrong = (asked != predicted) & (asked != IGNORE)
    picture[wrong & (predicted == BACKGROUND)] = MISSED_COLOR
    picture[wrong & (asked == BACKGROUND)] = INVENTED_COLOR
    picture[wrong & (asked != BACKGROUND) & (predicted != BACKGROUND)] = MISTAKEN_COLOR
    picture[asked == IGNORE] = 0
    return picture


def fit_to(label_map: LabelMap, *, size: tuple[int, int]) -> LabelMap:
    """Return the label map at (height, width) by nearest neighbour, so that no new value appears."""
    if label_map.shape == size:
        return label_map
    return np.asarray(cv2.resize(label_map, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8)


def fit_image_to(image: Image, *, side: int) -> Image:
    """(side, side, 3) uint8 by area averaging, the aspect not kept, as `fit_to` does with label maps; unchanged where it fits."""
    if image.shape[:2] == (side, side):
        return image
    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def changed_region(before: LabelMap | None, after: LabelMap, *, class_index: int | None) -> NDArray[np.bool_]:
    """Where a class was or is; None = where anything changed. Without `before` nothing is known to have changed.

    Raises:
        SizeMismatchError: The two label maps differ in height or width.
    """
    if before is not None and before.shape != after.shape:
        raise SizeMismatchError(f"the label maps are {before.shape} and {after.shape}; fit them to one size first")
    was = after if before is None else before
    changed = was != after if class_index is None else (was == class_index) | (after == class_index)
    return np.asarray(changed, dtype=bool)


def feathered(region: NDArray[np.bool_], *, width_px: int) -> NDArray[np.float32]:
    """1 in the region, falling evenly to 0 over `width_px` around it, and 0 beyond: a seam without an edge."""
    if not region.any():
        return np.zeros(region.shape, np.float32)
    distance = cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(np.clip(1 - distance / (width_px + 1), 0, 1), dtype=np.float32)
