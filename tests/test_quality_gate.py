"""The quality gate over a project: what is kept, who judges whom, and what is not known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from saadi import curation, pairing, quality, quality_gate
from saadi.datasets.phantom import CLASS_NAMES, Scene, render
from saadi.errors import TooFewError
from saadi.exports.selection import select
from saadi.plausibility import Plausibility, Verdict, class_looks
from saadi.quality_gate import Looked
from saadi.records import LabelClass, Project, Sample, Score
from saadi.store import Store
from tests import builders

SIDE = 96


def frames(first_patient: int, count: int) -> list[Scene]:
    """Four of each patient, one patient after the other."""
    return [render(number, patient=first_patient + number // 4, size_px=SIDE) for number in range(count)]


def fill(store: Store, project: Project, first_patient: int, count: int, split: str) -> list[Looked]:
    pairs = []
    for number, scene in enumerate(frames(first_patient, count)):
        pair = Looked(store.blobs.put_image(scene.image), store.blobs.put_label_map(scene.label_map))
        store.add_image(project.id, blob=pair.blob, size=(SIDE, SIDE), group_id=scene.patient_id, split=split,
                        source_name=f"{split}-{number}", label_map_blob=pair.label_map_blob, actor="test")  # fmt: skip
        pairs.append(pair)
    return pairs


def look(store: Store, project: Project) -> None:
    blobs = [image.blob for image in store.images(project.id)]
    store.put_descriptors(quality.LOOK, {blob: quality.look(store.blobs.image(blob)) for blob in blobs})
    quality_gate.describe_project(store, project)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Project]]:
    from saadi.config import Home

    with Store.open(Home(tmp_path_factory.mktemp("gate") / "home")) as store:
        classes = [LabelClass(index, name, f"#{index:02d}{index:02d}{index:02d}") for index, name in enumerate(CLASS_NAMES)]
        project = store.create_project("rendered", task="segmentation", classes=classes, resolution=SIDE, actor="test")
        fill(store, project, 0, 60, "train")
        fill(store, project, 100, 32, "val")
        look(store, project)
        yield store, project


def added(store: Store, image: np.ndarray, label_map: np.ndarray, *, is_composite: bool = False) -> Looked:
    """A picture that was made, and looked at."""
    pair = Looked(store.blobs.put_image(image), store.blobs.put_label_map(label_map), is_composite)
    store.put_descriptors(quality.LOOK, {pair.blob: quality.look(image)})
    return pair


def test_copies_and_strangers_are_refused_and_named(rendered: tuple[Store, Project]) -> None:
    store, project = rendered
    image = store.images(project.id, splits=["train"])[3]
    real = store.blobs.image(image.blob)
    asked = store.blobs.label_map(store.label_map(image.label_map_id or 0).blob)
    copy, composite = added(store, real, asked), added(store, real, asked, is_composite=True)
    grey = added(store, np.full_like(real, 128), asked)
    quality_gate.describe(store, project, [copy, grey])
    found_copy, found_grey, found_composite = quality_gate.judged(store, project, [copy, grey, composite])
    assert found_copy is not None and found_grey is not None and found_composite is not None
    assert found_copy.verdict == "copy" and "may be a copy" in quality_gate.in_words(found_copy, project)
    assert found_grey.verdict == "implausible" and "looks unlike real images" in quality_gate.in_words(found_grey, project)
    assert found_composite.verdict == "plausible"  # its surroundings are that image's
    assert quality_gate.refused(store, project, [copy, grey, composite]) == [True, True, False]


def test_the_class_that_is_wrong_is_called_by_its_name(rendered: tuple[Store, Project]) -> None:
    store, project = rendered
    image = store.images(project.id, splits=["val"])[0]
    label_map = store.blobs.label_map(store.label_map(image.label_map_id or 0).blob)
    wrong = store.blobs.image(image.blob).copy()
    wrong[label_map == 1] = (20, 20, 220)  # a blue liver
    pair = added(store, wrong, label_map)
    quality_gate.describe(store, project, [pair])
    [found] = quality_gate.judged(store, project, [pair])
    assert found is not None and quality_gate.in_words(found, project) == "looks unlike real images in the liver"


def test_unseen_real_images_mostly_pass(rendered: tuple[Store, Project]) -> None:
    store, project = rendered
    pairs = [added(store, scene.image, scene.label_map) for scene in frames(200, 32)]
    quality_gate.describe(store, project, pairs)
    assert np.mean(quality_gate.refused(store, project, pairs)) < 0.25


def test_what_nobody_has_looked_at_is_not_known_and_not_refused(rendered: tuple[Store, Project]) -> None:
    store, project = rendered
    [scene] = frames(300, 1)
    unlooked = Looked(store.blobs.put_image(scene.image), store.blobs.put_label_map(scene.label_map))
    assert quality_gate.judged(store, project, [unlooked]) == [None]
    assert quality_gate.refused(store, project, [unlooked]) == [False]


def test_looks_are_kept_and_looked_at_once(rendered: tuple[Store, Project]) -> None:
    store, project = rendered
    assert quality_gate.describe_project(store, project) == 0
    image = store.images(project.id)[0]
    pair = Looked(image.blob, store.label_map(image.label_map_id or 0).blob)
    kept = quality_gate._unpacked(store.descriptors("class-look-1", [pair.key])[pair.key])
    fresh = class_looks(store.blobs.image(pair.blob), store.blobs.label_map(pair.label_map_blob))
    assert kept.keys() == fresh.keys() and all(np.array_equal(kept[index], fresh[index]) for index in kept)


def verdicts(monkeypatch: pytest.MonkeyPatch, by_blob: dict[str, Verdict]) -> None:
    """The gate says this of these images, and nothing of others."""
    said = {blob: Plausibility(verdict, 2.0, 0.1, quality.LOOK, 0) for blob, verdict in by_blob.items()}
    monkeypatch.setattr(quality_gate, "judged", lambda store, project, pairs: [said.get(pair.blob) for pair in pairs])


@pytest.fixture
def scored(store: Store, project: Project) -> list[Sample]:
    """Three accepted images of one drawing, the first one best in the selector's eyes."""
    made = builders.add_samples(store, project, count=3)
    selector = store.add_model(project.id, kind="selector", architecture={}, file="f", metrics={}, actor="test")
    store.add_scores([Score(sample.id, selector.id, "selector", 0.9 - 0.3 * place, 0.5, 0.9, {}, sample.label_map_blob)
                      for place, sample in enumerate(made)])  # fmt: skip
    store.curate([sample.id for sample in made], "accepted", actor="test")
    return made


@pytest.mark.parametrize(
    ("said", "winner", "num_refused"),
    [
        (("plausible", "plausible", "plausible"), 0, 0),
        (("implausible", "plausible", "plausible"), 1, 1),
        (("copy", "implausible", "implausible"), 1, 1),  # nothing is plausible: the better one teaches even so
        (("implausible", "implausible", "implausible"), 0, 0),
        ((None, "implausible", "implausible"), 0, 2),
        (("copy", "copy", "copy"), None, 3),
    ],
)
def test_what_is_refused_wins_no_pair_by_score(
    store: Store, project: Project, scored: list[Sample], monkeypatch: pytest.MonkeyPatch, said: tuple[Verdict | None, ...],
    winner: int | None, num_refused: int,
) -> None:  # fmt: skip
    verdicts(monkeypatch, {sample.blob: verdict for sample, verdict in zip(scored, said, strict=True) if verdict})
    settled = pairing.settle(store, project.id)
    assert [pair.chosen_blob for pair in settled.pairs] == ([] if winner is None else [scored[winner].blob])
    assert settled.summary["num_refused"] == num_refused


def test_what_is_refused_leaves_in_no_export_unless_asked(
    store: Store, project: Project, scored: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts(monkeypatch, {scored[0].blob: "implausible", scored[1].blob: "copy", scored[2].blob: "plausible"})
    chosen = select(store, project, include_real=False)
    assert [item.blob for item in chosen.items] == [scored[2].blob]
    assert chosen.left_out == {"synthetic, unlike real images": 1, "synthetic, very near to a real image": 1}
    assert len(select(store, project, include_real=False, include_refused=True).items) == 3
    verdicts(monkeypatch, {sample.blob: "implausible" for sample in scored})
    with pytest.raises(TooFewError, match="include what the quality gate refuses, or accept others"):
        select(store, project, include_real=False)


def test_curate_knows_what_is_refused(
    store: Store, project: Project, scored: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts(monkeypatch, {scored[0].blob: "implausible", scored[1].blob: "copy"})
    assert curation.sample_columns(store, project, person="ann")["gate"] == [1, 2, None]


def test_test_patients_set_no_limits(store: Store) -> None:
    classes = [LabelClass(index, name, f"#{index:02d}{index:02d}{index:02d}") for index, name in enumerate(CLASS_NAMES)]
    project = store.create_project("held out", task="segmentation", classes=classes, resolution=SIDE, actor="test")
    fill(store, project, 0, 32, "train")
    look(store, project)
    before = quality_gate.yardstick(store, project, (quality.LOOK,))
    fill(store, project, 100, 16, "test")
    look(store, project)
    after = quality_gate.yardstick(store, project, (quality.LOOK,))
    assert before is not None and after is before


def test_too_few_real_images_judge_nobody(store: Store, project: Project) -> None:
    assert quality_gate.yardstick(store, project, (quality.LOOK,)) is None
    assert quality_gate.judged(store, project, [Looked("a", "b")]) == [None]


def test_without_held_out_patients_training_patients_set_the_limits(store: Store) -> None:
    classes = [LabelClass(index, name, f"#{index:02d}{index:02d}{index:02d}") for index, name in enumerate(CLASS_NAMES)]
    project = store.create_project("train only", task="segmentation", classes=classes, resolution=SIDE, actor="test")
    pairs = fill(store, project, 0, 48, "train")
    look(store, project)
    stick = quality_gate.yardstick(store, project, (quality.LOOK,))
    assert stick is not None and len(stick.training) == 48
    found = quality_gate.judged(store, project, pairs)
    assert {one.verdict for one in found if one} == {"copy"}  # of spared patients, too


def test_in_classification_the_whole_image_is_judged(store: Store) -> None:
    classes = [LabelClass(0, "calm", "#000000"), LabelClass(1, "bleeding", "#ff0000")]
    project = store.create_project("phases", task="classification", classes=classes, resolution=SIDE, actor="test")
    for number, scene in enumerate(frames(0, 40)):
        store.add_image(project.id, blob=store.blobs.put_image(scene.image), size=(SIDE, SIDE), group_id=scene.patient_id,
                        split="train" if number < 28 else "val", source_name=str(number), label="calm", label_map_blob=None,
                        actor="test")  # fmt: skip
    assert quality_gate.yardstick(store, project, (quality.LOOK,)) is None  # asked before anybody has looked
    look(store, project)
    grey = added(store, np.full((SIDE, SIDE, 3), 128, np.uint8), np.zeros((SIDE, SIDE), np.uint8))
    [found] = quality_gate.judged(store, project, [grey])
    assert found is not None and quality_gate.in_words(found, project) == "looks unlike real images as a whole"
