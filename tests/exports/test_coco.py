"""COCO: what pycocotools reads is what the store holds, objects by part or class, and what polygons lose is told before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from saadi.errors import BadInputError
from saadi.exports import coco
from saadi.exports.manifest import sha256
from saadi.exports.verify import verify_export
from saadi.orders import ExportOrder
from saadi.records import LabelMap, Project
from saadi.store import Store
from tests.exports.builders import add_sample, export, full_project, label_map, make_project


def read(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> COCO:
    found = COCO(str(folder / "annotations" / name))
    capsys.readouterr()
    return found


def painted(coco: COCO, image_id: int) -> LabelMap:
    """The label map that the annotations of an image make."""
    image = coco.imgs[image_id]
    canvas = np.zeros((image["height"], image["width"]), np.uint8)
    for annotation in coco.imgToAnns[image_id]:
        canvas[coco.annToMask(annotation) == 1] = annotation["category_id"]
    return canvas


@pytest.mark.parametrize("instances", ["component", "class"])
@pytest.mark.parametrize("ignore", [False, True])
def test_annotations_make_the_label_maps_again(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str], instances: str, ignore: bool
) -> None:
    project = full_project(store, ignore=ignore)
    job = export(store, project, tmp_path / "out", format="coco", instances=instances)
    assert job.state == "done", job.error
    rows = {row["name"]: row for row in map(json.loads, (tmp_path / "out" / "items.jsonl").read_text().splitlines())}
    num_images = 0
    for split in ("train", "val", "test"):
        coco = read(tmp_path / "out", f"instances_{split}.json", capsys)
        assert {category["id"]: category["name"] for category in coco.cats.values()} == {1: "organ", 2: "ignore"}
        for image_id, image in coco.imgs.items():
            row = rows[Path(image["file_name"]).stem]
            assert row["split"] == split and (tmp_path / "out" / image["file_name"]).is_file()
            stored = store.label_map_pixels(row["lineage"]["label_map"]["blob"])
            if stored.shape == (row["height"], row["width"]):
                np.testing.assert_array_equal(painted(coco, image_id), np.where(stored == 255, 0, stored))
            assert all(one["iscrowd"] == 0 and isinstance(one["segmentation"]["counts"], str) for one in coco.imgToAnns[image_id])
            num_images += 1
    assert num_images == len(rows) == 13
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["options"] == {"instances": instances, "outlines": "rle"}
    assert manifest["lost"][0] == "'tissue' is no category: it is what no object covers"
    assert ("pixels that do not count are in masks/ alone: COCO has no word for them" in manifest["lost"]) == ignore
    assert verify_export(tmp_path / "out", store=store) == []


def with_holes(store: Store) -> tuple[Project, LabelMap]:
    """A project with one sample whose organ has a hole and comes in two parts."""
    project = make_project(store)
    pixels = label_map(0)
    pixels[6:8, 7:9] = 0
    pixels[20:22, 2:6] = 1
    blob = store.blobs.put_label_map(pixels)
    drawn = store.add_label_map(project.id, blob=blob, name="holes", author="ann", request_id="holes", origin="drawn")
    add_sample(store, project, drawn, 1, pixels=np.random.default_rng(9).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    return project, pixels


def test_parts_are_objects_of_their_own_and_holes_stay_in_codes(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    project, pixels = with_holes(store)
    for instances, count in (("component", 3), ("class", 2)):
        out = tmp_path / instances
        assert export(store, project, out, format="coco", include_real=False, instances=instances).state == "done"
        coco = read(out, "instances_train.json", capsys)
        assert len(coco.anns) == count
        np.testing.assert_array_equal(painted(coco, 1), pixels)
        organ = [one for one in coco.anns.values() if one["category_id"] == 1]
        assert sum(one["area"] for one in organ) == (pixels == 1).sum()
    rows, columns = np.nonzero(pixels == 1)
    [whole] = organ
    assert whole["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]


def test_polygons_fill_holes_and_the_export_says_how_many_pixels(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    project, pixels = with_holes(store)
    job = export(store, project, tmp_path / "out", format="coco", include_real=False, outlines="both")
    assert job.state == "done", job.error
    assert "polygons have no holes: 4 pixels more are 'organ' in 1 masks" in job.result["lost"]
    exact, outlined = (read(tmp_path / "out", f"{name}_train.json", capsys) for name in ("instances", "polygons"))
    np.testing.assert_array_equal(painted(exact, 1), pixels)
    expected = pixels.copy()
    expected[6:8, 7:9] = 1
    np.testing.assert_array_equal(painted(outlined, 1), expected)
    assert all(isinstance(one["segmentation"], list) for one in outlined.anns.values())
    only = export(store, project, tmp_path / "only", format="coco", include_real=False, outlines="polygons")
    assert only.state == "done" and not (tmp_path / "only" / "annotations" / "polygons_train.json").exists()


def test_what_was_changed_by_hand_is_found(tmp_path: Path, store: Store) -> None:
    project, _ = with_holes(store)
    assert export(store, project, tmp_path / "out", format="coco", include_real=False).state == "done"
    file, manifest_file = tmp_path / "out" / "annotations" / "instances_train.json", tmp_path / "out" / "manifest.json"
    content, manifest = json.loads(file.read_text()), json.loads(manifest_file.read_text())
    content["annotations"][0]["category_id"] = 2
    content["annotations"][1]["area"] += 1
    file.write_text(json.dumps(content))
    assert any("was changed after the export" in one for one in verify_export(tmp_path / "out"))
    # Even where the hash was mended, the objects are compared with the masks.
    manifest["index_files"]["annotations/instances_train.json"] = sha256(file.read_bytes())
    manifest_file.write_text(json.dumps(manifest))
    problems = " ".join(verify_export(tmp_path / "out"))
    assert "object 1 has another class" in problems and "area or box of object 2" in problems


def test_an_export_is_the_same_bytes_again(tmp_path: Path, store: Store) -> None:
    project = full_project(store)
    for name in ("a", "b"):
        assert export(store, project, tmp_path / name, format="coco", outlines="both").state == "done"
    one, other = ({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
                  for folder in (tmp_path / "a", tmp_path / "b"))  # fmt: skip
    assert one == other and len(one) > 13


def test_choices_of_coco_are_refused_elsewhere_and_classes_of_whole_images_too(store: Store) -> None:
    project = full_project(store)
    with pytest.raises(BadInputError, match="instances and outlines are choices of COCO, and nnunet has none"):
        ExportOrder(project_id=project.id, format="nnunet", outlines="polygons").check(store)
    whole = store.create_project("w", task="classification", classes=project.classes, resolution=16, actor="ann")
    with pytest.raises(BadInputError, match="COCO holds objects and this project classifies whole images"):
        ExportOrder(project_id=whole.id, format="coco").check(store)


def test_the_document_comes_in_pieces_that_do_not_grow_with_the_set(tmp_path: Path, store: Store) -> None:
    project = full_project(store)
    export(store, project, tmp_path / "out", format="coco")
    rows = [json.loads(line) for line in (tmp_path / "out/items.jsonl").read_text().splitlines()]
    made = coco.index_files(project, rows, coco.scheme(project.classes, has_ignore=False), tmp_path / "out",
                            {"instances": "component", "outlines": "rle"}, lambda number: None)  # fmt: skip
    document = made["annotations/instances_train.json"]
    assert not isinstance(document, bytes)
    pieces = list(document)
    assert len(pieces) == 3 + 9 + 18 and max(map(len, pieces)) < 700  # the frame, images, two objects each
    assert b"".join(pieces) == (tmp_path / "out/annotations/instances_train.json").read_bytes()
