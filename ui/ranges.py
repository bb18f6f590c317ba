"""Which bytes a request asks for (RFC 9110, section 14), so that a download goes on where it broke off."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fastapi import HTTPException


def asked_range(headers: Mapping[str, str], *, size: int, etag: str) -> tuple[int, int] | None:
    """First byte and the one after the last; None = all of it.

    Args:
        headers: Of the request. Several ranges, other units and what cannot be read ask for all, as the RFC wants it; so does a
            range of another version (If-Range).

    Raises:
        HTTPException: 416, the range begins behind the end.
    """
    asked = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", headers.get("range", "").replace(" ", ""))
    if asked is None or headers.get("if-range", etag) != etag:
        return None
    first, last = asked.groups()
    if not first and not last:
        return None
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < start:
            return None
    if start >= size:
        raise HTTPException(416, "the archive is shorter than that; download it from the beginning",
                            headers={"Content-Range": f"bytes */{size}"})  # fmt: skip
    return start, end
