"""Paired intervals over images of several seeds: patients, not images, are what is drawn again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

NUM_DRAWS = 2000


def mean_with_interval(
    values: Sequence[NDArray[np.float64]], groups: Sequence[NDArray[np.str_]], *, seed: int = 0, num_draws: int = NUM_DRAWS
) -> tuple[float, float, float]:
    """Mean and 95 % bootstrap interval of per-image numbers, one array per seed.

    Seeds are drawn with replacement, and within each of them its patients: images of one patient are not independent.

    Args:
        values: Per seed (N,) float64; NaN = this image says nothing (its class is absent) and is left out.
        groups: Per seed (N,) the patient of each image.

    Returns:
        (mean, low, high); NaNs where there is no number at all.
    """
    sums = [_by_group(value, group) for value, group in zip(values, groups, strict=True)]
    total = np.concatenate([part[0] for part in sums]).sum()
    count = np.concatenate([part[1] for part in sums]).sum()
    if not count:
        return float("nan"), float("nan"), float("nan")
    draw = np.random.default_rng(seed)
    means = np.empty(num_draws)
    for index in range(num_draws):
        top = bottom = 0.0
        for chosen in draw.integers(len(sums), size=len(sums)):
            parts, counts = sums[chosen]
            again = draw.integers(len(parts), size=len(parts))
            top, bottom = top + parts[again].sum(), bottom + counts[again].sum()
        means[index] = top / bottom if bottom else np.nan
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return float(total / count), float(low), float(high)


def _by_group(values: NDArray[np.float64], groups: NDArray[np.str_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per patient: the sum of the known numbers, and how many there are."""
    names, places = np.unique(groups, return_inverse=True)
    known = ~np.isnan(values)
    return (
        np.bincount(places, np.where(known, values, 0.0), minlength=len(names)).astype(np.float64),
        np.bincount(places, known, minlength=len(names)).astype(np.float64),
    )


def resampled(
    groups: Sequence[NDArray[np.str_]],
    statistic: Callable[[int, NDArray[np.int64]], float],
    *,
    seed: int = 0,
    num_draws: int = 500,
) -> tuple[float, float, float]:
    """Mean over seeds of any statistic of test images, and its 95 % bootstrap interval; draws as `mean_with_interval` does.

    Where a seed has a single patient, its images are drawn instead: the interval then says nothing about other patients.

    Args:
        groups: Per seed (N,) the patient of each image.
        statistic: (position of the seed, rows drawn) -> number; NaN = these rows say nothing.
    """
    blocks = [_blocks(names) for names in groups]
    whole = [statistic(position, np.arange(len(names))) for position, names in enumerate(groups)]
    draw = np.random.default_rng(seed)
    means = np.empty(num_draws)
    for index in range(num_draws):
        values = []
        for position in draw.integers(len(groups), size=len(groups)).tolist():
            parts = blocks[position]
            again = draw.integers(len(parts), size=len(parts))
            values.append(statistic(position, np.concatenate([parts[part] for part in again])))
        means[index] = _mean(values)
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return _mean(whole), float(low), float(high)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _blocks(names: NDArray[np.str_]) -> list[NDArray[np.int64]]:
    """Rows that are drawn together."""
    known = np.unique(names)
    return [np.flatnonzero(names == name) for name in known] if len(known) > 1 else [np.array([row]) for row in range(len(names))]
