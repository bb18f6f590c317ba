"""The main job of a classification project without a page: import, train, fit, generate, vote, pair, align, export."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from saadi import orders, pairing, preferences, quality_gate, settled, singles
from saadi.alignment import material, plan
from saadi.alignment.rounds import first_order
from saadi.asking import purpose
from saadi.conditions import asked_blob
from saadi.config import Home
from saadi.datasets.folder import import_folder, scan
from saadi.downstream import classifier
from saadi.downstream.folds import CrossFittedClassifiers, selector_from_file
from saadi.engines import weights
from saadi.errors import BadInputError, TooFewError
from saadi.exports.verify import verify_export
from saadi.jobs import run_worker
from saadi.masks import class_of
from saadi.mining import seen
from saadi.mining.choosing import KAPPA, Limits
from saadi.orders import (
    AlignOrder,
    ExportOrder,
    FitOrder,
    GenerateOrder,
    Inpaint,
    MineOrder,
    PredictOrder,
    TrainScorerOrder,
    order,
    place,
)
from saadi.records import Job, LabelClass, Pair, Project, Score, Single
from saadi.store import Store
from saadi.worker import HANDLERS
from tests import tiny

NAMES = ("dissection", "clipping", "bleeding")
SMALL = {"selector": {"widths": [8, 8, 16, 16]}, "judge": {"growth_rate": 4, "blocks": [1, 1, 1, 1]}}


def coloured(index: int, seed: int) -> np.ndarray:
    """A noisy picture whose colour tells its class: red, green or blue."""
    image = np.random.default_rng(seed).integers(0, 90, (24, 24, 3))
    image[..., index] += 140
    return image.astype(np.uint8)


def write_folders(root: Path) -> Path:
    """27 pictures of nine patients in a folder per class, twelve, nine and six of each; and one that is no class."""
    for index, (name, count) in enumerate(zip(NAMES, (12, 9, 6), strict=True)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            picture = cv2.cvtColor(coloured(index, 100 * index + number), cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(root / name / f"p{number % 9}_{number}.png"), picture)
    (root / "Suture").mkdir()
    cv2.imwrite(str(root / "Suture" / "p0_x.png"), coloured(0, 999))
    return root


@pytest.fixture
def phases(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of imported pictures with a class each, with a tiny random generator; its classifiers are small ones."""
    usual = classifier.default_architecture
    monkeypatch.setattr(classifier, "default_architecture", lambda kind, *, num_classes: usual(kind, num_classes=num_classes)
                        | SMALL[kind] | {"size_px": 32})  # fmt: skip
    labels = [LabelClass(index, name, "#009e73") for index, name in enumerate(NAMES)]
    project = store.create_project("phases", task="classification", classes=labels, resolution=16, actor="test")
    found = scan(write_folders(tmp_path / "pictures"), group_pattern=r"^(p\d)_")
    sides = {f"p{number}": "train" if number < 5 else "val" if number < 7 else "test" for number in range(9)}
    result = import_folder(store, project, found, actor="test", split=sides)
    assert result.num_added == 27
    assert [str(problem) for problem in result.refused] == [
        "'p0_x.png': the label 'Suture' is no class of this project; classes are dissection, clipping, bleeding"]  # fmt: skip
    made = tiny.engine()
    file = store.files.put(weights.to_bytes(made.denoiser.state_dict()))
    store.add_model(project.id, kind="engine", architecture=made.architecture, file=file, metrics={}, actor="test")
    return project


def run(store: Store, home: Home, kind: type[orders.Order], **values) -> Job:
    job, _ = place(store, order(kind, **values), actor="test")
    assert run_worker(home, HANDLERS, exit_when_idle=True)
    job = store.job(job.id)
    assert job.state == "done", (job.error, store.job_traceback(job.id))
    return job


def label_maps(store: Store, project: Project) -> dict[str, int]:
    """Label map blob -> class."""
    return {record.blob: class_of(store.label_map_pixels(record.blob)) for record in store.label_maps(project.id)}


def test_the_whole_loop(store: Store, home: Home, phases: Project, tmp_path: Path):
    # Import: a class is one label map for all its images.
    assert store.count_labelled(phases.id) == {"train": 18, "val": 5, "test": 4}
    assert sorted(label_maps(store, phases).values()) == [0, 1, 2]

    # Scorers: cross-fitted, calibrated, told as a classifier is.
    run(store, home, TrainScorerOrder, project_id=phases.id, steps=20, batch_size=8)
    selector, judge = (store.active_model(phases.id, kind) for kind in ("selector", "judge"))
    assert selector.architecture["folds"] == 2 and len(selector.architecture["temperatures"]) == 2
    for model in (selector, judge):
        told = model.metrics["val"]
        assert told["num_images"] == 5 and 0 <= told["accuracy"] <= 1 and 0 <= told["macro_f1"] <= 1
        assert set(told["f1_per_class"]) <= set(NAMES) and "dice" not in told

    # Generator.
    fitted = run(store, home, FitOrder, project_id=phases.id, steps=2, batch_size=4)
    assert fitted.result["num_images"] == 18

    # Images of two classes: six sets of three, dealt out evenly, with the asked class's probability as their score.
    made = run(store, home, GenerateOrder, project_id=phases.id, classes=(0, 2), count=6, candidates=3, seed=5)
    assert made.message == "18 images of 2 classes"
    asked = label_maps(store, phases)
    samples = store.samples(phases.id)
    assert Counter(asked[sample.label_map_blob] for sample in samples) == {0: 9, 2: 9}
    assert len({sample.label_map_id for sample in samples}) == 6
    again = run(store, home, GenerateOrder, project_id=phases.id, classes=(0, 2), count=6, candidates=3, seed=5)
    assert again.result == made.result
    opinions = selector_from_file(selector.architecture, store.files.path(selector.file))
    assert isinstance(opinions, CrossFittedClassifiers)
    for sample in samples[:4]:
        [score] = [item for item in store.scores(phases.id, sample_id=sample.id) if item.kind == "selector"]
        [row] = opinions.probabilities([store.blobs.image(sample.blob)])
        assert score.dice == round(row[asked[sample.label_map_blob]], 4)
        assert score.per_class == {name: {"probability": round(value, 4)} for name, value in zip(NAMES, row, strict=True)}
        assert (score.iou, class_of(store.label_map_pixels(score.prediction_blob))) == (
            float(row.argmax() == asked[sample.label_map_blob]), row.argmax())  # fmt: skip

    # Votes within a set; pairs of every set, two at most, and the real image of its place against the worst.
    run(store, home, GenerateOrder, project_id=phases.id, count=12, candidates=3, seed=77)
    question = pairing.next_vote_pairs(store, phases.id, voter="ann", count=1, exclude=set())[0]
    left, right = store.sample(question.left_id), store.sample(question.right_id)
    assert left.label_map_id == right.label_map_id
    store.add_vote(phases.id, left_id=left.id, right_id=right.id, answer="left", voter="ann", request_id="vote-0001")
    store.add_thumb(phases.id, sample_id=samples[0].id, value="down", voter="ann", request_id="thumb-001")
    found = pairing.settle(store, phases.id)
    pair_set = pairing.build_pairs(store, phases.id, actor="test")
    by_source = pair_set.summary["by_source"]
    assert by_source["real"] == len(found.groups) >= 10 and len({asked_blob(name) for name in found.groups}) == 3
    for group in found.groups.values():
        assert len({store.sample(item.sample_id).label_map_id for item in group}) == 1
    assert max(len(merged.decisions) for merged in found.merged.values()) <= 2
    assert pair_set.summary["num_votes"] == 1 and [single.source for single in pair_set.singles] == ["people", "real"]
    rows = settled.page(store, phases, count=100)["rows"]
    assert len(rows) == len(pair_set.pairs) and all(len(row["classes"]) == 1 for row in rows)
    ready = plan.plan(store, phases)
    assert ready["missing"] is None and [row["class"] for row in ready["classes"]] == [0, 1, 2]

    # Align, gate, accept.
    job, _ = place(store, order(AlignOrder, project_id=phases.id, pair_set_id=pair_set.id, steps=4, batch_size=4, gate_masks=8,
                                gate_every=2, learning_rate=3e-3), actor="test")  # fmt: skip
    run_worker(home, HANDLERS, exit_when_idle=True)
    job = store.job(job.id)
    assert job.state in ("done", "failed"), store.job_traceback(job.id)
    if job.state == "failed":
        assert "no checkpoint was better than the old model" in job.error and "Dice" not in job.error
    else:
        adapter = store.adapter(job.result["adapter_id"])
        assert adapter.metrics["task"] == "classification" and adapter.metrics["num_masks"] == 8
        store.accept_adapter(adapter.id, project_id=phases.id, actor="lead")
        latest = run(store, home, GenerateOrder, project_id=phases.id, classes=(1,), count=1, candidates=1)
        assert store.sample(latest.result["sample_ids"][0]).adapter_id == adapter.id

    # Export: a folder per class, as the field's loaders read it.
    store.curate([sample.id for sample in samples[:6]], "accepted", actor="test")
    out = tmp_path / "out"
    done = run(store, home, ExportOrder, project_id=phases.id, format="imagefolder", out_dir=str(out), include_refused=True)
    assert done.result["num_items"] == 33 and verify_export(out, store=store) == []
    assert {path.name for path in (out / "train").iterdir() if path.is_dir()} == set(NAMES)
    lines = [json.loads(line) for line in (out / "train" / "metadata.jsonl").read_text().splitlines()]
    synthetic = [line for line in lines if line["synthetic"]]
    assert len(synthetic) == 6 and all(line["file_name"].startswith(f"{line['label']}/") for line in lines)
    for line in synthetic:
        lineage = json.loads(line["lineage"])
        assert lineage["asked_class"] == line["label"]
        assert all("probability" in score and "dice" not in score for score in lineage["scores"])


def test_a_generator_is_asked_for_classes_that_it_knows(store: Store, phases: Project):
    def refused(kind: type[orders.Order], reason: type[Exception], match: str, **values) -> None:
        with pytest.raises(reason, match=match):
            place(store, order(kind, project_id=phases.id, **values), actor="test")

    refused(GenerateOrder, BadInputError, "class 7 is not in this project; it has classes 0 to 2", classes=(7,))
    refused(GenerateOrder, BadInputError, "classes or label maps, not both", classes=(0,), label_map_ids=(1,))
    part = Inpaint(source={"image_id": 1}).model_dump()
    refused(GenerateOrder, BadInputError, "a part is made anew under a mask", inpaint=part, label_map_ids=(1,))
    refused(FitOrder, BadInputError, "Stable Diffusion paints what masks name", engine="stable-diffusion")
    refused(ExportOrder, BadInputError, "nnU-Net holds masks and this project classifies whole images", format="nnunet")
    refused(PredictOrder, TooFewError, "this project has no classifier yet", image_id=store.images(phases.id)[0].id)
    rare = [*phases.classes, LabelClass(3, "suturing", "#000000")]
    other = store.create_project("unseen", task="classification", classes=rare, resolution=16, actor="test")
    engine = store.active_model(phases.id, "engine")
    store.add_model(other.id, kind="engine", architecture=engine.architecture, file=engine.file, metrics={}, actor="test")
    with pytest.raises(TooFewError, match="no training image with a class; import images with their classes first"):
        place(store, order(GenerateOrder, project_id=other.id), actor="test")
    for number in range(8):
        store.add_image(other.id, blob=store.blobs.put_image(coloured(0, number)), size=(24, 24), group_id="p", split="train",
                        label="dissection", source_name="x", label_map_blob=None, actor="test")  # fmt: skip
    with pytest.raises(TooFewError, match="no training image shows suturing, so the generator has never seen one"):
        place(store, order(GenerateOrder, project_id=other.id, classes=(3,)), actor="test")
    with pytest.raises(TooFewError, match="all training images show dissection, and a classifier needs two classes"):
        place(store, order(TrainScorerOrder, project_id=other.id), actor="test")


def test_hard_images_are_searched_class_by_class(
    store: Store, home: Home, phases: Project, monkeypatch: pytest.MonkeyPatch
):
    run(store, home, TrainScorerOrder, project_id=phases.id, steps=20, batch_size=8)
    monkeypatch.setattr(seen, "limits", lambda store, project: Limits(0.0, 0.0))  # each image is right and hard
    monkeypatch.setattr(quality_gate, "refused", lambda store, project, pairs: [False] * len(pairs))
    found = run(store, home, MineOrder, project_id=phases.id, classes=(0, 2), count=4, candidates=2, turns=2, seed=3)
    assert found.message == "4 hard images of 4 searched for; 16 of 16 images made are hard and right"
    asked, mined = label_maps(store, phases), set(found.result["mined_ids"])
    samples = {sample.id: sample for sample in store.samples(phases.id)}
    assert len(mined) == 4 and {asked[sample.label_map_blob] for sample in samples.values()} <= {0, 2}
    loss = {row.sample_id: 1 - row.dice for row in store.score_rows(phases.id) if row.kind == "selector"}
    made = found.result["sample_ids"]
    for first in range(0, 8, 2):  # the hardest of those of both turns
        own = made[first : first + 2] + made[first + 8 : first + 10]
        [chosen] = set(own) & mined
        assert min(loss[chosen], KAPPA) == max(min(loss[number], KAPPA) for number in own)


def test_a_pool_of_chosen_classes_goes_on_after_it_made_room(store: Store, home: Home, phases: Project):
    """Its label maps are written beside its classes, and the order is checked once more."""
    place(store, order(GenerateOrder, project_id=phases.id, classes=(1,), count=2, candidates=1), actor="ann")
    claimed = store.claim_job("worker-1")
    assert claimed is not None
    frozen = orders.freeze(store, claimed)
    assert frozen.params["classes"] == [1] and len(frozen.params["label_map_ids"]) == 2
    assert orders.freeze(store, frozen).params == frozen.params
    other = next(image for image in store.images(phases.id) if image.label != phases.class_names[1])
    with pytest.raises(BadInputError, match="classes or label maps, not both"):
        order(GenerateOrder, project_id=phases.id, classes=(1,), label_map_ids=(other.label_map_id,)).check(store)


def test_classes_are_chosen_in_classification_projects_only(store: Store, project: Project):
    store.add_model(project.id, kind="engine", architecture={}, file="f", metrics={}, actor="test")
    with pytest.raises(BadInputError, match="classes are chosen in classification projects"):
        place(store, order(GenerateOrder, project_id=project.id, classes=(1,)), actor="test")


def test_images_of_an_earlier_program_get_the_label_map_of_their_class(store: Store, phases: Project):
    image = store.add_image(phases.id, blob=store.blobs.put_image(coloured(2, 5000)), size=(24, 24), group_id="p1", split="train",
                            label="bleeding", source_name="old", label_map_blob=None, actor="test")  # fmt: skip
    before = orders.order(orders.EvidenceOrder, project_id=phases.id).fingerprint(store)
    assert store.complete_class_maps(phases.id, actor="test") == 1 == 1 - store.complete_class_maps(phases.id, actor="test")
    record = store.label_map(store.image(image.id).label_map_id)
    assert class_of(store.label_map_pixels(record.blob)) == 2 and len({item.blob for item in store.label_maps(phases.id)}) == 3
    assert orders.order(orders.EvidenceOrder, project_id=phases.id).fingerprint(store) == before  # a measurement goes on


def test_a_new_version_is_tested_on_every_class_as_often_as_real_images_show_it(store: Store, phases: Project):
    chosen = Counter(material.gate_classes(store, phases, count=18))  # 8, 5, 5 training images; held-out: too few
    assert chosen == {0: 8, 1: 5, 2: 5}
    assert Counter(material.gate_classes(store, phases, count=4)) == {0: 2, 1: 1, 2: 1}


def test_pairs_that_share_an_image_fall_on_one_side(store: Store, phases: Project):
    blobs = [store.blobs.put_image(coloured(0, 9000 + number)) for number in range(5)]
    token = store.class_map(phases, "clipping")
    pairs = [Pair(token, blobs[one], blobs[other], "score", 1.0, 0.5) for one, other in ((0, 1), (2, 1), (3, 4))]
    first, second, third = material.pair_groups(store.freeze_pairs(phases.id, pairs, {}, actor="t"), "classification")
    assert first == second != third
    alone = [Single(token, blobs[index], True, "real", 0, 1.0) for index in (0, 4)]  # an image of a pair is on its pair's side
    frozen = store.freeze_pairs(phases.id, pairs, {}, actor="t", singles=alone)
    assert [single.group for single in material.training_singles(store, frozen, side=32)] == [first, third]


def test_real_images_that_stand_for_liked_ones_are_of_all_classes(store: Store, phases: Project, monkeypatch):
    scored_sets(store, phases, {"clipping": [(0.9, 0.5, 0.4)] * 3})
    disliked = {row.sample_id: singles.Verdict(False, "people", 1, 1.0) for row in store.usable_samples(phases.id)}
    monkeypatch.setattr(singles, "verdicts", lambda *given: (disliked, set()))
    reals = pairing._real_images(store, phases)
    found, _ = singles.settle_singles(store, phases.id, votes=(), weights={}, reals=reals)
    standing = [single.label_map_blob for single in found if single.source == "real"]
    assert len(standing) == 9 and len(set(standing)) == 3


def test_both_bad_still_counts_when_the_other_image_has_gone():
    groups = {"class#1": [preferences.Candidate(1, "a", 0.9), preferences.Candidate(2, "b", 0.5)], "class#2": []}
    known = SimpleNamespace(left_id=1, right_id=7, pair=(1, 7), label_map_blob="class")
    assert list(pairing._votes_by_condition([known], groups)) == ["class#1"]
    elsewhere = SimpleNamespace(left_id=8, right_id=7, pair=(7, 8), label_map_blob="class")
    assert list(pairing._votes_by_condition([elsewhere], groups)) == ["class"]


def scored_sets(store: Store, project: Project, chances: dict[str, list[tuple[float, ...]]], **metrics: Any) -> None:
    """Args: chances: Class -> for each of its sets the scores of its images."""
    engine = store.active_model(project.id, "engine")
    selector = store.add_model(project.id, kind="selector", architecture={}, file="s", metrics=metrics, actor="t")
    images = {name: [image for image in store.images(project.id, splits=["train"]) if image.label == name] for name in chances}
    seed = 0
    for name, sets in chances.items():
        for image, own in zip(images[name], sets, strict=False):
            record = store.label_map(image.label_map_id)
            for chance in own:
                seed += 1
                sample = store.add_sample(
                    project.id, label_map_id=record.id, label_map_rev=1, label_map_blob=record.blob, seed=seed, engine="compact",
                    blob=store.blobs.put_image(coloured(1, 7000 + seed)), model_id=engine.id, adapter_id=None, settings={},
                    purpose="pool")  # fmt: skip
                store.add_scores([Score(sample.id, selector.id, "selector", chance, 1.0, 0.9, {}, record.blob)])


def test_a_pair_needs_a_margin_and_the_set_its_images_were_made_in(store: Store, phases: Project):
    scored_sets(store, phases, {"dissection": [(0.9, 0.5), (0.8, 0.78)], "clipping": [(0.6, 0.2)]})
    found = pairing.settle(store, phases.id, real_winners=False)
    assert sorted((pair.source, round(item.chosen.score - item.rejected.score, 2)) for pair in found.pairs
                  for merged in found.merged.values() for item in merged.decisions if item.chosen.blob == pair.chosen_blob) == [
        ("score", 0.4), ("score", 0.4)]  # fmt: skip
    assert found.summary["num_undecided"] == 1 and len(found.groups) == 3  # 0.02 apart is noise


def test_people_are_asked_first_about_a_class_on_which_the_classifier_is_weak(store: Store, phases: Project):
    scored_sets(store, phases, {"dissection": [(0.9, 0.5)], "bleeding": [(0.9, 0.5)]},
                val={"f1_per_class": {"dissection": 0.95, "clipping": 0.9, "bleeding": 0.3}, "low_confidence": 0.5})  # fmt: skip
    asked = label_maps(store, phases)
    weights = {asked[pair.label_map_blob]: pair.weight for pair in pairing.settle(store, phases.id, real_winners=False).pairs}
    assert weights == {0: 0.5, 2: 0.25}
    voter = next(f"v{number}" for number in range(40) if purpose(f"v{number}", 0) == "certain")
    [question] = pairing.next_vote_pairs(store, phases.id, voter=voter, count=1, exclude=set())
    assert asked[store.sample(question.left_id).label_map_blob] == 2


def test_a_vote_across_two_sets_makes_no_pair(store: Store, phases: Project):
    scored_sets(store, phases, {"dissection": [(0.9, 0.5), (0.8, 0.3)]})
    first, _, third, _ = store.samples(phases.id)
    store.add_vote(phases.id, left_id=third.id, right_id=first.id, answer="left", voter="ann", request_id="across-01")
    found = pairing.settle(store, phases.id, real_winners=False)
    assert [pair.source for pair in found.pairs] == ["score", "score"] and plan.votes(found)["left_out"] == 1


def test_a_rare_class_gets_its_quota_of_pairs(store: Store, phases: Project):
    """Eight sets of a common class, one of a rare one: a second pair of that one is added, and no third."""
    scored_sets(store, phases, {"dissection": [(0.9, 0.7, 0.5)] * 8, "bleeding": [(0.9, 0.7, 0.5, 0.3)]})
    found = pairing.settle(store, phases.id, real_winners=False)
    assert found.summary["num_rare"] == 2 and found.summary["num_pairs"] == 10
    assert sorted(len(merged.decisions) for merged in found.merged.values()) == [1] * 8 + [2]


def test_rounds_begin_with_a_pool_of_all_classes(store: Store, phases: Project):
    wanted = first_order(phases.id, rounds=2, masks=9, candidates=2).frozen(store)
    asked = label_maps(store, phases)
    drawn = Counter(asked[store.label_map(number).blob] for number in wanted.label_map_ids)
    assert drawn == {0: 3, 1: 3, 2: 3}
