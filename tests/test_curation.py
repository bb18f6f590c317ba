"""Facts by which images are sorted out, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from saadi import curation, quality
from saadi.jobs import silent
from saadi.records import Project, Score
from saadi.store import Store
from tests import tiny
from tests.builders import add_engine, add_label_map, add_samples, new_request


def add_real(store: Store, project: Project, count: int, *, split: str = "train", first_seed: int = 0, label: int = 1) -> None:
    """Real images that differ, each of its own patient; a square of one class in every label map."""
    label_map = np.zeros((16, 16), np.uint8)
    label_map[2:6, 2:6] = label
    for seed in range(first_seed, first_seed + count):
        store.add_image(project.id, blob=store.blobs.put_image(tiny.scene(seed, side=32)[0]), size=(32, 32), group_id=f"p{seed}",
                        split=split, source_name=f"{seed}.png", label_map_blob=store.blobs.put_label_map(label_map), actor="t")  # type: ignore[arg-type]  # fmt: skip


def add_sample(store: Store, project: Project, pixels: np.ndarray, *, seed: int = 0) -> int:
    drawing = add_label_map(store, project)
    model = store.active_model(project.id, "engine") or add_engine(store, project)
    return store.add_sample(project.id, label_map_id=drawing.id, label_map_rev=1, label_map_blob=drawing.blob,
                            blob=store.blobs.put_image(pixels), seed=seed, engine="compact", model_id=model.id, adapter_id=None,
                            settings={}, purpose="pool").id  # fmt: skip


def test_scores_disagreement_and_classes_stand_beside_their_sample(store: Store, project: Project) -> None:
    first, second = add_samples(store, project)
    for kind, dice in (("selector", 0.9), ("judge", 0.25)):
        model = store.add_model(project.id, kind=kind, architecture={}, file="f", metrics={}, actor="test")  # type: ignore[arg-type]
        parts = {"background": {"dice": 1.0}, "polyp": {"dice": dice}}
        store.add_scores([Score(second.id, model.id, model.kind, dice, dice, 0.5, parts, second.label_map_blob)])
    columns = curation.sample_columns(store, project, person="ann")
    assert columns["id"] == [first.id, second.id]
    assert (columns["selector"], columns["judge"], columns["disagreement"]) == ([None, 0.9], [None, 0.25], [None, 0.65])
    assert columns["class_dice"] == [[None, 0.9]]  # classes without the background
    assert [columns["masks"][index]["classes"] for index in columns["mask"]] == [[1], [1]]
    assert columns["state"] == [0, 0] and columns["versions"] == ["base"] and columns["unmeasured"] == 2


def test_votes_are_counted_and_both_good_is_half_a_win(store: Store, project: Project) -> None:
    a, b, c = (sample.id for sample in add_samples(store, project, count=3))
    for left, right, answer, voter in ((a, b, "left", "ann"), (a, b, "both_good", "ben"), (b, c, "skip", "ann"),
                                       (a, c, "both_bad", "ann")):  # fmt: skip
        store.add_vote(project.id, left_id=left, right_id=right, answer=answer, voter=voter, request_id=new_request())  # type: ignore[arg-type]
    columns = curation.sample_columns(store, project, person="ann")
    assert columns["votes"] == [3, 2, 1]
    assert columns["wins"] == [0.5, 0.25, 0.0]


def test_flags_are_everybodys_and_favourites_ones_own(store: Store, project: Project) -> None:
    a, b, _ = (sample.id for sample in add_samples(store, project, count=3))
    store.mark(project.id, [a], "flag", is_set=True, person="ben")
    store.mark(project.id, [a, b], "favourite", is_set=True, person="ben")
    store.mark(project.id, [b], "favourite", is_set=True, person="ann")
    columns = curation.sample_columns(store, project, person="ann")
    assert (columns["flagged"], columns["flagged_by_me"], columns["favourite"]) == ([1, 0, 0], [0, 0, 0], [0, 1, 0])


def test_rarity_is_the_share_of_training_masks_with_the_rarest_asked_class(store: Store, project: Project) -> None:
    add_real(store, project, 3, label=0)
    add_real(store, project, 1, first_seed=3)
    add_samples(store, project, count=1)
    empty = store.add_label_map(project.id, blob=store.blobs.put_label_map(np.zeros((16, 16), np.uint8)), name="empty",
                                author="ann", request_id=new_request(), origin="drawn")  # fmt: skip
    add_samples(store, project, count=2, label_map=empty)
    facts = curation.sample_columns(store, project, person="ann")["masks"]
    assert [(fact["classes"], fact["rarest"], fact["rarity"]) for fact in facts] == [([1], 1, 0.25), ([], None, None)]


def test_shares_leave_out_what_is_to_be_ignored() -> None:
    label_map = np.array([[0, 1], [1, 255]], np.uint8)
    shares = curation.class_shares(label_map)
    assert shares.shape == (100,) and shares[:3].tolist() == [0.25, 0.5, 0]


def test_a_strange_image_has_less_quality_and_a_copy_is_closer_than_every_unseen_one(store: Store, project: Project) -> None:
    add_real(store, project, 30)
    add_real(store, project, 10, split="val", first_seed=100)
    usual, _ = tiny.scene(500, side=32)
    copied = add_sample(store, project, tiny.scene(7, side=32)[0], seed=1)
    add_sample(store, project, usual, seed=2)
    add_sample(store, project, 255 - usual, seed=3)
    assert curation.describe_project(store, project, silent) == 42  # the copy is one of the training images
    assert curation.describe_project(store, project, silent) == 0
    columns = curation.sample_columns(store, project, person="ann")
    copy, usual_one, strange = columns["quality"]
    assert copy == 1 and usual_one > 0.4 and strange < 0.5 * usual_one
    assert columns["farther"][0] == 1 and columns["farther"][2] == 0 and columns["unmeasured"] == 0
    near = curation.nearest_real(store, project, store.sample(copied).blob)
    assert near is not None and near.image.source_name == "7.png" and near.num_unseen == 10
    assert near.share_farther == 1


def test_the_nearest_real_image_comes_from_training_only_and_follows_new_ones(store: Store, project: Project) -> None:
    add_real(store, project, 12)
    add_real(store, project, 1, split="test", first_seed=50)
    blob = store.sample(add_sample(store, project, tiny.scene(50, side=32)[0])).blob
    curation.describe_project(store, project, silent)
    near = curation.nearest_real(store, project, blob)
    assert near is not None and near.image.split == "train" and near.share_farther < 1
    brighter = np.clip(tiny.scene(50, side=32)[0].astype(int) + 1, 0, 255).astype(np.uint8)
    store.add_image(project.id, blob=store.blobs.put_image(brighter), size=(32, 32), group_id="new", split="train",
                    source_name="new.png", label_map_blob=None, actor="t")  # fmt: skip
    curation.describe_project(store, project, silent)
    near = curation.nearest_real(store, project, blob)
    assert near is not None and near.image.source_name == "new.png"


def test_without_measured_real_images_there_is_no_neighbour(store: Store, project: Project) -> None:
    blob = add_samples(store, project, count=1)[0].blob
    assert curation.nearest_real(store, project, blob) is None
    add_real(store, project, 3)
    assert curation.nearest_real(store, project, blob) is None  # nobody has looked at them
    curation.describe_images(store, [image.blob for image in store.images(project.id)], silent)
    assert curation.nearest_real(store, project, blob) is not None  # the sample itself is looked at when asked for
    assert curation.nearest_real(store, project, blob, quality.selector_space(1)) is None


def test_a_stopped_description_keeps_what_it_has(store: Store, project: Project) -> None:
    add_real(store, project, curation.DESCRIBE_CHUNK + 5)
    blobs = [image.blob for image in store.images(project.id)]

    def stop(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        curation.describe_images(store, blobs, stop)
    assert len(store.undescribed(quality.LOOK, blobs)) == 5
    assert curation.describe_images(store, blobs, silent) == 5
