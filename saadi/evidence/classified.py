"""Arms of a classification: probabilities on the test patients, and F1, accuracy and AUROC with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from saadi.evidence.intervals import resampled
from saadi.evidence.stages import Arrays

Statistic = Callable[[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]], float]
"""(probabilities (N, C), labels (N,), times that each image counts (N,)) -> number; NaN where it cannot be told."""


def f1_of(index: int) -> Statistic:
    """F1 of one class."""

    def statistic(probabilities: NDArray[np.float64], labels: NDArray[np.int64], times: NDArray[np.int64]) -> float:
        said, is_it = probabilities.argmax(1) == index, labels == index
        total = (times * said).sum() + (times * is_it).sum()
        return float(2 * (times * (said & is_it)).sum() / total) if total else float("nan")

    return statistic


def macro_f1(probabilities: NDArray[np.float64], labels: NDArray[np.int64], times: NDArray[np.int64] | None = None) -> float:
    """Mean F1 over the classes that the labels have."""
    times = np.ones(len(labels), np.int64) if times is None else times
    return float(np.mean([f1_of(index)(probabilities, labels, times) for index in np.unique(labels[times > 0])]))


def accuracy(probabilities: NDArray[np.float64], labels: NDArray[np.int64], times: NDArray[np.int64] | None = None) -> float:
    return float(np.average(probabilities.argmax(1) == labels, weights=times))


def macro_auroc(probabilities: NDArray[np.float64], labels: NDArray[np.int64], times: NDArray[np.int64] | None = None) -> float:
    """Mean over classes of the area under the ROC curve, one against the rest (Mann-Whitney, ties count half)."""
    times = np.ones(len(labels), np.int64) if times is None else times
    found = []
    for index in np.unique(labels[times > 0]):
        is_it = labels == index
        values, places = np.unique(probabilities[:, index], return_inverse=True)
        right, wrong = (np.bincount(places, times * part, minlength=len(values)) for part in (is_it, ~is_it))
        if right.sum() and wrong.sum():
            below = np.cumsum(wrong) - wrong / 2
            found.append(float((right * below).sum() / (right.sum() * wrong.sum())))
    return float(np.mean(found)) if found else float("nan")


STATISTICS: dict[str, Statistic] = {"f1": macro_f1, "accuracy": accuracy, "auroc": macro_auroc}


def with_interval(
    arms: Sequence[Arrays], statistic: Statistic, seeds: Sequence[int] | None = None
) -> tuple[float, float, float]:
    """Mean over seeds of a statistic, and its 95 % bootstrap interval over seeds and patients."""
    return resampled([arm["group"] for arm in arms], lambda run, times: _told(statistic, arms[run], times), seeds)


def gain_with_interval(
    arms: Sequence[Arrays], others: Sequence[Arrays], statistic: Statistic, seeds: Sequence[int] | None = None
) -> tuple[float, float, float]:
    """The same for the difference of two arms on the same patients."""

    def difference(run: int, times: NDArray[np.int64]) -> float:
        return _told(statistic, arms[run], times) - _told(statistic, others[run], times)

    return resampled([arm["group"] for arm in arms], difference, seeds)


def _told(statistic: Statistic, arm: Arrays, times: NDArray[np.int64]) -> float:
    return statistic(arm["probabilities"], arm["label"], times)
