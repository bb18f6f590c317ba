"""The gate: fixed label maps and seeds judge every checkpoint; score and pair accuracy alone choose the worst models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saadi import quality
from saadi.alignment.limits import (
    DISTANCE_GROWTH,
    DISTANCE_SLACK,
    MAX_WINNER_RATIO,
    MIN_NEAREST_RATIO,
    MIN_VENDI_RATIO,
    MIN_WIN_RATE,
    covers_less,
)
from saadi.downstream.classifier import Classifier
from saadi.downstream.models import DownstreamModel, Scorer
from saadi.engines.base import Engine
from saadi.engines.regions import Region, named_region
from saadi.errors import BadInputError
from saadi.records import Image, LabelMap, Task

Make = Callable[[], list[Image]]


@dataclass(frozen=True)
class Reading:
    """What the gate measured on one set of images, all on the same label maps and seeds."""

    dice: tuple[float, ...]
    """Judge's Dice per label map; in classification its probability of the asked class."""
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
    coverage: float | None = None
    """Share of held-out real images with one of these near them, in the judge's features; None where there are too few, and in
    checkpoints of earlier versions."""
    class_dice: tuple[tuple[float | None, ...], ...] = ()
    """Judge's Dice per label map and class index; None where the label map does not ask for the class. Empty in checkpoints of
    earlier versions."""


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
    """Holds the fixed inputs; measures images made for them.

    A cross-fitted selector looks with all its folds (the mean of their probabilities): no fold has seen the validation patients
    from whom the label maps come first. Its Dice is told beside the judge's and decides nothing.
    """

    label_maps: Sequence[LabelMap]
    selector: Scorer
    judge: DownstreamModel
    num_classes: int
    real: Sequence[Image]
    """Held-out real images."""
    training: Sequence[Image]
    pictures: Sequence[Image] | None = None
    """One per label map: what a generator that needs a picture paints into."""
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

    @property
    def task(self) -> Task:
        """What the judge tells: masks, or classes of whole images."""
        return "classification" if isinstance(self.judge, Classifier) else "segmentation"

    def regions(self, engine: Engine) -> list[Region] | None:
        """What an engine makes anew under each label map; None = whole images.

        Raises:
            BadInputError: The engine needs pictures, and this gate has none.
        """
        if not engine.needs_picture:
            return None
        if self.pictures is None:
            raise BadInputError("this generator paints into pictures; masks alone cannot test it, take those of real images")
        return [named_region(label_map, picture, side=engine.resolution)
                for label_map, picture in zip(self.label_maps, self.pictures, strict=True)]  # fmt: skip

    def read(self, images: Sequence[Image]) -> Reading:
        """Measure images, one per label map in order."""
        features = quality.standardised(self.judge.features(images), self._reference)
        appearance = quality.standardised(quality.appearance(images), self._raw_appearance)
        dice, class_dice = self._fidelity(self.judge, images)
        return Reading(
            dice=dice,
            selector_dice=self._fidelity(self.selector, images)[0],
            feature_distance=quality.kernel_distance(features, self._real_features),
            appearance_distance=quality.kernel_distance(appearance, self._real_appearance),
            feature_left_out=tuple(quality.leave_one_out_distances(features, self._real_features).tolist()),
            appearance_left_out=tuple(quality.leave_one_out_distances(appearance, self._real_appearance).tolist()),
            vendi=quality.vendi_score(features),
            coverage=quality.coverage(features, self._real_features),
            nearest=float(np.median(quality.nearest_distance(features, self._training_features))),
            class_dice=class_dice,
        )

    def _fidelity(
        self, model: Scorer, images: Sequence[Image]
    ) -> tuple[tuple[float, ...], tuple[tuple[float | None, ...], ...]]:
        """Per label map: the mean over its classes, and each class."""
        found = model.fidelity(images, self.label_maps)
        rows = tuple(tuple(one.per_class.get(index) for index in range(self.num_classes)) for one in found)
        return tuple(one.mean for one in found), rows


def compare(present: Reading, reference: Reading, *, winner_ratio: float, task: Task = "segmentation") -> Verdict:
    """Judge a checkpoint against its reference on the same label maps and seeds.

    Args:
        task: Chooses the words of the reasons.
    """
    is_classification = task == "classification"
    gains = [after - before for after, before in zip(present.dice, reference.dice, strict=True)]
    wins = [1.0 if gain > 1e-6 else 0.0 if gain < -1e-6 else 0.5 for gain in gains]
    win_rate, win_low, win_high = quality.paired_interval(wins)
    gain = quality.paired_interval(gains)
    reasons: list[str] = []
    if win_rate <= MIN_WIN_RATE:
        reasons.append(f"the judge prefers the new images in only {win_rate:.0%} of the {_cases(task)}")
    if gain[0] < 0 and is_classification:
        reasons.append(f"the probability of the asked class fell by {-gain[0]:.3f}")
    elif gain[0] < 0:
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
    if covers_less(present.coverage, reference.coverage):
        reasons.append(f"fewer kinds of real images are covered ({reference.coverage:.0%} to {present.coverage:.0%})")
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
    """Whether a distance grew by more than a little (`limits`) and chance (one-sided 95 %, jackknife over masks).

    Same masks and seeds on both sides, so the noise of the difference is much smaller than that of either distance.
    """
    gap = now - before
    error = quality.jackknife_error(np.asarray(now_left_out) - np.asarray(before_left_out))
    return gap > max(DISTANCE_SLACK, DISTANCE_GROWTH * before) + 1.645 * error


def _cases(task: Task) -> str:
    """What a new version is tested on, in words."""
    return "test images" if task == "classification" else "masks"


def metrics_of(present: Reading, reference: Reading, verdict: Verdict, *, task: Task = "segmentation") -> dict[str, Any]:
    """The numbers that a lead sees before accepting an adapter, JSON; 'accept' needs a win rate that chance does not explain.

    Args:
        task: Told along with them in classification, where 'dice' stands for the probability of the asked class.
    """
    low, high = verdict.win_rate_interval
    reasons = list(verdict.reasons)
    if verdict.passed and low <= MIN_WIN_RATE:
        named = f"{low:.0%} to {high:.0%} of the {_cases(task)}"
        reasons.append(f"the gain may be chance: the judge prefers the new images in {named}")
    return ({"task": task} if task == "classification" else {}) | {
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
        "features_moved": moved_away(
            present.feature_distance, reference.feature_distance, present.feature_left_out, reference.feature_left_out
        ),
        "appearance_moved": moved_away(
            present.appearance_distance,
            reference.appearance_distance,
            present.appearance_left_out,
            reference.appearance_left_out,
        ),
        "coverage_before": reference.coverage,
        "coverage_after": present.coverage,
        "nearest_before": round(reference.nearest, 4),
        "nearest_after": round(present.nearest, 4),
        "winner_ratio": round(verdict.winner_ratio, 4),
        "num_masks": len(present.dice),
        "verdict": "keep_old" if reasons else "accept",
        "reasons": reasons,
    }


def class_changes(present: Reading, reference: Reading) -> list[dict[str, Any]]:
    """Mask fidelity of each class that the gate's label maps ask for, before and after, JSON.

    Returns:
        Class index, mean Dice before and after, and the mean paired change with its 95 % bootstrap interval.
    """
    changes: list[dict[str, Any]] = []
    for index in range(min(map(len, (*present.class_dice, *reference.class_dice)), default=0)):
        both = [
            (old[index], new[index])
            for old, new in zip(reference.class_dice, present.class_dice, strict=True)
            if old[index] is not None and new[index] is not None
        ]
        if both:
            before, after = np.array(both, dtype=np.float64).T
            mean, low, high = quality.paired_interval(after - before)
            changes.append(
                {
                    "class": index,
                    "num_masks": len(both),
                    "before": round(float(before.mean()), 4),
                    "after": round(float(after.mean()), 4),
                    "change": [round(value, 4) for value in (mean, low, high)],
                }
            )
    return changes


def reading_to_json(reading: Reading) -> dict[str, Any]:
    return asdict(reading)


def reading_from_json(data: dict[str, Any]) -> Reading:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    values["class_dice"] = tuple(tuple(row) for row in data.get("class_dice", ()))
    return Reading(**values)
