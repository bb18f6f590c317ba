"""The image retrieval score: published values, chances by hand, and what can be reached in a simulation."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from saadi.privacy.retrieval import Retrieval, interval, likeliest, occupied


@pytest.mark.parametrize(("num", "distinct", "num_real", "reachable"), [
    (100, 60, 200, 88), (100, 40, 200, 44), (50, 45, 500, 228), (200, 100, 1000, 125), (200, 199, 1000, 1000)])  # fmt: skip
def test_the_likeliest_number_by_the_exact_formula(num: int, distinct: int, num_real: int, reachable: int) -> None:
    assert likeliest(num, distinct, num_real) == reachable


def test_chances_by_hand() -> None:
    # Three retrievals among two: all at one place 2 / 8, at both 6 / 8.
    np.testing.assert_allclose(occupied(3, 2), [0, 0.25, 0.75, 0])
    # Stirling's numbers S2(5, k) = 1, 15, 25, 10, 1, times 4! / (4 - k)! / 4^5.
    stirling = [0, 1, 15, 25, 10, 0]
    falling = [comb(4, k) * np.prod(np.arange(1, k + 1)) if k <= 4 else 0 for k in range(6)]
    np.testing.assert_allclose(occupied(5, 4), np.array(stirling) * falling / 4**5)
    assert occupied(400, 90).sum() == pytest.approx(1)


def test_the_interval_holds_what_neither_tail_rules_out() -> None:
    low, high = interval(100, 60, 200)
    assert low < 88 < high
    for reachable, is_inside in ((low, True), (low - 1, False), (high, True), (high + 1, False)):
        chance = occupied(100, reachable)
        assert (chance[60:].sum() > 0.025 and chance[:61].sum() > 0.025) == is_inside
    assert interval(200, 199, 1000)[1] == 1000


def test_in_a_simulation_the_interval_holds_the_truth_and_fewer_reached_are_found_to_be_fewer() -> None:
    draw = np.random.default_rng(0)
    held, told = 0, []
    for reachable in (40, 120):
        for _ in range(60):
            found = Retrieval.of(draw.integers(0, reachable, 100), num_real=200)
            held += found.low <= reachable <= found.high
        told.append(found.score)
        assert not found.is_saturated
    assert held >= 0.95 * 120 - 6 and told[0] < 0.3 < told[1]
    assert Retrieval.of([0, 1, 2], num_real=9).is_saturated


def test_what_is_not_there_is_refused() -> None:
    for wrong in ([], [0, 3], [-1]):
        with pytest.raises(ValueError, match="indices of 3 real images expected"):
            Retrieval.of(wrong, num_real=3)
