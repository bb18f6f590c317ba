"""Distances between sets of images in a feature space; pure numpy, no weights, so that no gate depends on a download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from saadi.records import Image

Features = NDArray[np.float32]
"""(N, D) float32."""
LOOK = "appearance-1"
"""Name of what `look` computes; a new name when it computes something else, so that stored vectors are never mixed."""
LAYOUT_CELLS = 4
MIN_UNSEEN = 8
"""Held-out images from which on they are the yardstick; with fewer, training images of other patients are."""
NEAREST_CHUNK = 1024
COVERAGE_NEIGHBOURS = 5


def selector_space(model_id: int) -> str:
    """Name of the vectors that a selector makes of images; see `saadi.downstream.scoring`."""
    return f"selector-{model_id}"


def standardised(features: Features, reference: Features) -> Features:
    """Features scaled by mean and standard deviation of the reference set, so that no dimension rules a distance."""
    return np.asarray((features - reference.mean(0)) / (reference.std(0) + 1e-6), dtype=np.float32)


def kernel_distance(first: Features, second: Features) -> float:
    """Unbiased squared MMD with the cubic kernel (x.y / d + 1)^3 (Binkowski et al. 2018): "KID" in our features, unscaled.

    About 0 for two draws of one distribution (it may be slightly negative); never call it FID or standard KID.
    """
    scale = first.shape[1]
    a, b = first.astype(np.float64), second.astype(np.float64)
    within_a, within_b, across = ((x @ y.T / scale + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    n, m = len(a), len(b)
    return float(
        (within_a.sum() - within_a.trace()) / (n * (n - 1))
        + (within_b.sum() - within_b.trace()) / (m * (m - 1))
        - 2 * across.mean()
    )


def leave_one_out_distances(first: Features, second: Features) -> NDArray[np.float64]:
    """(N,) `kernel_distance` without row i of the first set, for the jackknife error of a distance or of a difference of two."""
    scale = first.shape[1]
    a, b = first.astype(np.float64), second.astype(np.float64)
    within_a, within_b, across = ((x @ y.T / scale + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    n, m = len(a), len(b)
    off_diagonal = within_a.sum() - within_a.trace()
    left = off_diagonal - 2 * (within_a.sum(1) - within_a.diagonal())
    rest = (within_b.sum() - within_b.trace()) / (m * (m - 1))
    return np.asarray(left / ((n - 1) * (n - 2)) + rest - 2 * (across.sum() - across.sum(1)) / ((n - 1) * m))


def jackknife_error(left_out: NDArray[np.float64]) -> float:
    """Standard error of a statistic from its leave-one-out values (Efron and Stein 1981)."""
    n = len(left_out)
    return float(np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()))


def appearance(images: Sequence[Image]) -> Features:
    """(N, 24) colour, contrast and sharpness statistics: sees the colour collapse to which a mask-driven judge is blind.

    Per image: mean, standard deviation, 10th and 90th percentile of the three Lab channels (12), mean absolute gradient at
    three scales per channel (9), share of clipped highlights, of black, and mean local contrast (3). Scaled to 128 px first.
    """
    return np.stack([_appearance(image) for image in images]).astype(np.float32)


def _appearance(image: Image) -> NDArray[np.float32]:
    small = cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
    flat = lab.reshape(-1, 3)
    values = [flat.mean(0), flat.std(0), np.percentile(flat, 10, axis=0), np.percentile(flat, 90, axis=0)]
    for side in (128, 64, 32):
        scaled = cv2.resize(lab, (side, side), interpolation=cv2.INTER_AREA)
        values.append(np.abs(np.diff(scaled, axis=0)).mean((0, 1)) + np.abs(np.diff(scaled, axis=1)).mean((0, 1)))
    grey = lab[..., 0]
    local = cv2.blur(grey**2, (9, 9)) - cv2.blur(grey, (9, 9)) ** 2
    values.append(np.array([(small.min(2) > 245).mean(), (small.max(2) < 12).mean(), np.sqrt(local.clip(0)).mean()]))
    return np.concatenate(values).astype(np.float32)


def vendi_score(features: Features) -> float:
    """Effective number of different images: exp of the entropy of the similarity matrix's eigenvalues (Friedman and Dieng
    2023)."""
    unit = features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-9)
    eigenvalues = np.linalg.eigvalsh(unit @ unit.T / len(unit)).clip(1e-12)
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


def coverage(features: Features, reference: Features, *, neighbours: int = COVERAGE_NEIGHBOURS) -> float | None:
    """Share of reference rows that have one of these within reach of their own k-th nearest fellow (Naeem et al. 2020): falls
    where a generator leaves some kinds of real images out, which its variety alone does not tell.

    Returns:
        0..1; None where the reference has no more than k rows.
    """
    if len(reference) <= neighbours:
        return None
    within = np.sort(_distances(reference, reference), axis=1)[:, neighbours]  # column 0 is the row itself
    return round(float((_distances(reference, features).min(1) <= within).mean()), 4)


def density(features: Features, reference: Features, *, neighbours: int = COVERAGE_NEIGHBOURS) -> float | None:
    """In how many reference rows' reach (to their own k-th nearest fellow) a row lies, in k-ths, on average (Naeem et al. 2020):
    1 where it lies as thickly as the reference, less where it lies beside it.

    Returns:
        0 or more; None where the reference has no more than k rows.
    """
    if len(reference) <= neighbours:
        return None
    within = np.sort(_distances(reference, reference), axis=1)[:, neighbours]
    return round(float((_distances(features, reference) <= within).sum(1).mean() / neighbours), 4)


def _distances(first: Features, second: Features) -> NDArray[np.float64]:
    a, b = first.astype(np.float64), second.astype(np.float64)
    return np.asarray(np.sqrt(((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T).clip(0)))


def nearest_distance(features: Features, reference: Features) -> NDArray[np.float32]:
    """(N,) Euclidean distance to the nearest row of the reference set."""
    squared = (features**2).sum(1)[:, None] + (reference**2).sum(1)[None] - 2 * features @ reference.T
    return np.asarray(np.sqrt(squared.clip(0)).min(1), dtype=np.float32)


def paired_interval(
    differences: Sequence[float], *, seed: int = 0, draws: int = 2000, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean of paired differences and its bootstrap percentile interval: (mean, low, high)."""
    values = np.asarray(differences, dtype=np.float64)
    generator = np.random.default_rng(seed)
    means = values[generator.integers(0, len(values), (draws, len(values)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(values.mean()), float(low), float(high)


def look(image: Image) -> NDArray[np.float32]:
    """(72,) what a picture looks like at a glance: `appearance` (24), then mean Lab colour of 4 x 4 fields (48)."""
    small = cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
    layout = cv2.resize(lab, (LAYOUT_CELLS, LAYOUT_CELLS), interpolation=cv2.INTER_AREA)
    return np.concatenate([_appearance(image), layout.ravel()]).astype(np.float32)


def look_floor() -> NDArray[np.float32]:
    """(72,) smallest spread that counts in `look`: one grey level, or half a percent of the pixels.

    A project whose real frames never clip would otherwise call one white pixel the farthest thing there is.
    """
    floor = np.ones(24 + 3 * LAYOUT_CELLS**2, np.float32)
    floor[21:23] = 0.005
    return floor


def nearest(features: Features, reference: Features) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Euclidean distance (N,) to the nearest row of the reference set, and that row's index (N,)."""
    distances, indices = np.empty(len(features), np.float32), np.empty(len(features), np.int64)
    lengths = (reference**2).sum(1)
    for first in range(0, len(features), NEAREST_CHUNK):  # 10,000 x 10,000 distances would be 400 MB
        chunk = features[first : first + NEAREST_CHUNK]
        squared = lengths[None] - 2 * chunk @ reference.T
        best = squared.argmin(1)
        indices[first : first + NEAREST_CHUNK] = best
        # The short way above loses digits where two vectors are almost equal, which is what copies are.
        distances[first : first + NEAREST_CHUNK] = np.linalg.norm(chunk - reference[best], axis=1)
    return distances, indices


@dataclass(frozen=True)
class Yardstick:
    """How far real images that training never saw lie from the training images: what "near" and "far" mean in a project."""

    center: NDArray[np.float32]
    scale: NDArray[np.float32]
    training: Features
    """(N, D), scaled."""
    unseen: NDArray[np.float32]
    """(M,) ascending: from each unseen real image to its nearest training image."""

    @classmethod
    def of(
        cls, training: Features, groups: Sequence[str], held_out: Features, *, floor: NDArray[np.float32] | float
    ) -> Self | None:
        """The yardstick of a project, or None with fewer than two training images.

        Args:
            training: (N, D) raw vectors of the training images.
            groups: Patient or video of each training image.
            held_out: (M, D) raw vectors of validation and test images. With fewer than `MIN_UNSEEN`, each training image takes
                their place, measured against those of other patients (against all others where there is one patient only).
            floor: Smallest standard deviation of a dimension that counts, in its own unit.
        """
        if len(training) < 2:
            return None
        center, spread = training.mean(0), np.maximum(training.std(0), floor)
        scale = (spread * np.sqrt(training.shape[1])).astype(np.float32)
        scaled = ((training - center) / scale).astype(np.float32)
        if len(held_out) >= MIN_UNSEEN:
            unseen, _ = nearest(((held_out - center) / scale).astype(np.float32), scaled)
        else:
            unseen = _left_out(scaled, groups)
        return cls(center, scale, scaled, np.sort(unseen))

    def nearest(self, features: Features) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Distance (N,) of raw vectors to the nearest training image, and its index (N,)."""
        return nearest(((features - self.center) / self.scale).astype(np.float32), self.training)

    def quality(self, distances: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) 1 = at most as far from the training images as the median unseen real image, 0.5 = twice as far, towards 0.

        One-sided on purpose: a copy gets 1 as well, and `share_farther` is what points at it.
        """
        typical = max(float(np.median(self.unseen)), 1e-6)
        return np.asarray(typical / np.maximum(distances, typical), dtype=np.float32)

    def share_farther(self, distances: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) share of the unseen real images that lie farther from the training images; 1 = nearer than every one of them."""
        return np.asarray(1 - np.searchsorted(self.unseen, distances, side="right") / len(self.unseen), dtype=np.float32)


def _left_out(scaled: Features, groups: Sequence[str]) -> NDArray[np.float32]:
    """(N,) distance of each image to its nearest one of another group, or to its nearest other one where there is one group."""
    names = np.asarray(groups)
    found = np.empty(len(scaled), np.float32)
    for name in np.unique(names):
        own = names == name
        if not own.all():
            found[own] = nearest(scaled[own], scaled[~own])[0]
            continue
        for index in range(len(scaled)):
            found[index] = nearest(scaled[index : index + 1], np.delete(scaled, index, 0))[0][0]
    return found
