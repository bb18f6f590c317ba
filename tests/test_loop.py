"""The main job without a page: import, generate, score, vote, pair, align, accept; every recipe through the real worker."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from saadi import devices, generation, orders, pairing
from saadi.alignment import job as alignment_job
from saadi.alignment import material, resume
from saadi.alignment.crew import ALONE
from saadi.config import Home
from saadi.downstream.folds import CrossFitted
from saadi.engines import few_shot, lora, weights
from saadi.errors import BadInputError, TooFewError
from saadi.jobs import JobContext, Outcome, run_worker
from saadi.orders import AlignOrder, FitOrder, GenerateOrder, PredictOrder, ScoreOrder, TrainScorerOrder, order, place
from saadi.records import Job, LabelClass, Pair, Project, Sample
from saadi.store import Store
from saadi.worker import HANDLERS
from tests import builders, tiny

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
    made = run(store, home, GenerateOrder, project_id=filled.id, count=12, candidates=2).result["sample_ids"]
    for sample_id, value in zip(made[:3], ("up", "down", "down"), strict=True):
        store.add_thumb(filled.id, sample_id=sample_id, value=value, voter="ann", request_id=f"thumb-{sample_id}")
    pair_set = pairing.build_pairs(store, filled.id, actor="test")
    if len(pair_set.pairs) < orders.MIN_PAIRS_TO_ALIGN:
        run(store, home, GenerateOrder, project_id=filled.id, count=12, candidates=4, seed=77)
        pair_set = pairing.build_pairs(store, filled.id, actor="test")
    assert [(single.is_liked, single.source) for single in pair_set.singles] == [
        (True, "people"), (False, "people"), (False, "people"), (True, "real")]  # fmt: skip
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
    assert adapter.metrics["num_singles"] == 4
    assert adapter.state == "candidate" and len(adapter.metrics["strip_before"]) == len(adapter.metrics["strip_after"]) == 6
    store.accept_adapter(adapter.id, project_id=filled.id, actor="lead")
    again = run(store, home, GenerateOrder, project_id=filled.id, count=1, candidates=1)
    assert store.sample(again.result["sample_ids"][0]).adapter_id == adapter.id


def short_alignment(store: Store, home: Home, filled: Project, *, steps: int) -> dict[str, object]:
    """An order on real images as winners, and as losers under the next mask; scorers that have hardly learnt anything."""
    run(store, home, TrainScorerOrder, project_id=filled.id, steps=2, batch_size=4)
    images, maps = store.images(filled.id, splits=["train"]), store.label_maps(filled.id, splits=["train"])
    pairs = [Pair(maps[index].blob, images[index].blob, images[index - 1].blob, source, 1.0, 0.5)
             for index in range(len(maps)) for source in ("score", "real")]  # fmt: skip
    pair_set = store.freeze_pairs(filled.id, pairs, {}, actor="test")
    return {"project_id": filled.id, "pair_set_id": pair_set.id, "steps": steps, "batch_size": 4, "gate_masks": 4,
            "gate_every": steps, "learning_rate": 3e-3, "scale_search": "never"}  # fmt: skip


def test_more_gpus_than_there_are_end_an_alignment_with_a_sentence(store: Store, home: Home, filled: Project):
    image, label_map = store.images(filled.id)[0].blob, store.label_maps(filled.id)[0].blob
    pair_set = store.freeze_pairs(filled.id, [Pair(label_map, image, image, "score", 1.0, 0.5)] * 16, {}, actor="test")
    for kind in ("selector", "judge"):
        store.add_model(filled.id, kind=kind, architecture={}, file=store.files.put(b"weights"), metrics={}, actor="test")
    job = run(store, home, AlignOrder, project_id=filled.id, pair_set_id=pair_set.id, gpus=64)
    assert job.state == "failed" and "64 GPUs were asked for, this machine has " in job.error


@pytest.mark.slow
def test_an_alignment_on_two_devices_learns_what_one_on_one_device_does(
    store: Store, home: Home, filled: Project, monkeypatch: pytest.MonkeyPatch
):
    wanted = short_alignment(store, home, filled, steps=2)
    monkeypatch.setattr(devices, "accelerators", lambda count: ["cpu"] * count)
    alone, shared = run(store, home, AlignOrder, **wanted), run(store, home, AlignOrder, **wanted, gpus=2)
    assert alone.state == shared.state and (shared.state == "done" or "no checkpoint was better" in shared.error)
    losses = [[value for _, value in store.job_metrics(job.id)["loss"]] for job in (alone, shared)]
    assert len(losses[1]) == 2 and losses[1] == pytest.approx(losses[0], rel=0.02)
    assert not list(home.path.rglob("crew-*"))


def test_a_negative_adapter_leads_guidance_away_and_is_named_with_each_image(store: Store, home: Home, filled: Project):
    engine = store.active_model(filled.id, "engine")
    policy = lora.attach(tiny.engine().denoiser, rank=2)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    file = store.files.put(weights.to_bytes(lora.state(policy)))
    made = [store.add_adapter(filled.id, model_id=engine.id, parent_id=None, file=file, scale=1.0, config=config, metrics={},
                              actor="ann") for config in ({}, {"negative": 2.0})]  # fmt: skip
    with pytest.raises(BadInputError, match=f"works in guidance only: `generate --negative-adapter {made[1].id}`"):
        store.accept_adapter(made[1].id, project_id=filled.id, actor="ann")

    def images(**settings) -> list[Sample]:
        job = run(store, home, GenerateOrder, project_id=filled.id, count=1, candidates=2, settings=settings)
        assert job.state == "done", job.error
        return [store.sample(sample_id) for sample_id in job.result["sample_ids"]]

    wanted = {"adapter_id": made[1].id, "weight": 0.5}
    plain, led = images(guidance_scale=3.0), images(guidance_scale=3.0, negative=wanted)
    assert "negative" not in plain[0].settings and led[0].settings["negative"] == wanted
    assert {sample.blob for sample in plain}.isdisjoint(sample.blob for sample in led)
    assert images(guidance_scale=3.0, negative=wanted) == led
    none = images(guidance_scale=3.0, negative={"adapter_id": made[1].id, "weight": 0})
    assert [sample.blob for sample in none] == [sample.blob for sample in plain]
    for settings, sentence in (
        ({"negative": wanted}, "guidance is off; choose a guidance scale above 1"),
        ({"guidance_scale": 3.0, "negative": {"adapter_id": made[0].id}}, "is no negative one of the present generator"),
    ):
        with pytest.raises(BadInputError, match=sentence):
            place(store, order(GenerateOrder, project_id=filled.id, settings=settings), actor="ann")
    with pytest.raises(BadInputError, match="is a negative one, which makes what is not wanted"):
        place(store, order(GenerateOrder, project_id=filled.id, adapter=made[1].id), actor="ann")


def test_a_negative_adapter_is_learnt_from_the_pairs_the_other_way_round(store: Store, home: Home, filled: Project):
    wanted = short_alignment(store, home, filled, steps=2)
    job = run(store, home, AlignOrder, **wanted, negative=2.0)
    assert job.state == "done" or "no checkpoint was better" in job.error, store.job_traceback(job.id)
    helper = alignment_job.trainer_of(store, job.params, ALONE)  # what a further process would compute
    assert helper.train_step()["loss"] == store.job_metrics(job.id)["loss"][0][1]
    learning = material.learning(store, job.params, tiny.engine())
    plain = material.learning(store, job.params | {"negative": None, "sft_weight": None}, tiny.engine())
    for pair, other in zip(learning.pairs, plain.pairs, strict=True):
        assert not pair.is_real and (pair.chosen == other.rejected).all() and (pair.rejected == other.chosen).all()
    assert learning.config.sft_weight == 0 and plain.config.sft_weight > 0 and learning.anchors == []
    if job.state == "done":
        assert store.adapter(job.result["adapter_id"]).config["negative"] == 2.0


def test_a_stopped_alignment_goes_on_from_where_it_was(store: Store, home: Home, filled: Project):
    """Stopped by a person after three of six steps, continued: the same losses as in one go, from the same frozen order."""
    wanted = short_alignment(store, home, filled, steps=6)
    whole = run(store, home, AlignOrder, **wanted)
    losses = store.job_metrics(whole.id)["loss"]
    assert resume.checkpoint_step(store, whole) is None  # it came to its end
    stopped, _ = store.add_job("align", store.job(whole.id).params, project_id=filled.id, actor="ann", request_id="stopped")

    def stop_at_three(context: JobContext) -> Outcome:
        if context.job.id == stopped.id and context.job.attempt == 1:
            report = context.report

            def watched(step, total, message, **more):
                if step == 3:
                    store.cancel_job(stopped.id, actor="ann")
                report(step, total, message, **more)

            context.report = watched
        return HANDLERS["align"](context)

    run_worker(home, HANDLERS | {"align": stop_at_three}, exit_when_idle=True)
    stopped = store.job(stopped.id)
    assert stopped.state == "cancelled" and resume.checkpoint_step(store, stopped) == 3
    assert place(store, resume.continued(store, stopped), actor="ann")[0].id == whole.id  # nothing is learned twice
    wanted = resume.continued(store, stopped).model_dump(mode="json")
    again, _ = store.add_job("align", wanted, project_id=filled.id, actor="ann", request_id="again")
    run_worker(home, HANDLERS, exit_when_idle=True)
    assert [part.id for part in resume.chain(store, store.job(again.id))] == [stopped.id, again.id]
    parts = [store.job_metrics(job_id)["loss"] for job_id in (stopped.id, again.id)]
    assert parts[0] == losses[:3] and parts[1] == losses[3:]
    assert store.job(again.id).state == whole.state and store.job(again.id).error == whole.error
    assert not home.job_dir(stopped.id).exists()  # the checkpoint has moved on
    if whole.state == "done":
        first, second = (store.adapter(store.job(job_id).result["adapter_id"]) for job_id in (whole.id, again.id))
        assert first.file == second.file


def test_what_left_no_checkpoint_or_fits_no_more_is_not_continued(store: Store, home: Home, filled: Project):
    engine = store.active_model(filled.id, "engine")
    job, _ = store.add_job("align", {"model_id": engine.id}, project_id=filled.id, actor="ann", request_id="j")
    store.cancel_job(job.id, actor="ann")
    job = store.job(job.id)
    with pytest.raises(BadInputError, match="left nothing to go on from"):
        resume.continued(store, job)
    home.job_dir(job.id).mkdir(parents=True)
    save_file({"x": torch.zeros(1)}, home.job_dir(job.id) / resume.CHECKPOINT, metadata={"state": json.dumps({"step": 7})})
    assert resume.checkpoint_step(store, job) == 7
    # A continuation that was stopped while it waited has no checkpoint of its own: the one it was to go on from is still there.
    params = {"model_id": engine.id, "continues": job.id}
    waited, _ = store.add_job("align", params, project_id=filled.id, actor="ann", request_id="k")
    store.cancel_job(waited.id, actor="ann")
    assert resume.checkpoint_step(store, store.job(waited.id)) == 7
    builders.add_engine(store, filled)
    with pytest.raises(BadInputError, match="fitted anew since"):
        resume.continued(store, job)


def test_a_second_click_on_align_is_the_same_job(store: Store, home: Home, filled: Project):
    run(store, home, TrainScorerOrder, project_id=filled.id, steps=2, batch_size=4)
    made = store.images(filled.id)
    pairs = [Pair(made[0].blob, made[1].blob, made[2].blob, "score", 0.5, 0.1 + index) for index in range(16)]
    pair_set = store.freeze_pairs(filled.id, pairs, {}, actor="test")
    wanted = order(AlignOrder, project_id=filled.id, pair_set_id=pair_set.id)
    first, is_new = place(store, wanted, actor="ann")
    second, is_new_again = place(store, wanted, actor="bob")
    assert is_new and not is_new_again and first.id == second.id


def test_the_segmenter_looks_at_a_real_image_once(store: Store, home: Home, filled: Project):
    with pytest.raises(TooFewError, match="no segmenter yet"):
        place(store, order(PredictOrder, project_id=filled.id, image_id=1), actor="test")
    run(store, home, TrainScorerOrder, project_id=filled.id, steps=3, batch_size=4)
    image = store.images(filled.id)[0]
    job = run(store, home, PredictOrder, project_id=filled.id, image_id=image.id)
    assert job.state == "done", store.job_traceback(job.id)
    model = store.active_model(filled.id, "selector")
    selector = CrossFitted.from_file(model.architecture, store.files.path(model.file))
    [expected] = selector.predict([store.blobs.image(image.blob)], [image.group_id])
    assert (store.label_map_pixels(job.result["label_map_blob"]) == expected.label_map).all()
    assert job.result["label_map_blob"] in store.referenced_blobs()
    again, is_new = place(store, order(PredictOrder, project_id=filled.id, image_id=image.id), actor="test")
    assert (again.id, is_new) == (job.id, False)


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


def test_an_unreadable_generator_does_not_keep_the_worker_from_other_work(
    store: Store, home: Home, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = store.files.put(b"no weights")
    store.add_model(project.id, kind="engine", architecture=tiny.architecture(), file=file, metrics={}, actor="test")
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(generation.log, "warning", lambda event, **values: told.append((event, values["error"])), raising=False)
    generation.warm_up(home)
    [(event, why)] = told
    assert event == "engine_not_warm" and "is not a safetensors file" in why


# ---- few images


def test_few_images_are_adapted_to_and_become_the_next_generator(store: Store, home: Home, filled: Project):
    before = store.active_model(filled.id, "engine")
    done = run(store, home, FitOrder, project_id=filled.id, few=True, steps=60, batch_size=4, learning_rate=5e-3)
    assert done.state == "done", store.job_traceback(done.id)
    now = store.active_model(filled.id, "engine")
    assert now is not None and before is not None and now.id != before.id and now.parent_id == before.id
    assert now.metrics["held_out_loss"] < now.metrics["base_loss"] and now.metrics["num_held_out"] >= 2
    assert done.message.startswith("adapted to 12 images; error on")


def test_where_the_base_was_better_it_stays(store: Store, home: Home, filled: Project, monkeypatch: pytest.MonkeyPatch):
    before, losses = store.active_model(filled.id, "engine"), iter(range(1, 100))
    monkeypatch.setattr(few_shot.Watch, "held_out_loss", lambda self: float(next(losses)))
    done = run(store, home, FitOrder, project_id=filled.id, few=True, steps=2)
    assert done.state == "done" and done.message.endswith("held out than the base; the generator in use stays")
    assert store.active_model(filled.id, "engine") == before and done.result["best_step"] == 0


@pytest.mark.parametrize(("values", "words"), [
    ({"few": True, "from_scratch": True}, "few images adapt weights that there are"),
])  # fmt: skip
def test_what_few_images_cannot_do_is_refused(store: Store, filled: Project, values: dict, words: str):
    with pytest.raises(BadInputError, match=words):
        order(FitOrder, project_id=filled.id, **values).check(store)


def test_five_images_are_enough_for_few_and_four_are_not(store: Store, project: Project):
    for number in range(5):
        wanted = order(FitOrder, project_id=project.id, few=True)
        with pytest.raises(TooFewError, match="5 needed to adapt a generator"):
            wanted.check(store)
        image, label_map = tiny.scene(number)
        store.add_image(project.id, blob=store.blobs.put_image(image), size=(16, 16), group_id=f"p{number}", split="train",
                        source_name=f"{number}", label_map_blob=store.blobs.put_label_map(label_map), actor="test")  # fmt: skip
    wanted.check(store)


# ---- references


@pytest.fixture
def listening(store: Store, home: Home, filled: Project) -> Project:
    """The project with a generator that has learnt references, a little."""
    done = run(store, home, FitOrder, project_id=filled.id, references=True, steps=20, batch_size=4)
    assert done.state == "done", store.job_traceback(done.id)
    return filled


def test_a_fit_learns_references_and_later_fits_keep_them(store: Store, home: Home, listening: Project):
    model = store.active_model(listening.id, "engine")
    assert model is not None and model.architecture["style_dim"] > 0
    run(store, home, FitOrder, project_id=listening.id, steps=2, batch_size=4)
    after = store.active_model(listening.id, "engine")
    assert after is not None and after.id != model.id and after.architecture["style_dim"] == model.architecture["style_dim"]


def test_images_like_a_reference_name_its_pixels_in_their_recipe(store: Store, home: Home, listening: Project):
    shown = next(image for image in store.images(listening.id, splits=["train"]))
    told = {"references": [{"class_index": 1, "image_id": shown.id}]}
    made = run(store, home, GenerateOrder, project_id=listening.id, count=2, candidates=1, settings=told)
    assert made.state == "done", store.job_traceback(made.id)
    [first, _] = store.samples(listening.id)
    [reference] = first.settings["references"]
    record = store.label_map(shown.label_map_id or 0)
    assert reference == {"class_index": 1, "image_id": shown.id, "blob": shown.blob, "label_map_blob": record.blob}
    again = run(store, home, GenerateOrder, project_id=listening.id, count=2, candidates=1, settings=told)
    assert again.result == made.result and len(store.samples(listening.id)) == 2
    plain = run(store, home, GenerateOrder, project_id=listening.id, count=2, candidates=1)
    assert not set(plain.result["sample_ids"]) & set(made.result["sample_ids"])
    after = {"references": [{"class_index": 1, "sample_id": first.id}]}
    assert run(store, home, GenerateOrder, project_id=listening.id, count=1, candidates=1, settings=after).state == "done"


def test_references_that_cannot_be_are_refused(store: Store, home: Home, listening: Project, project: Project):
    by_split = {split: store.images(listening.id, splits=[split])[0] for split in ("train", "val", "test")}

    def refused(words: str, **reference) -> None:
        with pytest.raises(BadInputError, match=words):
            order(GenerateOrder, project_id=listening.id, settings={"references": [{"class_index": 1, **reference}]}).check(store)

    refused("is in the split val, and what is made after it would know that patient", image_id=by_split["val"].id)
    refused("is in the split test", image_id=by_split["test"].id)
    refused("name one picture")

    def added(name: str, *, to: Project = listening, label_map_blob: str | None = None) -> int:
        pixels = np.full((16, 16, 3), len(name), np.uint8)
        return store.add_image(to.id, blob=store.blobs.put_image(pixels), size=(16, 16), group_id=name, split="train",
                               source_name=name, label_map_blob=label_map_blob, actor="test").id  # fmt: skip

    refused("has no mask that says where to look", image_id=added("blank"))
    nothing = store.blobs.put_label_map(np.zeros((16, 16), np.uint8))
    refused("the reference shows 0 pixels of organ at 128 px, 30 needed", image_id=added("nothing", label_map_blob=nothing))
    refused("belongs to another project", image_id=added("elsewhere", to=project))
    with pytest.raises(BadInputError, match="class 7 is not in this project"):
        order(GenerateOrder, project_id=listening.id,
              settings={"references": [{"class_index": 7, "image_id": by_split["train"].id}]}).check(store)  # fmt: skip


def test_a_generator_that_knows_no_references_says_how_it_learns_them(store: Store, filled: Project):
    shown = store.images(filled.id, splits=["train"])[0]
    with pytest.raises(BadInputError, match="fit it with --references"):
        order(GenerateOrder, project_id=filled.id,
              settings={"references": [{"class_index": 1, "image_id": shown.id}]}).check(store)  # fmt: skip


def test_a_mask_corrected_in_the_middle_of_a_pool_changes_no_reference(store: Store, home: Home, listening: Project):
    shown = store.images(listening.id, splits=["train"])[0]
    wanted = order(GenerateOrder, project_id=listening.id, count=2, candidates=1,
                   settings={"references": [{"class_index": 1, "image_id": shown.id}]})  # fmt: skip
    started = wanted.frozen(store)
    record = store.label_map(shown.label_map_id or 0)
    wider = store.blobs.label_map(record.blob).copy()
    wider[:8] = 1
    store.save_label_map(record.id, blob=store.blobs.put_label_map(wider), rev=record.rev, author="ann", request_id="wider")
    again = started.frozen(store)  # as after a pause
    assert isinstance(again, GenerateOrder) and isinstance(started, GenerateOrder)
    assert again.settings.references == started.settings.references is not None
    assert wanted.frozen(store).settings.references != started.settings.references
    other = order(GenerateOrder, project_id=listening.id, count=2, candidates=1, settings={"references": [
        {"class_index": 1, "image_id": shown.id, "label_map_blob": "f" * 64, "blob": "e" * 64}]})  # fmt: skip
    assert other.frozen(store).settings.references[0].blob == shown.blob  # what an order names by itself is not believed


def test_images_like_a_reference_are_in_no_pair(store: Store, home: Home, listening: Project):
    run(store, home, TrainScorerOrder, project_id=listening.id, steps=3, batch_size=4)
    shown = store.images(listening.id, splits=["train"])[0]
    told = {"references": [{"class_index": 1, "image_id": shown.id}]}
    run(store, home, GenerateOrder, project_id=listening.id, count=2, candidates=2, settings=told)
    with pytest.raises(TooFewError, match="no scored candidates"):
        pairing.settle(store, listening.id)
