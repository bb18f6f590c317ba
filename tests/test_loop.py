"""The main job without a page: import, generate, score, vote, pair, align, accept; every recipe through the real worker."""

from __future__ import annotations

import pytest

from saadi import orders, pairing
from saadi.config import Home
from saadi.engines import weights
from saadi.errors import BadInputError, TooFewError
from saadi.jobs import run_worker
from saadi.orders import AlignOrder, FitOrder, GenerateOrder, ScoreOrder, TrainScorerOrder, order, place
from saadi.records import Job, LabelClass, Pair, Project
from saadi.store import Store
from saadi.worker import HANDLERS
from tests import tiny

CLASSES = [LabelClass(0, "tissue", "#000000"), LabelClass(1, "organ", "#009e73"), LabelClass(2, "bar", "#0072b2")]


@pytest.fixture
def filled(store: Store) -> Project:
    """A project of 24 invented scenes with a tiny random generator."""
    project = store.create_project("loop", task="segmentation", classes=CLASSES, resolution=16, actor="test")
    for seed in range(24):
        image, label_map = tiny.scene(seed, side=32)  # larger than the project works at
        split = "train" if seed < 12 else "val" if seed < 20 else "test"
        blob, label_map_blob = store.blobs.put_image(image), store.blobs.put_label_map(label_map)
        store.add_image(
            project.id, blob=blob, size=(32, 32), group_id=f"p{seed % 6}", split=split, source_name=str(seed),
            label_map_blob=label_map_blob, actor="test")  # fmt: skip
    made = tiny.engine()
    file = store.files.put(weights.to_bytes(made.denoiser.state_dict()))
    store.add_model(project.id, kind="engine", architecture=made.architecture, file=file, metrics={}, actor="test")
    return project


def run(store: Store, home: Home, kind: type[orders.Order], **values) -> Job:
    job, _ = place(store, order(kind, **values), actor="test")
    assert run_worker(home, HANDLERS, exit_when_idle=True)
    return store.job(job.id)


def test_the_whole_loop(store: Store, home: Home, filled: Project):
    trained = run(store, home, TrainScorerOrder, project_id=filled.id, steps=3, batch_size=4)
    assert trained.state == "done", store.job_traceback(trained.id)
    assert store.active_model(filled.id, "judge").metrics["val"]["num_images"] == 8

    made = run(store, home, GenerateOrder, project_id=filled.id, count=10, candidates=3, seed=5)
    assert made.state == "done", store.job_traceback(made.id)
    samples = store.samples(filled.id)
    assert len(made.result["sample_ids"]) == len(samples) == 30
    scores = store.scores(filled.id)
    assert {score.kind for score in scores} == {"selector", "judge"} and len(scores) == 60

    repeated = run(store, home, GenerateOrder, project_id=filled.id, count=10, candidates=3, seed=5)
    assert repeated.result == made.result and len(store.samples(filled.id)) == 30

    asked = pairing.next_vote_pairs(store, filled.id, voter="ann", count=1, exclude=set())[0]
    left, right = asked.left_id, asked.right_id
    store.add_vote(filled.id, left_id=left, right_id=right, answer="left", voter="ann", request_id="v1")
    later = pairing.next_vote_pairs(store, filled.id, voter="ann", count=50, exclude=set())
    assert later and {left, right} not in [{item.left_id, item.right_id} for item in later]
    pair_set = pairing.build_pairs(store, filled.id, actor="test")
    assert pair_set.summary["num_votes"] == 1 and pair_set.summary["by_source"]["real"] == 10
    assert pairing.build_pairs(store, filled.id, actor="test").id == pair_set.id


def test_alignment_publishes_a_candidate_or_says_why_not(store: Store, home: Home, filled: Project):
    run(store, home, TrainScorerOrder, project_id=filled.id, steps=6, batch_size=8)
    run(store, home, GenerateOrder, project_id=filled.id, count=12, candidates=2)
    pair_set = pairing.build_pairs(store, filled.id, actor="test")
    if len(pair_set.pairs) < orders.MIN_PAIRS_TO_ALIGN:
        run(store, home, GenerateOrder, project_id=filled.id, count=12, candidates=4, seed=77)
        pair_set = pairing.build_pairs(store, filled.id, actor="test")
    wanted = {"project_id": filled.id, "pair_set_id": pair_set.id, "steps": 4, "batch_size": 4, "gate_masks": 8, "gate_every": 2,
              "learning_rate": 3e-3}  # fmt: skip
    job = run(store, home, AlignOrder, **wanted)
    assert job.state in ("done", "failed"), job
    curves = store.job_metrics(job.id)
    assert [step for step, _ in curves["loss"]] == [1, 2, 3, 4] and len(curves["win_rate"]) == 2
    if job.state == "failed":
        assert "no checkpoint was better than the old model" in job.error and store.adapters(filled.id) == []
        return
    adapter = store.adapter(job.result["adapter_id"])
    assert adapter.state == "candidate" and len(adapter.metrics["strip_before"]) == len(adapter.metrics["strip_after"]) == 6
    store.accept_adapter(adapter.id, project_id=filled.id, actor="lead")
    again = run(store, home, GenerateOrder, project_id=filled.id, count=1, candidates=1)
    assert store.sample(again.result["sample_ids"][0]).adapter_id == adapter.id


def test_a_second_click_on_align_is_the_same_job(store: Store, home: Home, filled: Project):
    run(store, home, TrainScorerOrder, project_id=filled.id, steps=2, batch_size=4)
    made = store.images(filled.id)
    pairs = [Pair(made[0].blob, made[1].blob, made[2].blob, "score", 0.5, 0.1 + index) for index in range(16)]
    pair_set = store.freeze_pairs(filled.id, pairs, {}, actor="test")
    wanted = order(AlignOrder, project_id=filled.id, pair_set_id=pair_set.id)
    first, is_new = place(store, wanted, actor="ann")
    second, is_new_again = place(store, wanted, actor="bob")
    assert is_new and not is_new_again and first.id == second.id


def test_fitting_makes_a_new_version_with_a_parent(store: Store, home: Home, filled: Project):
    old = store.active_model(filled.id, "engine")
    job = run(store, home, FitOrder, project_id=filled.id, steps=3, batch_size=4)
    assert job.state == "done", store.job_traceback(job.id)
    fitted = store.active_model(filled.id, "engine")
    assert fitted.id == job.result["model_id"] and fitted.parent_id == old.id and fitted.metrics["num_images"] == 12
    assert fitted.architecture == old.architecture and fitted.metrics["steps"] == 3


def test_too_few_says_how_many_are_missing(store: Store, project: Project):
    with pytest.raises(TooFewError, match="0 training images with a label map, 8 needed to fit; import or draw 8 more"):
        place(store, order(FitOrder, project_id=project.id), actor="test")
    with pytest.raises(TooFewError, match="no generator yet; run `fit` first"):
        place(store, order(GenerateOrder, project_id=project.id), actor="test")
    with pytest.raises(TooFewError, match="no selector yet"):
        place(store, order(ScoreOrder, project_id=project.id), actor="test")
    frozen = store.freeze_pairs(project.id, [], {}, actor="test")
    with pytest.raises(TooFewError, match="0 usable pairs, 16 needed to align"):
        place(store, order(AlignOrder, project_id=project.id, pair_set_id=frozen.id), actor="test")
    with pytest.raises(BadInputError, match="seed"):
        order(GenerateOrder, project_id=project.id, seed=2**65)
    assert store.jobs() == []


def test_label_maps_of_test_patients_and_old_generators_never_make_pairs(store: Store, home: Home, filled: Project):
    run(store, home, TrainScorerOrder, project_id=filled.id, steps=2, batch_size=4)
    held = [record.id for record in store.label_maps(filled.id, splits=["test"])]
    run(store, home, GenerateOrder, project_id=filled.id, label_map_ids=held, candidates=3)
    assert len(store.scores(filled.id)) > 0
    with pytest.raises(TooFewError, match="no scored candidates yet"):
        pairing.build_pairs(store, filled.id, actor="test")
    run(store, home, GenerateOrder, project_id=filled.id, count=4, candidates=2)
    assert pairing.build_pairs(store, filled.id, actor="test").summary["num_label_maps"] == 4
    run(store, home, FitOrder, project_id=filled.id, steps=1, batch_size=2)
    with pytest.raises(TooFewError, match="no scored candidates yet"):
        pairing.build_pairs(store, filled.id, actor="test")


def test_an_ended_job_leaves_no_checkpoints(store: Store, home: Home, filled: Project):
    job = run(store, home, FitOrder, project_id=filled.id, steps=2, batch_size=4)
    assert job.state == "done" and not home.job_dir(job.id).exists()
