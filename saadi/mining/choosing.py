"""Gate by one model, rank by another: which synthetic images are hard for a downstream model without being wrong.

After the weakness-aware mining of Crucial-Diff (arXiv:2507.09915) and the guards of its successors (methods.md, section 3): an
image that the target model finds badly is a prize where an independent judge finds the mask in it and it looks real; where the
judge does not, its label is wrong. Pure arrays; imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

KAPPA = 0.5
"""Losses beyond are equal: who takes the very hardest takes wrong labels."""
FAITHFUL_AT = 0.1
"""Share of unseen real images in which the judge finds the label map worse than the limit."""
FAITHFUL_FLOOR = 0.3
"""The limit is never lower: a judge that misses many real images cannot call one right in which it sees nothing."""
HARD_AT = 0.5
"""Share of unseen real images that the target finds easier than the limit."""
MIN_UNSEEN = 8
"""Real images that limits are set by."""
Quadrant = Literal["prize", "filler", "quarantine", "doubtful"]
QUADRANTS: tuple[Quadrant, ...] = ("prize", "filler", "quarantine", "doubtful")
"""Faithful and hard; faithful and easy; hard and wrong, or unlike real images; easy for the target and wrong for the judge."""


@dataclass(frozen=True)
class Limits:
    """From where on an image counts as faithful, and as hard; set by real images that neither model has learnt from."""

    faithful: float
    """Smallest Dice (or probability of the asked class) by the judge."""
    hard: float
    """Smallest loss, 1 - Dice (or - probability), of the target; at most KAPPA."""

    @classmethod
    def of(cls, by_judge: Sequence[float], by_target: Sequence[float]) -> Self | None:
        """From Dice on unseen real images; None with fewer than MIN_UNSEEN of them."""
        if min(len(by_judge), len(by_target)) < MIN_UNSEEN:
            return None
        faithful = max(FAITHFUL_FLOOR, float(np.quantile(by_judge, FAITHFUL_AT)))
        return cls(faithful, min(KAPPA, float(np.quantile(1 - np.asarray(by_target), HARD_AT))))


def quadrants(fidelity: ArrayLike, loss: ArrayLike, plausible: ArrayLike, limits: Limits) -> NDArray[np.int64]:
    """(N,) place of each image in QUADRANTS.

    Args:
        fidelity: (N,) Dice by the judge.
        loss: (N,) 1 - Dice of the target.
        plausible: (N,) bool, whether it looks like real images and is no copy of one.
    """
    faithful = (np.asarray(fidelity) >= limits.faithful) & np.asarray(plausible, bool)
    hard = np.asarray(loss) >= limits.hard
    return np.where(faithful, np.where(hard, 0, 1), np.where(hard, 2, 3))


def hardest(fidelity: ArrayLike, loss: ArrayLike, plausible: ArrayLike, limits: Limits) -> int | None:
    """The one among the candidates of a label map that is hardest for the target and a prize; None where none is.

    Beyond KAPPA none is harder than another; of equally hard ones the most faithful.
    """
    given, clipped = np.asarray(fidelity, np.float64), np.minimum(np.asarray(loss, np.float64), KAPPA)
    prizes = np.flatnonzero(quadrants(given, loss, plausible, limits) == 0)
    return int(max(prizes, key=lambda index: (clipped[index], given[index], -index))) if len(prizes) else None
