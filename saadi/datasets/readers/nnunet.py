"""nnU-Net v2: DatasetXXX_Name with imagesTr, labelsTr, imagesTs, labelsTs and dataset.json; splits_final.json tells validation.

An RGB picture is one file, `case_0000.png`; several files for one case are several modalities and are refused.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from saadi.datasets.folder_pairs import normal
from saadi.datasets.folder_table import Row
from saadi.datasets.readers.base import Entry, Listing, MaskFile, PictureFile, class_names, read_json
from saadi.errors import BadInputError
from saadi.records import Split

NAME = "nnunet"
CHANNEL = "_0000"


def is_here(root: Path) -> bool:
    """Whether the folder, or the only data set in it, has dataset.json beside imagesTr."""
    return len(_roots(root)) == 1


def listing(root: Path) -> Listing:
    """Training, validation and test cases.

    Raises:
        BadInputError: No or several data sets, labels that are regions, or files that are no pictures.
    """
    roots = _roots(root)
    if len(roots) != 1:
        raise BadInputError(f"{len(roots)} folders with a dataset.json beside imagesTr, one was expected; choose that of one "
                            "data set")  # fmt: skip
    here = roots[0]
    described = read_json(here / "dataset.json", "the description")
    labels = described.get("labels") if isinstance(described, dict) else None
    if not isinstance(labels, dict) or any(isinstance(value, list | dict) for value in labels.values()):
        raise BadInputError("dataset.json has no plain labels, name to number (regions of several numbers are not read); "
                            "write them so")  # fmt: skip
    ending = str(described.get("file_ending", ".png"))
    if not re.fullmatch(r"\.[A-Za-z0-9.]{1,12}", ending):
        raise BadInputError(f"dataset.json says files end in {ending[:20]!r}; an ending such as .png was expected")
    found = Listing(NAME, has_masks=True, names=class_names(labels, "the labels in dataset.json"))
    validation = _validation(root, here, found)
    for part, side in (("Tr", "train"), ("Ts", "test")):
        _cases(here, part, ending, "test" if side == "test" else None, validation, found)
    if not found.entries and not found.problems:
        raise BadInputError(f"imagesTr has no picture that ends in {ending}; correct file_ending in dataset.json (.png, .tif, "
                            ".bmp)")  # fmt: skip
    return found


def _roots(root: Path) -> list[Path]:
    candidates = [root, *(path for path in sorted(root.glob("Dataset[0-9][0-9][0-9]_*")) if path.is_dir())]
    return [path for path in candidates if (path / "dataset.json").is_file() and (path / "imagesTr").is_dir()]


def _validation(root: Path, here: Path, found: Listing) -> set[str] | None:
    """Cases of the validation side, where one split is told; None = nobody said which side a training case is on."""
    path = next((path for path in (root / "splits_final.json", here / "splits_final.json") if path.is_file()), None)
    folds: Any = read_json(path, "the folds") if path else []
    if not isinstance(folds, list) or not all(isinstance(fold, dict) and isinstance(fold.get("val"), list) for fold in folds):
        raise BadInputError("splits_final.json is no list of {train, val}; correct it or take it away")
    if len(folds) == 1:
        return {str(name) for name in folds[0]["val"]}
    if folds:
        found.notes.append(f"splits_final.json has {len(folds)} folds; validation is chosen anew, by patient")
    return None


def _cases(here: Path, part: str, ending: str, side: Split | None, validation: set[str] | None, found: Listing) -> None:
    images, labels = here / f"images{part}", here / f"labels{part}"
    cases: dict[str, list[Path]] = {}
    for path in sorted(images.glob(f"*{ending}")) if images.is_dir() else ():
        cases.setdefault(path.name.removesuffix(ending)[:-len(CHANNEL)], []).append(path)
    num_without = 0
    for case, paths in cases.items():
        mask = labels / f"{case}{ending}"
        if len(paths) > 1 or not paths[0].name.endswith(f"{CHANNEL}{ending}"):
            found.refuse(paths[0].name, f"{len(paths)} files are modalities of one case, one RGB picture `case_0000` was "
                                        "expected; join the channels first")  # fmt: skip
        elif not mask.is_file():
            num_without += 1
        else:
            told: Split | None = side or (None if validation is None else "val" if case in validation else "train")
            relative = PurePosixPath(f"images{part}", paths[0].name)
            found.entries.append(Entry(relative, PictureFile(paths[0], paths[0].name), MaskFile(mask, mask.name), Row(split=told),
                                       folders=(normal(f"images{part}"),)))  # fmt: skip
    if num_without:
        found.notes.append(f"{num_without} cases of images{part} have no labels and were left out")
