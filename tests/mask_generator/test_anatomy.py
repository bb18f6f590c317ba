"""What real label maps have in common, and what a drawn one does otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from saadi.datasets.phantom import render_set
from saadi.mask_generator.anatomy import Anatomy, is_copy, overlap, part_shares, touching
from saadi.records import IGNORE, LabelMap


def drawn(*boxes: tuple[int, int, int, int, int]) -> LabelMap:
    """(class, top, bottom, left, right) one after the other on 128 x 128."""
    label_map = np.zeros((128, 128), np.uint8)
    for index, top, bottom, left, right in boxes:
        label_map[top:bottom, left:right] = index
    return label_map


LIVER, GALLBLADDER, TIP = 1, 2, 3
REAL = [drawn((LIVER, 0, 40 + shift, 0, 128), (GALLBLADDER, 40 + shift, 60 + shift, 40, 70), (TIP, 100, 110, 20, 30 + shift))
        for shift in range(0, 30, 3)]  # fmt: skip


@pytest.fixture
def anatomy() -> Anatomy:
    return Anatomy.of(REAL, num_classes=5)


def test_real_ones_set_ranges_parts_and_neighbours(anatomy: Anatomy):
    low, high = anatomy.areas[LIVER]
    assert low == pytest.approx(40 / 128 / 1.1, rel=0.01) and high == pytest.approx(67 / 128 * 1.1, rel=0.01)
    assert anatomy.parts == {LIVER: 1, GALLBLADDER: 1, TIP: 1}
    assert anatomy.neighbours == {(LIVER, GALLBLADDER)} and anatomy.apart == frozenset()
    assert anatomy.smallest_part[TIP] == pytest.approx(100 / 128**2)
    assert not [fault for label_map in REAL[1:-1] for fault in anatomy.faults(label_map)]


@pytest.mark.parametrize(
    ("label_map", "fault"),
    [
        (drawn((LIVER, 0, 50, 0, 128), (4, 80, 100, 0, 50)), "class 4 occurs in no real mask"),
        (drawn((LIVER, 0, 10, 0, 128)), "class 1 is too small"),
        (drawn((LIVER, 0, 120, 0, 128)), "class 1 is too large"),
        (drawn((LIVER, 0, 25, 0, 128), (LIVER, 60, 85, 0, 128)), "class 1 is in too many parts"),
        (drawn((LIVER, 0, 50, 0, 128), (TIP, 50, 60, 20, 40)), "class 1 touches class 3"),
        (drawn(), "nothing is in it"),
        (np.full((64, 64), IGNORE, np.uint8), "nothing is in it"),
    ],
)
def test_what_no_real_one_shows_is_named(anatomy: Anatomy, label_map: LabelMap, fault: str):
    assert fault in anatomy.faults(label_map)


def test_classes_that_chance_would_have_together_are_kept_apart():
    apart = [drawn((1, 0, 40, 0, 128)), drawn((2, 60, 100, 0, 128))] * 6  # expected together: 12 / 2 / 2 = 3
    anatomy = Anatomy.of(apart, num_classes=3)
    assert anatomy.apart == {(1, 2)}
    assert "class 1 is beside class 2 in one image" in anatomy.faults(drawn((1, 0, 40, 0, 128), (2, 60, 100, 0, 128)))
    assert Anatomy.of(apart[:4], num_classes=3).apart == frozenset()  # too few to tell


def test_slips_go_to_what_lies_around_them(anatomy: Anatomy):
    label_map = drawn((LIVER, 0, 50, 0, 128), (TIP, 20, 24, 60, 64), (TIP, 100, 110, 20, 30), (4, 80, 84, 80, 84))
    tidy = anatomy.tidied(label_map)
    assert (tidy[20:24, 60:64] == LIVER).all() and (tidy[100:110, 20:30] == TIP).all() and (tidy[80:84, 80:84] == 0).all()


def test_the_same_again_is_a_copy_at_any_size():
    label_map = REAL[3]
    assert is_copy(label_map.repeat(2, 0).repeat(2, 1), REAL) and not is_copy(np.roll(label_map, 6, 1)[:, ::-1], REAL)


def test_overlap_by_hand():
    first, second = drawn((1, 0, 10, 0, 10), (2, 50, 60, 0, 10)), drawn((1, 0, 10, 5, 15))
    assert overlap(first, second) == pytest.approx((50 / 150 + 0) / 2)
    assert overlap(first, first) == 1 and overlap(drawn(), drawn()) == 1


def test_specks_are_no_parts_and_near_is_touching():
    assert part_shares(drawn((1, 0, 20, 0, 20), (1, 60, 61, 60, 61)), 1) == [400 / 128**2]
    assert touching(drawn((1, 0, 20, 0, 20), (2, 21, 40, 0, 20))) == {(1, 2)}
    assert touching(drawn((1, 0, 20, 0, 20), (2, 30, 40, 0, 20))) == set()


def test_an_anatomy_survives_being_stored():
    anatomy = Anatomy.of([scene.label_map for scene in render_set(8, seed=1, num_patients=4)], num_classes=7)
    assert Anatomy.from_json(anatomy.as_json()) == anatomy
