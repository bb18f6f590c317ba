"""Favourites and flags belong to a person."""

from __future__ import annotations

import pytest

from saadi.errors import NotFoundError
from saadi.records import Project
from saadi.store import Store
from tests import builders


def test_marks_are_of_one_person_and_setting_twice_is_once(store: Store, project: Project) -> None:
    first, second = builders.add_samples(store, project, count=2)
    for person in ("ann", "ann", "bob"):
        store.set_mark(first.id, "favourite", on=True, person=person)
    store.set_mark(second.id, "flag", on=True, person="ann", note="blurred")
    found = [(mark.sample_id, mark.kind, mark.person, mark.note) for mark in store.marks(project.id)]
    likes = [(first.id, "favourite", person, "") for person in ("ann", "bob")]
    assert found == [*likes, (second.id, "flag", "ann", "blurred")]
    assert builders.count(store, "audit", "action LIKE 'mark.%'") == 3


def test_a_mark_taken_away_is_gone_for_that_person_only(store: Store, project: Project) -> None:
    sample = builders.add_samples(store, project, count=1)[0]
    for person in ("ann", "bob"):
        store.set_mark(sample.id, "favourite", on=True, person=person)
    for _ in range(2):
        store.set_mark(sample.id, "favourite", on=False, person="ann")
    assert [mark.person for mark in store.marks(project.id)] == ["bob"]


def test_a_new_note_replaces_the_old_one(store: Store, project: Project) -> None:
    sample = builders.add_samples(store, project, count=1)[0]
    for note in ("dark", "too dark"):
        store.set_mark(sample.id, "flag", on=True, person="ann", note=note)
    assert [mark.note for mark in store.marks(project.id)] == ["too dark"]


def test_marks_need_a_sample(store: Store, project: Project) -> None:
    with pytest.raises(NotFoundError, match="no sample 9; reload"):
        store.set_mark(9, "favourite", on=True, person="ann")
