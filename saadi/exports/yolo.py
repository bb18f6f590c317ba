"""YOLO: images/<split>, labels/<split>/<name>.txt with a polygon a line, data.yaml; and beside them the masks, semantic.yaml.

A line is `class x1 y1 x2 y2 ...`, coordinates as shares of width and height, classes from 0 without the background. Polygons have
no holes, and each is an object of its own. For trainers of semantic segmentation the same folder has masks/<split>, without loss:
value = class, 255 does not count. Written by our own code; the trainers' library is under AGPL.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saadi.errors import BadInputError
from saadi.exports.labels import LabelScheme, label_scheme
from saadi.exports.layout import images_and_masks, label_map_of
from saadi.exports.manifest import NOTICE
from saadi.exports.outlines import Corner, holes, rings, shapes
from saadi.records import LabelClass, LabelMap, Project
from saadi.store.blobs import encode_png

NAME = "yolo"
encode_mask = encode_png
paths = images_and_masks
DIGITS = 8
"""Decimals of a coordinate: corners of pixels come back exactly for sides of up to a million."""


def check_project(project: Project) -> None:
    """Raises: BadInputError: polygons outline parts of images, and this project has none."""
    if project.task != "segmentation":
        raise BadInputError("YOLO holds outlines and this project classifies whole images; choose the format imagefolder")


def scheme(classes: Sequence[LabelClass], *, has_ignore: bool) -> LabelScheme:
    """Ids of the masks as in the store, 255 = does not count; in the lines of polygons each is one less."""
    made = label_scheme(classes, has_ignore=has_ignore, background_is_zero=False, ignore_is_highest=False)
    lost = [f"polygons have no '{classes[0].name}': it is what none of them covers; masks/ has it"]
    if has_ignore:
        lost.append("pixels that do not count are in masks/ alone: polygons have no word for them")
    return LabelScheme(made.names, made.num_classes, made.ignore_id, (*made.lost, *lost))


def lost_in(label_map: LabelMap, options: Mapping[str, str]) -> dict[int, int]:
    """Class -> pixels in holes, which its polygons fill."""
    return holes(label_map, instances="class")


def index_files(
    project: Project, rows: Sequence[Mapping[str, Any]], scheme: LabelScheme, folder: Path, options: Mapping[str, str],
    progress: Callable[[int], None],
) -> dict[str, bytes]:  # fmt: skip
    """Polygons of each image, the two descriptions of the data set, and a README.md."""
    files: dict[str, bytes] = {}
    for number, row in enumerate(rows):
        progress(number)
        files[f"labels/{row['split']}/{row['name']}.txt"] = _lines(label_map_of(folder, row), row)
    return files | _descriptions(rows, project.class_names) | {"README.md": _readme()}


def check(
    folder: Path, manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], progress: Callable[[int], None]
) -> list[str]:
    """Read each line as a trainer does and compare what it outlines with the mask."""
    problems: list[str] = []
    num_classes = len(manifest["classes"]) - 1
    for name, content in _descriptions(rows, [label["name"] for label in manifest["classes"]]).items():
        if (folder / name).read_bytes() != content:
            problems.append(f"{name} does not fit the manifest")
    for number, row in enumerate(rows):
        progress(number)
        lines = (folder / "labels" / row["split"] / f"{row['name']}.txt").read_text(encoding="utf-8").splitlines()
        expected = list(_outlines(label_map_of(folder, row)))
        found = [_read(line, row) for line in lines]
        if any(one is None or not 0 <= one[0] < num_classes for one in found):
            problems.append(f"{row['name']}: a line is no class with three points or more inside the image")
        elif [one and (one[0] + 1, one[1]) for one in found] != expected:
            problems.append(f"{row['name']}: the polygons differ from the mask")
    return problems


def _outlines(label_map: LabelMap) -> list[tuple[int, list[Corner]]]:
    return [(index, ring) for index, mask in shapes(label_map, instances="component") for ring in rings(mask)]


def _lines(label_map: LabelMap, row: Mapping[str, Any]) -> bytes:
    return "".join(_line(index - 1, ring, row) for index, ring in _outlines(label_map)).encode()


def _line(number: int, ring: Sequence[Corner], row: Mapping[str, Any]) -> str:
    flat = (f"{value / side:.{DIGITS}f}".rstrip("0").rstrip(".") for corner in ring
            for value, side in zip(corner, (row["width"], row["height"]), strict=True))  # fmt: skip
    return f"{number} {' '.join(flat)}\n"


def _read(line: str, row: Mapping[str, Any]) -> tuple[int, list[Corner]] | None:
    """Class and corners of a line; None where it is none."""
    number, *flat = line.split(" ")
    values = np.array(flat, np.float64)
    if len(values) < 6 or len(values) % 2 or values.min() < 0 or values.max() > 1:
        return None
    points = np.rint(values.reshape(-1, 2) * (row["width"], row["height"])).astype(int)
    return int(number), [(x, y) for x, y in points.tolist()]


def _descriptions(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, bytes]:
    splits = [split for split in ("train", "val", "test") if any(row["split"] == split for row in rows)]
    return {"data.yaml": _yaml(splits, names[1:]), "semantic.yaml": _yaml(splits, names, masks=True)}


def _yaml(splits: Sequence[str], names: Sequence[str], *, masks: bool = False) -> bytes:
    # Without `path` trainers begin at the folder of the file. A text in JSON is a text in YAML, but for some control characters.
    names = [re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", name) for name in names]
    lines = [f"# {NOTICE}", *(f"{split}: images/{split}" for split in splits)]
    if "val" not in splits:
        lines.append("# There are no validation images here, and trainers ask for some: write your own folder after 'val: '.")
    lines += ["masks_dir: masks"] if masks else []
    lines += ["names:", *(f"  {index}: {json.dumps(name, ensure_ascii=False)}" for index, name in enumerate(names))]
    return ("\n".join(lines) + "\n").encode()


def _readme() -> bytes:
    return (f"{NOTICE}.\n\ndata.yaml: outlines in labels/, classes from 0 without the background, holes filled. semantic.yaml: "
            "the masks themselves in masks/, 255 does not count. manifest.json and items.jsonl tell which images are synthetic "
            "or edited, and the patient of each; no patient is in two splits. Trainers ask for `val`: where no validation "
            "patient is in this export, name a folder of yours.\n").encode()  # fmt: skip
