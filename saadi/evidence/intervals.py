"""Paired intervals over images of several seeds: patients, not images, are what is drawn again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

NUM_DRAWS = 2000


def mean_with_interval(
    values: Sequence[NDArray[np.float64]],
    groups: Sequence[NDArray[np.str_]],
    seeds: Sequence[int] | None = None,
    *,
    draw_seed: int = 0,
    num_draws: int = NUM_DRAWS,
) -> tuple[float, float, float]:
    """Mean and 95 % bootstrap interval of per-image numbers, one array per run.

    Seeds and patients are crossed: the same patients are tested in the runs of all seeds. Both are drawn with replacement, a
    patient once for all runs; drawn anew in each run, more seeds would feign more patients.

    Args:
        values: Per run (N,) float64; NaN = this image says nothing (its class is absent) and is left out.
        groups: Per run (N,) the patient of each image.
        seeds: Of each run; None = each has one of its own.

    Returns:
        (mean, low, high); NaNs where there is no number at all.
    """
    sums = [_by_group(value, group) for value, group in zip(values, groups, strict=True)]
    total, count = (sum(float(part[index].sum()) for part in sums) for index in (0, 1))
    if not count:
        return float("nan"), float("nan"), float("nan")
    draws = _Draws(groups, seeds, num_draws=num_draws, seed=draw_seed)
    top, bottom = np.zeros(num_draws), np.zeros(num_draws)
    for run, (parts, counts) in enumerate(sums):
        times = draws.patients(run)
        top, bottom = top + draws.seeds[:, run] * (times @ parts), bottom + draws.seeds[:, run] * (times @ counts)
    low, high = np.percentile((top[bottom > 0] / bottom[bottom > 0]), [2.5, 97.5])
    return float(total / count), float(low), float(high)


class _Draws:
    """How often each patient and each seed is taken, draw by draw."""

    def __init__(self, groups: Sequence[NDArray[np.str_]], seeds: Sequence[int] | None, *, num_draws: int, seed: int) -> None:
        draw = np.random.default_rng(seed)
        own = [np.unique(names) for names in groups]
        everybody = np.unique(np.concatenate(own))
        self._places = [np.searchsorted(everybody, names) for names in own]
        known, seed_of = np.unique(np.arange(len(groups)) if seeds is None else np.asarray(seeds), return_inverse=True)
        count = len(everybody)
        self._patients = draw.multinomial(count, np.full(count, 1 / count), size=num_draws)
        self.seeds = draw.multinomial(len(known), np.full(len(known), 1 / len(known)), size=num_draws)[:, seed_of]
        """(num_draws, runs) times that each run's seed is taken."""

    def patients(self, run: int) -> NDArray[np.int64]:
        """(num_draws, P) times that each patient of a run, by name, is taken."""
        return np.asarray(self._patients[:, self._places[run]], dtype=np.int64)


def _by_group(values: NDArray[np.float64], groups: NDArray[np.str_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per patient, by name: the sum of the known numbers, and how many there are."""
    names, places = np.unique(groups, return_inverse=True)
    known = ~np.isnan(values)
    return (
        np.bincount(places, np.where(known, values, 0.0), minlength=len(names)).astype(np.float64),
        np.bincount(places, known, minlength=len(names)).astype(np.float64),
    )


def resampled(
    groups: Sequence[NDArray[np.str_]],
    statistic: Callable[[int, NDArray[np.int64]], float],
    seeds: Sequence[int] | None = None,
    *,
    draw_seed: int = 0,
    num_draws: int = 500,
) -> tuple[float, float, float]:
    """Mean over runs of any statistic of test images, and its 95 % bootstrap interval; draws as `mean_with_interval` does.

    Where all runs together have a single patient, its images are drawn instead: the interval then says nothing about other
    patients.

    Args:
        groups: Per run (N,) the patient of each image.
        statistic: (position of the run, (N,) times that each image is taken) -> number; NaN = these say nothing.
        seeds: As for `mean_with_interval`.
    """
    if len(np.unique(np.concatenate(groups))) == 1:
        groups = [np.array([f"{row:09d}" for row in range(len(names))]) for names in groups]
    draws = _Draws(groups, seeds, num_draws=num_draws, seed=draw_seed)
    found, weight = np.full((num_draws, len(groups)), np.nan), np.zeros((num_draws, len(groups)))
    for run, names in enumerate(groups):
        times = draws.patients(run)[:, np.unique(names, return_inverse=True)[1]]
        weight[:, run] = draws.seeds[:, run] * times.mean(1)
        for index in np.flatnonzero(weight[:, run]):
            found[index, run] = statistic(run, times[index])
    weight[np.isnan(found)] = 0
    known = weight.sum(1) > 0
    means = (np.nan_to_num(found) * weight).sum(1)[known] / weight.sum(1)[known]
    whole = [value for run, names in enumerate(groups) if not np.isnan(value := statistic(run, np.ones(len(names), np.int64)))]
    if not whole or not len(means):
        return float("nan"), float("nan"), float("nan")
    low, high = np.percentile(means, [2.5, 97.5])
    return float(np.mean(whole)), float(low), float(high)
