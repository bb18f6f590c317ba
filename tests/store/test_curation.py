"""Marks, descriptors and the map in the store."""

from __future__ import annotations

import numpy as np
import pytest

from saadi.errors import BadInputError, NotFoundError
from saadi.records import Project, Score
from saadi.store import Store
from tests.builders import add_samples, count
from tests.conftest import CLASSES


def test_a_mark_set_twice_is_one_and_leaves_one_trace(store: Store, project: Project) -> None:
    ids = [sample.id for sample in add_samples(store, project)]
    assert store.mark(project.id, ids, "flag", is_set=True, person="ann") == ids
    assert store.mark(project.id, ids, "flag", is_set=True, person="ann") == []
    assert [(mark.sample_id, mark.kind, mark.person) for mark in store.marks(project.id)] == [(n, "flag", "ann") for n in ids]
    assert count(store, "audit", "action = 'sample.flag'") == 1
    assert store.audit_rows()[0].details == {"samples": ids}


def test_taking_a_mark_off_spares_those_of_others(store: Store, project: Project) -> None:
    first = add_samples(store, project, count=1)[0].id
    for person in ("ann", "ben"):
        store.mark(project.id, [first], "flag", is_set=True, person=person)
    assert store.mark(project.id, [first], "flag", is_set=False, person="ann") == [first]
    assert store.mark(project.id, [first], "flag", is_set=False, person="ann") == []
    assert [mark.person for mark in store.marks(project.id, sample_id=first)] == ["ben"]
    assert store.audit_rows()[0].action == "sample.unflag"


def test_a_note_is_changed_in_place_and_stays_out_of_the_trail(store: Store, project: Project) -> None:
    first, second = (sample.id for sample in add_samples(store, project))
    assert store.mark(project.id, [first], "flag", is_set=True, person="ann") == [first]
    store.mark(project.id, [first], "flag", is_set=True, person="ben", note="of ben")
    assert store.mark(project.id, [first, second], "flag", is_set=True, person="ann", note="no tip") == [second, first]
    assert store.mark(project.id, [first], "flag", is_set=True, person="ann", note="no tip") == []  # a resend
    assert store.mark(project.id, [first], "flag", is_set=True, person="ann") == []  # without a note the one there stays
    notes = {(mark.sample_id, mark.person): mark.note for mark in store.marks(project.id)}
    assert notes == {(first, "ann"): "no tip", (first, "ben"): "of ben", (second, "ann"): "no tip"}
    assert "tip" not in str([row.details for row in store.audit_rows()])


def test_no_mark_reaches_into_another_project(store: Store, project: Project) -> None:
    own = add_samples(store, project, count=1)[0].id
    other = store.create_project("other", task="segmentation", classes=CLASSES, resolution=16, actor="test")
    with pytest.raises(BadInputError, match="another project"):
        store.mark(other.id, [own], "favourite", is_set=True, person="ann")
    with pytest.raises(BadInputError, match="reload"):
        store.mark(project.id, [own, 99], "favourite", is_set=True, person="ann")
    assert store.marks(project.id) == [] and store.marks(other.id) == []


def test_descriptors_come_back_as_they_were_and_the_first_stays(store: Store) -> None:
    first = np.array([1.5, -2, 3], np.float32)
    store.put_descriptors("look", {"b": first, "a": first * 2})
    store.put_descriptors("look", {"a": first * 9})
    found = store.descriptors("look", ["a", "missing", "b", "a"])
    assert list(found) == ["a", "b"]
    assert (found["a"] == first * 2).all() and (found["b"] == first).all()
    assert store.undescribed("look", ["missing", "a", "missing"]) == ["missing"]
    assert store.undescribed("other", ["a"]) == ["a"]


def test_the_map_comes_back_and_a_new_one_takes_its_place(store: Store, project: Project) -> None:
    assert store.projection(project.id) is None
    for shift in (0, 1):
        points = np.arange(6, dtype=np.float32).reshape(3, 2) + shift
        store.set_projection(project.id, input=f"hash{shift}", sample_ids=[5, 7], image_ids=[2], points=points)
    found = store.projection(project.id)
    assert found is not None and found.input == "hash1"
    assert found.sample_ids.tolist() == [5, 7] and found.image_ids.tolist() == [2]
    assert found.points.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_the_input_of_a_map_changes_with_the_images_only(store: Store, project: Project) -> None:
    samples = add_samples(store, project, count=2)
    before = store.projection_input(project.id, "look")
    store.curate([samples[0].id], "accepted", actor="ann")
    assert store.projection_input(project.id, "look") == before != store.projection_input(project.id, "other")
    add_samples(store, project, count=3)
    assert store.projection_input(project.id, "look") != before


def test_plain_rows_tell_what_full_records_tell(store: Store, project: Project) -> None:
    samples = add_samples(store, project, count=2)
    selector, judge = (store.add_model(project.id, kind=kind, architecture={}, file="f", metrics={}, actor="test")
                       for kind in ("selector", "judge"))
    parts = {"polyp": {"dice": 0.5}}
    store.add_scores(Score(samples[0].id, model.id, model.kind, 0.5, 0.4, 0.9, parts, samples[0].label_map_blob)
                     for model in (selector, judge))
    for row, sample in zip(store.sample_rows(project.id), samples, strict=True):
        assert (row.id, row.blob, row.seed, row.curation) == (sample.id, sample.blob, sample.seed, sample.curation)
    rows = store.score_rows(project.id)
    assert [(row.kind, row.dice, row.per_class) for row in rows] == [("selector", 0.5, '{"polyp":{"dice":0.5}}'),
                                                                     ("judge", 0.5, "{}")]


def test_many_are_decided_at_once_or_not_at_all(store: Store, project: Project) -> None:
    ids = [sample.id for sample in add_samples(store, project, count=5)]
    with pytest.raises(NotFoundError, match="no sample 99"):
        store.curate([*ids, 99], "accepted", actor="ann")
    assert store.count_curation(project.id) == {"pending": 5}
    store.curate(ids[:2], "accepted", actor="ann")
    assert store.count_curation(project.id) == {"pending": 3, "accepted": 2}


def test_descriptors_of_pixels_that_are_gone_go_with_them(store: Store, project: Project) -> None:
    sample = add_samples(store, project, count=1)[0]
    store.put_descriptors("look", {sample.blob: np.ones(2, np.float32), "0" * 64: np.ones(2, np.float32)})
    store.sweep_unnamed_blobs()
    assert store.undescribed("look", [sample.blob, "0" * 64]) == ["0" * 64]
