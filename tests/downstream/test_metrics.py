import numpy as np
import pytest

from saadi.downstream.metrics import agreement, f1_per_class, mean_over_asked
from saadi.errors import SizeMismatchError

ASKED = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint8)
FOUND = np.array([[0, 1, 1, 1], [0, 0, 0, 1]], np.uint8)


def test_hand_counted_f1_of_whole_images():
    # Class 0: shown twice, said three times, right once... 2 * 1 / (3 + 2); class 1: 2 * 1 / (1 + 2); class 2 is never shown.
    found = f1_per_class([0, 0, 1, 0, 2], [0, 1, 1, 3, 0])
    assert found == pytest.approx({0: 2 / 5, 1: 2 / 3, 3: 0.0})


def test_hand_counted_agreement():
    # Class 1: asked 4, found 4, both 3.
    found = agreement(FOUND, ASKED, num_classes=3)
    assert (
        found[1].dice == pytest.approx(6 / 8) and found[1].iou == pytest.approx(3 / 5) and found[1].recall == pytest.approx(3 / 4)
    )
    assert 2 not in found


def test_ignored_pixels_count_for_nobody():
    asked = ASKED.copy()
    asked[FOUND != ASKED] = 255
    assert agreement(FOUND, asked, num_classes=3)[1].dice == 1.0


def test_a_class_nobody_asked_for_scores_zero_and_does_not_enter_the_mean():
    found = FOUND.copy()
    found[0, 0] = 2
    classes = agreement(found, ASKED, num_classes=3)
    assert classes[2].dice == 0.0 and mean_over_asked(classes, ASKED) == classes[1].dice


def test_a_missed_class_counts_as_zero():
    classes = agreement(np.zeros_like(ASKED), ASKED, num_classes=3)
    assert mean_over_asked(classes, ASKED) == 0.0


def test_background_only_is_scored_on_the_background():
    empty = np.zeros((2, 2), np.uint8)
    assert mean_over_asked(agreement(empty, empty, num_classes=3), empty) == 1.0


def test_sizes_must_match():
    with pytest.raises(SizeMismatchError, match=r"\(2, 4\)"):
        agreement(FOUND, ASKED[:, :2], num_classes=3)
