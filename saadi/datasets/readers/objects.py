"""Masks that are drawn from objects: outlines or run-length codes, each with its class.

pycocotools draws them, the reader that COCO's own evaluation uses. Its C code trusts what it is given, and an outline of n points
takes it memory by the length of its edges, so numbers, lengths and runs are looked at before it sees any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as codec

from saadi.datasets.readers.base import NO_OBJECT
from saadi.decoding import DecodedMask
from saadi.errors import BadInputError, SizeMismatchError

MAX_OBJECTS = 5_000
"""In one image; what annotators or cell counters reach."""
MAX_TURNS = 100
"""Length of an outline in half perimeters of its image: the most winding hand-drawn one has ten."""
TOLERANCE_PX = 1.5
"""By which a corner may lie outside its image, as tools round."""


@dataclass(frozen=True)
class Object:
    """A part of an image."""

    value: int
    """Mask value, 1 to 255."""
    outline: Any
    """Flat lists of x, y in pixels; or a run-length code as COCO writes it, {'size': [height, width], 'counts': ...}."""


@dataclass(frozen=True)
class Objects:
    """All objects of an image. Larger ones are painted first, so that what lies in the hole of another shows."""

    objects: Sequence[Object]
    size: tuple[int, int] | None = None
    """(width, height) for which they were drawn, where that is told."""

    def mask(self, size: tuple[int, int]) -> DecodedMask:
        height, width = size
        if self.size is not None and self.size != (width, height):
            raise SizeMismatchError(f"its objects were drawn for {self.size[0]} x {self.size[1]} pixels, the image has {width} x "
                                    f"{height}; export the annotations of these images")  # fmt: skip
        if len(self.objects) > MAX_OBJECTS:
            raise BadInputError(f"it has {len(self.objects)} objects, {MAX_OBJECTS} are allowed in an image; divide the image")
        # Drawn twice, one at a time: a crowd of whole masks would fill the memory.
        areas = [int(_pixels(one, size).sum()) for one in self.objects]
        painted, covered = np.full(size, NO_OBJECT, np.uint8), np.zeros(size, bool)
        is_overlapping = False
        for place in sorted(range(len(areas)), key=lambda index: -areas[index]):
            part = _pixels(self.objects[place], size)
            is_overlapping = is_overlapping or bool((part & covered).any())
            covered |= part
            painted[part] = self.objects[place].value
        return DecodedMask(painted, None, ("objects overlap; the smaller one is on top",) if is_overlapping else ())


def _pixels(found: Object, size: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(H, W) bool."""
    height, width = size
    code = found.outline
    try:
        if isinstance(code, dict):
            return _of_code(code, height, width)
        drawn = np.zeros(size, bool)
        for ring in code:
            drawn |= np.asarray(codec.decode(codec.frPyObjects([_ring(ring, width, height)], height, width)), dtype=bool)[..., 0]
        return drawn
    except BadInputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise BadInputError("an object of this image has an outline that cannot be read (three points or more, or a run-length "
                            "code that fits the image); correct the annotations") from error  # fmt: skip


def _of_code(code: dict[str, Any], height: int, width: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    if list(map(int, code["size"])) != [height, width]:
        raise SizeMismatchError(f"an object was drawn for {code['size'][1]} x {code['size'][0]} pixels, its image has "
                                f"{width} x {height}; export the annotations of these images")  # fmt: skip
    if isinstance(code["counts"], list):
        if sum(map(int, code["counts"])) != height * width or min(code["counts"], default=0) < 0:
            raise ValueError("the runs do not fill the image")
        return np.asarray(codec.decode(codec.frPyObjects(code, height, width)), dtype=bool)
    _check_code(code["counts"], height * width)
    return np.asarray(codec.decode({"size": [height, width], "counts": code["counts"].encode("ascii")}), dtype=bool)


def _ring(ring: Any, width: int, height: int) -> list[float]:
    """An outline that may be drawn.

    Raises:
        ValueError: No three points.
        BadInputError: It lies outside the image, or winds without end.
    """
    points = np.array([float(value) for value in ring])
    if len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
        raise ValueError("no three points")
    points = points.reshape(-1, 2)
    if (points < -TOLERANCE_PX).any() or (points > np.array([width, height]) + TOLERANCE_PX).any():
        raise BadInputError(f"an outline of this image leaves it ({width} x {height} pixels); export the annotations of these "
                            "images")  # fmt: skip
    points = np.clip(points, 0, (width, height))
    if np.abs(np.diff(points, axis=0, append=points[:1])).max(1).sum() > MAX_TURNS * (width + height):
        raise BadInputError("an outline of this image winds around without end; correct the annotations")
    return [float(value) for value in points.ravel()]


def _check_code(counts: str, num_pixels: int) -> None:
    """The C code behind pycocotools trusts the runs of a compressed code; this one adds them up first.

    Raises:
        ValueError: The runs are negative, cut off, or do not fill the image.
    """
    runs: list[int] = []
    value = shift = 0
    for char in counts.encode("ascii"):
        bits = char - 48
        if not 0 <= bits < 64 or shift > 40:
            raise ValueError("not a run-length code")
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value |= -1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift or sum(runs) != num_pixels or any(run < 0 for run in runs):
        raise ValueError("the runs do not fill the image")
