"""The measurement as a job: arms on a project's own patients, room for people who wait, nothing computed twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from saadi import orders, worker
from saadi.errors import BadInputError, TooFewError
from saadi.evidence import learners, rounds
from saadi.evidence.settings import Models
from saadi.jobs import run_job
from saadi.records import Project
from saadi.store import Store
from tests import tiny
from tests.evidence.test_gains import MODELS


@pytest.fixture
def ready(store: Store, project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Ten images of five patients to learn from, four of two others; tiny models."""
    made = replace(MODELS, generator=tiny.architecture(num_classes=2), selector=MODELS.selector | {"num_classes": 2},
                   judge=MODELS.judge | {"num_classes": 2})  # fmt: skip
    monkeypatch.setattr(Models, "of", classmethod(lambda cls, case, **sizes: made))
    for index in range(14):
        image, label_map = tiny.scene(index)
        store.add_image(project.id, blob=store.blobs.put_image(image), size=(16, 16), group_id=f"p{index // 2}",
                        split="train" if index < 10 else "test", source_name=f"{index}.png",
                        label_map_blob=store.blobs.put_label_map((label_map > 0).astype(np.uint8)), actor="x")  # fmt: skip
    return project


def order(project: Project, **changes) -> orders.EvidenceOrder:
    quick = {"fit_steps": 1, "scorer_steps": 1, "downstream_steps": 1, "align_steps": 1, "seeds": 1, "rounds": 1, "num_real": 8}
    return orders.order(orders.EvidenceOrder, project_id=project.id, **quick | changes)


def run(store: Store, wanted: orders.Order):
    placed, _ = orders.place(store, wanted, actor="x")
    run_job(store, store.claim_job("me"), worker.HANDLERS)
    return store.job(placed.id)


def test_a_measurement_ends_with_a_table_and_is_not_computed_twice(store: Store, ready: Project, monkeypatch):
    done = run(store, order(ready))
    assert done.state == "done", done.error
    assert done.message == "5 arms measured on 4 images of patients that nothing has seen"
    result = done.result
    assert set(result["arms"]) == {"plain 0", "augmented 0", "base 1", "rejection 1", "aligned 1 1"}
    assert result["num_test_patients"] == 2 and len(result["arms"]["base 1"]["gain over plain 0"]) == 3
    assert set(store.job_metrics(done.id)) == set(result["arms"])

    def never(*args, **more):
        raise AssertionError("computed again")

    for module, name in ((learners, "train"), (learners, "fit"), (rounds, "align")):
        monkeypatch.setattr(module, name, never)
    assert not orders.place(store, order(ready), actor="x")[1]  # the same images: the answer is there
    store.add_image(ready.id, blob=store.blobs.put_image(tiny.scene(99)[0]), size=(16, 16), group_id="p9", split="val",
                    source_name="99.png", label_map_blob=None, actor="x")  # fmt: skip
    assert run(store, order(ready)).result["arms"] == result["arms"]


def test_whoever_waits_goes_first_and_the_measurement_goes_on(store: Store, ready: Project, monkeypatch):
    placed, _ = orders.place(store, order(ready), actor="x")
    claimed = store.claim_job("me")
    original, calls = learners.fit, []

    def fit_while_somebody_orders(engine, data, config, report, **more):
        calls.append(1)
        if len(calls) == 1:
            store.add_job("predict", {}, project_id=ready.id, actor="x", request_id="r", priority=10)
        return original(engine, data, config, report, **more)

    monkeypatch.setattr(learners, "fit", fit_while_somebody_orders)
    run_job(store, claimed, worker.HANDLERS)
    paused = store.job(placed.id)
    assert paused.state == "queued" and paused.attempt == 0 and paused.message == "paused, somebody waits; goes on by itself"
    urgent = store.claim_job("me")
    assert urgent.kind == "predict"
    store.finish_job(urgent, state="done", message="seen")
    run_job(store, store.claim_job("me"), worker.HANDLERS)
    assert store.job(placed.id).state == "done" and len(calls) == 2  # the generator's stage had to begin anew, nothing else


def test_too_few_images_are_told_before_hours_are_spent(store: Store, ready: Project):
    with pytest.raises(TooFewError, match="to train on: 10, of other patients to test on: 4; needed: 50 and 1"):
        orders.place(store, order(ready, num_real=50), actor="x")
    with pytest.raises(BadInputError, match="shares"):
        order(ready, shares=())
    with pytest.raises(BadInputError, match="shares"):
        order(ready, shares=(0,))
