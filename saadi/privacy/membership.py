"""Can the images that a generator has learnt from be told by its errors? Membership inference by loss.

After Yeom et al., "Privacy risk in machine learning: analyzing the connection to overfitting" (CSF 2018), and for diffusion
models Matsumoto et al., "Membership inference attacks against diffusion models" (2023): images that were learnt from are denoised
with a smaller error. The attack wins where the area under its curve is above one half. Imports no torch; who has the generator at
hand measures the errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

NUM_RESAMPLES = 1000
MIN_PATIENTS = 8
"""On each side; with fewer the interval says nothing."""


@dataclass(frozen=True)
class Membership:
    """How well errors tell images that were learnt from."""

    auc: float
    """0.5 = not at all, 1 = always."""
    low: float
    high: float
    """95 % interval, over patients."""
    num_members: int
    num_others: int
    """Images."""

    @classmethod
    def of(cls, members: ArrayLike, others: ArrayLike, *, patients: Sequence[str], other_patients: Sequence[str],
           seed: int = 0) -> Self | None:  # fmt: skip
        """From the error of each image; None with fewer than MIN_PATIENTS on a side.

        Args:
            members: (N,) errors of images that were learnt from.
            others: (M,) of images that were not.
            patients, other_patients: Whose they are.
        """
        known, unknown = np.asarray(members, np.float64), np.asarray(others, np.float64)
        groups = [_places(patients), _places(other_patients)]
        if min(map(len, groups)) < MIN_PATIENTS:
            return None
        draw, drawn = np.random.default_rng(seed), []
        wins = (known[:, None] < unknown[None]) + 0.5 * (known[:, None] == unknown[None])
        for _ in range(NUM_RESAMPLES):
            rows, columns = (np.concatenate([of[index] for index in draw.integers(len(of), size=len(of))]) for of in groups)
            # Weighted sums in place of a gathered matrix: each image counts as often as its patient was drawn.
            left, right = (np.bincount(found, minlength=size) for found, size in zip((rows, columns), wins.shape, strict=True))
            drawn.append(left @ wins @ right / (left.sum() * right.sum()))
        low, high = np.quantile(drawn, [0.025, 0.975])
        return cls(float(wins.mean()), float(low), float(high), len(known), len(unknown))


def _places(patients: Sequence[str]) -> list[NDArray[np.int64]]:
    names = np.asarray(patients)
    return [np.flatnonzero(names == name) for name in sorted(set(patients))]
