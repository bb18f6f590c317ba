"""Pascal VOC, YOLO and plain folders by the rules of their consumers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from saadi.datasets.folder import import_folder, scan
from saadi.errors import BadInputError
from saadi.exports.manifest import sha256
from saadi.exports.verify import verify_export
from saadi.exports.voc import colour
from saadi.orders import ExportOrder
from saadi.records import LabelClass
from saadi.store import Store
from tests.exports.builders import SIDE, add_sample, export, full_project, label_map, make_project

FORMATS = ("voc", "yolo", "folders")


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]


def stored(store: Store, row: dict) -> np.ndarray | None:
    """The label map of an item in the store where it has the size of its image."""
    pixels = store.label_map_pixels(row["lineage"]["label_map"]["blob"])
    return pixels if pixels.shape == (row["height"], row["width"]) else None


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("ignore", [False, True])
def test_masks_come_back_pixel_for_pixel(tmp_path: Path, store: Store, format: str, ignore: bool) -> None:
    project = full_project(store, ignore=ignore)
    job = export(store, project, tmp_path / "out", format=format)
    assert job.state == "done", job.error
    compared = 0
    for row in rows(tmp_path / "out"):
        mask = np.asarray(Image.open(tmp_path / "out" / row["mask"]))
        if (expected := stored(store, row)) is not None:
            np.testing.assert_array_equal(mask, expected)
            compared += 1
    assert compared >= 8
    assert verify_export(tmp_path / "out", store=store) == []
    again = export(store, project, tmp_path / "again", format=format)
    one, other = ({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
                  for folder in (tmp_path / "out", tmp_path / "again"))  # fmt: skip
    assert again.state == "done" and one == other


def test_voc_has_the_palette_of_the_devkit_and_the_names_of_each_split(tmp_path: Path, store: Store) -> None:
    assert [colour(index) for index in (0, 1, 2, 3, 255)] == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (224, 224, 192)]
    assert export(store, full_project(store, ignore=True), tmp_path / "out", format="voc").state == "done"
    lines = (tmp_path / "out" / "labelmap.txt").read_text().splitlines()
    assert lines[1:] == ["background:0,0,0::", "organ:128,0,0::", "ignore_class:0,128,0::"]
    for split, count in (("train", 9), ("val", 2), ("test", 2)):
        names = (tmp_path / "out" / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
        assert len(names) == count
        for name in names:
            with Image.open(tmp_path / "out" / "SegmentationClass" / f"{name}.png") as picture:
                assert picture.mode == "P"
                shown, indices = np.asarray(picture.convert("RGB")), np.asarray(picture)
            assert all(tuple(shown[indices == index][0]) == colour(index) for index in np.unique(indices).tolist())
            assert cv2.imread(str(tmp_path / "out" / "JPEGImages" / f"{name}.png")).shape[:2] == indices.shape


def test_yolo_lines_outline_the_masks(tmp_path: Path, store: Store) -> None:
    project = make_project(store)
    pixels = label_map(0)
    pixels[6:8, 7:9] = 0  # a hole
    pixels[20:22, 2:6] = 1
    blob = store.blobs.put_label_map(pixels)
    drawn = store.add_label_map(project.id, blob=blob, name="holes", author="ann", request_id="holes", origin="drawn")
    add_sample(store, project, drawn, 1, pixels=np.random.default_rng(9).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    job = export(store, project, tmp_path / "out", format="yolo", include_real=False)
    assert job.state == "done", job.error
    assert "polygons have no holes: 4 pixels more are 'organ' in 1 masks" in job.result["lost"]
    [row] = rows(tmp_path / "out")
    lines = (tmp_path / "out" / "labels" / "train" / f"{row['name']}.txt").read_text().splitlines()
    canvas = np.zeros((24, 24), np.uint8)
    for line in lines:
        number, *flat = line.split()
        points = np.rint(np.array(flat, float).reshape(-1, 2) * 24)
        low, high = points.min(0).astype(int), points.max(0).astype(int)  # the parts are boxes
        canvas[low[1] : high[1], low[0] : high[0]] = int(number) + 1
    expected = pixels.copy()
    expected[6:8, 7:9] = 1
    np.testing.assert_array_equal(canvas, expected)
    assert len(lines) == 3
    data, semantic = (yaml.safe_load((tmp_path / "out" / name).read_text()) for name in ("data.yaml", "semantic.yaml"))
    assert data == {"train": "images/train", "names": {0: "organ", 1: "ignore"}}
    assert semantic == data | {"masks_dir": "masks", "names": {0: "tissue", 1: "organ", 2: "ignore"}}


def test_plain_folders_are_taken_back_by_the_import(tmp_path: Path, store: Store) -> None:
    project = full_project(store)
    assert export(store, project, tmp_path / "out", format="folders").state == "done"
    with (tmp_path / "out" / "index.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert len(table) == 13 and {row["kind"] for row in table} == {"real", "synthetic"}
    other = store.create_project("back", task="segmentation", classes=project.classes, resolution=16, actor="ann")
    found = scan(tmp_path / "out", csv=tmp_path / "out" / "index.csv",
                 split_column="split", group_column="group")  # fmt: skip
    result = import_folder(store, other, found, actor="ann", values={0: 0, 1: 1, 2: 2})
    # Real ones are; what a model has made would count as real.
    assert result.num_added == 8 == sum(row["kind"] == "real" for row in table)
    assert len(result.refused) == 5 and all("a model has made it, or a part of it" in one.reason for one in result.refused)
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        assert len(store.images(other.id, splits=[split])) == count
    assert len({image.group_id for image in store.images(other.id)}) == 4
    kept = {store.label_map(image.label_map_id).blob for image in store.images(other.id, splits=["val"]) if image.label_map_id}
    assert kept == {row["lineage"]["label_map"]["blob"] for row in rows(tmp_path / "out") if row["split"] == "val"}


@pytest.mark.parametrize(("format", "file", "old", "new", "words"), [
    ("voc", "ImageSets/Segmentation/train.txt", "real-000001\n", "", "does not name the images of its split"),
    ("yolo", "labels/train/real-000001.txt", "0 ", "1 ", "the polygons differ from the mask"),
    ("yolo", "labels/train/real-000001.txt", "0 ", "7 ", "a line is no class with three points or more inside the image"),
    ("folders", "index.csv", ",train,", ",val,", "index.csv does not fit the manifest"),
])
def test_changes_are_found_even_where_the_hash_was_mended(
    tmp_path: Path, store: Store, format: str, file: str, old: str, new: str, words: str
) -> None:
    assert export(store, full_project(store), tmp_path / "out", format=format).state == "done"
    path, manifest_file = tmp_path / "out" / file, tmp_path / "out" / "manifest.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    manifest = json.loads(manifest_file.read_text())
    manifest["index_files"][file] = sha256(path.read_bytes())
    manifest_file.write_text(json.dumps(manifest))
    assert words in " ".join(verify_export(tmp_path / "out"))


@pytest.mark.parametrize("format", [*FORMATS, "coco", "nnunet", "imagefolder"])
def test_odd_names_of_classes_are_written_so_that_they_can_be_read(tmp_path: Path, store: Store, format: str) -> None:
    names = ("tissue", "ignore", "ignore_class", "a:b", "a b", ":", "#1 'grasper', \"x\"", "=1+1", "a\x7fb")
    classes = tuple(LabelClass(index, name, "#000000") for index, name in enumerate(names))
    project = store.create_project("odd", task="segmentation", classes=classes, resolution=SIDE, actor="ann")
    pixels = np.arange(24 * 24, dtype=np.uint8).reshape(24, 24) // 8 % len(names)
    drawn = store.add_label_map(project.id, blob=store.blobs.put_label_map(pixels), name="d", author="ann", request_id="d",
                                origin="drawn")  # fmt: skip
    add_sample(store, project, drawn, 1, pixels=np.random.default_rng(9).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    job = export(store, project, tmp_path / "out", format=format, include_real=False)
    assert job.state == "done", job.error
    assert verify_export(tmp_path / "out", store=store) == []
    if format == "voc":
        lines = (tmp_path / "out" / "labelmap.txt").read_text().splitlines()[1:]
        assert len({line.split(":")[0] for line in lines}) == len(names)
        assert not any(line.startswith(("#", ":")) for line in lines)
    if format == "yolo":
        told = yaml.safe_load((tmp_path / "out" / "semantic.yaml").read_text())["names"]
        assert told[6] == names[6] and told[7] == names[7] and len(told) == len(names)


def test_a_damaged_index_is_told_in_words(tmp_path: Path, store: Store) -> None:
    for format, file in (("voc", "labelmap.txt"), ("coco", "annotations/instances_train.json"), ("folders", "classes.csv")):
        out = tmp_path / format
        if format == "voc":
            project = full_project(store)
        assert export(store, project, out, format=format).state == "done"
        (out / file).write_bytes(b"[]\n")
        manifest = json.loads((out / "manifest.json").read_text())
        manifest["index_files"][file] = sha256((out / file).read_bytes())
        (out / "manifest.json").write_text(json.dumps(manifest))
        assert verify_export(out)


def test_classes_of_whole_images_go_into_folders_and_nowhere_else(tmp_path: Path, store: Store) -> None:
    whole = store.create_project("w", task="classification", classes=full_project(store).classes, resolution=16, actor="ann")
    for format, words in (("voc", "Pascal VOC holds masks"), ("yolo", "YOLO holds outlines")):
        with pytest.raises(BadInputError, match=words):
            ExportOrder(project_id=whole.id, format=format).check(store)
