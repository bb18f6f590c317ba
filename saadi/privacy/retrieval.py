"""How much of the real images a synthetic set reaches: the image retrieval score (IRS).

After Dombrowski et al., "Image Generation Diversity Issues and How to Tame Them" (CVPR 2025). Each of n synthetic images
retrieves its nearest real one; of N real images k different ones are retrieved, and that tells how many, s, the generator can
reach at all. Where s are reachable and each retrieval is as likely to end at any of them,
P(k | n, s) = S2(n, k) s! / ((s - k)! s^n), S2 being Stirling's number of the second kind. Exact for every n: the likeliest s does
not depend on S2, and the tails come from the occupancy recursion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln


@dataclass(frozen=True)
class Retrieval:
    """What n synthetic images retrieve of N real ones."""

    num_synthetic: int
    num_retrieved: int
    """Different real images among the nearest ones, k."""
    num_real: int
    reachable: int
    """The likeliest number of real images that can be reached, s."""
    low: int
    high: int
    """95 % interval of it."""

    @classmethod
    def of(cls, nearest: ArrayLike, *, num_real: int) -> Self:
        """From the index of each synthetic image's nearest real image.

        Args:
            nearest: (n,) integers below num_real.

        Raises:
            ValueError: Nothing was retrieved, or something that is not there.
        """
        found = np.asarray(nearest)
        if not found.size or found.min() < 0 or found.max() >= num_real:
            raise ValueError(f"indices of {num_real} real images expected; got {found.size} from "
                             f"{found.min() if found.size else '-'} to {found.max() if found.size else '-'}")  # fmt: skip
        num, distinct = int(found.size), int(np.unique(found).size)
        return cls(num, distinct, num_real, likeliest(num, distinct, num_real), *interval(num, distinct, num_real))

    @property
    def score(self) -> float:
        """Share of the real images that can be reached, 0-1."""
        return self.reachable / self.num_real

    @property
    def is_saturated(self) -> bool:
        """The estimate lies at its upper end: it says 'at least'."""
        return self.reachable == self.num_real


def likeliest(num_synthetic: int, num_retrieved: int, num_real: int) -> int:
    """The s in k..N with the largest P(k | n, s)."""
    reachable = np.arange(num_retrieved, num_real + 1, dtype=np.float64)
    log_odds = gammaln(reachable + 1) - gammaln(reachable - num_retrieved + 1) - num_synthetic * np.log(reachable)
    return int(reachable[int(log_odds.argmax())])


def occupied(num_synthetic: int, reachable: int) -> NDArray[np.float64]:
    """(n + 1,) chance of each number of different ones, when n retrievals end at any of `reachable` ones alike."""
    chance = np.zeros(num_synthetic + 1)
    chance[0] = 1.0
    taken = np.arange(num_synthetic + 1) / reachable
    for _ in range(num_synthetic):
        grown = np.maximum(0.0, 1.0 - taken[:-1]) * chance[:-1]
        chance = chance * np.minimum(1.0, taken)
        chance[1:] += grown
    return chance


def interval(num_synthetic: int, num_retrieved: int, num_real: int, *, level: float = 0.95) -> tuple[int, int]:
    """All s in k..N under which neither so many nor so few different ones are rarer than (1 - level) / 2; where that rules out
    all of them (retrievals that are spread more evenly than chance does it), the nearest end."""
    tail = (1 - level) / 2

    def at_least(reachable: int) -> float:
        return float(occupied(num_synthetic, reachable)[num_retrieved:].sum())

    def at_most(reachable: int) -> float:
        return float(occupied(num_synthetic, reachable)[: num_retrieved + 1].sum())

    # The more are reachable, the more different ones are retrieved.
    low, high = num_retrieved, num_real
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if at_least(middle) > tail else (middle + 1, high)
    first, (low, high) = low, (low, num_real)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if at_most(middle) > tail else (low, middle - 1)
    return first, low
