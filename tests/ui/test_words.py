"""Scores in words."""

from __future__ import annotations

from saadi.records import Score
from ui.words import describe, sureness


def said(asked: set[str] | None = None, *, invented: tuple[str, ...] = (), **dice: float) -> str:
    parts = {name: {"dice": value, "iou": value, "recall": value} for name, value in dice.items()}
    score = Score(1, 1, "selector", 0.5, 0.5, 0.5, parts, "0" * 64)
    return describe(score, asked if asked is not None else set(dice), invented).replace("\u00a0", " ")


def test_found_and_missed_classes_are_named():
    assert said(gallbladder=0.94, tip=0.31) == "The segmenter finds the gallbladder (94 %) but misses the tip (31 %)."


def test_all_found_names_the_weakest():
    assert said(liver=0.95, tip=0.78) == "The segmenter finds everything; weakest is the tip (78 %)."


def test_nothing_found_says_so():
    assert said(liver=0.1, tip=0.05) == "The segmenter misses the tip (5 %) and liver (10 %)."


def test_a_half_found_class_is_neither_found_nor_missed():
    assert said(liver=0.9, tip=0.55) == "The segmenter finds the liver (90 %), but the tip (55 %) only in part."


def test_what_nobody_drew_is_reported():
    assert said({"liver"}, invented=("bleeding",), liver=0.9, bleeding=0.0).endswith("It also sees bleeding that nobody drew.")


def test_no_score_and_no_class_have_their_own_words():
    assert describe(None, {"liver"}) == "Not scored yet."
    assert said(set()) == "The mask asks for background only."


def test_a_speck_of_another_class_is_not_worth_a_word():
    assert said({"liver"}, liver=0.9, bleeding=0.0) == "The segmenter finds the liver (90 %)."


def test_how_sure_the_segmenter_is_and_where_it_is_weak():
    assert sureness(0.84, unsure_below=0.7, weak={}) == "The segmenter is 84\u00a0% sure."
    assert sureness(0.6, unsure_below=0.7, weak={"bleeding": 0.45}) == (
        "The segmenter is only 60\u00a0% sure; it is weak on bleeding (45\u00a0% on real images)."
    )
