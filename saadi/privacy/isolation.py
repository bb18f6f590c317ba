"""Does a release single somebody out? Isolation by predicates, against chance and against people whom nothing was learnt from.

Predicate singling-out after Cohen and Nissim ("Towards formalizing the GDPR's notion of singling out", PNAS 2020): a predicate of
weight w isolates in n independent rows when exactly one satisfies it, which without any release happens with probability
n w (1 - w)^(n - 1). Here each released item is a predicate: "is at least this similar to it", the limit set on people of a third
group so that it is true of a share w of them; a row is a patient, by the most similar of their images. Weights of 1 / (10 N), not
1 / N: at 1 / N a perfect copy isolates no more often than chance does (0.37). What is measured is one attack: that it finds
nothing proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

WEIGHT_SHARE = 0.1
"""The weight that is decided at, as a share of 1 / N."""
MIN_PATIENTS = 50
"""With fewer nothing can be concluded."""
MAX_EXCESS = 0.05
"""Upper end of the interval below which a release passes."""
NUM_RESAMPLES = 2000


def chance(num_patients: int, weight: float) -> float:
    """How often a predicate of this weight isolates one of so many patients by chance."""
    return float(num_patients * weight * (1 - weight) ** (num_patients - 1))


def calibration_needed(num_patients: int) -> int:
    """People of a third group that limits for so many patients are set on."""
    return round(num_patients / WEIGHT_SHARE)


def limits(calibration: ArrayLike, *, weight: float) -> NDArray[np.float64]:
    """(M,) similarity from which on the predicate of each item is true: of a share `weight` of the calibration group.

    Args:
        calibration: (M, C) similarity of each item to each of C people who are neither trained on nor held out.

    Raises:
        ValueError: C is too small for this weight: not one of them would be left.
    """
    found = np.asarray(calibration, np.float64)
    count = round(weight * found.shape[1])
    if count < 1 or count >= found.shape[1]:
        raise ValueError(f"a weight of {weight:g} is set on {1 / weight:.0f} people or more; got {found.shape[1]}")
    # Somebody new exceeds the count-th largest of C with probability count / (C + 1).
    return np.asarray(-np.partition(-found, count - 1, axis=1)[:, count - 1])


def isolated(similarity: ArrayLike, limit: ArrayLike) -> NDArray[np.int64]:
    """(M,) the patient whom each item isolates, -1 where it is true of nobody or of several.

    Args:
        similarity: (M, N) of each item to each patient.
        limit: (M,) as from `limits`.
    """
    fires = np.asarray(similarity, np.float64) > np.asarray(limit, np.float64)[:, None]
    return np.where(fires.sum(1) == 1, fires.argmax(1), -1)


@dataclass(frozen=True)
class Isolation:
    """How often items of a release isolate a patient whom the generator has learnt from, and one whom it has not."""

    num_items: int
    num_patients: int
    weight: float
    of_trained: float
    """Share of the items that isolate a training patient."""
    of_held_out: float
    by_chance: float
    excess: float
    """(trained - held out) / (1 - held out)."""
    low: float
    high: float
    """95 % interval of the excess, over patients and items."""

    @property
    def verdict(self) -> Literal["nothing concluded", "passes", "fails"]:
        """Against MAX_EXCESS; with fewer than MIN_PATIENTS nothing is concluded."""
        if self.num_patients < MIN_PATIENTS:
            return "nothing concluded"
        return "passes" if self.high < MAX_EXCESS else "fails"

    @classmethod
    def of(cls, trained: ArrayLike, held_out: ArrayLike, calibration: ArrayLike, *, weight: float | None = None,
           seed: int = 0) -> Self:  # fmt: skip
        """
        Args:
            trained: (M, N) similarity of each item to each training patient.
            held_out: (M, N) to as many patients whom nothing was learnt from.
            calibration: (M, C), as in `limits`.
            weight: None = WEIGHT_SHARE / N.

        Raises:
            ValueError: Not as many patients held out as trained on, or too few to set limits on.
        """
        known, others = np.asarray(trained, np.float64), np.asarray(held_out, np.float64)
        if known.shape != others.shape:
            raise ValueError(f"as many held-out patients as training patients expected; got {others.shape} and {known.shape}")
        num_items, num_patients = known.shape
        weight = WEIGHT_SHARE / num_patients if weight is None else weight
        limit = limits(calibration, weight=weight)
        counts = [np.bincount(found[found >= 0], minlength=num_patients)
                  for found in (isolated(known, limit), isolated(others, limit))]  # fmt: skip
        draw = np.random.default_rng(seed)
        chosen = draw.integers(num_patients, size=(2, NUM_RESAMPLES, num_patients))
        # Patients are drawn again, with all items that isolate them; the rest of the items stay. A rate is drawn around what that
        # gives (Jeffreys), since few items tell little even where all patients are alike.
        hits = [count[places].sum(1) for count, places in zip(counts, chosen, strict=True)]
        resampled = [draw.beta(hit + 0.5, num_items - count.sum() + 0.5) for hit, count in zip(hits, counts, strict=True)]
        low, high = np.quantile(_excess(*resampled), [0.025, 0.975])
        rates = [count.sum() / num_items for count in counts]
        return cls(num_items, num_patients, weight, float(rates[0]), float(rates[1]), chance(num_patients, weight),
                   float(_excess(*rates)), float(low), float(high))  # fmt: skip


def _excess(of_trained: ArrayLike, of_held_out: ArrayLike) -> NDArray[np.float64]:
    mine, others = np.asarray(of_trained, np.float64), np.asarray(of_held_out, np.float64)
    return np.where(others < 1, np.maximum(-1.0, (mine - others) / np.where(others < 1, 1 - others, 1.0)), -1.0)


@dataclass(frozen=True)
class Nearest:
    """Whether items lie nearer to patients who were trained on than to those who were not; needs nobody to set limits on."""

    share: float
    """Of the items whose nearest person was trained on."""
    expected: float
    """The same where nothing is remembered: the training patients' share of all, 0.5 for two groups of equal size."""
    low: float
    high: float
    """95 % interval of the share, over patients and items."""

    @property
    def excess(self) -> float:
        """0 where nothing is remembered, 1 where every item lies nearest to a training patient."""
        return (self.share - self.expected) / (1 - self.expected)

    @property
    def excess_interval(self) -> tuple[float, float]:
        """95 % interval of it."""
        return tuple((end - self.expected) / (1 - self.expected) for end in (self.low, self.high))  # type: ignore[return-value]

    @classmethod
    def of(cls, trained: ArrayLike, held_out: ArrayLike, *, seed: int = 0) -> Self:
        """
        Args:
            trained: (M, N) similarity of each item to each training patient.
            held_out: (M, H) to patients whom nothing was learnt from.

        Raises:
            ValueError: No item, or nobody in one of the groups.
        """
        known, others = np.asarray(trained, np.float64), np.asarray(held_out, np.float64)
        if known.ndim != 2 or others.ndim != 2 or len(known) != len(others) or not known.size or not others.size:
            raise ValueError(f"similarities of the same items to two groups expected; got {known.shape} and {others.shape}")
        num_known = known.shape[1]
        nearest = np.concatenate([known, others], axis=1)
        hits = nearest == nearest.max(1, keepdims=True)
        counts = (hits / hits.sum(1, keepdims=True)).sum(0)  # items that are as near to several people are shared out
        mine, theirs = counts[:num_known], counts[num_known:]
        draw = np.random.default_rng(seed)
        # Whole people are drawn, each with all items that are nearest to them; both groups keep their size.
        first, second = (of[draw.integers(len(of), size=(NUM_RESAMPLES, len(of)))].sum(1) for of in (mine, theirs))
        low, high = np.quantile(first / np.maximum(first + second, 1e-9), [0.025, 0.975])
        # Few items tell little even where all of them agree: never narrower than what their number allows (Jeffreys).
        few, many = beta.ppf([0.025, 0.975], mine.sum() + 0.5, theirs.sum() + 0.5)
        low, high = min(low, few), max(high, many)
        return cls(float(mine.sum() / counts.sum()), num_known / nearest.shape[1], float(low), float(high))
