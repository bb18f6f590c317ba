"""Blind trials are append-only, the newest answer counts, and decisions keep their reasons."""

from __future__ import annotations

import numpy as np
import pytest
from sqlite_utils.utils import sqlite3

from saadi.errors import BadInputError, NotFoundError
from saadi.records import Adapter, Answer, Project, Trial
from saadi.store import Store
from tests.builders import add_engine, count, new_request


@pytest.fixture
def adapter(store: Store, project: Project) -> Adapter:
    engine = add_engine(store, project)
    return store.add_adapter(project.id, model_id=engine.id, parent_id=None, file=engine.file, scale=1.0, config={}, metrics={},
                             actor="test")


def answer(store: Store, adapter: Adapter, given: Answer = "left", *, voter: str = "ann", new_is_left: bool = True,
           pair: int = 0, request_id: str | None = None) -> Trial:
    label_map, old, new = (store.blobs.put_image(np.full((8, 8, 3), 3 * pair + kind, np.uint8)) for kind in range(3))
    return store.add_trial(adapter.id, label_map_blob=label_map, old_blob=old, new_blob=new, new_is_left=new_is_left,
                           answer=given, voter=voter, request_id=request_id or new_request())


def test_a_side_means_old_or_new_by_where_it_was_shown(store: Store, adapter: Adapter) -> None:
    assert answer(store, adapter, "left", new_is_left=True, pair=0).prefers_new is True
    assert answer(store, adapter, "left", new_is_left=False, pair=1).prefers_new is False
    assert answer(store, adapter, "right", new_is_left=False, pair=2).prefers_new is True
    assert answer(store, adapter, "both_bad", pair=3).prefers_new is None


def test_a_resent_answer_counts_once(store: Store, adapter: Adapter) -> None:
    first, second = (answer(store, adapter, request_id="r") for _ in range(2))
    assert first == second
    assert count(store, "trials") == count(store, "audit", "action = 'trial'") == 1


def test_a_second_answer_replaces_the_first_and_both_stay(store: Store, project: Project, adapter: Adapter) -> None:
    answer(store, adapter, "left")
    second = answer(store, adapter, "right")
    others = answer(store, adapter, "left", voter="bob")
    assert store.trials(project.id) == [second, others]
    assert store.trials(project.id, adapter_id=adapter.id, voter="ann") == [second]
    assert count(store, "trials") == 3


@pytest.mark.parametrize("change", ["UPDATE trials SET answer = 'right'", "DELETE FROM trials"])
def test_nothing_is_ever_changed(store: Store, adapter: Adapter, change: str) -> None:
    answer(store, adapter)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"), store.write() as db:
        db.execute(change)


def test_what_cannot_be_compared_is_refused(store: Store, adapter: Adapter) -> None:
    same = store.blobs.put_image(np.zeros((8, 8, 3), np.uint8))
    values = {"label_map_blob": same, "old_blob": same, "new_is_left": True, "voter": "ann", "request_id": "r"}
    with pytest.raises(BadInputError, match="same image"):
        store.add_trial(adapter.id, new_blob=same, answer="left", **values)
    with pytest.raises(BadInputError, match="an answer is one of"):
        store.add_trial(adapter.id, new_blob="0" * 64, answer="maybe", **values)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="not in the data folder"):
        store.add_trial(adapter.id, new_blob="0" * 64, answer="left", **values)
    assert count(store, "trials") == 0


def test_compared_pixels_are_never_swept(store: Store, adapter: Adapter) -> None:
    given = answer(store, adapter)
    assert {given.label_map_blob, given.old_blob, given.new_blob} <= store.referenced_blobs()


def test_decisions_tell_who_and_why_and_repeats_add_nothing(store: Store, project: Project, adapter: Adapter) -> None:
    for _ in range(2):
        store.accept_adapter(adapter.id, project_id=project.id, actor="lead", reason="sharper")
    for _ in range(2):
        store.accept_adapter(None, project_id=project.id, actor="bob", reason="too dark")
    for _ in range(2):
        store.reject_adapter(adapter.id, actor="ann", reason="no")
    other = store.create_project("other", task="segmentation", classes=project.classes, resolution=16, actor="test")
    assert store.adapter_decisions(other.id) == []
    found = [(row.actor, row.action, row.subject, row.details["reason"]) for row in store.adapter_decisions(project.id)]
    name = f"adapter:{adapter.id}"
    assert found == [("lead", "adapter.accept", name, "sharper"), ("bob", "adapter.accept", "adapter:base", "too dark"),
                     ("ann", "adapter.reject", name, "no")]
