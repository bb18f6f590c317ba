"""Scores in words: what a surgeon reads instead of a Dice table."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from saadi.records import Score

FOUND = 0.7
"""Dice from which a class counts as found; two experts on one laparoscopic frame agree on 0.8-0.9."""
MISSED = 0.4
"""Dice below which a class counts as missed."""

VERY_CLOSE = 0.99
"""Share of unseen real images that must lie farther away before an image is called a possible copy."""


def percent(value: float) -> str:
    return f"{round(100 * value)}\u00a0%"


def describe(score: Score | None, asked: Collection[str], invented: Collection[str] = ()) -> str:
    """Return one or two sentences on what the segmenter found of the asked classes.

    Args:
        score: By the selector; None = not scored yet.
        asked: Names of the classes in the asked label map, background left out.
        invented: Names of classes that it sees although nobody drew them; specks are left out by the caller.
    """
    if score is None:
        return "Not scored yet."
    dice = {name: values["dice"] for name, values in score.per_class.items() if name in asked}
    if not dice:
        return "The mask asks for background only."
    ranked = sorted(dice, key=lambda name: dice[name], reverse=True)

    def names(chosen: list[str]) -> str:
        listed = [f"{name} ({percent(dice[name])})" for name in chosen]
        return listed[0] if len(listed) == 1 else ", ".join(listed[:-1]) + " and " + listed[-1]

    found = [name for name in ranked if dice[name] >= FOUND]
    partly = [name for name in ranked if MISSED <= dice[name] < FOUND]
    missed = [name for name in reversed(ranked) if dice[name] < MISSED]
    if not partly and not missed:
        text = (
            f"The segmenter finds the {names(found)}."
            if len(found) == 1
            else f"The segmenter finds everything; weakest is the {names(found[-1:])}."
        )
    elif missed:
        best = (found or partly)[:2]
        text = (
            f"The segmenter finds the {names(best)} but misses the {names(missed[:2])}."
            if best
            else f"The segmenter misses the {names(missed[:3])}."
        )
    elif found:
        text = f"The segmenter finds the {names(found[:2])}, but the {names(partly[-1:])} only in part."
    else:
        text = f"The segmenter finds the {names(partly[:2])} only in part."
    return text + (f" It also sees {' and '.join(list(invented)[:2])} that nobody drew." if invented else "")


def describe_class(score: Score | None, asked: str) -> str:
    """Return a sentence on which class the classifier sees, in a classification project.

    Args:
        score: By the selector; None = not scored yet.
        asked: Name of the class that was asked for.
    """
    if score is None:
        return "Not scored yet."
    chances = {name: values["probability"] for name, values in score.per_class.items()}
    likeliest = max(chances, key=lambda name: chances[name])
    if likeliest != asked:
        other = f"{likeliest} ({percent(chances[likeliest])})"
        return f"The classifier takes it for {other}, not for {asked} ({percent(score.dice)})."
    if score.dice >= FOUND:
        return f"The classifier sees {asked} ({percent(score.dice)})."
    return f"The classifier sees {asked}, but is only {percent(score.dice)} sure."


def sureness(confidence: float, *, unsure_below: float, weak: Mapping[str, float], is_classifier: bool = False) -> str:
    """Return a sentence on how far the segmenter (or classifier) is to be trusted on an image.

    Args:
        confidence: Its own, 0-1.
        unsure_below: Confidence that nearly all real images reach.
        weak: Name of each asked class on which it is weak -> its mean Dice (its F1) on real images.
    """
    model, measure = ("classifier", "F1 ") if is_classifier else ("segmenter", "")
    text = f"The {model} is {'only ' if confidence < unsure_below else ''}{percent(confidence)} sure"
    listed = [f"{name} ({measure}{percent(value)} on real images)" for name, value in weak.items()]
    return f"{text}; it is weak on {' and '.join(listed)}." if listed else f"{text}."


def nearness(share_farther: float, *, num_unseen: int, has_its_mask: bool = False) -> str:
    """Return a sentence on how near an image is to the real training images, against real images that training never saw.

    Args:
        share_farther: Share of the unseen real images that lie farther away, 0-1.
        num_unseen: Their number.
        has_its_mask: It was made from the label map of that very real image, so that the same layout is what was asked for.
    """
    if share_farther >= VERY_CLOSE:
        close = f"Closer than {percent(share_farther)} of {num_unseen} unseen real images"
        return f"{close}, but both have the same mask." if has_its_mask else f"{close}: compare the two, it may be a copy."
    if share_farther >= 0.4:
        return f"As close as unseen real images usually are (closer than {percent(share_farther)} of them)."
    if share_farther >= 0.05:
        return f"Farther from the real images than most unseen ones (closer than {percent(share_farther)} of them)."
    return f"Unlike the real images: farther away than {percent(1 - share_farther)} of {num_unseen} unseen ones."
