"""What an audit says of patients who have withdrawn since the export was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from saadi.errors import BadInputError
from saadi.records import Project
from saadi.store import Store
from tests.release.test_audit_job import FRESH, NUM_TRAINED, accept, audited, exported, picture, quick, scenes  # noqa: F401


def test_an_audit_names_the_tie_and_compares_with_them_no_more(store: Store, scenes: Project, tmp_path: Path) -> None:  # noqa: F811
    accept(store, scenes, [picture(patient) for patient in FRESH])
    first = exported(store, scenes, tmp_path / "out", include_real=True)
    record = store.withdraw(scenes.id, "patient 0", person="ann", reason="the patient wrote to us")
    found = audited(store, scenes, first).findings
    assert "1 images hold data of a patient who has withdrawn" in found["reasons"] and found["verdict"] == "fails"
    assert found["own"]["num_training_patients"] == NUM_TRAINED - 1
    newest = store.disclosures(scenes.id, export_id=first)[-1]
    with pytest.raises(BadInputError, match="1 images of export 1 hold data of a patient who has withdrawn; export again"):
        store.release(first, disclosure_id=newest.id, person="ann", reason="for the partner", despite=True)
    second = exported(store, scenes, tmp_path / "next", include_real=True)
    assert not any("withdrawn" in reason for reason in audited(store, scenes, second).findings["reasons"])
    store.revoke_withdrawal(record.id, person="ann", reason="it was somebody else")
    again = audited(store, scenes, first).findings
    assert not any("withdrawn" in reason for reason in again["reasons"])
    assert again["own"]["num_training_patients"] == NUM_TRAINED
