"""COCO: images, and one JSON document or one per split with objects as outlines or run-length codes.

Documents lie in `annotations/`, beside the images (`_annotations.coco.json` in a folder per split) or at the top. Pixels that no
object covers are background; COCO has no word for pixels that do not count.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from saadi.datasets.folder_pairs import normal
from saadi.datasets.folder_table import SPLIT_WORDS, Row
from saadi.datasets.readers.base import (
    NO_OBJECT,
    NO_OBJECT_NAME,
    Entry,
    Files,
    Listing,
    PictureFile,
    class_names,
    read_json,
)
from saadi.datasets.readers.objects import Object, Objects
from saadi.decoding import display_name
from saadi.errors import BadInputError
from saadi.records import IGNORE, Split

NAME = "coco"
_HEAD_BYTES = 4096


def is_here(root: Path) -> bool:
    """Whether a JSON below the folder begins or ends as COCO documents do."""
    return any(True for _ in _documents(root))


def listing(root: Path) -> Listing:
    """Read all documents; each object keeps its class, each image the side of its document.

    Raises:
        BadInputError: No document, or one that cannot be read.
    """
    found = Listing(NAME, has_masks=True)
    documents = [(path, read_json(path, "the COCO annotations")) for path in _documents(root)]
    if not documents:
        raise BadInputError("there is no JSON with images, annotations and categories; choose the folder of a COCO data set")
    chosen = _without_copies(documents, found)
    values = _values(chosen)
    found.names = {NO_OBJECT: NO_OBJECT_NAME} | {value: name for name, value in values.items()}
    files = Files(root)
    for path, document in chosen:
        _read(root, path, document, files, values, found)
    return found


def _documents(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*.json")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts) and _looks_so(path):
            yield path


def _looks_so(path: Path) -> bool:
    """By the names of its parts in the first or last bytes: the whole may be hundreds of megabytes."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
            stream.seek(max(0, path.stat().st_size - _HEAD_BYTES))
            text = head + stream.read(_HEAD_BYTES)
    except OSError:
        return False
    return sum(word in text for word in (b'"images"', b'"annotations"', b'"categories"', b'"file_name"', b'"segmentation"')) >= 2


def _without_copies(documents: list[tuple[Path, Any]], found: Listing) -> list[tuple[Path, dict[str, Any]]]:
    """Documents with objects; where two hold the same images (codes beside polygons), the one with codes."""
    usable: dict[frozenset[str], tuple[Path, dict[str, Any]]] = {}
    for path, document in documents:
        keys = ("images", "annotations", "categories")
        if not isinstance(document, dict) or not all(isinstance(document.get(key), list) for key in keys):
            found.notes.append(f"{display_name(path.name)} holds no objects and was left out")
            continue
        names = frozenset(str(image.get("file_name")) for image in document["images"] if isinstance(image, dict))
        others = usable.get(names)
        if others is not None:
            found.notes.append(f"{display_name(path.name)} and {display_name(others[0].name)} hold the same images; the one "
                               "with more exact outlines was read")  # fmt: skip
        if others is None or (_has_codes(document) and not _has_codes(others[1])):
            usable[names] = (path, document)
    if not usable:
        raise BadInputError("no JSON here has lists of images, annotations and categories; choose the folder of a COCO data set")
    return list(usable.values())


def _has_codes(document: dict[str, Any]) -> bool:
    return any(isinstance(one, dict) and isinstance(one.get("segmentation"), dict) for one in document["annotations"][:100])


def _values(documents: list[tuple[Path, dict[str, Any]]]) -> dict[str, int]:
    """Class name -> mask value: the category's number where all documents agree and it fits, else counted from 1."""
    names: dict[str, set[int]] = defaultdict(set)
    for path, document in documents:
        with contextlib.suppress(AttributeError, TypeError, ValueError):
            for number, name in class_names({one["id"]: one["name"] for one in document["categories"]}, "categories").items():
                names[name].add(number)
            continue
        raise BadInputError(f"the categories in {display_name(path.name)} have no id and name each; correct the document")
    numbers = [number for found in names.values() for number in found]
    if len(set(numbers)) == len(numbers) == len(names) and all(NO_OBJECT < number < IGNORE for number in numbers):
        return {name: next(iter(found)) for name, found in names.items()}
    if len(names) >= IGNORE:
        raise BadInputError(f"the documents name {len(names)} categories, masks hold at most {IGNORE - 1}; leave out some")
    return {name: value for value, name in enumerate(sorted(names), start=1)}


def _read(root: Path, path: Path, document: dict[str, Any], files: Files, values: dict[str, int],
          found: Listing) -> None:
    by_number = class_names({one["id"]: one["name"] for one in document["categories"]}, "categories")
    objects: dict[Any, list[Object]] = defaultdict(list)
    broken: dict[Any, str] = {}
    for one in document["annotations"]:
        number = one.get("image_id") if isinstance(one, dict) else None
        try:
            outline = one["segmentation"]
            objects[number].append(Object(values[by_number[int(one["category_id"])]], outline))
        except (LookupError, TypeError, ValueError):
            broken[number] = "an object of this image has no outline or no known category; correct the annotations"
        else:
            if not outline:
                broken[number] = "an object of this image is a box without an outline; masks need outlines"
    side = _side(root, path)
    for image in document["images"]:
        name, number = str(image.get("file_name", "")), image.get("id")
        file = files.named(name, beside=path)
        if file is None:
            found.refuse(name or "an image without a name", "the annotations name this image, and no file fits it; add the file")
        elif number in broken:
            found.refuse(name, broken[number])
        else:
            group = image.get("group") or image.get("patient") or image.get("video_id")
            row = Row(group=str(group)[:80] if group is not None else None, split=side)
            found.entries.append(Entry(PurePosixPath(file.relative), PictureFile(file.path, file.relative.name),
                                       Objects(objects.get(number, [])), row, folders=file.folders))  # fmt: skip


def _side(root: Path, path: Path) -> Split | None:
    """train, val or test, from the name of the document or of its folder; a document for all has none."""
    words = normal(path.stem).replace("-", "_").replace("2017", "").replace("2014", "").split("_")
    words += [normal(part) for part in path.relative_to(root).parts[:-1]]
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)
