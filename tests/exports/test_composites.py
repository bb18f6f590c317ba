"""Real images of which a part was made anew: marked as what they are, and never on the wrong side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saadi.exports.marks import COMPOSITE, mark_of
from saadi.exports.verify import verify_export
from saadi.records import RealImage, Sample
from saadi.store import Store
from tests.exports import builders


def add_composite(store: Store, real: RealImage, seed: int, *, parent: Sample | None = None) -> Sample:
    """Under a free drawing, as Draw makes it: only the settings know the patient."""
    project = store.project(real.project_id)
    record = builders.drawing(store, project, builders.label_map(seed, size_px=40), request_id=f"composite-{seed}")
    sample = store.add_sample(
        project.id, label_map_id=record.id, label_map_rev=record.rev, label_map_blob=record.blob,
        blob=store.blobs.put_image(builders.image(5000 + seed, size_px=builders.SIDE)), seed=seed, engine="compact",
        model_id=builders.engine_id(store, project), adapter_id=None, purpose="draw", is_composite=True,
        settings={"inpaint": {"image_id": real.id, "class_index": 1, "dilate_px": 8}}, source_blob=real.blob,
        parent_id=parent.id if parent else None)  # fmt: skip
    store.curate([sample.id], "accepted", actor="ann")
    return sample


@pytest.mark.parametrize("format", ["imagefolder", "nnunet"])
def test_a_composite_carries_its_own_mark_and_its_patients_group(tmp_path: Path, store: Store, format: str) -> None:
    project = builders.make_project(store)
    real = store.images(project.id)[2]  # the second training patient
    made = add_composite(store, real, 1)
    job = builders.export(store, project, tmp_path / "out", format=format)
    assert job.state == "done", job.error
    assert job.result["counts"]["train"] == {"composite": 1, "real": 4}
    rows = [json.loads(line) for line in (tmp_path / "out/items.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row["kind"] == "composite")
    reals = {row["lineage"]["image_id"]: row for row in rows if row["kind"] == "real"}
    assert row["group"] == reals[real.id]["group"] and row["split"] == "train" and row["name"] == f"composite-{made.id:06d}"
    assert row["lineage"]["source_blob"] == real.blob and row["lineage"]["has_real_pixels"] is True
    png = (tmp_path / "out" / row["image"]).read_bytes()
    with Image.open(tmp_path / "out" / row["image"]) as picture:
        assert COMPOSITE in picture.text["XML:com.adobe.xmp"] and "compositeWithTrainedAlgorithmicMedia" in COMPOSITE
        np.testing.assert_array_equal(np.asarray(picture), store.blobs.image(made.blob))
    assert mark_of(png) == "composite" and verify_export(tmp_path / "out", store=store) == []
    if format == "imagefolder":
        lines = (tmp_path / "out/train/metadata.jsonl").read_text().splitlines()
        told = json.loads(next(line for line in lines if "composite" in line))
        assert (told["kind"], told["synthetic"]) == ("composite", False)


def test_pixels_of_a_test_patient_stay_out_even_under_a_free_drawing(tmp_path: Path, store: Store) -> None:
    project = builders.make_project(store)
    images = store.images(project.id)
    held = [image for image in images if image.split in ("val", "test")]
    first = add_composite(store, held[0], 1)
    add_composite(store, held[-1], 2, parent=first)
    add_composite(store, images[0], 3)
    job = builders.export(store, project, tmp_path / "out", format="imagefolder")
    assert job.result["left_out"] == {"composite, pixels of a validation or test patient": 2}


def test_a_composite_that_claims_to_be_synthetic_is_found(tmp_path: Path, store: Store) -> None:
    from saadi.exports.manifest import item_line, sha256

    project = builders.make_project(store)
    add_composite(store, store.images(project.id)[0], 1)
    builders.export(store, project, tmp_path / "out", format="imagefolder")
    items, manifest = tmp_path / "out/items.jsonl", tmp_path / "out/manifest.json"
    rows = [json.loads(line) for line in items.read_text().splitlines()]
    next(row for row in rows if row["kind"] == "composite")["kind"] = "synthetic"
    items.write_bytes(b"".join(map(item_line, rows)))
    told = json.loads(manifest.read_text()) | {"items_sha256": sha256(items.read_bytes())}
    manifest.write_text(json.dumps(told))
    assert any("lacks its mark" in problem for problem in verify_export(tmp_path / "out"))


def test_text_in_the_picture_below_holds_what_was_painted_into_it(tmp_path: Path, store: Store) -> None:
    project = builders.make_project(store)
    real, clean = store.images(project.id)[2:4]
    first = add_composite(store, real, 1)
    add_composite(store, clean, 2)
    store.add_sample(
        project.id, label_map_id=first.label_map_id, label_map_rev=1, label_map_blob=first.label_map_blob, seed=3,
        blob=store.blobs.put_image(builders.image(9000, size_px=builders.SIDE)), engine="compact", adapter_id=None,
        model_id=first.model_id, settings={}, purpose="draw", source_blob=first.blob)  # fmt: skip
    store.curate([store.samples(project.id)[-1].id], "accepted", actor="ann")
    store.add_texts({real.blob: [[1, 1, 8, 4]], first.blob: [[1, 1, 8, 4]]}, detector="any")
    store.clear_texts([first.blob], person="eve")
    told = builders.export(store, project, tmp_path / "out", format="folders").result
    assert told["left_out"]["composite, shows text that nobody has called harmless"] == 1
    assert told["counts"]["train"] == {"composite": 1, "real": 3, "synthetic": 1}
    store.clear_texts([first.blob], person="eve", is_harmless=False)
    told = builders.export(store, project, tmp_path / "next", format="folders").result
    assert told["left_out"]["synthetic, shows text that nobody has called harmless"] == 1
    store.clear_texts([real.blob, first.blob], person="eve")
    assert builders.export(store, project, tmp_path / "third", format="folders").result["num_items"] == told["num_items"] + 3
