"""Data sets in the formats of others: what was exported comes back pixel for pixel, and what is odd is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saadi.datasets import readers
from saadi.datasets.folder import import_folder, scan, suggested_values
from saadi.errors import BadInputError
from saadi.records import LabelClass, Project
from saadi.store import Store
from tests.exports.builders import add_sample, export, full_project, label_map, make_project

FORMATS = ("imagefolder", "nnunet", "coco", "voc", "yolo", "folders")
OWN = ("manifest.json", "items.jsonl", "croissant.json", "datasheet.md", "card.html")
NAMES = {"imagefolder": "imagefolder", "nnunet": "nnunet", "coco": "coco", "voc": "voc", "yolo": "yolo", "folders": "folder"}


def exported(store: Store, folder: Path, kind: str, *, ignore: bool = False, **options: Any) -> Project:
    """Real images of four patients as a data set of a format, which nothing says to be ours."""
    project = make_project(store, ignore=ignore)
    add_sample(store, project, store.images(project.id)[0], 1)
    job = export(store, project, folder, format=kind, include_real=True, **options)
    assert job.state == "done", job.error
    for name in OWN:
        (folder / name).unlink(missing_ok=True)
    return project


def label_maps(store: Store, project: Project) -> dict[str, tuple[str, str]]:
    """Image blob -> label map blob and split."""
    maps = {record.image_id: record.blob for record in store.label_maps(project.id)}
    return {image.blob: (maps[image.id], image.split) for image in store.images(project.id)}


def again(store: Store, like: Project, folder: Path, **options: Any) -> tuple[Project, Any]:
    """A new project with the same classes and what is read from the folder."""
    project = store.create_project("again", task="segmentation", classes=like.classes, resolution=16, actor="ann")
    found = scan(folder, **options)
    assert ["model has made it" in problem.reason for problem in found.problems] == [True], "the synthetic one"
    return project, found


@pytest.mark.parametrize("kind", FORMATS)
def test_what_was_exported_comes_back_pixel_for_pixel(tmp_path: Path, store: Store, kind: str) -> None:
    first = exported(store, tmp_path / "out", kind)
    second, found = again(store, first, tmp_path / "out")
    assert found.kind == NAMES[kind] and readers.kind_of(tmp_path / "out") == NAMES[kind]
    values = suggested_values(found, second.classes)
    result = import_folder(store, second, found, values=values, actor="ann")
    assert result.num_added == 8 and len(result.refused) == 1, result
    before, after = label_maps(store, first), label_maps(store, second)
    assert {blob: mask for blob, (mask, _) in before.items()} == {blob: mask for blob, (mask, _) in after.items()}
    if kind != "nnunet":  # which of five folds a case validates in is no split
        assert {blob: side for blob, (_, side) in before.items()} == {blob: side for blob, (_, side) in after.items()}


@pytest.mark.parametrize("kind", ["imagefolder", "nnunet", "voc", "yolo", "folders"])
def test_pixels_that_do_not_count_come_back_where_the_format_holds_masks(tmp_path: Path, store: Store, kind: str) -> None:
    first = exported(store, tmp_path / "out", kind, ignore=True)
    second, found = again(store, first, tmp_path / "out")
    # A class of this project is called 'ignore', so a person says what each value is.
    highest = 3 if kind == "nnunet" else 255
    import_folder(store, second, found, values={0: 0, 1: 1, 2: 2, highest: 255}, actor="ann")
    before, after = label_maps(store, first), label_maps(store, second)
    assert {blob: mask for blob, (mask, _) in before.items()} == {blob: mask for blob, (mask, _) in after.items()}


@pytest.mark.parametrize("options", [{"outlines": "rle"}, {"outlines": "polygons"}, {"instances": "class"}])
def test_coco_outlines_of_all_kinds_are_read(tmp_path: Path, store: Store, options: dict[str, str]) -> None:
    first = exported(store, tmp_path / "out", "coco", **options)
    shutil.rmtree(tmp_path / "out" / "masks")
    second, found = again(store, first, tmp_path / "out")
    import_folder(store, second, found, values=suggested_values(found, second.classes), actor="ann")
    assert {mask for mask, _ in label_maps(store, first).values()} == {mask for mask, _ in label_maps(store, second).values()}


def test_yolo_outlines_are_read_where_there_are_no_masks(tmp_path: Path, store: Store) -> None:
    first = exported(store, tmp_path / "out", "yolo")
    (tmp_path / "out" / "semantic.yaml").unlink()
    shutil.rmtree(tmp_path / "out" / "masks")
    second, found = again(store, first, tmp_path / "out")
    assert found.names == {0: "background", 1: "organ", 2: "ignore"}
    import_folder(store, second, found, values=suggested_values(found, second.classes), actor="ann")
    assert label_maps(store, first) == label_maps(store, second)


def test_an_export_of_ours_brings_patients_and_sides_with_it(tmp_path: Path, store: Store) -> None:
    first = make_project(store)
    add_sample(store, first, store.images(first.id)[0], 1)
    assert export(store, first, tmp_path / "out", format="coco", include_real=True).state == "done"
    second, found = again(store, first, tmp_path / "out")
    assert found.kind == "saadi" and len(found.groups) == 4
    import_folder(store, second, found, values=suggested_values(found, second.classes), actor="ann")
    groups = {image.blob: image.group_id for image in store.images(first.id)}
    others = {image.blob: image.group_id for image in store.images(second.id)}
    assert len({(groups[blob], others[blob]) for blob in groups}) == 4
    assert label_maps(store, first) == label_maps(store, second)


def test_synthetic_images_of_an_export_are_refused(tmp_path: Path, store: Store) -> None:
    assert export(store, full_project(store), tmp_path / "out", format="voc", include_real=True).state == "done"
    found = scan(tmp_path / "out")
    assert len(found.pairs) == 8 and all("model has made it" in problem.reason for problem in found.problems) and found.problems


# ---- COCO as others write it


def coco(folder: Path, annotations: list[dict], *, name: str = "annotations/instances_default.json", **image: Any) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "images" / "a.png")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({
        "images": [{"id": 7, "file_name": "a.png", "width": 30, "height": 20} | image], "annotations": annotations,
        "categories": [{"id": 300, "name": "polyp"}, {"id": 2, "name": "tool"}]}))


def test_smaller_objects_lie_on_larger_ones_and_large_ids_are_counted_anew(tmp_path: Path) -> None:
    small = {"id": 1, "image_id": 7, "category_id": 2, "segmentation": [[4, 4, 8, 4, 8, 8, 4, 8]]}
    large = {"id": 2, "image_id": 7, "category_id": 300, "segmentation": {"size": [20, 30], "counts": [0, 400, 200]}}
    coco(tmp_path, [small, large])
    found = scan(tmp_path)
    assert found.kind == "coco" and found.names == {0: "background", 1: "polyp", 2: "tool"}
    assert found.values == {0: (200, 1), 1: (384, 1), 2: (16, 1)} and any("overlap" in note for note in found.notes)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"segmentation": []}, "box without an outline"),
        ({"segmentation": [[1, 1, 2, 2]]}, "three points"),
        ({"segmentation": [[1, 1, 2, 2, float("nan"), 3]]}, "three points"),
        ({"segmentation": {"size": [20, 30], "counts": [5]}}, "fits the image"),
        ({"segmentation": {"size": [20, 30], "counts": "0000"}}, "fits the image"),
        ({"segmentation": {"size": [20, 30], "counts": "~~~~~"}}, "fits the image"),
        ({"segmentation": {"size": [2, 3], "counts": [6]}}, "3 x 2 pixels, its image has 30 x 20"),
        ({"category_id": 9}, "no known category"),
        ({"segmentation": "all of it"}, "cannot be read"),
    ],
)
def test_broken_objects_refuse_their_image(tmp_path: Path, annotation: dict, words: str) -> None:
    coco(tmp_path, [{"id": 1, "image_id": 7, "category_id": 2, "segmentation": [[1, 1, 5, 1, 5, 5]]} | annotation])
    found = scan(tmp_path)
    assert not found.pairs and words in found.problems[0].reason


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "missing.png", ""])
def test_coco_never_opens_what_lies_outside(tmp_path: Path, name: str) -> None:
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "secret.png")
    coco(tmp_path / "set", [], file_name=name)
    found = scan(tmp_path / "set", kind="coco")
    assert not found.pairs and "no file or more than one fits it" in found.problems[0].reason


@pytest.mark.parametrize("change", [{"id": "7"}, {"id": 7.0}])
def test_objects_of_an_image_that_is_not_listed_refuse_the_document(tmp_path: Path, change: dict) -> None:
    coco(tmp_path, [{"id": 1, "image_id": 7, "category_id": 2, "segmentation": [[1, 1, 5, 1, 5, 5]]}], **change)
    if change["id"] == "7":  # a number as text is the same number
        assert scan(tmp_path).values[2][0] > 5
        return
    with pytest.raises(BadInputError, match=r"1 objects in .* belong to an image_id"):
        scan(tmp_path)


def test_outlines_drawn_for_another_size_refuse_their_image(tmp_path: Path) -> None:
    ring = {"id": 1, "image_id": 7, "category_id": 2, "segmentation": [[100, 100, 200, 100, 200, 200]]}
    coco(tmp_path, [ring], width=300, height=200)
    assert "drawn for 300 x 200 pixels, the image has 30 x 20" in scan(tmp_path).problems[0].reason
    coco(tmp_path, [ring])
    assert "an outline of this image leaves it" in scan(tmp_path).problems[0].reason


def test_outlines_without_end_and_crowds_are_refused_before_they_are_drawn(tmp_path: Path) -> None:
    zigzag = {"id": 1, "image_id": 7, "category_id": 2, "segmentation": [[0, 0, 30, 20] * 5_000]}
    coco(tmp_path, [zigzag])
    assert "winds around without end" in scan(tmp_path).problems[0].reason
    coco(tmp_path, [{"id": n, "image_id": 7, "category_id": 2, "segmentation": [[1, 1, 2, 1, 2, 2]]} for n in range(6_000)])
    assert "6000 objects, 5000 are allowed" in scan(tmp_path).problems[0].reason


def test_images_without_objects_are_counted(tmp_path: Path) -> None:
    coco(tmp_path, [])
    assert any("1 of 1 images have no object" in note for note in scan(tmp_path).notes)


@pytest.mark.parametrize("named", [{"patient": 0}, {"patient_id": "A"}, {"case_id": 7}, {"Video": "v"}])
def test_patients_are_read_under_common_names(tmp_path: Path, named: dict) -> None:
    coco(tmp_path, [], **named)
    assert list(scan(tmp_path).groups) == [str(next(iter(named.values())))]


def test_equal_names_in_folders_of_their_own_are_different_images(tmp_path: Path) -> None:
    for side in ("train", "test"):
        (tmp_path / side).mkdir()
        Image.fromarray(np.full((20, 30, 3), len(side), np.uint8)).save(tmp_path / side / "a.png")
        (tmp_path / side / "_annotations.coco.json").write_text(json.dumps({
            "images": [{"id": 1, "file_name": "a.png", "width": 30, "height": 20}], "annotations": [],
            "categories": [{"id": 1, "name": "polyp"}]}))  # fmt: skip
    assert {pair.name: pair.split for pair in scan(tmp_path).pairs} == {"train/a.png": "train", "test/a.png": "test"}


@pytest.mark.parametrize(("name", "side"), [("train.coco", "train"), ("instances_train2018", "train"), ("TestSet", "test"),
                                            ("valid1", "val"), ("all", None)])  # fmt: skip
def test_sides_are_read_from_names_of_documents(tmp_path: Path, name: str, side: str | None) -> None:
    coco(tmp_path, [], name=f"annotations/{name}.json")
    assert scan(tmp_path).pairs[0].split == side


def test_an_image_on_two_sides_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for letter in "abc":
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "images" / f"{letter}.png")
    for side, letters in (("train", "ab"), ("test", "bc")):
        (tmp_path / f"{side}.json").write_text(json.dumps({
            "images": [{"id": n, "file_name": f"{letter}.png"} for n, letter in enumerate(letters)], "annotations": [],
            "categories": [{"id": 1, "name": "polyp"}]}))  # fmt: skip
    with pytest.raises(BadInputError, match=r"named for (train|test) and for (train|test)"):
        scan(tmp_path)


@pytest.mark.parametrize(
    "document",
    [{"images": [None], "annotations": [], "categories": [{"id": 1, "name": "x"}]}, {"images": 1, "annotations": "category_id"},
     {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": [1], "category_id": float("inf")}],
      "categories": [{"id": 1, "name": "x"}]}],
)  # fmt: skip
def test_odd_documents_end_in_a_sentence(tmp_path: Path, document: dict) -> None:
    coco(tmp_path, [])
    (tmp_path / "annotations/instances_default.json").write_text(json.dumps(document))
    with pytest.raises(BadInputError, match=r"no JSON here has lists|belong to an image_id|cannot be read"):
        scan(tmp_path, kind="coco")


# ---- descriptions that do not fit


def nnunet(folder: Path, dataset: Any) -> Path:
    root = folder / "Dataset007_x"
    for name in ("imagesTr", "labelsTr"):
        (root / name).mkdir(parents=True)
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(root / "imagesTr" / "a_0000.png")
    Image.fromarray(np.ones((20, 20), np.uint8)).save(root / "labelsTr" / "a.png")
    (root / "dataset.json").write_text(dataset if isinstance(dataset, str) else json.dumps(dataset))
    return root


def test_nnunet_labels_may_be_named_either_way_round(tmp_path: Path) -> None:
    nnunet(tmp_path / "new", {"labels": {"background": 0, "liver": 1}, "file_ending": ".png"})
    nnunet(tmp_path / "old", {"labels": {"0": "background", "1": "liver"}, "file_ending": ".png"})
    assert scan(tmp_path / "new").names == scan(tmp_path / "old").names == {1: "liver"}


@pytest.mark.parametrize(
    ("dataset", "words"),
    [("{", "no JSON"), ({"labels": {"b": 0}, "file_ending": "**"}, "an ending such as .png"),
     ({"labels": {"b": 0}, "file_ending": ".tif"}, "no picture that ends in .tif"),
     ({"labels": {"a": [1, 2]}}, "regions"), ({}, "no plain labels"), ({"labels": {"a": "b"}}, "no number")],
)
def test_a_dataset_json_that_does_not_fit_is_refused(tmp_path: Path, dataset: Any, words: str) -> None:
    nnunet(tmp_path, dataset)
    with pytest.raises(BadInputError, match=words):
        scan(tmp_path)


def test_several_modalities_are_refused(tmp_path: Path) -> None:
    root = nnunet(tmp_path, {"labels": {"background": 0, "liver": 1}, "file_ending": ".png"})
    shutil.copy(root / "imagesTr" / "a_0000.png", root / "imagesTr" / "a_0001.png")
    found = scan(tmp_path)
    assert not found.pairs and "modalities" in found.problems[0].reason


def yolo(folder: Path, lines: str, names: Any = ("polyp",)) -> None:
    for part in ("images", "labels"):
        (folder / part / "train").mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / "images" / "train" / "a.png")
    (folder / "labels" / "train" / "a.txt").write_text(lines)
    (folder / "data.yaml").write_text(json.dumps({"train": "images/train", "names": names}))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("0 0.5 0.5 0.2 0.2", "is a box"),
        ("1 0.1 0.1 0.5 0.1 0.5 0.5", "class 1, the description names 0 to 0"),
        ("0 0.1 0.1 0.5", "no outline"),
        ("0 0.1 0.1 0.5 0.1 9 0.5", "shares 0 to 1"),
        ("polyp 0.1 0.1 0.5 0.1 0.5 0.5", "no class and coordinates"),
    ],
)
def test_yolo_lines_that_are_no_outlines_are_refused(tmp_path: Path, lines: str, words: str) -> None:
    yolo(tmp_path, f"0 0.1 0.1 0.5 0.1 0.5 0.5\n{lines}\n", ["polyp"])
    found = scan(tmp_path)
    assert not found.pairs and words in found.problems[0].reason and "line 2" in found.problems[0].reason


def test_a_yolo_image_without_lines_shows_nothing_and_that_is_said(tmp_path: Path) -> None:
    yolo(tmp_path, "0 0 0 1 0 1 1", {"0": "polyp"})
    shutil.move(tmp_path / "labels", tmp_path / "Labels")
    shutil.copy(tmp_path / "images/train/a.png", tmp_path / "images/train/b.png")
    found = scan(tmp_path)
    assert found.values[0][1] == 2 and any("1 of 2 images have no text file" in note for note in found.notes)
    (tmp_path / "Labels/train/a.txt").unlink()
    with pytest.raises(BadInputError, match="no image has a text file"):
        scan(tmp_path)


@pytest.mark.parametrize("place", ["../secret", "{root}/secret", "/etc"])
def test_masks_outside_the_folder_are_never_opened(tmp_path: Path, place: str) -> None:
    yolo(tmp_path / "set", "", ["polyp"])
    for folder in (tmp_path / "secret/train", tmp_path / "secret"):
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((20, 20), np.uint8)).save(folder / "a.png")
    text = {"train": "images/train", "names": ["polyp"], "masks_dir": place.format(root=tmp_path)}
    (tmp_path / "set/data.yaml").write_text(json.dumps(text))
    found = scan(tmp_path / "set", kind="yolo")
    assert not found.pairs and "no mask of the same name" in found.problems[0].reason


@pytest.mark.parametrize("text", ["x: !!int ''\n", "x: !!bool foo\n", "x: !!timestamp foo\n", "x: [\n", "\x00"])
def test_yaml_that_is_none_leaves_a_plain_folder_alone(tmp_path: Path, text: str) -> None:
    from tests.datasets.test_folder import pair

    pair(tmp_path, "a", 1)
    (tmp_path / "notes.yaml").write_text(text)
    assert len(scan(tmp_path).pairs) == 1


def test_yaml_that_grows_when_it_is_written_out_is_no_description(tmp_path: Path) -> None:
    yolo(tmp_path, "")
    levels = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12))]
    (tmp_path / "data.yaml").write_text("\n".join([*levels, "train: images/train", "names: *a11"]))
    assert readers.kind_of(tmp_path) == "folder"


def test_yaml_with_code_in_it_is_no_description(tmp_path: Path) -> None:
    yolo(tmp_path, "")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: !!python/object/apply:os.system ['touch owned']\n")
    assert readers.kind_of(tmp_path) == "folder" and not (tmp_path / "owned").exists()


def test_voc_colours_and_palettes_mean_the_same(tmp_path: Path) -> None:
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / part).mkdir(parents=True)
    pixels = label_map(1)
    colours = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
    for name, mask in {"palette": Image.fromarray(pixels), "colour": Image.fromarray(colours[pixels])}.items():
        Image.fromarray(np.full((24, 24, 3), len(name), np.uint8)).save(tmp_path / "JPEGImages" / f"{name}.png")
        if name == "palette":
            mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        mask.save(tmp_path / "SegmentationClass" / f"{name}.png")
    lines = ("# label:color_rgb:parts:actions", "background:0,0,0::", "liver:128,0,0::", "tool:0,128,0::")
    (tmp_path / "labelmap.txt").write_text("\n".join(lines))
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("colour\n")
    classes = [LabelClass(index, name, "#000000") for index, name in enumerate(("background", "liver", "tool"))]
    found = scan(tmp_path)
    values = suggested_values(found, classes)
    maps = {pair.name: pair.mask.mask((24, 24)).mapped(values) for pair in found.pairs if pair.mask}
    assert len(maps) == 2 and all(np.array_equal(found, pixels) for found in maps.values())
    assert {pair.name: pair.split for pair in found.pairs} == {"JPEGImages/colour.png": "val", "JPEGImages/palette.png": None}
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("colour\n")
    with pytest.raises(BadInputError, match="named for"):
        scan(tmp_path)


def test_an_unknown_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no format 'mat'"):
        scan(tmp_path, kind="mat")
