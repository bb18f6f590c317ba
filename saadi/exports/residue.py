"""What the files of an export carry beside pixels: looked for in the bytes, since a viewer shows none of it.

Pixels come in without metadata and go out as we wrote them, so there is nothing to find; unless somebody opened a file in another
program and saved it, or laid one beside it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from saadi.decoding_formats import PNG_SIGNATURE
from saadi.exports.credentials import without_credentials
from saadi.exports.manifest import ITEMS, MANIFEST
from saadi.exports.marks import MARKS

PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
"""Chunks that a picture is made of; every other one (tEXt, zTXt, iTXt, eXIf, tIME, iCCP, ...) says something about it."""
AFTER_END = "bytes after the end of the picture"
UNREADABLE = "not a whole PNG"
FOREIGN = "not in the manifest"


class Residue(NamedTuple):
    """What a file carries beside pixels."""

    name: str
    """Its path in the export; '' for a file that is not ours, since that name may be a patient's."""
    what: tuple[str, ...]
    """Names of chunks, AFTER_END, UNREADABLE or FOREIGN."""


def metadata_of(png: bytes) -> tuple[str, ...]:
    """Names of the chunks of a PNG that are neither pixels nor our mark of synthetic media, each once, in their order."""
    if not png.startswith(PNG_SIGNATURE):
        return (UNREADABLE,)
    found: dict[str, None] = {}
    place = len(PNG_SIGNATURE)
    while place + 12 <= len(png):
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        end = place + 12 + length
        if end > len(png):
            return (*found, UNREADABLE)
        if kind not in PIXELS and png[place:end] not in MARKS.values():
            found[kind.decode("latin-1")] = None
        place = end
        if kind == b"IEND":
            return (*found, AFTER_END) if place < len(png) else tuple(found)
    return (*found, UNREADABLE)


def residues(folder: Path, known: set[str], *, with_credentials: bool = False,
             look: Callable[[int, int], None] = lambda step, total: None) -> list[Residue]:  # fmt: skip
    """Files of an export that carry more than they should, by name.

    Args:
        known: Paths in the folder that the export is made of; the text files among them are compared with their hashes by
            `saadi verify`, the pictures are looked into here.
        with_credentials: Content credentials (C2PA) were asked for, so their chunk is one of ours.
        look: Told how many of how many files were looked at; may raise to stop.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    known, found = known | {MANIFEST, ITEMS}, []
    for number, path in enumerate(files):
        look(number, len(files))
        name = path.relative_to(folder).as_posix()
        if name not in known or path.is_symlink():
            found.append(Residue("", (FOREIGN,)))
        elif path.suffix == ".png":
            png = path.read_bytes()
            if what := metadata_of(without_credentials(png) if with_credentials else png):
                found.append(Residue(name, what))
    return found
