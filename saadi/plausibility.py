"""Does a synthetic image look like a real one, and not like a certain one? Two-sided, calibrated on unseen real images.

After the quality check of MedDiff-FT (arXiv:2507.00377), whose extractor and threshold are not published: in each feature space
the mean distance to the five nearest real training images, against what real images of unseen patients have. Too far is
implausible; too near to one image is a copy. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
NEAR_AT_MOST = 0.5
"""Half as far as an unseen real image is no copy yet, however alike the real ones are to each other."""
MIN_TRAINING = 8
MIN_PATIENTS = 3
MIN_CLASS_PX = 30
"""Of the 128 x 128 on which a class is looked at; fewer tell nothing about its looks."""
CLASS_LOOK = "class-look-1"
"""Name of what `class_looks` computes; a new name when it computes something else."""
SIDE = 128
CLASS_LOOK_VALUES = 15
CHUNK = 1024
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
    patients: NDArray[np.int64]
    """(N,) whose they are."""
    typical: float
    """Median over real images of the mean distance to the nearest ones of other patients."""
    far: float
    """Their upper limit: the share `TOO_FAR` lies beyond."""
    nearest: float
    """Median of the distance to the very nearest one."""

    @classmethod
    def of(cls, features: Features, patients: NDArray[np.int64], is_training: NDArray[np.bool_]) -> Self | None:
        """The limits are set by all images, each against the training images of other patients; None with too few to tell.

        Args:
            features: (N, D) of training images and of others.
            patients: (N,) whose they are.
            is_training: (N,)
        """
        training = features[is_training]
        if len(training) < MIN_TRAINING or len(np.unique(patients)) < MIN_PATIENTS:
            return None
        if len(np.unique(patients[is_training])) < 2:  # those of the only training patient would have nobody to be compared with
            return None
        center, spread = training.mean(0), training.std(0)
        scale = (np.maximum(spread, 0.1 * spread.mean() + 1e-6) * np.sqrt(training.shape[1])).astype(np.float32)
        scaled = ((training - center) / scale).astype(np.float32)
        unit = cls(center, scale, scaled, patients[is_training], 1.0, 1.0, 1.0)
        means, nearest, _ = unit.ratios(features, patients)
        typical = max(float(np.median(means)), 1e-9)
        return replace(unit, typical=typical, far=float(np.quantile(means, 1 - TOO_FAR)) / typical,
                       nearest=max(float(np.median(nearest)), 1e-9))  # fmt: skip

    def ratios(
        self, features: Features, patients: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """(N,) each: mean distance to the nearest training images in units of `typical`, distance to the very nearest in units of
        `nearest`, and which one that is.

        Args:
            patients: (N,) whose training images do not count; None = all count.
        """
        starts = range(0, len(features), CHUNK)  # 10,000 x 5,000 distances would take a gigabyte
        found = [self._ratios(features[first : first + CHUNK], None if patients is None else patients[first : first + CHUNK])
                 for first in starts]  # fmt: skip
        if not found:
            return np.empty(0), np.empty(0), np.empty(0, np.int64)
        means, nearest, which = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return means, nearest, which

    def _ratios(
        self, features: Features, patients: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        a, b = ((features - self.center) / self.scale).astype(np.float64), self.training.astype(np.float64)
        squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
        if patients is not None:
            squared[patients[:, None] == self.patients[None]] = np.inf
        count = min(NEIGHBOURS, len(b))
        chosen = np.argpartition(squared, count - 1, axis=1)[:, :count]
        # The short way above loses digits where two vectors are almost equal, which is what copies are.
        exact = np.linalg.norm(a[:, None] - b[chosen], axis=2)
        exact[np.isinf(np.take_along_axis(squared, chosen, axis=1))] = np.nan  # fewer of other patients than are asked for
        first = np.nanargmin(exact, axis=1)
        rows = np.arange(len(a))
        return np.nanmean(exact, axis=1) / self.typical, exact[rows, first] / self.nearest, chosen[rows, first]


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
    """Smallest nearness that passes: of unseen real images at most `TOO_NEAR` have less."""

    @classmethod
    def of(
        cls, features: Mapping[str, Features], classes: Sequence[ClassLooks], *, patients: Sequence[str],
        is_training: Sequence[bool],
    ) -> Self | None:  # fmt: skip
        """The yardstick, or None with too few images or patients.

        Args:
            features: Space -> (N, D) of all real images.
            classes: What `class_looks` found in each of them.
            patients: Whose they are.
            is_training: Which of them are compared with; all set the limits, each against those of other patients.
        """
        codes, known = np.unique(list(patients), return_inverse=True)[1], np.array(is_training, bool)
        if not known.any():
            return None
        spaces = {name: space for name, rows in features.items() if (space := Space.of(rows, codes, known)) is not None}
        if not spaces:
            return None
        of_class: dict[int, Space] = {}
        for index in sorted({index for looks in classes for index in looks}):
            rows = _holders(classes, index)
            if known[rows].any() and (space := Space.of(_rows(classes, index), codes[rows], known[rows])) is not None:
                of_class[index] = space
        found = cls(spaces, of_class, np.inf, 0.0).judge(features, classes, patients=codes)
        return cls(spaces, of_class, float(np.quantile([one.strangeness for one in found], 1 - TOO_FAR)),
                   min(NEAR_AT_MOST, float(np.quantile([one.nearness for one in found], TOO_NEAR))))  # fmt: skip

    def judge(
        self, features: Mapping[str, Features], classes: Sequence[ClassLooks], *, patients: NDArray[np.int64] | None = None
    ) -> list[Plausibility]:
        """What is found about each image.

        Args:
            features: Space -> (N, D), for every space of `spaces`.
            classes: Of each image what `class_looks` found under the label map that was asked for.
            patients: (N,) whose training images do not count; None = all count.
        """
        count = len(classes)
        strangeness, reasons = np.zeros(count), np.array([""] * count, dtype=object)
        nearness, which = np.zeros(count), np.full(count, -1)

        def stranger(rows: NDArray[np.int64], values: NDArray[np.float64], reason: str) -> None:
            larger = values > strangeness[rows]
            strangeness[rows[larger]], reasons[rows[larger]] = values[larger], reason

        every = np.arange(count)
        for name, space in self.spaces.items():
            far, near, found = space.ratios(features[name], patients)
            stranger(every, far / space.far, name)
            nearness = np.maximum(nearness, near)
            which = np.where(which < 0, found, which)
        for index, space in self.classes.items():
            rows = _holders(classes, index)
            if len(rows):
                own = patients[rows] if patients is not None else None
                stranger(rows, space.ratios(_rows(classes, index), own)[0] / space.far, f"class {index}")
        return [self._told(*one) for one in zip(strangeness, nearness, reasons, which, strict=True)]

    def _told(self, strangeness: float, nearness: float, reason: str, which: int) -> Plausibility:
        verdict: Verdict = "plausible"
        if nearness < self.near:
            verdict = "copy"
        elif strangeness > self.far:
            verdict = "implausible"
        return Plausibility(verdict, float(strangeness), float(nearness), reason, int(which))


def _rows(looks: Sequence[ClassLooks], index: int) -> Features:
    found = [one[index] for one in looks if index in one]
    return np.stack(found) if found else np.empty((0, CLASS_LOOK_VALUES), np.float32)


def _holders(looks: Sequence[ClassLooks], index: int) -> NDArray[np.int64]:
    return np.array([row for row, one in enumerate(looks) if index in one], dtype=np.int64)
