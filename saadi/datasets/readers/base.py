"""What a reader of a format tells about a data set: names, where pixels come from, patients, sides; nothing is stored here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from saadi.config import MAX_FILE_BYTES
from saadi.datasets.folder_pairs import FoundFile, Problem, list_files, normal
from saadi.datasets.folder_table import GROUP_COLUMNS, MAX_GROUP_CHARS, Row
from saadi.decoding import DecodedImage, DecodedMask, decode_image, decode_mask, display_name
from saadi.decoding_formats import is_generated
from saadi.errors import BadInputError

MAX_INDEX_BYTES = 2**30
"""Of one annotation document; a COCO file of 100,000 images with outlines has a few hundred MB, seven times that in memory."""
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
NO_OBJECT = 0
"""Mask value of pixels that no object covers, in formats of objects."""
NO_OBJECT_NAME = "background"


class Picture(Protocol):
    """Where the pixels of an image come from."""

    def image(self) -> DecodedImage:
        """Raises: BadInputError: with one sentence, for whatever cannot be used."""


class MaskSource(Protocol):
    """Where the mask of an image comes from."""

    def mask(self, size: tuple[int, int]) -> DecodedMask:
        """The mask of an image of (height, width) pixels; a file may have another size, objects are drawn at this one.

        Raises:
            BadInputError: With one sentence.
        """


@dataclass(frozen=True)
class PictureFile:
    """A picture on disk."""

    path: Path
    name: str

    def image(self) -> DecodedImage:
        data = read(self.path)
        if is_generated(data):
            raise BadInputError("it says of itself that a model has made it, or a part of it (IPTC DigitalSourceType), and "
                                "what is imported counts as real; leave it out")  # fmt: skip
        return decode_image(data, name=self.name)


@dataclass(frozen=True)
class MaskFile:
    """A mask on disk."""

    path: Path
    name: str

    def mask(self, size: tuple[int, int]) -> DecodedMask:
        return decode_mask(read(self.path), name=self.name)


@dataclass(frozen=True)
class Entry:
    """One image of a data set."""

    name: PurePosixPath
    """Its path in the data set: may hold a patient's name."""
    picture: Picture
    mask: MaskSource | None = None
    row: Row = field(default_factory=Row)
    """Group, split and label as the format tells them."""
    size: tuple[int, int] | None = None
    """(width, height) of pixels that the reader has decoded already."""
    folders: tuple[str, ...] = ()
    """Normalised names of the folders that it lies in."""


@dataclass
class Listing:
    """What a reader found."""

    kind: str
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    has_masks: bool = False
    names: dict[int, str] = field(default_factory=dict)
    """Mask value (colours as `saadi.decoding.COLOUR_BIT` marks them) -> what the data set calls it."""
    needs_masks: bool = True
    """False where a segmentation project takes the images without masks, to draw them here."""

    def refuse(self, name: str, reason: str) -> None:
        """List a file that cannot be used."""
        self.problems.append(Problem(display_name(name), reason))


def read(path: Path) -> bytes:
    """Bytes of a picture; one more than allowed is enough for the decoder to refuse it.

    Raises:
        BadInputError: The file is gone or may not be read.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BadInputError(f"the file cannot be read ({reason}); check that it is there and may be read") from error


def read_json(path: Path, what: str) -> Any:
    """The content of a JSON document.

    Args:
        what: What it is, for the sentence: 'the COCO annotations'.

    Raises:
        BadInputError: It cannot be read, is no JSON or is larger than `MAX_INDEX_BYTES`.
    """
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise BadInputError(f"{what} in {display_name(path.name)} are larger than {MAX_INDEX_BYTES // 2**30} GB; divide them")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BadInputError(f"{what} in {display_name(path.name)} cannot be read ({reason}); check the file") from error
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{what} in {display_name(path.name)} are no JSON; export the data set again") from error


class Files:
    """The pictures below a folder, found by the names that documents give them; names are compared, never opened."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.by_path: dict[str, FoundFile] = {}
        self.by_name: dict[str, list[FoundFile]] = {}
        for file in list_files(root):
            self.by_path[normal(file.relative.as_posix())] = file
            self.by_name.setdefault(normal(file.relative.name), []).append(file)

    def named(self, name: str, *, beside: Path) -> FoundFile | None:
        """By its path from the data set or from the document `beside` it, else the only file whose path ends so."""
        wanted = normal(name.replace("\\", "/").removeprefix("./"))
        here = normal(beside.parent.relative_to(self.root).as_posix())
        for path in (wanted, f"{here}/{wanted}"):
            if path in self.by_path:
                return self.by_path[path]
        fitting = [file for file in self.by_name.get(wanted.rpartition("/")[2], ())
                   if f"/{normal(file.relative.as_posix())}".endswith(f"/{wanted}")]  # fmt: skip
        return fitting[0] if len(fitting) == 1 else None


def below(root: Path, name: str) -> Path | None:
    """The file that a document names, or None where it is absolute, leads out of the data set or is not there."""
    plain = PurePosixPath(name.replace("\\", "/"))
    if not plain.parts or plain.is_absolute() or ".." in plain.parts or ":" in plain.parts[0] or "\0" in name:
        return None
    path = root.joinpath(*plain.parts)
    try:
        return path if path.is_file() and path.resolve().is_relative_to(root.resolve()) else None
    except OSError:
        return None


def holds_pictures(root: Path) -> bool:
    """Whether files called as pictures lie below a folder, so that a video or a DICOM file beside them is not what is meant."""
    return any(path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") for path in root.rglob("*"))


def folder_named(parent: Path, *names: str) -> Path | None:
    """The sub-folder of one of these names, whatever its capitals."""
    wanted = {normal(name) for name in names}
    found = sorted(path for path in parent.iterdir() if normal(path.name) in wanted and path.is_dir()) if parent.is_dir() else []
    return found[0] if found else None


def text_of(value: Any, most: int = 80) -> str:
    """A name as text that can be stored: file formats allow halves of characters that none is.

    Raises:
        ValueError: Neither a text nor a number.
    """
    if not isinstance(value, str | int):
        raise ValueError("a name is a text")
    return str(value)[:most].encode("utf-8", "replace").decode()


def group_of(columns: Mapping[str, Any]) -> str | None:
    """The patient, video or operation that a row names under one of the common headings."""
    for name in GROUP_COLUMNS:
        if (value := columns.get(name)) is not None and f"{value}".strip():
            return text_of(value, MAX_GROUP_CHARS)
    return None


def class_names(found: Mapping[Any, Any], what: str) -> dict[int, str]:
    """{id: name} of a mapping between the two, whichever is the key.

    Raises:
        BadInputError: Neither side is whole numbers.
    """
    for pairs in (found.items(), [(value, key) for key, value in found.items()]):
        try:
            return {int(str(number)): text_of(name) for number, name in pairs}
        except (ValueError, TypeError):
            continue
    raise BadInputError(f"{what} tell no number for each class; export the data set again")
