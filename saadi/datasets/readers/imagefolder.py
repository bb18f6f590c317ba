"""Hugging Face imagefolder: metadata.jsonl or metadata.csv beside the images, at the top or in a folder per split.

`file_name` is relative to the metadata file; the mask is in `mask_file_name`, or in the only other column that ends in
`_file_name`. Columns called as in a CSV of ours (patient, video, group, split, label) are read as there.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from saadi.datasets.folder_pairs import normal
from saadi.datasets.folder_table import LABEL_COLUMNS, SPLIT_WORDS, Row
from saadi.datasets.readers.base import MAX_INDEX_BYTES, Entry, Listing, MaskFile, PictureFile, below, group_of, read, text_of
from saadi.decoding import display_name
from saadi.errors import BadInputError

NAME = "imagefolder"
METADATA = ("metadata.jsonl", "metadata.csv")
_MAX_LINE = 100_000
_IMAGE, _MASK, _ENDING = "file_name", "mask_file_name", "_file_name"


def is_here(root: Path) -> bool:
    """Whether the folder or a folder in it has a metadata file."""
    return bool(_files(root))


def listing(root: Path) -> Listing:
    """All rows of all metadata files.

    Raises:
        BadInputError: No metadata file, or one whose lines name no files.
    """
    files = _files(root)
    if not files:
        raise BadInputError("there is no metadata.jsonl or metadata.csv; choose the folder of an imagefolder")
    found = Listing(NAME)
    for path in files:
        folder = path.parent
        for number, row in _rows(path):
            entry = _entry(root, folder, row, f"line {number} of {display_name(path.name)}", found)
            if entry is not None:
                found.entries.append(entry)
    found.has_masks = any(entry.mask for entry in found.entries)
    if found.has_masks:
        for entry in found.entries:
            if entry.mask is None:
                found.refuse(entry.name.name, "its line names no mask; add the mask or remove the image")
        found.entries = [entry for entry in found.entries if entry.mask is not None]
    found.names = _names(root)
    return found


def _files(root: Path) -> list[Path]:
    folders = (path for path in sorted(root.iterdir()) if path.is_dir() and not path.is_symlink()) if root.is_dir() else ()
    places = [root, *folders]
    return [place / name for place in places for name in METADATA if (place / name).is_file() and _names_files(place / name)]


def _names_files(path: Path) -> bool:
    """Whether the first line has a column for files as imagefolder calls it; other tables are called metadata.csv, too."""
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        return _ENDING[1:] in stream.readline(_MAX_LINE)


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if path.stat().st_size > MAX_INDEX_BYTES:
        raise BadInputError(f"{display_name(path.name)} is larger than {MAX_INDEX_BYTES // 2**30} GB; divide it")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            if path.suffix == ".csv":
                yield from enumerate(csv.DictReader(stream), start=2)
                return
            for number, line in enumerate(stream, start=1):
                row = json.loads(line) if line.strip() else {}
                if not isinstance(row, dict):
                    raise ValueError
                if row:
                    yield number, row
    except (OSError, ValueError, csv.Error) as error:
        raise BadInputError(f"{display_name(path.name)} is not a JSON object a line (or a CSV in UTF-8); export it "
                            "again") from error  # fmt: skip


def _entry(root: Path, folder: Path, row: Mapping[str, Any], where: str, found: Listing) -> Entry | None:
    columns = {normal(str(key)): value for key, value in row.items() if value not in (None, "")}
    others = [key for key in columns if key.endswith(_ENDING) and key not in (_IMAGE, _MASK)]
    plain = [key for key in others if "mask" not in key and "label" not in key]
    image_column = _IMAGE if _IMAGE in columns else next(iter(plain), None)
    mask_column = _MASK if _MASK in columns else next((key for key in others if key != image_column), None)
    name = str(columns.get(image_column, "")) if image_column else ""
    path = below(folder, name) if name else None
    if path is None:
        found.refuse(name or where, f"{where} names an image that is not in the data set; add the file or remove the line")
        return None
    mask_name = str(columns[mask_column]) if mask_column else None
    mask = below(folder, mask_name) if mask_name else None
    if mask_name is not None and mask is None:
        found.refuse(mask_name, f"{where} names a mask that is not in the data set; add the file or correct the line")
        return None
    label = next((text_of(columns[key]) for key in LABEL_COLUMNS if key in columns), None)
    relative = PurePosixPath(path.relative_to(root).as_posix())
    folders = tuple(normal(part) for part in relative.parts[:-1])
    word = normal(str(columns.get("split", "")))
    split = SPLIT_WORDS.get(word) or next((SPLIT_WORDS[part] for part in folders if part in SPLIT_WORDS), None)
    return Entry(relative, PictureFile(path, path.name), MaskFile(mask, mask.name) if mask else None,
                 Row(group=group_of(columns), split=split, label=label), folders=folders)  # fmt: skip


def _names(root: Path) -> dict[int, str]:
    """Classes as our own README.md lists them, '- 3: liver'; a foreign one says nothing."""
    names: dict[int, str] = {}
    path = root / "README.md"
    for line in read(path).decode("utf-8", "replace").splitlines()[:500] if path.is_file() else ():
        number, sign, name = line.removeprefix("- ").partition(": ")
        if line.startswith("- ") and sign and number.isascii() and number.isdecimal() and int(number) <= 255:
            names[int(number)] = name.strip()
    return names
