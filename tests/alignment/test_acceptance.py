"""The four questions of the acceptance card, and the outcome of the blind test by hand-derived numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saadi.alignment.acceptance import headline, questions
from saadi.alignment.gate import class_changes, compare, metrics_of
from saadi.alignment.trial import MAX_PAIRS, outcome, pair_for, pairs_for
from saadi.errors import BadInputError
from saadi.records import Adapter, Answer, Trial
from tests.alignment.test_gate import NEW, OLD

NAMES = ("tissue", "liver", "bleeding")


def metrics(**changes) -> dict:
    present = replace(NEW, **changes)
    return metrics_of(present, OLD, compare(present, OLD, winner_ratio=1.0))


def verdicts(found) -> dict[str, str]:
    return {question.key: question.verdict for question in found}


def test_a_clear_gain_is_four_times_yes():
    found = questions(metrics(), NAMES)
    assert set(verdicts(found).values()) == {"yes"} and headline(found) == "4 of 4 say yes: accept it."


@pytest.mark.parametrize(("change", "key", "words"), [
    ({"feature_distance": 1.5}, "real", "what the judge sees"),
    ({"appearance_distance": 1.5}, "real", "colour and texture"),
    ({"vendi": 4.0}, "real", "Variety fell from 5.0 to 4.0"),
    ({"nearest": 1.0}, "own", "closer to single training images"),
])  # fmt: skip
def test_a_red_number_answers_its_own_question_only(change, key, words):
    found = questions(metrics(**change), NAMES)
    assert [name for name, verdict in verdicts(found).items() if verdict == "no"] == [key]
    assert words in next(question.words for question in found if question.key == key)
    assert headline(found) == "1 of 4 says no: keep the old one."


def test_less_overlap_is_neither_preferred_nor_faithful():
    found = questions(metrics(dice=(0.4,) * 20), NAMES)
    assert verdicts(found)["preferred"] == verdicts(found)["faithful"] == "no" and headline(found).startswith("2 of 4 say no")


def test_in_classification_the_card_asks_for_the_class():
    rows = [{"class": 0, "num_masks": 10, "before": 0.5, "after": 0.4, "change": [-0.1, -0.15, -0.05]}]
    preferred, faithful, *_ = questions(metrics() | {"task": "classification", "classes": rows}, NAMES)
    assert preferred.words == "The judge prefers the new image in 100\u00a0% of 20 test images."
    assert faithful.title == "Does it show the class that was asked for?" and faithful.verdict == "no"
    assert faithful.words == ("Probability of the asked class rose from 50\u00a0% to 70\u00a0%. "
                              "tissue fell by more than chance.")  # fmt: skip


def test_a_win_rate_that_chance_explains_is_no():
    found = questions(metrics(dice=(0.6,) * 11 + (0.45,) * 9), NAMES)
    assert verdicts(found)["preferred"] == "no" and "may be chance" in found[0].words


def readings(liver: float, bleeding: float):
    """Twenty masks, of which every second one asks for bleeding; both classes at 0.5 before."""
    before = tuple((None, 0.5, 0.5 if index % 2 else None) for index in range(20))
    after = tuple((None, liver, bleeding if index % 2 else None) for index in range(20))
    return replace(NEW, class_dice=after), replace(OLD, class_dice=before)


def test_classes_are_compared_on_the_masks_that_ask_for_them():
    liver, bleeding = class_changes(*readings(0.9, 0.4))
    assert (liver["class"], liver["num_masks"], liver["before"], liver["after"]) == (1, 20, 0.5, 0.9)
    assert bleeding["num_masks"] == 10 and bleeding["change"] == pytest.approx([-0.1, -0.1, -0.1])


def test_a_class_that_fell_beyond_chance_makes_the_answer_no_although_the_mean_rose():
    found = questions(metrics() | {"classes": class_changes(*readings(0.9, 0.4))}, NAMES)
    assert verdicts(found)["faithful"] == "no" and "bleeding fell by more than chance" in found[1].words
    fine = questions(metrics() | {"classes": class_changes(*readings(0.9, 0.6))}, NAMES)
    assert verdicts(fine)["faithful"] == "yes" and "No class fell; bleeding gained least." in fine[1].words


def test_versions_of_earlier_programs_are_read_as_far_as_they_go():
    old = {"win_rate": 0.7, "dice_before": 0.8, "dice_after": 0.82, "verdict": "accept", "reasons": []}
    found = questions(old, NAMES)
    assert verdicts(found) == {"preferred": "yes", "faithful": "yes", "real": "unknown", "own": "unknown"}
    assert headline(found) == "2 of 2 say yes: accept it." and headline(questions({}, NAMES)) == "This version was not tested."


def test_people_who_clearly_prefer_the_old_one_overrule_the_judge():
    people = outcome([trial(number, "left", new_is_left=False) for number in range(20)])
    assert verdicts(questions(metrics(), NAMES, people))["preferred"] == "no"
    even = outcome([trial(number, "left", new_is_left=bool(number % 2)) for number in range(20)])
    assert verdicts(questions(metrics(), NAMES, even))["preferred"] == "yes"


def trial(number: int, answer: Answer, *, new_is_left: bool = True, voter: str = "ann") -> Trial:
    return Trial(number, 1, 1, "m", f"old{number}", f"new{number}", new_is_left, answer, voter, None, "")


def test_outcome_counts_sides_by_where_the_new_one_was():
    given = [trial(1, "left"), trial(2, "right", new_is_left=False), trial(3, "right"), trial(4, "both_good"), trial(5, "skip"),
             trial(1, "left", voter="bob")]  # fmt: skip
    found = outcome(given)
    assert {key: found[key] for key in ("new", "old", "even", "skipped", "people", "rate")} == {
        "new": 3, "old": 1, "even": 1, "skipped": 1, "people": 2, "rate": 0.75}  # fmt: skip


def test_the_interval_is_wilsons():
    # 13 of 17 at z = 1.96: (13 + 1.92) / (17 + 3.84) -+ 1.96 / 20.84 * sqrt(13 * 4 / 17 + 0.96)
    found = outcome([trial(number, "left", new_is_left=number < 13) for number in range(17)])
    assert found["interval"] == pytest.approx([0.5274, 0.9044], abs=2e-4)
    assert outcome([trial(1, "skip")])["interval"] is None


def adapter(count: int, *, same: int = 0) -> Adapter:
    old = [f"old{index}" for index in range(count)]
    new = [f"new{index}" if index >= same else f"old{index}" for index in range(count)]
    kept = {"strip_trial_label_maps": ["m"] * count, "strip_trial_old": old, "strip_trial_new": new}
    return Adapter(7, 1, 1, None, "v1", "f", 1.0, {}, kept, "candidate", "")


def test_a_reviewer_sees_the_same_twenty_pairs_again_with_both_sides_in_use():
    pairs = pairs_for(adapter(40), "ann")
    assert pairs == pairs_for(adapter(40), "ann") and len(pairs) == MAX_PAIRS
    assert 4 <= sum(pair.new_is_left for pair in pairs) <= 16
    assert [pair.index for pair in pairs] != [pair.index for pair in pairs_for(adapter(40), "bob")]


def test_equal_images_are_not_asked_about():
    assert sorted(pair.index for pair in pairs_for(adapter(6, same=4), "ann")) == [4, 5]
    with pytest.raises(BadInputError, match="not part of this test"):
        pair_for(adapter(6, same=4), "ann", 0)


def test_closer_to_real_images_is_said_where_both_distances_fell():
    near = {"feature_distance_before": 1.0, "feature_distance_after": 0.9, "features_moved": False, "appearance_moved": False}
    for after, words in ((1.9, "closer to real images than before"), (2.1, "about as near to real images as before")):
        found = questions(metrics() | near | {"appearance_distance_before": 2.0, "appearance_distance_after": after}, NAMES)
        assert verdicts(found)["real"] == "yes" and words in found[2].words
