"""Plain folders: images/<split>, masks/<split>, index.csv; what every program reads. `saadi import` takes the real ones back."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from saadi.exports.labels import LabelScheme, label_scheme
from saadi.exports.layout import images_and_masks, nothing_lost
from saadi.exports.manifest import NOTICE
from saadi.records import LabelClass, Project
from saadi.store.blobs import encode_png

NAME = "folders"
lost_in = nothing_lost
encode_mask = encode_png
paths = images_and_masks
INDEX = "index.csv"
CLASSES = "classes.csv"
COLUMNS = ("image", "mask", "split", "group", "label", "kind")


def check_project(project: Project) -> None:
    """Every project can become plain folders."""


def scheme(classes: Sequence[LabelClass], *, has_ignore: bool) -> LabelScheme:
    """Class ids as in the store, 255 = ignore: nothing is lost."""
    return label_scheme(classes, has_ignore=has_ignore, background_is_zero=False, ignore_is_highest=False)


def index_files(
    project: Project, rows: Sequence[Mapping[str, Any]], scheme: LabelScheme, folder: Path, options: Mapping[str, str],
    progress: Callable[[int], None],
) -> dict[str, bytes]:  # fmt: skip
    """A row for each image, the classes with their values and colours, and a README.md."""
    classes = [(label.index, label.name, label.color) for label in project.classes]
    columns = _columns(rows)
    return {INDEX: _table(columns, [[row[name] or "" for name in columns] for row in rows]),
            CLASSES: _table(("value", "name", "color"), classes), "README.md": _readme(project)}  # fmt: skip


def check(
    folder: Path, manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], progress: Callable[[int], None]
) -> list[str]:
    """Read the tables again."""
    problems: list[str] = []
    with (folder / INDEX).open(encoding="utf-8", newline="") as stream:
        if list(csv.DictReader(stream)) != [{name: row[name] or "" for name in _columns(rows)} for row in rows]:
            problems.append(f"{INDEX} does not fit the manifest")
    with (folder / CLASSES).open(encoding="utf-8", newline="") as stream:
        told = [(int(row["value"]), row["name"]) for row in csv.DictReader(stream)]
    if [value for value, _ in told] != [label["index"] for label in manifest["classes"]]:
        problems.append(f"{CLASSES} does not fit the manifest")
    return problems


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Without labels where some image has none: an import would ask for them."""
    return [name for name in COLUMNS if name != "label" or all(row["label"] for row in rows)]


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    stream = io.StringIO(newline="")
    plain = [[re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", str(cell)) for cell in row] for row in rows]
    csv.writer(stream, lineterminator="\n").writerows([columns, *plain])
    return stream.getvalue().encode()


def _readme(project: Project) -> bytes:
    masks = (f"Masks are grey PNGs whose values are listed in {CLASSES}; 255 does not count. " if project.task == "segmentation"
             else "")  # fmt: skip
    return (f"{NOTICE}.\n\n{INDEX} has a row for each image. {masks}`kind` tells synthetic images and real ones of which a part "
            "was made anew (composite: they keep a patient's pixels); `group` is the patient, and no patient is in two "
            "splits.\n").encode()  # fmt: skip
