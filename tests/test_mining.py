"""Hard and right: gate by one model, rank by another; masks by what is missed; the search as a job."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from saadi import curation, orders
from saadi.config import Home
from saadi.datasets import phantom
from saadi.downstream import models, scoring
from saadi.downstream.metrics import agreement, mean_over_asked
from saadi.engines import shipped, weights
from saadi.errors import TooFewError
from saadi.jobs import YieldedError, run_worker, silent
from saadi.mask_generator.model import Suggestion
from saadi.masks import fit_to
from saadi.mining import job, seen
from saadi.mining.choosing import FAITHFUL_AT, FAITHFUL_FLOOR, KAPPA, QUADRANTS, Limits, hardest, quadrants
from saadi.mining.seen import Seen
from saadi.mining.turns import Turns
from saadi.mining.weakness import Part, in_lots
from saadi.orders import FitMasksOrder, GenerateOrder, MineOrder, TrainScorerOrder, order, place
from saadi.orders.generating import TRIED_PER_WANTED, known_weakness, need_unseen_images
from saadi.poses import displaced
from saadi.records import Job, LabelClass, Project
from saadi.store import Store
from saadi.worker import HANDLERS
from tests import builders, tiny

LIMITS = Limits(faithful=0.7, hard=0.2)
CLASSES = [LabelClass(0, "tissue", "#000000"), LabelClass(1, "organ", "#009e73"), LabelClass(2, "bar", "#0072b2")]
NUM_WRONG = 50


# ---- rules


def test_quadrants_by_hand():
    fidelity, loss, plausible = [0.9, 0.9, 0.5, 0.5, 0.9, 0.7], [0.3, 0.1, 0.3, 0.1, 0.3, 0.2], [1, 1, 1, 1, 0, 1]
    found = [QUADRANTS[place] for place in quadrants(fidelity, loss, plausible, LIMITS)]
    assert found == ["prize", "filler", "quarantine", "doubtful", "quarantine", "prize"]  # unlike real ones, however faithful


def test_the_hardest_of_the_right_ones_is_taken_and_beyond_kappa_the_most_faithful():
    assert hardest([0.9, 0.8, 0.6], [0.25, 0.3, 0.9], [True] * 3, LIMITS) == 1
    assert hardest([0.75, 0.95, 0.8], [0.9, KAPPA, 0.45], [True] * 3, LIMITS) == 1
    assert hardest([0.9, 0.9], [0.1, 0.4], [True, False], LIMITS) is None
    assert hardest([], [], [], LIMITS) is None


def test_limits_come_from_real_images_and_need_enough_of_them():
    by_judge, by_target = np.linspace(0.5, 1.0, 11), np.linspace(0.8, 1.0, 11)
    found = Limits.of(by_judge, by_target)
    assert found is not None and found.hard == pytest.approx(0.1)
    assert found.faithful == pytest.approx(0.5 + 0.5 * FAITHFUL_AT)
    worse = Limits.of(by_judge, np.zeros(11))
    assert Limits.of(np.zeros(11), by_target).faithful == FAITHFUL_FLOOR  # a judge that finds nothing makes nothing right
    assert worse is not None and worse.hard == KAPPA  # a model that finds nothing does not make everything easy
    assert Limits.of(by_judge[:7], by_target) is None and Limits.of(by_judge, by_target[:7]) is None


def test_of_fifty_planted_wrong_labels_none_is_a_prize():
    entry = shipped.manifest()["judge"]
    judge = models.from_file(entry["architecture"], shipped.file("judge"))
    scenes = [phantom.render(900_000 + number, patient=500 + number // 4, size_px=256) for number in range(NUM_WRONG)]
    predictions = judge.predict([scene.image for scene in scenes])
    draw = np.random.default_rng(0)
    wrong = [displaced(scene.label_map, draw) for scene in scenes]

    def fidelity(label_maps: list[np.ndarray]) -> list[float]:
        pairs = [(one.label_map, fit_to(asked, size=one.label_map.shape))
                 for one, asked in zip(predictions, label_maps, strict=True)]  # fmt: skip
        return [mean_over_asked(agreement(*pair, num_classes=entry["architecture"]["num_classes"]), pair[1]) for pair in pairs]

    right = fidelity([scene.label_map for scene in scenes])
    limits = Limits.of(right, right)
    assert limits is not None
    nothing_else = Limits(limits.faithful, 0.0)  # everything is hard and looks real: the judge alone decides
    assert (quadrants(fidelity(wrong), np.ones(NUM_WRONG), np.ones(NUM_WRONG), nothing_else) == 0).sum() == 0
    assert (quadrants(right, np.ones(NUM_WRONG), np.ones(NUM_WRONG), nothing_else) == 0).mean() >= 0.85


# ---- over a store


@pytest.fixture
def filled(store: Store) -> Project:
    """24 invented scenes, twelve to learn from, with a tiny random generator and no scorers yet."""
    project = store.create_project("mined", task="segmentation", classes=CLASSES, resolution=16, actor="test")
    for seed in range(24):
        image, label_map = tiny.scene(seed, side=32)
        store.add_image(project.id, blob=store.blobs.put_image(image), size=(32, 32), group_id=f"p{seed % 6}{seed // 12}",
                        split="train" if seed < 12 else "val", source_name=str(seed),
                        label_map_blob=store.blobs.put_label_map(label_map), actor="test")  # fmt: skip
    made = tiny.engine()
    file = store.files.put(weights.to_bytes(made.denoiser.state_dict()))
    store.add_model(project.id, kind="engine", architecture=made.architecture, file=file, metrics={}, actor="test")
    return project


def run(store: Store, home: Home, kind: type[orders.Order], **values) -> Job:
    placed, _ = place(store, order(kind, **values), actor="test")
    assert run_worker(home, HANDLERS, exit_when_idle=True)
    done = store.job(placed.id)
    assert done.state == "done", store.job_traceback(placed.id)
    return done


@pytest.fixture
def trained(store: Store, home: Home, filled: Project) -> Project:
    run(store, home, TrainScorerOrder, project_id=filled.id, steps=3, batch_size=4)
    return filled


def add_selector(store: Store, project: Project, **architecture) -> seen.Model:
    return store.add_model(project.id, kind="selector", architecture=architecture, file=store.files.put(b"weights"), metrics={},
                           actor="test")  # fmt: skip


def tell(store: Store, project: Project, model: seen.Model, recall: dict[int, float]) -> None:
    """As if the model had found so much of each class in every real image."""
    for one in seen.labelled(store, project):
        asked = seen.asked_by(store.blobs.label_map(one.label_map_blob), project)
        parts = tuple(part._replace(recall=recall[part.class_index]) for part in asked)
        store.put_descriptors(seen.space(model), {one.key: seen.pack(Seen(0.5, parts))})


def test_what_was_seen_is_read_as_it_was_kept():
    kept = Seen(0.75, (Part(2, 0.25, 12.5, 7, 0.5, "p1"), Part(1, 0.5, float("nan"), 0, 1.0, "p1")))
    found = seen.unpack(seen.pack(kept), "p1")
    assert found.fidelity == 0.75 and found.parts[0] == kept.parts[0] and np.isnan(found.parts[1].contrast)
    assert found.parts[1]._replace(contrast=0.0) == kept.parts[1]._replace(contrast=0.0)


def test_only_patients_that_a_model_has_not_learnt_from_count(store: Store, filled: Project):
    one, folds = add_selector(store, filled), add_selector(store, filled, folds=2)
    images = seen.labelled(store, filled)
    assert {image.image.split for image in seen.unseen_by(one, images)} == {"val"}
    assert len(seen.unseen_by(folds, images)) == len(images) == 24


def test_masks_are_drawn_by_what_is_missed(store: Store, filled: Project):
    model = add_selector(store, filled, folds=2)
    tell(store, filled, model, {1: 1.0, 2: 0.0})
    wanted = GenerateOrder(project_id=filled.id, count=200, focus="weak")
    drawn = wanted.drawn(store)
    assert len(drawn) == 200 and wanted.frozen(store).label_map_ids is None  # the selector may have to look first
    has_bar = {record.id: bool((store.blobs.label_map(record.blob) == 2).any())
               for record in store.label_maps(filled.id, splits=["train"])}  # fmt: skip
    share = np.mean([has_bar[number] for number in drawn])
    assert 0.3 < np.mean(list(has_bar.values())) < 0.7 and share > 0.9
    assert wanted.drawn(store) == drawn  # a seed for everything


def test_refusals_say_what_is_missing(store: Store, filled: Project):
    with pytest.raises(TooFewError, match="no selector yet"):
        order(GenerateOrder, project_id=filled.id, focus="weak").check(store)
    add_selector(store, filled, folds=2)
    with pytest.raises(TooFewError, match="has not looked yet"):
        known_weakness(store, filled.id)
    with pytest.raises(TooFewError, match="no judge yet"):
        order(MineOrder, project_id=filled.id).check(store)
    store.add_model(filled.id, kind="judge", architecture={}, file=store.files.put(b"weights"), metrics={}, actor="test")
    order(MineOrder, project_id=filled.id).check(store)
    with pytest.raises(TooFewError, match="no mask generator"):
        order(MineOrder, project_id=filled.id, suggests=True).check(store)
    lonely = store.create_project("lonely", task="segmentation", classes=CLASSES, resolution=16, actor="test")
    add_selector(store, lonely)
    with pytest.raises(TooFewError, match=r"0 labelled images in train or val of patients .*, 8 needed"):
        need_unseen_images(store, lonely.id, 8)


def test_real_images_are_looked_at_once_and_their_parts_kept(store: Store, trained: Project):
    scorers = scoring.load_scorers(store, trained)
    by_kind = {model.kind: model for model, _ in scorers}
    for model, scorer in scorers:
        assert scoring.see_real_images(store, trained, model, scorer, silent) in (0, 12, 24)
        assert scoring.see_real_images(store, trained, model, scorer, silent) == 0
    images = seen.labelled(store, trained)
    assert len(seen.read(store, by_kind["selector"], images)) == 24 and len(seen.read(store, by_kind["judge"], images)) == 12
    found = seen.weakness(store, trained)
    assert found is not None and set(found.classes) == {1, 2} and found.classes[1].num_patients == 12
    assert seen.limits(store, trained) is not None


@pytest.fixture
def generous(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Limits that images of a random generator in the eyes of barely trained scorers reach now and then."""
    monkeypatch.setattr(job.seen, "limits", lambda store, project: Limits(0.1, 0.1))
    monkeypatch.setattr(job.quality_gate, "refused", lambda store, project, pairs: [False] * len(pairs))
    yield


def test_the_search_ends_with_one_hard_image_a_mask_and_finds_the_same_again(
    store: Store, home: Home, trained: Project, generous: None
):
    found = run(store, home, MineOrder, project_id=trained.id, count=6, candidates=3, turns=3, seed=7)
    mined, made = found.result["mined_ids"], found.result["sample_ids"]
    samples = {sample.id: sample for sample in store.samples(trained.id)}
    assert set(mined) <= set(made) <= set(samples) and 18 <= len(made) <= 54 and sum(found.result["made"].values()) == len(made)
    asked = [(samples[number].label_map_id, samples[number].seed) for number in mined]
    assert len(mined) == len(set(asked)) <= 6 and mined
    scores = {(row.sample_id, row.kind): row.dice for row in store.score_rows(trained.id)}
    assert all(scores[number, "judge"] >= 0.1 and 1 - scores[number, "selector"] >= 0.1 for number in mined)
    again = run(store, home, MineOrder, project_id=trained.id, count=6, candidates=3, turns=3, seed=7)
    assert again.result == found.result and len(store.samples(trained.id)) == len(samples)


def course(finds: dict[int, list[bool]], **settings: int) -> list[list[int]]:
    """Label maps of each turn, when each has these finds, turn by turn."""
    turns, taken = Turns(**settings), []
    while places := turns.next():
        looks = [sum(place in before for before in taken) for place in places]
        turns.tell(places, [any(finds.get(place, [])[: look + 1]) for place, look in zip(places, looks, strict=True)])
        taken.append(places)
    return taken


def test_a_mask_without_a_find_makes_room_and_one_with_a_find_gets_one_more_turn():
    assert course({0: [True], 3: [True]}, wanted=2, num_maps=4, turns=4) == [[0, 1], [0, 2], [3], [3]]
    assert course({}, wanted=1, num_maps=2, turns=4) == [[0], [1], [0], [1]]  # behind those that nobody has looked at
    assert course({}, wanted=2, num_maps=2, turns=2) == [[0, 1], [0, 1]]  # given up
    assert course({0: [False, True]}, wanted=2, num_maps=2, turns=3) == [[0, 1], [0, 1], [0, 1]]
    assert course({}, wanted=1, num_maps=0, turns=3) == []


def test_no_more_turns_are_taken_than_the_order_has_and_none_of_a_mask():
    everything = {place: [True] for place in range(9)}
    assert course(everything, wanted=3, num_maps=9, turns=1) == [[0, 1, 2]]
    draw = np.random.default_rng(3)
    for _ in range(50):
        wanted, num_maps, turns = (int(value) for value in draw.integers(1, 7, size=3))
        finds = {place: (draw.random(turns) < 0.3).tolist() for place in range(num_maps)}
        taken = [place for places in course(finds, wanted=wanted, num_maps=num_maps, turns=turns) for place in places]
        assert len(taken) <= wanted * turns and max(map(taken.count, taken)) <= turns


def test_lots_follow_the_odds_and_draw_none_twice():
    first = [in_lots([0.7, 0.2, 0.1, 0.0], 3, seed=seed) for seed in range(500)]
    assert all(len(set(places)) == 3 for places in first) and all(3 not in places for places in first)
    assert np.mean([places[0] == 0 for places in first]) == pytest.approx(0.7, abs=0.07)
    assert in_lots([0.5, 0.5], 9, seed=1) in ([0, 1], [1, 0]) and in_lots([], 3, seed=0) == []


def test_a_mask_with_a_find_is_not_searched_again_and_one_without_is_given_up(
    store: Store, home: Home, trained: Project, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(job.seen, "limits", lambda store, project: Limits(1.1, 0.1))  # nothing is faithful
    found = run(store, home, MineOrder, project_id=trained.id, count=4, candidates=2, turns=2)
    assert found.result["mined_ids"] == [] and len(found.result["sample_ids"]) == 16
    tried = found.result["num_masks"]
    assert 4 < tried <= 8 and tried == len({sample.label_map_id for sample in store.samples(trained.id)})
    assert found.message == f"0 hard images of 4 searched for, {tried} masks tried; 0 of 16 images made are hard and right"
    monkeypatch.setattr(job.seen, "limits", lambda store, project: Limits(0.0, 0.0))
    monkeypatch.setattr(job.quality_gate, "refused", lambda store, project, pairs: [False] * len(pairs))
    found = run(store, home, MineOrder, project_id=trained.id, count=4, candidates=2, turns=2, seed=50)
    assert len(found.result["mined_ids"]) == 4 and len(found.result["sample_ids"]) == 16  # once more where something was found


def test_where_masks_are_suggested_those_are_searched(
    store: Store, home: Home, trained: Project, generous: None, monkeypatch: pytest.MonkeyPatch
):
    run(store, home, FitMasksOrder, project_id=trained.id, steps=2)

    def drawn(store, project, model, *, count, seed, report):
        """As a mask generator that has learnt enough would give them."""
        assert count == 2 * job.SUGGESTED_PER_WANTED and TRIED_PER_WANTED < job.SUGGESTED_PER_WANTED
        return [Suggestion(tiny.scene(100 + number)[1], seed + number, 0, 0.5, 1) for number in range(count)]

    monkeypatch.setattr(job, "new_label_maps", drawn)
    found = run(store, home, MineOrder, project_id=trained.id, count=2, candidates=2, turns=1, suggests=True)
    new = {record.id for record in store.label_maps(trained.id) if record.origin == "sampled"}
    # Only those whose turn came are kept; the rest is known by its seed, the same after a pause.
    assert len(new) == found.result["num_masks"] == 2 and len(found.params["spares"]) == 2 * TRIED_PER_WANTED
    only_real = run(store, home, MineOrder, project_id=trained.id, count=2, candidates=2, turns=1, suggests=False)
    assert {record.id for record in store.label_maps(trained.id) if record.origin == "sampled"} == new
    assert only_real.result["num_masks"] == 2 and not new & set(only_real.params["label_map_ids"])


@pytest.mark.parametrize("suggests", [True, False])
def test_a_search_that_made_room_goes_on_with_what_it_had(
    store: Store, home: Home, trained: Project, generous: None, monkeypatch: pytest.MonkeyPatch, suggests: bool
):
    """Who makes room gives the attempt back, so the order is frozen once more."""
    if suggests:
        run(store, home, FitMasksOrder, project_id=trained.id, steps=2)
        monkeypatch.setattr(job, "new_label_maps", lambda store, project, model, *, count, seed, report: [
            Suggestion(tiny.scene(100 + number)[1], seed + number, 0, 0.5, 1) for number in range(count)])  # fmt: skip
    interrupted: list[int] = []
    looked = scoring.score_samples

    def once(*args, **more):
        if not interrupted:
            interrupted.append(len(store.samples(trained.id)))
            raise YieldedError("for a drawing")
        return looked(*args, **more)

    monkeypatch.setattr(job.scoring, "score_samples", once)
    asked = {"project_id": trained.id, "count": 3, "candidates": 2, "turns": 2, "seed": 3, "suggests": suggests or None}
    found = run(store, home, MineOrder, **asked)
    assert interrupted and found.params["count"] == 3 and bool(found.params["spares"]) is suggests
    made = len(store.samples(trained.id))
    assert made == len(found.result["sample_ids"]) <= 3 * 2 * 2  # none twice
    if not suggests:  # with new masks each search has its own
        assert run(store, home, MineOrder, **asked).result == found.result and len(store.samples(trained.id)) == made


def test_a_pool_by_weakness_looks_first_and_keeps_what_it_drew(store: Store, home: Home, trained: Project):
    assert seen.weakness(store, trained) is None
    made = run(store, home, GenerateOrder, project_id=trained.id, count=4, candidates=1, focus="weak")
    assert seen.weakness(store, trained) is not None and len(made.params["label_map_ids"]) == 4
    samples = [sample.label_map_id for sample in store.samples(trained.id)]
    assert sorted(samples) == sorted(made.params["label_map_ids"])
    order(GenerateOrder, **made.params).check(store)  # a worker that was asked to end in between goes on


def test_curate_tells_the_quadrant_of_each_image(store: Store, home: Home, trained: Project, monkeypatch: pytest.MonkeyPatch):
    run(store, home, GenerateOrder, project_id=trained.id, count=3, candidates=2)
    columns = curation.sample_columns(store, trained, person="ann")
    assert set(columns["quadrant"]) <= {0, 1, 2, 3} and len(columns["quadrant"]) == 6
    monkeypatch.setattr(curation.seen, "limits", lambda store, project: Limits(0.0, 0.0))
    expected = {number: "quarantine" if gate else "prize" for number, gate in zip(columns["id"], columns["gate"], strict=True)}
    assert curation.quadrants_of(store, trained) == expected
    monkeypatch.setattr(curation.seen, "limits", lambda store, project: None)
    assert curation.quadrants_of(store, trained) == {}
    unscored = builders.add_samples(store, trained, count=1)
    assert unscored[0].id not in curation.quadrants_of(store, trained)
