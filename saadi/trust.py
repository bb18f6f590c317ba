"""How far the selector can be trusted: where it is weak on real images, and where it is not sure of itself. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

WEAK_SCORE = 0.7
"""A class that the selector finds worse than this on held-out real images (Dice, in classification F1): its preferences there are
near to chance. As in `ui.words.FOUND`."""
UNSURE = 0.7
"""Confidence below which it is unsure, where nobody has measured how sure it is of real images."""


class Seen(Protocol):
    """What the selector made of an image."""

    @property
    def confidence(self) -> float: ...

    @property
    def class_dice(self) -> tuple[float | None, ...]:
        """By class index; the background's is None: it says nothing that the classes do not."""


@dataclass(frozen=True)
class Doubt:
    """Why the selector's opinion on two images counts less."""

    class_index: int | None
    """The class in which they differ most, where the selector is weak on it; None = it is not weak there."""
    confidence: float | None
    """The lower one of the two, where it is low; None = it is sure of both."""


@dataclass(frozen=True)
class Trust:
    """What is known of a selector from held-out real images."""

    weak: Mapping[int, float] = field(default_factory=dict)
    """Class index -> its mean Dice (or F1) there, of the classes below `WEAK_SCORE`; background left out."""
    unsure_below: float = UNSURE
    """Confidence that nineteen of twenty held-out real images reach."""


def trust_in(metrics: Mapping[str, Any], class_names: Sequence[str]) -> Trust:
    """Read a selector's metrics. A class that no held-out image shows is unknown, not weak."""
    held_out = metrics.get("val") or {}
    # A classifier's first class is one like the others, no background.
    found, first = (held_out["f1_per_class"], 0) if "f1_per_class" in held_out else (held_out.get("dice_per_class") or {}, 1)
    scores = {index: found.get(name) for index, name in enumerate(class_names) if index >= first}
    weak = {index: float(value) for index, value in scores.items() if value is not None and value < WEAK_SCORE}
    return Trust(weak, float(held_out.get("low_confidence") or UNSURE))


def separating_class(first: Seen, second: Seen) -> int | None:
    """The class in whose score two images of one label map differ most; None where they differ in none, or nothing is known."""
    widest, found = 0.0, None  # a plain loop: thousands of pairs are asked about before a page or a question comes
    for index, one in enumerate(first.class_dice):
        if one is None or (other := second.class_dice[index]) is None:
            continue
        if abs(one - other) > widest:
            widest, found = abs(one - other), index
    return found


def doubt(first: Seen, second: Seen, trust: Trust) -> Doubt | None:
    """What speaks against the selector's opinion on two images of one label map; None = nothing."""
    confidence = min(first.confidence, second.confidence)
    unsure = confidence if confidence < trust.unsure_below else None
    weak_on = None
    if any(index < len(first.class_dice) and first.class_dice[index] is not None for index in trust.weak):
        separating = separating_class(first, second)
        weak_on = separating if separating in trust.weak else None
    return Doubt(weak_on, unsure) if weak_on is not None or unsure is not None else None
