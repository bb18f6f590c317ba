"""Scoring leaves behind what a comparison with real images needs."""

from __future__ import annotations

import numpy as np

from saadi import curation, quality
from saadi.downstream import scoring
from saadi.downstream.segmenter import Segmenter
from saadi.engines import weights
from saadi.jobs import silent
from saadi.records import Project
from saadi.store import Store
from tests import tiny
from tests.builders import add_samples
from tests.test_curation import add_real


def add_scorers(store: Store, project: Project) -> None:
    for kind, model in (("selector", "unet"), ("judge", "segresnet")):
        made: Segmenter = tiny.segmenter(model, num_classes=2)
        file = store.files.put(weights.to_bytes(made.network.state_dict()))
        store.add_model(project.id, kind=kind, architecture=made.architecture, file=file, metrics={}, actor="test")  # type: ignore[arg-type]


def test_the_nearest_in_the_selectors_eyes_is_known_after_scoring(store: Store, project: Project) -> None:
    add_real(store, project, 10)
    add_real(store, project, 2, split="val", first_seed=40)
    samples = add_samples(store, project, count=3)
    add_scorers(store, project)
    scorers = scoring.load_scorers(store, project)
    selector, segmenter = scorers[0]
    scoring.score_samples(store, project, samples, scorers, silent)
    space = quality.selector_space(selector.id)
    assert store.undescribed(space, [sample.blob for sample in samples]) == []
    assert curation.nearest_real(store, project, samples[0].blob, space) is None  # the real ones come next
    scoring.look_at_project(store, project, scorers, silent)
    near = curation.nearest_real(store, project, samples[0].blob, space)
    features = segmenter.features([store.blobs.image(image.blob) for image in store.images(project.id, splits=["train"])])
    own = segmenter.features([store.blobs.image(samples[0].blob)])
    center, scale = features.mean(0), np.maximum(features.std(0), 0.1 * features.std(0).mean() + 1e-6)
    by_hand = np.linalg.norm((features - center) / scale - (own - center) / scale, axis=1).argmin()
    assert near is not None and near.image == store.images(project.id, splits=["train"])[by_hand]
    assert curation.sample_columns(store, project, person="ann")["unmeasured"] == 0


def test_looking_again_computes_nothing_anew(store: Store, project: Project) -> None:
    add_real(store, project, 4)
    add_scorers(store, project)
    scorers = scoring.load_scorers(store, project)
    scoring.look_at_project(store, project, scorers, silent)
    calls: list[int] = []
    scoring.look_at_project(store, project, scorers, lambda step, total, message, **more: calls.append(step))
    assert calls == []
