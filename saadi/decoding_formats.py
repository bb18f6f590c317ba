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

_FOREIGN: tuple[tuple[int, bytes, str], ...] = (
    (128, b"DICM", "a DICOM file; de-identify it and save the frame as PNG first"),
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
    (4, b"ftyp", "a video; save single frames as PNG first"),
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
    """Walk the chunks of a PNG: sizes, checksums, depth; Pillow skips the checksums of the pixel data.

    Returns:
        Notes on what is missing or left over at the end.

    Raises:
        BadImageError: A chunk is damaged or cut, the picture is too large, or has 16 bits.
    """
    position = len(PNG_SIGNATURE)
    while position < len(data):
        header = data[position:position + 8]
        length = struct.unpack(">I", header[:4])[0] if len(header) == 8 else 0
        end = position + 12 + length
        if len(header) < 8 or end > len(data):
            raise BadImageError(f"{shown} is damaged or cut off after {len(data)} bytes; export it again from the original")
        if zlib.crc32(data[position + 4:end - 4]) != struct.unpack(">I", data[end - 4:end])[0]:
            raise BadImageError(f"{shown} is damaged (a checksum in it is wrong); export it again from the original")
        if header[4:] == b"IHDR" and length == 13:
            _check_png_header(data[position + 8:end - 4], shown)
        if header[4:] == b"IEND":
            return ["data after the end of the picture dropped"] if end < len(data) else []
        position = end
    return ["the end mark was missing, all pixels were there"]


def _check_png_header(header: bytes, shown: str) -> None:
    width, height, depth = struct.unpack(">IIB", header[:9])
    if width == 0 or height == 0:
        raise BadImageError(f"{shown} is damaged (it claims {width} x {height} pixels); export it again from the original")
    if max(width, height) > MAX_SIDE_PX:
        raise BadImageError(f"{shown} has {width} x {height} pixels, larger than {MAX_SIDE_PX} on a side; scale it down first")
    if depth == 16:
        raise BadImageError(f"{shown} is a 16-bit picture, 8 bit were expected; export it as 8 bit first")


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
