"""Golden cases with numbers derived by hand."""

import math

import pytest

from saadi.preferences import (
    Candidate,
    is_rare,
    merge,
    rare_decision,
    strengths,
    to_pairs,
    undecidedness,
    with_rare_quota,
)
from saadi.records import Vote, VoteKind
from saadi.trust import Trust


def candidates(*scores: float) -> list[Candidate]:
    return [Candidate(sample_id=index, blob=f"blob{index}", score=score) for index, score in enumerate(scores, start=1)]


def vote(left: int, right: int, answer: str, voter: str = "ann", kind: VoteKind = "fresh") -> Vote:
    return Vote(
        id=0,
        project_id=1,
        left_id=left,
        right_id=right,
        label_map_blob="m",
        answer=answer,
        voter=voter,
        response_ms=None,
        supersedes=None,
        is_undo=False,
        created_at="",
        kind=kind,
    )


def test_two_candidates_without_votes_keep_the_odds_of_the_score():
    # Standardised difference of two scores is 2 (population standard deviation = half the gap), so the odds are e^2.
    found = strengths(candidates(0.9, 0.5), [])
    assert found[1] - found[2] == pytest.approx(2.0, abs=1e-3)


@pytest.mark.parametrize("scores", [(0.9, 0.5), (0.9, 0.8, 0.3), (0.31, 0.62, 0.64, 0.97), (0.7, 0.7, 0.7, 0.1)])
def test_without_votes_the_strengths_are_what_a_fit_of_the_pseudo_votes_gives(scores):
    group = candidates(*scores)
    exact = strengths(group, [])
    fitted = strengths(group, [vote(1, 2, "left")], weights={"ann": 1e-9})  # a vote that weighs nothing forces the fit
    for one in group:
        for other in group:
            expected = fitted[one.sample_id] - fitted[other.sample_id]
            assert exact[one.sample_id] - exact[other.sample_id] == pytest.approx(expected, abs=2e-3)


def test_what_the_quality_gate_refuses_wins_by_votes_only():
    refused, *others = candidates(0.9, 0.6, 0.1)
    group = [refused._replace(is_refused=True), *others]
    [decision] = merge(group, []).decisions
    assert (decision.chosen.sample_id, decision.rejected.sample_id) == (2, 3)
    assert merge(group[:2], []).decisions == ()  # no winner is left by score
    [decision] = merge(group[:2], [vote(1, 2, "left")]).decisions
    assert decision.chosen.sample_id == 1
    losing = [candidates(0.9)[0], Candidate(2, "blob2", 0.1, is_refused=True)]
    assert merge(losing, []).decisions[0].rejected.sample_id == 2  # as a loser it teaches


def test_a_vote_counts_as_one_more_comparison():
    # One virtual comparison with p = sigmoid(2) = 0.8808 for the first, one human vote for the second: odds 0.8808 : 1.1192.
    found = strengths(candidates(0.9, 0.5), [vote(1, 2, "right")])
    p = 1 / (1 + math.exp(-2))
    assert found[1] - found[2] == pytest.approx(math.log(p / (2 - p)), abs=1e-3)


def test_equal_scores_are_undecided_until_somebody_votes():
    group = candidates(0.7, 0.7)
    assert undecidedness(strengths(group, []), 1, 2) == pytest.approx(1.0)
    assert merge(group, []).decisions == () and merge(group, []).num_undecided == 1
    decided = merge(group, [vote(1, 2, "right")])
    assert [(item.chosen.sample_id, item.rejected.sample_id, item.source) for item in decided.decisions] == [(2, 1, "vote")]


def test_best_against_worst_when_the_margin_is_clear():
    found = merge(candidates(0.6, 0.9, 0.7, 0.3), [])
    assert [(item.chosen.sample_id, item.rejected.sample_id, item.source) for item in found.decisions] == [(2, 4, "score")]


def test_small_margins_are_left_out():
    found = merge(candidates(0.80, 0.82, 0.84), [])
    assert found.decisions == () and found.num_undecided == 1


def test_one_person_against_a_clear_score_is_a_conflict_and_a_second_opinion_settles_it():
    group = candidates(0.9, 0.4)
    alone = merge(group, [vote(1, 2, "right")])
    assert alone.conflicts == ((2, 1),) and alone.decisions == ()
    together = merge(group, [vote(1, 2, "right"), vote(2, 1, "left", voter="bob")])
    assert together.conflicts == () and [(item.chosen.sample_id, item.source) for item in together.decisions] == [(2, "vote")]


def test_people_who_contradict_each_other_are_a_conflict():
    found = merge(candidates(0.7, 0.7), [vote(1, 2, "left"), vote(1, 2, "right", voter="bob")])
    assert len(found.conflicts) == 1 and found.decisions == ()


def test_vote_and_score_together_are_agreed_and_weigh_more_than_a_score():
    agreed = to_pairs(merge(candidates(0.9, 0.4), [vote(1, 2, "left")]).decisions, label_map_blob="m")
    scored = to_pairs(merge(candidates(0.9, 0.4), []).decisions, label_map_blob="m")
    assert (agreed[0].source, agreed[0].weight) == ("agreed", 1.0) and (scored[0].source, scored[0].weight) == ("score", 0.5)
    assert (agreed[0].chosen_blob, agreed[0].rejected_blob) == ("blob1", "blob2") and agreed[0].margin > scored[0].margin > 0


def test_both_bad_never_makes_a_winner_and_skip_says_nothing():
    assert merge(candidates(0.9, 0.4), [vote(1, 2, "both_bad")]).decisions == ()
    assert merge(candidates(0.9, 0.4), [vote(1, 2, "skip")]) == merge(candidates(0.9, 0.4), [])


def test_an_image_called_bad_by_one_person_does_not_win_by_the_vote_of_another():
    group = candidates(0.7, 0.7, 0.7)
    found = merge(group, [vote(1, 2, "left"), vote(1, 3, "both_bad", voter="bob")])
    assert found.decisions == ()


def test_a_pair_called_equally_good_is_not_decided_by_the_score():
    assert merge(candidates(0.9, 0.4), [vote(1, 2, "both_good")]).decisions == ()


def test_a_vote_counts_as_much_as_its_voter_weighs():
    # As above, with half a vote: odds 0.8808 : 0.1192 + 0.5.
    found = strengths(candidates(0.9, 0.5), [vote(1, 2, "right")], {"ann": 0.5})
    p = 1 / (1 + math.exp(-2))
    assert found[1] - found[2] == pytest.approx(math.log(p / (1.5 - p)), abs=1e-3)


def test_a_careful_reviewer_decides_against_a_careless_one():
    votes = [vote(1, 2, "left"), vote(1, 2, "right", voter="bob")]
    assert merge(candidates(0.7, 0.7), votes, {"bob": 0.5}).decisions == ()
    decided = merge(candidates(0.7, 0.7), votes, {"bob": 0.2})
    assert [item.chosen.sample_id for item in decided.decisions] == [1] and decided.conflicts == ()


def test_two_careless_reviewers_are_no_second_opinion_against_a_clear_score():
    votes = [vote(1, 2, "right"), vote(1, 2, "right", voter="bob")]
    assert merge(candidates(0.9, 0.4), votes, {"ann": 0.3, "bob": 0.3}).conflicts == ((2, 1),)
    assert merge(candidates(0.9, 0.4), votes, {"ann": 0.3, "bob": 0.8}).conflicts == ()


def test_a_ruling_settles_a_contested_pair():
    votes = [vote(1, 2, "left"), vote(1, 2, "right", voter="bob")]
    found = merge(candidates(0.9, 0.4), [*votes, vote(1, 2, "right", voter="lead", kind="ruling")])
    assert [(item.chosen.sample_id, item.source) for item in found.decisions] == [(2, "vote")] and found.conflicts == ()


def test_the_newest_ruling_stands_and_comes_first():
    group = candidates(0.7, 0.71, 0.72, 0.5)
    votes = [vote(1, 2, "left"), vote(1, 2, "right", voter="bob"), vote(3, 4, "left"), vote(1, 4, "left"), vote(2, 4, "left")]
    votes += [vote(1, 2, "left", voter="lead", kind="ruling"), vote(1, 2, "right", voter="lead", kind="ruling")]
    decided = merge(group, votes).decisions
    assert (decided[0].chosen.sample_id, decided[0].rejected.sample_id) == (2, 1)


def test_a_ruling_overrides_somebody_elses_both_bad_and_both_bad_bans_both():
    group = candidates(0.9, 0.4)
    votes = [vote(1, 2, "left"), vote(1, 2, "both_bad", voter="bob")]
    assert merge(group, votes).decisions == ()
    named = merge(group, [*votes, vote(1, 2, "left", voter="lead", kind="ruling")])
    assert [item.chosen.sample_id for item in named.decisions] == [1]
    assert merge(group, [vote(1, 2, "left"), vote(1, 2, "both_bad", voter="lead", kind="ruling")]).decisions == ()


def test_a_ruling_stands_for_everybodys_votes_in_the_strengths():
    group = candidates(0.7, 0.7)
    votes = [vote(1, 2, "left"), vote(1, 2, "left", voter="bob")]
    ruled = strengths(group, [*votes, vote(1, 2, "right", voter="lead", kind="ruling")])
    assert ruled == pytest.approx(strengths(group, [vote(1, 2, "right")])) and ruled[2] > ruled[1]


# ---- rare classes, and where the selector is weak

LIVER, BLEEDING = 1, 2


def seen(number: int, liver: float, bleeding: float) -> Candidate:
    """Scored on two classes, the second of them rare."""
    return Candidate(number, f"blob{number}", (liver + bleeding) / 2, 0.9, (None, liver, bleeding))


def test_the_pair_of_a_rare_class_is_the_one_that_differs_most_in_it_and_in_no_other_more():
    group = [seen(1, 0.95, 0.50), seen(2, 0.60, 0.55), seen(3, 0.30, 0.40), seen(4, 0.62, 0.90)]
    # Best against worst is 4 > 3: 0.76 against 0.35, and they differ most in bleeding, so it is rare itself.
    merged = merge(group, [])
    assert is_rare(merged.decisions[0], {BLEEDING})
    # Of the others 4 > 1 differs by 0.40 in bleeding (0.33 in the liver), 4 > 2 by 0.35, 2 > 3 most in the liver.
    found = rare_decision(group, [], merged, {BLEEDING})
    assert (found.chosen.sample_id, found.rejected.sample_id, found.source) == (4, 1, "score")


def test_an_image_that_is_worse_as_a_whole_does_not_win_by_a_rare_class():
    group = [seen(1, 0.95, 0.10), seen(2, 0.20, 0.80)]  # 0.525 against 0.5, bleeding says the other way round
    assert rare_decision(group, [], merge(group, []), {BLEEDING}) is None
    assert rare_decision(group, [], merge(group, []), {LIVER}).chosen.sample_id == 1


def test_people_decide_their_own_pairs_and_bad_images_do_not_win():
    group = [seen(1, 0.50, 0.90), seen(2, 0.50, 0.30)]
    merged = merge([seen(1, 0.5, 0.5), seen(2, 0.5, 0.5)], [])  # nothing decided yet
    assert rare_decision(group, [], merged, {BLEEDING}).chosen.sample_id == 1
    assert rare_decision(group, [vote(1, 2, "both_good")], merged, {BLEEDING}) is None
    assert rare_decision([*group, seen(3, 0.45, 0.05)], [vote(1, 3, "both_bad")], merged, {BLEEDING}).chosen.sample_id == 2


def pool_of(num_common: int, num_options: int) -> tuple[dict, dict]:
    """Label maps that the liver decides; some of them offer a further pair that bleeding decides, each with a wider gap."""
    outcomes, options = {}, {}
    for number in range(num_common):
        gap = 0.1 + 0.02 * number
        group = [seen(1, 0.95, 0.50), seen(2, 0.40, 0.50), seen(3, 0.94, 0.50 - gap)]
        outcomes[f"m{number:02d}"] = merge(group, [])
        if number < num_options:
            options[f"m{number:02d}"] = rare_decision(group, [], outcomes[f"m{number:02d}"], {BLEEDING})
    return outcomes, options


def test_rare_pairs_are_added_until_they_are_a_quarter_and_the_clearest_come_first():
    outcomes, options = pool_of(9, 6)
    assert all(options.values()) and not any(is_rare(item, {BLEEDING}) for m in outcomes.values() for item in m.decisions)
    found = with_rare_quota(outcomes, options, {BLEEDING})
    # 9 + x pairs, x of them rare: 3 of 12 are a quarter, 2 of 11 are not.
    assert [blob for blob, merged in found.items() if len(merged.decisions) == 2] == ["m03", "m04", "m05"]
    assert found == with_rare_quota(dict(reversed(outcomes.items())), dict(reversed(options.items())), {BLEEDING})


def test_where_there_are_too_few_rare_pairs_all_of_them_are_taken_and_none_else_lost():
    outcomes, options = pool_of(9, 1)
    found = with_rare_quota(outcomes, options, {BLEEDING})
    assert sum(len(merged.decisions) for merged in found.values()) == 10
    assert with_rare_quota(outcomes, {}, {BLEEDING}) == outcomes


def test_no_label_map_gives_more_than_two_pairs():
    group = [seen(1, 0.9, 0.5), seen(2, 0.4, 0.5), seen(3, 0.89, 0.2), seen(4, 0.88, 0.3)]
    votes = [vote(1, 2, "left"), vote(1, 3, "left")]
    merged = merge(group, votes)
    assert len(merged.decisions) == 2 and rare_decision(group, votes, merged, {BLEEDING}) is None


def test_where_the_selector_is_weak_its_word_alone_weighs_half_as_much_and_a_vote_as_ever():
    group = [seen(1, 0.5, 0.9), seen(2, 0.5, 0.3)]
    weights = [
        to_pairs(merge(group, votes, trust=Trust(weak)).decisions, label_map_blob="m")[0].weight
        for votes in ([], [vote(1, 2, "left")])
        for weak in ({}, {BLEEDING: 0.45}, {LIVER: 0.45})
    ]
    assert weights == [0.5, 0.25, 0.5, 1.0, 1.0, 1.0]
