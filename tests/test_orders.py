"""Orders: bounds in one sentence, and what is missing is counted."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saadi import orders
from saadi.errors import BadInputError, TooFewError
from saadi.records import Pair, Project
from saadi.store import Store
from tests.builders import add_engine, add_label_map, add_samples, new_request
from tests.conftest import CLASSES


@pytest.mark.parametrize(("kind", "values", "name"), [
    (orders.FitOrder, {"steps": 0}, "steps"), (orders.FitOrder, {"minutes": math.inf}, "minutes"),
    (orders.FitOrder, {"learning_rate": math.nan}, "learning_rate"), (orders.FitOrder, {"batch_size": 10_000}, "batch_size"),
    (orders.FitOrder, {"seed": 2**65}, "seed"), (orders.FitOrder, {"seed": -1}, "seed"), (orders.FitOrder, {"speed": 1}, "speed"),
    (orders.GenerateOrder, {"count": 0}, "count"), (orders.GenerateOrder, {"candidates": 65}, "candidates"),
    (orders.GenerateOrder, {"settings": {"num_inference_steps": 1}}, "settings.num_inference_steps"),
    (orders.GenerateOrder, {"settings": {"guidance_scale": math.nan}}, "settings.guidance_scale"),
    (orders.TrainScorerOrder, {"batch_size": 1}, "batch_size"), (orders.AlignOrder, {}, "pair_set_id"),
    (orders.AlignOrder, {"pair_set_id": 1, "beta": 0}, "beta"), (orders.AlignOrder, {"pair_set_id": 1, "loss": "ppo"}, "loss"),
    (orders.AlignOrder, {"pair_set_id": 1, "sdpo_mu": 1.5}, "sdpo_mu"), (orders.ExportOrder, {"format": "zip"}, "format"),
])
def test_a_value_out_of_bounds_is_named(kind: type[orders.Order], values: dict[str, Any], name: str) -> None:
    with pytest.raises(BadInputError, match=rf"^{name}: .*; got "):
        orders.order(kind, project_id=1, **values)


def test_folders_are_named_in_full_and_ids_of_the_hub_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sd/own").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def named(name: str) -> tuple[str | None, str | None]:
        made = orders.order(orders.FitOrder, project_id=1, engine="stable-diffusion", base=name, controlnet=name)
        return made.base, made.controlnet

    whole = str((tmp_path / "sd/own").resolve())
    assert named("sd/own") == named("~/sd/own") == named(whole) == (whole, whole)
    for other in ("org/model", "~nobody-of-this-name/sd", "x" * 1000):
        assert named(other) == (other, other)


def add_images(store: Store, project: Project, num: int) -> None:
    label_map = store.blobs.put_label_map(np.zeros((16, 16), np.uint8))
    for number in range(num):
        blob = store.blobs.put_image(np.full((16, 16, 3), number, np.uint8))
        store.add_image(project.id, blob=blob, size=(16, 16), group_id=str(number), split="train",
                        source_name=f"{number}.png", label_map_blob=label_map, actor="ann")


@pytest.mark.parametrize("kind", [orders.FitOrder, orders.TrainScorerOrder])
def test_too_few_images_are_counted(store: Store, project: Project, kind: type[orders.Order]) -> None:
    add_images(store, project, 3)
    with pytest.raises(TooFewError, match=r"3 training images with a label map, 8 needed .* 5 more"):
        orders.place(store, orders.order(kind, project_id=project.id), actor="ann")
    assert store.jobs() == []
    add_images(store, project, 8)
    job, is_new = orders.place(store, orders.order(kind, project_id=project.id), actor="ann")
    assert (job.state, is_new, job.created_by) == ("queued", True, "ann")


def pair_set(store: Store, project: Project, num: int) -> int:
    pairs = [Pair("0" * 64, f"{number:064x}", "f" * 64, "score", 1.0, 0.1) for number in range(num)]
    return store.freeze_pairs(project.id, pairs, {}, actor="ann").id


def test_too_few_pairs_are_counted(store: Store, project: Project) -> None:
    wanted = orders.AlignOrder(project_id=project.id, pair_set_id=pair_set(store, project, 5))
    with pytest.raises(TooFewError, match=r"5 usable pairs, 16 needed to align; .* vote on 11 more"):
        orders.place(store, wanted, actor="ann")


def test_a_second_align_click_is_the_first_job(store: Store, project: Project) -> None:
    wanted = orders.AlignOrder(project_id=project.id, pair_set_id=pair_set(store, project, 16))
    with pytest.raises(TooFewError, match="no engine yet; run `fit`"):
        orders.place(store, wanted, actor="ann")
    add_engine(store, project)
    for kind in ("selector", "judge"):
        store.add_model(project.id, kind=kind, architecture={}, file="f", metrics={}, actor="test")
    first, is_new = orders.place(store, wanted, actor="ann")
    second, is_second_new = orders.place(store, wanted, actor="bob")
    assert (second.id, is_new, is_second_new) == (first.id, True, False)
    other, is_new = orders.place(store, wanted.model_copy(update={"steps": 50}), actor="ann")
    assert other.id != first.id and is_new


def test_a_job_keeps_the_versions_that_were_in_use_when_it_first_started(store: Store, project: Project) -> None:
    add_engine(store, project)
    add_images(store, project, 3)
    placed, _ = orders.place(store, orders.GenerateOrder(project_id=project.id, count=5, seed=3), actor="ann")
    add_engine(store, project)  # a fit that stood before it in the queue
    newest = store.active_model(project.id, "engine")
    claimed = store.claim_job("worker-1")
    assert claimed is not None
    started = orders.freeze(store, claimed)
    assert (started.params["model_id"], started.params["adapter"]) == (newest.id, "none")
    pool = {record.id for record in store.label_maps(project.id, splits=["train"])}
    assert len(started.params["label_map_ids"]) == 5 and set(started.params["label_map_ids"]) == pool
    add_engine(store, project)
    add_images(store, project, 8)
    store.release_job(started)
    again = store.claim_job("worker-2")
    assert again is not None and again.params == started.params == store.job(placed.id).params


def test_a_generator_of_another_project_is_refused(store: Store, project: Project) -> None:
    add_engine(store, project)
    other = store.create_project("other", task="segmentation", classes=CLASSES, resolution=16, actor="ann")
    add_engine(store, other)
    wanted = orders.GenerateOrder(project_id=other.id, model_id=store.active_model(project.id, "engine").id)
    with pytest.raises(BadInputError, match="no generator of this project"):
        orders.place(store, wanted, actor="ann")


def test_an_alignment_names_only_what_is_its_projects(store: Store, project: Project) -> None:
    other = store.create_project("other", task="segmentation", classes=CLASSES, resolution=16, actor="ann")
    engine, foreign = add_engine(store, project), add_engine(store, other)
    for kind in ("selector", "judge"):
        store.add_model(project.id, kind=kind, architecture={}, file="f", metrics={}, actor="test")
    pairs = [Pair("m", "a", "b", "score", 0.5, 0.1 + index) for index in range(16)]
    pair_set = store.freeze_pairs(project.id, pairs, {}, actor="ann")
    adapter = store.add_adapter(other.id, model_id=foreign.id, parent_id=None, file=store.files.put(b"lora"), scale=1.0,
                                config={}, metrics={}, actor="ann", job_id=None)  # fmt: skip
    elsewhere = store.add_job("align", {}, project_id=other.id, actor="ann", request_id=new_request())[0]
    store.cancel_job(elsewhere.id, actor="ann")
    waiting = store.add_job("align", {}, project_id=project.id, actor="ann", request_id=new_request())[0]
    fit = store.add_job("fit", {}, project_id=project.id, actor="ann", request_id=new_request())[0]
    store.cancel_job(fit.id, actor="ann")
    wrong = [
        ({"model_id": foreign.id}, "no engine of this project"),
        ({"parent_id": adapter.id}, f"adapter {adapter.id} belongs to another project"),
        *(({"continues": job.id}, f"job {job.id} is no stopped alignment") for job in (elsewhere, waiting, fit)),
    ]
    for values, sentence in wrong:
        with pytest.raises(BadInputError, match=sentence):
            orders.AlignOrder(project_id=project.id, pair_set_id=pair_set.id, **values).check(store)
    orders.AlignOrder(project_id=project.id, pair_set_id=pair_set.id, model_id=engine.id).check(store)


def test_a_prediction_names_only_what_is_its_projects(store: Store, project: Project) -> None:
    other = store.create_project("other", task="segmentation", classes=CLASSES, resolution=16, actor="ann")
    add_images(store, other, 1)
    add_images(store, project, 1)
    mine, theirs = (store.images(item.id)[0].id for item in (project, other))
    foreign, own = (store.add_model(item.id, kind="selector", architecture={}, file=store.files.put(item.name.encode()),
                                    metrics={}, actor="ann") for item in (other, project))  # fmt: skip
    with pytest.raises(BadInputError, match=f"image {theirs} belongs to another project"):
        orders.PredictOrder(project_id=project.id, image_id=theirs).check(store)
    with pytest.raises(BadInputError, match="no selector of this project"):
        orders.PredictOrder(project_id=project.id, image_id=mine, model_id=foreign.id).check(store)
    orders.PredictOrder(project_id=project.id, image_id=mine, model_id=own.id).check(store)


def test_generation_says_what_is_missing(store: Store, project: Project) -> None:
    with pytest.raises(TooFewError, match="no generator yet; run `fit`"):
        orders.place(store, orders.GenerateOrder(project_id=project.id), actor="ann")
    add_engine(store, project)
    with pytest.raises(TooFewError, match="no label maps in its training split"):
        orders.place(store, orders.GenerateOrder(project_id=project.id), actor="ann")
    other = store.create_project("other", task="segmentation", classes=CLASSES, resolution=16, actor="ann")
    drawing = add_label_map(store, other)
    with pytest.raises(BadInputError, match="belongs to another project"):
        orders.place(store, orders.GenerateOrder(project_id=project.id, label_map_ids=(drawing.id,)), actor="ann")


def test_a_drawing_person_goes_before_a_pool(store: Store, project: Project) -> None:
    add_engine(store, project)
    drawing = add_label_map(store, project)
    pool, _ = orders.place(store, orders.GenerateOrder(project_id=project.id, label_map_ids=(drawing.id,)), actor="ann")
    draw, _ = orders.place(store, orders.DrawOrder(project_id=project.id, label_map_ids=(drawing.id,)), actor="ann")
    assert (store.jobs_before(draw.id), [job.id for job in store.jobs_before(pool.id)]) == ([], [draw.id])


def test_nothing_accepted_is_nothing_to_export(store: Store, project: Project) -> None:
    wanted = orders.order(orders.ExportOrder, project_id=project.id, format="nnunet")
    with pytest.raises(TooFewError, match="no accepted images"):
        orders.place(store, wanted, actor="ann")
    store.curate([sample.id for sample in add_samples(store, project)], "accepted", actor="ann")
    assert orders.place(store, wanted, actor="ann")[1]


def test_a_request_sent_twice_is_one_job(store: Store, project: Project) -> None:
    add_images(store, project, 8)
    wanted = orders.FitOrder(project_id=project.id)
    first, second = (orders.place(store, wanted, actor="ann", request_id="form-1") for _ in range(2))
    assert (first[0].id, first[1], second[1]) == (second[0].id, True, False)


def test_scoring_needs_a_selector(store: Store, project: Project) -> None:
    with pytest.raises(TooFewError, match="no selector yet; run `train-scorer`"):
        orders.place(store, orders.ScoreOrder(project_id=project.id), actor="ann")


def test_orders_import_no_torch() -> None:
    import subprocess

    code = "import sys, saadi.orders, saadi.jobs, saadi.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
