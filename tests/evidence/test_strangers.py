"""How many strangers a limit needs: one by patient flags fewer of the unseen than one by image, and finds fewer copies."""

from __future__ import annotations

import pytest

from saadi.errors import TooFewError
from saadi.evidence import cases, strangers
from tests.evidence.test_disclosure import quick  # noqa: F401


def test_each_way_and_number_is_measured_by_patient_and_by_image() -> None:
    case = cases.rendered(side=64, num_train=24, num_test=240, num_test_patients=20)
    found = strangers.run(case, seeds=1, deals=6)
    rows = found["rows"]
    assert [(row["way"], row["strangers"], row["limit_by"]) for row in rows] == [
        (way, 10, limit_by) for way in ("all measures", "pixels and hash") for limit_by in ("patient", "image")]
    assert all(row["found"]["exact"] == 1.0 for row in rows)
    for by_patient, by_image in zip(rows[::2], rows[1::2], strict=True):
        assert all(by_patient["found"][kind] <= by_image["found"][kind] for kind in by_image["found"])
        assert by_patient["unseen_flagged"] < by_image["unseen_flagged"]
        low, high = by_patient["unseen_flagged_10_90"]
        assert 0 <= low <= high <= 1 and 0 <= by_patient["deals_beyond_aim"] <= 1
    told = strangers.markdown(found)
    assert len(told) == 4 + 4 and told[4].startswith("| all measures | 10 | patient | ")


def test_too_few_test_patients_are_refused() -> None:
    with pytest.raises(TooFewError, match="12 test patients, 20 needed"):
        strangers.run(cases.rendered(side=64, num_train=8, num_test=12), seeds=1, deals=1)
