"""One image for each label map that comes near to no training patient: which candidate is kept, and when to give up.

After the selection loop of Dombrowski and Kainz (arXiv 2506.17975; see methods.md, section 4), with its three weaknesses mended:
a candidate is compared with all training images and not with its own source alone, there is a cap on the rounds and a floor
of the guidance, and what no candidate fills stays empty. Pure: knows nothing of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Candidate:
    """One image of a label map, as it was looked at."""

    is_near: bool
    """Nearer to some training image than strangers come."""
    is_plausible: bool
    """The quality check passes it; what fails leaves with no export."""
    consistency: float
    """With the label map that it was made from, the selector's Dice; the greatest is kept."""


@dataclass(frozen=True)
class Descent:
    """How the guidance falls from round to round."""

    first: float
    step: float = 0.1
    lowest: float = 0.5
    rounds: int = 6
    """The cap: so many times a label map is tried."""

    def guidance(self, number: int) -> float:
        """Of a round, from 0; never below the lowest (or where it began, if that is lower)."""
        return round(max(min(self.lowest, self.first), self.first - number * self.step), 4)


@dataclass
class Slots:
    """The label maps and what has been kept for them."""

    count: int
    descent: Descent
    number: int = 0
    """Of the present round."""
    kept: dict[int, int] = field(default_factory=dict)
    """Place of a label map -> index of its candidate among those of the round in which it was kept."""

    @property
    def open(self) -> list[int]:
        """Places that nothing fills yet, in order; empty once the cap is reached."""
        return [place for place in range(self.count) if place not in self.kept] if self.number < self.descent.rounds else []

    @property
    def unfilled(self) -> list[int]:
        return [place for place in range(self.count) if place not in self.kept]

    @property
    def guidance(self) -> float:
        return self.descent.guidance(self.number)

    def tell(self, looked_at: Sequence[Sequence[Candidate]]) -> dict[int, int]:
        """The candidates of each open place, in the order of `open`; returns place -> index of what is kept, and begins the next
        round.

        Raises:
            ValueError: Not one list for each open place.
        """
        places = self.open
        if len(looked_at) != len(places):
            raise ValueError(f"candidates of {len(places)} open places expected; got {len(looked_at)}")
        fresh = {place: index for place, found in zip(places, looked_at, strict=True) if (index := best(found)) is not None}
        self.kept |= fresh
        self.number += 1
        return fresh


def best(candidates: Sequence[Candidate]) -> int | None:
    """The most consistent of those that are near to nobody and look real, the first of equals; None where there is none."""
    usable = [index for index, one in enumerate(candidates) if not one.is_near and one.is_plausible]
    return max(usable, key=lambda index: candidates[index].consistency) if usable else None
