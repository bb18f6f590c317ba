import numpy as np
import pytest

from saadi.downstream.calibration import calibrate, calibration_error
from saadi.downstream.training import ScorerConfig, calibrated, train
from saadi.jobs import silent
from tests import tiny


def made_up(*, sharpness: float, count: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pixels whose true probabilities are softmax(x), told by logits `sharpness` * x: above 1 it is overconfident."""
    draw = np.random.default_rng(seed)
    x = draw.normal(0, 1.5, (count, 3))
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    targets = (p.cumsum(1) < draw.random((count, 1))).sum(1)
    return (sharpness * x).astype(np.float32), targets.astype(np.int64)


@pytest.mark.parametrize("sharpness", [3.0, 1.6, 0.5])
def test_the_temperature_undoes_over_and_underconfidence(sharpness: float):
    found = calibrate(*made_up(sharpness=sharpness))
    assert found.temperature == pytest.approx(sharpness, rel=0.05)
    assert found.error_after < 0.02 < found.error_before


def test_it_holds_for_pixels_that_were_not_fitted():
    found = calibrate(*made_up(sharpness=3.0))
    logits, targets = made_up(sharpness=3.0, seed=1)
    assert calibration_error(logits, targets, temperature=found.temperature) < 0.2 * calibration_error(logits, targets)


def test_the_error_never_gets_worse():
    for seed in range(20):  # few pixels, many of them pure chance
        draw = np.random.default_rng(seed)
        found = calibrate(draw.normal(0, 2, (30, 4)).astype(np.float32), draw.integers(0, 4, 30))
        assert found.error_after <= found.error_before
    assert calibrate(np.empty((0, 3), np.float32), np.empty(0, np.int64)) is None


def test_hand_derived_error():
    # Confidence s(2) = 0.8808 four times, right three times: |0.75 - 0.8808|.
    logits = np.tile([2.0, 0.0], (4, 1))
    assert calibration_error(logits, np.array([0, 0, 0, 1])) == pytest.approx(0.8808 - 0.75, abs=1e-4)


def test_a_segmenter_that_learnt_by_heart_becomes_less_sure_and_sees_the_same():
    images, label_maps = tiny.scenes(6, side=32)
    made = train(images, label_maps, architecture=tiny.segmenter("unet").architecture, report=silent,
                 config=ScorerConfig(num_steps=60, batch_size=6, learning_rate=1e-2, augments=False))  # fmt: skip
    others = [np.random.default_rng(index).permutation(label_map.ravel()).reshape(32, 32) for index, label_map in
              enumerate(label_maps)]  # fmt: skip
    before = made.predict(images)
    found = calibrated(made, images, others)  # held-out masks that have nothing to do with the images
    after = made.predict(images)
    assert found.temperature == made.temperature > 1.5 and found.error_after < found.error_before
    for one, other in zip(before, after, strict=True):
        assert np.array_equal(one.label_map, other.label_map) and other.confidence < one.confidence
    assert calibrated(made, [], []) is None and made.temperature == 1.0
