"""What the bytes of an export's files carry beside pixels."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo

from saadi.exports.marks import MARKS, mark
from saadi.exports.residue import AFTER_END, FOREIGN, UNREADABLE, Residue, metadata_of, residues
from saadi.store import Store
from tests.exports.builders import add_sample, export, image, make_project


def encoded(**options: object) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(image(1)).save(stream, "PNG", **options)
    return stream.getvalue()


def with_text(*, is_packed: bool) -> PngInfo:
    told = PngInfo()
    told.add_text("Patient", "DOE, JANE", zip=is_packed)
    return told


EXIF = Pillow.Exif()
EXIF[0x013B] = "DOE, JANE"  # artist


@pytest.mark.parametrize(("png", "names"), [
    (encoded(), ()), (encoded(pnginfo=with_text(is_packed=False)), ("tEXt",)), (encoded(exif=EXIF), ("eXIf",)),
    (encoded(pnginfo=with_text(is_packed=True)), ("zTXt",)), (encoded(icc_profile=b"a profile"), ("iCCP",)),
    (encoded(dpi=(72, 72)), ("pHYs",)), (encoded() + b"DOE, JANE", (AFTER_END,)), (encoded()[:-20], (UNREADABLE,)),
    (b"\xff\xd8 a JPEG by a wrong name", (UNREADABLE,))])
def test_every_chunk_that_is_no_pixel_is_named(png: bytes, names: tuple[str, ...]) -> None:
    assert metadata_of(png) == names


@pytest.mark.parametrize("kind", sorted(MARKS))
def test_our_mark_is_no_finding_and_a_changed_one_is(store: Store, kind: str) -> None:
    marked = mark(store.blobs.get(store.blobs.put_image(image(2))), kind)
    assert metadata_of(marked) == ()
    assert metadata_of(marked.replace(b"DigitalSourceType", b"DigitalSourcePatient"[:17])) == ("iTXt",)


def test_a_palette_is_part_of_the_picture() -> None:
    stream = io.BytesIO()
    Pillow.fromarray(np.zeros((4, 4), np.uint8), "L").convert("P").save(stream, "PNG", transparency=0)
    assert metadata_of(stream.getvalue()) == ()


@pytest.mark.parametrize("format", ["folders", "voc", "coco", "yolo", "imagefolder", "nnunet"])
def test_a_fresh_export_carries_nothing(store: Store, tmp_path: Path, format: str) -> None:
    project = make_project(store)
    add_sample(store, project, store.label_maps(project.id)[0], 1)
    export(store, project, tmp_path / "out", format=format)
    assert residues(tmp_path / "out", known_in(tmp_path / "out")) == []


def test_planted_files_are_found_and_foreign_names_kept_back(store: Store, tmp_path: Path) -> None:
    project = make_project(store)
    add_sample(store, project, store.label_maps(project.id)[0], 1)
    export(store, project, tmp_path / "out", format="folders")
    real = next((tmp_path / "out").rglob("real-*.png"))
    real.write_bytes(encoded(exif=EXIF))
    (tmp_path / "out" / "DOE_JANE.txt").write_text("notes")
    found = residues(tmp_path / "out", known_in(tmp_path / "out"))
    assert sorted(found) == [Residue("", (FOREIGN,)), Residue(real.relative_to(tmp_path / "out").as_posix(), ("eXIf",))]
    assert "DOE" not in str(found)


def known_in(folder: Path) -> set[str]:
    manifest = json.loads((folder / "manifest.json").read_text())
    rows = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    return {*manifest["index_files"], *(row[key] for row in rows for key in ("image", "mask") if row[key])}
