"""Probabilities that say how often they are right: temperature scaling (Guo et al. 2017), and the error that it mends."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

MIN_IMAGES = 8
"""Below, a temperature would be fitted to chance."""


def fit_temperature(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The temperature that makes held-out labels likeliest, 1/10 to 10; 1 where there are too few to tell.

    Args:
        logits: (N, C) on images that the model has not been trained on.
        labels: (N,) class index.
    """
    if len(labels) < MIN_IMAGES:
        return 1.0

    def cost(log_temperature: float) -> float:
        return float(-log_softmax(logits / math.exp(log_temperature), axis=1)[np.arange(len(labels)), labels].mean())

    found = minimize_scalar(cost, bounds=(-math.log(10), math.log(10)), method="bounded")
    return float(math.exp(found.x)) if found.fun < cost(0.0) else 1.0


def calibration_error(probabilities: NDArray[np.float64], labels: NDArray[np.int64], *, num_bins: int = 10) -> float:
    """Expected calibration error, 0..1: |confidence - accuracy| over bins of equal width, weighted by their size.

    Args:
        probabilities: (N, C).
        labels: (N,) class index.
    """
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.minimum((sure * num_bins).astype(int), num_bins - 1)
    gaps = [abs(sure[bins == index].mean() - right[bins == index].mean()) * (bins == index).mean() for index in np.unique(bins)]
    return float(sum(gaps))
