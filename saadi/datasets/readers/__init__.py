"""Formats that a data set may come in, by name, and which one a folder is in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

from saadi.datasets.readers import coco, dicom, exported, imagefolder, nnunet, video, voc, yolo
from saadi.datasets.readers.base import Listing
from saadi.datasets.readers.video import Choice
from saadi.errors import BadInputError

FOLDER = "folder"
"""Plain folders of images and masks, paired by their names."""
READERS: Mapping[str, ModuleType] = {
    one.NAME: one for one in (exported, nnunet, coco, yolo, voc, imagefolder, video, dicom)}  # fmt: skip
"""In the order in which they are asked whether a folder is theirs."""
ODD = (OSError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, NotImplementedError)
"""What descriptions of data sets that are not what they should be end in."""
KINDS = (*READERS, FOLDER)
WORDS = {exported.NAME: "an export of this program", nnunet.NAME: "nnU-Net v2", coco.NAME: "COCO", yolo.NAME: "YOLO",
         voc.NAME: "Pascal VOC", imagefolder.NAME: "Hugging Face imagefolder", video.NAME: "videos", dicom.NAME: "DICOM files",
         FOLDER: "a folder of images"}  # fmt: skip


def kind_of(root: Path) -> str:
    """The format that a folder (or a single video or DICOM file) is in; plain folders where none knows it."""
    return next((name for name, reader in READERS.items() if _is_here(reader, root)), FOLDER)


def _is_here(reader: ModuleType, root: Path) -> bool:
    try:
        return bool(reader.is_here(root))
    except ODD:
        return False


def listing(kind: str, root: Path, *, choice: Choice, burnt_in: bool, report: Callable[[str, int], None]) -> Listing:
    """What a folder of a format other than plain ones holds.

    Raises:
        BadInputError: No such format, or the folder is not in it.
    """
    if kind not in READERS:
        raise BadInputError(f"there is no format {kind[:20]!r} to read; choose {', '.join(KINDS)}")
    if not root.is_dir() and not (root.is_file() and kind in (video.NAME, dicom.NAME)):
        raise BadInputError(f"{root.name!r} is no folder; choose the folder of the data set")
    try:
        if kind == video.NAME:
            return video.listing(root, choice, report)
        if kind == dicom.NAME:
            return dicom.listing(root, choice, burnt_in=burnt_in, report=report)
        found: Listing = READERS[kind].listing(root)
        return found
    except BadInputError:
        raise
    except ODD as error:
        raise BadInputError(f"what describes the data set as {WORDS[kind]} cannot be read ({type(error).__name__}); export it "
                            "again, or say another format") from error  # fmt: skip
