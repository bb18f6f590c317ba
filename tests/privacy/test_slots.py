"""Which candidate is kept, how guidance falls, and that it always ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saadi.privacy.slots import Candidate, Descent, Slots, best


def one(consistency: float, *, near: bool = False, plausible: bool = True) -> Candidate:
    return Candidate(near, plausible, consistency)


def test_the_most_consistent_of_those_near_to_nobody_is_kept() -> None:
    assert best([one(0.5), one(0.9, near=True), one(0.7), one(0.95, plausible=False)]) == 2
    assert best([one(0.5), one(0.5)]) == 0 and best([]) is None
    assert best([one(0.9, near=True), one(0.9, plausible=False)]) is None


def test_guidance_falls_to_its_floor_and_never_rises() -> None:
    assert [Descent(1.2, 0.1, 1.0, 9).guidance(number) for number in range(4)] == [1.2, 1.1, 1.0, 1.0]
    assert [Descent(0.4, 0.1, 0.5).guidance(number) for number in range(3)] == [0.4, 0.4, 0.4]


def test_open_places_are_tried_again_and_what_stays_open_is_told() -> None:
    slots = Slots(3, Descent(1.0, 0.1, 0.5, rounds=3))
    assert slots.open == [0, 1, 2] and slots.guidance == 1.0
    assert slots.tell([[one(0.9)], [one(0.9, near=True)], [one(0.2, near=True)]]) == {0: 0}
    assert slots.open == [1, 2] and slots.guidance == 0.9
    assert slots.tell([[one(0.1), one(0.3)], [one(0.9, near=True)]]) == {1: 1}
    assert slots.open == [2] and slots.unfilled == [2]
    assert slots.tell([[one(0.9, near=True)]]) == {}
    assert slots.open == [] and slots.unfilled == [2] and slots.kept == {0: 0, 1: 1}
    with pytest.raises(ValueError, match="0 open places expected; got 1"):
        slots.tell([[one(0.5)]])


@given(st.integers(0, 6), st.integers(1, 8), st.integers(0, 2**32))
def test_it_always_ends_and_keeps_nothing_that_is_near(count: int, rounds: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    slots, number = Slots(count, Descent(1.5, 0.3, 0.5, rounds)), 0
    while places := slots.open:
        candidates = [[one(random.random(), near=random.random() < 0.7) for _ in range(3)] for _ in places]
        fresh = slots.tell(candidates)
        assert all(not candidates[places.index(place)][index].is_near for place, index in fresh.items())
        number += 1
    assert number <= rounds and len(slots.kept) + len(slots.unfilled) == count
