"""The export job: whole or not at all, equal to the store, and no patient's name or test image where it must not be."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saadi.decoding import decode_image, decode_mask
from saadi.errors import BadInputError, CancelledError
from saadi.exports import recipe
from saadi.exports.verify import verify_export
from saadi.jobs import JobContext, Outcome
from saadi.records import LabelClass
from saadi.store import Store
from tests.exports.builders import (
    SIDE,
    add_sample,
    drawing,
    export,
    full_project,
    image,
    label_map,
    make_project,
    order_export,
    run,
)

FORMATS = ("imagefolder", "nnunet")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_is_verified_and_recorded(tmp_path: Path, store: Store, name: str) -> None:
    project = full_project(store)
    job = export(store, project, tmp_path / "out", format=name)
    assert job.state == "done", (job.error, store.job_traceback(job.id))
    assert job.result["verified"] is True and job.result["num_items"] == 13 and job.result["path"] == str(tmp_path / "out")
    assert job.result["counts"] == {"test": {"real": 2}, "train": {"real": 4, "synthetic": 5}, "val": {"real": 2}}
    (record,) = store.exports(project.id)
    assert record.num_items == 13 and record.path == str(tmp_path / "out")
    assert verify_export(tmp_path / "out") == [] and verify_export(tmp_path / "out", store=store) == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_synthetic_images_never_reach_validation_or_test(tmp_path: Path, store: Store) -> None:
    job = export(store, full_project(store), tmp_path / "out", format="imagefolder")
    rows = rows_of(tmp_path / "out")
    real_groups = {row["lineage"]["label_map"]["id"]: row["group"] for row in rows if row["kind"] == "real"}
    for row in rows:
        if row["kind"] == "synthetic":
            assert row["split"] == "train"
            assert row["group"] == real_groups.get(row["lineage"]["label_map"]["id"], row["group"])
    assert job.result["left_out"] == {"synthetic, label map of a validation or test patient": 4}
    assert {row["group"] for row in rows if row["kind"] == "synthetic"} == {"group-000001", "group-000003", "drawing-000009"}


def test_a_copy_of_a_test_patients_label_map_is_left_out(tmp_path: Path, store: Store) -> None:
    project = make_project(store)
    held_out = store.images(project.id)[7]
    assert held_out.label_map_id is not None
    add_sample(store, project, store.images(project.id)[0], 1)
    add_sample(store, project, drawing(store, project, store.label_map_pixels(store.label_map(held_out.label_map_id).blob)), 2)
    add_sample(store, project, store.images(project.id)[0], 3, pixels=image(6))  # the very pixels of a test image
    job = export(store, project, tmp_path / "out", format="imagefolder")
    assert job.result["left_out"] == {
        "synthetic, copied label map of a validation or test patient": 1,
        "synthetic, exact copy of a real image": 1,
    }


def test_no_name_of_a_patient_is_anywhere_in_an_export(tmp_path: Path, store: Store) -> None:
    project = full_project(store)
    for name in FORMATS:
        assert export(store, project, tmp_path / name, format=name).state == "done"
    for path, content in tree(tmp_path).items():
        if not path.startswith("home/"):
            assert not any(
                word in path.encode() + content for word in (b"DOE", b"ROE", b"val patient", b'ann"', str(tmp_path).encode())
            )


def test_pixels_and_masks_are_those_of_the_store(tmp_path: Path, store: Store) -> None:
    export(store, full_project(store), tmp_path / "out", format="imagefolder")
    real = decode_mask((tmp_path / "out/train/masks/real-000001.png").read_bytes(), name="m").pixels
    synthetic = decode_mask((tmp_path / "out/train/masks/synthetic-000009.png").read_bytes(), name="m").pixels
    assert np.array_equal(real, label_map(0)) and synthetic.shape == (SIDE, SIDE) and set(np.unique(synthetic)) == {0, 1, 2}
    assert np.array_equal(decode_image((tmp_path / "out/test/images/real-000007.png").read_bytes(), name="i").pixels, image(6))


def test_the_manifest_counts_classes_and_says_what_is_lost(tmp_path: Path, store: Store) -> None:
    project = make_project(store)
    thin = np.zeros((160, 160), np.uint8)
    thin[3, 3] = 1
    add_sample(store, project, drawing(store, project, thin), 1)
    export(store, project, tmp_path / "out", format="nnunet", include_real=False)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert (
        manifest["notice"] == "Research use only; not a medical device"
        and manifest["pixels"]["train"]["synthetic"]["tissue"] == SIDE**2
    )
    assert manifest["lost"] == [
        "class 0 'tissue' is called 'background' in this format",
        "class 2 'ignore' is called 'ignore_class' in this format",
        "1 label maps were brought to the size of their image by nearest neighbour",
        "class 'organ' vanished from 1 masks by that",
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_project_gives_the_same_bytes(tmp_path: Path, store: Store, name: str) -> None:
    project = full_project(store)
    for folder in ("a", "b"):
        export(store, project, tmp_path / folder, format=name)
    assert tree(tmp_path / "a") == tree(tmp_path / "b") and len(tree(tmp_path / "a")) > 20


def test_without_a_target_the_export_goes_to_the_data_folder(store: Store) -> None:
    job = export(store, full_project(store), None, format="imagefolder")
    assert Path(job.result["path"]).parent == store.home.exports.absolute() and job.result["verified"]


def test_a_folder_with_content_is_refused_and_left_alone(tmp_path: Path, store: Store) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    job = export(store, full_project(store), tmp_path / "out", format="imagefolder")
    assert job.state == "failed" and "not empty; choose a new folder" in str(job.error)
    assert tree(tmp_path / "out") == {"mine.txt": b"keep"} and store.exports(1) == []


def test_an_empty_folder_is_used(tmp_path: Path, store: Store) -> None:
    (tmp_path / "out").mkdir()
    assert export(store, full_project(store), tmp_path / "out", format="imagefolder").state == "done"


def test_the_data_folder_itself_is_no_target(store: Store) -> None:
    job = export(store, full_project(store), store.home.blobs / "new", format="imagefolder")
    assert job.state == "failed" and "belongs to the data folder" in str(job.error)


def test_without_usable_images_nothing_is_written(tmp_path: Path, store: Store) -> None:
    project = make_project(store)
    add_sample(store, project, store.images(project.id)[7], 1)
    job = export(store, project, tmp_path / "out", format="imagefolder")
    assert (
        job.state == "failed"
        and "none of the 1 accepted images may be exported" in str(job.error)
        and not (tmp_path / "out").exists()
    )


@pytest.mark.parametrize("step", [0, 5, 14, 25, 45])
def test_cancelling_leaves_nothing_behind(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    def report(self: JobContext, done: int, *_: Any, **__: Any) -> None:
        if done == step:
            raise CancelledError("cancelled")

    monkeypatch.setattr(JobContext, "report", report)
    job = export(store, full_project(store), tmp_path / "out", format="nnunet")
    assert job.state == "cancelled" and sorted(path.name for path in tmp_path.iterdir()) == ["home"] and store.exports(1) == []


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    project = full_project(store)
    real_fsync, calls = os.fsync, [0]

    def fsync(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] > 6:
            raise OSError(28, "No space left on device")
        real_fsync(descriptor)

    monkeypatch.setattr(recipe.os, "fsync", fsync)
    monkeypatch.setattr("saadi.jobs.os.fsync", fsync)
    job = order_export(store, project, tmp_path / "out", format="imagefolder")
    ended = run(store, job)
    assert (
        ended.state == "failed"
        and "the disk is full, nothing was exported" in str(ended.error)
        and not (tmp_path / "out").exists()
    )
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_disk_that_is_full_in_the_middle_leaves_nothing_behind(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAADI_THREADS", "3")
    real_write, calls = recipe._write_file, [0]

    def write(path: Path, content: bytes) -> None:
        calls[0] += 1
        if calls[0] == 11:
            real_write(path, content[:5])
            raise OSError(28, "No space left on device")
        real_write(path, content)

    monkeypatch.setattr(recipe, "_write_file", write)
    job = export(store, full_project(store), tmp_path / "out", format="nnunet")
    assert job.state == "failed" and "the disk is full, nothing was exported" in str(job.error)
    assert [path.name for path in tmp_path.iterdir()] == ["home"] and store.exports(1) == []


def test_every_file_is_on_the_disk_before_the_export_has_its_name(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_fsync, real_rename = os.fsync, os.rename
    synced: set[str] = set()
    missing: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        real_fsync(descriptor)

    def rename(source: Path, target: Path) -> None:
        if Path(target).name == "out":
            missing.extend(str(path) for path in [Path(source), *Path(source).rglob("*")] if str(path.resolve()) not in synced)
        real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    job = export(store, full_project(store), tmp_path / "out", format="coco")
    assert job.state == "done" and missing == [] and str(tmp_path.resolve()) in synced


def test_threads_change_nothing(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    project = full_project(store, ignore=True)
    for threads in ("1", "3"):
        monkeypatch.setenv("SAADI_THREADS", threads)
        assert export(store, project, tmp_path / threads, format="coco").state == "done"
    assert tree(tmp_path / "1") == tree(tmp_path / "3")


def lose(store: Store, blob: str, damage: str) -> None:
    path = store.blobs.path(blob)
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        path.write_bytes(b"another file")


@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
def test_what_cannot_be_read_is_named_and_left_out_only_when_asked(tmp_path: Path, store: Store, damage: str) -> None:
    project = full_project(store)
    images, samples = store.images(project.id), store.samples(project.id, curation="accepted")
    lose(store, images[6].blob, damage)  # a picture of the test patient
    lose(store, samples[-1].label_map_blob, damage)  # the mask of the drawing
    job = export(store, project, tmp_path / "out", format="imagefolder")
    assert job.state == "failed" and job.error == (
        "2 of 13 images cannot be read (real-000007, synthetic-000009); restore them from a backup, or export without them "
        "(--without-unreadable)")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]
    job = export(store, project, tmp_path / "out", format="imagefolder", without_unreadable=True)
    assert job.state == "done" and job.result["num_items"] == 11, job.error
    assert job.result["left_out"] == {"synthetic, label map of a validation or test patient": 4, "real, cannot be read": 1,
                                      "synthetic, cannot be read": 1}
    assert json.loads((tmp_path / "out/manifest.json").read_text())["left_out"]["real, cannot be read"] == 1
    assert verify_export(tmp_path / "out", store=store) == []


def test_when_all_that_was_made_is_lost_there_is_no_export(tmp_path: Path, store: Store) -> None:
    project = full_project(store)
    for sample in store.samples(project.id):
        lose(store, sample.blob, "gone")
    job = export(store, project, tmp_path / "out", format="imagefolder", without_unreadable=True)
    assert job.state == "failed" and "all images to export but 8 real ones cannot be read" in str(job.error)


def test_a_crash_while_writing_is_cleared_away_by_the_next_attempt(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = order_export(store, full_project(store), tmp_path / "out", format="imagefolder")
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a killed process clears nothing away

    def crash(context: JobContext) -> Outcome:
        monkeypatch.setattr(recipe, "verify_export", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        return recipe.run_job(context)

    with pytest.raises(KeyboardInterrupt):
        run(store, job, crash)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(recipe.PREFIX)] and not (tmp_path / "out").exists()
    monkeypatch.undo()
    store.requeue_orphans()
    assert run(store, job).state == "done" and sorted(path.name for path in tmp_path.iterdir()) == ["home", "out"]


def test_a_crash_after_the_move_is_finished_by_the_next_attempt(tmp_path: Path, store: Store) -> None:
    job = order_export(store, full_project(store), tmp_path / "out", format="imagefolder")

    def crash(context: JobContext) -> Outcome:
        recipe.run_job(context)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(store, job, crash)
    before = tree(tmp_path / "out")
    store.requeue_orphans()
    ended = run(store, job)
    assert ended.state == "done" and tree(tmp_path / "out") == before and len(store.exports(1)) == 1


def test_damage_on_disk_is_noticed_before_the_export_is_offered(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write = recipe._write_file

    def write(path: Path, content: bytes) -> None:
        real_write(path, content)
        if path.name == "real-000003.png" and path.parent.name == "masks":
            path.write_bytes(content[:-1] + b"x")

    monkeypatch.setattr(recipe, "_write_file", write)
    job = export(store, full_project(store), tmp_path / "out", format="imagefolder")
    assert job.state == "failed" and "real-000003: the mask was changed" in str(job.error) and not (tmp_path / "out").exists()


def test_a_classification_project_exports_labels_and_refuses_nnunet(tmp_path: Path, store: Store) -> None:
    classes = [LabelClass(index, name, "#000000") for index, name in enumerate(("preparation", "dissection"))]
    project = store.create_project("phases", task="classification", classes=classes, resolution=16, actor="ann")
    real = store.add_image(
        project.id,
        blob=store.blobs.put_image(image(1)),
        size=(24, 24),
        group_id="v",
        split="train",
        label="dissection",
        source_name="x.png",
        label_map_blob=store.class_map(project, "dissection"),
        actor="ann",
    )
    assert real is not None
    add_sample(store, project, real, 1)
    with pytest.raises(BadInputError, match="classifies whole images"):
        export(store, project, tmp_path / "a", format="nnunet")
    assert export(store, project, tmp_path / "b", format="imagefolder").state == "done"
    lines = [json.loads(line) for line in (tmp_path / "b/train/metadata.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["label"], line["file_name"], "mask_file_name" in line) for line in lines] == [
        ("real", "dissection", "dissection/real-000001.png", False),
        ("synthetic", "dissection", "dissection/synthetic-000001.png", False),
    ]
