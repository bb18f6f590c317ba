"""Learning and suggesting masks through the worker, with a network of a few steps."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from saadi import orders
from saadi.cli import app, common
from saadi.config import Home
from saadi.errors import BadInputError, TooFewError
from saadi.jobs import run_worker
from saadi.mask_generator import fitting, job
from saadi.mask_generator.model import MaskGenerator, Suggestion
from saadi.orders import FitMasksOrder, SuggestMasksOrder
from saadi.records import Job, LabelClass, Project
from saadi.store import Store
from saadi.worker import HANDLERS
from tests import builders, tiny

CLASSES = [LabelClass(0, "tissue", "#000000"), LabelClass(1, "organ", "#009e73"), LabelClass(2, "bar", "#0072b2")]


@pytest.fixture
def masked(store: Store) -> Project:
    """A project of 32 pixels with eight training masks and one of validation."""
    project = store.create_project("masked", task="segmentation", classes=CLASSES, resolution=32, actor="test")
    for number in range(9):
        image, label_map = tiny.scene(number, side=32)
        store.add_image(project.id, blob=store.blobs.put_image(image), size=(32, 32), group_id=f"p{number}",
                        split="val" if number == 8 else "train", source_name=str(number),
                        label_map_blob=store.blobs.put_label_map(label_map), actor="test")  # fmt: skip
    return project


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps on a small bank; and drawings that pass, as two steps draw noise: the base's mask, mirrored."""
    monkeypatch.setattr(fitting.MaskFitConfig, "num_steps", 2)
    monkeypatch.setattr(fitting.Bank.__init__, "__kwdefaults__", {"size": 16})
    monkeypatch.setattr(job, "_kept", {})

    def one(self: MaskGenerator, seed, side, start, strength, classes):
        base = -1 if start is not None else seed % len(self.real)
        if seed == 13:
            raise BadInputError("none of 12 masks drawn passes (mostly: class 2 is too small)")
        return Suggestion((self.real[base] if start is None else start)[:, ::-1].copy(), seed, base, strength or 0.5, 1)

    monkeypatch.setattr(MaskGenerator, "_one", one)


def done(store: Store, home: Home, kind: type[orders.Order], project: Project, **values: object) -> Job:
    placed, _ = orders.place(store, orders.order(kind, project_id=project.id, **values), actor="ann")
    assert run_worker(home, HANDLERS, exit_when_idle=True)
    return store.job(placed.id)


def test_the_first_suggestion_learns_and_the_next_ones_draw_at_once(store: Store, home: Home, masked: Project) -> None:
    first = done(store, home, SuggestMasksOrder, masked, count=3, seed=1)
    assert first.state == "done" and first.message == "3 new masks", store.job_traceback(first.id)
    model = store.newest_mask_model(masked.id)
    assert model is not None and len(model.bases) == 8 and first.result["mask_model_id"] == model.id
    held_out = next(iter(store.label_maps(masked.id, splits=["val"]))).blob
    assert held_out not in model.bases  # of other patients nothing is learnt
    for found in first.result["masks"]:
        base = store.blobs.label_map(found["base_blob"])
        np.testing.assert_array_equal(store.blobs.label_map(found["blob"]), base[:, ::-1])
    assert all(record.image_id for record in store.label_maps(masked.id))  # nobody owns what was suggested
    second = done(store, home, SuggestMasksOrder, masked, count=1, seed=1)
    assert second.result["mask_model_id"] == model.id and second.result["masks"] == first.result["masks"][:1]
    assert not second.result["is_stale"]


def test_kept_suggestions_are_label_maps_that_pools_can_be_made_of(store: Store, home: Home, masked: Project) -> None:
    ended = done(store, home, SuggestMasksOrder, masked, count=2, seed=1, keep=True)
    kept = [store.label_map(number) for number in ended.result["label_map_ids"]]
    assert [record.name for record in kept] == ["suggested, seed 1", "suggested, seed 2"]
    assert {record.origin for record in kept} == {"sampled"}


def test_a_drawing_is_varied_at_its_own_size(store: Store, home: Home, masked: Project) -> None:
    drawn = np.zeros((24, 40), np.uint8)
    drawn[4:12, 4:30] = 1
    record = store.add_label_map(masked.id, blob=store.blobs.put_label_map(drawn), name="mine", author="ann",
                                 request_id=builders.new_request(), origin="drawn")  # fmt: skip
    ended = done(store, home, SuggestMasksOrder, masked, count=1, label_map_id=record.id, strength=0.4)
    [found] = ended.result["masks"]
    assert store.blobs.label_map(found["blob"]).shape == (24, 40) and found["base_blob"] == record.blob


def test_a_kept_variation_of_a_held_out_mask_is_held_out_too(store: Store, home: Home, masked: Project) -> None:
    [record] = store.label_maps(masked.id, splits=["val"])
    ended = done(store, home, SuggestMasksOrder, masked, count=1, label_map_id=record.id, strength=0.4, keep=True)
    held_ids, held_blobs = store.held_out_label_maps(masked.id)
    assert ended.result["label_map_ids"][0] in held_ids and ended.result["masks"][0]["blob"] in held_blobs


def test_an_empty_training_mask_does_not_make_it_stale(store: Store, home: Home, masked: Project) -> None:
    empty = store.blobs.put_label_map(np.zeros((32, 32), np.uint8))
    store.add_image(masked.id, blob=store.blobs.put_image(tiny.scene(30, side=32)[0]), size=(32, 32), group_id="calm",
                    split="train", source_name="calm", label_map_blob=empty, actor="test")  # fmt: skip
    ended = done(store, home, SuggestMasksOrder, masked, count=1)
    assert not ended.result["is_stale"] and ended.result["num_learnt"] == 8


def test_what_cannot_be_drawn_is_left_out_and_told_by_name(store: Store, home: Home, masked: Project) -> None:
    some = done(store, home, SuggestMasksOrder, masked, count=2, seed=12)
    assert len(some.result["masks"]) == 1 and some.result["num_refused"] == 1
    none = done(store, home, SuggestMasksOrder, masked, count=1, seed=13)
    assert none.state == "failed" and "mostly: bar is too small" in (none.error or "")


def test_a_mask_generator_is_told_when_masks_came_since(store: Store, home: Home, masked: Project) -> None:
    done(store, home, FitMasksOrder, masked)
    image, label_map = tiny.scene(20, side=32)
    store.add_image(masked.id, blob=store.blobs.put_image(image), size=(32, 32), group_id="new", split="train", source_name="new",
                    label_map_blob=store.blobs.put_label_map(label_map), actor="test")  # fmt: skip
    assert done(store, home, SuggestMasksOrder, masked, count=1).result["is_stale"]
    done(store, home, FitMasksOrder, masked)
    again = done(store, home, SuggestMasksOrder, masked, count=1)
    assert not again.result["is_stale"] and again.result["num_learnt"] == 9


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (SuggestMasksOrder, {"classes": [7]}, "class 7 is not in this project; it has classes 0 to 2"),
        (SuggestMasksOrder, {"classes": [0]}, "classes.0"),
        (SuggestMasksOrder, {"strength": 1.2}, "strength"),
        (SuggestMasksOrder, {"count": 0}, "count"),
        (SuggestMasksOrder, {"label_map_id": 99}, "no label map 99"),
        (SuggestMasksOrder, {"model_id": 99}, "no mask generator 99"),
        (FitMasksOrder, {"steps": 0}, "steps"),
    ],
)
def test_wrong_orders_are_refused_in_words(store: Store, masked: Project, kind: type, values: dict, words: str) -> None:
    with pytest.raises((BadInputError, LookupError), match=words):
        orders.place(store, orders.order(kind, project_id=masked.id, **values), actor="ann")
    assert store.jobs() == []


def test_too_few_masks_and_classes_of_whole_images_are_refused(store: Store, project: Project) -> None:
    with pytest.raises(TooFewError, match="0 different masks of training images, 5 needed to draw new ones like them"):
        orders.place(store, orders.order(SuggestMasksOrder, project_id=project.id), actor="ann")
    phases = store.create_project("phases", task="classification", classes=CLASSES, resolution=32, actor="test")
    with pytest.raises(BadInputError, match="has classes of whole images and no masks to draw"):
        orders.place(store, orders.order(FitMasksOrder, project_id=phases.id), actor="ann")


def test_commands_say_what_is_missing(store: Store, home: Home, masked: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(*arguments: str) -> str:
        return str(CliRunner().invoke(app, [*arguments, "--home", str(home.path)]).exception)

    assert "there is no class fat" in said("suggest", "masked", "--classes", "fat").replace("'", "")
    assert "masked has no suggested masks yet; make some with `saadi suggest masked --keep`" in said(
        "generate", "masked", "--masks", "suggested")
    assert "--masks is training, weak, drawings or suggested; got 'mine'" in said("generate", "masked", "--masks", "mine")
    monkeypatch.setattr(common, "_see_to_worker", lambda store, worker, job: None)  # a real one would learn for minutes
    queued = CliRunner().invoke(app, ["suggest", "masked", "--classes", "bar", "--count", "2", "--keep", "--detach", "--json",
                                      "--home", str(home.path)])  # fmt: skip
    params = store.job(json.loads(queued.stdout)["job"]).params
    assert params["classes"] == [2] and params["count"] == 2 and params["keep"] is True
