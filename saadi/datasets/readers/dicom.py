"""DICOM: endoscopic and photographic pictures and secondary captures, single and multi-frame, by pydicom.

Of the header only the tags in `TAGS` are read, an allow-list; names, dates and places never reach the program, and of the
patient's number only a hash, so that frames of one patient stay together. Pixels may still show text: a header that says so
(BurnedInAnnotation) holds its pictures back until a person has looked, and every picture is looked at before it leaves.
"""

from __future__ import annotations

import hashlib
import unicodedata
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from saadi.config import MAX_SIDE_PX, MIN_SIDE_PX
from saadi.datasets.folder_pairs import SKIPPED_SUFFIXES, natural_order
from saadi.datasets.folder_table import Row
from saadi.datasets.readers import video
from saadi.datasets.readers.base import PICTURE_SUFFIXES, Entry, Listing, holds_pictures
from saadi.datasets.readers.video import Choice, chosen_frames, may_be_file, seen_frame, unreadable
from saadi.decoding import DecodedImage, display_name
from saadi.decoding_formats import check_pixels
from saadi.errors import BadImageError, BadInputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

NAME = "dicom"
TAGS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "PatientID", "BurnedInAnnotation", "NumberOfFrames", "Rows",
        "Columns", "BitsStored", "PixelRepresentation", "PhotometricInterpretation")  # fmt: skip
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
COLOURS = frozenset({"MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR"})
"""How pixels may mean colours (PS3.3, C.7.6.3.1.2). What is not here would come out in colours that nobody has seen."""
_JPEG_2000 = ("1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")
"""Transfer syntaxes that begin so undo YBR_ICT and YBR_RCT themselves; nothing else does."""
_DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
"""Reading even the header of these inflates the whole file, to any size."""
_MARK_AT, _MARK = 128, b"DICM"
_SUFFIXES = frozenset({"", ".dcm", ".dicom", ".ima"})
_OTHER_SUFFIXES = PICTURE_SUFFIXES | SKIPPED_SUFFIXES | video.SUFFIXES
_DAMAGED = "its header cannot be read, the file is damaged; export it again from the archive"


@dataclass(frozen=True)
class _Header:
    """What is used of a header."""

    kind: str
    instance: str
    study: str
    patient: str
    burnt_in: str
    photometric: str
    syntax: str
    num_frames: int
    width: int
    height: int
    bits: int
    is_signed: bool


@dataclass(frozen=True)
class DicomFrame:
    """One frame of a DICOM file."""

    path: Path
    number: int
    photometric: str
    """One of `COLOURS`."""

    def image(self) -> DecodedImage:
        pydicom = _library()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # odd private tags; what matters is checked below
                module = pydicom.Dataset()
                found = pydicom.pixels.pixel_array(self.path, index=self.number, ds_out=module)
        except Exception as error:  # codecs raise whatever they like on damaged streams
            raise BadImageError("its pixels cannot be read (damaged, or in a compression that is not known: JPEG, JPEG 2000 and "
                                "RLE are); save it uncompressed") from error  # fmt: skip
        if found.dtype != np.uint8:
            raise BadImageError("it has more than 8 bits a sample, pictures of 8 bits were expected; save it as 8 bits")
        if self.photometric == "PALETTE COLOR":
            found = _coloured(found, module)
        elif self.photometric == "MONOCHROME1":  # here 0 is white
            found = 255 - found
        pixels = np.repeat(found[..., None], 3, axis=2) if found.ndim == 2 else found
        return DecodedImage(np.ascontiguousarray(pixels[..., :3]))


def _coloured(indices: Any, module: Dataset) -> Any:
    """(H, W, 3) uint8 RGB of indices into the palette of their file."""
    if "RedPaletteColorLookupTableData" not in module:  # one in segments can be written to grow without end
        raise BadImageError("its palette of colours is missing or stored in segments; save it in RGB")
    try:
        colours = _library().pixels.apply_color_lut(indices, module)
    except Exception as error:  # a table that is shorter than it says, of 12 bits, and whatever else
        raise BadImageError("its palette of colours cannot be read, the file is damaged; save it in RGB") from error
    return (colours >> 8).astype(np.uint8) if colours.dtype == np.uint16 else colours


def is_here(root: Path) -> bool:
    """Whether it is a DICOM file, or a folder with at least one and no pictures."""
    return not holds_pictures(root) and any(_is_dicom(path) for path in _files(root))


def listing(root: Path, choice: Choice, *, burnt_in: bool,
            report: Callable[[str, int], None] = lambda name, number: None) -> Listing:
    """Frames of all DICOM files: of multi-frame ones as of videos, every n-th without blurred ones and repetitions.

    Args:
        burnt_in: Take also pictures whose header says that text is burnt in; somebody has looked at them.
    """
    found = Listing(NAME, needs_masks=False)
    num_read = 0
    for path in _files(root):
        report(path.name, 0)
        try:
            if not _has_mark(path):
                raise BadInputError("it is no DICOM file, and this folder holds such; put it elsewhere")
            header = _header(path)
            _check(header, burnt_in=burnt_in)
            group = _pseudonym(header)
            numbers = _numbers(path, header, choice, report)
        except BadInputError as error:
            found.refuse(path.name, str(error))
            continue
        num_read += 1
        place = _hash(header.instance or path.relative_to(root).as_posix())[:12]
        found.entries += [Entry(PurePosixPath(group, place, f"frame-{number:06d}"), DicomFrame(path, number, header.photometric),
                                row=Row(group=group), size=(header.width, header.height)) for number in numbers]  # fmt: skip
    if num_read:
        found.notes.append(f"{num_read} DICOM files: patients are told apart by a hash of their number; nothing else of the "
                           "header is kept")  # fmt: skip
    return found


def _numbers(path: Path, header: _Header, choice: Choice, report: Callable[[str, int], None]) -> list[int]:
    if header.num_frames == 1:
        DicomFrame(path, 0, header.photometric).image()  # so that it is refused here, where it is listed
        return [0]
    seen = []
    for number in range(0, header.num_frames, choice.every):
        report(path.name, number)
        seen.append(seen_frame(number, DicomFrame(path, number, header.photometric).image().pixels))
    return [one.number for one in chosen_frames(seen, choice)[0]]


def _header(path: Path) -> _Header:
    pydicom = _library()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            syntax = str(pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") or "").strip()
            if syntax in _DEFLATED:
                raise BadInputError("it is deflated as a whole, so its size is unknown before it is read; save it uncompressed")
            found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS))
            return _Header(
                kind=_text(found, "SOPClassUID"), instance=_text(found, "SOPInstanceUID"), study=_text(found, "StudyInstanceUID"),
                patient=_text(found, "PatientID"), burnt_in=_text(found, "BurnedInAnnotation").upper(),
                photometric=_text(found, "PhotometricInterpretation").upper(), syntax=syntax,
                num_frames=_number(found, "NumberOfFrames") or 1, width=_number(found, "Columns"), height=_number(found, "Rows"),
                bits=_number(found, "BitsStored"), is_signed=_number(found, "PixelRepresentation") != 0)  # fmt: skip
    except BadInputError:
        raise
    except OSError as error:
        raise BadInputError(unreadable(error)) from error
    except Exception as error:  # pydicom raises many kinds on damaged files, and when a value is looked at
        raise BadInputError(_DAMAGED) from error


def _text(header: Dataset, name: str) -> str:
    return str(header.get(name) or "").replace("\0", " ").strip()


def _number(header: Dataset, name: str) -> int:
    """0 where it is missing."""
    try:
        return int(header.get(name) or 0)
    except (ValueError, TypeError, OverflowError) as error:  # words, two values, infinity
        raise BadInputError(f"its header gives no whole number as {name}, the file is damaged; export it again from the "
                            "archive") from error  # fmt: skip


def _check(header: _Header, *, burnt_in: bool) -> None:
    if header.kind in VIDEO_CLASSES:
        raise BadInputError("it holds a compressed video; save that as MP4 and import it as a video")
    if header.kind not in CLASSES:
        raise BadInputError("it is no endoscopic or photographic picture or secondary capture (other kinds of DICOM, such as CT, "
                            "are not read); leave it out")  # fmt: skip
    if header.burnt_in == "YES" and not burnt_in:
        raise BadInputError("its header says that text is burnt into the picture, maybe a name; look at it, and then import with "
                            "'burnt-in text was looked at'")  # fmt: skip
    if header.num_frames < 1:
        raise BadInputError(f"its header announces {header.num_frames} frames, the file is damaged; export it again")
    width, height = header.width, header.height
    if min(width, height) < MIN_SIDE_PX or max(width, height) > MAX_SIDE_PX:
        raise BadInputError(f"it has {width} x {height} pixels, outside {MIN_SIDE_PX}..{MAX_SIDE_PX} on a side; scale it first")
    check_pixels(width, height, "it")
    _check_colours(header)


def _check_colours(header: _Header) -> None:
    is_undone = header.photometric not in ("YBR_ICT", "YBR_RCT") or header.syntax.startswith(_JPEG_2000)
    if header.photometric not in COLOURS or not is_undone:
        raise BadInputError(f"its colours are stored as {display_name(header.photometric or 'nothing')}, which is not read here; "
                            "save it in RGB or MONOCHROME2")  # fmt: skip
    if header.is_signed:
        raise BadInputError("its values are signed, pictures have values from 0 to 255; save it with unsigned ones")
    if header.bits < 8 and header.photometric != "PALETTE COLOR":
        raise BadInputError(f"it has {header.bits} bits a sample, pictures of 8 bits were expected; save it as 8 bits")


def _pseudonym(header: _Header) -> str:
    """Of the patient, else of the examination: the same in each import, and not the number itself.

    Whoever issued the number, and however it is spaced and capitalised: two patients in one group cost a little choice, one
    patient in two groups spoils the test.
    """
    patient = "".join(unicodedata.normalize("NFKC", header.patient).casefold().split())
    if patient:
        return f"patient-{_hash(patient, '')[:16]}"
    if header.study:
        return f"study-{_hash(header.study)[:16]}"
    raise BadInputError("its header names neither patient nor examination, so nobody knows whose it is; add one, or save it as "
                        "PNG")  # fmt: skip


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(("saadi-dicom", *parts)).encode("utf-8", "replace")).hexdigest()


def _is_dicom(path: Path) -> bool:
    try:
        return _has_mark(path)
    except BadInputError:
        return False


def _has_mark(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(_MARK_AT + len(_MARK))[_MARK_AT:] == _MARK
    except OSError as error:
        raise BadInputError(unreadable(error)) from error


def _may_be_dicom(path: Path) -> bool:
    """Archives name files by UIDs, which end in '.1' as if that were a suffix."""
    suffix = path.suffix.lower()
    return suffix in _SUFFIXES or suffix[1:].isdigit() or (suffix not in _OTHER_SUFFIXES and _is_dicom(path))


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    found = [path for path in root.rglob("*") if not path.name.startswith(".") and path.name != "DICOMDIR"
             and may_be_file(path) and _may_be_dicom(path)]  # fmt: skip
    return sorted(found, key=lambda path: natural_order(PurePosixPath(path.relative_to(root).as_posix())))


def _library() -> Any:
    try:
        import pydicom
        import pydicom.filereader
        import pydicom.pixels
    except ImportError as error:
        raise BadInputError("DICOM files are read by pydicom, which is not installed; run `pip install pydicom`") from error
    return pydicom
