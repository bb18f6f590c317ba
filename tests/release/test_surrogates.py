"""A set to share: copies of training images are never kept, guidance falls, empty places are told, a retry changes nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import pytest

from saadi import orders
from saadi.downstream import scoring
from saadi.engines import weights
from saadi.engines.compact import CompactEngine
from saadi.errors import BadInputError, TooFewError
from saadi.jobs import run_job
from saadi.orders import SurrogatesOrder
from saadi.orders.generating import SamplingSettings
from saadi.records import Image, Job, LabelMapRecord, Project
from saadi.release import surrogates
from saadi.store import Store
from tests import tiny
from tests.exports.builders import drawing
from tests.release.test_audit_job import SIDE, picture, quick, scenes  # noqa: F401

STUBBORN = 2
"""Place of the mask whose candidates all are copies."""


def changed(image: Image) -> Image:
    return cv2.convertScaleAbs(image[:, ::-1], alpha=1.1, beta=4)


@pytest.fixture
def project(store: Store, scenes: Project, monkeypatch: pytest.MonkeyPatch) -> Project:  # noqa: F811
    """A generator that copies its training patients as long as guidance is on, and one mask's in any case."""
    engine = tiny.engine(num_classes=7, resolution=SIDE)
    store.add_model(scenes.id, kind="engine", architecture=engine.architecture,
                    file=store.files.put(weights.to_bytes(engine.denoiser.state_dict())), metrics={}, actor="ann")  # fmt: skip
    store.add_model(scenes.id, kind="selector", architecture={}, file=store.files.put(b"x"), metrics={}, actor="ann")
    monkeypatch.setattr(scoring, "load_scorers", lambda *args: [])

    def generate(self: CompactEngine, label_maps: Any, seeds: list[int], *, guidance_scale: float, **more: Any) -> list[Image]:
        made = []
        for label_map, seed in zip(label_maps, seeds, strict=True):
            copies = guidance_scale > 0.95 or int(label_map[0, 0]) == STUBBORN
            made.append(changed(picture(seed % 52)) if copies else picture(200 + seed % 60))
        return made

    monkeypatch.setattr(CompactEngine, "generate", generate)
    return scenes


@pytest.fixture
def masks(store: Store, project: Project) -> list[LabelMapRecord]:
    return [drawing(store, project, np.full((SIDE, SIDE), value, np.uint8), request_id=f"mask-{value}") for value in range(4)]


def run(store: Store, wanted: orders.Order) -> Job:
    job, _ = orders.place(store, wanted, actor="ann")
    claimed = store.claim_job(f"worker-{job.id}")
    assert claimed is not None
    run_job(store, orders.freeze(store, claimed), {"surrogates": surrogates.run_job})
    return store.job(job.id)


def wanted(project: Project, masks: list[LabelMapRecord], **more: Any) -> SurrogatesOrder:
    settings = SamplingSettings(guidance_scale=1.0)
    return SurrogatesOrder(project_id=project.id, label_map_ids=tuple(mask.id for mask in masks), candidates=3,
                           settings=settings, **{"rounds": 3, **more})  # fmt: skip


def test_copies_are_left_guidance_falls_and_empty_places_are_told(
    store: Store, project: Project, masks: list[LabelMapRecord]
) -> None:
    ended = run(store, wanted(project, masks, accept=True))
    assert ended.state == "done", (ended.error, store.job_traceback(ended.id))
    found = ended.result
    assert [one["guidance"] for one in found["rounds"]] == [1.0, 0.9, 0.8]
    assert found["rounds"][0]["near"] == 12 and found["rounds"][0]["kept"] == 0 and found["rounds"][0]["irs"] is None
    kept = [store.sample(number) for number in found["kept_ids"]]
    assert {sample.label_map_id for sample in kept} == {mask.id for place, mask in enumerate(masks) if place != STUBBORN}
    assert found["unfilled_label_map_ids"] == [masks[STUBBORN].id]
    assert all(sample.settings["guidance_scale"] < 1 and sample.curation == "accepted" for sample in kept)
    fresh = {picture(200 + number).tobytes() for number in range(60)}
    assert all(store.blobs.image(sample.blob).tobytes() in fresh for sample in kept)
    assert {sample.id for sample in store.samples(project.id, curation="accepted")} == set(found["kept_ids"])
    last = found["rounds"][-1]
    assert 0 < last["irs_low"] <= last["irs"] <= last["irs_high"] <= 1 and 1 <= last["vendi"] <= 3
    assert last["coverage"] is not None and last["density"] is not None
    assert "3 of 4 masks have an image" in ended.message and "1 stay without one" in ended.message
    again = run(store, wanted(project, masks))
    assert again.result["kept_ids"] == found["kept_ids"] and again.result["sample_ids"] == found["sample_ids"]


def test_what_somebody_has_decided_stays_decided(store: Store, project: Project, masks: list[LabelMapRecord]) -> None:
    first = run(store, wanted(project, masks[:2]))
    rejected = first.result["kept_ids"][0]
    store.curate([rejected], "rejected", actor="surgeon")
    again = run(store, wanted(project, masks[:2], accept=True))
    assert again.result["accepted_ids"] == first.result["kept_ids"][1:] and store.sample(rejected).curation == "rejected"


def test_a_version_that_may_know_somebody_who_withdrew_makes_no_set(
    store: Store, project: Project, masks: list[LabelMapRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = store.active_model(project.id, "engine")
    assert engine is not None
    tied = dataclasses.replace(store.standing_trace(project.id), models=frozenset({engine.id}))
    monkeypatch.setattr(Store, "standing_trace", lambda self, project_id: tied)
    with pytest.raises(BadInputError, match="may have learnt from a patient who has withdrawn"):
        orders.place(store, wanted(project, masks), actor="ann")


def test_without_the_word_nothing_is_accepted(store: Store, project: Project, masks: list[LabelMapRecord]) -> None:
    ended = run(store, wanted(project, masks[:1], guidance_step=0.5))
    assert [one["guidance"] for one in ended.result["rounds"]] == [1.0, 0.5] and len(ended.result["kept_ids"]) == 1
    assert not store.samples(project.id, curation="accepted")


def test_orders_that_make_no_sense_are_refused(store: Store, project: Project, masks: list[LabelMapRecord]) -> None:
    with pytest.raises(BadInputError, match="shows its patient"):
        painted = wanted(project, masks).model_copy(update={"settings": SamplingSettings(surroundings="real")})
        orders.place(store, painted, actor="ann")
    other = store.create_project("few", task="segmentation", classes=project.classes, resolution=SIDE, actor="ann")
    engine = store.active_model(project.id, "engine")
    assert engine is not None
    for kind in ("engine", "selector"):
        with pytest.raises(TooFewError, match="no generator" if kind == "engine" else "no scorers"):
            orders.place(store, SurrogatesOrder(project_id=other.id), actor="ann")
        store.add_model(other.id, kind=kind, architecture=engine.architecture, file=engine.file, metrics={}, actor="ann")
        if kind == "engine":
            store.add_image(other.id, blob=store.blobs.put_image(picture(1)), size=(SIDE, SIDE), group_id="one", split="train",
                            source_name="1.png", actor="ann",
                            label_map_blob=store.blobs.put_label_map(np.ones((SIDE, SIDE), np.uint8)))  # fmt: skip
    with pytest.raises(TooFewError, match="0 held-out and 1 training patients"):
        orders.place(store, SurrogatesOrder(project_id=other.id), actor="ann")
