"""A zip with a data set: looked at as a whole before a byte is written, unpacked beside the data, gone again afterwards."""

from __future__ import annotations

import errno
import re
import shutil
import stat
import struct
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import pairwise
from pathlib import Path, PurePosixPath

import filelock

from saadi.config import MAX_FILE_BYTES
from saadi.datasets.folder_pairs import normal
from saadi.datasets.readers.base import MAX_INDEX_BYTES, PICTURE_SUFFIXES
from saadi.decoding import display_name
from saadi.errors import BadInputError, StorageError

MAX_MEMBERS = 400_000
MAX_BYTES = 500 * 2**30
MAX_RATIO = 200
"""A PNG compresses to nothing less than a thousandth of itself, but inside a zip it is compressed already; text reaches 20."""
_PREFIX, _LOCK, _CONTENT = "unpacked-", ".lock", "content"
"""A folder, what its process locks in it, and where the data set goes: a lock of the operating system ends with its process,
while the number of a process may be another one's by now, and in a container it is always the same."""
_FREE_BYTES = 2**30
"""Left on the disk after unpacking."""
_MAX_NAME, _MAX_DEPTH = 255, 20
_PIECE = 2**20
_PIECES_PER_REPORT = 64
_COMPANIONS = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
"""What computers put beside a folder, besides hidden files."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)\s*(\..*)?", re.IGNORECASE)
"""Windows opens a device under these names, whatever the suffix."""
_INDEX_SUFFIXES = frozenset({".json", ".jsonl", ".csv", ".txt", ".yaml", ".yml", ".md", ".xml"})


@contextmanager
def opened(path: Path, temporary_dir: Path, report: Callable[[int, int, str], None] | None = None) -> Iterator[Path]:
    """The folder itself, or for a zip a folder with its content, which is gone at the end.

    Args:
        report: Called with files unpacked, files in all and a sentence, at each file and some times during large ones; may raise
            to stop, and nothing stays then.

    Raises:
        BadInputError: The zip is none, or holds what no data set holds: paths that lead out, links, encryption, two members of
            one name, a bomb; nothing was written then.
        StorageError: It does not fit on the disk.
    """
    if not is_zip(path):
        yield path
        return
    temporary_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    sweep([temporary_dir])
    folder, lock = _locked_folder(temporary_dir)
    try:
        content = folder / _CONTENT
        content.mkdir(mode=0o700)
        with closing(_unpack(path, content)) as steps:
            for step, total in steps:
                if report is not None:
                    report(step, total, "unpacking the zip")
        yield _inner(content)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)  # Windows removes no file that is locked


def sweep(temporary_dirs: Iterable[Path]) -> int:
    """Remove what killed processes have unpacked: images of patients that nobody would find. Returns how many folders."""
    num_removed = 0
    for left in [folder for one in temporary_dirs for folder in one.glob(f"{_PREFIX}*")]:
        lock = filelock.FileLock(left / _LOCK)
        with suppress(filelock.Timeout, OSError):  # in use, or removed by another process meanwhile
            lock.acquire(timeout=0)
            shutil.rmtree(left, ignore_errors=True)
            lock.release()
            num_removed += 1
    return num_removed


def _locked_folder(temporary_dir: Path) -> tuple[Path, filelock.BaseFileLock]:
    while True:
        folder = Path(tempfile.mkdtemp(dir=temporary_dir, prefix=_PREFIX))
        lock = filelock.FileLock(folder / _LOCK)
        with suppress(filelock.Timeout, FileNotFoundError):  # swept by another process before it was locked
            lock.acquire(timeout=0)
            if (folder / _LOCK).exists():
                return folder, lock
            lock.release()


def _inner(content: Path) -> Path:
    """The only folder in it, as most are packed, else the whole."""
    inside = [one for one in content.iterdir() if normal(one.name) not in _COMPANIONS and not one.name.startswith(".")]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else content


def is_zip(path: Path) -> bool:
    """Whether it is a file that begins as a zip does."""
    try:
        with path.open("rb") as stream:
            return stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except OSError:
        return False


def check(archive: zipfile.ZipFile, *, num_bytes: int | None = None) -> list[zipfile.ZipInfo]:
    """The files of an archive, when all of it may be unpacked.

    Args:
        num_bytes: Of the archive on disk. Members may overlap there, so that the sum of what they say is larger.

    Raises:
        BadInputError: Names the first member that may not, and how many there are.
    """
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise BadInputError(f"the zip holds {len(members)} files, {MAX_MEMBERS} are allowed; divide it")
    reasons = [f"{display_name(member.filename)} {reason}" for member, reason in _with_reasons(members) if reason]
    if reasons:
        more = f"; {len(reasons)} such in all" if len(reasons) > 1 else ""
        raise BadInputError(f"the zip was not unpacked: {reasons[0]}{more}; pack the data set again, as plain files")
    files = [member for member in members if not member.is_dir()]
    total, packed = sum(member.file_size for member in files), sum(member.compress_size for member in files)
    packed = packed if num_bytes is None else min(packed, num_bytes)
    if total > MAX_BYTES or (total > 2**28 and total > MAX_RATIO * max(packed, 1)):
        raise BadInputError(f"the zip would become {total / 2**30:.1f} GB, {total // max(packed, 1)} times what it is; "
                            "pack pictures as PNG or JPEG")  # fmt: skip
    if not files:
        raise BadInputError("the zip is empty; choose the one with the images")
    return files


def _parts(name: str) -> tuple[str, ...]:
    """Where a member goes: './a//b.png' and 'a\\b.png' are one file."""
    return PurePosixPath(name.replace("\\", "/")).parts


def _with_reasons(members: list[zipfile.ZipInfo]) -> Iterator[tuple[zipfile.ZipInfo, str | None]]:
    """Each member, and why it may not be unpacked."""
    keys = [tuple(normal(part) for part in _parts(member.filename)) for member in members]
    folders = {key for member, key in zip(members, keys, strict=True) if member.filename.endswith("/")}
    # Sorted, whatever lies in a folder follows it at once.
    folders |= {one for one, after in pairwise(sorted(keys)) if len(one) < len(after) and after[:len(one)] == one}
    seen: set[tuple[str, ...]] = set()
    for member, key in zip(members, keys, strict=True):
        reason = _reason(member)
        if reason is None and not member.is_dir():  # asked second: it fails where there is no name
            if key in seen:
                reason = "comes twice (or once more with other capitals)"
            elif key in folders:
                reason = "is a file, and a folder of that name holds others"
            seen.add(key)
        yield member, reason


def _reason(member: zipfile.ZipInfo) -> str | None:
    """Why a member by itself may not be unpacked: 'leads out of the folder'."""
    name = member.orig_filename if "\0" in member.orig_filename else member.filename
    parts = _parts(name)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if name.startswith(("/", "\\")) or ".." in parts or (parts and ":" in parts[0]) or "\0" in name:
        return "leads out of the folder"
    if not name or (not parts and not member.is_dir()):
        return "has no name"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if member.flag_bits & 0x1:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in a way that is not read"
    if reason := _name_reason(name, parts):
        return reason
    limit = MAX_INDEX_BYTES if PurePosixPath(name).suffix.lower() in _INDEX_SUFFIXES else max(MAX_FILE_BYTES, _limit(name))
    return f"has {member.file_size / 2**20:.0f} MB" if member.file_size > limit else None


def _name_reason(name: str, parts: tuple[str, ...]) -> str | None:
    if len(parts) > _MAX_DEPTH or any(len(part.encode("utf-8", "replace")) > _MAX_NAME for part in parts):
        return "has a name that is too long"
    if any(unicodedata.category(char) == "Cc" for char in name):
        return "has control characters in its name"
    if any(":" in part or part.endswith((".", " ")) or _RESERVED.fullmatch(part) for part in parts):
        return "has a name that not every computer can store (a colon, a point or space at its end, CON, NUL and the like)"
    return None


def _limit(name: str) -> int:
    """Videos and DICOM series are larger than pictures."""
    return 0 if PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES else 50 * 2**30


def _unpack(path: Path, folder: Path) -> Generator[tuple[int, int], None, None]:
    """Write all files; yields how many of how many are written, now and then."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = check(archive, num_bytes=path.stat().st_size)
            needed, free = sum(member.file_size for member in files) + _FREE_BYTES, shutil.disk_usage(folder).free
            if needed > free:
                raise StorageError(f"unpacking needs {needed / 2**30:.1f} GB and {free / 2**30:.1f} GB are free; free some space")
            for step, member in enumerate(files):
                with closing(_write(archive, member, folder.joinpath(*_parts(member.filename)))) as pieces:
                    for _ in pieces:
                        yield step, len(files)
    except (BadInputError, StorageError):
        raise
    except UnicodeDecodeError as error:
        raise BadInputError("the zip holds names that are no text; pack the data set again, as plain files") from error
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BadInputError("the zip is damaged or cut off; pack or download it again") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:  # this disk takes two names for one
        raise BadInputError("the zip holds two files whose names are one on this disk; rename one, and pack it again") from error
    except OSError as error:
        advice = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "unpack it yourself and choose the folder"
        raise StorageError(f"the zip cannot be unpacked ({error.strerror or type(error).__name__}); {advice}") from error


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> Generator[None, None, None]:
    """One file, stopped where it becomes larger than the archive has said; yields before it and now and then in a large one."""
    yield
    target.parent.mkdir(parents=True, exist_ok=True)
    left, num_pieces = member.file_size, 0
    with archive.open(member) as source, target.open("xb") as stream:
        while piece := source.read(_PIECE):
            left -= len(piece)
            if left < 0:
                raise zipfile.BadZipFile("larger than announced")
            stream.write(piece)
            num_pieces += 1
            if num_pieces % _PIECES_PER_REPORT == 0:
                yield
