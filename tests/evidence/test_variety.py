"""The measurement of variety: each generator and guidance a row, nothing used of guidance where no mask was hidden."""

from __future__ import annotations

import pytest

from saadi.errors import TooFewError
from saadi.evidence import cases, variety
from tests.evidence.test_disclosure import quick  # noqa: F401


def test_each_generator_is_measured_at_each_guidance() -> None:
    case = cases.rendered(side=64, num_train=24, num_test=40)
    found = variety.run(case, seeds=1, fit_steps=2, scorer_steps=2, dropouts=(0.0, 0.3), count=4)
    assert [(row["dropout"], row["guidance"]) for row in found["rows"]] == [(0.0, 1.0), (0.3, 1.0), (0.3, 0.7), (0.3, 1.5)]
    for row in found["rows"]:
        assert 0 <= row["dice"] <= 1 and 0 < row["irs"] <= 1 and 1 <= row["vendi"] <= 4 and 0 <= row["near"] <= 1
        assert row["coverage"] is not None and row["density"] is not None
    told = variety.markdown(found)
    assert told[-1].startswith("| 30% | 1.5 | 0.") and len(told) == 4 + 4


def test_too_few_test_patients_are_refused() -> None:
    with pytest.raises(TooFewError, match="4 test patients, 8 needed"):
        variety.run(cases.rendered(side=64, num_train=8, num_test=4), seeds=1, fit_steps=1, scorer_steps=1)
