"""Distances between sets of images in a feature space; pure numpy, no weights, so that no gate depends on a download."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from saadi.records import Image

Features = NDArray[np.float32]
"""(N, D) float32."""


def standardised(features: Features, reference: Features) -> Features:
    """Features scaled by mean and standard deviation of the reference set, so that no dimension rules a distance."""
    return np.asarray((features - reference.mean(0)) / (reference.std(0) + 1e-6), dtype=np.float32)


def kernel_distance(first: Features, second: Features) -> float:
    """Unbiased squared MMD with the cubic kernel (x.y / d + 1)^3 (Binkowski et al. 2018): "KID" in our features, unscaled.

    About 0 for two draws of one distribution (it may be slightly negative); never call it FID or standard KID.
    """
    scale = first.shape[1]
    a, b = first.astype(np.float64), second.astype(np.float64)
    within_a, within_b, across = ((x @ y.T / scale + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    n, m = len(a), len(b)
    return float(
        (within_a.sum() - within_a.trace()) / (n * (n - 1))
        + (within_b.sum() - within_b.trace()) / (m * (m - 1))
        - 2 * across.mean()
    )


def leave_one_out_distances(first: Features, second: Features) -> NDArray[np.float64]:
    """(N,) `kernel_distance` without row i of the first set, for the jackknife error of a distance or of a difference of two."""
    scale = first.shape[1]
    a, b = first.astype(np.float64), second.astype(np.float64)
    within_a, within_b, across = ((x @ y.T / scale + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    n, m = len(a), len(b)
    off_diagonal = within_a.sum() - within_a.trace()
    left = off_diagonal - 2 * (within_a.sum(1) - within_a.diagonal())
    rest = (within_b.sum() - within_b.trace()) / (m * (m - 1))
    return np.asarray(left / ((n - 1) * (n - 2)) + rest - 2 * (across.sum() - across.sum(1)) / ((n - 1) * m))


def jackknife_error(left_out: NDArray[np.float64]) -> float:
    """Standard error of a statistic from its leave-one-out values (Efron and Stein 1981)."""
    n = len(left_out)
    return float(np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()))


def appearance(images: Sequence[Image]) -> Features:
    """(N, 24) colour, contrast and sharpness statistics: sees the colour collapse to which a mask-driven judge is blind.

    Per image: mean, standard deviation, 10th and 90th percentile of the three Lab channels (12), mean absolute gradient at
    three scales per channel (9), share of clipped highlights, of black, and mean local contrast (3). Scaled to 128 px first.
    """
    return np.stack([_appearance(image) for image in images]).astype(np.float32)


def _appearance(image: Image) -> NDArray[np.float32]:
    small = cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
    flat = lab.reshape(-1, 3)
    values = [flat.mean(0), flat.std(0), np.percentile(flat, 10, axis=0), np.percentile(flat, 90, axis=0)]
    for side in (128, 64, 32):
        scaled = cv2.resize(lab, (side, side), interpolation=cv2.INTER_AREA)
        values.append(np.abs(np.diff(scaled, axis=0)).mean((0, 1)) + np.abs(np.diff(scaled, axis=1)).mean((0, 1)))
    grey = lab[..., 0]
    local = cv2.blur(grey**2, (9, 9)) - cv2.blur(grey, (9, 9)) ** 2
    values.append(np.array([(small.min(2) > 245).mean(), (small.max(2) < 12).mean(), np.sqrt(local.clip(0)).mean()]))
    return np.concatenate(values).astype(np.float32)


def vendi_score(features: Features) -> float:
    """Effective number of different images: exp of the entropy of the similarity matrix's eigenvalues (Friedman and Dieng
    2023)."""
    unit = features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-9)
    eigenvalues = np.linalg.eigvalsh(unit @ unit.T / len(unit)).clip(1e-12)
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


def nearest_distance(features: Features, reference: Features) -> NDArray[np.float32]:
    """(N,) Euclidean distance to the nearest row of the reference set."""
    squared = (features**2).sum(1)[:, None] + (reference**2).sum(1)[None] - 2 * features @ reference.T
    return np.asarray(np.sqrt(squared.clip(0)).min(1), dtype=np.float32)


def paired_interval(
    differences: Sequence[float], *, seed: int = 0, draws: int = 2000, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean of paired differences and its bootstrap percentile interval: (mean, low, high)."""
    values = np.asarray(differences, dtype=np.float64)
    generator = np.random.default_rng(seed)
    means = values[generator.integers(0, len(values), (draws, len(values)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(values.mean()), float(low), float(high)
