"""What a job is making, to look at while it is made: small lossy pictures in the job's folder, overwritten in place.

They are no blobs: nothing names them, and they go with the folder when the job ends. Nothing is decoded before it is due.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from saadi.errors import NotFoundError, StorageError
from saadi.records import Image

FIRST_AFTER_S = 0.5
"""An order that ends sooner shows its images at once; pictures of its making would only slow it down."""
EVERY_S = 0.15
SIDE_PX = 160
QUALITY = 80
"""A look at four candidates of 256 px costs 2 ms with these, so a percent or so of the time (bench in docs/design.md)."""
MADE = "samples.txt"


class Previews:
    """Writes the pictures and the list of samples of one attempt of a job."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last = time.monotonic() + FIRST_AFTER_S - EVERY_S
        self._count = 0
        clear(folder)

    def offer(self, look: Callable[[], Sequence[Image]]) -> None:
        """Take a look if one is due. See `saadi.engines.base.PreviewCallback`."""
        if time.monotonic() - self._last < EVERY_S:
            return
        images = look()
        for index, image in enumerate(images):
            _write(self._folder / f"preview-{index}.jpg", _encoded(image))
        for index in range(len(images), self._count):
            (self._folder / f"preview-{index}.jpg").unlink(missing_ok=True)
        self._count = len(images)
        self._last = time.monotonic()

    def made(self, sample_ids: Sequence[int]) -> None:
        """Add to the list of what is finished, so that it can be looked at before the job ends."""
        with (self._folder / MADE).open("a", encoding="ascii") as stream:
            stream.write("".join(f"{sample_id}\n" for sample_id in sample_ids))


def clear(folder: Path) -> None:
    """Forget what an earlier attempt left; a later one counts from the start again."""
    for path in [*folder.glob("preview-*.jpg"), folder / MADE]:
        path.unlink(missing_ok=True)


def found(folder: Path) -> tuple[int, int]:
    """Number of pictures there are, and a number that grows with each new look; (0, 0) when there is nothing to see."""
    stamps = []
    for path in sorted(folder.glob("preview-*.jpg")):
        try:
            stamps.append(path.stat().st_mtime_ns)
        except FileNotFoundError:  # the job has just ended
            continue
    return len(stamps), max(stamps, default=0)


def read(folder: Path, index: int) -> bytes:
    """JPEG bytes of one picture.

    Raises:
        NotFoundError: The job has ended, or has not come so far.
    """
    try:
        return (folder / f"preview-{int(index)}.jpg").read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError("this preview is gone; the job has ended") from error


def made_so_far(folder: Path) -> list[int]:
    """Ids of the samples that a running job has finished, oldest first."""
    try:
        lines = (folder / MADE).read_text(encoding="ascii").split("\n")
    except FileNotFoundError:
        return []
    return [int(line) for line in lines[:-1] if line]  # the last line may be half written


def _encoded(image: Image) -> bytes:
    longer = max(image.shape[:2])
    if longer > SIDE_PX:
        size = (round(image.shape[1] * SIDE_PX / longer), round(image.shape[0] * SIDE_PX / longer))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    ok, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not ok:
        raise StorageError("a preview could not be encoded; nothing else was lost")
    return encoded.tobytes()


def _write(target: Path, data: bytes) -> None:
    # Renamed into place, so that nobody reads half a picture; not flushed, as nothing depends on it after a crash.
    temporary = target.with_suffix(".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, target)
