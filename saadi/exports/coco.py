"""COCO: images/<split>, and annotations/instances_<split>.json with one object for each connected part or class.

Rules of pycocotools 2.0.11: category ids begin at 1; a compressed run-length code has its runs column by column, `counts` as
ASCII text and `size` as height, width; boxes are x, y, width, height. `iscrowd` is 0 everywhere, as many trainers skip crowds.
The masks that the objects are cut from lie beside them in masks/<split>, without loss: background, pixels that do not count, and
(where polygons were asked for) holes are in them alone.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from pycocotools import mask as codec
from pycocotools.coco import COCO

from saadi.errors import BadInputError
from saadi.exports.labels import LabelScheme, label_scheme
from saadi.exports.layout import Content, images_and_masks, label_map_of
from saadi.exports.manifest import NOTICE, PROGRAM
from saadi.exports.outlines import Instances, Mask, closed, holes, rings, shapes
from saadi.records import LabelClass, LabelMap, Project
from saadi.store.blobs import encode_png
from saadi.store.connection import dump

NAME = "coco"
encode_mask = encode_png
paths = images_and_masks


def check_project(project: Project) -> None:
    """Raises: BadInputError: COCO holds objects, and this project has none."""
    if project.task != "segmentation":
        raise BadInputError("COCO holds objects and this project classifies whole images; choose the format imagefolder")


def scheme(classes: Sequence[LabelClass], *, has_ignore: bool) -> LabelScheme:
    """Ids of the masks as in the store, 255 = ignore; categories are the same ids without the background."""
    made = label_scheme(classes, has_ignore=has_ignore, background_is_zero=False, ignore_is_highest=False)
    lost = [f"'{classes[0].name}' is no category: it is what no object covers"]
    if has_ignore:
        lost.append("pixels that do not count are in masks/ alone: COCO has no word for them")
    return LabelScheme(made.names, made.num_classes, made.ignore_id, (*made.lost, *lost))


def lost_in(label_map: LabelMap, options: Mapping[str, str]) -> dict[int, int]:
    """Class -> pixels in holes, which polygons of this label map fill; nothing where none are asked for."""
    if options["outlines"] == "rle":
        return {}
    return holes(label_map, instances=cast(Instances, options["instances"]))


def index_files(
    project: Project, rows: Sequence[Mapping[str, Any]], scheme: LabelScheme, folder: Path, options: Mapping[str, str],
    progress: Callable[[int], None],
) -> dict[str, Content]:  # fmt: skip
    """annotations/instances_<split>.json, with `outlines` both annotations/polygons_<split>.json as well, and a README.md."""
    files: dict[str, Content] = {}
    for split in ("train", "val", "test"):
        if of_split := [row for row in rows if row["split"] == split]:
            for name, as_polygons in _documents(options, split):
                files[name] = _document(project, of_split, folder, options, progress, as_polygons=as_polygons)
    return files | {"README.md": _readme(options)}


def check(
    folder: Path, manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], progress: Callable[[int], None]
) -> list[str]:
    """Read the annotations with pycocotools and compare them with the masks, pixel by pixel."""
    problems: list[str] = []
    for split in sorted({row["split"] for row in rows}):
        of_split = {row["image"]: row for row in rows if row["split"] == split}
        for name, as_polygons in _documents(manifest["options"], split):
            with contextlib.redirect_stdout(io.StringIO()):  # it tells how long it took
                read = COCO(str(folder / name))
            if sorted(image["file_name"] for image in read.dataset["images"]) != sorted(of_split):
                problems.append(f"{name} and the manifest do not name the same images")
                continue
            told = [(category["id"], category["name"]) for category in read.dataset["categories"]]
            if told != [(label["index"], label["name"]) for label in manifest["classes"][1:]]:
                problems.append(f"{name} has other categories than the manifest")
            if {annotation["image_id"] for annotation in read.anns.values()} - read.imgs.keys():
                problems.append(f"{name} has objects of images that it does not name")
            for number, image in enumerate(read.imgs.values()):
                progress(number)
                row = of_split[image["file_name"]]
                problems += [f"{name}: {row['name']}: {problem}" for problem in _differences(
                    read, image, label_map_of(folder, row), manifest, as_polygons=as_polygons)]  # fmt: skip
    return problems


def _differences(
    read: COCO, image: Mapping[str, Any], mask: LabelMap, manifest: Mapping[str, Any], *, as_polygons: bool
) -> list[str]:
    expected = [(index, closed(part) if as_polygons else part)
                for index, part in shapes(mask, instances=manifest["options"]["instances"])]  # fmt: skip
    found = [read.anns[number] for number in sorted(read.getAnnIds(imgIds=[image["id"]]))]
    if (image["height"], image["width"]) != mask.shape or len(found) != len(expected):
        return [f"{len(found)} objects in {image['height']} x {image['width']}, {len(expected)} expected"]
    problems = []
    for annotation, (index, part) in zip(found, expected, strict=True):
        if annotation["category_id"] != index or annotation["iscrowd"] != 0:
            problems.append(f"object {annotation['id']} has another class")
        elif not np.array_equal(read.annToMask(annotation), part):
            problems.append(f"object {annotation['id']} differs from the mask")
        elif annotation["area"] != int(part.sum()) or annotation["bbox"] != _box(part):
            problems.append(f"area or box of object {annotation['id']} are wrong")
    return problems


def _documents(options: Mapping[str, str], split: str) -> list[tuple[str, bool]]:
    """Names of the annotation files of a split, and whether each holds polygons."""
    polygons = options["outlines"] == "polygons"
    files = [(f"annotations/instances_{split}.json", polygons)]
    return [*files, (f"annotations/polygons_{split}.json", True)] if options["outlines"] == "both" else files


def _document(
    project: Project, rows: Sequence[Mapping[str, Any]], folder: Path, options: Mapping[str, str],
    progress: Callable[[int], None], *, as_polygons: bool,
) -> Iterator[bytes]:  # fmt: skip
    """The document, piece by piece: of 100,000 images it has hundreds of megabytes."""
    yield b'{"images":['
    for number, row in enumerate(rows, start=1):
        yield _piece({"id": number, "width": row["width"], "height": row["height"], "file_name": row["image"],
                      "kind": row["kind"], "group": row["group"]}, is_first=number == 1)  # fmt: skip
    yield b'],"annotations":['
    found = 0
    for number, row in enumerate(rows, start=1):
        progress(number)
        for index, part in shapes(label_map_of(folder, row), instances=cast(Instances, options["instances"])):
            found += 1
            shown = closed(part) if as_polygons else part
            outline = _polygons(part) if as_polygons else _code(part)
            yield _piece({"id": found, "image_id": number, "category_id": index, "iscrowd": 0, "segmentation": outline,
                          "area": int(shown.sum()), "bbox": _box(shown)}, is_first=found == 1)  # fmt: skip
    categories = [{"id": label.index, "name": label.name, "supercategory": "", "color": label.color}
                  for label in project.classes[1:]]  # fmt: skip
    info = {"description": NOTICE, "contributor": PROGRAM, "version": "1.0", "year": 0, "url": "", "date_created": ""}
    rest = dump({"info": info | dict(options), "licenses": [], "categories": categories})
    yield f"],{rest[1:]}\n".encode()


def _piece(content: Mapping[str, Any], *, is_first: bool) -> bytes:
    return (("" if is_first else ",") + dump(dict(content))).encode()


def _code(mask: Mask) -> dict[str, Any]:
    found = codec.encode(np.asfortranarray(mask))
    return {"size": [int(side) for side in found["size"]], "counts": found["counts"].decode("ascii")}


def _polygons(mask: Mask) -> list[list[float]]:
    return [[float(value) for corner in ring for value in corner] for ring in rings(mask)]


def _box(mask: Mask) -> list[float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [float(value) for value in (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)]


def _readme(options: Mapping[str, str]) -> bytes:
    kind = "connected part of a class" if options["instances"] == "component" else "class in an image"
    outlines = {"rle": "run-length codes, which lose nothing", "polygons": "polygons, which fill holes",
                "both": "run-length codes in instances_*.json, which lose nothing, and polygons in polygons_*.json, which fill "
                        "holes"}[options["outlines"]]  # fmt: skip
    return (f"{NOTICE}.\n\nOne object for each {kind}, as {outlines}. masks/ holds the label maps that they are cut from (value "
            "= category id, 0 = background, 255 = does not count). Synthetic images have `kind` synthetic, real ones of which a "
            "part was made anew `composite` (they keep a patient's pixels); `group` is the patient, and no patient is in two "
            "splits.\n").encode()  # fmt: skip
