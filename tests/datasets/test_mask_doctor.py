"""What values in masks may mean: guesses with a reason, nothing silently background."""

from __future__ import annotations

import pytest

from saadi.datasets.mask_doctor import findings, is_certain, names_of, proposals, soft_edges
from saadi.decoding import COLOUR_BIT
from saadi.records import LabelClass

CLASSES = [LabelClass(index, name, "#000000") for index, name in enumerate(("background", "liver", "grasper"))]
RED, GREEN = COLOUR_BIT | 0xFF0000, COLOUR_BIT | 0x00FF00


def counted(**pixels: int) -> dict[int, tuple[int, int]]:
    return {int(name[1:]): (count, 1) for name, count in pixels.items()}


def test_names_of_the_data_set_go_before_the_order_of_values() -> None:
    values = counted(v0=100, v3=50, v7=20, v255=5)
    names = {0: "Background", 3: "Grasper", 7: "LIVER", 255: "void"}
    assert proposals(values, names, CLASSES) == {0: 0, 3: 2, 7: 1, 255: 255}
    assert is_certain(values, names, CLASSES)
    assert not is_certain(values, names | {3: "hook"}, CLASSES)
    assert not is_certain(values, {}, CLASSES) and not is_certain({}, {}, CLASSES)


def test_masks_in_the_colours_of_the_classes_are_read_by_them() -> None:
    classes = [LabelClass(0, "background", "#000000"), LabelClass(1, "liver", "#00ff00"), LabelClass(2, "grasper", "#ff0000")]
    assert proposals({0: (50, 1), RED: (30, 1), GREEN: (20, 1)}, {}, classes) == {0: 0, RED: 2, GREEN: 1}
    assert proposals({0: (50, 1), 255: (30, 1)}, {}, classes) == {}


def test_values_without_a_reason_are_left_to_a_person() -> None:
    assert proposals(counted(v0=100, v3=50), {}, CLASSES) == {}
    assert proposals(counted(v0=100, v3=50), {0: "sky", 3: "hook"}, CLASSES) == {}


def test_255_beside_small_numbers_does_not_count() -> None:
    assert proposals(counted(v0=100, v1=50, v2=20, v255=5), {}, CLASSES) == {0: 0, 1: 1, 2: 2, 255: 255}
    assert proposals(counted(v0=100, v127=50, v255=20), {}, CLASSES) == {0: 0, 127: 1, 255: 2}


def test_smoothed_edges_of_grey_and_colour_masks_are_seen() -> None:
    grey = counted(v0=5000, v255=3000, v60=20, v128=20, v200=20)
    assert soft_edges(grey, CLASSES[:2]) == [60, 128, 200]
    assert proposals(grey, {}, CLASSES[:2]) == {0: 0, 255: 1, 60: 255, 128: 255, 200: 255}
    assert "smoothed" in findings(grey, CLASSES[:2])[0]
    blend = [COLOUR_BIT | red << 16 | (255 - red) << 8 for red in (60, 120, 200)]
    colours = {RED: (5000, 1), GREEN: (4000, 1)} | {value: (10, 1) for value in blend}
    assert soft_edges(colours, CLASSES[:2]) == sorted(blend)


def test_rare_classes_are_no_smoothed_edges() -> None:
    assert soft_edges(counted(v0=5000, v1=3000, v2=10), CLASSES) == []
    odd = {0: (5000, 1), RED: (4000, 1), COLOUR_BIT | 0x0000FF: (10, 1), GREEN: (10, 1), 200: (9, 1)}
    assert soft_edges(odd, CLASSES) == []
    assert soft_edges(counted(v0=5000, v5=3000, v1=50, v2=50, v3=50, v4=50), CLASSES) == []  # numbers of classes
    greys = counted(v0=5000, v255=3000, v60=20, v128=20, v200=20)
    assert soft_edges(greys, [*CLASSES, *CLASSES]) == []  # as many as classes


def test_the_colour_of_a_rare_class_is_no_smoothed_edge() -> None:
    needle = LabelClass(2, "needle", "#800000")  # half way between black and red
    classes = [LabelClass(0, "background", "#000000"), LabelClass(1, "liver", "#ff0000"), needle]
    dark = [COLOUR_BIT | red << 16 for red in (40, 100, 180, 220)]
    values = {0: (5000, 1), RED: (3000, 1), COLOUR_BIT | 0x800000: (9, 1)} | {value: (10, 1) for value in dark}
    assert soft_edges(values, classes) == sorted(dark)
    assert proposals(values, {}, classes)[COLOUR_BIT | 0x800000] == 2


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (counted(v0=10, v1=10, v2=10, v4=10), "no mask shows value 3"),
        (counted(v0=10, v1=10, v255=10), "255 often means"),
        (counted(v0=10, v10=10, v20=10, v30=10, v40=10), "5 values and the project has 3 classes"),
    ],
)
def test_what_is_odd_is_said(values: dict, words: str) -> None:
    assert any(words in line for line in findings(values, CLASSES))


def test_nothing_odd_about_plain_masks() -> None:
    assert findings(counted(v0=10, v1=10, v2=10), CLASSES) == [] and findings({}, CLASSES) == []


def test_grey_levels_of_cholecseg8k_have_names() -> None:
    values = {value: (10, 1) for value in (80, 17, 33, 49)}
    assert names_of(values, {})[33] == "liver"
    assert proposals(values, names_of(values, {}), CLASSES) == {33: 1, 49: 2}
    assert names_of({0: (1, 1), 80: (1, 1)}, {}) == {}
    assert names_of(values, {17: "skin"}) == {17: "skin"}
