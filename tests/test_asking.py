"""Quotas over whole sessions, overlap of reviewers, and repeats."""

from __future__ import annotations

from collections import Counter

import pytest

from saadi.asking import REPEAT_AFTER, OpenPair, checked_kind, choose, is_in_shared_set, purpose, repeatable_votes
from saadi.records import Answer, Vote, VoteKind


def open_pairs(num_label_maps: int = 200) -> list[OpenPair]:
    """Three pairs in each label map, of falling doubt; every tenth label map is rare."""
    pairs = []
    for number in range(num_label_maps):
        a, b, c = 3 * number + 1, 3 * number + 2, 3 * number + 3
        for first, second in ((a, b), (a, c), (b, c)):
            pairs.append(OpenPair(first, second, f"m{number}", 1 - number / num_label_maps, number % 10 == 9, False))
    return pairs


def cast(left: int, right: int, kind: VoteKind = "fresh", answer: Answer = "left", voter: str = "ann") -> Vote:
    return Vote(0, 1, left, right, "m", answer, voter, None, None, False, "", (), kind)


def session(voter: str, length: int, pairs: list[OpenPair]) -> list[Vote]:
    """Ask and answer one by one, as a browser does that holds six questions."""
    own: list[Vote] = []
    queue: list = []
    while len(own) < length:
        held = {tuple(sorted((item.left_id, item.right_id))) for item in queue}
        closed = {vote.pair for vote in own} | held
        left_over = [pair for pair in pairs if (pair.first_id, pair.second_id) not in closed]
        repeatable = repeatable_votes(own, exclude=held)
        queue += choose(left_over, repeatable, voter=voter, first_slot=len(own) + len(queue), count=6)
        for _ in range(6):
            item = queue.pop(0)
            own.append(cast(item.left_id, item.right_id, item.kind, voter=voter))
    return own


@pytest.fixture(scope="module")
def long_session() -> list[Vote]:
    return session("ann", 240, open_pairs())


def test_a_session_holds_the_promised_shares(long_session: list[Vote]):
    kinds = Counter(vote.kind for vote in long_session)
    assert 9 <= kinds["repeat"] <= 14 and 33 <= kinds["shared"] <= 39
    purposes = Counter(purpose("ann", slot) for slot in range(200))
    assert {name: round(number / 200, 2) for name, number in purposes.items()} == pytest.approx(
        {"repeat": 0.05, "shared": 0.15, "random": 0.05, "rare": 0.25, "certain": 0.5}, abs=0.015
    )


def test_no_pair_is_asked_twice_but_as_a_repeat_with_swapped_sides(long_session: list[Vote]):
    first = {vote.pair: vote for vote in long_session if vote.kind != "repeat"}
    assert len(first) == sum(vote.kind != "repeat" for vote in long_session)
    repeats = [(place, vote) for place, vote in enumerate(long_session) if vote.kind == "repeat"]
    assert len({vote.pair for _, vote in repeats}) == len(repeats)
    for place, vote in repeats:
        assert vote.left_id == first[vote.pair].right_id
        assert place - long_session.index(first[vote.pair]) > REPEAT_AFTER


def test_sides_are_drawn_by_lot(long_session: list[Vote]):
    smaller_left = sum(vote.left_id < vote.right_id for vote in long_session)
    assert 0.4 * 240 < smaller_left < 0.6 * 240


def test_reviewers_meet_the_same_shared_pairs():
    ann, bob = (session(name, 120, open_pairs()) for name in ("ann", "bob"))
    shared = [{vote.pair for vote in votes if vote.kind == "shared"} for votes in (ann, bob)]
    assert len(shared[0] & shared[1]) >= 0.9 * min(map(len, shared)) > 12


def test_what_others_have_met_as_shared_comes_first():
    pairs = open_pairs()
    met = [pair for pair in pairs if is_in_shared_set(pair.first_id, pair.second_id)][7]
    pairs[pairs.index(met)] = OpenPair(met.first_id, met.second_id, met.label_map_blob, met.undecidedness, met.is_rare, True)
    slot = next(slot for slot in range(99) if purpose("ann", slot) == "shared")
    asked = choose(pairs, [], voter="ann", first_slot=slot, count=1)[0]
    assert {asked.left_id, asked.right_id} == {met.first_id, met.second_id} and asked.kind == "shared"


def test_the_least_certain_come_first_each_from_another_label_map():
    slots = [slot for slot in range(200) if all(purpose("ann", slot + step) == "certain" for step in range(2))]
    asked = choose(open_pairs(), [], voter="ann", first_slot=slots[0], count=2)
    assert len({(item.left_id - 1) // 3 for item in asked}) == 2  # three samples in each label map
    assert max((item.left_id - 1) // 3 for item in asked) <= 1


def test_the_rare_quota_is_kept():
    slot = next(slot for slot in range(99) if purpose("ann", slot) == "rare")
    asked = choose(open_pairs(), [], voter="ann", first_slot=slot, count=1)[0]
    assert (asked.left_id - 1) // 3 == 9  # the least certain of the rare ones


def test_without_pairs_there_is_nothing_to_ask():
    assert choose([], [], voter="ann", first_slot=0, count=6) == []
    assert len(choose(open_pairs(1), [], voter="ann", first_slot=0, count=20)) == 3


def test_skips_repeats_and_the_last_ten_are_not_repeated():
    own = [cast(2 * i, 2 * i + 1) for i in range(1, 15)]
    own[0] = cast(2, 3, answer="skip")
    assert [vote.left_id for vote in repeatable_votes(own, exclude=[])] == [4, 6, 8]
    assert [vote.left_id for vote in repeatable_votes([*own, cast(5, 4, "repeat")], exclude=[(6, 7)])] == [8, 10]


def test_a_browser_cannot_call_any_pair_shared():
    inside = next((1, other) for other in range(2, 99) if is_in_shared_set(1, other))
    outside = next((1, other) for other in range(2, 99) if not is_in_shared_set(1, other))
    assert (checked_kind("shared", *inside), checked_kind("shared", *inside[::-1])) == ("shared", "shared")
    assert checked_kind("shared", *outside) == "fresh" and checked_kind("repeat", *outside) == "repeat"


def test_where_the_selector_is_weak_people_are_asked_first():
    """The clearest pairs of all are doubted: they fill the half of the least certain ones, and the rest stays as it is."""
    plain = open_pairs()
    doubted = {pair[:2] for pair in plain if pair.undecidedness < 0.2}
    pairs = [pair._replace(is_doubted=pair[:2] in doubted) for pair in plain]
    asked = choose(pairs, [], voter="ann", first_slot=0, count=40)
    kinds = [purpose("ann", slot) for slot in range(40)]
    hits = [tuple(sorted((item.left_id, item.right_id))) in doubted for item in asked]
    assert all(hit for hit, kind in zip(hits, kinds, strict=True) if kind == "certain")
    assert not all(hit for hit, kind in zip(hits, kinds, strict=True) if kind in ("shared", "random"))
    without = choose(plain, [], voter="ann", first_slot=0, count=40)
    for kind in ("shared", "random"):
        assert [item for item, other in zip(asked, kinds, strict=True) if other == kind] == [
            item for item, other in zip(without, kinds, strict=True) if other == kind
        ]
