"""Videos: every n-th frame, without blurred ones and without those that show what the one before showed. A video is a patient.

A frame is blurred when its sharpness (variance of the Laplacian at 256 pixels of width) is below a share of the median of its
video: cameras differ, so no number fits all. It is like the one before when their thumbnails (32 x 32 grey) differ by less than a
mean of so many grey levels. Where a video lies does not matter for whose it is: its group is its name and a hash of its content.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from saadi.config import MAX_SIDE_PX, MIN_SIDE_PX
from saadi.datasets.folder_pairs import natural_order, normal
from saadi.datasets.folder_table import Row
from saadi.datasets.readers.base import Entry, Listing, holds_pictures
from saadi.decoding import DecodedImage, display_name
from saadi.errors import BadInputError
from saadi.records import Image

NAME = "video"
SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ogv"})
DEFAULT_EVERY = 25
"""One frame a second of most endoscopy recorders."""
DEFAULT_SHARPNESS = 0.5
DEFAULT_CHANGE = 2.0
MAX_FRAMES = 20_000
_SHARPNESS_WIDTH, _THUMBNAIL = 256, 32
_HASHED_BYTES = 2**20
_WHOLE = 0.95
"""Share of the announced frames below which a video counts as cut off; some containers only estimate their number."""
_MAGIC = ((4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"wide"), (4, b"free"), (8, b"AVI "), (0, b"\x1aE\xdf\xa3"),
          (0, b"\0\0\1\xba"), (0, b"\0\0\1\xb3"), (0, b"OggS"))  # fmt: skip
"""Where containers of video begin so; anything else (a playlist, which may name other machines) is never opened."""


@dataclass(frozen=True)
class Choice:
    """Which frames of a video, or of a DICOM series, are taken."""

    every: int = DEFAULT_EVERY
    sharpness: float = DEFAULT_SHARPNESS
    """Share of the median sharpness below which a frame is blurred; 0 = none is."""
    change: float = DEFAULT_CHANGE
    """Mean difference of grey levels, 0 to 255, below which a frame repeats the last one taken; 0 = none does."""

    def __post_init__(self) -> None:
        if self.every < 1 or not 0 <= self.sharpness <= 1 or not 0 <= self.change <= 255:
            raise BadInputError(f"every n-th frame is 1 or more, the share of sharpness 0 to 1, the change 0 to 255; got "
                                f"{self.every}, {self.sharpness}, {self.change}")  # fmt: skip


@dataclass(frozen=True)
class _Seen:
    number: int
    sharpness: float
    thumbnail: NDArray[np.float32]


class Player:
    """Holds the one recording of a listing that is open: each has threads, a file and buffers of tens of MB."""

    def __init__(self) -> None:
        self.recording: Recording | None = None

    def take(self, recording: Recording) -> None:
        """Close the one before."""
        if self.recording is not None and self.recording is not recording:
            self.recording.close()
        self.recording = recording


class Recording:
    """Frames of one file by number; read forwards, because jumping in a compressed video misses frames."""

    def __init__(self, path: Path, player: Player) -> None:
        self.path = path
        self.player = player
        self.last: int | None = None
        """The last frame that is wanted; the file is closed after it."""
        self.num_read = 0
        """Frames that the file was found to have."""
        self.num_announced = 0
        """Frames that it says it has; 0 = it does not say."""
        self._capture: cv2.VideoCapture | None = None
        self._next = 0

    def frame(self, number: int) -> Image:
        """(H, W, 3) uint8 RGB.

        Raises:
            BadInputError: The file is no video, or ends before this frame.
        """
        if self._capture is None or number < self._next:
            self._open()
        assert self._capture is not None, "just opened"
        while self._next < number and self._capture.grab():
            self._next += 1
        is_read, pixels = self._capture.read() if self._next == number else (False, None)
        if not is_read or pixels is None:
            self.close()
            raise BadInputError(f"frame {number} cannot be read, the video is damaged or cut off there; export it again")
        self._next += 1
        if number == self.last:
            self.close()
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)

    def looked_at(self, every: int, report: Callable[[int], None]) -> Generator[tuple[int, Image], None, None]:
        """Each n-th frame with its number, from the first; ends where the file does, and is closed then or before."""
        capture = self._open()
        try:
            while capture.grab():
                if self._next % every == 0:
                    report(self._next)
                    is_read, pixels = capture.retrieve()
                    if is_read and pixels is not None:
                        yield self._next, np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)
                self._next += 1
            self.num_read = self._next
        finally:
            self.close()

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
        self._capture, self._next = None, 0

    def _open(self) -> cv2.VideoCapture:
        self.close()
        self.player.take(self)
        self._capture = capture = _opened(self.path)
        self.num_announced = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        return capture


@dataclass(frozen=True)
class Frame:
    """One frame of a recording."""

    recording: Recording
    number: int

    def image(self) -> DecodedImage:
        return DecodedImage(self.recording.frame(self.number))


def is_here(root: Path) -> bool:
    """Whether it is a video, or a folder with at least one and no pictures."""
    return bool(_files(root)) and not holds_pictures(root)


def listing(root: Path, choice: Choice, report: Callable[[str, int], None] = lambda name, number: None) -> Listing:
    """Frames of all videos. The masks are for people to draw.

    Args:
        report: Called with the name of the video and the number of the frame that is looked at; may raise to stop.

    Raises:
        BadInputError: No video, or more than `MAX_FRAMES` frames would come out of one.
    """
    found = Listing(NAME, needs_masks=False)
    files = _files(root)
    twins = Counter(path.with_suffix("") for path in files)
    player = Player()
    for path in files:
        relative = PurePosixPath(path.relative_to(root).as_posix() if path != root else path.name)
        recording = Recording(path, player)
        try:
            seen, size = _looked_at(recording, choice, lambda number, name=path.name: report(name, number))  # type: ignore[misc]
            group = _group(path)
        except BadInputError as error:
            found.refuse(path.name, str(error))
            continue
        chosen, num_blurred, num_alike = chosen_frames(seen, choice)
        recording.last = chosen[-1].number if chosen else None
        folder = relative if twins[path.with_suffix("")] > 1 else relative.with_suffix("")  # a.avi beside a.mp4
        for one in chosen:
            found.entries.append(Entry(folder / f"frame-{one.number:06d}", Frame(recording, one.number), row=Row(group=group),
                                       size=size, folders=tuple(normal(part) for part in relative.parts[:-1])))  # fmt: skip
        found.notes.append(f"{display_name(path.name)}: {len(chosen)} of {len(seen)} frames; {num_blurred} blurred and "
                           f"{num_alike} like the one before left out{_cut(recording)}")  # fmt: skip
    if not found.entries and not found.problems:
        raise BadInputError("there is no video here (MP4, MOV, AVI, MKV, WebM, MPEG); choose a video or the folder of some")
    return found


def _group(path: Path) -> str:
    """Of one operation: the same in each import, from whichever folder, and another one for another video of that name."""
    hashed = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            hashed.update(f"saadi-video {path.stat().st_size} ".encode() + stream.read(_HASHED_BYTES))
    except OSError as error:
        raise BadInputError(unreadable(error)) from error
    return f"{unicodedata.normalize('NFC', path.stem)[-60:]}-{hashed.hexdigest()[:8]}"


def _cut(recording: Recording) -> str:
    if recording.num_read >= _WHOLE * recording.num_announced:
        return ""
    return (f"; it ends after {recording.num_read} of the {recording.num_announced} frames that it announces, so it is damaged "
            "or cut off: look for the whole one")  # fmt: skip


def unreadable(error: OSError) -> str:
    """The sentence that refuses a file."""
    return f"the file cannot be read ({error.strerror or type(error).__name__}); check that it is there and may be read"


def chosen_frames(seen: list[_Seen], choice: Choice) -> tuple[list[_Seen], int, int]:
    """What the two filters leave, and how many each took."""
    limit = choice.sharpness * float(np.median([one.sharpness for one in seen])) if seen else 0.0
    sharp = [one for one in seen if one.sharpness >= limit]
    taken: list[_Seen] = []
    for one in sharp:
        if not taken or np.abs(one.thumbnail - taken[-1].thumbnail).mean() >= choice.change:
            taken.append(one)
    return taken, len(seen) - len(sharp), len(sharp) - len(taken)


def seen_frame(number: int, pixels: Image) -> _Seen:
    """Sharpness and thumbnail of a frame."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    height = max(8, round(grey.shape[0] * _SHARPNESS_WIDTH / grey.shape[1]))
    small = cv2.resize(grey, (_SHARPNESS_WIDTH, height), interpolation=cv2.INTER_AREA)
    thumbnail = cv2.resize(small, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float32)
    return _Seen(number, float(cv2.Laplacian(small, cv2.CV_64F).var()), thumbnail)


def _looked_at(recording: Recording, choice: Choice, report: Callable[[int], None]) -> tuple[list[_Seen], tuple[int, int]]:
    seen: list[_Seen] = []
    size = (0, 0)
    with closing(recording.looked_at(choice.every, report)) as frames:
        for number, pixels in frames:
            size = (pixels.shape[1], pixels.shape[0])
            if min(size) < MIN_SIDE_PX or max(size) > MAX_SIDE_PX:
                raise BadInputError(f"its frames have {size[0]} x {size[1]} pixels, outside {MIN_SIDE_PX}..{MAX_SIDE_PX} on a "
                                    "side; scale the video first")  # fmt: skip
            seen.append(seen_frame(number, pixels))
            if len(seen) > MAX_FRAMES:
                raise BadInputError(f"more than {MAX_FRAMES} frames would come out of it; take fewer, for example every "
                                    f"{choice.every * 10}th")  # fmt: skip
    if not seen:
        raise BadInputError("no frame can be read, the video is damaged or in a format that is not known; save it as MP4 (H.264)")
    return seen, size


def _opened(path: Path) -> cv2.VideoCapture:
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        raise BadInputError(unreadable(error)) from error
    if not any(head[offset:offset + len(magic)] == magic for offset, magic in _MAGIC):
        raise BadInputError("this is no MP4, MOV, AVI, MKV, WebM or MPEG video; save it as MP4 (H.264)")
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise BadInputError("the video cannot be opened, it is damaged or in a format that is not known; save it as MP4 (H.264)")
    return capture


def may_be_file(path: Path) -> bool:
    """False for folders and other things; True where it cannot be said, so that reading it says why."""
    try:
        return path.is_file()
    except OSError:  # in a folder that may not be entered
        return True


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if root.suffix.lower() in SUFFIXES else []
    found = [path for path in root.rglob("*")
             if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and may_be_file(path)]  # fmt: skip
    return sorted(found, key=lambda path: natural_order(PurePosixPath(path.relative_to(root).as_posix())))
