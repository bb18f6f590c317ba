"""Masks without their rim: written as measured, told with each image, verified again, and never changed in the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saadi.decoding import decode_mask
from saadi.errors import BadInputError, TooFewError
from saadi.exports.labels import at_image_size
from saadi.exports.verify import verify_export
from saadi.orders import ExportOrder, refinement
from saadi.records import Project
from saadi.refinement import eroded
from saadi.store import Store
from tests import builders
from tests.exports.builders import add_sample, drawing, engine_id, export, full_project, label_map


def measured(store: Store, project: Project, radii: dict[str, int]) -> int:
    """As if `refine` had found these; returns its job."""
    job, _ = store.add_job("refine", {"project_id": project.id}, project_id=project.id, actor="ann",
                           request_id=builders.new_request())  # fmt: skip
    claimed = store.claim_job("measuring")
    assert claimed is not None and claimed.id == job.id
    result = {"radii": radii, "model_id": engine_id(store, project), "adapter_id": None, "classes": {}, "num_images": 9,
              "examples": []}  # fmt: skip
    store.finish_job(claimed, state="done", message="measured", result=result)
    return job.id


def with_a_large_organ(store: Store) -> Project:
    """Parts of a few pixels, as all others here have, would lose half of themselves and stay whole."""
    project = full_project(store)
    large = np.zeros((16, 16), np.uint8)
    large[3:14, 2:13] = 1
    add_sample(store, project, drawing(store, project, large, request_id="large"), 60)
    return project


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["imagefolder", "nnunet"])
def test_synthetic_masks_lose_their_rim_and_real_ones_do_not(tmp_path: Path, store: Store, name: str) -> None:
    project = with_a_large_organ(store)
    number, before = measured(store, project, {"organ": 1}), [record.blob for record in store.label_maps(project.id)]
    job = export(store, project, tmp_path / "out", format=name, refined=True)
    assert job.state == "done", (job.error, store.job_traceback(job.id))
    assert verify_export(tmp_path / "out") == [] and verify_export(tmp_path / "out", store=store) == []
    changed = 0
    for row in rows_of(tmp_path / "out"):
        png = (tmp_path / "out" / row["mask"]).read_bytes()
        written = decode_mask(png, name=row["name"], max_bytes=len(png)).pixels
        stored = at_image_size(store.label_map_pixels(row["lineage"]["label_map"]["blob"]), size=written.shape)
        if row["kind"] == "real":
            assert (written == stored).all() and "refined" not in row["lineage"]
        else:
            assert (written == eroded(stored, {1: 1})).all() and row["pixels"]["organ"] == (written == 1).sum()
            assert row["lineage"]["refined"] == {"radii_px": {"organ": 1}, "measured_by_job": number}
            changed += int((written != stored).any())
    assert changed == 1 and [record.blob for record in store.label_maps(project.id)] == before


def test_a_mask_that_was_not_refined_as_told_is_found_out(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    project = with_a_large_organ(store)
    measured(store, project, {"organ": 1})
    monkeypatch.setattr("saadi.exports.recipe.refined", lambda pixels, lineage, classes: pixels)
    job = export(store, project, tmp_path / "out", format="imagefolder", refined=True)
    assert job.state == "failed" and job.error is not None and "the mask differs from the label map in the store" in job.error
    assert not (tmp_path / "out").exists()


def test_images_of_another_generator_keep_their_masks(tmp_path: Path, store: Store) -> None:
    project = full_project(store)
    other = store.add_model(project.id, kind="engine", architecture={}, file=store.files.put(b"others"), metrics={}, actor="ann")
    assert other.id == engine_id(store, project)  # in use now
    add_sample(store, project, drawing(store, project, label_map(2, size_px=40), request_id="later"), 77)
    measured(store, project, {"organ": 1})
    export(store, project, tmp_path / "out", format="imagefolder", refined=True)
    assert [row["name"][-2:] for row in rows_of(tmp_path / "out") if "refined" in row["lineage"]] == ["11"]
    assert verify_export(tmp_path / "out", store=store) == []


def test_where_no_class_gains_nothing_is_refined(tmp_path: Path, store: Store) -> None:
    project = full_project(store)
    measured(store, project, {})
    job = export(store, project, tmp_path / "out", format="imagefolder", refined=True)
    assert job.state == "done" and not any("refined" in row["lineage"] for row in rows_of(tmp_path / "out"))


def test_without_a_measurement_of_the_generator_in_use_it_is_refused(store: Store) -> None:
    project = full_project(store)
    with pytest.raises(TooFewError, match="has not been measured for the generator in use; run `saadi refine"):
        ExportOrder(project_id=project.id, format="imagefolder", refined=True).check(store)
    measured(store, project, {"organ": 2})
    ExportOrder(project_id=project.id, format="imagefolder", refined=True).check(store)
    store.add_model(project.id, kind="engine", architecture={}, file=store.files.put(b"new"), metrics={}, actor="ann")
    assert refinement(store, project.id) is None
    classes = store.create_project("phases", task="classification", classes=project.classes, resolution=16, actor="ann")
    with pytest.raises(BadInputError, match="classes of whole images"):
        ExportOrder(project_id=classes.id, format="imagefolder", refined=True).check(store)


def test_a_rim_that_is_the_whole_of_a_thin_part_stays() -> None:
    thin = np.zeros((16, 16), np.uint8)
    thin[4:6] = 1
    assert (eroded(thin, {1: 1}) == thin).all()
