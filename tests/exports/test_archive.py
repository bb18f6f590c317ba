"""The zip of an export: whole or visibly not, the same bytes each time, and readable from any byte on."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saadi.errors import BadInputError, StorageError
from saadi.exports import archive
from saadi.exports.archive import Archive
from saadi.exports.manifest import ITEMS, MANIFEST
from saadi.store.connection import dump

PIXELS = {"b/é 1.png": b"pixels" * 50, "a.png": b"", "b/c/d.png": bytes(range(256))}
ZIP64 = [{}, {"zip64_from": 200}, {"zip64_from": 0}, {"zip64_from_count": 3}, {"zip64_from": 260, "zip64_from_count": 1}]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_export(folder: Path, files: dict[str, bytes] = PIXELS) -> Path:
    """The least that a manifest tells of its files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    rows = [{"image": name, "image_sha256": sha256(content), "mask": None} for name, content in files.items()]
    items = "".join(f"{dump(row)}\n" for row in rows).encode()
    (folder / ITEMS).write_bytes(items)
    (folder / MANIFEST).write_text(dump({"items_sha256": sha256(items), "index_files": {}}))
    return folder


def whole(made: Archive) -> bytes:
    return b"".join(made.read())


@pytest.mark.parametrize("limits", ZIP64)
def test_every_reader_finds_the_files_of_the_manifest(tmp_path: Path, limits: dict[str, int]) -> None:
    folder = make_export(tmp_path / "set")
    (folder / "notes of mine.txt").write_text("not in the manifest")
    made = Archive(folder, **limits)
    data = whole(made)
    assert len(data) == made.size
    with zipfile.ZipFile(io.BytesIO(data)) as read:
        assert read.testzip() is None
        assert read.namelist() == [f"set/{name}" for name in sorted([*PIXELS, ITEMS, MANIFEST])]
        assert {name: read.read(f"set/{name}") for name in PIXELS} == PIXELS
        assert {(info.date_time, info.external_attr >> 16, info.compress_type) for info in read.infolist()} == {
            ((1980, 1, 1, 0, 0, 0), 0o100644, zipfile.ZIP_STORED)}
    if shutil.which("unzip"):
        (tmp_path / "set.zip").write_bytes(data)
        told = subprocess.run(["unzip", "-t", tmp_path / "set.zip"], capture_output=True, text=True)
        assert told.returncode == 0 and "No errors" in told.stdout, told.stdout + told.stderr


@pytest.mark.parametrize("limits", ZIP64)
def test_any_range_is_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int]) -> None:
    folder = make_export(tmp_path / "set")
    data = whole(Archive(folder, **limits))
    monkeypatch.setattr(archive, "BLOCK", 64)
    for start in range(0, len(data), 7):
        assert b"".join(Archive(folder, **limits).read(start)) == data[start:]
        assert b"".join(Archive(folder, **limits).read(start, min(len(data), start + 31))) == data[start : start + 31]


@given(st.dictionaries(st.from_regex(r"[a-z]{1,9}(/[a-zß-ÿ]{1,5})?\.png", fullmatch=True), st.binary(max_size=70), max_size=9),
       st.integers(0, 400), st.integers(0, 12))  # fmt: skip
def test_length_and_content_hold_whatever_is_in_it(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], large: int, many: int
) -> None:
    folder = make_export(tmp_path_factory.mktemp("any") / "set", files)
    made = Archive(folder, zip64_from=large, zip64_from_count=many)
    data = whole(made)
    assert len(data) == made.size
    with zipfile.ZipFile(io.BytesIO(data)) as read:
        assert read.testzip() is None and {name: read.read(f"set/{name}") for name in files} == files


def test_the_bytes_depend_on_nothing_but_the_content(tmp_path: Path) -> None:
    one, other = make_export(tmp_path / "1/set"), make_export(tmp_path / "2/set", dict(reversed(PIXELS.items())))
    (other / ITEMS).write_bytes((one / ITEMS).read_bytes())
    (other / MANIFEST).write_bytes((one / MANIFEST).read_bytes())
    for path in other.rglob("*.png"):
        path.chmod(0o600)
        os.utime(path, (1, 1))
    assert whole(Archive(one)) == whole(Archive(other))


def test_pieces_are_large_however_small_the_files(tmp_path: Path) -> None:
    folder = make_export(tmp_path / "set", {f"{number}.png": bytes(1000) for number in range(2000)})
    sizes = [len(block) for block in Archive(folder).read()]
    assert set(sizes[:-1]) == {archive.BLOCK} and len(sizes) > 1


@pytest.mark.parametrize("damage", [b"longer" * 99, b"short", b"PIXELS" * 50])
@pytest.mark.parametrize("part", [0, 1, 5])  # the first two files; the first line of the directory, which needs its checksum
def test_a_file_that_has_changed_ends_the_archive(tmp_path: Path, damage: bytes, part: int) -> None:
    folder = make_export(tmp_path / "set")
    made = Archive(folder)
    start = made._places[part] + 9
    (folder / "b/é 1.png").write_bytes(damage)
    sent = []
    with pytest.raises(StorageError, match=r"'b/é 1.png' was changed.*export again"):
        for block in made.read(start):
            sent.append(block)
    assert len(b"".join(sent)) < made.size - start


def test_a_file_that_changes_while_it_is_sent_ends_the_archive(tmp_path: Path) -> None:
    folder, known = make_export(tmp_path / "set"), dict[int, int]()
    whole(Archive(folder, crcs=known))
    (folder / "b/c/d.png").write_bytes(bytes(256))  # after its checksum was taken
    with pytest.raises(StorageError, match=r"b/c/d\.png"):
        whole(Archive(folder, crcs=known))


def test_going_on_reads_no_file_twice_where_checksums_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, known = make_export(tmp_path / "set"), dict[int, int]()
    data = whole(Archive(folder, crcs=known))
    read: list[str] = []
    monkeypatch.setattr(Archive, "_content", lambda self, entry: read.append(entry.path) or iter([]))
    last = Archive(folder, crcs=known)
    assert b"".join(last.read(last.size - 40)) == data[-40:] and read == []


@pytest.mark.parametrize("name", ["b/c/d.png", "b/c", "b"])
def test_links_are_not_followed(tmp_path: Path, name: str) -> None:
    folder = make_export(tmp_path / "set")
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInputError, match="missing in this export, or a link"):
        Archive(folder)


def test_a_link_put_there_later_is_not_followed_either(tmp_path: Path) -> None:
    made = Archive(make_export(tmp_path / "set"))
    (tmp_path / "set/b/c/d.png").rename(tmp_path / "elsewhere")
    (tmp_path / "set/b/c/d.png").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match=r"b/c/d\.png"):
        whole(made)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hosts", "a\\b.png"])
def test_a_manifest_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    folder = make_export(tmp_path / "set")
    row = {"image": name, "image_sha256": sha256(b""), "mask": None}
    items = f"{dump(row)}\n".encode()
    (folder / ITEMS).write_bytes(items)
    (folder / MANIFEST).write_text(dump({"items_sha256": sha256(items), "index_files": {}}))
    with pytest.raises(BadInputError, match="missing in this export"):
        Archive(folder)


def test_no_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="not a whole export"):
        Archive(tmp_path)
    folder = make_export(tmp_path / "set")
    (folder / ITEMS).write_bytes((folder / ITEMS).read_bytes() + b'{"image": null, "mask": null}\n')
    with pytest.raises(BadInputError, match=r"items\.jsonl was changed"):
        Archive(folder)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    folder, target = make_export(tmp_path / "set"), tmp_path / "set.zip"
    Archive(folder).write(target)
    assert target.read_bytes() == whole(Archive(folder))
    with pytest.raises(BadInputError, match="there already"):
        Archive(folder).write(target)
    with pytest.raises(BadInputError, match="make it first"):
        Archive(folder).write(tmp_path / "none/set.zip")
    made = Archive(folder)
    (folder / "b/c/d.png").write_bytes(b"")
    with pytest.raises(StorageError, match=r"b/c/d\.png"):
        made.write(tmp_path / "other.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "set.zip"]


def test_a_full_disk_leaves_no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Archive(make_export(tmp_path / "set"))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive.os, "fsync", full)
    with pytest.raises(StorageError, match=r"No space left on device.*no archive was written"):
        made.write(tmp_path / "set.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
