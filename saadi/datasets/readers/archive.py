"""A zip with a data set: looked at as a whole before a byte is written, unpacked beside the data, gone again afterwards."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import psutil

from saadi.config import MAX_FILE_BYTES
from saadi.datasets.folder_pairs import normal
from saadi.datasets.readers.base import MAX_INDEX_BYTES, PICTURE_SUFFIXES
from saadi.decoding import display_name
from saadi.errors import BadInputError, StorageError

MAX_MEMBERS = 400_000
MAX_BYTES = 500 * 2**30
MAX_RATIO = 200
"""A PNG compresses to nothing less than a thousandth of itself, but inside a zip it is compressed already; text reaches 20."""
_PREFIX = "unpacked-"
_FREE_BYTES = 2**30
"""Left on the disk after unpacking."""
_MAX_NAME, _MAX_DEPTH = 255, 20
_PIECE = 2**20
_INDEX_SUFFIXES = frozenset({".json", ".jsonl", ".csv", ".txt", ".yaml", ".yml", ".md", ".xml"})


@contextmanager
def opened(path: Path, temporary_dir: Path) -> Iterator[Path]:
    """The folder itself, or for a zip a folder with its content, which is gone at the end.

    Raises:
        BadInputError: The zip is none, or holds what no data set holds: paths that lead out, links, encryption, two members of
            one name, a bomb; nothing was written then.
        StorageError: It does not fit on the disk.
    """
    if not is_zip(path):
        yield path
        return
    temporary_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in temporary_dir.glob(f"{_PREFIX}*"):  # of a process that was killed: images of patients that nobody would find
        if not psutil.pid_exists(int(left.name.split("-")[1])):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(dir=temporary_dir, prefix=f"{_PREFIX}{os.getpid()}-"))
    try:
        _unpack(path, folder)
        inside = [one for one in folder.iterdir() if one.name != "__MACOSX"]
        yield inside[0] if len(inside) == 1 and inside[0].is_dir() else folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_zip(path: Path) -> bool:
    """Whether it is a file that begins as a zip does."""
    try:
        with path.open("rb") as stream:
            return stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except OSError:
        return False


def check(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of an archive, when all of it may be unpacked.

    Raises:
        BadInputError: Names the first member that may not, and how many there are.
    """
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise BadInputError(f"the zip holds {len(members)} files, {MAX_MEMBERS} are allowed; divide it")
    reasons: list[str] = []
    seen: set[str] = set()
    for member in members:
        reason = _reason(member)
        key = normal(member.filename)
        if reason is None and key in seen:
            reason = "comes twice (or once more with other capitals)"
        seen.add(key)
        if reason:
            reasons.append(f"{display_name(member.filename)} {reason}")
    if reasons:
        more = f"; {len(reasons)} such in all" if len(reasons) > 1 else ""
        raise BadInputError(f"the zip was not unpacked: {reasons[0]}{more}; pack the data set again, as plain files")
    files = [member for member in members if not member.is_dir()]
    total, packed = sum(member.file_size for member in files), sum(member.compress_size for member in files)
    if total > MAX_BYTES or (total > 2**28 and total > MAX_RATIO * max(packed, 1)):
        raise BadInputError(f"the zip would become {total / 2**30:.1f} GB, {total // max(packed, 1)} times what it is; "
                            "pack pictures as PNG or JPEG")  # fmt: skip
    if not files:
        raise BadInputError("the zip is empty; choose the one with the images")
    return files


def _reason(member: zipfile.ZipInfo) -> str | None:
    """Why a member may not be unpacked: 'leads out of the folder'."""
    name = member.orig_filename if "\0" in member.orig_filename else member.filename
    parts = PurePosixPath(name.replace("\\", "/")).parts
    kind = stat.S_IFMT(member.external_attr >> 16)
    if name.startswith(("/", "\\")) or ".." in parts or (parts and ":" in parts[0]) or "\0" in name:
        return "leads out of the folder"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if member.flag_bits & 0x1:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in a way that is not read"
    if len(parts) > _MAX_DEPTH or any(len(part.encode("utf-8", "replace")) > _MAX_NAME for part in parts):
        return "has a name that is too long"
    if any(unicodedata.category(char) == "Cc" for char in name):
        return "has control characters in its name"
    limit = MAX_INDEX_BYTES if PurePosixPath(name).suffix.lower() in _INDEX_SUFFIXES else max(MAX_FILE_BYTES, _limit(name))
    return f"has {member.file_size / 2**20:.0f} MB" if member.file_size > limit else None


def _limit(name: str) -> int:
    """Videos and DICOM series are larger than pictures."""
    return 0 if PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES else 50 * 2**30


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            files = check(archive)
            needed, free = sum(member.file_size for member in files) + _FREE_BYTES, shutil.disk_usage(folder).free
            if needed > free:
                raise StorageError(f"unpacking needs {needed / 2**30:.1f} GB and {free / 2**30:.1f} GB are free; free some space")
            for member in files:
                _write(archive, member, folder.joinpath(*PurePosixPath(member.filename.replace("\\", "/")).parts))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadInputError("the zip is damaged or cut off; pack or download it again") from error
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"the zip cannot be unpacked ({error.strerror}); free some space or unpack it yourself") from error


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """One file, stopped where it becomes larger than the archive has said."""
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.file_size
    with archive.open(member) as source, target.open("xb") as stream:
        while piece := source.read(_PIECE):
            left -= len(piece)
            if left < 0:
                raise zipfile.BadZipFile("larger than announced")
            stream.write(piece)
