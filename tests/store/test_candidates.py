"""Models, adapters, samples, scores: one in use at a time, the same recipe is one image."""

from __future__ import annotations

import pytest

from saadi.errors import BadInputError, NotFoundError
from saadi.records import Adapter, Model, Project, Score
from saadi.store import Store
from tests.builders import add_engine, add_label_map, add_samples, count


def add_adapter(store: Store, project: Project, model: Model, *, job_id: int | None = None) -> Adapter:
    return store.add_adapter(project.id, model_id=model.id, parent_id=None, file=store.files.put(b"lora"), scale=1.0, config={},
                             metrics={}, actor="test", job_id=job_id)


def test_a_new_model_takes_over_and_a_repeated_job_adds_none(store: Store, project: Project) -> None:
    first = add_engine(store, project)
    second = add_engine(store, project, content=b"better")
    assert store.active_model(project.id, "engine") == second
    assert not store.model(first.id).is_active
    once, twice = (store.add_model(project.id, kind="judge", architecture={}, file=first.file, metrics={}, actor="test", job_id=7)
                   for _ in range(2))
    assert once == twice


def test_accepting_retires_the_one_before_and_rolls_back(store: Store, project: Project) -> None:
    engine = add_engine(store, project)
    first, second = add_adapter(store, project, engine, job_id=1), add_adapter(store, project, engine, job_id=2)
    store.accept_adapter(first.id, project_id=project.id, actor="lead")
    store.accept_adapter(second.id, project_id=project.id, actor="lead", reason="sharper")
    assert [item.state for item in store.adapters(project.id)] == ["retired", "accepted"]
    assert store.audit_rows()[0].details == {"reason": "sharper", "project": project.id, "before": first.id}
    store.accept_adapter(None, project_id=project.id, actor="lead")
    assert store.accepted_adapter(project.id) is None


def test_an_adapter_ends_with_the_weights_it_was_made_for(store: Store, project: Project) -> None:
    adapter = add_adapter(store, project, add_engine(store, project))
    store.accept_adapter(adapter.id, project_id=project.id, actor="lead")
    add_engine(store, project, content=b"newly fitted")
    assert store.accepted_adapter(project.id) is None
    with pytest.raises(BadInputError, match="other base weights"):
        store.accept_adapter(adapter.id, project_id=project.id, actor="lead")


def test_rejecting_nothing_leaves_no_trail(store: Store, project: Project) -> None:
    with pytest.raises(NotFoundError):
        store.reject_adapter(99, actor="lead")
    assert count(store, "audit", "action = 'adapter.reject'") == 0


def test_the_same_recipe_is_one_sample(store: Store, project: Project) -> None:
    drawing = add_label_map(store, project)
    first, second = (add_samples(store, project, count=3, label_map=drawing) for _ in range(2))
    assert first == second
    assert store.samples(project.id, limit=1, newest_first=True) == [first[2]]


def test_curation_tells_what_was_before(store: Store, project: Project) -> None:
    samples = add_samples(store, project)
    ids = [sample.id for sample in samples]
    assert store.curate(ids[:1], "accepted", actor="ann") == {ids[0]: "pending"}
    assert store.curate(ids, "rejected", actor="ann") == {ids[0]: "accepted", ids[1]: "pending"}
    assert store.samples(project.id, curation="accepted") == []


def test_scores_of_replaced_scorers_no_longer_count(store: Store, project: Project) -> None:
    sample = add_samples(store, project, count=1)[0]
    for _ in range(2):
        selector = store.add_model(project.id, kind="selector", architecture={}, file="f", metrics={}, actor="test")
        assert store.unscored_samples(project.id, selector.id) == [sample]
        score = Score(sample.id, selector.id, "selector", 0.5, 0.4, 0.9, {"polyp": {"dice": 0.5}}, sample.label_map_blob)
        store.add_scores([score, score])
        assert store.scores(project.id) == [score]
    assert store.unscored_samples(project.id, selector.id) == []
