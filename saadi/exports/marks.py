"""The machine-readable mark of synthetic images: IPTC DigitalSourceType as an XMP packet in a PNG text chunk."""

from __future__ import annotations

import struct
import zlib

from saadi.decoding_formats import PNG_SIGNATURE
from saadi.errors import BadImageError

SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's term for media made by a model that learned from samples."""
_HEADER_END = len(PNG_SIGNATURE) + 25
"""The header chunk of a PNG comes first and has 25 bytes."""
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{SYNTHETIC}"/></rdf:RDF></x:xmpmeta><?xpacket end="r"?>').encode()


def _chunk() -> bytes:
    # iTXt: keyword, 0, not compressed, method 0, no language, no translated keyword, UTF-8 text.
    body = b"iTXt" + b"XML:com.adobe.xmp\0\0\0\0\0" + _PACKET
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


MARK = _chunk()


def mark_synthetic(png: bytes) -> bytes:
    """Return the PNG with the mark after its header; pixels and all other bytes stay as they are.

    Raises:
        BadImageError: Not a PNG.
    """
    if not png.startswith(PNG_SIGNATURE) or png[12:16] != b"IHDR":
        raise BadImageError("only a PNG can carry the mark of synthetic images")
    return png if is_marked(png) else png[:_HEADER_END] + MARK + png[_HEADER_END:]


def is_marked(png: bytes) -> bool:
    """True where `mark_synthetic` marked this PNG."""
    return png[_HEADER_END:_HEADER_END + len(MARK)] == MARK


def without_mark(png: bytes) -> bytes:
    """The bytes before `mark_synthetic`: what the store holds."""
    return png[:_HEADER_END] + png[_HEADER_END + len(MARK):] if is_marked(png) else png
