"""Hugging Face imagefolder: <split>/images, <split>/masks and a metadata.jsonl per split; in classification <split>/<class>, as
torchvision's ImageFolder reads it, too.

Rules of `datasets` 5.2 (folder_based_builder): metadata.jsonl lies in the folder of its split; `file_name` is relative to it;
each column that ends in `_file_name` becomes an image column; all metadata files have the same columns of the same types, so no
value may be null in one split and text in another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from saadi.exports.labels import LabelScheme, label_scheme
from saadi.exports.layout import nothing_lost
from saadi.exports.manifest import NOTICE
from saadi.exports.selection import Item
from saadi.records import LabelClass, Project
from saadi.store.blobs import encode_png
from saadi.store.connection import dump

NAME = "imagefolder"
lost_in = nothing_lost
encode_mask = encode_png
METADATA = "metadata.jsonl"


def check_project(project: Project) -> None:
    """Every project can become an imagefolder."""


def scheme(classes: Sequence[LabelClass], *, has_ignore: bool) -> LabelScheme:
    """Class ids as in the store, 255 = ignore: nothing is lost."""
    return label_scheme(classes, has_ignore=has_ignore, background_is_zero=False, ignore_is_highest=False)


def paths(project: Project, item: Item) -> tuple[PurePosixPath, PurePosixPath | None]:
    """Where image and mask go."""
    if project.task == "classification" and item.label is not None:
        return PurePosixPath(item.split, class_folders(project)[item.label], f"{item.name}.png"), None
    mask = PurePosixPath(item.split, "masks", f"{item.name}.png") if item.label_map_blob is not None else None
    return PurePosixPath(item.split, "images", f"{item.name}.png"), mask


def class_folders(project: Project) -> dict[str, str]:
    """Class name -> name of its folder: without characters that file systems refuse, with its number where two would be equal."""
    plain = {name: re.sub(r"[^\w-]+", "-", name).strip("-") for name in project.class_names}
    if "" in plain.values() or len({folder.casefold() for folder in plain.values()}) < len(plain):
        return {name: f"{index:02d}-{folder}".rstrip("-") for index, (name, folder) in enumerate(plain.items())}
    return plain


def index_files(
    project: Project, rows: Sequence[Mapping[str, Any]], scheme: LabelScheme, folder: Path, options: Mapping[str, str],
    progress: Callable[[int], None],
) -> dict[str, bytes]:  # fmt: skip
    """metadata.jsonl of each split, and a README.md that names the splits."""
    splits = [split for split in ("train", "val", "test") if any(row["split"] == split for row in rows)]
    has_labels = any(row["label"] is not None for row in rows)
    files = {f"{split}/{METADATA}": _metadata([row for row in rows if row["split"] == split], has_labels=has_labels)
             for split in splits}
    return files | {"README.md": _readme(project, splits, scheme)}


def check(
    folder: Path, manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], progress: Callable[[int], None]
) -> list[str]:
    """Read the metadata files as `datasets` does and list what it would stumble over."""
    problems: list[str] = []
    expected = {row["image"]: row for row in rows}
    seen: set[str] = set()
    shapes: set[tuple[tuple[str, str], ...]] = set()
    for split in sorted({row["split"] for row in rows}):
        path = folder / split / METADATA
        if not path.is_file():
            problems.append(f"{split}/{METADATA} is missing")
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            entry = json.loads(line)
            shapes.add(tuple(sorted((key, type(value).__name__) for key, value in entry.items())))
            image = f"{split}/{entry.get('file_name')}"
            row = expected.get(image)
            mask = f"{split}/{entry['mask_file_name']}" if "mask_file_name" in entry else None
            told = {"mask": mask, "group": entry.get("group"), "kind": entry.get("kind"), "label": entry.get("label") or None}
            if row is None or any(row[key] != value for key, value in told.items()):
                problems.append(f"{split}/{METADATA} line {number} does not fit the manifest")
            seen.add(image)
    if len(shapes) > 1:
        problems.append("the metadata files differ in columns or types, which `datasets` refuses")
    return problems + [f"{image} has no line in {METADATA}" for image in sorted(expected.keys() - seen)]


def _metadata(rows: Sequence[Mapping[str, Any]], *, has_labels: bool) -> bytes:
    # A drawing has no label of its own; one empty text keeps the columns of all lines and splits alike.
    lines = []
    for row in rows:
        entry = {"file_name": PurePosixPath(row["image"]).relative_to(row["split"]).as_posix()}
        entry |= {"mask_file_name": f"masks/{row['name']}.png"} if row["mask"] else {}
        entry |= {"label": row["label"] or ""} if has_labels else {}
        lines.append(dump(entry | {"kind": row["kind"], "synthetic": row["kind"] == "synthetic", "group": row["group"],
                                   "lineage": dump(row["lineage"])}) + "\n")
    return "".join(lines).encode()


def _readme(project: Project, splits: Sequence[str], scheme: LabelScheme) -> bytes:
    task = "image-segmentation" if project.task == "segmentation" else "image-classification"
    configs = "".join(f"  - split: {'validation' if split == 'val' else split}\n    path: {split}/**\n" for split in splits)
    classes = "".join(f"- {index}: {name}\n" for name, index in scheme.names.items())
    ignore = "- 255: ignore\n" if scheme.ignore_id is not None else ""
    header = (f"---\ntask_categories:\n- {task}\ntags:\n- synthetic\n- surgery\nconfigs:\n- config_name: default\n"
              f"  data_files:\n{configs}---\n")
    return (f"{header}{NOTICE}.\n\nSynthetic images carry `kind: synthetic`, real ones of which a part was made anew "
            "`kind: composite` (they keep a patient's pixels), both an IPTC DigitalSourceType mark; `manifest.json` "
            f"and `items.jsonl` tell how each was made. Splits are by group: no patient is on two sides.\n\n"
            f"Classes:\n\n{classes}{ignore}").encode()
