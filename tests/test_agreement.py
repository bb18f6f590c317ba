"""Numbers derived by hand, and properties of intervals, weights and the queue."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from saadi import agreement
from saadi.agreement import consistency, contested, krippendorff, raw_agreement, reviewers, share, weights
from saadi.records import Answer, Vote, VoteKind

NUMBERS = count(1)


def vote(left: int, right: int, answer: Answer, voter: str = "ann", *, kind: VoteKind = "fresh", ms: int | None = None) -> Vote:
    number = next(NUMBERS)
    return Vote(number, 1, left, right, "m", answer, voter, ms, None, False, "", (), kind)


def pairs_of(*rows: tuple[Answer, ...]) -> list[Vote]:
    """Row i: what ann, bob, ... said about the pair (2 i, 2 i + 1)."""
    people = ("ann", "bob", "cem")
    return [vote(2 * i, 2 * i + 1, answer, people[k]) for i, row in enumerate(rows, start=1) for k, answer in enumerate(row)]


def again(first: Vote, answer: Answer) -> tuple[Vote, Vote]:
    return vote(first.right_id, first.left_id, answer, first.voter, kind="repeat"), first


def test_alpha_by_hand():
    # 8 answers, 3 'first' and 5 'second', one pair of four in dispute: 1 - 7 * 2 / (2 * 3 * 5).
    found = krippendorff(pairs_of(("left", "left"), ("left", "right"), ("right", "right"), ("right", "right")))
    assert found.value == pytest.approx(1 - 14 / 30)
    assert (found.num_pairs, found.num_reviewers, found.verdict) == (4, 2, "low data")


def test_sides_do_not_matter_for_agreement():
    same = [vote(1, 2, "left", "ann"), vote(2, 1, "right", "bob"), vote(3, 4, "both_good", "ann"), vote(4, 3, "both_bad", "bob")]
    assert krippendorff(same).value == 1.0 and raw_agreement(same).hits == 2
    assert raw_agreement([vote(1, 2, "left", "ann"), vote(2, 1, "left", "bob")]).hits == 0


def test_skips_rulings_and_single_opinions_are_not_compared():
    said = [vote(1, 2, "left", "ann"), vote(1, 2, "skip", "bob"), vote(3, 4, "left", "bob")]
    said.append(vote(1, 2, "right", "eve", kind="ruling"))
    assert krippendorff(said).value is None and krippendorff(said).num_pairs == 0


def test_one_and_the_same_answer_everywhere_gives_no_alpha():
    assert krippendorff(pairs_of(*[("left", "left")] * 40)).value is None


def test_the_resampled_alpha_is_evalicas_and_its_interval_holds_it():
    rng = np.random.default_rng(3)
    rows = [tuple("left" if rng.random() < (0.8 if i % 2 else 0.2) else "right" for _ in range(3)) for i in range(60)]
    found = krippendorff(pairs_of(*rows))
    counts = np.array([[row.count("left"), row.count("right"), 0] for row in rows], float)
    assert agreement._alphas(counts, np.ones((1, 60)))[0] == pytest.approx(found.value)
    assert found.low < found.value < found.high and found.high - found.low < 0.45
    assert krippendorff(pairs_of(*rows)) == found


@pytest.mark.parametrize(("wrong", "verdict"), [(0, "good"), (8, "fair"), (20, "poor")])
def test_alpha_in_words(wrong: int, verdict: str):
    rows = [("left", "left") if i % 2 else ("right", "right") for i in range(40)]
    rows[:wrong] = [("left", "right") if i % 2 else ("right", "left") for i in range(wrong)]
    assert krippendorff(pairs_of(*rows)).verdict == verdict
    assert krippendorff(pairs_of(*rows[:29])).verdict == "low data"


def test_wilson_by_hand():
    # 4 of 5: (0.8 + z^2/10 -+ z sqrt(0.8 * 0.2 / 5 + z^2/100)) / (1 + z^2/5) with z = 1.96.
    found = share(4, 5)
    assert (found.low, found.high) == (pytest.approx(0.3755, abs=1e-3), pytest.approx(0.9638, abs=1e-3))
    assert (share(0, 0).low, share(0, 0).high) == (0.0, 1.0)


def test_consistency_compares_images_not_sides():
    first, second, third = vote(1, 2, "left"), vote(3, 4, "right"), vote(5, 6, "both_good")
    found = consistency([again(first, "right"), again(second, "right"), again(third, "both_bad"), again(first, "skip")])
    assert (found.hits, found.total) == (2, 3)


def test_left_bias_and_time():
    votes = [vote(2 * i, 2 * i + 1, "left" if i < 18 else "right", ms=1000 * i) for i in range(1, 21)]
    ann = reviewers(votes, [])[0]
    assert (ann.left.hits, ann.left.total, ann.num_votes, ann.median_ms) == (17, 20, 20, 10_500)
    assert ann.left_p == pytest.approx(2 * (1 + 20 + 190 + 1140) / 2**20)  # both tails of the binomial
    assert reviewers([vote(1, 2, "both_good")], [])[0].left_p == 1.0


def test_without_data_everybody_weighs_one():
    assert weights([vote(1, 2, "left", "ann"), vote(3, 4, "left", "bob")], []) == {"ann": 1.0, "bob": 1.0}


def test_little_data_move_a_weight_little_and_much_data_to_the_floor():
    votes = [vote(2 * i, 2 * i + 1, "left") for i in range(1, 200)]
    turned = [again(first, "left") for first in votes]  # the other image each time: the side was chosen, not the image
    # p = (0 + 22.5) / (2 + 30) = 0.703, (p - 0.5) / 0.25 = 0.81 after two repeats.
    assert weights(votes, turned[:2]) == {"ann": 0.8}
    assert weights(votes, turned) == {"ann": agreement.LEAST_WEIGHT}
    assert weights(votes, [again(first, "right") for first in votes]) == {"ann": 1.0}


def test_who_stands_against_two_who_agree_weighs_less():
    found = weights(pairs_of(*[("left", "left", "right")] * 20), [])
    assert found["ann"] == found["bob"] == 1.0 and found["cem"] < 0.5


def test_the_queue_starts_with_the_most_even_dispute():
    votes = [
        vote(1, 2, "left", "ann"), vote(2, 1, "right", "bob"), vote(1, 2, "right", "cem"),  # 2 : 1
        vote(3, 4, "left", "ann"), vote(3, 4, "right", "bob"),  # 1 : 1
        vote(5, 6, "right", "ann"),  # one person against a clear score
        vote(7, 8, "right", "ann"),  # one person, no clear score
        vote(9, 10, "left", "ann"), vote(9, 10, "left", "bob"),  # agreed
    ]  # fmt: skip
    scores = {number: 0.5 for number in range(1, 11)} | {5: 0.9}
    found = contested(votes, scores, min_gap=0.05)
    assert [(item.first_id, item.second_id) for item in found] == [(3, 4), (1, 2), (5, 6)]
    assert found[1].opinions == {"ann": "first", "bob": "first", "cem": "second"} and found[2].gap == pytest.approx(0.4)


def test_a_ruling_takes_a_pair_out_of_the_queue():
    votes = [vote(1, 2, "left", "ann"), vote(1, 2, "right", "bob")]
    scores = {1: 0.5, 2: 0.5}
    assert contested(votes, scores, min_gap=0.05)
    assert not contested([*votes, replace(votes[0], id=9, voter="eve", kind="ruling")], scores, min_gap=0.05)
