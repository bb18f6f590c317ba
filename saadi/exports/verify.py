"""Read an export again, as its consumer would, and compare everything with the manifest and, where it is at hand, the store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saadi.decoding import decode_image, decode_mask
from saadi.errors import BadInputError, NotFoundError
from saadi.exports.credentials import problem_with, without_credentials
from saadi.exports.formats import FORMATS
from saadi.exports.labels import IGNORED, LabelScheme, at_image_size, compile_label_map, refined
from saadi.exports.manifest import ITEMS, MANIFEST, counts, inside, item_line, pixel_sums, sha256
from saadi.exports.marks import MARKS, mark_of, without_mark
from saadi.exports.parallel import in_order
from saadi.records import HELD_OUT_SPLITS
from saadi.store import Store

_KEYS = frozenset({"format", "items_sha256", "index_files", "classes", "ignore_id", "num_items", "counts", "pixels"})
_ROW_KEYS = frozenset({"name", "kind", "split", "group", "image", "image_sha256", "mask", "mask_sha256", "height", "width",
                       "blob", "pixels", "lineage"})


def verify_export(folder: Path, *, store: Store | None = None,
                  progress: Callable[[int], None] = lambda number: None,
                  by_rules: Callable[[int], None] = lambda number: None) -> list[str]:
    """List what is wrong with an export; an empty list means that every file, hash, mask and split is as promised.

    Args:
        folder: An export as `saadi.exports.recipe` writes it; works anywhere and later, from the hashes in the manifest.
        store: Compare each mask, pixel by pixel, and each image with what the store holds now under the recorded hash.
        progress: Called with the number of each item; may raise to stop.
        by_rules: The same, while the rules of the format are applied.
    """
    read = _read_manifest(folder)
    if isinstance(read, str):
        return [read]
    manifest, rows = read
    problems = _check_index(folder, manifest, rows)
    scheme = LabelScheme(names={label["name"]: label["index"] for label in manifest["classes"]},
                         num_classes=len(manifest["classes"]), ignore_id=manifest["ignore_id"])
    has_credentials = "credentials" in manifest.get("options", {})

    def check(row: Mapping[str, Any]) -> list[str]:
        try:
            return _check_item(folder, row, scheme, store, has_credentials=has_credentials)
        except (BadInputError, NotFoundError) as error:
            return [str(error)]

    with in_order(check, rows) as results:
        for number, (row, found) in enumerate(zip(rows, results, strict=True)):
            progress(number)
            problems += [f"{row['name']}: {problem}" for problem in found]
    problems += _check_sides(rows)
    if problems:
        return problems  # a format's rules are read from files that are what the manifest promises
    try:
        problems += FORMATS[manifest["format"]].check(folder, manifest, rows, by_rules)
    except (LookupError, TypeError, ValueError, AssertionError, AttributeError, OSError) as error:
        problems.append(f"the index files of the format cannot be read ({type(error).__name__})")
    return problems


def _read_manifest(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]] | str:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        found = _file_sha256(folder / ITEMS)
    except OSError as error:
        name = Path(error.filename).name if error.filename else MANIFEST
        return f"{name} is missing or cannot be read; choose a folder that was exported here"
    except ValueError:
        return f"{MANIFEST} is damaged; export again"
    if not isinstance(manifest, dict) or manifest.get("format") not in FORMATS or not manifest.keys() >= _KEYS:
        return f"{MANIFEST} is not the manifest of an export; choose a folder that was exported here"
    if found != manifest["items_sha256"]:
        return f"{ITEMS} was changed after the export; export again"
    rows = []
    with (folder / ITEMS).open("rb") as stream:
        for line in stream:
            rows.append(json.loads(line))
            if line != item_line(rows[-1]):
                return f"{ITEMS} is not in its canonical form; export again"
    if not all(isinstance(row, dict) and row.keys() >= _ROW_KEYS and isinstance(row["image"], str) for row in rows):
        return f"{ITEMS} lacks columns; export again"
    return manifest, rows


def _check_index(folder: Path, manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Counts, index files, and files that nobody knows."""
    problems: list[str] = []
    if manifest["num_items"] != len(rows) or manifest["counts"] != counts(rows) or manifest["pixels"] != pixel_sums(rows):
        problems.append("the counts in the manifest differ from its items")
    if len({row["name"] for row in rows}) != len(rows):
        problems.append(f"{ITEMS} names an item twice")
    for name, expected in manifest["index_files"].items():
        path = inside(folder, name)
        if path is None or not path.is_file():
            problems.append(f"{name} is missing")
        elif _file_sha256(path) != expected:
            problems.append(f"{name} was changed after the export")
    known = {MANIFEST, ITEMS, *manifest["index_files"]} | {row[key] for row in rows for key in ("image", "mask") if row[key]}
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}
    return problems + [f"{name} is in the folder but not in the manifest" for name in sorted(present - known)]


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:  # an index may be as large as all masks
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_item(folder: Path, row: Mapping[str, Any], scheme: LabelScheme, store: Store | None, *,
                has_credentials: bool) -> list[str]:  # fmt: skip
    image_path = inside(folder, row["image"])
    if image_path is None or not image_path.is_file():
        return ["the image is missing"]
    png = image_path.read_bytes()
    if sha256(png) != row["image_sha256"]:
        return ["the image was changed after the export"]
    problems: list[str] = []
    if has_credentials and row["kind"] in MARKS:
        problems += [found] if (found := problem_with(png)) is not None else []
        png = without_credentials(png)
    if mark_of(png) != (row["kind"] if row["kind"] in MARKS else None):
        problems.append("a synthetic or edited image lacks its mark, or a real one carries it")
    if sha256(without_mark(png)) != row["blob"]:
        problems.append("the image is not the one that the manifest traces")
    pixels = decode_image(png, name=row["name"], max_bytes=len(png)).pixels
    size = (row["height"], row["width"])
    if pixels.shape[:2] != size:
        problems.append(f"the image is {pixels.shape[:2]}, the manifest says {size}")
    if store is not None and not np.array_equal(pixels, store.blobs.image(row["blob"])):
        problems.append("the image differs from the store")
    return problems + (_check_mask(folder, row, scheme, store) if row["mask"] else [])


def _check_mask(folder: Path, row: Mapping[str, Any], scheme: LabelScheme, store: Store | None) -> list[str]:
    path = inside(folder, row["mask"])
    if path is None or not path.is_file():
        return ["the mask is missing"]
    png = path.read_bytes()
    if sha256(png) != row["mask_sha256"]:
        return ["the mask was changed after the export"]
    mask = decode_mask(png, name=row["name"], max_bytes=len(png))
    size = (row["height"], row["width"])
    if mask.pixels.shape != size or mask.colours is not None:
        return [f"the mask is {mask.pixels.shape}, its image {size}"]
    problems: list[str] = []
    ids = dict(scheme.names) | ({IGNORED: scheme.ignore_id} if scheme.ignore_id is not None else {})
    found = mask.counts()
    if unknown := sorted(set(found) - set(ids.values())):
        problems.append(f"the mask holds value {unknown[0]}, which is no label")
    counted = {name: count for name, count in row["pixels"].items() if count}
    if {name: found[index] for name, index in ids.items() if index in found} != counted:
        problems.append("the pixel counts of the mask differ from the manifest")
    if store is not None:
        stored = at_image_size(store.label_map_pixels(row["lineage"]["label_map"]["blob"]), size=size)
        stored = refined(stored, row["lineage"], scheme.names)
        if not np.array_equal(mask.pixels, compile_label_map(stored, scheme)):
            problems.append("the mask differs from the label map in the store")
    return problems


def _check_sides(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """No group on two sides, and nothing synthetic where models are tested."""
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["group"], set()).add(row["split"])
    problems = [f"{group} is on more than one side: {', '.join(sorted(found))}"
                for group, found in sorted(sides.items()) if len(found) > 1]
    return problems + [f"{row['name']} is synthetic and lies in {row['split']}" for row in rows
                       if row["kind"] != "real" and row["split"] in HELD_OUT_SPLITS]
