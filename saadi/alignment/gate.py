"""The gate: fixed label maps and seeds judge every checkpoint; score and pair accuracy alone choose the worst models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saadi import quality
from saadi.downstream.metrics import agreement, mean_over_asked
from saadi.downstream.segmenter import Segmenter
from saadi.masks import fit_to
from saadi.records import Image, LabelMap

MIN_WIN_RATE = 0.5
DISTANCE_SLACK = 0.02
"""A distance to real images may grow by this, about that between two halves of one set of 200 real images, plus chance. A factor
of 1.15 on top once let plain DPO with beta 300 pass, with colour and texture at 3.6 after 2.9."""
MAX_WINNER_RATIO = 1.25
"""Held-out winner error against the reference's (docs/design.md): its size is the alarm, not its sign."""
MIN_VENDI_RATIO = 0.9
MIN_NEAREST_RATIO = 0.8
"""Median distance to the nearest training image against the reference's: below, the model has begun to copy."""

Make = Callable[[], list[Image]]


@dataclass(frozen=True)
class Reading:
    """What the gate measured on one set of images, all on the same label maps and seeds."""

    dice: tuple[float, ...]
    """Judge's Dice per label map."""
    selector_dice: tuple[float, ...]
    feature_distance: float
    """Kernel distance to held-out real images in the judge's features."""
    appearance_distance: float
    """The same in colour, contrast and sharpness statistics, to which the judge is blind."""
    feature_left_out: tuple[float, ...]
    """The feature distance without one mask after the other: says how noisy it is."""
    appearance_left_out: tuple[float, ...]
    vendi: float
    nearest: float
    """Median distance to the nearest training image in the judge's features."""


@dataclass(frozen=True)
class Verdict:
    """A checkpoint against its reference."""

    passed: bool
    win_rate: float
    win_rate_interval: tuple[float, float]
    dice_gain: tuple[float, float, float]
    """Mean paired gain of the judge's Dice with its 95 % bootstrap interval: (mean, low, high)."""
    winner_ratio: float
    reasons: tuple[str, ...]
    """One sentence per red number; empty when all are green."""


@dataclass
class Gate:
    """Holds the fixed inputs; measures images made for them."""

    label_maps: Sequence[LabelMap]
    selector: Segmenter
    judge: Segmenter
    num_classes: int
    real: Sequence[Image]
    """Held-out real images."""
    training: Sequence[Image]
    _real_features: NDArray[np.float32] = field(init=False)
    _training_features: NDArray[np.float32] = field(init=False)
    _real_appearance: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        raw = self.judge.features(list(self.real))
        self._reference = raw
        self._real_features = quality.standardised(raw, raw)
        self._training_features = quality.standardised(self.judge.features(list(self.training)), raw)
        self._raw_appearance = quality.appearance(self.real)
        self._real_appearance = quality.standardised(self._raw_appearance, self._raw_appearance)

    def read(self, images: Sequence[Image]) -> Reading:
        """Measure images, one per label map in order."""
        features = quality.standardised(self.judge.features(images), self._reference)
        appearance = quality.standardised(quality.appearance(images), self._raw_appearance)
        return Reading(
            dice=self._dice(self.judge, images),
            selector_dice=self._dice(self.selector, images),
            feature_distance=quality.kernel_distance(features, self._real_features),
            appearance_distance=quality.kernel_distance(appearance, self._real_appearance),
            feature_left_out=tuple(quality.leave_one_out_distances(features, self._real_features).tolist()),
            appearance_left_out=tuple(quality.leave_one_out_distances(appearance, self._real_appearance).tolist()),
            vendi=quality.vendi_score(features),
            nearest=float(np.median(quality.nearest_distance(features, self._training_features))),
        )

    def _asked(self, images: Sequence[Image]) -> list[LabelMap]:
        return [
            fit_to(label_map, size=(image.shape[0], image.shape[1]))
            for label_map, image in zip(self.label_maps, images, strict=True)
        ]

    def _dice(self, model: Segmenter, images: Sequence[Image]) -> tuple[float, ...]:
        found = model.predict(images)
        return tuple(
            mean_over_asked(agreement(prediction.label_map, asked, num_classes=self.num_classes), asked)
            for prediction, asked in zip(found, self._asked(images), strict=True)
        )


def compare(present: Reading, reference: Reading, *, winner_ratio: float) -> Verdict:
    """Judge a checkpoint against its reference on the same label maps and seeds."""
    gains = [after - before for after, before in zip(present.dice, reference.dice, strict=True)]
    wins = [1.0 if gain > 1e-6 else 0.0 if gain < -1e-6 else 0.5 for gain in gains]
    win_rate, win_low, win_high = quality.paired_interval(wins)
    gain = quality.paired_interval(gains)
    reasons: list[str] = []
    if win_rate <= MIN_WIN_RATE:
        reasons.append(f"the judge prefers the new images in only {win_rate:.0%} of the masks")
    if gain[0] < 0:
        reasons.append(f"mask fidelity fell by {-gain[0]:.3f} Dice")
    for name, now, before, now_left_out, before_left_out in (
        ("features", present.feature_distance, reference.feature_distance, present.feature_left_out, reference.feature_left_out),
        (
            "colour and texture",
            present.appearance_distance,
            reference.appearance_distance,
            present.appearance_left_out,
            reference.appearance_left_out,
        ),
    ):
        if moved_away(now, before, now_left_out, before_left_out):
            reasons.append(f"the images moved away from real ones in {name} ({before:.2f} to {now:.2f})")
    if not winner_ratio <= MAX_WINNER_RATIO:  # also when it is not a number
        reasons.append(f"the error on held-out winners grew to {winner_ratio:.2f} times the old one")
    if present.vendi < MIN_VENDI_RATIO * reference.vendi:
        reasons.append(f"variety fell from {reference.vendi:.1f} to {present.vendi:.1f} different images")
    if present.nearest < MIN_NEAREST_RATIO * reference.nearest:
        reasons.append("the images came closer to single training images")
    return Verdict(
        passed=not reasons,
        win_rate=win_rate,
        win_rate_interval=(win_low, win_high),
        dice_gain=gain,
        winner_ratio=winner_ratio,
        reasons=tuple(reasons),
    )


def moved_away(now: float, before: float, now_left_out: Sequence[float], before_left_out: Sequence[float]) -> bool:
    """Whether a distance grew by more than chance explains (one-sided 95 %, jackknife over masks).

    Same masks and seeds on both sides, so the noise of the difference is much smaller than that of either distance.
    """
    gap = now - before
    error = quality.jackknife_error(np.asarray(now_left_out) - np.asarray(before_left_out))
    return gap > DISTANCE_SLACK + 1.645 * error


def metrics_of(present: Reading, reference: Reading, verdict: Verdict) -> dict[str, Any]:
    """The numbers that a lead sees before accepting an adapter, JSON; 'accept' needs a win rate that chance does not explain."""
    low, high = verdict.win_rate_interval
    reasons = list(verdict.reasons)
    if verdict.passed and low <= MIN_WIN_RATE:
        reasons.append(f"the gain may be chance: the judge prefers the new images in {low:.0%} to {high:.0%} of the masks")
    return {
        "win_rate": round(verdict.win_rate, 4),
        "win_rate_interval": [round(value, 4) for value in verdict.win_rate_interval],
        "dice_before": round(float(np.mean(reference.dice)), 4),
        "dice_after": round(float(np.mean(present.dice)), 4),
        "dice_gain": round(verdict.dice_gain[0], 4),
        "dice_interval": [round(value, 4) for value in verdict.dice_gain[1:]],
        "selector_dice_before": round(float(np.mean(reference.selector_dice)), 4),
        "selector_dice_after": round(float(np.mean(present.selector_dice)), 4),
        "feature_distance_before": round(reference.feature_distance, 4),
        "feature_distance_after": round(present.feature_distance, 4),
        "appearance_distance_before": round(reference.appearance_distance, 4),
        "appearance_distance_after": round(present.appearance_distance, 4),
        "vendi_before": round(reference.vendi, 3),
        "vendi_after": round(present.vendi, 3),
        "nearest_before": round(reference.nearest, 4),
        "nearest_after": round(present.nearest, 4),
        "winner_ratio": round(verdict.winner_ratio, 4),
        "num_masks": len(present.dice),
        "verdict": "keep_old" if reasons else "accept",
        "reasons": reasons,
    }


def reading_to_json(reading: Reading) -> dict[str, Any]:
    return asdict(reading)


def reading_from_json(data: dict[str, Any]) -> Reading:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    return Reading(**values)
