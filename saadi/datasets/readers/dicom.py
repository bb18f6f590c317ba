"""DICOM: endoscopic and photographic pictures and secondary captures, single and multi-frame, by pydicom.

Of the header only the tags in `TAGS` are read, an allow-list; names, dates and places never reach the program, and of the
patient's number only a hash, so that frames of one patient stay together. Pixels may still show text: a header that says so
(BurnedInAnnotation) holds its pictures back until a person has looked, and every picture is looked at before it leaves.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from saadi.config import MAX_SIDE_PX, MIN_SIDE_PX
from saadi.datasets.folder_pairs import natural_order
from saadi.datasets.folder_table import Row
from saadi.datasets.readers.base import Entry, Listing, holds_pictures
from saadi.datasets.readers.video import Choice, chosen_frames, seen_frame
from saadi.decoding import DecodedImage
from saadi.decoding_formats import check_pixels
from saadi.errors import BadImageError, BadInputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

NAME = "dicom"
TAGS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "PatientID", "IssuerOfPatientID", "BurnedInAnnotation",
        "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "BitsStored", "PhotometricInterpretation")  # fmt: skip
"""All that is read of a header, beside what describes how the pixels are stored."""
CLASSES = {
    "1.2.840.10008.5.1.4.1.1.77.1.1": "VL Endoscopic Image", "1.2.840.10008.5.1.4.1.1.77.1.2": "VL Microscopic Image",
    "1.2.840.10008.5.1.4.1.1.77.1.4": "VL Photographic Image", "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.7.2": "Multi-frame Grayscale Byte Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.7.4": "Multi-frame True Color Secondary Capture",
}  # fmt: skip
"""SOP classes that are read (PS3.4, B.5), by UID."""
VIDEO_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.77.1.1.1", "1.2.840.10008.5.1.4.1.1.77.1.2.1",
                           "1.2.840.10008.5.1.4.1.1.77.1.4.1"})  # fmt: skip
_MARK_AT, _MARK = 128, b"DICM"


@dataclass(frozen=True)
class DicomFrame:
    """One frame of a DICOM file."""

    path: Path
    number: int

    def image(self) -> DecodedImage:
        pydicom = _library()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # odd private tags; what matters is checked below
                found = pydicom.pixels.pixel_array(self.path, index=self.number)
        except Exception as error:  # codecs raise whatever they like on damaged streams
            raise BadImageError("its pixels cannot be read (damaged, or in a compression that is not known: JPEG, JPEG 2000 and "
                                "RLE are); save it uncompressed") from error  # fmt: skip
        if found.dtype != np.uint8:
            raise BadImageError("it has more than 8 bits a sample, pictures of 8 bits were expected; save it as 8 bits")
        pixels = np.repeat(found[..., None], 3, axis=2) if found.ndim == 2 else found
        return DecodedImage(np.ascontiguousarray(pixels[..., :3]))


def is_here(root: Path) -> bool:
    """Whether it is a DICOM file, or a folder with at least one and no pictures."""
    return any(_is_dicom(path) for path in _files(root)) and not holds_pictures(root)


def listing(root: Path, choice: Choice, *, burnt_in: bool,
            report: Callable[[str, int], None] = lambda name, number: None) -> Listing:
    """Frames of all DICOM files: of multi-frame ones as of videos, every n-th without blurred ones and repetitions.

    Args:
        burnt_in: Take also pictures whose header says that text is burnt in; somebody has looked at them.
    """
    found = Listing(NAME, needs_masks=False)
    num_read = 0
    for path in _files(root):
        if not _is_dicom(path):
            found.refuse(path.name, "it is no DICOM file, and this folder holds such; put it elsewhere")
            continue
        report(path.name, 0)
        try:
            header = _header(path)
            _check(header, burnt_in=burnt_in)
            group = _pseudonym(header)
            numbers = _numbers(path, header, choice, report)
        except BadInputError as error:
            found.refuse(path.name, str(error))
            continue
        num_read += 1
        place = _hash(str(header.get("SOPInstanceUID", path.name)))[:12]
        size = (int(header.Columns), int(header.Rows))
        found.entries += [Entry(PurePosixPath(group, place, f"frame-{number:06d}"), DicomFrame(path, number),
                                row=Row(group=group), size=size) for number in numbers]  # fmt: skip
    if num_read:
        found.notes.append(f"{num_read} DICOM files: patients are told apart by a hash of their number; nothing else of the "
                           "header is kept")  # fmt: skip
    return found


def _numbers(path: Path, header: Dataset, choice: Choice, report: Callable[[str, int], None]) -> list[int]:
    total = int(header.get("NumberOfFrames") or 1)
    if total == 1:
        DicomFrame(path, 0).image()  # so that it is refused here, where it is listed
        return [0]
    seen = []
    for number in range(0, total, choice.every):
        report(path.name, number)
        seen.append(seen_frame(number, DicomFrame(path, number).image().pixels))
    return [one.number for one in chosen_frames(seen, choice)[0]]


def _header(path: Path) -> Dataset:
    pydicom = _library()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS))
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise BadInputError("its header cannot be read, the file is damaged; export it again from the archive") from error


def _check(header: Dataset, *, burnt_in: bool) -> None:
    kind = str(header.get("SOPClassUID", ""))
    if kind in VIDEO_CLASSES:
        raise BadInputError("it holds a compressed video; save that as MP4 and import it as a video")
    if kind not in CLASSES:
        raise BadInputError("it is no endoscopic or photographic picture or secondary capture (other kinds of DICOM, such as CT, "
                            "are not read); leave it out")  # fmt: skip
    if str(header.get("BurnedInAnnotation", "")).strip().upper() == "YES" and not burnt_in:
        raise BadInputError("its header says that text is burnt into the picture, maybe a name; look at it, and then import with "
                            "'burnt-in text was looked at'")  # fmt: skip
    width, height = int(header.get("Columns") or 0), int(header.get("Rows") or 0)
    if min(width, height) < MIN_SIDE_PX or max(width, height) > MAX_SIDE_PX:
        raise BadInputError(f"it has {width} x {height} pixels, outside {MIN_SIDE_PX}..{MAX_SIDE_PX} on a side; scale it first")
    check_pixels(width, height, "it")


def _pseudonym(header: Dataset) -> str:
    """Of the patient, else of the examination: the same in each import, and not the number itself."""
    patient = f"{header.get('PatientID') or ''}".strip()
    if patient:
        return f"patient-{_hash(patient, str(header.get('IssuerOfPatientID') or ''))[:16]}"
    study = f"{header.get('StudyInstanceUID') or ''}".strip()
    if study:
        return f"study-{_hash(study)[:16]}"
    raise BadInputError("its header names neither patient nor examination, so nobody knows whose it is; add one, or save it as "
                        "PNG")  # fmt: skip


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(("saadi-dicom", *parts)).encode("utf-8", "replace")).hexdigest()


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(_MARK_AT + len(_MARK))[_MARK_AT:] == _MARK
    except OSError:
        return False


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    found = [path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".") and path.name != "DICOMDIR"
             and path.suffix.lower() in ("", ".dcm", ".dicom", ".ima")]  # fmt: skip
    return sorted(found, key=lambda path: natural_order(PurePosixPath(path.relative_to(root).as_posix())))


def _library() -> Any:
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        raise BadInputError("DICOM files are read by pydicom, which is not installed; run `pip install pydicom`") from error
    return pydicom
