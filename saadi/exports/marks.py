"""The machine-readable marks of synthetic and edited images: IPTC DigitalSourceType as an XMP packet in a PNG text chunk."""

from __future__ import annotations

import struct
import zlib

from saadi.decoding_formats import PNG_SIGNATURE
from saadi.errors import BadImageError

SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's term for media made by a model that learned from samples."""
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's term for captured media of which a model made a part: a patient's pixels are left in it."""
_HEADER_END = len(PNG_SIGNATURE) + 25
"""The header chunk of a PNG comes first and has 25 bytes."""
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'Iptc4xmpExt:DigitalSourceType="{term}"/></rdf:RDF></x:xmpmeta><?xpacket end="r"?>')


def _chunk(term: str) -> bytes:
    # iTXt: keyword, 0, not compressed, method 0, no language, no translated keyword, UTF-8 text.
    body = b"iTXt" + b"XML:com.adobe.xmp\0\0\0\0\0" + _PACKET.format(term=term).encode()
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


MARKS = {"synthetic": _chunk(SYNTHETIC), "composite": _chunk(COMPOSITE)}
"""Kind of an exported item -> its mark; real images carry none."""


def mark(png: bytes, kind: str) -> bytes:
    """Return the PNG with the mark of its kind after its header; pixels and all other bytes stay as they are.

    Raises:
        BadImageError: Not a PNG.
    """
    if not png.startswith(PNG_SIGNATURE) or png[12:16] != b"IHDR":
        raise BadImageError("only a PNG can carry the mark of synthetic images")
    plain = without_mark(png)
    return plain[:_HEADER_END] + MARKS[kind] + plain[_HEADER_END:]


def mark_of(png: bytes) -> str | None:
    """The kind with which `mark` marked this PNG; None = no mark."""
    return next((kind for kind, chunk in MARKS.items() if png[_HEADER_END:_HEADER_END + len(chunk)] == chunk), None)


def without_mark(png: bytes) -> bytes:
    """The bytes before `mark`: what the store holds."""
    kind = mark_of(png)
    return png if kind is None else png[:_HEADER_END] + png[_HEADER_END + len(MARKS[kind]):]
