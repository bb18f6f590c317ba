"""Isolation by predicates: chance, planted copies, and what a release of none of them looks like."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from saadi.privacy import isolation
from saadi.privacy.isolation import Isolation, Nearest, chance, isolated, limits

Similarities = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def released(share_of_copies: float, *, num_patients: int = 100, num_items: int = 300, seed: int = 0) -> Similarities:
    """Similarities of a release to training, held-out and calibration patients: minus distances of points in the plane."""
    draw = np.random.default_rng(seed)
    trained, held_out = draw.normal(size=(2, num_patients, 8))
    calibration, items = draw.normal(size=(10 * num_patients, 8)), draw.normal(size=(num_items, 8))
    copied = draw.permutation(num_items)[: round(share_of_copies * num_items)]
    items[copied] = trained[draw.integers(num_patients, size=len(copied))] + 0.01 * draw.normal(size=(len(copied), 8))
    return tuple(-np.linalg.norm(items[:, None] - people[None], axis=2) for people in (trained, held_out, calibration))


@pytest.mark.parametrize(("num", "weight", "expected"), [
    (50, 1 / 50, 0.3716), (100, 1 / 100, 0.3697), (1000, 1 / 1000, 0.3681), (100, 1 / 1000, 0.0906)])  # fmt: skip
def test_chance_is_the_closed_form_and_what_a_simulation_finds(num: int, weight: float, expected: float) -> None:
    assert chance(num, weight) == pytest.approx(expected, abs=5e-5)
    draw, tries = np.random.default_rng(0), 40_000
    alone = (draw.binomial(num, weight, size=tries) == 1).mean()
    assert abs(alone - expected) < 3 * np.sqrt(expected * (1 - expected) / tries)


def test_a_copy_isolates_where_nobody_else_is_hit() -> None:
    """At 1 / (10 N) a copy isolates with (1 - w)^(N - 1) = 0.9057; at 1 / N with 0.37, as chance does."""
    trained, held_out, calibration = released(1.0)
    found = Isolation.of(trained, held_out, calibration)
    assert found.of_trained == pytest.approx((1 - 1 / 1000) ** 99, abs=0.03) and found.verdict == "fails"
    light = Isolation.of(trained, held_out, calibration, weight=1 / 100)
    assert light.of_trained < 0.55 and abs(light.by_chance - 0.3697) < 1e-3


def test_the_excess_grows_with_the_share_of_copies_and_is_none_without() -> None:
    shares = (0.0, 0.1, 0.5, 1.0)
    found = [Isolation.of(*released(share)) for share in shares]
    nearest = [Nearest.of(*released(share)[:2]) for share in shares]
    for kept in ([one.excess for one in found], [one.share for one in nearest]):
        assert kept == sorted(kept) and kept[-1] > 0.8
    assert found[0].low < 0 < found[0].high and abs(found[0].excess) < 0.08 and found[2].low > 0
    assert nearest[0].low < 0.5 < nearest[0].high and nearest[2].low > 0.5 and nearest[3].share == 1.0


def test_by_hand() -> None:
    similarity = np.array([[0.9, 0.2, 0.1], [0.9, 0.8, 0.1], [0.1, 0.1, 0.1], [0.2, 0.3, 0.7]])
    assert isolated(similarity, [0.5, 0.5, 0.5, 0.5]).tolist() == [0, -1, -1, 2]
    calibration = np.arange(20.0)[None]
    assert limits(calibration, weight=0.1).tolist() == [18.0]  # somebody new exceeds it with probability 2 / 21
    everywhere = Nearest.of(np.ones((4, 3)), np.ones((4, 3)))
    assert everywhere.share == pytest.approx(0.5)  # as near to everybody
    nearest = Nearest.of([[0.9, 0.1], [0.2, 0.1], [0.1, 0.8]], [[0.1, 0.2], [0.3, 0.9], [0.0, 0.0]])
    assert nearest.share == pytest.approx(2 / 3) and nearest.low <= nearest.share <= nearest.high


def test_predicates_of_exchangeable_people_isolate_as_often_as_chance_says() -> None:
    found = [Isolation.of(*released(0.0, num_items=400, seed=seed)) for seed in range(8)]
    rates = [one.of_trained for one in found] + [one.of_held_out for one in found]
    assert abs(np.mean(rates) - found[0].by_chance) < 0.012


def test_few_items_or_patients_conclude_nothing() -> None:
    silent = np.zeros((10, 60))
    none = Isolation.of(silent, silent, np.arange(6000.0).reshape(10, 600))
    assert none.excess == 0 and none.low < -0.05 and none.high > 0.05 and none.verdict == "fails"
    one_patient = np.zeros((100, 60))
    one_patient[:, 7] = 1.0
    found = Isolation.of(np.zeros((100, 60)), one_patient, np.zeros((100, 600)))
    assert (found.of_trained, found.of_held_out) == (0.0, 1.0) and -1 <= found.low <= found.high <= 0
    few = Isolation.of(*released(0.0, num_patients=20, num_items=40))
    assert few.verdict == "nothing concluded"


def test_too_few_people_to_set_limits_on_are_refused() -> None:
    trained, held_out, calibration = released(0.0, num_items=10)
    with pytest.raises(ValueError, match=r"a weight of 0\.001 is set on 1000 people or more; got 400"):
        Isolation.of(trained, held_out, calibration[:, :400])
    with pytest.raises(ValueError, match="as many held-out patients as training patients expected"):
        Isolation.of(trained, held_out[:, :9], calibration)
    assert isolation.calibration_needed(100) == 1000


def test_groups_of_different_sizes_are_compared_with_what_is_expected_of_them() -> None:
    draw = np.random.default_rng(0)
    items, known, others = draw.normal(size=(400, 8)), draw.normal(size=(90, 8)), draw.normal(size=(30, 8))

    def near(points: NDArray[np.float64]) -> Nearest:
        return Nearest.of(*(-np.linalg.norm(points[:, None] - people[None], axis=2) for people in (known, others)))

    fresh = near(items)
    assert fresh.expected == 0.75 and fresh.low < 0.75 < fresh.high and fresh.excess_interval[0] < 0 < fresh.excess_interval[1]
    copied = near(np.concatenate([items[:200], known[draw.integers(90, size=200)] + 0.01]))
    assert copied.excess > 0.3 and copied.excess_interval[0] > 0 and near(known).excess == 1.0
    with pytest.raises(ValueError, match="same items"):
        Nearest.of(np.zeros((3, 2)), np.zeros((2, 2)))
