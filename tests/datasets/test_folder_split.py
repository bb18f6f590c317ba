"""Splits by group: complete, stable, the same whatever the order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saadi.datasets.folder_split import assign_splits
from saadi.errors import BadInputError


@given(st.sets(st.text(min_size=1, max_size=6), min_size=1, max_size=30), st.integers(0, 2**32), st.data())
def test_splits_are_stable_complete_and_the_same_for_more_groups(groups: set[str], seed: int, data: st.DataObject) -> None:
    shares = (0.7, 0.15, 0.15)
    first = assign_splits(groups, known={}, fractions=shares, seed=seed)
    assert first == assign_splits(sorted(groups, reverse=True), known={}, fractions=shares, seed=seed)
    assert len(set(first.values())) >= min(len(groups), 3)
    more = data.draw(st.sets(st.text(min_size=1, max_size=6), max_size=10))
    later = assign_splits(groups | more, known=first, fractions=shares, seed=seed)
    assert {group: later[group] for group in groups} == first


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1)])
def test_shares_that_do_not_add_up_are_refused(shares: tuple[float, float, float]) -> None:
    with pytest.raises(BadInputError, match="add up to 1"):
        assign_splits(["a"], known={}, fractions=shares, seed=0)
