"""COCO: images, and one JSON document or one per split with objects as outlines or run-length codes.

Documents lie in `annotations/`, beside the images (`_annotations.coco.json` in a folder per split) or at the top. Pixels that no
object covers are background; COCO has no word for pixels that do not count.
"""

from __future__ import annotations

import contextlib
import re
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
    group_of,
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
    files = Files(root)
    chosen = _without_copies(root, documents, files, found)
    values = _values(chosen)
    found.names = {NO_OBJECT: NO_OBJECT_NAME} | {value: name for name, value in values.items()}
    for path, document in chosen:
        _read(root, path, document, files, values, found)
    _refuse_divided(found)
    if bare := sum(not entry.mask.objects for entry in found.entries if isinstance(entry.mask, Objects)):
        found.notes.append(f"{bare} of {len(found.entries)} images have no object and count as background alone; leave them out "
                           "if nobody has drawn on them yet")  # fmt: skip
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
    return sum(word in text for word in (b'"images"', b'"annotations"', b'"categories"', b'"file_name"', b'"segmentation"',
                                         b'"category_id"', b'"image_id"')) >= 3  # fmt: skip


def _without_copies(root: Path, documents: list[tuple[Path, Any]], files: Files,
                    found: Listing) -> list[tuple[Path, dict[str, Any]]]:  # fmt: skip
    """Documents with objects; where two hold the same images (codes beside polygons), the one with codes."""
    usable: dict[frozenset[object], tuple[Path, dict[str, Any]]] = {}
    for path, document in documents:
        if not _holds_objects(document):
            found.notes.append(f"{display_name(path.name)} holds no objects and was left out")
            continue
        names = frozenset(file.path if (file := files.named(str(image.get("file_name", "")), beside=path)) else number
                          for number, image in enumerate(document["images"]))  # fmt: skip
        others = usable.get(names)
        if others is not None:
            found.notes.append(f"{display_name(path.name)} and {display_name(others[0].name)} hold the same images; the one "
                               "with more exact outlines was read")  # fmt: skip
        if others is None or (_has_codes(document) and not _has_codes(others[1])):
            usable[names] = (path, document)
    if not usable:
        raise BadInputError("no JSON here has lists of images, annotations and categories; choose the folder of a COCO data set")
    return list(usable.values())


def _holds_objects(document: Any) -> bool:
    return (isinstance(document, dict) and bool(document.get("images")) and bool(document.get("categories"))
            and all(isinstance(document.get(key), list) and all(isinstance(one, dict) for one in document[key])
                    for key in ("images", "annotations", "categories")))  # fmt: skip


def _has_codes(document: dict[str, Any]) -> bool:
    return any(isinstance(one.get("segmentation"), dict) for one in document["annotations"][:100])


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
          found: Listing) -> None:  # fmt: skip
    by_number = class_names({one["id"]: one["name"] for one in document["categories"]}, "categories")
    objects: dict[str, list[Object]] = defaultdict(list)
    broken: dict[str, str] = {}
    for one in document["annotations"]:
        number = _key(one.get("image_id"))
        try:
            outline = one["segmentation"]
            objects[number].append(Object(values[by_number[int(one["category_id"])]], outline))
        except (LookupError, TypeError, ValueError, OverflowError):
            broken[number] = "an object of this image has no outline or no known category; correct the annotations"
        else:
            if not outline:
                broken[number] = "an object of this image is a box without an outline; masks need outlines"
    side = _side(root, path)
    for image in document["images"]:
        name, number = str(image.get("file_name", "")), _key(image.get("id"))
        own, wrong = objects.pop(number, []), broken.pop(number, None)
        file = files.named(name, beside=path)
        if file is None:
            found.refuse(name or "an image without a name", "the annotations name this image, and no file or more than one fits "
                                                            "it; add the file, or name it with its folders")  # fmt: skip
        elif wrong is not None:
            found.refuse(name, wrong)
        else:
            size = (image["width"], image["height"]) if image.get("width") and image.get("height") else None
            row = Row(group=group_of({normal(str(key)): value for key, value in image.items()}), split=side)
            found.entries.append(Entry(PurePosixPath(file.relative), PictureFile(file.path, file.relative.name),
                                       Objects(own, size), row, folders=file.folders))  # fmt: skip
    if orphans := sum(map(len, objects.values())) + len(broken):
        raise BadInputError(f"{orphans} objects in {display_name(path.name)} belong to an image_id that it does not list, so "
                            "their images would count as background; correct the document")  # fmt: skip


def _key(number: Any) -> str:
    """An image's number as text: some tools write it so in one list and as a number in the other."""
    return f"{number}"


def _refuse_divided(found: Listing) -> None:
    """An image that is named for two sides would be learnt from and tested on; one that is named twice is read once."""
    by_name: dict[PurePosixPath, Entry] = {}
    for entry in found.entries:
        other = by_name.setdefault(entry.name, entry)
        if other.row.split != entry.row.split:
            raise BadInputError(f"{display_name(entry.name.name)} is named for {other.row.split} and for {entry.row.split}; "
                                "name it for one of them")  # fmt: skip
        if other is not entry:
            raise BadInputError(f"{display_name(entry.name.name)} is named twice; keep one of both")


def _side(root: Path, path: Path) -> Split | None:
    """train, val or test, from the name of the document or of its folder; a document for all has none.

    Raises:
        BadInputError: The name says two of them.
    """
    for text in (path.stem, *reversed(path.relative_to(root).parts[:-1])):
        spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", text)
        sides = {SPLIT_WORDS[word] for word in re.findall(r"[a-z]+", normal(spaced)) if word in SPLIT_WORDS}
        if len(sides) > 1:
            raise BadInputError(f"the name of {display_name(path.name)} says {' and '.join(sorted(sides))}; divide it, one "
                                "document for each side")  # fmt: skip
        if sides:
            return sides.pop()
    return None
