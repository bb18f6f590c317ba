import numpy as np
import pytest

from saadi import quality
from tests import tiny


def test_kernel_distance_is_about_zero_for_one_distribution_and_grows_with_a_shift():
    draw = np.random.default_rng(0)
    first, second = draw.normal(size=(200, 8)).astype(np.float32), draw.normal(size=(200, 8)).astype(np.float32)
    assert abs(quality.kernel_distance(first, second)) < 0.15
    assert quality.kernel_distance(first, second + 0.5) < quality.kernel_distance(first, second + 1.0)


def test_kernel_distance_matches_a_hand_computed_case():
    # d = 1. Kernel (xy + 1)^3. First {0, 1}: k(0,1) = 1. Second {1, 1}: k = 8. Across: 1, 1, 8, 8 -> mean 4.5.
    first, second = np.array([[0.0], [1.0]], np.float32), np.array([[1.0], [1.0]], np.float32)
    assert quality.kernel_distance(first, second) == pytest.approx(1 + 8 - 2 * 4.5)


def test_appearance_sees_blur_colour_and_noise():
    images, _ = tiny.scenes(40, side=64)
    base = quality.appearance(images)

    def distance(changed):
        return quality.kernel_distance(quality.standardised(quality.appearance(changed), base), quality.standardised(base, base))

    shifted = [np.clip(image.astype(int) + np.array([40, 0, 0]), 0, 255).astype(np.uint8) for image in images]
    assert distance(shifted) > 1 and distance([image[::4, ::4].repeat(4, 0).repeat(4, 1) for image in images]) > 1
    assert distance(images) < 0.2


def test_vendi_counts_different_things():
    assert quality.vendi_score(np.eye(5, dtype=np.float32)) == pytest.approx(5.0)
    assert quality.vendi_score(np.ones((5, 3), np.float32)) == pytest.approx(1.0, abs=1e-3)


def test_nearest_distance_finds_a_planted_copy():
    draw = np.random.default_rng(1)
    reference = draw.normal(size=(50, 6)).astype(np.float32)
    found = quality.nearest_distance(np.stack([reference[7], reference[7] + 3]), reference)
    assert found[0] == pytest.approx(0, abs=1e-2) and found[1] > 1


def test_paired_interval_holds_the_mean_and_excludes_zero_for_a_clear_gain():
    mean, low, high = quality.paired_interval([0.1, 0.12, 0.08, 0.11, 0.09] * 10)
    assert low > 0 and low <= mean <= high


def test_leave_one_out_distances_are_those_of_the_smaller_sets():
    draw = np.random.default_rng(3)
    first, second = draw.normal(size=(12, 4)).astype(np.float32), draw.normal(size=(15, 4)).astype(np.float32)
    found = quality.leave_one_out_distances(first, second)
    for index in (0, 5, 11):
        assert found[index] == pytest.approx(quality.kernel_distance(np.delete(first, index, 0), second), rel=1e-6)


def test_jackknife_error_of_a_mean_is_the_standard_error():
    values = np.random.default_rng(4).normal(size=50)
    left_out = (values.sum() - values) / 49
    assert quality.jackknife_error(left_out) == pytest.approx(values.std(ddof=1) / np.sqrt(50))


def test_nearest_names_the_row_and_tells_copies_apart_from_near_copies():
    draw = np.random.default_rng(1)
    reference = (draw.normal(size=(50, 6)) + 1000).astype(np.float32)  # far from 0, where a short formula loses digits
    distance, index = quality.nearest(np.stack([reference[7], reference[9] + 0.01]), reference)
    assert index.tolist() == [7, 9]
    assert distance[0] == 0 and distance[1] == pytest.approx(0.01 * 6**0.5, rel=0.02)


def test_nearest_is_the_same_chunk_by_chunk(monkeypatch):
    draw = np.random.default_rng(2)
    features, reference = draw.normal(size=(40, 5)).astype(np.float32), draw.normal(size=(9, 5)).astype(np.float32)
    whole = quality.nearest(features, reference)
    monkeypatch.setattr(quality, "NEAREST_CHUNK", 7)
    assert all((first == second).all() for first, second in zip(whole, quality.nearest(features, reference), strict=True))


def yardstick(held_out: int = 20) -> quality.Yardstick:
    draw = np.random.default_rng(5)
    training, unseen = draw.normal(size=(80, 4)).astype(np.float32), draw.normal(size=(held_out, 4)).astype(np.float32)
    made = quality.Yardstick.of(training, [f"p{index // 8}" for index in range(80)], unseen, floor=0.01)
    assert made is not None
    return made


def test_a_typical_unseen_real_image_has_full_quality_and_twice_as_far_is_half():
    stick = yardstick()
    typical = float(np.median(stick.unseen))
    found = stick.quality(np.array([0, typical, 2 * typical, 10 * typical], np.float32))
    assert found == pytest.approx([1, 1, 0.5, 0.1], rel=1e-5)


def test_share_farther_runs_from_one_at_a_copy_to_zero_far_away():
    stick = yardstick()
    share = stick.share_farther(np.array([0, float(np.median(stick.unseen)), 99], np.float32))
    assert share.tolist() == [1, 0.5, 0]


def test_few_unseen_images_are_replaced_by_training_images_of_other_patients():
    draw = np.random.default_rng(6)
    once = draw.normal(size=(20, 4)).astype(np.float32)
    twice = np.concatenate([once, once])  # each patient has two frames that are the same
    made = quality.Yardstick.of(twice, [f"p{index % 20}" for index in range(40)], once[:3] + 50, floor=0.01)
    assert made is not None and len(made.unseen) == 40 and made.unseen.min() > 0.1
    alone = quality.Yardstick.of(once, ["p"] * 20, once[:0], floor=0.01)
    assert alone is not None and alone.unseen.min() > 0
    assert quality.Yardstick.of(once[:1], ["p"], once, floor=0.01) is None


def test_a_dimension_that_never_varies_does_not_rule_the_distance():
    training = np.zeros((10, 2), np.float32)
    training[:, 0] = np.arange(10)
    made = quality.Yardstick.of(training, list("abcdefghij"), training[:0], floor=1.0)
    assert made is not None
    assert made.nearest(np.array([[3, 0.5]], np.float32))[0][0] < 0.5


def test_look_sees_where_colours_lie():
    image = np.full((32, 32, 3), 60, np.uint8)
    image[:16] = (200, 60, 60)
    upright, turned = quality.look(image), quality.look(image[::-1].copy())
    assert upright.shape == quality.look_floor().shape == (72,)
    assert np.abs(upright[:12] - turned[:12]).max() < 1e-3 and np.abs(upright[24:] - turned[24:]).max() > 20


def test_coverage_falls_when_a_kind_of_image_is_left_out():
    """Two clusters of 20; draws of both cover nearly all, draws of one cover half, far ones nothing."""
    draw = np.random.default_rng(0)
    centres = np.repeat([[0.0] * 4, [50.0] * 4], 20, axis=0)
    real = (centres + draw.normal(0, 1, (40, 4))).astype(np.float32)
    both = (centres + draw.normal(0, 1, (40, 4))).astype(np.float32)
    assert quality.coverage(both, real) > 0.8
    assert 0.4 < quality.coverage(both[:20], real) <= 0.5
    assert quality.coverage(both + 500, real) == 0.0 and quality.coverage(real, real) == 1.0
    assert quality.coverage(both, real[:5]) is None
