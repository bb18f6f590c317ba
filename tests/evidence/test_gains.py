"""Whether synthetic data help: nothing leaks, nothing is computed twice, every arm is measured on the same images."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from saadi import poses
from saadi.datasets import phantom
from saadi.downstream.segmenter import Segmenter
from saadi.downstream.usefulness import usefulness
from saadi.engines.regions import named_region
from saadi.errors import AlignmentStoppedError, BadInputError, NotFoundError, TooFewError, YieldedError
from saadi.evidence import cases, gains, learners, measures, rounds, tables
from saadi.evidence.cases import Case, Example
from saadi.evidence.extra_arms import EXTRA_ARMS, ExtraArms
from saadi.evidence.gains import Cell
from saadi.evidence.intervals import mean_with_interval
from saadi.evidence.settings import Arm, Models, Settings
from saadi.evidence.stages import Stages
from saadi.records import IGNORE, Project
from saadi.store import Store
from tests import tiny


def examples(first: int, count: int, *, groups: int) -> tuple[Example, ...]:
    made = [tiny.scene(seed) for seed in range(first, first + count)]
    return tuple(Example(*pair, f"patient {first + index % groups}") for index, pair in enumerate(made))


CASE = Case("tiny", ("tissue", "organ", "bar"), examples(0, 12, groups=4), examples(100, 6, groups=3))
SEGMENTER = {"num_classes": 3, "size_px": 32, "channels": [8, 8, 16, 16], "init_filters": 8}
MODELS = Models(tiny.architecture(), SEGMENTER | {"model": "unet"}, SEGMENTER | {"model": "segresnet"}, "random")
QUICK = Settings(fit_steps=2, scorer_steps=2, downstream_steps=2, candidates=2, pool_masks=8, align_steps=2, rounds=2,
                 shares=(1.0,), recipes=("mixed", "first"), curated=True)  # fmt: skip


def cell(folder: Path, *, seed: int = 0, settings: Settings = QUICK) -> Cell:
    return Cell(CASE, 8, seed, settings, MODELS, Stages(folder))


def test_a_patient_in_training_and_test_is_refused():
    with pytest.raises(ValueError, match="1 patients are in training and test, for example 'patient 0'"):
        Case("leak", CASE.class_names, CASE.train, (*CASE.test, CASE.train[0]))


def test_images_of_a_cell_come_from_as_many_patients_as_there_are():
    chosen = cases.choose_real(CASE.train, 4, seed=3)
    assert len({example.group for example in chosen}) == 4
    assert [e.group for e in cases.choose_real(CASE.train, 8, seed=3)][:4] == [e.group for e in chosen]
    with pytest.raises(TooFewError, match="13 real images wanted, the training patients have 12"):
        cases.choose_real(CASE.train, 13, seed=0)


def test_three_real_images_show_a_scarce_class_and_no_more():
    bare = tuple(replace(e, label_map=np.minimum(e.label_map, 1)) for e in examples(200, 10, groups=5))
    chosen = cases.choose_real((*CASE.train, *bare), 9, seed=3, scarce=[2])
    assert len(chosen) == 9 == len({id(example) for example in chosen})
    assert sum(bool((example.label_map == 2).any()) for example in chosen) == 3 < len({example.group for example in chosen})
    showing = [example for example in CASE.train if (example.label_map == 2).any()]
    with pytest.raises(TooFewError, match=f"3 of 14 real images are to show what .* have {len(showing)} with it and 10 "):
        cases.choose_real((*showing, *bare), 14, seed=0, scarce=[2])


def test_generator_and_judge_know_a_class_that_is_scarce_on_purpose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bare = tuple(replace(e, label_map=np.minimum(e.label_map, 1)) for e in examples(200, 12, groups=4))
    case, settings = replace(CASE, train=(*CASE.train, *bare)), replace(QUICK, scarce=("bar",))
    made, other = (Cell(case, 8, seed, settings, MODELS, Stages(tmp_path)) for seed in (0, 1))
    seen: list[int] = []

    def counted(original):
        return lambda images, *rest, **more: (seen.append(len(images)), original(images, *rest, **more))[1]

    for name in ("TrainingSet", "train"):
        monkeypatch.setattr(learners, name, counted(getattr(learners, name)))
    made.learners.generator(), made.learners.scorer("judge")
    assert seen == [24, 24]
    assert sum(bool((example.label_map == 2).any()) for example in made.learners.real) == 3
    made.learners.scorer("fold 0")
    assert seen[2] == sum(made.learners.fold(index) != 0 for index in range(8))
    assert other.learners.generator().key == made.learners.generator().key and len(seen) == 3
    assert other.learners.scorer_stage("judge").key == made.learners.scorer_stage("judge").key
    assert other.learners.scorer_stage("fold 0").key != made.learners.scorer_stage("fold 0").key


def test_no_selector_scores_images_of_masks_that_it_has_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: dict[str, set[bytes]] = {}
    made = cell(tmp_path)
    original = learners.train

    def watched(images, label_maps, **more):
        seen.setdefault(f"{more['config'].seed}{len(images)}", set()).update(image.tobytes() for image in images)
        return original(images, label_maps, **more)

    monkeypatch.setattr(learners, "train", watched)
    for fold in range(2):
        seen.clear()
        made.learners.scorer(f"fold {fold}")
        (known,) = seen.values()
        for index, example in enumerate(made.learners.real):
            assert (example.image.tobytes() in known) == (made.learners.fold(index) != fold)
    groups = [{made.learners.real[i].group for i in range(8) if made.learners.fold(i) == fold} for fold in range(2)]
    assert groups[0] and groups[1] and not groups[0] & groups[1]  # whole patients


def test_all_arms_are_measured_on_the_same_images_and_a_second_run_computes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    said: list[str] = []
    found = gains.run_cell(cell(tmp_path), note=said.append)
    names = ["plain 0", "augmented 0"]
    kinds = ("base", "rejection", "aligned 1", "aligned 2", "curated 1", "curated 2")
    names += [f"{kind} {share}{how}" for share in ("1",) for how in ("", " first") for kind in kinds]
    assert list(found) == names and len(said) == len(names)
    for (stage,) in found.values():
        assert stage["dice"].shape == stage["iou"].shape == stage["hd95"].shape == (6, 3)
        assert list(stage["group"]) == [example.group for example in CASE.test]

    def never(*args, **more):
        raise AssertionError("computed again")

    for module, name in ((learners, "train"), (learners, "fit"), (rounds, "align")):
        monkeypatch.setattr(module, name, never)
    again = gains.run_cell(cell(tmp_path), note=said.append)
    for name in names:
        np.testing.assert_array_equal(again[name][0]["dice"], found[name][0]["dice"])
    with pytest.raises(AssertionError, match="computed again"):  # another budget is another result
        cell(tmp_path, settings=replace(QUICK, downstream_steps=3)).arm(Arm("augmented"))
    made = cell(tmp_path)
    result = tables.summary([(made, found), (made, found)])
    table = result["arms"]
    assert set(table["base 1"]["dice_per_class"]) == {"organ", "bar"} and result["rarest_class"] == "bar"
    assert table["aligned 1 1"]["gain over plain 0"][0] == pytest.approx(
        table["aligned 1 1"]["dice"][0] - table["plain 0"]["dice"][0], abs=2e-4)  # fmt: skip
    assert "gain over aligned 1 1" in table["aligned 2 1"] and "gain over base 1 first" in table["curated 2 1 first"]
    told = tables.markdown({"task": "segmentation", "real": {"8": result}})
    rows = [line.split(" | ") for line in told if line.startswith("| ")]
    assert len(rows) == 1 + len(names) and len({len(row) for row in rows}) == 1
    assert rows[0][:2] == ["| trained on", "dice"] and rows[1][0] == "| real images only"
    gain = table["base 1"]["gain over plain 0"]
    assert f"{gain[0]:+.3f} ({gain[1]:.3f} to {gain[2]:.3f})" in rows[3]
    assert told[-1].startswith("curated 2 1 first over rejection 1 first, class by class: organ ") and "bar (rarest)" in told[-1]
    assert table["aligned 2 1"]["minutes"] >= table["base 1"]["minutes"] and len(result["rounds"][0]) == 2


def test_each_draw_has_images_and_a_start_of_its_own_and_all_arms_have_the_same_masks(tmp_path: Path):
    once = cell(tmp_path, settings=replace(QUICK, recipes=("mixed",), rounds=1, curated=False))
    many = cell(tmp_path, settings=replace(once.settings, draws=3))
    found, first = gains.run_cell(many, note=lambda text: None), gains.run_cell(once, note=lambda text: None)
    for name, stages in found.items():
        assert len({stage.key for stage in stages}) == 3 and stages[0].key == first[name][0].key  # the first is what was there
        assert len({stage["dice"].tobytes() for stage in stages}) == 3
    of_draws = [many.synthetic(Arm("base", 1.0), draw=draw) for draw in range(3)]
    masks = [{label_map.tobytes() for label_map, _ in drawn} for _, drawn in of_draws]
    assert not masks[0] & masks[1] and not masks[1] & masks[2]
    assert len({stage["images"].tobytes() for stage, _ in of_draws}) == 3
    for draw in range(3):
        _, other = many.synthetic(Arm("aligned 1", 1.0), draw=draw)
        assert {label_map.tobytes() for label_map, _ in other} == masks[draw]
    table, alone = tables.summary([(many, found)])["arms"], tables.summary([(once, first)])["arms"]
    dice = [measures.told("segmentation", stage) for stage in found["base 1"]]
    assert table["base 1"]["dice"][0] == pytest.approx(np.mean(dice), abs=1e-3)
    assert alone["base 1"]["dice"][0] == pytest.approx(dice[0], abs=1e-4)
    gain = np.mean(dice) - np.mean([measures.told("segmentation", stage) for stage in found["augmented 0"]])
    assert table["base 1"]["gain over augmented 0"][0] == pytest.approx(gain, abs=1e-3)


def test_where_rounds_were_refused_the_arm_is_that_of_the_version_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = cell(tmp_path)

    def refuses(*args, **more):
        raise AlignmentStoppedError("no checkpoint was better")

    first = made.rounds.round(1) if "refused" not in made.rounds.round(1).arrays else None
    monkeypatch.setattr(rounds, "align", refuses)
    other = cell(tmp_path, settings=replace(QUICK, align_steps=3))
    for kind, before in (("aligned 1", "base"), ("aligned 2", "base"), ("curated 2", "rejection")):
        assert other.arm(Arm(kind, 1.0, "first")).key == other.arm(Arm(before, 1.0, "first")).key
        assert other.synthetic(Arm(kind, 1.0))[0].key == other.synthetic(Arm(before, 1.0))[0].key
    assert first is None or made.arm(Arm("aligned 1", 1.0)).key != made.arm(Arm("base", 1.0)).key


def test_those_who_vote_know_other_images_and_order_the_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    voted = replace(QUICK, recipes=("mixed",), rounds=1, curated=False, voters=True, candidates=3)
    case = replace(CASE, train=(*CASE.train, *examples(50, 8, groups=4)))
    made = Cell(case, 8, 0, voted, MODELS, Stages(tmp_path))
    learnt: list[set[bytes]] = []
    original = learners.train

    def watched(images, label_maps, **more):
        learnt.append({image.tobytes() for image in images})
        return original(images, label_maps, **more)

    monkeypatch.setattr(learners, "train", watched)
    masks, rows, scores = made.rounds.pool(0)
    real, test = ({example.image.tobytes() for example in part} for part in (made.learners.real, CASE.test))
    assert len(learnt) == 1 and len(learnt[0]) == 12 and not learnt[0] & (real | test)
    seen = made.learners.scorer("voters").fidelity(rows[0], [masks[0][0]] * 3)
    assert scores[0].tolist() == [one.mean for one in seen]
    by_scores = Cell(case, 8, 0, replace(voted, voters=False), MODELS, Stages(tmp_path))
    for kind, is_same in (("base", True), ("rejection", False)):
        keys = {one.arm(Arm(kind, 1.0)).key for one in (made, by_scores)}
        assert (len(keys) == 1) is is_same
    assert made.rounds.round(1).key != by_scores.rounds.round(1).key
    row = {"dice": [0.5, 0.4, 0.6], "iou": [0.4], "hd95": [9.0], "minutes": 1}
    measured = {"8": {"arms": {"plain 0": row}, "rounds": [[]], "rarest_class": "bar"}}
    told = tables.markdown({"task": "segmentation", "settings": vars(voted) | {"draws": 2}, "real": measured})
    assert told[1] == "8 real images, 1 runs of 2 draws, candidates ordered by those who vote:"
    with pytest.raises(TooFewError, match="4 training images are left for those who vote, 8 needed"):  # before anything is learnt
        cell(tmp_path, settings=voted)
    mine = {id(example) for example in made.learners.real}
    lacking = replace(case, train=tuple(e if id(e) in mine else replace(e, label_map=np.minimum(e.label_map, 1))
                                        for e in case.train))  # fmt: skip
    with pytest.raises(TooFewError, match="no training image that is left for those who vote shows bar"):
        Cell(lacking, 8, 0, voted, MODELS, Stages(tmp_path))


def test_the_ceiling_is_a_generator_that_has_seen_all_training_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = cell(tmp_path, settings=replace(QUICK, recipes=("mixed",), rounds=1, curated=False, ceiling=True))
    assert [arm.kind for arm in made.arms()] == ["plain", "augmented", "base", "ceiling", "rejection", "aligned 1"]
    learnt: list[set[bytes]] = []
    original = learners.TrainingSet

    def watched(images, label_maps, **more):
        learnt.append({image.tobytes() for image in images})
        return original(images, label_maps, **more)

    monkeypatch.setattr(learners, "TrainingSet", watched)
    (base, masks), (ceiling, same) = made.synthetic(Arm("base", 1.0)), made.synthetic(Arm("ceiling", 1.0))
    test = {example.image.tobytes() for example in CASE.test}
    assert [len(seen) for seen in learnt] == [8, 12]
    assert not any(seen & test for seen in learnt)
    assert (base["images"] != ceiling["images"]).any()
    assert [label_map.tobytes() for label_map, _ in masks] == [label_map.tobytes() for label_map, _ in same]
    assert made.arm(Arm("ceiling", 1.0)).key != made.arm(Arm("base", 1.0)).key


def test_what_an_arm_costs_counts_each_stage_once(tmp_path: Path):
    stages = Stages(tmp_path)

    def outer():
        stages.get("inner", {}, lambda: time.sleep(0.2) or {"v": np.zeros(1)})
        return {"v": np.zeros(1)}

    assert stages.get("outer", {}, outer).seconds < 0.15 < 0.2 <= stages.get("inner", {}, outer).seconds


def test_an_interrupted_stage_costs_what_both_runs_cost(tmp_path: Path):
    def begins():
        (stages.workspace("x", {}) / "checkpoint").write_text("half")
        time.sleep(0.2)
        raise YieldedError("somebody waits")

    stages = Stages(tmp_path)
    with pytest.raises(YieldedError):
        stages.get("x", {}, begins)
    assert (stages.workspace("x", {}) / "checkpoint").exists()
    assert Stages(tmp_path).get("x", {}, lambda: {"v": np.zeros(1)}).seconds >= 0.2
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


def test_two_measurements_at_once_do_not_share_a_checkpoint(tmp_path: Path):
    one, other = Stages(tmp_path), Stages(tmp_path)
    places: list[Path] = []

    def inner():
        places.append(other.workspace("x", {}))
        return {"v": np.ones(1)}

    def outer():
        places.append(one.workspace("x", {}))
        other.get("x", {}, inner)  # as another process would
        assert places[0].exists()
        return {"v": np.zeros(1)}

    assert one.get("x", {}, outer)["v"].tolist() == [0.0]
    assert places[0] != places[1] and not any(path.exists() for path in places)


def test_a_killed_run_leaves_no_half_stage(tmp_path: Path):
    stages = Stages(tmp_path)

    def dies():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stages.get("x", {"a": 1}, dies)
    assert list(tmp_path.iterdir()) == []
    first = stages.get("x", {"a": 1}, lambda: {"v": np.arange(3)})
    assert stages.get("x", {"a": 1}, dies)["v"].tolist() == first["v"].tolist() == [0, 1, 2]
    assert stages.get("x", {"a": 2}, lambda: {"v": np.arange(4)})["v"].tolist() == [0, 1, 2, 3]


def test_the_hausdorff_distance_counts_pixels_and_absent_classes_are_far():
    asked, shifted = np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.uint8)
    asked[8:16, 8:16] = 1
    shifted[8:16, 12:20] = 1
    shifted[0, 0] = 2
    found = measures.hd95(shifted, asked, num_classes=4)
    assert found[1] == pytest.approx(4) and found[2] == pytest.approx(math.hypot(32, 32)) and math.isnan(found[3])


def test_a_class_that_no_test_image_shows_is_not_measured(tmp_path: Path):
    """In none of the runs: left out of one patient's test images alone, an invented one still counts as 0."""
    without = tuple(replace(e, label_map=np.where(e.label_map == 2, 0, e.label_map)) for e in CASE.test)
    quick = replace(QUICK, recipes=("mixed",), rounds=1, curated=False)
    for cases_, is_shown in (((replace(CASE, test=without),), False), ((CASE, replace(CASE, test=without)), True)):
        cells = [Cell(case, 8, 0, quick, MODELS, Stages(tmp_path)) for case in cases_]
        runs = [(one, gains.run_cell(one, note=lambda text: None)) for one in cells]
        invented = runs[-1][1]["base 1"][0].arrays["dice"]
        invented[0, 2] = 0.0
        result = tables.summary(runs)
        table = result["arms"]["base 1"]
        assert (table["dice_per_class"]["bar"][0] is not None) is is_shown
        if not is_shown:
            assert table["dice"] == pytest.approx(table["dice_per_class"]["organ"])
            assert table["gain per class over plain 0"]["bar"] == [None] * 3
            told = tables.markdown({"task": "segmentation", "real": {"8": result}})
            assert "bar (rarest) in no test image" in told[-1] or "bar in no test image" in told[-1]


def test_moved_masks_keep_their_classes_and_differ():
    label_map = CASE.train[0].label_map
    made = [poses.moved(label_map, np.random.default_rng(seed)) for seed in range(8)]
    assert all(set(np.unique(one)) <= set(np.unique(label_map)) for one in made)
    assert len({one.tobytes() for one in made}) == 8


def test_warped_masks_keep_their_classes_and_bend():
    label_map = np.zeros((64, 64), np.uint8)
    label_map[16:48, 16:48] = 1
    made = [poses.warped(label_map, np.random.default_rng(seed)) for seed in range(8)]
    assert len({one.tobytes() for one in made}) == 8
    for one in made:
        assert set(np.unique(one)) == {0, 1} and 0.7 < (one == 1).sum() / 1024 < 1.3
        assert 0.75 < ((one == 1) & (label_map == 1)).sum() / ((one == 1) | (label_map == 1)).sum() < 1.0


def test_pixels_in_which_the_selector_sees_something_else_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By the selector that has not seen the mask's image: each sees only its own class here."""
    made = cell(tmp_path, settings=replace(QUICK, folds=3))
    assert {made.learners.fold(index) for index in range(8)} == {0, 1, 2}
    selectors = [Segmenter(SEGMENTER | {"model": "unet"}) for _ in range(3)]
    for fold, selector in enumerate(selectors):
        logits = torch.full((3, 16, 16), -10.0)
        logits[fold] = 10.0
        monkeypatch.setattr(selector, "probabilities", lambda images, sees=logits: (sees.softmax(0) for _ in images))
    monkeypatch.setattr(made.learners, "scorer", lambda name: selectors[int(name[-1])])
    masks = made.rounds.masks(8, first=3)
    found = made.learners.without_doubt(np.zeros((8, 16, 16, 3), np.uint8), masks)
    for (asked, source), kept in zip(masks, found, strict=True):
        assert (kept == np.where(asked == made.learners.fold(source), asked, IGNORE)).all()
    assert (found == IGNORE).any() and (found != IGNORE).any()


def test_doubted_pixels_and_warped_masks_reach_the_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    learnt: dict[str, np.ndarray] = {}
    original = learners.train
    made = cell(tmp_path, settings=replace(QUICK, masks="warped"))
    made.learners.scorer("fold 0"), made.learners.scorer("fold 1")

    def watched(images, label_maps, **more):
        learnt[str(len(learnt))] = np.stack(label_maps)
        return original(images, label_maps, **more)

    monkeypatch.setattr(learners, "train", watched)
    monkeypatch.setattr(learners, "DOUBT", 2.0)  # nothing is so sure
    sure, mixed = made.arm(Arm("base", 1.0, "sure")), made.arm(Arm("base", 1.0))
    assert sure.key != mixed.key != cell(tmp_path).arm(Arm("base", 1.0)).key
    assert (learnt["0"][8:] == IGNORE).all() and (learnt["0"][:8] != IGNORE).any()
    assert (learnt["1"] != IGNORE).any() and (learnt["1"][8:] != learnt["2"][8:]).any()


def test_intervals_draw_patients_not_images():
    """Two patients with constant numbers: 10 images of one say no more than one would."""
    values, groups = [np.array([0.0] * 5 + [1.0] * 5)], [np.array(["a"] * 5 + ["b"] * 5)]
    mean, low, high = mean_with_interval(values, groups)
    assert mean == 0.5 and low == 0.0 and high == 1.0
    one_each = mean_with_interval(values, [np.array([str(i) for i in range(10)])])
    assert one_each[1] > 0.1 and one_each[2] < 0.9
    assert mean_with_interval([np.array([np.nan, 2.0])], [np.array(["a", "a"])])[0] == 2.0
    assert all(math.isnan(value) for value in mean_with_interval([np.array([np.nan])], [np.array(["a"])]))


def test_classification_runs_the_same_arms(tmp_path: Path):
    """Images of a class come from the label map that holds nothing else; what counts is the class's probability."""
    sizes = {"num_classes": 2, "size_px": 32, "widths": [8, 8, 16, 16], "growth_rate": 4, "blocks": [1, 1, 1, 1]}
    made = Models(tiny.architecture(num_classes=2), sizes | {"model": "resnet"}, sizes | {"model": "densenet"}, "random")

    def labelled(found: tuple[Example, ...]) -> tuple[Example, ...]:
        return tuple(replace(e, label_map=cases.whole(index % 2, side=16)) for index, e in enumerate(found))

    case = Case("phases", ("early", "late"), labelled(CASE.train), labelled(CASE.test), "classification")
    run = Cell(case, 8, 0, replace(QUICK, recipes=("mixed",), rounds=1, curated=False), made, Stages(tmp_path))
    found = gains.run_cell(run, note=lambda text: None)
    (stage,) = found["aligned 1 1"]
    assert stage["probabilities"].shape == (6, 2) and stage["label"].tolist() == [0, 1] * 3
    masks, rows, odds = run.rounds.pool(0)
    assert odds.shape == (8, 2) and (odds >= 0).all() and (odds <= 1).all() and len(rows[0]) == 2
    assert all(label_map.min() == label_map.max() for label_map, _ in masks)
    rows = tables.summary([(run, found)])["arms"]
    table = rows["aligned 1 1"]
    assert set(table["f1_per_class"]) == {"early", "late"} and len(table["auroc"]) == 3
    assert table["gain over base 1"][0] == pytest.approx(table["f1"][0] - rows["base 1"]["f1"][0], abs=1e-4)


def test_where_a_fold_would_never_see_a_class_one_classifier_sees_all(tmp_path: Path):
    sizes = {"num_classes": 2, "size_px": 32, "widths": [8, 8, 16, 16], "growth_rate": 4, "blocks": [1, 1, 1, 1]}
    made = Models(tiny.architecture(num_classes=2), sizes | {"model": "resnet"}, sizes | {"model": "densenet"}, "random")
    for late, folds in ((("patient 0",), 1), (("patient 0", "patient 1"), 2)):
        train = tuple(replace(e, label_map=cases.whole(int(e.group in late), side=16)) for e in CASE.train)
        test = tuple(replace(e, label_map=cases.whole(0, side=16)) for e in CASE.test)
        case = Case("phases", ("early", "late"), train, test, "classification")
        run = Cell(case, 12, 0, QUICK, made, Stages(tmp_path))
        assert run.learners.num_folds == folds and len(run.learners.selectors()) == folds
        if folds == 1:
            assert run.learners.scorer("fold 0").probabilities([CASE.train[0].image]).shape == (1, 2)


def test_patients_are_dealt_whole_and_always_the_same_way(store: Store, project: Project):
    for index in range(12):
        image, label_map = tiny.scene(index)
        blob = store.blobs.put_image(image)
        store.add_image(project.id, blob=blob, size=(16, 16), group_id=f"p{index // 2}", split="train",
                        source_name=f"{index}.png", label_map_blob=store.blobs.put_label_map(label_map), actor="x")  # fmt: skip
    case = cases.of_project(store, project, side=16, test_share=0.4)
    assert len({e.group for e in case.test}) == 2 and len(case.test) == 4 and len(case.train) == 8
    again = cases.of_project(store, project, side=16, test_share=0.4)
    assert [e.group for e in again.test] == [e.group for e in case.test]
    assert {e.group for e in cases.of_project(store, project, side=16, test_groups=["p3"]).test} == {"p3"}
    assert cases.patients(store, project) == [f"p{number}" for number in range(6)]
    with pytest.raises(NotFoundError, match=r"patient 'p9' is not in .*; it has 6, for example"):
        cases.of_project(store, project, side=16, test_groups=["p9"])


def test_a_rendered_operation_has_a_phase_as_its_class():
    case = cases.rendered(side=64, num_train=6, num_test=4, task="classification")
    assert case.class_names == phantom.PHASES
    assert all(e.label_map.min() == e.label_map.max() < 4 for e in (*case.train, *case.test))


def test_more_seeds_of_the_same_patients_do_not_feign_more_patients():
    """Two patients with stable gains: what is not known is how others would fare, however often it is run."""
    values, groups = np.array([0.2] * 4 + [-0.05] * 4), np.array(["a"] * 4 + ["b"] * 4)
    one = mean_with_interval([values], [groups])
    many = mean_with_interval([values] * 20, [groups] * 20, list(range(20)))
    assert one[1] == pytest.approx(-0.05) and one[2] == pytest.approx(0.2)
    assert many == pytest.approx(one, abs=1e-9)
    apart = mean_with_interval([values[:4], values[4:]], [groups[:4], groups[4:]], [0, 0])  # one operation left out in turn
    assert apart[0] == pytest.approx(0.075) and apart[1] == pytest.approx(-0.05) and apart[2] == pytest.approx(0.2)


def test_a_rare_class_counts_as_much_as_a_frequent_one():
    """Ten images of a frequent class at 0.8, two with a rare one at 0.5 and 0.1: (0.8 + 0.3) / 2, not the mean over images."""
    values = np.full((10, 2), np.nan)
    values[:, 0], values[:2, 1] = 0.8, (0.5, 0.1)
    groups = np.array([str(row) for row in range(10)])
    mean, low, high = mean_with_interval([values], [groups])
    assert mean == pytest.approx(0.55) and low == pytest.approx(0.45) and 0.6 < high <= 0.8
    worse = values.copy()
    worse[5, 1] = 0.0  # the class invented where there is none
    gain = mean_with_interval([worse], [groups], minus=[values])
    assert gain[0] == pytest.approx((0.6 / 3 - 0.3) / 2) and gain[2] <= 1e-9 and -0.26 < gain[1] < -0.05
    invented = np.column_stack([values, np.full(10, np.nan)])  # a third class that is nowhere, painted once
    invented[0, 2] = 0.0
    silent = np.column_stack([values, np.full(10, np.nan)])
    assert mean_with_interval([invented], [groups], minus=[silent]) == pytest.approx((0, 0, 0))
    assert mean_with_interval([values], [np.array(["one"] * 10)])[1] < mean  # one patient: its images are drawn
    assert mean_with_interval([values], [groups], minus=[values]) == pytest.approx((0, 0, 0))
    assert mean_with_interval([values[:, :1]], [groups]) == pytest.approx(mean_with_interval([values[:, 0]], [groups]))


def test_a_stage_is_made_anew_when_anything_that_it_depends_on_changes(tmp_path: Path):
    """Patients, test masks, candidates and pool: each of these once gave back numbers of another run."""
    plain = cell(tmp_path)
    moved_patient = replace(CASE.train[0], group="patient 9")
    others = [
        replace(CASE, train=(moved_patient, *CASE.train[1:])),
        replace(CASE, test=(replace(CASE.test[0], label_map=CASE.test[1].label_map), *CASE.test[1:])),
    ]
    arms = [plain.arm(Arm("augmented")).key]
    for case in others:
        arms.append(Cell(case, 8, 0, QUICK, MODELS, Stages(tmp_path)).arm(Arm("augmented")).key)
    assert len(set(arms)) == 3
    more = cell(tmp_path, settings=replace(QUICK, candidates=3))
    assert more.arm(Arm("rejection", 1.0)).key != plain.arm(Arm("rejection", 1.0)).key
    assert more.arm(Arm("base", 1.0)).key == plain.arm(Arm("base", 1.0)).key
    bigger = cell(tmp_path, settings=replace(QUICK, pool_masks=10))
    assert bigger.rounds.round(1).key != plain.rounds.round(1).key


def test_gates_never_have_a_mask_of_a_pool(tmp_path: Path):
    run = cell(tmp_path)
    pools = {mask.tobytes() for version in range(5) for mask, _ in run.rounds.pool_masks(version)}
    gates = [{mask.tobytes() for mask, _ in run.rounds.gate_masks(version)} for version in range(1, 6)]
    own = {example.label_map.tobytes() for example in run.learners.real}
    assert all(not (gate - own) & pools for gate in gates)


def test_models_look_no_closer_than_the_images_are_and_can_be_narrower():
    made = Models.of(CASE, side=64, width=0.5)
    assert made.selector["channels"] == [16, 32, 64, 96] and made.selector["size_px"] == 64 and made.judge["init_filters"] == 8
    assert made.starts_from == "shipped" and Models.of(CASE, side=256).selector["size_px"] == 128
    phantoms = Models.of(cases.rendered(side=64, num_train=2, num_test=1, task="classification"), side=64, width=0.1)
    assert phantoms.starts_from == "random" and phantoms.selector["widths"] == [8, 8, 16, 24]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (lambda made: made.learners.generator(), "fitting"),
        (lambda made: made.learners.scorer_stage("fold 1"), "training the"),
        (lambda made: made.rounds.round(1), "learning from the pairs"),
        (lambda made: made.arm(Arm("base", 1.0, "first")), "training the"),
    ],
    ids=["fit", "selector", "round", "arm"],
)
def test_a_stage_that_made_room_goes_on_from_where_it_was(stage, message: str, tmp_path: Path):
    settings = replace(QUICK, fit_steps=4, scorer_steps=4, downstream_steps=8, align_steps=4, rounds=1)
    whole = cell(tmp_path / "whole", settings=settings)
    expected = stage(whole)
    made = cell(tmp_path / "halted", settings=settings)
    for path in (tmp_path / "whole").iterdir():  # all but the stage itself
        if path.name != f"{expected.key}.npz":
            (tmp_path / "halted" / path.name).write_bytes(path.read_bytes())

    def makes_room(step: int, total: int, said: str, **more: object) -> None:
        if message in said and step == 3:
            raise YieldedError("somebody waits")

    made.learners.report = makes_room
    with pytest.raises(YieldedError):
        stage(made)
    seen: list[int] = []
    made.learners.report = lambda step, total, said, **more: seen.append(step) if message in said else None
    found = stage(made)
    assert [step for step in seen if step][:1] in ([4], [3])  # an alignment tests what it had not tested yet
    for name, values in expected.arrays.items():
        assert np.array_equal(found[name], values, equal_nan=values.dtype.kind == "f"), name
    assert not list((tmp_path / "halted").glob("*.part"))


def test_rough_labels_reach_the_generator_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made, plain = cell(tmp_path, settings=replace(QUICK, rough=0.5)), cell(tmp_path)
    fitted, true = made.learners.label_maps_to_fit(), [example.label_map for example in made.learners.real]
    changed = [index for index, (one, other) in enumerate(zip(fitted, true, strict=True)) if (one != other).any()]
    assert len(changed) == 4
    assert all(one is other for one, other in zip(plain.learners.label_maps_to_fit(), true, strict=True))
    learnt: list[np.ndarray] = []
    original = learners.TrainingSet

    def watched(images, label_maps, **more):
        learnt.append(np.stack(label_maps))
        return original(images, label_maps, **more)

    monkeypatch.setattr(learners, "TrainingSet", watched)
    assert made.learners.generator().key != plain.learners.generator().key
    assert (learnt[0] == np.stack(fitted)).all() and (learnt[1] == np.stack([e.label_map for e in made.learners.real])).all()
    for name in ("fold 0", "judge"):
        assert made.learners.scorer_stage(name).key == plain.learners.scorer_stage(name).key
    label_map = np.zeros((64, 64), np.uint8)
    label_map[24:40, 24:40] = 1
    rows, columns = np.nonzero(poses.displaced(label_map, np.random.default_rng(0)))
    assert 0.14 * 64 < math.hypot(rows.mean() - 31.5, columns.mean() - 31.5) < 0.26 * 64


def test_without_a_gate_the_last_step_is_taken_and_the_verdict_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = replace(QUICK, gated=False, align_steps=3, rounds=2, sdpo_mu=0.5)
    run = cell(tmp_path, settings=settings)
    assert run.rounds.round(1).key != cell(tmp_path, settings=replace(settings, gated=True)).rounds.round(1).key
    one, two = run.rounds.in_numbers()
    assert one["step"] == two["step"] == 3 and len(one["gain"]) == 3 and "refused" not in two
    assert isinstance(one["reasons"], str) and run.rounds.pool_stage(1).key != run.rounds.pool_stage(0).key
    monkeypatch.setattr(rounds.PairTrainer, "train_step", lambda self: {"gradient_norm": float("nan")})
    (broken,) = cell(tmp_path, settings=replace(settings, align_steps=4, rounds=1)).rounds.in_numbers()
    assert broken == {"refused": "the gradient is not a number any more"}


def test_candidates_may_be_ordered_by_usefulness_to_the_selector_that_has_not_seen_the_mask(tmp_path: Path):
    settings = replace(QUICK, pool_masks=8)
    plain, useful = (cell(tmp_path, settings=replace(settings, prefer=prefer)) for prefer in ("fidelity", "usefulness"))
    (masks, rows, fidelity), (same_masks, same_rows, ranked) = plain.rounds.pool(0), useful.rounds.pool(0)
    assert plain.rounds.pool_stage(0).key != useful.rounds.pool_stage(0).key
    assert all((one == two).all() for one, two in zip(rows[0], same_rows[0], strict=True)) and len(masks) == len(same_masks)
    own, k = useful.learners, ranked.shape[1]
    for number, name in enumerate(own.selectors()):
        chosen = [index for index, (_, source) in enumerate(masks) if own.fold(source) == number]
        unseen = [example for index, example in enumerate(own.real) if own.fold(index) == number]
        found = usefulness(own.scorer(name), [image for index in chosen for image in rows[index]],
                           [masks[index][0] for index in chosen for _ in range(k)], real=[e.image for e in unseen],
                           real_label_maps=[e.label_map for e in unseen])  # fmt: skip
        assert (ranked[chosen].ravel().argsort() == found.argsort()).all()
        assert ranked[chosen].min() == 0 and ranked[chosen].max() == 1
    assert not (ranked == fidelity).all()


def test_an_alignment_may_learn_from_real_winners_alone_and_by_another_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trained = []
    original = rounds.PairTrainer

    def watched(engine, pairs, config, **more):
        trained.append((pairs, config))
        return original(engine, pairs, config, **more)

    monkeypatch.setattr(rounds, "PairTrainer", watched)
    settings = replace(QUICK, gated=False, align_steps=2, rounds=1, pool_masks=16)
    runs = [cell(tmp_path, settings=replace(settings, real_winners_alone=alone, loss=loss))
            for alone, loss in ((False, "dpo"), (True, "dpo"), (True, "sft"))]  # fmt: skip
    assert len({run.rounds.round(1).key for run in runs}) == 3
    assert [config.loss for _, config in trained] == ["dpo", "dpo", "sft"]
    both, alone, _ = (pairs for pairs, _ in trained)
    assert {pair.is_real for pair in both} == {True, False} and {pair.is_real for pair in alone} == {True}
    assert len(alone) == sum(pair.is_real for pair in both)


# ---- arms beside the usual ones

OF_FEW_PATIENTS = tuple(kind for kind in EXTRA_ARMS if kind != "unlike")
"""Copies are told by how near strangers come, and the little case has four patients."""
EXTRA = replace(QUICK, rounds=0, recipes=("mixed",), curated=False, extras=OF_FEW_PATIENTS[::-1])


def test_each_extra_arm_has_as_many_images_as_the_base_and_a_second_run_computes_nothing(tmp_path: Path):
    made = cell(tmp_path, settings=EXTRA)
    assert [arm.kind for arm in made.arms()] == ["plain", "augmented", "base", *OF_FEW_PATIENTS, "rejection"]
    found = gains.run_cell(made, note=lambda line: None)
    base, _ = made.synthetic(Arm("base", 1.0))
    images = {}
    for kind in OF_FEW_PATIENTS:
        stage, _ = made.synthetic(Arm(kind, 1.0))
        images[kind] = stage["images"]
        assert stage["images"].shape == base["images"].shape and stage["label_maps"].shape == base["images"].shape[:3]
    assert (images["refined"] == base["images"]).all()  # only their label maps may differ
    assert not (images["painted"] == images["guided"]).all() and not (images["painted"] == base["images"]).all()
    again = cell(tmp_path, settings=EXTRA)
    gains.run_cell(again, note=lambda line: None)
    assert again.stages.computed_s == 0
    rows = tables.summary([(made, found)])["arms"]
    assert {"gain over weak 1", "gain over hardest 1"} <= rows["mined 1"].keys() and "gain over painted 1" in rows["guided 1"]
    told = tables.markdown({"task": "segmentation", "settings": {}, "real": {"8": tables.summary([(made, found)])}})
    assert any(line.startswith("| + hard and right 1 |") for line in told)


def test_sizes_can_be_read_together_and_their_gains_weigh_the_same(tmp_path: Path):
    settings = replace(QUICK, rounds=0, recipes=("mixed",), curated=False)
    cells = [Cell(CASE, count, seed, settings, MODELS, Stages(tmp_path)) for count in (8, 10) for seed in (0, 1)]
    runs = [(one, gains.run_cell(one, note=lambda line: None)) for one in cells]
    both = tables.summary(runs)["arms"]["base 1"]["gain over plain 0"][0]
    each = [tables.summary(runs[first : first + 2])["arms"]["base 1"]["gain over plain 0"][0] for first in (0, 2)]
    assert both == pytest.approx(np.mean(each), abs=2e-4)


def test_outside_the_masks_painted_images_are_the_real_ones(tmp_path: Path):
    made = cell(tmp_path, settings=EXTRA)
    stage, masks = made.synthetic(Arm("painted", 1.0))
    for image, (label_map, source) in zip(stage["images"], masks, strict=True):
        under = made.learners.real[source]
        region = named_region(label_map, under.image, side=made.learners.side, shown=under.label_map)
        assert (image[region.weight == 0] == under.image[region.weight == 0]).all()


def test_masks_are_drawn_by_what_selectors_miss_and_mined_images_are_the_hardest_right_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = cell(tmp_path, settings=EXTRA)
    arms = made.extras
    real = made.learners.real
    # As if every bar were missed and every organ found.
    without = [np.where(example.label_map == 2, 0, example.label_map).astype(np.uint8) for example in real]
    seen = [(index, label_map, 0.9) for index, label_map in enumerate(without)]
    monkeypatch.setattr(ExtraArms, "unseen", lambda self: seen)
    has_bar = [bool((label_map == 2).any()) for label_map, _ in arms.weak_masks(8, first=0)]
    usual = [bool((label_map == 2).any()) for label_map, _ in made.rounds.masks(32, first=0)]
    assert np.mean(has_bar) > np.mean(usual)
    loss_of: dict[bytes, float] = {}

    def scores(images, many):
        found = 1 - np.linspace(0.1, 0.9, len(images))
        loss_of.update({image.tobytes(): 1 - score for image, score in zip(images, found, strict=True)})
        return found

    monkeypatch.setattr(made.learners, "scores", scores)
    hardest = arms.make("hardest", 4, first_mask=0, first_seed=5)
    losses = [loss_of[image.tobytes()] for image in hardest["images"]]
    assert losses == sorted(losses) and hardest["_made"] == 8  # the second of each pair of candidates
    mined = arms.make("mined", 4, first_mask=0, first_seed=5)
    assert 8 <= mined["_made"] <= 24 and 0 <= mined["_prizes"] <= 4


def test_images_that_come_near_to_a_real_one_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    case = cases.rendered(side=64, num_train=24, num_test=8)  # near is told by what strangers look like
    made = Cell(case, 16, 0, EXTRA, Models.of(case, side=64, width=0.25), Stages(tmp_path))
    real, fresh = made.learners.real, [example.image for example in case.test]
    offered: list[np.ndarray] = []

    def images(self, masks, first_seed, start=None):
        """Of each label map's candidates all but one are copies; of the first label map all are."""
        offered[:] = [fresh[place // 2 % 8] if place % 2 and place > 1 else np.ascontiguousarray(real[place % 16].image[:, ::-1])
                      for place in range(len(masks))]  # fmt: skip
        return offered

    monkeypatch.setattr(ExtraArms, "_images", images)
    monkeypatch.setattr(made.learners, "scores", lambda images, many: np.linspace(1, 0, len(images)))  # copies look best
    found = made.extras.make("unlike", 6, first_mask=0, first_seed=0)
    taken = {image.tobytes() for image in found["images"]}
    assert taken <= {image.tobytes() for image in fresh} and 3 <= len(found["images"]) <= 5  # one is not filled, by chance more
    assert found["_made"] == 12 and found["_flagged"] >= 7
    monkeypatch.setattr(ExtraArms, "_images", lambda self, masks, first_seed, start=None: [real[0].image] * len(masks))
    with pytest.raises(TooFewError, match="all 12 images of this generator come too near"):
        made.extras.make("unlike", 6, first_mask=0, first_seed=0)


def test_few_patients_are_no_strangers_to_each_other(tmp_path: Path):
    with pytest.raises(TooFewError, match="4 patients are too few to say how near strangers come"):
        cell(tmp_path, settings=EXTRA).extras.make("unlike", 2, first_mask=0, first_seed=0)


def test_arms_that_there_are_not_are_refused(tmp_path: Path):
    with pytest.raises(BadInputError, match="no arm 'hard'; arms beside the usual ones are few, weak, hardest"):
        cell(tmp_path, settings=replace(QUICK, extras=("hard",)))
    phases = Case("phases", CASE.class_names, CASE.train, CASE.test, "classification")
    monochrome = tuple(replace(e, label_map=np.full_like(e.label_map, i % 3)) for i, e in enumerate(CASE.train))
    with pytest.raises(BadInputError, match="the arm gated is about masks, and phases has classes"):
        Cell(replace(phases, train=monochrome), 8, 0, replace(QUICK, extras=("mined", "gated")), MODELS, Stages(tmp_path))
