"""Errors that tell who was learnt from."""

from __future__ import annotations

import numpy as np
import pytest

from saadi.privacy.membership import Membership


def found(shift: float, *, patients: int = 30, seed: int = 0) -> Membership | None:
    draw = np.random.default_rng(seed)
    names = [str(place // 3) for place in range(3 * patients)]
    members, others = draw.normal(size=(2, 3 * patients))
    return Membership.of(members - shift, others, patients=names, other_patients=names)


def test_the_area_is_that_of_the_ranks() -> None:
    names = list("abcdefgh")
    one = Membership.of([1, 2, 3, 4, 5, 6, 7, 8], [4.5] * 8, patients=names, other_patients=names)
    assert one is not None and one.auc == 0.5
    tied = Membership.of([1.0] * 8, [1.0] * 8, patients=names, other_patients=names)
    assert tied is not None and (tied.auc, tied.low, tied.high) == (0.5, 0.5, 0.5)


def test_what_was_learnt_is_told_and_chance_is_not() -> None:
    known, chance = found(1.5), found(0.0)
    assert known is not None and known.auc == pytest.approx(0.856, abs=0.06) and known.low > 0.7  # Phi(1.5 / sqrt 2)
    assert chance is not None and chance.low < 0.5 < chance.high


def test_the_interval_covers_the_truth() -> None:
    covered = [one.low <= 0.5 <= one.high for seed in range(40) if (one := found(0.0, seed=seed)) is not None]
    assert np.mean(covered) >= 0.85


def test_few_patients_say_nothing() -> None:
    assert found(1.0, patients=7) is None
