"""The acceptance card: four questions about a new version against its parent, answered in words from the gate's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from saadi.alignment.limits import (
    MAX_WINNER_RATIO,
    MIN_NEAREST_RATIO,
    MIN_VENDI_RATIO,
    MIN_WIN_RATE,
    covers_less,
)

Verdict = Literal["yes", "no", "unknown"]
NO_BREAK = "\u00a0"


@dataclass(frozen=True)
class Question:
    """One of the four; `unknown` where an older version was not measured that way."""

    key: Literal["preferred", "faithful", "real", "own"]
    title: str
    verdict: Verdict
    words: str


def questions(metrics: Mapping[str, Any], class_names: Sequence[str], people: Mapping[str, Any] | None = None) -> list[Question]:
    """Is it preferred, faithful to the masks (or classes), like real surgery, and more than a copy?

    Args:
        metrics: As stored with the adapter (`saadi.alignment.gate.metrics_of`, and `classes`).
        people: Outcome of the blind test by people, pooled; None = nobody has taken it.
    """
    return [_preferred(metrics, people), _faithful(metrics, class_names), _real(metrics), _own(metrics)]


def headline(found: Sequence[Question], *, is_open: bool = True) -> str:
    """The card in one sentence, with advice while it `is_open` whether the version comes into use."""
    red = sum(question.verdict == "no" for question in found)
    known = sum(question.verdict != "unknown" for question in found)
    if not known:
        return "This version was not tested."
    if red:
        return f"{red} of {known} say{'s' if red == 1 else ''} no{': keep the old one' if is_open else ''}."
    return f"{known} of {known} say yes{': accept it' if is_open else ''}."


def _preferred(metrics: Mapping[str, Any], people: Mapping[str, Any] | None) -> Question:
    title = "Is it preferred?"
    rate = metrics.get("win_rate")
    if rate is None:
        return Question("preferred", title, "unknown", "The judge has not compared it.")
    low, high = metrics.get("win_rate_interval") or (rate, rate)
    cases = "test images" if _is_classification(metrics) else "masks"
    words = f"The judge prefers the new image in {_percent(rate)} of {metrics.get('num_masks', 'the')} {cases}"
    words += f" ({_percent(low)} to {_percent(high)})." if low != high else "."
    is_better = low > MIN_WIN_RATE if low != high else rate > MIN_WIN_RATE
    if not is_better:
        words += " That may be chance." if rate > MIN_WIN_RATE else ""
    if people and people["interval"] and people["interval"][1] < MIN_WIN_RATE:
        return Question("preferred", title, "no", f"{words} People clearly prefer the old one.")
    return Question("preferred", title, "yes" if is_better else "no", words)


def _faithful(metrics: Mapping[str, Any], class_names: Sequence[str]) -> Question:
    title, measure = "Does it draw what the mask asks for?", "overlap with the masks"
    if _is_classification(metrics):
        title, measure = "Does it show the class that was asked for?", "probability of the asked class"
    before, after = metrics.get("dice_before"), metrics.get("dice_after")
    if before is None or after is None:
        return Question("faithful", title, "unknown", f"Its {measure} was not measured.")
    if _percent(before) == _percent(after):
        words = f"{measure.capitalize()} stayed at {_percent(after)}."
    else:
        words = f"{measure.capitalize()} {'rose' if after > before else 'fell'} from {_percent(before)} to {_percent(after)}."
    rows = [row for row in metrics.get("classes", []) if row["class"] < len(class_names)]
    worst = min(rows, key=lambda row: row["change"][0], default=None)
    fell = [class_names[row["class"]] for row in rows if row["change"][2] < 0]
    if fell:
        words += f" {' and '.join(fell)} fell by more than chance."
    elif worst is not None and worst["change"][0] < 0:
        name, points = class_names[worst["class"]], -100 * worst["change"][0]
        words += f" Weakest: {name}, {points:.1f} points lower, which may be chance."
    elif worst is not None:
        words += f" No class fell; {class_names[worst['class']]} gained least."
    return Question("faithful", title, "no" if after < before or fell else "yes", words)


def _real(metrics: Mapping[str, Any]) -> Question:
    title = "Does it still look like surgery, with variety?"
    now, before = metrics.get("feature_distance_after"), metrics.get("feature_distance_before")
    if now is None or before is None:
        return Question("real", title, "unknown", "Its distance to real images was not measured.")
    red = []
    # Versions of earlier programs tell it in their reasons only.
    reasons = " ".join(metrics.get("reasons", []))
    if metrics.get("features_moved", "real ones in features" in reasons):
        red.append("The images moved away from real ones in what the judge sees.")
    if metrics.get("appearance_moved", "real ones in colour" in reasons):
        red.append("The images moved away from real ones in colour and texture.")
    if metrics.get("winner_ratio", 1.0) > MAX_WINNER_RATIO:
        red.append(f"The error on preferred images grew to {metrics['winner_ratio']:.2f} times the old one.")
    variety, varied = metrics.get("vendi_after"), metrics.get("vendi_before")
    if variety is not None and varied is not None and variety < MIN_VENDI_RATIO * varied:
        red.append(f"Variety fell from {varied:.1f} to {variety:.1f} different images.")
    if covers_less(metrics.get("coverage_after"), metrics.get("coverage_before")):
        covered, covers = (_percent(metrics[f"coverage_{when}"]) for when in ("before", "after"))
        red.append(f"Fewer kinds of real images are covered: {covered} before, {covers} now.")
    is_nearer = now < before and metrics.get("appearance_distance_after", 0.0) <= metrics.get("appearance_distance_before", 0.0)
    near = "closer to real images than before" if is_nearer else "about as near to real images as before"
    words = f"The images are {near}" + ("; variety is kept." if variety is not None else ".")
    return Question("real", title, "no" if red else "yes", " ".join(red) or words)


def _own(metrics: Mapping[str, Any]) -> Question:
    title = "Are its images its own, not copies?"
    now, before = metrics.get("nearest_after"), metrics.get("nearest_before")
    if now is None or not before:
        return Question("own", title, "unknown", "The distance to training images was not measured.")
    if now < MIN_NEAREST_RATIO * before:
        words = f"The images came closer to single training images: {_percent(now / before)} of the old distance."
        return Question("own", title, "no", words)
    return Question("own", title, "yes", f"As far from the nearest training image as before ({_percent(now / before)}).")


def _is_classification(metrics: Mapping[str, Any]) -> bool:
    return metrics.get("task") == "classification"


def _percent(value: float) -> str:
    return f"{round(100 * value)}{NO_BREAK}%"
