"""No image is scored by a selector that has seen its patient; old selectors keep working."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
import torch

from saadi.config import Home
from saadi.datasets.real import real_groups, real_pairs
from saadi.downstream import prediction, scoring, training
from saadi.downstream.classifier import Classifier
from saadi.downstream.folds import CrossFitted, CrossFittedClassifiers, assign_folds, selector_from_file
from saadi.downstream.segmenter import SIZE_PX, Segmenter, default_architecture
from saadi.downstream.training import FOLD_SEEDS, ScorerConfig, steps_of, train
from saadi.engines import weights
from saadi.jobs import JobContext, silent
from saadi.orders import PredictOrder, TrainScorerOrder, freeze, order, place
from saadi.records import LabelClass, Project
from saadi.store import Store
from saadi.store.connection import connect
from saadi.store.migrations import schema
from tests import builders, tiny


def held(*rows: tuple[int, ...], num_classes: int = 3) -> np.ndarray:
    return np.array([[index in row for index in range(num_classes)] for row in rows])


def test_patients_are_dealt_out_whole_evenly_and_always_alike():
    draw = np.random.default_rng(0)
    groups = [f"p{number}" for number in draw.integers(0, 20, 300)]
    classes = draw.random((300, 5)) < [1, 0.9, 0.5, 0.2, 0.05]
    for num_folds in (2, 3, 5):
        found = assign_folds(groups, classes, num_folds=num_folds)
        sizes = Counter(found[group] for group in groups)
        assert found.keys() == set(groups) and set(sizes) == set(range(num_folds))
        assert max(sizes.values()) - min(sizes.values()) < 0.15 * 300
        order_of_names = draw.permutation(300)
        assert found == assign_folds([groups[i] for i in order_of_names], classes[order_of_names], num_folds=num_folds)


def test_a_rare_class_is_in_every_fold_where_patients_allow_it():
    # Two patients with many images and the rare class, four small ones without.
    groups = ["a"] * 6 + ["b"] * 5 + ["c", "d", "e", "f"]
    classes = held(*[(0, 1, 2)] * 11, *[(0, 1)] * 4)
    found = assign_folds(groups, classes, num_folds=2)
    assert found["a"] != found["b"]
    assert Counter(found[group] for group in groups) in (Counter({0: 8, 1: 7}), Counter({0: 7, 1: 8}))


def test_there_are_never_more_folds_than_patients_and_none_is_empty():
    assert assign_folds(["a"] * 5, held(*[(1,)] * 5), num_folds=4) == {"a": 0}
    assert sorted(assign_folds(["a"] * 5 + ["b", "c"], held(*[(1,)] * 5, (2,), (2,)), num_folds=5).values()) == [0, 1, 2]


def test_two_folds_cost_what_one_selector_costs():
    assert 2 * steps_of("selector", steps=600, folds=2) == steps_of("judge", steps=600, folds=2) == 600
    assert steps_of("selector", steps=600, folds=1) == 600 and steps_of("selector", steps=600, folds=5) == 480


def two() -> CrossFitted:
    return CrossFitted([tiny.segmenter("unet", seed) for seed in (1, 2)], {"a": 0, "b": 1})


def test_each_patient_has_its_selector_and_the_rest_the_mean_of_both():
    made, (images, _) = two(), tiny.scenes(5, side=32)
    groups = ["b", None, "a", "never seen", "b"]
    found, features = made.predict_with_features(images, groups)
    for row, one in ((0, 1), (2, 0), (4, 1)):
        alone = made.folds[one].predict([images[row]])[0]
        assert np.array_equal(found[row].label_map, alone.label_map)
        assert found[row].confidence == pytest.approx(alone.confidence, abs=1e-5)
    for row in (1, 3):
        mean = sum(next(one.probabilities([images[row]])) for one in made.folds) / 2
        assert np.array_equal(found[row].label_map, mean.argmax(0).numpy())
        assert found[row].confidence == pytest.approx(float(mean.max(0).values.mean()), abs=1e-5)
    # One network's vectors for all, so that they can be compared.
    np.testing.assert_allclose(features, made.folds[0].features(images), atol=1e-5)
    for kind in (["a"] * 5, [None] * 5):
        np.testing.assert_allclose(made.predict_with_features(images, kind)[1], features, atol=1e-5)


def test_all_folds_come_back_from_one_file_with_their_temperatures(tmp_path):
    made, (images, _) = two(), tiny.scenes(3, side=32)
    made.folds[1].temperature = 2.5
    file = tmp_path / "selector.safetensors"
    file.write_bytes(weights.to_bytes(made.state()))
    kept = made.folds[0].architecture | {"folds": 2, "temperatures": [1.0, 2.5], "fold_of": {"a": 0, "b": 1}}
    again = CrossFitted.from_file(kept, file)
    for groups in (["a"] * 3, ["b"] * 3, None):
        found, expected = again.predict(images, groups), made.predict(images, groups)
        assert [item.confidence for item in found] == [item.confidence for item in expected]


def test_a_selector_of_an_earlier_release_looks_at_everything_alone(tmp_path):
    made, (images, _) = tiny.segmenter("unet"), tiny.scenes(3, side=32)
    file = tmp_path / "selector.safetensors"
    file.write_bytes(weights.to_bytes(made.network.state_dict()))
    found = CrossFitted.from_file(made.architecture, file).predict(images, ["a", None, "b"])
    for one, other in zip(found, made.predict(images), strict=True):
        assert np.array_equal(one.label_map, other.label_map) and one.confidence == other.confidence


def test_of_cross_fitted_classifiers_all_look_at_what_is_nobodys(tmp_path):
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        made.append(Classifier({"model": "resnet", "num_classes": 3, "size_px": 32, "widths": [8, 8, 16, 16]}))
    both, (images, _) = CrossFittedClassifiers(made, {"a": 0, "b": 1}), tiny.scenes(4, side=32)
    alone = [one.probabilities(images) for one in made]
    found = both.probabilities(images, ["a", "b", None, "never seen"])
    np.testing.assert_allclose(found[[0, 1]], [alone[0][0], alone[1][1]], atol=1e-6)
    np.testing.assert_allclose(found[2:], np.mean(alone, axis=0)[2:], atol=1e-6)
    assert [one.label_map[0, 0] for one in both.predict(images)] == np.mean(alone, axis=0).argmax(1).tolist()
    file = tmp_path / "selector.safetensors"
    file.write_bytes(weights.to_bytes(both.state()))
    kept = made[0].architecture | {"folds": 2, "temperatures": [1.0, 2.5], "fold_of": {"a": 0, "b": 1}}
    again = selector_from_file(kept, file)
    assert isinstance(again, CrossFittedClassifiers) and [one.temperature for one in again.folds] == [1.0, 2.5]
    np.testing.assert_allclose(again.folds[0].probabilities(images), alone[0], atol=1e-6)


def test_a_class_that_only_one_patient_shows_leaves_one_selector():
    groups = ["a", "a", "b", "b"]
    assert training.misses_a_class(groups, held((0,), (1,), (0,), (0,)), {"a": 0, "b": 1})  # b's selector would never see 1
    assert not training.misses_a_class(groups, held((0,), (1,), (0,), (1,)), {"a": 0, "b": 1})
    assert not training.misses_a_class(groups, held((0,), (1,), (0,), (0,)), {"a": 0, "b": 0})


# ---- the job


@pytest.fixture
def patients(store: Store) -> Project:
    """Four patients with three images each to train on, one to validate on."""
    names = [LabelClass(index, name, "#000000") for index, name in enumerate(("tissue", "organ", "bar"))]
    project = store.create_project("folds", task="segmentation", classes=names, resolution=16, actor="test")
    for seed in range(15):
        image, label_map = tiny.scene(seed, side=32)
        store.add_image(project.id, blob=store.blobs.put_image(image), size=(32, 32), group_id=f"p{seed // 3}", actor="test",
                        split="train" if seed < 12 else "val", source_name=f"{seed}.png",
                        label_map_blob=store.blobs.put_label_map(label_map))  # fmt: skip
    return project


STEPS = 2


def run(store: Store, handler, kind, **values):
    job, _ = place(store, order(kind, **values), actor="test")
    outcome = handler(JobContext(store, freeze(store, store.claim_job("worker"))))
    result = outcome.publish(store)
    store.finish_job(store.job(job.id), state="done", message=outcome.message, result=result)
    return outcome.message, result


def trained(store: Store, project: Project, **values) -> str:
    return run(store, training.run_job, TrainScorerOrder, project_id=project.id, steps=STEPS, batch_size=4, seed=3, **values)[0]


def without(store: Store, project: Project, fold: int, fold_of: dict[str, int]) -> Segmenter:
    """The selector of a fold, trained here once more on nothing but the images of the other patients."""
    images, label_maps = real_pairs(store, project, "train", side=SIZE_PX)
    kept = [index for index, group in enumerate(real_groups(store, project, "train")) if fold_of[group] != fold]
    return train([images[index] for index in kept], [label_maps[index] for index in kept], report=silent,
                 architecture=default_architecture("selector", num_classes=3),
                 config=ScorerConfig(num_steps=steps_of("selector", steps=STEPS, folds=2), batch_size=4,
                                     seed=6 + fold * FOLD_SEEDS))  # fmt: skip


def test_no_image_is_scored_by_a_model_that_saw_its_patient(store: Store, patients: Project):
    assert trained(store, patients) == "2 selectors and judge trained on 12 real images"
    model = store.active_model(patients.id, "selector")
    assert model is not None and set(model.architecture["fold_of"]) == {"p0", "p1", "p2", "p3"}
    fold_of = model.architecture["fold_of"]
    assert sorted(fold_of.values()) == [0, 0, 1, 1] and model.metrics["folds"] == [6, 6]
    blind = {fold: without(store, patients, fold, fold_of) for fold in (0, 1)}
    for one in blind.values():  # as it is stored
        one.network.load_state_dict({name: tensor.half().float() if tensor.is_floating_point() else tensor
                                     for name, tensor in one.network.state_dict().items()})  # fmt: skip
    # One image made for each training label map, one for a variant drawn over a patient's image.
    maps = store.label_maps(patients.id, splits=["train"])
    over = store.images(patients.id)[4]
    variant = store.add_label_map(patients.id, blob=store.blobs.put_label_map(np.eye(32, dtype=np.uint8)), name="variant",
                                  author="ann", request_id="variant-1", origin="drawn", underlay_id=over.id)  # fmt: skip
    samples = [builders.add_samples(store, patients, count=1, label_map=record)[0] for record in (*maps, variant)]
    scoring.score_samples(store, patients, samples, scoring.load_scorers(store, patients), silent)
    owner = {record.id: store.image(record.image_id).group_id for record in maps} | {variant.id: over.group_id}
    for sample in samples:
        score = next(item for item in store.scores(patients.id, sample_id=sample.id) if item.kind == "selector")
        [expected] = blind[fold_of[owner[sample.label_map_id]]].predict([store.blobs.image(sample.blob)])
        assert np.array_equal(store.blobs.label_map(score.prediction_blob), expected.label_map)
        temperature = model.architecture["temperatures"][fold_of[owner[sample.label_map_id]]]
        assert temperature > 0 and 1 / 3 <= score.confidence <= 1
    assert {fold_of[owner[sample.label_map_id]] for sample in samples} == {0, 1}


def test_a_real_image_is_segmented_by_the_selector_that_has_not_seen_its_patient(store: Store, patients: Project):
    trained(store, patients)
    model, image = store.active_model(patients.id, "selector"), store.images(patients.id)[7]
    blind = without(store, patients, model.architecture["fold_of"][image.group_id], model.architecture["fold_of"])
    blind.network.load_state_dict({name: tensor.half().float() if tensor.is_floating_point() else tensor
                                   for name, tensor in blind.network.state_dict().items()})  # fmt: skip
    _, result = run(store, prediction.run_job, PredictOrder, project_id=patients.id, image_id=image.id)
    expected = blind.predict([store.blobs.image(image.blob)])[0].label_map
    assert np.array_equal(store.blobs.label_map(result["label_map_blob"]), expected)


def test_metrics_hold_calibration_and_what_one_fold_reaches(store: Store, patients: Project):
    trained(store, patients)
    for kind, count in (("selector", 2), ("judge", 1)):
        metrics = store.active_model(patients.id, kind).metrics
        assert metrics["val"]["num_images"] == 3 and len(metrics["calibration"]) == count
        assert 0 < metrics["val"]["low_confidence"] <= 1
        assert all(part["error_after"] <= part["error_before"] for part in metrics["calibration"])


def test_one_fold_is_a_plain_selector_and_a_single_patient_has_no_folds(store: Store, patients: Project):
    assert trained(store, patients, folds=1) == "selector and judge trained on 12 real images"
    model = store.active_model(patients.id, "selector")
    assert "folds" not in model.architecture and model.metrics["folds"] == [12]
    images, label_maps = real_pairs(store, patients, "train", side=SIZE_PX)
    alone = train(images, label_maps, architecture=default_architecture("selector", num_classes=3), report=silent,
                  config=ScorerConfig(num_steps=STEPS, batch_size=4, seed=6))  # fmt: skip
    stored = weights.read(store.files.path(model.file))
    for name, tensor in alone.network.state_dict().items():
        torch.testing.assert_close(stored[name], tensor.half() if tensor.is_floating_point() else tensor, rtol=0, atol=0)


def test_every_sample_knows_the_patient_it_comes_from(store: Store, patients: Project):
    images, maps = store.images(patients.id), {record.image_id: record for record in store.label_maps(patients.id)}

    def drawing(blob: str, name: str, **values):
        return store.add_label_map(patients.id, blob=blob, name=name, author="ann", request_id=f"draw-{name}", origin="drawn",
                                   **values)  # fmt: skip

    free = drawing(store.blobs.put_label_map(np.full((16, 16), 2, np.uint8)), "free")
    over = drawing(store.blobs.put_label_map(np.ones((16, 16), np.uint8)), "over", underlay_id=images[3].id)
    copy = drawing(maps[images[9].id].blob, "copied mask")
    first, second, third, fourth = [
        builders.add_samples(store, patients, count=1, label_map=record)[0] for record in (maps[images[0].id], free, over, copy)
    ]
    model = store.active_model(patients.id, "engine")
    common = {"label_map_id": free.id, "label_map_rev": 1, "label_map_blob": free.blob, "engine": "compact",
              "model_id": model.id, "adapter_id": None, "settings": {}, "purpose": "draw"}  # fmt: skip
    part = store.add_sample(patients.id, **common, blob=store.blobs.put_image(np.full((16, 16, 3), 7, np.uint8)), seed=50,
                            source_blob=images[6].blob, is_composite=True)  # fmt: skip
    again = store.add_sample(patients.id, **common, blob=store.blobs.put_image(np.full((16, 16, 3), 8, np.uint8)), seed=51,
                             source_blob=part.blob, parent_id=part.id, is_composite=True)  # fmt: skip
    assert store.sample_groups(patients.id) == {
        first.id: "p0", third.id: "p1", fourth.id: "p3", part.id: "p2", again.id: "p2"}  # fmt: skip
    assert second.id not in store.sample_groups(patients.id)
    assert store.sample_groups(patients.id, [first.id, second.id, again.id]) == {first.id: "p0", again.id: "p2"}


def test_a_drawing_that_equals_the_masks_of_several_patients_is_nobodys(store: Store, patients: Project):
    images = {image.id: image.group_id for image in store.images(patients.id)}
    first, other = list({images[record.image_id]: record for record in store.label_maps(patients.id)}.values())[:2]
    copy = store.add_label_map(patients.id, blob=first.blob, name="copy", author="ann", request_id="copy", origin="drawn")
    [sample] = builders.add_samples(store, patients, count=1, label_map=copy)
    assert store.sample_groups(patients.id) == {sample.id: images[first.image_id]}
    store.save_label_map(other.id, blob=first.blob, rev=1, author="ann", request_id="same")
    assert store.sample_groups(patients.id) == {}


def test_ten_thousand_composites_find_their_patients_at_once(store: Store, patients: Project):
    image = store.images(patients.id)[0]
    builders.add_many_samples(store, patients, count=10_000)
    with store.write() as db:
        db.execute("UPDATE samples SET source_blob = ?, is_composite = 1", [image.blob])
    began = time.monotonic()
    assert set(store.sample_groups(patients.id).values()) == {image.group_id}
    assert time.monotonic() - began < 2


def test_folders_from_before_samples_were_found_by_their_pixels_get_the_index(home: Home):
    home.path.mkdir()
    db = connect(home.database)
    schema.apply(db, stop_before="m011_samples_by_blob")
    db.conn.close()
    with Store.open(home) as store:
        assert store.db.execute("SELECT 1 FROM sqlite_master WHERE name = 'samples_by_blob'").fetchone()


def test_thousands_of_patients_are_dealt_out_quickly():
    groups = [f"p{number % 5_000}" for number in range(20_000)]
    began = time.monotonic()
    assert len(assign_folds(groups, np.ones((20_000, 3), bool), num_folds=2)) == 5_000
    assert time.monotonic() - began < 3
