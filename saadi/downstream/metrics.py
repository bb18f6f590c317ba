"""Agreement of label maps per class; pure numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from saadi.errors import SizeMismatchError
from saadi.records import IGNORE, LabelMap


@dataclass(frozen=True)
class Fidelity:
    """How far a downstream model sees in an image what was asked for, 0..1."""

    mean: float
    per_class: dict[int, float]
    """Class index -> the same for one class; only classes that were asked for."""


@dataclass(frozen=True)
class ClassAgreement:
    """How well one class of a predicted label map covers the asked one; all in 0..1."""

    dice: float
    iou: float
    recall: float
    """Share of the asked pixels that were found; 0 where the class was not asked for."""


def agreement(predicted: LabelMap, asked: LabelMap, *, num_classes: int) -> dict[int, ClassAgreement]:
    """Agreement of every class that occurs in either label map.

    Args:
        predicted: (H, W) uint8.
        asked: (H, W) uint8; pixels of value 255 count for nobody.

    Raises:
        SizeMismatchError: The shapes differ.
    """
    if predicted.shape != asked.shape:
        raise SizeMismatchError(f"predicted label map is {predicted.shape}, asked one is {asked.shape}; scale one of them first")
    counted = asked != IGNORE
    pairs = asked[counted].astype(np.int64) * num_classes + predicted[counted]
    confusion = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    both, wanted, found = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    return {
        index: ClassAgreement(
            dice=float(2 * both[index] / (wanted[index] + found[index])),
            iou=float(both[index] / (wanted[index] + found[index] - both[index])),
            recall=float(both[index] / wanted[index]) if wanted[index] else 0.0,
        )
        for index in range(num_classes)
        if wanted[index] + found[index] > 0
    }


def f1_per_class(predicted: Sequence[int], actual: Sequence[int]) -> dict[int, float]:
    """F1 of each class that occurs among the actual ones: what an image shows or does not show as a whole."""
    said, is_it = np.asarray(predicted), np.asarray(actual)
    return {
        int(index): float(2 * ((said == index) & (is_it == index)).sum() / ((said == index).sum() + (is_it == index).sum()))
        for index in np.unique(is_it)
    }


def mean_over_asked(classes: dict[int, ClassAgreement], asked: LabelMap, field: str = "dice") -> float:
    """Mean over the classes present in the asked label map, background left out (absent classes would reward emptiness).

    An asked label map of background only is scored on the background.
    """
    present = [index for index in np.unique(asked) if index not in (0, IGNORE)] or [0]
    return float(np.mean([getattr(classes[index], field) for index in present if index in classes] or [1.0]))
