"""What a project's real label maps have in common: sizes, parts, neighbours and companions of classes. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from saadi.masks import BACKGROUND, fit_to
from saadi.records import IGNORE, LabelMap

SPECK = 2e-4
"""Parts smaller than this share of the image are slips of the pen in real label maps, too; they are not counted."""
TOUCH_PX = 2
"""Classes that lie within so many pixels of each other (at `SIDE`) are neighbours."""
SIDE = 128
"""Label maps are compared at this size."""
SLACK = 0.05
"""Ranges of sizes are widened by this share, about a pen's width; of fewer than twenty label maps by one part in their number."""
SEEN_TOGETHER = 3.0
"""Two classes that never occur together are kept apart where so many label maps with both were to be expected by chance."""
COPY_IOU = 0.98
"""From this overlap on a label map is that of a real image again."""


@dataclass(frozen=True)
class Anatomy:
    """Ranges and rules, all learnt; a class that no real label map holds is allowed nowhere."""

    num_classes: int
    areas: dict[int, tuple[float, float]]
    """Class -> share of the image, where it occurs: 1st and 99th percentile."""
    parts: dict[int, int]
    """Class -> most parts seen in one label map."""
    smallest_part: dict[int, float]
    """Class -> smallest share of the image that a part has."""
    neighbours: frozenset[tuple[int, int]]
    """Pairs of classes (a < b) that touch somewhere; background touches what it touches."""
    apart: frozenset[tuple[int, int]]
    """Pairs that never occur together, although chance would have them together."""

    @classmethod
    def of(cls, label_maps: Sequence[LabelMap], *, num_classes: int) -> Self:
        """Learn from real label maps; at least one."""
        areas: dict[int, list[float]] = {}
        parts: dict[int, int] = {}
        smallest: dict[int, float] = {}
        neighbours: set[tuple[int, int]] = set()
        held = np.zeros((len(label_maps), num_classes), bool)
        for row, label_map in enumerate(map(_comparable, label_maps)):
            neighbours |= touching(label_map)
            for index in _classes(label_map):
                shares = part_shares(label_map, index)
                if not shares:
                    continue
                held[row, index] = True
                areas.setdefault(index, []).append(float((label_map == index).mean()))
                parts[index] = max(parts.get(index, 0), len(shares))
                smallest[index] = min(smallest.get(index, 1.0), *shares)
        often = held.mean(0)
        apart = {(a, b) for a, b in combinations(range(1, num_classes), 2)
                 if not (held[:, a] & held[:, b]).any() and len(held) * often[a] * often[b] >= SEEN_TOGETHER}  # fmt: skip
        slack = 1 + max(SLACK, 1 / len(held))
        ranges = {index: (float(np.quantile(found, 0.01)) / slack, float(np.quantile(found, 0.99)) * slack)
                  for index, found in areas.items()}  # fmt: skip
        return cls(num_classes, ranges, parts, smallest, frozenset(neighbours), frozenset(apart))

    def tidied(self, label_map: LabelMap) -> LabelMap:
        """Parts smaller than half of the smallest real one go to what lies around them; unknown classes, too."""
        out = label_map.copy()
        for index in _classes(label_map):
            count, labelled, stats, _ = cv2.connectedComponentsWithStats((label_map == index).astype(np.uint8), connectivity=8)
            least = self.smallest_part.get(index, 2.0) / 2 * label_map.size
            for part in range(1, count):
                if stats[part, cv2.CC_STAT_AREA] < least:
                    where = labelled == part
                    ring = cv2.dilate(where.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~where
                    out[where] = np.bincount(label_map[ring], minlength=1).argmax() if ring.any() else BACKGROUND
        return out

    def faults(self, label_map: LabelMap) -> list[str]:
        """What no real label map shows, one word or two each; empty = plausible. Class indices are written as 'class 3'."""
        small = _comparable(label_map)
        found: list[str] = []
        present = _classes(small)
        for index in present:
            if index not in self.areas:
                found.append(f"class {index} occurs in no real mask")
                continue
            share, (low, high) = float((small == index).mean()), self.areas[index]
            if not low <= share <= high:
                found.append(f"class {index} is too {'small' if share < low else 'large'}")
            if len(part_shares(small, index)) > self.parts[index]:
                found.append(f"class {index} is in too many parts")
        found += [f"class {a} touches class {b}" for a, b in sorted(touching(small) - self.neighbours)]
        found += [f"class {a} is beside class {b} in one image" for a, b in sorted(self.apart) if a in present and b in present]
        return found or ([] if present else ["nothing is in it"])

    def as_json(self) -> dict[str, Any]:
        return {
            "num_classes": self.num_classes,
            "areas": {str(index): list(found) for index, found in self.areas.items()},
            "parts": {str(index): count for index, count in self.parts.items()},
            "smallest_part": {str(index): share for index, share in self.smallest_part.items()},
            "neighbours": sorted(map(list, self.neighbours)),
            "apart": sorted(map(list, self.apart)),
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        return cls(
            stored["num_classes"],
            {int(index): (low, high) for index, (low, high) in stored["areas"].items()},
            {int(index): count for index, count in stored["parts"].items()},
            {int(index): share for index, share in stored["smallest_part"].items()},
            frozenset((a, b) for a, b in stored["neighbours"]),
            frozenset((a, b) for a, b in stored["apart"]),
        )


def part_shares(label_map: LabelMap, index: int) -> list[float]:
    """Shares of the image that the connected parts of a class have, specks left out."""
    count, _, stats, _ = cv2.connectedComponentsWithStats((label_map == index).astype(np.uint8), connectivity=8)
    shares = [float(stats[part, cv2.CC_STAT_AREA]) / label_map.size for part in range(1, count)]
    return [share for share in shares if share >= SPECK]


def touching(label_map: LabelMap) -> set[tuple[int, int]]:
    """Pairs of classes (a < b, background left out) that lie within `TOUCH_PX` of each other."""
    kernel = np.ones((2 * TOUCH_PX + 1, 2 * TOUCH_PX + 1), np.uint8)
    grown = {index: cv2.dilate((label_map == index).astype(np.uint8), kernel) > 0 for index in _classes(label_map)}
    return {(a, b) for a, b in combinations(sorted(grown), 2) if (grown[a] & (label_map == b)).any()}


def overlap(first: LabelMap, second: LabelMap) -> float:
    """Mean IoU over the classes that either holds, background left out; 1 where both are empty."""
    present = np.union1d(first, second)
    ious = [float((a & b).sum() / (a | b).sum())
            for index in present[(present != BACKGROUND) & (present != IGNORE)]
            for a, b in [(first == index, second == index)]]  # fmt: skip
    return float(np.mean(ious)) if ious else 1.0


def is_copy(label_map: LabelMap, real: Sequence[LabelMap]) -> bool:
    """Whether it is one of these again."""
    small = _comparable(label_map)
    return any(overlap(small, _comparable(other)) >= COPY_IOU for other in real)


def _comparable(label_map: LabelMap) -> LabelMap:
    return fit_to(label_map, size=(SIDE, SIDE))


def _classes(label_map: LabelMap) -> list[int]:
    present: NDArray[np.uint8] = np.unique(label_map)
    return [int(index) for index in present if index not in (BACKGROUND, IGNORE)]
