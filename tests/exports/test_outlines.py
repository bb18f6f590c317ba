"""Outlines along pixel corners: a part without holes comes back pixel for pixel, for us and for pycocotools."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as codec
from scipy import ndimage

from saadi.exports.outlines import filled, rings, shapes

MASKS = arrays.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1))


@given(MASKS)
def test_parts_come_back_with_their_holes_filled(mask: np.ndarray) -> None:
    size = (mask.shape[0], mask.shape[1])
    labelled, count = ndimage.label(mask)
    outlines = rings(mask)
    assert len(outlines) == count
    whole = [ndimage.binary_fill_holes(labelled == number, structure=np.ones((3, 3))) for number in range(1, count + 1)]
    found = [filled([ring], size=size) for ring in outlines]
    assert {one.tobytes() for one in found} == {one.astype(np.uint8).tobytes() for one in whole}
    for ring, area in zip(outlines, found, strict=True):
        flat = [float(value) for corner in ring for value in corner]
        assert len(flat) >= 8 and (codec.decode(codec.frPyObjects([flat], *size))[..., 0] == area).all()


def test_by_hand() -> None:
    mask = np.zeros((5, 6), np.uint8)
    mask[1:4, 1:5] = 1
    mask[2, 2] = 0  # a hole
    assert rings(mask) == [[(1, 1), (5, 1), (5, 4), (1, 4)]]
    assert int(filled(rings(mask), size=(5, 6)).sum()) == 12
    corner = np.array([[1, 0], [0, 1]], np.uint8)
    assert rings(corner) == [[(0, 0), (1, 0), (1, 1), (0, 1)], [(1, 1), (2, 1), (2, 2), (1, 2)]]
    assert rings(np.zeros((3, 3), np.uint8)) == []


def test_objects_are_parts_or_classes_and_neither_background_nor_what_does_not_count() -> None:
    label_map = np.array([[1, 0, 1, 255], [0, 1, 0, 255], [2, 2, 0, 1]], np.uint8)
    parts = list(shapes(label_map, instances="component"))
    assert [(index, int(mask.sum())) for index, mask in parts] == [(1, 3), (1, 1), (2, 2)]  # corners join
    classes = list(shapes(label_map, instances="class"))
    assert [(index, int(mask.sum())) for index, mask in classes] == [(1, 4), (2, 2)]
    assert [index for index, _ in shapes(label_map, instances="class", background=None)] == [0, 1, 2]
