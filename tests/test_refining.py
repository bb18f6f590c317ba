"""Measuring outlines: the job over a tiny project, and what it needs."""

from __future__ import annotations

import pytest

from saadi import refining
from saadi.config import Home
from saadi.engines import weights
from saadi.errors import BadInputError, TooFewError
from saadi.jobs import run_worker
from saadi.orders import RefineOrder, TrainScorerOrder, order, place, refinement
from saadi.records import Job, LabelClass, Project
from saadi.refinement import Choice, eroded
from saadi.store import Store
from saadi.worker import HANDLERS
from tests import tiny

CLASSES = [LabelClass(0, "tissue", "#000000"), LabelClass(1, "organ", "#009e73"), LabelClass(2, "bar", "#0072b2")]


@pytest.fixture
def filled(store: Store, home: Home) -> Project:
    """Twelve scenes to learn from, ten to measure on; a random generator, barely trained scorers."""
    project = store.create_project("rims", task="segmentation", classes=CLASSES, resolution=16, actor="test")
    for seed in range(22):
        image, label_map = tiny.scene(seed, side=32)
        store.add_image(project.id, blob=store.blobs.put_image(image), size=(32, 32), group_id=f"p{seed}",
                        split="train" if seed < 12 else "val", source_name=str(seed),
                        label_map_blob=store.blobs.put_label_map(label_map), actor="test")  # fmt: skip
    made = tiny.engine()
    file = store.files.put(weights.to_bytes(made.denoiser.state_dict()))
    store.add_model(project.id, kind="engine", architecture=made.architecture, file=file, metrics={}, actor="test")
    run(store, home, TrainScorerOrder(project_id=project.id, steps=2, batch_size=4))
    return project


def run(store: Store, home: Home, wanted) -> Job:
    placed, _ = place(store, wanted, actor="test")
    assert run_worker(home, HANDLERS, exit_when_idle=True)
    done = store.job(placed.id)
    assert done.state == "done", store.job_traceback(placed.id)
    return done


def test_outlines_are_measured_on_validation_patients_and_told_with_pictures(
    store: Store, home: Home, filled: Project, monkeypatch: pytest.MonkeyPatch
):
    asked: list = []

    def chosen(seen, label_maps, seen_real, real, *, num_classes):
        asked.extend(label_maps)
        assert len(seen) == len(label_maps) == len(seen_real) == len(real) == 10 and num_classes == 3
        assert all(one.shape == (16, 16) for one in [*seen, *label_maps, *seen_real, *real])
        return {1: Choice(1, {1: (0.02, 0.01, 0.03)}, {1: 0.001}, 10), 2: Choice(0, {}, {}, 4)}

    monkeypatch.setattr(refining, "choose", chosen)
    job = run(store, home, RefineOrder(project_id=filled.id))
    assert job.message == "smaller masks fit better: organ 1 px (10 validation images)"
    found = refinement(store, filled.id)
    assert found is not None and found["radii"] == {"organ": 1} and found["job_id"] == job.id and len(found["examples"]) == 4
    for example in found["examples"]:
        before, after = (store.blobs.label_map(example[name]) for name in ("before", "after"))
        assert (after == eroded(before, {1: 1})).all()
        assert {example["blob"], example["before"], example["after"]} <= store.referenced_blobs()  # no sweep takes them
    again, is_new = place(store, RefineOrder(project_id=filled.id), actor="test")
    assert not is_new and again.id == job.id
    assert store.samples(filled.id) == []  # what is made to measure is no part of any pool


def test_by_the_true_rule_a_random_generator_asks_for_nothing(store: Store, home: Home, filled: Project):
    job = run(store, home, RefineOrder(project_id=filled.id))
    assert job.result["num_images"] == 10 and set(job.result["classes"]) == {"organ", "bar"}
    assert job.message.startswith("smaller masks fit better" if job.result["radii"] else "no class is found better")
    assert all(found["num_images"] < 8 or set(found["gains"]) == {"1", "2", "3"} for found in job.result["classes"].values())


def test_what_is_missing_is_said(store: Store, project: Project):
    with pytest.raises(TooFewError, match="no generator yet"):
        order(RefineOrder, project_id=project.id).check(store)
    store.add_model(project.id, kind="engine", architecture={}, file=store.files.put(b"w"), metrics={}, actor="test")
    with pytest.raises(TooFewError, match="no selector yet"):
        order(RefineOrder, project_id=project.id).check(store)
    store.add_model(project.id, kind="selector", architecture={}, file=store.files.put(b"s"), metrics={}, actor="test")
    with pytest.raises(TooFewError, match="0 labelled images of validation patients, 8 needed"):
        order(RefineOrder, project_id=project.id).check(store)
    phases = store.create_project("phases", task="classification", classes=CLASSES, resolution=16, actor="test")
    with pytest.raises(BadInputError, match="nothing to refine"):
        order(RefineOrder, project_id=phases.id).check(store)
