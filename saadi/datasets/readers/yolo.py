"""YOLO: images/<split>, labels/<split>/<name>.txt with an outline a line, data.yaml; or, with `masks_dir`, masks.

A line is `class x1 y1 x2 y2 ...`, coordinates as shares of width and height. Classes count from 0 without a background, so each
is one more as a mask value, and 0 is what no outline covers. Where a description with `masks_dir` lies beside, masks go before
outlines: they have holes and pixels that do not count (255).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]

from saadi.datasets.folder_pairs import FoundFile, list_files, normal
from saadi.datasets.folder_table import SPLIT_WORDS, Row
from saadi.datasets.readers.base import (
    NO_OBJECT,
    NO_OBJECT_NAME,
    Entry,
    Listing,
    MaskFile,
    PictureFile,
    class_names,
    read,
    text_of,
)
from saadi.datasets.readers.objects import Object, Objects
from saadi.decoding import DecodedMask, display_name
from saadi.errors import BadInputError
from saadi.records import IGNORE, Split

NAME = "yolo"
SPLITS: tuple[Split, ...] = ("train", "val", "test")
_MAX_YAML_BYTES = 2**20


@dataclass(frozen=True)
class _Lines:
    """The outlines of an image in a text file; none where there is no file, as trainers read it."""

    path: Path | None
    num_classes: int

    def mask(self, size: tuple[int, int]) -> DecodedMask:
        text = read(self.path).decode("utf-8", "replace") if self.path is not None else ""
        objects = [self._object(number, line, size) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        return Objects(objects).mask(size)

    def _object(self, number: int, line: str, size: tuple[int, int]) -> Object:
        where = f"line {number} of {display_name(self.path.name if self.path else '')}"
        try:
            first, *rest = line.split()
            index, values = int(first), np.array(rest, np.float64)
        except ValueError as error:
            raise BadInputError(f"{where} is no class and coordinates; write `class x1 y1 x2 y2 x3 y3`") from error
        if len(values) == 4:
            raise BadInputError(f"{where} is a box and masks need outlines; export as segmentation")
        if len(values) < 6 or len(values) % 2 or not np.isfinite(values).all() or values.min() < 0 or values.max() > 1.001:
            raise BadInputError(f"{where} has no outline: three points or more, each as shares 0 to 1; correct it")
        if not 0 <= index < self.num_classes:
            raise BadInputError(f"{where} has class {index}, the description names 0 to {self.num_classes - 1}; correct "
                                "one of them")  # fmt: skip
        points = values.reshape(-1, 2) * (size[1], size[0])
        # Corners of pixels come back exactly: what eight decimals have rounded is put right.
        nearest = np.rint(points)
        points = np.where(np.abs(points - nearest) < 1e-3, nearest, points)
        return Object(index + 1, [points.ravel().tolist()])


def is_here(root: Path) -> bool:
    """Whether a description of a data set lies at the top of the folder."""
    return any(True for _ in _descriptions(root))


def listing(root: Path) -> Listing:
    """Images of all splits with outlines or masks.

    Raises:
        BadInputError: No description, or one without classes or images.
    """
    described = [(path, one) for path, one in _descriptions(root)]
    if not described:
        raise BadInputError("there is no data.yaml with `names` and `train`; choose the folder of a YOLO data set")
    path, description = next((one for one in described if one[1].get("masks_dir")), described[0])
    found = Listing(NAME, has_masks=True)
    names = description["names"]
    names = class_names(dict(enumerate(names)) if isinstance(names, list) else names, "the names in data.yaml")
    if sorted(names) != list(range(len(names))) or not 0 < len(names) < IGNORE:
        raise BadInputError(f"{display_name(path.name)} names classes {sorted(names)[:5]}, 0 to {len(names) - 1} were expected; "
                            "correct it")  # fmt: skip
    masks_dir = text_of(description["masks_dir"], 4096) if description.get("masks_dir") else None
    beside = masks_dir or "labels"
    found.names = names if masks_dir else {NO_OBJECT: NO_OBJECT_NAME} | {index + 1: name for index, name in names.items()}
    if len(described) > 1:
        found.notes.append(f"read by {display_name(path.name)}{', which has masks' if masks_dir else ''}")
    labels = {normal(one.relative_to(root).as_posix()): one for one in root.rglob("*")
              if one.suffix.lower() == (".png" if masks_dir else ".txt") and one.is_file()}  # fmt: skip
    num_without = 0
    for split, file in _images(root, description, found):
        parts = list(file.relative.parts)
        at = max((number for number, part in enumerate(parts[:-1]) if normal(part) == "images"), default=None)
        if at is None:
            found.refuse(file.relative.name, "it lies in no folder called images, so its outlines cannot be found; rename "
                                             "the folder")  # fmt: skip
            continue
        # Only what lies in the folder is found: a `masks_dir` elsewhere names nothing.
        name = PurePosixPath(*parts[:at], beside, *parts[at + 1:]).with_suffix(".png" if masks_dir else ".txt").as_posix()
        label = labels.get(normal(name))
        if masks_dir and label is None:
            found.refuse(file.relative.name, "this image has no mask of the same name; add the mask or remove the image")
            continue
        num_without += label is None
        source = MaskFile(label, label.name) if masks_dir and label else _Lines(label, len(names))
        found.entries.append(Entry(PurePosixPath(file.relative), PictureFile(file.path, file.relative.name), source,
                                   Row(split=split), folders=file.folders))  # fmt: skip
    if found.entries and num_without == len(found.entries):
        raise BadInputError("no image has a text file with its outlines in a folder called labels, so all would count as "
                            "background; add them")  # fmt: skip
    if num_without:
        found.notes.append(f"{num_without} of {len(found.entries)} images have no text file and count as background alone; leave "
                           "them out if nobody has drawn on them yet")  # fmt: skip
    return found


def _descriptions(root: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """YAML files at the top that name classes and images; YAML only as data, no tags."""
    for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]) if root.is_dir() else ():
        try:
            if not path.is_file() or path.stat().st_size > _MAX_YAML_BYTES:
                continue
            text = path.read_text(encoding="utf-8-sig")
            # Aliases may stand for aliases, ten times each: a few lines become gigabytes once they are written out.
            if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
                continue
            content = yaml.safe_load(text)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, yaml.YAMLError):
            continue
        if isinstance(content, dict) and isinstance(content.get("names"), list | dict) and any(map(content.get, SPLITS)):
            yield path, content


def _images(root: Path, description: Mapping[str, Any], found: Listing) -> Iterator[tuple[Split, FoundFile]]:
    """Images of each split; a split is a folder, a list of folders, or a text file with a name a line."""
    files = {normal(file.relative.as_posix()): file for file in list_files(root)}
    seen: set[str] = set()
    for split in SPLITS:
        sources = description.get(split) or []
        for source in sources if isinstance(sources, list) else [sources]:
            # Paths are those of the machine that wrote them; what follows is inside the folder in any case.
            wanted = normal(text_of(source, 4096).replace("\\", "/")).removeprefix("./").lstrip("/").removeprefix("../")
            fitting = [name for name in files if name.startswith(f"{wanted.rstrip('/')}/")]
            text = root / wanted
            if not fitting and wanted.endswith(".txt") and text.is_file() and ".." not in PurePosixPath(wanted).parts:
                lines = read(text).decode("utf-8", "replace").splitlines()
                fitting = [name for name in (normal(line.strip()).removeprefix("./") for line in lines) if name in files]
            if not fitting:
                found.notes.append(f"the description names no image for {split} in this folder")
            for name in fitting:
                if name not in seen:
                    seen.add(name)
                    yield SPLIT_WORDS[split], files[name]
    if not seen:
        raise BadInputError("the data.yaml names no folder with images here; put it at the top of the data set")
