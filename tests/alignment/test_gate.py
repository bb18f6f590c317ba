import json
from dataclasses import replace

import pytest

from saadi.alignment.gate import Gate, Reading, compare, metrics_of, moved_away, reading_from_json, reading_to_json
from tests import tiny

OLD = Reading(dice=(0.5,) * 20, selector_dice=(0.5,) * 20, feature_distance=1.0, appearance_distance=1.0, vendi=5.0, nearest=2.0,
    feature_left_out=(1.0,) * 20, appearance_left_out=(1.0,) * 20, coverage=0.5)  # fmt: skip
NEW = replace(OLD, dice=(0.7,) * 20)


def test_a_clear_gain_passes():
    verdict = compare(NEW, OLD, winner_ratio=1.0)
    assert verdict.passed and verdict.win_rate == 1.0 and verdict.dice_gain[1] > 0
    assert metrics_of(NEW, OLD, verdict)["verdict"] == "accept"


@pytest.mark.parametrize(
    ("change", "ratio", "reason"),
    [
        ({"dice": (0.4,) * 20}, 1.0, "prefers the new images in only 0%"),
        ({"feature_distance": 1.5}, 1.0, "away from real ones in features"),
        ({"appearance_distance": 1.5}, 1.0, "colour and texture"),
        ({"vendi": 4.0}, 1.0, "variety fell"),
        ({"coverage": 0.2}, 1.0, "fewer kinds of real images are covered (50% to 20%)"),
        ({"nearest": 1.0}, 1.0, "closer to single training images"),
        ({}, 1.4, "error on held-out winners"),
    ],
)
def test_each_red_number_stops_a_checkpoint(change, ratio, reason):
    verdict = compare(replace(NEW, **change), OLD, winner_ratio=ratio)
    assert not verdict.passed and any(reason in sentence for sentence in verdict.reasons)


def test_in_classification_the_reasons_speak_of_the_class():
    verdict = compare(replace(NEW, dice=(0.4,) * 20), OLD, winner_ratio=1.0, task="classification")
    assert verdict.reasons == ("the judge prefers the new images in only 0% of the test images",
                               "the probability of the asked class fell by 0.100")  # fmt: skip
    assert metrics_of(NEW, OLD, verdict, task="classification")["task"] == "classification"
    assert "task" not in metrics_of(NEW, OLD, verdict)


def test_no_difference_is_not_better():
    assert not compare(OLD, OLD, winner_ratio=1.0).passed


def test_reading_survives_json():
    for reading in (NEW, replace(NEW, class_dice=((None, 0.5), (None, None)))):
        assert reading_from_json(json.loads(json.dumps(reading_to_json(reading)))) == reading


def test_a_checkpoint_of_before_classes_were_told_apart_is_still_read():
    earlier = reading_to_json(NEW)
    del earlier["class_dice"]
    assert reading_from_json(earlier) == NEW


def test_real_images_read_closer_than_noise():
    images, label_maps = tiny.scenes(24, side=32)
    gate = Gate(
        label_maps[:12], tiny.segmenter("unet"), tiny.segmenter("segresnet"), num_classes=3, real=images[12:], training=images[:4]
    )
    real, wrong = gate.read(images[:12]), gate.read([image // 3 for image in images[:12]])
    assert real.appearance_distance < wrong.appearance_distance and len(real.dice) == 12
    # Background is nobody's wish, and a class counts where the mask asks for it; the mask's Dice is the mean of its classes.
    for label_map, row, mean in zip(label_maps, real.class_dice, real.dice, strict=False):
        assert [value is not None for value in row] == [False, (label_map == 1).any(), (label_map == 2).any()]
        assert mean == pytest.approx(sum(value for value in row if value is not None) / sum(value is not None for value in row))


def test_a_noisy_distance_needs_more_than_chance_to_be_red():
    assert moved_away(1.5, 1.0, (1.5,) * 20, (1.0,) * 20)
    noisy = tuple(1.5 + (0.05 if index % 2 else -0.05) for index in range(20))
    assert not moved_away(1.35, 1.0, noisy, (1.0,) * 20)
    assert moved_away(3.0, 1.0, noisy, (1.0,) * 20)


def test_a_twentieth_more_of_a_large_distance_is_no_departure():
    assert not moved_away(6.7, 6.4, (6.7,) * 20, (6.4,) * 20)
    assert moved_away(6.8, 6.4, (6.8,) * 20, (6.4,) * 20)
    assert moved_away(0.13, 0.1, (0.13,) * 20, (0.1,) * 20)  # that of a small one is below what is told apart


def test_a_gain_that_may_be_chance_is_not_recommended():
    even = replace(OLD, dice=(0.6,) * 11 + (0.45,) * 9)
    verdict = compare(even, OLD, winner_ratio=1.0)
    found = metrics_of(even, OLD, verdict)
    assert verdict.passed and found["verdict"] == "keep_old" and "may be chance" in found["reasons"][0]
