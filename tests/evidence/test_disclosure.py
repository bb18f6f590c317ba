"""The measurement of the audit: planted copies, growing shares of them, generators."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from saadi.errors import TooFewError
from saadi.evidence import cases, disclosure
from saadi.evidence.disclosure import CHANGES, EVERYTHING, SHARES, Steps
from saadi.privacy import verifier


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = verifier.fit
    monkeypatch.setattr(verifier, "fit", lambda images, groups, **more: fit(images, groups, **{**more, "steps": 40}))


def test_copies_are_found_and_more_of_them_more_often() -> None:
    case = cases.rendered(side=64, num_train=40, num_test=80)
    found: dict[str, Any] = disclosure.run(case, seeds=1, steps=Steps(0, 0))
    [rates] = found["copies"]
    assert set(rates["all measures"]) == {*CHANGES, EVERYTHING, "images of unseen patients"}
    assert rates["all measures"]["exact"] == rates["pixels and hash"]["exact"] == 1.0
    assert rates["all measures"]["images of unseen patients"] < 0.2
    [growth] = found["growth"]
    assert [row["share"] for row in growth] == list(SHARES)
    assert [row["flagged"] for row in growth] == sorted(row["flagged"] for row in growth) and growth[-1]["fails"]
    told = "\n".join(disclosure.markdown(found))
    assert "| exact | 100 % | 100 % |" in told and "| 100% |" in told and "generator" not in told


def test_generators_are_asked_for_strangers_masks_and_for_their_own() -> None:
    case = cases.rendered(side=64, num_train=24, num_test=40)
    found = disclosure.run(case, seeds=1, steps=Steps(usual=2, memorising=2), generated=4)
    [rows] = found["generators"]
    assert list(rows) == ["fitted as usual, strangers' masks", "fitted as usual, its own masks",
                          "memorised 10 images, strangers' masks", "memorised 10 images, its own masks"]  # fmt: skip
    assert any(line.startswith("| memorised 10 images, its own masks |") for line in disclosure.markdown(found))


def test_too_few_test_patients_are_refused() -> None:
    case = cases.rendered(side=64, num_train=16, num_test=8)
    with pytest.raises(TooFewError, match="8 test patients, 16 needed"):
        disclosure.run(replace(case, train=case.train[:8]), seeds=1, steps=Steps(0, 0))
