"""Arms of a classification: probabilities on the test patients, and F1, accuracy and AUROC with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from saadi.evidence.intervals import resampled
from saadi.evidence.stages import Arrays

Statistic = Callable[[NDArray[np.float64], NDArray[np.int64]], float]
"""(probabilities (N, C), labels (N,)) -> number; NaN where it cannot be told."""


def f1_of(index: int) -> Statistic:
    """F1 of one class."""

    def statistic(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
        said, is_it = probabilities.argmax(1) == index, labels == index
        return float(2 * (said & is_it).sum() / (said.sum() + is_it.sum())) if said.any() or is_it.any() else float("nan")

    return statistic


def macro_f1(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Mean F1 over the classes that the labels have."""
    return float(np.mean([f1_of(index)(probabilities, labels) for index in np.unique(labels)]))


def accuracy(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    return float((probabilities.argmax(1) == labels).mean())


def macro_auroc(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Mean over classes of the area under the ROC curve, one against the rest (Mann-Whitney)."""
    found = []
    for index in np.unique(labels):
        is_it = labels == index
        if is_it.all():
            continue
        ranks = rankdata(probabilities[:, index])
        count = is_it.sum()
        found.append((ranks[is_it].sum() - count * (count + 1) / 2) / (count * (~is_it).sum()))
    return float(np.mean(found)) if found else float("nan")


STATISTICS: dict[str, Statistic] = {"f1": macro_f1, "accuracy": accuracy, "auroc": macro_auroc}


def with_interval(arms: Sequence[Arrays], statistic: Statistic) -> tuple[float, float, float]:
    """Mean over seeds of a statistic, and its 95 % bootstrap interval over seeds and patients."""
    return resampled([arm["group"] for arm in arms], lambda seed, rows: statistic(*_rows(arms[seed], rows)))


def gain_with_interval(arms: Sequence[Arrays], others: Sequence[Arrays], statistic: Statistic) -> tuple[float, float, float]:
    """The same for the difference of two arms on the same patients."""

    def difference(seed: int, rows: NDArray[np.int64]) -> float:
        return statistic(*_rows(arms[seed], rows)) - statistic(*_rows(others[seed], rows))

    return resampled([arm["group"] for arm in arms], difference)


def _rows(arm: Arrays, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return arm["probabilities"][rows], arm["label"][rows]
