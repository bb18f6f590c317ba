"""What bytes are, by their first bytes: the five formats that are read, advice for the others, PNG chunk checks."""

from __future__ import annotations

import struct
import zlib

from saadi.config import MAX_SIDE_PX
from saadi.errors import BadImageError

FORMATS = "PNG, JPEG, TIFF, WebP or BMP"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TIFF_LOSSY = (6, 7, 34892, 50001, 50002)
"""Compression tags: old JPEG, JPEG, lossy JPEG (DNG), WebP, JPEG XL."""
_COMPRESSION_TAG = 259
MAX_PIXELS = 40_000_000
"""An 8K frame has 33 million pixels; 40 million decode in about 0.3 GB."""
AGAIN = "export it again from the original"
_PIECE_BYTES = 2**20
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, steps in x and y of the seven passes of an interlaced PNG."""

_FOREIGN: tuple[tuple[int, bytes, str], ...] = (
    (128, b"DICM", "a DICOM file; put DICOM files into a folder of their own and import that, or save the frame as PNG"),
    (0, b"\x93NUMPY", "a NumPy array; save it as 8-bit PNG first"),
    (0, b"GIF8", "a GIF, which may hold more than one picture; save the frame you want as PNG"),
    (0, b"%PDF", "a PDF; save the picture in it as PNG first"),
    (0, b"%!PS", "a PostScript file; save it as PNG first"),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript file; save it as PNG first"),
    (0, b"PK\x03\x04", "a zip archive; unpack it and choose the pictures in it"),
    (0, b"PK\x05\x06", "a zip archive; unpack it and choose the pictures in it"),
    (0, b"Rar!", "an archive; unpack it and choose the pictures in it"),
    (0, b"7z\xbc\xaf", "an archive; unpack it and choose the pictures in it"),
    (0, b"\x1f\x8b", "a gzip archive (a NIfTI volume?); save single slices as PNG first"),
    (0, b"\x7fELF", "a program and not a picture; choose a picture"),
    (0, b"MZ", "a program and not a picture; choose a picture"),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture; save it as PNG first"),
    (0, b"8BPS", "a Photoshop file; save it as PNG first"),
    (0, b"\x00\x00\x01\x00", "an icon file; save it as PNG first"),
    (4, b"ftypavi", "an AVIF picture; save it as PNG first"),
    (4, b"ftyphei", "a HEIC picture; save it as PNG first"),
    (4, b"ftypmif1", "a HEIC picture; save it as PNG first"),
    (4, b"ftyp", "a video; import it by itself, or save single frames as PNG"),
)


def sniff(data: bytes) -> str | None:
    """Pillow's name of one of the five formats that are read, by content; None for everything else."""
    if data.startswith(PNG_SIGNATURE):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")) and data[128:132] != b"DICM":
        return "TIFF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(b"BM"):
        return "BMP"
    return None


def advice_for(data: bytes) -> str | None:
    """What a well-known other kind of file is and what to do with it: 'a PDF; save ...', or None."""
    for offset, magic, advice in _FOREIGN:
        if data[offset:offset + len(magic)] == magic:
            return advice
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in data[:4096].lower() and start.startswith(b"<"):
        return "an SVG drawing, which may carry scripts; save it as PNG first"
    if start.startswith((b"<!doctype html", b"<html", b"<script", b"<?xml", b"<")):
        return "a web page or XML and not a picture; choose a picture"
    return None


def is_lossy(kind: str, data: bytes) -> bool:
    """True where saving changed pixel values, so that a mask cannot be trusted."""
    if kind == "JPEG":
        return True
    if kind == "WEBP":
        return _webp_chunk(data) == b"VP8 "
    return kind == "TIFF" and _tiff_compression(data) in _TIFF_LOSSY


def check_png(data: bytes, shown: str) -> list[str]:
    """Walk the chunks of a PNG: sizes, checksums, depth, number of pixels.

    Pillow skips the checksums of the pixel data, reduces 16 bits without a word and fills missing rows with black.

    Returns:
        Notes on what is missing or left over at the end.

    Raises:
        BadImageError: A chunk is damaged or cut, the picture is too large, has 16 bits, or has too few pixels.
    """
    view, position = memoryview(data), len(PNG_SIGNATURE)
    missing, inflater, notes = -1, zlib.decompressobj(), ["the end mark was missing, all pixels were there"]
    while position < len(data):
        length = struct.unpack_from(">I", view, position)[0] if len(data) - position >= 12 else len(data)
        name, end = bytes(view[position + 4:position + 8]), position + 12 + length
        if end > len(data):
            raise BadImageError(f"{shown} is damaged or cut off after {len(data)} bytes; {AGAIN}")
        body = view[position + 8:end - 4]
        if zlib.crc32(view[position + 4:end - 4]) != struct.unpack_from(">I", view, end - 4)[0]:
            raise BadImageError(f"{shown} is damaged (a checksum in it is wrong); {AGAIN}")
        if name == b"IHDR" and length == 13:
            missing = _check_png_header(bytes(body), shown)
        elif name == b"IDAT":
            missing -= _inflated_bytes(inflater, body, shown, at_most=missing)
        position = end
        if name == b"IEND":
            notes = ["data after the end of the picture dropped"] if end < len(data) else []
            break
    if missing:
        raise BadImageError(f"{shown} is damaged (pixels are missing); {AGAIN}")
    return notes


def check_pixels(width: int, height: int, shown: str) -> None:
    """Raises: BadImageError: more pixels than may be decoded."""
    if width * height > MAX_PIXELS:
        raise BadImageError(f"{shown} has {width} x {height} pixels, {MAX_PIXELS // 1_000_000} million are the limit; "
                            "scale it down first")


def _inflated_bytes(inflater: zlib._Decompress, body: memoryview, shown: str, *, at_most: int) -> int:
    """How many bytes of pixel rows one chunk holds, counted piece by piece and never beyond `at_most`."""
    total, rest = 0, bytes(body)
    try:
        while rest and total < at_most and not inflater.eof:
            total += len(inflater.decompress(rest, min(_PIECE_BYTES, at_most - total)))
            rest = inflater.unconsumed_tail
    except zlib.error as error:
        raise BadImageError(f"{shown} is damaged (its pixels cannot be unpacked); {AGAIN}") from error
    return total


def _check_png_header(header: bytes, shown: str) -> int:
    """Number of bytes that the rows of this PNG have when unpacked."""
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
    if width == 0 or height == 0:
        raise BadImageError(f"{shown} is damaged (it claims {width} x {height} pixels); {AGAIN}")
    if max(width, height) > MAX_SIDE_PX:
        raise BadImageError(f"{shown} has {width} x {height} pixels, larger than {MAX_SIDE_PX} on a side; scale it down first")
    check_pixels(width, height, shown)
    if depth == 16:
        raise BadImageError(f"{shown} is a 16-bit picture, 8 bit were expected; export it as 8 bit first")
    bits = depth * _PNG_CHANNELS.get(colour, 1)
    passes = _ADAM7 if interlace else ((0, 0, 1, 1),)
    sizes = ((max(0, -(-(width - x) // dx)), max(0, -(-(height - y) // dy))) for x, y, dx, dy in passes)
    return sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns)


def _webp_chunk(data: bytes) -> bytes:
    """Name of the first chunk with pixels: 'VP8 ' (lossy) or 'VP8L' (lossless); empty where there is none."""
    position = 12
    while position + 8 <= len(data):
        name, length = data[position:position + 4], struct.unpack("<I", data[position + 4:position + 8])[0]
        if name in (b"VP8 ", b"VP8L"):
            return name
        position += 8 + length + length % 2
    return b""


def _tiff_compression(data: bytes) -> int:
    """Compression tag of the first directory of a classic TIFF; 1 (none) where it is missing, 7 where it cannot be read."""
    order = "<" if data[:2] == b"II" else ">"
    if data[2:4] in (b"+\0", b"\0+"):  # BigTIFF: not worth a second parser for a mask
        return 7
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for index in range(count):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", data, start + 2 + 12 * index)
            if tag == _COMPRESSION_TAG:
                return int(value)
    except struct.error:
        return 7
    return 1


MARKED_WITHIN = 2**18
"""Bytes from the beginning of a file in which its metadata lie, before the pixels."""


def is_generated(data: bytes) -> bool:
    """Whether a file says by IPTC's DigitalSourceType that a model has made it or a part of it: trainedAlgorithmicMedia or
    compositeWithTrainedAlgorithmicMedia, whoever has marked it."""
    return b"trainedalgorithmicmedia" in data[:MARKED_WITHIN].lower()
