import numpy as np
import pytest
from scipy.special import softmax

from saadi.downstream.calibration import calibration_error, fit_temperature


def drawn(temperature: float, *, count: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from softmax(logits), and the logits multiplied by `temperature`: over-confident where it is above 1."""
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 1.5, (count, 4))
    odds = softmax(logits, axis=1)
    labels = np.array([draw.choice(4, p=row) for row in odds])
    return logits * temperature, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_planted_temperature_is_found_and_the_error_falls(temperature: float):
    logits, labels = drawn(temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.1)
    before, after = (calibration_error(softmax(logits / t, axis=1), labels) for t in (1.0, found))
    assert after <= before + 0.01 and after < 0.05
    assert temperature == 1.0 or after < 0.5 * before


def test_hand_derived_calibration_error():
    """Two images at 0.8 of which one is right, two at 0.6 that both are: (|0.8 - 0.5| + |0.6 - 1|) / 2."""
    probabilities = np.array([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4], [0.6, 0.4]])
    assert calibration_error(probabilities, np.array([0, 1, 0, 0])) == pytest.approx(0.35)


def test_too_few_images_tell_no_temperature():
    assert fit_temperature(np.array([[9.0, 0.0]] * 4), np.array([1, 1, 1, 1])) == 1.0
