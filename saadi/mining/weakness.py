"""Where a downstream model fails on real images: recall by class, size, contrast and place; and masks drawn in proportion to it.

After the weakness-aware mining of Crucial-Diff (arXiv:2507.09915), whose own rule is not published: a class is drawn with
probability proportional to (1 - recall)^gamma, then one of the label maps that show it, in proportion to the same of the cells
(size, place) of its parts, with a floor. Not label maps by the mean of all that they show: among seven organs, all of them found,
a missed bleeding would hardly count. Pure arrays; imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from saadi.masks import BACKGROUND, fit_image_to, fit_to
from saadi.records import IGNORE, Image, LabelMap

SIDE = 128
"""Images and label maps are looked at in this size."""
MIN_PART_PX = 12
"""At `SIDE`; smaller parts are slips of the pen."""
RING_PX = 4
"""Width of the surroundings that a part stands out from."""
BINS = ("small", "medium", "large")
CONTRASTS = ("faint", "medium", "clear")
PLACES = ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right")
"""3 x 3 fields of the image, row by row."""
CENTRE = 4
PRIOR_PARTS = 4.0
"""Weight of what is known of a class when a cell is estimated, in parts: a cell with three parts must not look hopeless."""
MIN_PARTS = 3
"""A cell with fewer is not told of."""
WORSE_BY = 0.05
"""A cell is called a gap from this far below the recall of its class on."""
GAMMA = 1.5
FLOOR = 0.05
"""Share of the label maps that is drawn whatever the recall."""
Axis = Literal["size", "contrast", "place"]
AXES: dict[Axis, tuple[str, ...]] = {"size": BINS, "contrast": CONTRASTS, "place": PLACES}


class Part(NamedTuple):
    """One connected part of a class in one real image."""

    class_index: int
    area: float
    """Share of the image."""
    contrast: float
    """Distance in Lab between its mean colour and that of its ring; NaN where there is no ring."""
    place: int
    """Field of the 3 x 3 that its centre lies in."""
    recall: float
    """Share of its pixels that the model finds; NaN where nobody looked."""
    group: str
    """Patient."""


def parts_of(label_map: LabelMap, *, image: Image | None = None, seen: LabelMap | None = None, group: str = "") -> list[Part]:
    """The parts of every class but the background.

    Args:
        image: For the contrast; None = unknown.
        seen: What the model sees in the image; None = unknown.
    """
    small = fit_to(label_map, size=(SIDE, SIDE))
    lab = None
    if image is not None:
        lab = cv2.cvtColor(fit_image_to(image, side=SIDE), cv2.COLOR_RGB2LAB).astype(np.float32)
    found = fit_to(seen, size=(SIDE, SIDE)) if seen is not None else None
    parts: list[Part] = []
    for index in np.unique(small):
        if index in (BACKGROUND, IGNORE):
            continue
        count, labelled, stats, centers = cv2.connectedComponentsWithStats((small == index).astype(np.uint8), connectivity=8)
        for number in range(1, count):
            area = int(stats[number, cv2.CC_STAT_AREA])
            if area < MIN_PART_PX:
                continue
            where = labelled == number
            column, row = (min(2, int(3 * value / SIDE)) for value in centers[number])
            recall = float((found[where] == index).mean()) if found is not None else float("nan")
            parts.append(Part(int(index), area / SIDE**2, _contrast(lab, where), 3 * row + column, recall, group))
    return parts


def whole_part(class_index: int, *, seen: int | None = None, group: str = "") -> Part:
    """In classification an image is one part of its class, found or not.

    Args:
        seen: The class that the model sees; None = unknown.
    """
    recall = float("nan") if seen is None else float(seen == class_index)
    return Part(class_index, 1.0, float("nan"), CENTRE, recall, group)


def _contrast(lab: NDArray[np.float32] | None, where: NDArray[np.bool_]) -> float:
    if lab is None:
        return float("nan")
    kernel = np.ones((2 * RING_PX + 1, 2 * RING_PX + 1), np.uint8)
    ring = (cv2.dilate(where.astype(np.uint8), kernel) > 0) & ~where
    if not ring.any():
        return float("nan")
    return float(np.linalg.norm(lab[where].mean(0) - lab[ring].mean(0)))


@dataclass(frozen=True)
class Cell:
    """Parts of a class that have something in common."""

    recall: float
    """Drawn towards the recall of the class where the cell has few parts."""
    num_parts: int
    num_patients: int


@dataclass(frozen=True)
class ClassWeakness:
    """One class, as a whole and along each axis."""

    recall: float
    """Mean over parts."""
    num_parts: int
    num_patients: int
    size_edges: tuple[float, float]
    """Shares of the image that part small from medium and medium from large."""
    contrast_edges: tuple[float, float]
    axes: dict[Axis, tuple[Cell, ...]]
    cells: dict[tuple[int, int], Cell]
    """(size, place) -> what is known of both together; for masks, whose contrast is not known."""


@dataclass(frozen=True)
class Weakness:
    """What a model misses in real images that it has not learnt from."""

    classes: dict[int, ClassWeakness]

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Weakness:
        """Learn from parts whose recall is known."""
        known = [part for part in parts if not np.isnan(part.recall)]
        return cls({index: _class_weakness([part for part in known if part.class_index == index])
                    for index in sorted({part.class_index for part in known})})  # fmt: skip

    def recall_of(self, part: Part) -> float | None:
        """What is to be expected of such a part; None of a class that no real image showed."""
        found = self.classes.get(part.class_index)
        if found is None:
            return None
        cell = found.cells.get((_bin(part.area, found.size_edges), part.place))
        return found.recall if cell is None else cell.recall

    def odds(self, parts: Sequence[Sequence[Part]], *, gamma: float = GAMMA, floor: float = FLOOR) -> NDArray[np.float64]:
        """(N,) sum 1: chance of each label map to be drawn: a class is drawn in proportion to (1 - recall)^gamma, then one of the
        label maps that show it, in proportion to the mean of the same over its parts of that class; `floor` is dealt out evenly.
        Classes that no unseen image shows are as hard as the average of the others, since nobody knows.

        Args:
            parts: Those of each label map.
        """
        if not len(parts):
            return np.empty(0)
        shown = sorted({part.class_index for of_one in parts for part in of_one})
        missed = {index: (1 - self.classes[index].recall) ** gamma for index in shown if index in self.classes}
        average = float(np.mean(list(missed.values()))) if missed else 0.0
        weights = np.zeros(len(parts))
        for index in shown:
            own = [[part for part in of_one if part.class_index == index] for of_one in parts]
            within = np.array([self._difficulty(of_class, gamma) for of_class in own])
            if within.sum() > 0:
                weights += missed.get(index, average) * within / within.sum()
        even = np.full(len(weights), 1 / len(weights))
        return even if weights.sum() <= 0 else (1 - floor) * weights / weights.sum() + floor * even

    def _difficulty(self, parts: Sequence[Part], gamma: float) -> float:
        """Of parts of one class, 0-1: their mean of (1 - recall)^gamma; 0 without any, 1 where the class is not known."""
        recalls = [recall if (recall := self.recall_of(part)) is not None else 0.0 for part in parts]
        return float(np.mean([(1 - recall) ** gamma for recall in recalls])) if recalls else 0.0


def in_lots(odds: ArrayLike, count: int, *, seed: int) -> list[int]:
    """Places drawn one after the other by their odds, none twice, at most `count` (Gumbel's trick)."""
    chances = np.asarray(odds, np.float64)
    keys = np.log(np.maximum(chances, 1e-300)) + np.random.default_rng(seed).gumbel(size=len(chances))
    return [int(place) for place in np.argsort(-keys, kind="stable")[:count]]


def in_numbers(found: Weakness, class_names: Sequence[str]) -> dict[str, Any]:
    """Class name -> recall, parts and patients: as a whole and in the cells of each axis by name."""
    return {class_names[index]: {"recall": round(one.recall, 4), "parts": one.num_parts, "patients": one.num_patients}
            | {axis: {name: _in_numbers(cell) for name, cell in zip(names, one.axes[axis], strict=True)}
               for axis, names in AXES.items()}
            for index, one in found.classes.items()}  # fmt: skip


def _in_numbers(cell: Cell) -> dict[str, float]:
    return {"recall": round(cell.recall, 4), "parts": cell.num_parts, "patients": cell.num_patients}


class Gap(NamedTuple):
    """A cell in which the model misses more than elsewhere."""

    class_index: int
    axis: Axis
    name: str
    cell: Cell


def worst(found: Weakness, count: int) -> list[Gap]:
    """The cells with the lowest recall, of those with MIN_PARTS parts and a recall clearly below that of their class; the lowest
    first, at most one of a class and axis."""
    gaps = []
    for index, one in found.classes.items():
        for axis, names in AXES.items():
            told = [Gap(index, axis, name, cell) for name, cell in zip(names, one.axes[axis], strict=True)
                    if cell.num_parts >= MIN_PARTS and cell.recall <= one.recall - WORSE_BY]  # fmt: skip
            gaps += sorted(told, key=lambda gap: gap.cell.recall)[:1]
    return sorted(gaps, key=lambda gap: gap.cell.recall)[:count]


def _class_weakness(parts: Sequence[Part]) -> ClassWeakness:
    recalls = np.array([part.recall for part in parts])
    whole = float(recalls.mean())
    sizes = _edges([part.area for part in parts])
    contrasts = _edges([part.contrast for part in parts if not np.isnan(part.contrast)])
    bins: dict[Axis, list[int]] = {
        "size": [_bin(part.area, sizes) for part in parts],
        "contrast": [-1 if np.isnan(part.contrast) else _bin(part.contrast, contrasts) for part in parts],
        "place": [part.place for part in parts],
    }
    axes = {axis: tuple(_cell(parts, np.array(found) == place, whole) for place in range(len(AXES[axis])))
            for axis, found in bins.items()}  # fmt: skip
    both = list(zip(bins["size"], bins["place"], strict=True))
    cells = {pair: _cell(parts, np.array([other == pair for other in both]), whole) for pair in sorted(set(both))}
    return ClassWeakness(whole, len(parts), len({part.group for part in parts}), sizes, contrasts, axes, cells)


def _cell(parts: Sequence[Part], chosen: NDArray[np.bool_], whole: float) -> Cell:
    found = [part for part, is_chosen in zip(parts, chosen, strict=True) if is_chosen]
    total = sum(part.recall for part in found) + PRIOR_PARTS * whole
    return Cell(total / (len(found) + PRIOR_PARTS), len(found), len({part.group for part in found}))


def _edges(values: Sequence[float]) -> tuple[float, float]:
    """Terciles."""
    if not values:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [1 / 3, 2 / 3])
    return float(low), float(high)


def _bin(value: float, edges: tuple[float, float]) -> int:
    return int(value > edges[0]) + int(value > edges[1])
