"""Label maps as pictures and numbers."""

from __future__ import annotations

import numpy as np
import pytest

from saadi import masks
from saadi.errors import SizeMismatchError, UnknownClassError
from saadi.records import LabelClass

CLASSES = (LabelClass(0, "tissue", "#112233"), LabelClass(1, "liver", "#d55e00"), LabelClass(2, "tip", "#0072b2"))


def drawing() -> np.ndarray:
    label_map = np.zeros((8, 8), np.uint8)
    label_map[2:6, 2:6] = 1
    label_map[7, 7] = 2
    return label_map


def test_a_valid_label_map_comes_back_unchanged():
    label_map = drawing()
    label_map[0, 0] = 255
    assert masks.validate(label_map, num_classes=3, size=(8, 8)) is label_map


def test_another_size_is_refused_with_both_sizes():
    with pytest.raises(SizeMismatchError, match=r"8 x 8.*8 x 9"):
        masks.validate(drawing(), num_classes=3, size=(8, 9))


def test_unknown_values_are_refused_with_their_counts():
    label_map = drawing()
    label_map[0, :3] = 9
    with pytest.raises(UnknownClassError, match=r"2 \(1 pixels\), 9 \(3 pixels\)"):
        masks.validate(label_map, num_classes=2, size=(8, 8))


def test_colours_are_those_of_the_classes_and_background_is_black():
    picture = masks.colorize(drawing(), CLASSES)
    assert picture[3, 3].tolist() == [0xD5, 0x5E, 0x00]
    assert picture[0, 0].tolist() == [0, 0, 0]


def test_an_overlay_spares_the_background():
    image = np.full((8, 8, 3), 100, np.uint8)
    mixed = masks.overlay(image, drawing(), CLASSES, opacity=0.5)
    assert (mixed[drawing() == 0] == 100).all()
    assert mixed[3, 3].tolist() == [156, 97, 50]  # halfway between 100 and d55e00


def test_opacity_zero_is_the_image_and_one_the_class_colour():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    assert (masks.overlay(image, drawing(), CLASSES, opacity=0.0) == image).all()
    opaque = masks.overlay(image, drawing(), CLASSES, opacity=1.0)
    assert opaque[3, 3].tolist() == [0xD5, 0x5E, 0x00]


def test_an_outline_follows_the_border_only():
    border = masks.outline(drawing(), CLASSES, width_px=2)[..., 3] > 0
    assert border[2, 2] and border[5, 5]
    assert not border[3:5, 3:5].any() and not border[0, 0]


def test_overlay_of_another_size_is_refused():
    with pytest.raises(SizeMismatchError, match="fit the label map first"):
        masks.overlay(np.zeros((4, 4, 3), np.uint8), drawing(), CLASSES)


def test_disagreement_tells_missed_invented_and_mistaken_apart():
    asked = np.array([[1, 0, 1, 1, 255]], np.uint8)
    predicted = np.array([[0, 1, 2, 1, 1]], np.uint8)
    picture = masks.disagreement(asked, predicted, CLASSES)[0]
    expected = [masks.MISSED_COLOR, masks.INVENTED_COLOR, masks.MISTAKEN_COLOR]
    assert [tuple(pixel) for pixel in picture[:3].tolist()] == expected
    assert picture[3].tolist() == [74, 32, 0] and picture[4].tolist() == [0, 0, 0]


def test_full_agreement_shows_no_alarm_colour():
    picture = masks.disagreement(drawing(), drawing(), CLASSES)
    assert (picture == (masks.colorize(drawing(), CLASSES) * masks.AGREED_BRIGHTNESS).astype(np.uint8)).all()


def test_statistics_count_every_class_also_absent_ones():
    found = masks.class_statistics(np.where(drawing() == 2, 0, drawing()).astype(np.uint8), CLASSES)
    assert [(item.name, item.num_pixels) for item in found] == [("tissue", 48), ("liver", 16), ("tip", 0)]
    assert sum(item.share for item in found) == 1


def test_fitting_invents_no_value():
    label_map = drawing()
    label_map[4, 4] = 255
    assert set(np.unique(masks.fit_to(label_map, size=(31, 17)))) <= {0, 1, 2, 255}
    assert masks.fit_to(label_map, size=(8, 8)) is label_map


def test_patterns_tell_apart_classes_of_the_same_colour():
    classes = [LabelClass(0, "background", "#000000")] + [LabelClass(index, f"c{index}", "#808080") for index in range(1, 8)]
    seen = []
    for index in range(1, 8):
        label_map = np.full((72, 72), index, np.uint8)
        seen.append(masks.colorize(label_map, classes, hatched=True).tobytes())
        assert len(np.unique(masks.colorize(label_map, classes, hatched=True))) == 2
    assert len(set(seen)) == 6 and seen[0] == seen[6]  # they repeat after six
    empty = np.array([[0, 255]], np.uint8)
    assert not masks.hatch(empty).any()


def test_a_changed_region_is_where_the_class_was_and_is():
    before, after = np.zeros((4, 8), np.uint8), np.zeros((4, 8), np.uint8)
    before[:, :2], after[:, 3:5], after[0, 7] = 1, 1, 2
    assert masks.changed_region(before, after, class_index=1)[1].tolist() == [True, True, False, True, True, False, False, False]
    assert masks.changed_region(before, after, class_index=None).sum() == 17
    assert masks.changed_region(None, after, class_index=2).sum() == 1
    assert not masks.changed_region(None, after, class_index=None).any()
    with pytest.raises(SizeMismatchError, match="fit them to one size first"):
        masks.changed_region(before[:2], after, class_index=1)


def test_a_feathered_region_is_full_inside_and_ends():
    region = np.zeros((1, 9), bool)
    region[0, 4] = True
    assert masks.feathered(region, width_px=3)[0].tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0])
    assert masks.feathered(region, width_px=0)[0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert not masks.feathered(np.zeros((3, 3), bool), width_px=2).any()
