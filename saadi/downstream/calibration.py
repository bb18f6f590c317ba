"""How sure a segmenter may say it is: temperature scaling on held-out images (Guo et al. 2017, arXiv:1706.04599)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

LOWEST, HIGHEST = 0.25, 8.0
"""Temperatures beyond these come from too few pixels, not from a network."""
NUM_BINS = 15
MAX_PIXELS = 200_000
"""One parameter needs no more; spread evenly over the images."""

Logits = NDArray[np.float32]
"""(N, num_classes), one row per pixel."""
Targets = NDArray[np.int64]
"""(N,) class index per pixel."""


@dataclass(frozen=True)
class Calibration:
    """Probabilities are softmax(logits / temperature)."""

    temperature: float
    error_before: float
    """Expected calibration error at temperature 1, 0..1."""
    error_after: float


def calibrate(logits: Logits, targets: Targets) -> Calibration | None:
    """Find the temperature under which held-out pixels are most likely; None without pixels.

    One parameter cannot be fitted to noise, so both errors are told on the same pixels. Where it would not lower the error, the
    temperature stays 1.
    """
    if not len(targets):
        return None
    every = -(-len(targets) // MAX_PIXELS)
    logits, targets = logits[::every].astype(np.float64), targets[::every]
    rows = np.arange(len(targets))

    def surprise(log_temperature: float) -> float:
        return -float(log_softmax(logits / np.exp(log_temperature), axis=1)[rows, targets].mean())

    found = minimize_scalar(surprise, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
    temperature = float(np.exp(found.x))
    before, after = (calibration_error(logits, targets, temperature=value) for value in (1.0, temperature))
    return Calibration(temperature, before, after) if after < before else Calibration(1.0, before, before)


def calibration_error(logits: NDArray[np.floating], targets: Targets, *, temperature: float = 1.0) -> float:
    """Expected calibration error: how far confidence and share of right answers lie apart, over 15 bins weighted by size."""
    probabilities = softmax(logits / temperature, axis=1)
    confidence, is_right = probabilities.max(1), probabilities.argmax(1) == targets
    bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    gaps = np.bincount(bins, is_right, NUM_BINS) - np.bincount(bins, confidence, NUM_BINS)
    return float(np.abs(gaps).sum() / len(targets))
