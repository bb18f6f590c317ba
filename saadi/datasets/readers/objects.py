"""Masks that are drawn from objects: outlines or run-length codes, each with its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as codec

from saadi.datasets.readers.base import NO_OBJECT
from saadi.decoding import DecodedMask
from saadi.errors import BadInputError, SizeMismatchError


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

    def mask(self, size: tuple[int, int]) -> DecodedMask:
        parts = [(one.value, _pixels(one, size)) for one in self.objects]
        painted = np.full(size, NO_OBJECT, np.uint8)
        for value, part in sorted(parts, key=lambda found: -int(found[1].sum())):
            painted[part] = value
        overlapping = int((np.add.reduce([part.astype(np.int32) for _, part in parts]) > 1).sum()) if len(parts) > 1 else 0
        notes = ("objects overlap; the smaller one is on top",) if overlapping else ()
        return DecodedMask(painted, None, notes)


def _pixels(found: Object, size: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(H, W) bool, by the rules of pycocotools, the reader that COCO's own evaluation uses."""
    height, width = size
    code = found.outline
    try:
        if isinstance(code, dict):
            if list(map(int, code["size"])) != [height, width]:
                raise SizeMismatchError(f"an object was drawn for {code['size'][1]} x {code['size'][0]} pixels, its image has "
                                        f"{width} x {height}; export the annotations of these images")  # fmt: skip
            if isinstance(code["counts"], list):
                if sum(map(int, code["counts"])) != height * width or min(code["counts"], default=0) < 0:
                    raise ValueError
                return np.asarray(codec.decode(codec.frPyObjects(code, height, width)), dtype=bool)
            _check_code(code["counts"], height * width)
            return np.asarray(codec.decode({"size": [height, width], "counts": code["counts"].encode("ascii")}), dtype=bool)
        rings = [[float(value) for value in ring] for ring in code]
        if any(len(ring) < 6 or len(ring) % 2 or not np.isfinite(ring).all() for ring in rings):
            raise ValueError
        rings = [np.clip(np.reshape(ring, (-1, 2)), 0, (width, height)).ravel().tolist() for ring in rings]
        drawn = np.zeros(size, bool)
        for ring in rings:
            drawn |= np.asarray(codec.decode(codec.frPyObjects([ring], height, width)), dtype=bool)[..., 0]
        return drawn
    except SizeMismatchError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise BadInputError("an object of this image has an outline that cannot be read (three points or more, or a run-length "
                            "code that fits the image); correct the annotations") from error  # fmt: skip


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
