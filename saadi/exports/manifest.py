"""What an export says about itself: one JSON line per item, and above them manifest.json with counts and hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from saadi.config import VERSION
from saadi.errors import BadInputError
from saadi.exports.labels import LabelScheme
from saadi.exports.selection import Item
from saadi.records import Project
from saadi.store.connection import dump

MANIFEST = "manifest.json"
ITEMS = "items.jsonl"
NOTICE = "Research use only; not a medical device"
PROGRAM = "SAADi Studio"
MANIFEST_VERSION = 1


@dataclass(frozen=True)
class Written:
    """What one item became on disk."""

    item: Item
    image: PurePosixPath
    image_sha256: str
    mask: PurePosixPath | None
    mask_sha256: str | None
    size: tuple[int, int]
    """(height, width) of image and mask."""
    pixels: Mapping[str, int]
    """Class name -> pixels; empty without a mask."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def item_row(written: Written) -> dict[str, Any]:
    """The JSON line of one item; holds no original file name, no person and no time."""
    item = written.item
    return {"name": item.name, "kind": item.kind, "split": item.split, "group": item.group, "label": item.label,
            "image": written.image.as_posix(), "image_sha256": written.image_sha256,
            "mask": written.mask.as_posix() if written.mask else None, "mask_sha256": written.mask_sha256,
            "height": written.size[0], "width": written.size[1], "blob": item.blob, "pixels": dict(written.pixels),
            "lineage": item.lineage}


def item_line(row: Mapping[str, Any]) -> bytes:
    """A line of items.jsonl, the same for the same row."""
    return f"{dump(dict(row))}\n".encode()


def manifest_bytes(
    project: Project, *, format: str, options: Mapping[str, str], scheme: LabelScheme, rows: Sequence[Mapping[str, Any]],
    items_sha256: str, index_files: Mapping[str, str], left_out: Mapping[str, int], lost: Sequence[str], num_pairs: int = 0,
) -> bytes:  # fmt: skip
    """The content of manifest.json.

    Args:
        index_files: Relative path -> SHA-256 of every file that is neither image nor mask.
    """
    content = {
        "notice": NOTICE, "program": PROGRAM, "program_version": VERSION, "manifest_version": MANIFEST_VERSION, "format": format,
        "options": dict(options),
        "project": {"name": project.name, "task": project.task, "resolution": project.resolution},
        "classes": [asdict(label) for label in project.classes], "label_ids": dict(scheme.names), "ignore_id": scheme.ignore_id,
        "num_items": len(rows), "counts": counts(rows), "pixels": pixel_sums(rows), "left_out": dict(sorted(left_out.items())),
        "lost": list(lost), "index_files": dict(sorted(index_files.items())), "items_sha256": items_sha256,
    } | ({"num_pairs": num_pairs} if num_pairs else {})
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Split -> kind -> number of images."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        by_kind = found.setdefault(row["split"], {})
        by_kind[row["kind"]] = by_kind.get(row["kind"], 0) + 1
    return {split: dict(sorted(by_kind.items())) for split, by_kind in sorted(found.items())}


def pixel_sums(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    """Split -> kind -> class name -> pixels."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for row in rows:
        sums = found.setdefault(row["split"], {}).setdefault(row["kind"], {})
        for name, count in row["pixels"].items():
            sums[name] = sums.get(name, 0) + count
    return found


def known_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Relative path and SHA-256 of each file of an export, the manifest among them; read line by line.

    Raises:
        BadInputError: The folder is no export, or its list of items is not the one that it was made with.
    """
    try:
        raw = (folder / MANIFEST).read_bytes()
        manifest = json.loads(raw)
        yield from ((MANIFEST, sha256(raw)), (ITEMS, manifest["items_sha256"]), *manifest["index_files"].items())
        found = hashlib.sha256()
        with (folder / ITEMS).open("rb") as stream:
            for line in stream:
                found.update(line)
                row = json.loads(line)
                yield from ((row[key], row[f"{key}_sha256"]) for key in ("image", "mask") if row[key] is not None)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadInputError(f"'{folder.name}' is not a whole export ({MANIFEST} or {ITEMS} cannot be read); export "
                            "again") from error
    if found.hexdigest() != manifest["items_sha256"]:
        raise BadInputError(f"{ITEMS} was changed after the export; export again")


def stays_inside(name: str) -> bool:
    """Whether the path of a listed file stays in the folder, on every system."""
    return bool(name) and not name.startswith("/") and ".." not in name.split("/") and "\\" not in name and ":" not in name


def inside(folder: Path, name: str) -> Path | None:
    """The path of a listed file, or None for a link, or for one that would leave the folder."""
    path = folder / name
    return path if stays_inside(name) and not path.is_symlink() else None
