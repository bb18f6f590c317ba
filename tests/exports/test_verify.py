"""Every change after the export is found, also without the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from saadi.exports.manifest import item_line, sha256
from saadi.exports.marks import mark, without_mark
from saadi.exports.verify import verify_export
from saadi.store import Store
from saadi.store.blobs import encode_png
from tests.exports.builders import export, full_project, label_map


@pytest.fixture
def folder(tmp_path: Path, store: Store) -> Path:
    job = export(store, full_project(store), tmp_path / "out", format="imagefolder")
    assert job.state == "done", job.error
    return tmp_path / "out"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda f: flip(f / "train/images/real-000001.png"), "real-000001: the image was changed"),
        (lambda f: flip(f / "train/masks/synthetic-000001.png"), "synthetic-000001: the mask was changed"),
        (lambda f: (f / "test/images/real-000007.png").unlink(), "real-000007: the image is missing"),
        (lambda f: (f / "val/metadata.jsonl").unlink(), "val/metadata.jsonl is missing"),
        (lambda f: flip(f / "train/metadata.jsonl"), "train/metadata.jsonl was changed"),
        (lambda f: (f / "train/images/extra.png").write_bytes(b"x"), "train/images/extra.png is in the folder but not"),
        (lambda f: flip(f / "items.jsonl"), "items.jsonl was changed"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda f: (f / "manifest.json").write_text("[]"), "not the manifest of an export"),
    ],
)
def test_changes_after_the_export_are_found(folder: Path, change: Callable[[Path], object], found: str) -> None:
    change(folder)
    assert any(problem.startswith(found) or found in problem for problem in verify_export(folder))


def rewrite(folder: Path, change: Callable[[list[dict[str, object]]], object]) -> None:
    """Forge the items together with the hash in the manifest."""
    rows = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    change(rows)
    content = b"".join(map(item_line, rows))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "items.jsonl").write_bytes(content)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"items_sha256": sha256(content)}))


@pytest.mark.parametrize(
    ("column", "value", "found"),
    [
        ("split", "test", "is on more than one side"),
        ("kind", "synthetic", "lacks its mark"),
        ("image", "../../../etc/passwd", "missing"),
        ("blob", "0" * 64, "not the one that the manifest traces"),
        ("height", 99, "the manifest says"),
    ],
)
def test_a_forged_item_is_found(folder: Path, column: str, value: object, found: str) -> None:
    rewrite(folder, lambda rows: rows[0].update({column: value}))
    assert any(found in problem for problem in verify_export(folder))


def test_items_without_their_columns_are_refused(folder: Path) -> None:
    rewrite(folder, lambda rows: rows[0].pop("mask_sha256"))
    assert verify_export(folder) == ["items.jsonl lacks columns; export again"]


def test_a_mask_that_differs_from_the_store_is_found(folder: Path, store: Store) -> None:
    mask = label_map(0)
    mask[0, 0], mask[4, 5] = 1, 0  # the same number of pixels in every class
    png = encode_png(np.ascontiguousarray(mask))
    (folder / "train/masks/real-000001.png").write_bytes(png)
    rewrite(folder, lambda rows: rows[0].update({"mask_sha256": sha256(png)}))
    assert verify_export(folder, store=store) == ["real-000001: the mask differs from the label map in the store"]


def test_the_mark_is_read_by_pillow_and_comes_off_without_a_trace(folder: Path) -> None:
    from PIL import Image

    marked = (folder / "train/images/synthetic-000001.png").read_bytes()
    with Image.open(folder / "train/images/synthetic-000001.png") as picture:
        packet = picture.info["xmp"]
    assert b"digitalsourcetype/trainedAlgorithmicMedia" in packet and b"Iptc4xmpExt:DigitalSourceType" in packet
    assert mark(without_mark(marked), "synthetic") == marked == mark(marked, "synthetic")
    assert b"DigitalSourceType" not in (folder / "train/images/real-000001.png").read_bytes()
