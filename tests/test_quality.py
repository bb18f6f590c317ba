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
