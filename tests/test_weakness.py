"""Where a model fails, told by class, size, contrast and place; and masks drawn by it."""

from __future__ import annotations

import numpy as np
import pytest

from saadi.mining.weakness import CENTRE, FLOOR, GAMMA, MIN_PART_PX, PRIOR_PARTS, Part, Weakness, parts_of, whole_part
from saadi.records import IGNORE, Image, LabelMap

POLYP, TIP = 1, 2


def drawn(*boxes: tuple[int, int, int, int]) -> LabelMap:
    """(class, top, left, side) squares on 128 x 128."""
    label_map = np.zeros((128, 128), np.uint8)
    for index, top, left, side in boxes:
        label_map[top : top + side, left : left + side] = index
    return label_map


def picture(label_map: LabelMap, brightness: dict[int, int]) -> Image:
    image = np.full((*label_map.shape, 3), 100, np.uint8)
    for index, value in brightness.items():
        image[label_map == index] = value
    return image


def part(recall: float, *, area: float = 0.1, contrast: float = 10.0, place: int = 4, group: str = "a") -> Part:
    return Part(POLYP, area, contrast, place, recall, group)


def test_parts_know_their_size_place_contrast_and_recall():
    label_map = drawn((POLYP, 0, 0, 32), (POLYP, 100, 100, 16), (TIP, 60, 60, 10), (TIP, 2, 120, 3))
    seen = drawn((POLYP, 0, 0, 16), (TIP, 60, 60, 10))
    found = parts_of(label_map, image=picture(label_map, {POLYP: 100, TIP: 255}), seen=seen, group="p1")
    assert [(one.class_index, one.place) for one in found] == [(POLYP, 0), (POLYP, 8), (TIP, 4)]  # nine pixels are no part
    assert found[0].area == pytest.approx(32**2 / 128**2) and found[0].recall == pytest.approx(0.25) and found[1].recall == 0
    assert found[0].contrast == 0 and found[2].contrast > 50 and {one.group for one in found} == {"p1"}


def test_what_is_not_known_is_not_a_number_and_unknown_pixels_are_no_class():
    label_map = np.full((64, 64), IGNORE, np.uint8)
    assert parts_of(label_map) == []
    whole = np.ones((64, 64), np.uint8)
    [only] = parts_of(whole, image=picture(whole, {}))
    assert np.isnan(only.recall) and np.isnan(only.contrast)  # nothing lies around it
    assert MIN_PART_PX > 9


def test_recall_along_each_axis_by_hand():
    parts = [part(0.0, area=0.01, contrast=1.0, place=0, group="a"), part(0.9, area=0.1, contrast=10.0, place=4, group="a"),
             part(0.9, area=0.3, contrast=30.0, place=4, group="b")]  # fmt: skip
    found = Weakness.of(parts).classes[POLYP]
    assert found.recall == pytest.approx(0.6) and (found.num_parts, found.num_patients) == (3, 2)
    small = (0.0 + PRIOR_PARTS * 0.6) / (1 + PRIOR_PARTS)
    assert found.axes["size"][0].recall == pytest.approx(small)
    assert [cell.num_parts for cell in found.axes["contrast"]] == [1, 1, 1]
    assert [cell.num_parts for cell in found.axes["place"]] == [1, 0, 0, 0, 2, 0, 0, 0, 0]
    assert found.axes["place"][4].num_patients == 2 and found.axes["place"][8].recall == pytest.approx(0.6)  # nothing known


def test_one_missed_part_is_drawn_towards_its_class():
    parts = [part(0.9, area=0.2, place=4) for _ in range(30)] + [part(0.0, area=0.01, place=0)]
    weakness = Weakness.of(parts)
    lonely = weakness.recall_of(part(0.5, area=0.01, place=0))
    assert lonely is not None and 0.6 < lonely < 0.75


def test_masks_of_the_weak_cell_are_drawn_more_often_and_none_never():
    weak = [part(0.1, area=0.01, place=0) for _ in range(40)] + [part(0.95, area=0.2, place=4) for _ in range(80)]
    weakness = Weakness.of(weak)
    hard, easy, empty = drawn((POLYP, 5, 5, 12)), drawn((POLYP, 40, 40, 57)), drawn()
    odds = weakness.odds([parts_of(one) for one in (hard, easy, easy, empty)])
    assert odds.sum() == pytest.approx(1) and odds[0] > 5 * odds[1] and odds[3] == pytest.approx(FLOOR / 4)
    both = [parts_of(hard), parts_of(easy)]
    assert (weakness.odds(both, gamma=0) == 0.5).all()
    steeper = weakness.odds(both, gamma=2)[0]
    assert steeper > weakness.odds(both, gamma=1)[0]


def test_one_missed_part_among_many_that_are_found_is_drawn_as_often_as_if_it_stood_alone():
    organs = [Part(index, 0.2, 20.0, 4, 0.95, "p") for index in range(2, 8)]
    bleeding = Part(1, 0.01, 20.0, 0, 0.0, "p")
    weakness = Weakness.of([*organs * 20, *[bleeding] * 20])
    odds = weakness.odds([[*organs, bleeding], *[organs] * 19])
    missed, found = 1.0, (1 - 0.95) ** GAMMA
    assert odds[0] == pytest.approx(0.95 * (missed + 6 * found / 20) / (missed + 6 * found) + FLOOR / 20) and odds[0] > 0.85
    assert weakness.odds([[bleeding, bleeding], [bleeding]]).tolist() == [0.5, 0.5]  # twice the same is no more of it


def test_a_class_counts_once_however_many_cells_it_is_scattered_over():
    bleeding = [Part(1, 0.01, 20.0, 0, 0.0, "p")] * 27
    shafts = [Part(2, 0.01 * (1 + number % 3), 20.0, number // 3, 0.5, "p") for number in range(27)]
    odds = Weakness.of([*bleeding, *shafts]).odds([[one] for one in (*bleeding, *shafts)], floor=0)
    assert odds[:27].sum() == pytest.approx(1 / (1 + 0.5**GAMMA))


def test_a_sliver_in_a_corner_makes_no_label_map_likelier_than_it_is_hard():
    liver = Part(1, 0.3, 20.0, 4, 0.5, "p")
    weakness = Weakness.of([liver] * 99 + [Part(1, 0.001, 20.0, 8, 0.5, "p")])
    odds = weakness.odds([[liver]] * 99 + [[liver, Part(1, 0.001, 20.0, 8, np.nan, "p")]])
    assert odds.max() < 0.011


def test_what_no_unseen_image_shows_is_as_hard_as_the_average():
    weakness = Weakness.of([Part(1, 0.1, 20.0, 4, 0.0, "p"), Part(2, 0.1, 20.0, 4, 1.0, "p")])
    odds = weakness.odds([[Part(index, 0.1, 20.0, 4, np.nan, "p")] for index in (1, 2, 3)], gamma=1, floor=0)
    np.testing.assert_allclose(odds, [2 / 3, 0, 1 / 3])


def test_nothing_known_is_nothing_preferred():
    weakness = Weakness.of([])
    assert weakness.classes == {} and weakness.recall_of(part(0.5)) is None
    assert weakness.odds([parts_of(drawn((POLYP, 5, 5, 12))), parts_of(drawn())]).tolist() == [0.5, 0.5]
    assert weakness.odds([]).shape == (0,)


def test_a_planted_weakness_is_found():
    draw = np.random.default_rng(0)
    parts: list[Part] = []
    for number in range(60):
        top, left, side = (int(value) for value in draw.integers([4, 4, 10], [70, 70, 40]))
        label_map = drawn((POLYP, top, left, side))
        is_missed = top < 30 and left < 30  # in the upper left corner
        parts += parts_of(label_map, seen=drawn() if is_missed else label_map, group=str(number % 12))
    places = Weakness.of(parts).classes[POLYP].axes["place"]
    assert min(range(9), key=lambda place: places[place].recall) == 0 and places[0].recall < 0.5 < 0.8 < places[8].recall


def test_in_classification_an_image_is_one_part_of_its_class_the_first_one_too():
    parts = [whole_part(0, seen=0, group="a"), whole_part(0, seen=2, group="b"), whole_part(2, seen=2, group="b")]
    weakness = Weakness.of(parts)
    assert {index: found.recall for index, found in weakness.classes.items()} == {0: 0.5, 2: 1.0}
    odds = weakness.odds([[whole_part(0)], [whole_part(2)]])
    assert odds[0] > odds[1] >= FLOOR / 2 and whole_part(0).place == CENTRE
