"""Where the selector is weak, and where it is unsure: hand-made cases."""

from saadi.preferences import Candidate
from saadi.trust import UNSURE, Doubt, Trust, doubt, separating_class, trust_in

NAMES = ("tissue", "liver", "bleeding")


def seen(*dice: float | None, confidence: float = 0.9) -> Candidate:
    return Candidate(1, "blob", 0.5, confidence, (None, *dice))


def test_classes_below_the_line_on_held_out_images_are_weak_and_unseen_ones_are_unknown():
    metrics = {"val": {"dice_per_class": {"tissue": 0.2, "liver": 0.7, "bleeding": 0.45}}}
    assert trust_in(metrics, NAMES) == Trust({2: 0.45}, UNSURE)
    assert trust_in({"val": {"dice_per_class": {"liver": 0.9}}}, NAMES) == trust_in({}, NAMES) == Trust()
    assert trust_in({"val": {"low_confidence": 0.94}}, NAMES).unsure_below == 0.94


def test_a_classifier_may_be_weak_on_its_first_class_which_is_no_background():
    metrics = {"val": {"f1_per_class": {"tissue": 0.2, "liver": 0.7, "bleeding": 0.45}, "low_confidence": 0.6}}
    assert trust_in(metrics, NAMES) == Trust({0: 0.2, 2: 0.45}, 0.6)
    one, other = (Candidate(1, "blob", score, 0.9, (score, None, None)) for score in (0.9, 0.3))
    assert separating_class(one, other) == 0 and doubt(one, other, trust_in(metrics, NAMES)) == Doubt(0, None)


def test_two_images_are_told_apart_by_the_class_in_which_they_differ_most():
    assert separating_class(seen(0.9, 0.2), seen(0.6, 0.8)) == 2
    assert separating_class(seen(0.9, 0.2), seen(0.3, 0.3)) == 1
    assert separating_class(seen(0.9, None), seen(0.9, 0.0)) is None  # the only difference: one sees what nobody asked for
    assert separating_class(seen(), seen()) is None


def test_a_pair_is_doubted_where_it_hangs_on_a_weak_class_or_the_selector_is_unsure():
    weak = Trust({2: 0.45}, 0.7)
    assert doubt(seen(0.9, 0.2), seen(0.8, 0.8), weak) == Doubt(2, None)
    assert doubt(seen(0.9, 0.5), seen(0.3, 0.5), weak) is None
    assert doubt(seen(0.9, 0.5), seen(0.3, 0.5, confidence=0.6), weak) == Doubt(None, 0.6)
    assert doubt(seen(0.9, 0.2, confidence=0.5), seen(0.8, 0.8), weak) == Doubt(2, 0.5)
    assert doubt(seen(0.9, 0.2), seen(0.8, 0.8), Trust()) is None
