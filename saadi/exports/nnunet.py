"""nnU-Net v2: DatasetXXX_Name with imagesTr, labelsTr, imagesTs, labelsTs, dataset.json, and splits_final.json beside it.

Rules of nnU-Net 2.8.1 (verify_dataset_integrity, NaturalImage2DIO, LabelManager): an RGB picture stays one file `case_0000.png`
with three channel names; labels are grey PNGs with consecutive ids from 0 = 'background'; 'ignore' is the highest id; numTraining
counts training and validation cases, which only splits_final.json tells apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from saadi.errors import BadInputError
from saadi.exports.labels import LabelScheme, label_scheme
from saadi.exports.layout import nothing_lost
from saadi.exports.manifest import NOTICE
from saadi.exports.selection import Item
from saadi.records import LabelClass, Project
from saadi.store.blobs import encode_png

NAME = "nnunet"
lost_in = nothing_lost
encode_mask = encode_png
SPLITS = "splits_final.json"
MAX_FOLDS = 5


def check_project(project: Project) -> None:
    """Raises: BadInputError: nnU-Net holds masks, and this project has none."""
    if project.task != "segmentation":
        raise BadInputError("nnU-Net holds masks and this project classifies whole images; choose the format imagefolder")


def scheme(classes: Sequence[LabelClass], *, has_ignore: bool) -> LabelScheme:
    """Consecutive ids; 255 becomes the number after the last class, called 'ignore'."""
    return label_scheme(classes, has_ignore=has_ignore, background_is_zero=True, ignore_is_highest=True)


def dataset_name(project: Project) -> str:
    """'Dataset007_kvasir': three digits from 001, then letters and digits."""
    slug = re.sub(r"[^A-Za-z0-9]+", "", project.name.title() if " " in project.name else project.name)[:40]
    return f"Dataset{(project.id - 1) % 999 + 1:03d}_{slug or 'Project'}"


def paths(project: Project, item: Item) -> tuple[PurePosixPath, PurePosixPath | None]:
    """Where image and mask go: validation cases lie beside the training cases."""
    root, ending = PurePosixPath(dataset_name(project)), "Ts" if item.split == "test" else "Tr"
    return root / f"images{ending}" / f"{item.name}_0000.png", root / f"labels{ending}" / f"{item.name}.png"


def index_files(
    project: Project, rows: Sequence[Mapping[str, Any]], scheme: LabelScheme, folder: Path, options: Mapping[str, str],
    progress: Callable[[int], None],
) -> dict[str, bytes]:  # fmt: skip
    """dataset.json, and splits_final.json where a grouped split can be made."""
    root = dataset_name(project)
    dataset = {
        "channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": dict(scheme.names),
        "numTraining": sum(row["split"] != "test" for row in rows), "file_ending": ".png",
        "overwrite_image_reader_writer": "NaturalImage2DIO", "name": root, "description": NOTICE,
    }
    files = {f"{root}/dataset.json": _json(dataset)}
    folds = make_folds(rows)
    if folds:
        files[SPLITS] = _json(folds)
    return files | {"README.md": _readme(root, bool(folds))}


def make_folds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, list[str]]]:
    """Folds as nnU-Net reads them: a list of {'train': names, 'val': names}; only real images validate, and no group does both.

    With a validation split there is one fold, the project's own. Without, up to five folds over the groups of real images. Empty
    where fewer than two groups have real images.
    """
    cases = [row for row in rows if row["split"] != "test"]
    held_out = [row for row in cases if row["split"] == "val"]
    if held_out:
        return [_fold(cases, {row["group"] for row in held_out})]
    groups = sorted({row["group"] for row in cases if row["kind"] == "real"})
    num_folds = min(MAX_FOLDS, len(groups))
    return [_fold(cases, set(groups[fold::num_folds])) for fold in range(num_folds)] if num_folds > 1 else []


def check(
    folder: Path, manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], progress: Callable[[int], None]
) -> list[str]:
    """Apply nnU-Net's own rules to the written files."""
    roots = sorted(path for path in folder.glob("Dataset[0-9][0-9][0-9]_*") if path.is_dir())
    if len(roots) != 1 or not (roots[0] / "dataset.json").is_file():
        return ["one folder DatasetXXX_Name with a dataset.json was expected"]
    dataset = json.loads((roots[0] / "dataset.json").read_text(encoding="utf-8"))
    needed = ("labels", "channel_names", "numTraining", "file_ending")
    problems = [f"dataset.json has no '{key}'" for key in needed if key not in dataset]
    if problems:
        return problems
    ids = list(dataset["labels"].values())
    if dataset["labels"].get("background") != 0 or ids != list(range(len(ids))):
        problems.append("labels are not consecutive from background = 0")
    if "ignore" in dataset["labels"] and dataset["labels"]["ignore"] != max(ids):
        problems.append("'ignore' is not the highest label")
    images, labels = _cases(roots[0] / "imagesTr", "_0000.png"), _cases(roots[0] / "labelsTr", ".png")
    if len(images) != dataset["numTraining"]:
        problems.append(f"numTraining is {dataset['numTraining']}, imagesTr has {len(images)} cases")
    if images != labels or _cases(roots[0] / "imagesTs", "_0000.png") != _cases(roots[0] / "labelsTs", ".png"):
        problems.append("images and labels do not name the same cases")
    return problems + _check_folds(folder / SPLITS, images, {row["name"]: row for row in rows})


def _check_folds(path: Path, cases: set[str], rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    problems: list[str] = []
    for number, fold in enumerate(json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []):
        train, val = set(fold["train"]), set(fold["val"])
        if not train or not val or train & val or not (train | val) <= cases:
            problems.append(f"fold {number} of {SPLITS} is empty, overlaps or names unknown cases")
        elif {rows[name]["group"] for name in train} & {rows[name]["group"] for name in val}:
            problems.append(f"fold {number} of {SPLITS} has a group on both sides")
        elif any(rows[name]["kind"] != "real" for name in val):
            problems.append(f"fold {number} of {SPLITS} validates on synthetic images")
    return problems


def _fold(cases: Sequence[Mapping[str, Any]], held_out: set[str]) -> dict[str, list[str]]:
    return {"train": sorted(row["name"] for row in cases if row["group"] not in held_out),
            "val": sorted(row["name"] for row in cases if row["group"] in held_out and row["kind"] == "real")}


def _cases(folder: Path, ending: str) -> set[str]:
    return {path.name.removesuffix(ending) for path in folder.glob(f"*{ending}")} if folder.is_dir() else set()


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _readme(root: str, has_folds: bool) -> bytes:
    folds = (f"Copy {SPLITS} into nnUNet_preprocessed/{root} before training: it keeps patients on one side and synthetic images "
             "out of validation." if has_folds else "There are too few real groups for validation: train with fold 'all'.")
    return f"{NOTICE}.\n\nPut {root} into nnUNet_raw. {folds}\n".encode()
