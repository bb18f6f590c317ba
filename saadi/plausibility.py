"""Does a synthetic image look like a real one, and not like a certain one? Two-sided, calibrated on unseen real images.

After the quality check of MedDiff-FT (arXiv:2507.00377), whose extractor and threshold are not published: in each feature space
the mean distance to the five nearest real training images, against what real images of unseen patients have. Too far is
implausible; too near to one image is a copy. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from saadi.quality import Features
from saadi.records import IGNORE, Image, LabelMap

NEIGHBOURS = 5
TOO_FAR = 0.05
"""Share of unseen real images that would be called implausible: what that limit is set by."""
TOO_NEAR = 0.01
"""Share of them that would be called copies: narrower, as patients differ in how much they resemble each other."""
MIN_TRAINING = 8
MIN_UNSEEN = 8
MIN_CLASS_PX = 30
"""Of the 128 x 128 on which a class is looked at; fewer tell nothing about its looks."""
CLASS_LOOK = "class-look-1"
"""Name of what `class_looks` computes; a new name when it computes something else."""
SIDE = 128
CLASS_LOOK_VALUES = 15
ClassLooks = Mapping[int, NDArray[np.float32]]
"""Class index -> what it looks like in one image; see `class_looks`."""
Verdict = Literal["plausible", "implausible", "copy"]


def class_looks(image: Image, label_map: LabelMap) -> dict[int, NDArray[np.float32]]:
    """Class index -> (15,) looks of its pixels: mean, standard deviation, 10th and 90th percentile of Lab, and mean gradient of
    each channel. Classes with fewer than `MIN_CLASS_PX` pixels are left out; background is a class here.
    """
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    where = cv2.resize(label_map, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST_EXACT)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
    steep = np.abs(cv2.Sobel(lab, cv2.CV_32F, 1, 0)) + np.abs(cv2.Sobel(lab, cv2.CV_32F, 0, 1))
    found: dict[int, NDArray[np.float32]] = {}
    for index in np.unique(where):
        inside = where == index
        if index == IGNORE or inside.sum() < MIN_CLASS_PX:
            continue
        pixels = lab[inside]
        low, high = np.quantile(pixels, [0.1, 0.9], axis=0)
        found[int(index)] = np.concatenate([pixels.mean(0), pixels.std(0), low, high, steep[inside].mean(0)]).astype(np.float32)
    return found


@dataclass(frozen=True)
class Space:
    """Real training images in one feature space, and how far unseen real ones lie from them."""

    center: NDArray[np.float32]
    scale: NDArray[np.float32]
    training: Features
    """(N, D), scaled."""
    typical: float
    """Median over unseen real images of the mean distance to the nearest ones."""
    far: float
    """Their upper limit: the share `TOO_FAR` lies beyond."""
    nearest: float
    """Median over unseen real images of the distance to the very nearest one."""

    @classmethod
    def of(cls, training: Features, unseen: Features) -> Self | None:
        """None with too few images on either side to tell anything."""
        if len(training) < MIN_TRAINING or len(unseen) < MIN_UNSEEN:
            return None
        center = training.mean(0)
        spread = training.std(0)
        scale = (np.maximum(spread, 0.1 * spread.mean() + 1e-6) * np.sqrt(training.shape[1])).astype(np.float32)
        scaled = ((training - center) / scale).astype(np.float32)
        means, nearest, _ = _distances((unseen - center) / scale, scaled)
        typical = max(float(np.median(means)), 1e-9)
        return cls(center, scale, scaled, typical, float(np.quantile(means, 1 - TOO_FAR)) / typical,
                   max(float(np.median(nearest)), 1e-9))  # fmt: skip

    def ratios(self, features: Features) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """(N,) each: mean distance to the nearest training images in units of `typical`, distance to the very nearest in units of
        `nearest`, and which one that is."""
        means, nearest, which = _distances((features - self.center) / self.scale, self.training)
        return means / self.typical, nearest / self.nearest, which


@dataclass(frozen=True)
class Plausibility:
    """What is found about one image."""

    verdict: Verdict
    strangeness: float
    """1 = as far from the real ones as the limit; the largest over all spaces."""
    nearness: float
    """1 = as far from the nearest real image as an unseen real one, 0 = that image; the largest over the whole-image spaces."""
    reason: str
    """The space that decided: of whole images its name, of a class 'class 3'."""
    nearest: int
    """Position of the nearest training image in the first whole-image space."""


@dataclass(frozen=True)
class RealImages:
    """The yardstick of a project: spaces of whole images and of classes, and one limit for all of them together."""

    spaces: Mapping[str, Space]
    """Of whole images, by name; at least one."""
    classes: Mapping[int, Space]
    """Of the looks of a class; those with too few images are left out and judge nothing."""
    far: float
    """Largest strangeness that passes: of unseen real images `TOO_FAR` have more."""
    near: float
    """Smallest nearness that passes: of unseen real images `TOO_NEAR` have less."""

    @classmethod
    def of(
        cls, training: Mapping[str, Features], unseen: Mapping[str, Features], *, training_classes: Sequence[ClassLooks],
        unseen_classes: Sequence[ClassLooks],
    ) -> Self | None:  # fmt: skip
        """The yardstick, or None with too few images.

        Args:
            training, unseen: Space -> (N, D) of training images, (M, D) of images of other patients.
            training_classes, unseen_classes: What `class_looks` found in each of them, in the same order.
        """
        spaces = {name: space for name in training if (space := Space.of(training[name], unseen[name])) is not None}
        if not spaces:
            return None
        indices = {index for looks in training_classes for index in looks}
        classes = {index: space for index in sorted(indices)
                   if (space := Space.of(_rows(training_classes, index), _rows(unseen_classes, index))) is not None}  # fmt: skip
        open_ended = cls(spaces, classes, np.inf, 0.0)
        found = open_ended.judge({name: unseen[name] for name in spaces}, unseen_classes)
        return cls(spaces, classes, float(np.quantile([one.strangeness for one in found], 1 - TOO_FAR)),
                   float(np.quantile([one.nearness for one in found], TOO_NEAR)))  # fmt: skip

    def judge(self, features: Mapping[str, Features], classes: Sequence[ClassLooks]) -> list[Plausibility]:
        """What is found about each image.

        Args:
            features: Space -> (N, D), for every space of `spaces`.
            classes: Of each image what `class_looks` found under the label map that was asked for.
        """
        count = len(classes)
        strangeness, reasons = np.zeros(count), np.array([""] * count, dtype=object)
        nearness, which = np.zeros(count), np.full(count, -1)

        def stranger(rows: NDArray[np.int64], values: NDArray[np.float64], reason: str) -> None:
            larger = values > strangeness[rows]
            strangeness[rows[larger]], reasons[rows[larger]] = values[larger], reason

        every = np.arange(count)
        for name, space in self.spaces.items():
            far, near, found = space.ratios(features[name])
            stranger(every, far / space.far, name)
            nearness = np.maximum(nearness, near)
            which = np.where(which < 0, found, which)
        for index, space in self.classes.items():
            rows = np.array([row for row, looks in enumerate(classes) if index in looks], dtype=np.int64)
            if len(rows):
                stranger(rows, space.ratios(_rows(classes, index))[0] / space.far, f"class {index}")
        return [self._told(*one) for one in zip(strangeness, nearness, reasons, which, strict=True)]

    def _told(self, strangeness: float, nearness: float, reason: str, which: int) -> Plausibility:
        verdict: Verdict = "plausible"
        if nearness < self.near:
            verdict, reason = "copy", next(iter(self.spaces))
        elif strangeness > self.far:
            verdict = "implausible"
        return Plausibility(verdict, float(strangeness), float(nearness), reason, int(which))


def _rows(looks: Sequence[ClassLooks], index: int) -> Features:
    found = [one[index] for one in looks if index in one]
    return np.stack(found) if found else np.empty((0, CLASS_LOOK_VALUES), np.float32)


def _distances(
    features: Features, reference: Features
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Mean Euclidean distance to the nearest rows of the reference, distance to the very nearest, and which one that is."""
    a, b = features.astype(np.float64), reference.astype(np.float64)
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    count = min(NEIGHBOURS, len(b))
    chosen = np.argpartition(squared, count - 1, axis=1)[:, :count]
    # The short way above loses digits where two vectors are almost equal, which is what copies are.
    exact = np.linalg.norm(a[:, None] - b[chosen], axis=2)
    first = exact.argmin(1)
    rows = np.arange(len(a))
    return exact.mean(1), exact[rows, first], chosen[rows, first]
