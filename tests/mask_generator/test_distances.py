"""Label maps as signed distances and back."""

from __future__ import annotations

import numpy as np
import pytest

from saadi.datasets.phantom import render_set
from saadi.mask_generator import distances
from saadi.records import IGNORE


def test_distances_are_positive_inside_negative_outside_and_bounded():
    label_map = np.zeros((64, 64), np.uint8)
    label_map[16:48, 16:48] = 1
    [picture] = distances.encode(label_map, num_classes=2, grid=64)
    assert ((picture > 0) == (label_map == 1)).all() and np.abs(picture).max() <= 1
    assert picture[32, 32] == 1 and picture[0, 0] == -1  # deeper and farther than the reach
    edge = picture[32, 16]  # half a pixel inside
    assert edge == pytest.approx(np.sqrt(0.5 / (distances.REACH * 64)), abs=1e-3)


def test_a_class_that_fills_the_image_has_no_edge():
    [picture] = distances.encode(np.ones((32, 32), np.uint8), num_classes=2, grid=16)
    assert (picture == 1).all()
    assert (distances.decode(picture[None], side=32) == 1).all()


def test_what_is_not_there_or_unknown_is_outside_everywhere():
    label_map = np.full((32, 32), IGNORE, np.uint8)
    assert (distances.encode(label_map, num_classes=3, grid=16) == -1).all()
    assert (distances.decode(np.full((2, 16, 16), -1, np.float32), side=32) == 0).all()


def test_scenes_come_back_as_they_were_thin_instruments_included():
    for scene in render_set(6, seed=5, num_patients=3):
        back = distances.decode(distances.encode(scene.label_map, num_classes=7, grid=96), side=256)
        for index in np.unique(scene.label_map):
            asked, found = scene.label_map == index, back == index
            assert (asked & found).sum() / (asked | found).sum() > 0.9


def test_a_line_of_four_pixels_survives():
    label_map = np.zeros((256, 256), np.uint8)
    label_map[100:104, 20:240] = 1
    back = distances.decode(distances.encode(label_map, num_classes=2, grid=96), side=256)
    assert back[100:104, 30:230].mean() > 0.9 and back.sum() < 1.3 * label_map.sum()
