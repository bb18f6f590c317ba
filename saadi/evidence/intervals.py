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
    minus: Sequence[NDArray[np.float64]] | None = None,
    draw_seed: int = 0,
    num_draws: int = NUM_DRAWS,
) -> tuple[float, float, float]:
    """Mean of per-image numbers and its 95 % bootstrap interval, one array per run; with classes, the mean over classes of each
    class's mean over images, as nnU-Net has it: a rare class counts as much as a frequent one.

    Seeds and patients are crossed: the same patients are tested in the runs of all seeds. Both are drawn with replacement, a
    patient once for all runs; drawn anew in each run, more seeds would feign more patients. A single patient's images are drawn
    in its place: the interval then says nothing about other patients.

    Args:
        values: Per run (N,) or (N, C) float64; NaN = this image says nothing (its class is absent) and is left out.
        groups: Per run (N,) the patient of each image.
        seeds: Of each run; None = each has one of its own.
        minus: Numbers of the same images whose means are taken away, class by class and draw by draw.

    Returns:
        (mean, low, high); NaNs where there is no number at all.
    """
    groups = _known_apart(groups)
    draws = _Draws(groups, seeds, num_draws=num_draws, seed=draw_seed)
    whole, drawn = _class_means(values, groups, draws)
    if minus is not None:  # class by class: what one of both says of a class that the other is silent about is no difference
        less, drawn_less = _class_means(minus, groups, draws)
        whole, drawn = whole - less, drawn - drawn_less
    known = _mean_of_known(drawn)
    known = known[~np.isnan(known)]
    if np.isnan(whole).all() or not len(known):
        return float("nan"), float("nan"), float("nan")
    low, high = np.percentile(known, [2.5, 97.5])
    return float(_mean_of_known(whole[None])[0]), float(low), float(high)


def _known_apart(groups: Sequence[NDArray[np.str_]]) -> list[NDArray[np.str_]]:
    """Patients; where all runs together have a single one, its images instead."""
    if len(np.unique(np.concatenate(groups))) > 1:
        return list(groups)
    return [np.array([f"{row:09d}" for row in range(len(names))]) for names in groups]


def _class_means(
    values: Sequence[NDArray[np.float64]], groups: Sequence[NDArray[np.str_]], draws: _Draws
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(C,) the mean of each class over images and runs, and (num_draws, C) the same of each draw; NaN where nothing is said."""
    columns = [value.reshape(len(value), -1) for value in values]
    top, bottom = (np.zeros((draws.seeds.shape[0], columns[0].shape[1])) for _ in range(2))
    total, count = (np.zeros(columns[0].shape[1]) for _ in range(2))
    for run, (value, group) in enumerate(zip(columns, groups, strict=True)):
        times, chosen = draws.patients(run), draws.seeds[:, run]
        for index in range(value.shape[1]):
            sums, counts = _by_group(value[:, index], group)
            total[index], count[index] = total[index] + sums.sum(), count[index] + counts.sum()
            top[:, index] += chosen * (times @ sums)
            bottom[:, index] += chosen * (times @ counts)
    with np.errstate(invalid="ignore"):
        return total / np.where(count > 0, count, np.nan), top / np.where(bottom > 0, bottom, np.nan)


def _mean_of_known(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R,) means over the columns that are numbers; NaN where none is."""
    said = (~np.isnan(rows)).sum(1)
    return np.asarray(np.nansum(rows, 1) / np.where(said > 0, said, np.nan))


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
    groups = _known_apart(groups)
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
