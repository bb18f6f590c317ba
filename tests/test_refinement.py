"""Erosion of labels: what it takes, what it leaves, and when it is chosen."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from saadi.datasets.phantom import render
from saadi.records import IGNORE, LabelMap
from saadi.refinement import choose, eroded

ORGAN, SHAFT = 1, 2


def disc(radius: int, *, center: tuple[int, int] = (32, 32), index: int = ORGAN) -> LabelMap:
    label_map = np.zeros((64, 64), np.uint8)
    cv2.circle(label_map, center, radius, index, -1)
    return label_map


def num_parts(mask: np.ndarray) -> int:
    return int(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1)


def test_the_outermost_pixels_become_background():
    box = np.zeros((20, 20), np.uint8)
    box[2:18, 2:18] = ORGAN
    small = eroded(box, {ORGAN: 2})
    assert (small[4:16, 4:16] == ORGAN).all() and (small > 0).sum() == 144
    assert (eroded(box, {ORGAN: 3}) > 0).sum() == 144  # three would leave less than half
    np.testing.assert_array_equal(eroded(box, {}), box)
    np.testing.assert_array_equal(eroded(box, {ORGAN: 0, SHAFT: 3}), box)


def test_borders_between_classes_and_the_edge_of_the_image_stay():
    both = np.zeros((20, 20), np.uint8)
    both[:, :10], both[:, 10:16] = ORGAN, SHAFT
    small = eroded(both, {ORGAN: 2, SHAFT: 2})
    assert (small[:, :10] == ORGAN).all()  # to the left, above and below the image ends; to the right lies the shaft
    assert (small[:, 10:14] == SHAFT).all() and (small[:, 14:] == 0).all()


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_thin_parts_stay_whole_and_none_is_lost_or_split(radius: int):
    label_map = disc(14)
    label_map[2:5, 2:60] = SHAFT  # three pixels wide
    label_map[55:57, 5:7] = ORGAN  # a speck
    cv2.circle(label_map, (10, 40), 6, ORGAN, -1)
    cv2.line(label_map, (10, 40), (32, 32), ORGAN, 2)  # a thin bridge between two discs
    small = eroded(label_map, {ORGAN: radius, SHAFT: radius})
    for index in (ORGAN, SHAFT):
        assert num_parts(small == index) == num_parts(label_map == index)
    assert (small == SHAFT).sum() >= (label_map == SHAFT).sum() / 2 and (small[55:57, 5:7] == ORGAN).all()


def test_areas_never_grow_with_the_radius_and_nothing_is_added():
    for seed in range(4):
        label_map = render(seed, patient=seed, size_px=128).label_map
        before = label_map
        for radius in (1, 2, 3, 5):
            after = eroded(label_map, dict.fromkeys(range(1, 7), radius))
            assert ((after == label_map) | (after == 0)).all()
            for index in range(1, 7):
                assert (after == index).sum() <= (before == index).sum()
                assert num_parts(after == index) == num_parts(label_map == index)
            before = after


def test_unknown_pixels_are_no_background_and_stay():
    label_map = np.full((20, 20), IGNORE, np.uint8)
    label_map[5:15, 5:15] = ORGAN
    np.testing.assert_array_equal(eroded(label_map, {ORGAN: 3}), label_map)


def soft(asked: list[LabelMap], pixels: int) -> list[LabelMap]:
    """What a segmenter sees that misses a rim."""
    return [eroded(label_map, {ORGAN: pixels}) for label_map in asked]


ASKED = [disc(10 + number % 5, center=(28 + number % 7, 30)) for number in range(16)]
REAL = [disc(9 + number % 6, center=(30, 27 + number % 8)) for number in range(16)]


@pytest.mark.parametrize("rim", [0, 1, 2, 3])
def test_the_rim_that_is_missing_in_synthetic_images_alone_is_taken(rim: int):
    found = choose(soft(ASKED, rim), ASKED, REAL, REAL, num_classes=2)
    assert found[ORGAN].radius == rim and found[ORGAN].num_images == 16


def test_a_segmenter_that_draws_too_small_everywhere_asks_for_nothing():
    found = choose(soft(ASKED, 2), ASKED, soft(REAL, 2), REAL, num_classes=2)
    assert found[ORGAN].radius == 0 and found[ORGAN].real_gains[2] > 0 and found[ORGAN].gains[2][0] > 0


def test_noise_is_no_reason():
    draw = np.random.default_rng(0)
    seen = [np.where(draw.random((64, 64)) < 0.1, 1 - label_map, label_map).astype(np.uint8) for label_map in ASKED]
    assert choose(seen, ASKED, REAL, REAL, num_classes=2)[ORGAN].radius == 0


def test_a_class_that_too_few_images_ask_for_stays():
    found = choose(soft(ASKED, 2)[:7], ASKED[:7], REAL, REAL, num_classes=3)
    assert found[ORGAN].radius == 0 and found[ORGAN].num_images == 7 and found[SHAFT].num_images == 0
