"""Is an image a copy of a training image, also a flipped, brightened, cropped or recompressed one?

Three measures, each blind where another sees: the correlation of small grey images in all eight orientations and against cropped
references, the perceptual hash (Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010), and the
verifier's eyes (`saadi.privacy.verifier`). How near an image of somebody else comes is learnt from patients whom nothing was
learnt from; an image that comes nearer than almost all of theirs is held to be a copy. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from saadi.records import Image

SIDE = 24
"""Of the small grey images."""
HASH_SIDE, HASH_INPUT = 8, 32
CROPS = ((1.0, 1), (0.95, 2), (0.9, 3))
"""Sides of the references' crops as shares, and how many there are along each axis."""
FALSE_FLAGS = 0.04
"""Share of an unseen patient's images that may be flagged, on average over patients."""
MIN_UNSEEN = 8
"""With fewer images of others nobody knows how near strangers come."""
CHUNK = 32
"""Queries at a time: against 10,000 references each takes 180 MB."""
SAME_PICTURE = 0.99
"""Correlation from which on a stranger's image shows a training image itself: strangers' come to 0.97 on Kvasir-SEG and 0.90 in
rendered scenes, recompressed and brightened copies to 0.99 and more."""
SMALLEST_SPREAD = 0.1
"""A hash moves in steps of a sixteenth: where most strangers lie on one step, the next one is no copy yet."""

Table = NDArray[np.float32]


@dataclass(frozen=True)
class Traces:
    """What is compared of N images; as queries all orientations count, as references all crops."""

    greys: Table
    """(N, 8, 576) orientations of each, zero mean and unit length."""
    crops: Table
    """(N, 14, 576)."""
    hashes: NDArray[np.float32]
    """(N, 8, 64) orientations of each, +1 or -1."""
    embeddings: Table | None = None
    """(N, E) of unit length, by a verifier; None = nobody has looked."""

    @classmethod
    def of(cls, images: Sequence[Image], *, embeddings: Table | None = None) -> Self:
        """Of (H, W, 3) uint8 images of any size, 1 ms each."""
        if not images:
            raise ValueError("images expected; got none")
        small = [cv2.cvtColor(cv2.resize(image, (96, 96), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY) for image in images]
        turned = [[np.ascontiguousarray(one) for one in orientations(grey)] for grey in small]
        return cls(np.stack([[_grey(one) for one in ones] for ones in turned]),
                   np.stack([[_grey(part) for part in _parts(grey)] for grey in small]),
                   np.stack([[_hash(one) for one in ones] for ones in turned]), embeddings)  # fmt: skip

    def __len__(self) -> int:
        return len(self.greys)

    def take(self, places: Sequence[int] | NDArray[np.int64]) -> Traces:
        """The same of some of them."""
        found = np.asarray(places, np.int64)
        return Traces(self.greys[found], self.crops[found], self.hashes[found],
                      None if self.embeddings is None else self.embeddings[found])  # fmt: skip


def orientations(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The eight that flips and quarter turns give."""
    return [np.rot90(one, turns) for one in (pixels, pixels[:, ::-1]) for turns in range(4)]


def _parts(grey: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    found = []
    for share, count in CROPS:
        side = round(len(grey) * share)
        begins = np.linspace(0, len(grey) - side, count).round().astype(int)
        found += [grey[top : top + side, left : left + side] for top in begins for left in begins]
    return found


def _grey(pixels: NDArray[np.uint8]) -> Table:
    flat = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    flat -= flat.mean()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-6), np.float32)


def _hash(pixels: NDArray[np.uint8]) -> Table:
    """The signs of the lowest frequencies against their median."""
    spectrum = cv2.dct(cv2.resize(pixels, (HASH_INPUT, HASH_INPUT), interpolation=cv2.INTER_AREA).astype(np.float32))
    low = spectrum[:HASH_SIDE, :HASH_SIDE].ravel()
    return np.where(low > np.median(low[1:]), 1.0, -1.0).astype(np.float32)


def similarities(queries: Traces, references: Traces) -> dict[str, Table]:
    """Measure -> (N, M) how alike each query and each reference are, at most 1, by the orientation and crop that fit best."""
    found: dict[str, list[Table]] = {"pixels": [], "hash": [], "verifier": []}
    width = references.crops.reshape(-1, SIDE * SIDE)
    for first in range(0, len(queries), CHUNK):
        greys, hashes = queries.greys[first : first + CHUNK], queries.hashes[first : first + CHUNK]
        count = len(greys)
        fits = greys.reshape(-1, SIDE * SIDE) @ width.T
        found["pixels"].append(fits.reshape(count, greys.shape[1], len(references), -1).max((1, 3)))
        signs = hashes.reshape(-1, HASH_SIDE**2) @ references.hashes[:, 0].T / HASH_SIDE**2
        found["hash"].append(signs.reshape(count, hashes.shape[1], len(references)).max(1))
        if queries.embeddings is not None and references.embeddings is not None:
            found["verifier"].append(queries.embeddings[first : first + CHUNK] @ references.embeddings.T)
    return {name: np.concatenate(parts) for name, parts in found.items() if parts}


@dataclass(frozen=True)
class Yardstick:
    """How near images of strangers come to the training images."""

    centres: Mapping[str, float]
    spreads: Mapping[str, float]
    """Of each measure, over strangers' nearest training images."""
    limit: float
    """From where on an image is flagged, in spreads above the centre, by the measure that is farthest."""
    num_strangers: int
    by_held_out: bool
    """The strangers are held-out patients; else training patients against each other."""

    @classmethod
    def of_nearest(
        cls, strangers: Mapping[str, NDArray[np.floating]], patients: Sequence[str], *, by_held_out: bool
    ) -> Self | None:
        """From each stranger's largest similarity to a training image, by measure; None with fewer than MIN_UNSEEN of them.

        Args:
            patients: Of the (N,) strangers' images. Frames of one patient are alike and say less than as many patients.
        """
        num = len(next(iter(strangers.values()), ()))
        if num < MIN_UNSEEN:
            return None
        # Shares of what is left to 1 are compared, so that a measure whose strangers lie at 0.98 is not drowned by another.
        far = {name: _far(values) for name, values in strangers.items()}
        centres = {name: float(np.median(values)) for name, values in far.items()}
        spreads = {name: max(float(np.quantile(values, 0.9) - centres[name]), SMALLEST_SPREAD) for name, values in far.items()}
        stick = cls(centres, spreads, 0.0, num, by_held_out)
        return cls(centres, spreads, _limit(stick.scores(strangers), patients), num, by_held_out)

    def scores(self, found: Mapping[str, NDArray[np.floating]]) -> NDArray[np.float64]:
        """(N, M), or (N,) of the largest similarities: how unusually near each query and reference are, in spreads above the
        strangers' centre, by the measure that says most."""
        by_measure = [(_far(found[name]) - self.centres[name]) / self.spreads[name] for name in self.centres]
        return np.asarray(np.max(by_measure, axis=0))

    def flags(self, found: Mapping[str, Table]) -> NDArray[np.bool_]:
        """(N,) whether some reference is nearer than strangers come."""
        return np.asarray(self.scores(found).max(1) > self.limit)


def of_others(
    nearest: Mapping[str, NDArray[np.floating]], patients: Sequence[str]
) -> tuple[dict[str, NDArray[np.floating]], list[str], int]:
    """Strangers' largest similarities, by measure, and their patients, without images that show a training image itself; and how
    many those are. A picture on both sides says nothing of how near strangers come, and a limit beyond it finds no copy."""
    is_other = np.asarray(nearest["pixels"]) < SAME_PICTURE
    return ({name: values[is_other] for name, values in nearest.items()}, list(np.asarray(patients)[is_other]),
            int((~is_other).sum()))  # fmt: skip


def _limit(scores: NDArray[np.float64], patients: Sequence[str]) -> float:
    """Beyond which at most FALSE_FLAGS of the images of one more patient lie, on average over patients drawn like these.

    Hierarchical conformal prediction (Lee, Barber and Willett, "Distribution-free inference with hierarchical data", 2023): every
    patient weighs the same, and one more patient, of whom nothing is known, weighs as much as each. With fewer than
    1 / FALSE_FLAGS - 1 patients no limit can promise that; it is the nearest image of them all then. Where several measures make
    a score, it holds approximately: their scales come from the same strangers.
    """
    _, whose, counts = np.unique(np.asarray(patients), return_inverse=True, return_counts=True)
    order = np.argsort(scores)
    below = np.cumsum(1 / counts[whose][order]) / (len(counts) + 1)
    place = int(np.searchsorted(below, 1 - FALSE_FLAGS - 1e-9))
    return float(scores[order][min(place, len(scores) - 1)])


def planted(image: Image, draw: np.random.Generator, *, how: str) -> Image:
    """A copy as somebody might pass it on: 'exact', 'turned', 'brighter', 'jpeg' (quality 40) or 'cropped' to 90 to 95 %."""
    if how == "turned":
        return np.ascontiguousarray(orientations(image)[int(draw.integers(1, 8))])
    if how == "brighter":
        return np.clip(image.astype(np.float64) * draw.choice([0.75, 1.3]) + draw.uniform(-15, 15), 0, 255).astype(np.uint8)
    if how == "jpeg":
        coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
        return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    if how == "cropped":
        side = int(len(image) * draw.uniform(0.9, 0.95))
        top, left = draw.integers(len(image) - side + 1, size=2)
        return np.asarray(cv2.resize(image[top : top + side, left : left + side], image.shape[1::-1]), np.uint8)
    return image


CHANGES = ("exact", "turned", "brighter", "jpeg", "cropped")
NUM_PLANTED = 50


def some_planted(images: Sequence[Image]) -> list[Image]:
    """Copies of up to NUM_PLANTED of them, as many of each kind, the same each time: are copies found at all?"""
    draw = np.random.default_rng(0)
    return [planted(images[place], draw, how=CHANGES[number % len(CHANGES)])
            for number, place in enumerate(draw.permutation(len(images))[:NUM_PLANTED])]  # fmt: skip


def _far(similarity: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rises without end as a similarity goes to 1: that of a copy is as far from 0.95 as 0.95 is from an ordinary one."""
    return np.asarray(-np.log(np.clip(1 - np.asarray(similarity, np.float64), 1e-3, 2.0)))
