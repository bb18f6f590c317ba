"""Each format by the rules of its consumer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from saadi.errors import BadInputError
from saadi.exports.formats import format_named
from saadi.exports.nnunet import make_folds
from saadi.store import Store
from tests.exports.builders import export, full_project


def dataset(tmp_path: Path, store: Store, *, ignore: bool = False) -> Path:
    project = full_project(store, ignore=ignore)
    job = export(store, project, tmp_path / "out", format="nnunet")
    assert job.state == "done", job.error
    return tmp_path / "out" / "Dataset001_GallBladderNave"


def test_nnunet_has_the_layout_and_keys_of_version_2(tmp_path: Path, store: Store) -> None:
    root = dataset(tmp_path, store)
    content = json.loads((root / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "R", "1": "G", "2": "B"} and content["file_ending"] == ".png"
    assert content["labels"] == {"background": 0, "organ": 1, "ignore_class": 2}
    assert content["overwrite_image_reader_writer"] == "NaturalImage2DIO" and content["numTraining"] == 11
    cases = {path.name[:-9] for path in (root / "imagesTr").glob("*_0000.png")}
    assert cases == {path.stem for path in (root / "labelsTr").iterdir()} and len(cases) == 11
    assert {path.stem for path in (root / "labelsTs").iterdir()} == {"real-000007", "real-000008"}
    for case in cases:
        with (
            Image.open(root / "imagesTr" / f"{case}_0000.png") as picture,
            Image.open(root / "labelsTr" / f"{case}.png") as label,
        ):
            assert picture.mode == "RGB" and label.mode == "L" and picture.size == label.size


def test_nnunet_ignore_is_the_highest_label(tmp_path: Path, store: Store) -> None:
    root = dataset(tmp_path, store, ignore=True)
    assert json.loads((root / "dataset.json").read_text())["labels"]["ignore"] == 3
    label = np.asarray(Image.open(root / "labelsTr" / "real-000001.png"))
    assert (label[:2] == 3).all() and label.max() == 3


def test_nnunet_folds_are_the_projects_own_split(tmp_path: Path, store: Store) -> None:
    root = dataset(tmp_path, store)
    (fold,) = json.loads((root.parent / "splits_final.json").read_text())
    assert (
        fold["val"] == ["real-000005", "real-000006"] and len(fold["train"]) == 9 and not set(fold["train"]) & set(fold["val"])
    )


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=30))
def test_folds_without_validation_split_keep_groups_and_synthetic_images_apart(cases: list[tuple[int, bool]]) -> None:
    rows: list[dict[str, Any]] = [
        {"name": f"case-{index}", "group": f"group-{group}", "kind": "real" if real else "synthetic", "split": "train"}
        for index, (group, real) in enumerate(cases)
    ]
    by_name = {row["name"]: row for row in rows}
    folds = make_folds(rows)
    num_groups = len({row["group"] for row in rows if row["kind"] == "real"})
    assert len(folds) == (min(5, num_groups) if num_groups > 1 else 0)
    for fold in folds:
        assert fold["train"] and fold["val"] and all(by_name[name]["kind"] == "real" for name in fold["val"])
        assert not {by_name[name]["group"] for name in fold["train"]} & {by_name[name]["group"] for name in fold["val"]}
    assert {name for fold in folds for name in fold["val"]} == (
        {row["name"] for row in rows if row["kind"] == "real"} if folds else set()
    )


@pytest.mark.parametrize("label", [None, "dissection"])
def test_imagefolder_metadata_have_equal_columns_and_relative_names(tmp_path: Path, store: Store, label: str | None) -> None:
    # With a label the set holds labelled images and an accepted drawing that has none.
    job = export(store, full_project(store, ignore=True, label=label), tmp_path / "out", format="imagefolder")
    assert job.state == "done", job.error
    columns = set()
    for split, number in (("train", 9), ("val", 2), ("test", 2)):
        lines = [json.loads(line) for line in (tmp_path / "out" / split / "metadata.jsonl").read_text().splitlines()]
        assert len(lines) == number
        for line in lines:
            columns.add(tuple(sorted((key, type(value)) for key, value in line.items())))
            image, mask = (Image.open(tmp_path / "out" / split / line[key]) for key in ("file_name", "mask_file_name"))
            assert image.size == mask.size and mask.mode == "L" and set(np.unique(np.asarray(mask))) <= {0, 1, 2, 255}
            assert json.loads(line["lineage"])["label_map"]["rev"] == 1
    assert len(columns) == 1


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(BadInputError, match="choose imagefolder, nnunet, coco, voc, yolo, folders or preferences"):
        format_named("dicom")
