"""Frames of videos and DICOM files: which are taken, whose they are, and that nothing of a header comes along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from saadi.datasets.folder import import_folder, scan
from saadi.datasets.readers.video import Choice
from saadi.errors import BadInputError, CancelledError
from saadi.records import Project
from saadi.store import Store

SIDE = 64


def scene(number: int) -> np.ndarray:
    """(64, 64, 3) a sharp picture that differs from scene to scene."""
    rng = np.random.default_rng(number)
    return cv2.resize(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)


def video(path: Path, frames: list[np.ndarray]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (SIDE, SIDE))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def numbers(found: Any) -> list[int]:
    return [int(pair.name.rpartition("-")[2]) for pair in found.pairs]


def test_every_nth_frame_without_blurred_and_repeated_ones(tmp_path: Path) -> None:
    frames = [scene(number) for number in range(12)]
    frames[4] = cv2.GaussianBlur(frames[4], (0, 0), 6)
    frames[8] = frames[6].copy()
    path = video(tmp_path / "op 7.avi", frames)
    assert numbers(scan(path, choice=Choice(2, 0, 0))) == [0, 2, 4, 6, 8, 10]
    found = scan(tmp_path, choice=Choice(2, 0.5, 2.0))
    assert found.kind == "video" and numbers(found) == [0, 2, 6, 10] and list(found.groups.values()) == [4]
    assert any("4 of 6 frames; 1 blurred and 1 like the one before" in note for note in found.notes)


def test_frames_come_from_where_they_were_chosen(tmp_path: Path, store: Store, project: Project) -> None:
    frames = {name: [scene(first + number) for number in range(9)] for name, first in (("a", 0), ("b", 100))}
    for name in frames:
        video(tmp_path / "day" / f"{name}.avi", frames[name])
    found = scan(tmp_path, choice=Choice(4, 0, 0))
    # Out of order, so that a recording has to begin anew.
    for pair in reversed(found.pairs):
        at = int(pair.name.rpartition("-")[2])
        expected = frames["a" if "/a/" in pair.name else "b"][at]
        assert np.abs(pair.picture.image().pixels.astype(int) - expected[..., ::-1]).mean() < 12, pair.name  # JPEG's loss
    result = import_folder(store, project, found, actor="ann")
    assert result.num_added == 6 and {image.group_id[:2] for image in store.images(project.id)} == {"a-", "b-"}
    assert all(image.label_map_id is None for image in store.images(project.id))


@pytest.mark.parametrize("name", ["broken.mp4", "list.mp4", "empty.mkv"])
def test_what_is_no_video_is_named_and_never_opened(tmp_path: Path, name: str) -> None:
    content = {"broken.mp4": b"\0\0\0\x18ftypmp42" + bytes(200), "list.mp4": b"#EXTM3U\nhttp://example.org/x.ts\n",
               "empty.mkv": b""}  # fmt: skip
    (tmp_path / name).write_bytes(content[name])
    found = scan(tmp_path)
    assert found.kind == "video" and not found.pairs
    assert any(word in found.problems[0].reason for word in ("no MP4", "cannot be opened", "no frame can be read"))


@pytest.mark.parametrize("values", [(0, 0.5, 2), (1, 1.5, 2), (1, 0.5, 300)])
def test_choices_without_sense_are_refused(values: tuple[int, float, float]) -> None:
    with pytest.raises(BadInputError, match="every n-th frame is 1 or more"):
        Choice(*values)


def test_pictures_beside_a_video_are_what_is_meant(tmp_path: Path) -> None:
    video(tmp_path / "a.avi", [scene(0)])
    cv2.imwrite(str(tmp_path / "b.png"), scene(1))
    found = scan(tmp_path)
    assert found.kind == "folder" and [pair.name for pair in found.pairs] == ["b.png"]
    assert "'a.avi'" in found.problems[0].name


def test_the_group_of_a_video_is_the_same_wherever_it_lies(tmp_path: Path) -> None:
    path = video(tmp_path / "hospital" / "day1" / "op12.avi", [scene(number) for number in range(4)])
    other = video(tmp_path / "elsewhere" / "op12.avi", [scene(number) for number in range(50, 54)])
    groups = [list(scan(where, choice=Choice(1, 0, 0)).groups) for where in (path, path.parent, path.parent.parent)]
    assert len({tuple(one) for one in groups}) == 1 and groups[0][0].startswith("op12-")
    assert list(scan(other).groups) != groups[0]
    assert scan(path.parent.parent, choice=Choice(1, 0, 0)).pairs[0].name == "day1/op12/frame-000000"


def test_videos_of_one_name_and_two_formats_stay_apart(tmp_path: Path) -> None:
    video(tmp_path / "a.avi", [scene(0)])
    video(tmp_path / "a.mkv", [scene(1)])
    found = scan(tmp_path)
    assert len({pair.name for pair in found.pairs}) == len(found.groups) == 2


@pytest.fixture
def num_open(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """[videos that are open, the most that ever were]"""
    counts = [0, 0]

    class Capture:
        def __init__(self, *args: Any) -> None:
            self.inner = make(*args)
            counts[0] += 1
            counts[1] = max(counts)

        def release(self) -> None:
            self.inner.release()
            counts[0] -= 1

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    make = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    return counts


def test_one_video_is_open_at_a_time_and_none_at_the_end(tmp_path: Path, num_open: list[int]) -> None:
    for place in range(4):
        video(tmp_path / f"{place}.avi", [scene(10 * place + number) for number in range(5)])
    found = scan(tmp_path, choice=Choice(2, 0, 0))
    assert num_open == [0, 1]
    for pair in found.pairs:
        pair.picture.image()
    assert num_open == [0, 1]
    for pair in found.pairs[::-3]:  # none of them to its last frame
        pair.picture.image()
    assert num_open[1] == 1


def test_a_cancelled_look_closes_its_video(tmp_path: Path, num_open: list[int]) -> None:
    video(tmp_path / "a.avi", [scene(number) for number in range(5)])

    def stop(step: int, total: int, message: str) -> None:
        if "frame 2" in message:
            raise CancelledError("cancelled")

    with pytest.raises(CancelledError):
        scan(tmp_path, choice=Choice(1, 0, 0), report=stop)
    assert num_open == [0, 1]


def test_frames_of_the_wrong_size_close_their_video(tmp_path: Path, num_open: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    video(tmp_path / "a.avi", [scene(number) for number in range(5)])
    monkeypatch.setattr("saadi.datasets.readers.video.MAX_SIDE_PX", SIDE - 1)
    assert "outside 16" in scan(tmp_path).problems[0].reason and num_open == [0, 1]


@pytest.mark.parametrize("suffix", [".avi", ".dcm"])
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    for name in ("a", "b"):
        path = tmp_path / f"{name}{suffix}"
        video(path, [scene(1)]) if suffix == ".avi" else dicom(path, scene(1))
    opened = Path.open

    def forbidden(path: Path, *args: Any, **more: Any) -> Any:
        if path.stem == "b":
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **more)

    monkeypatch.setattr(Path, "open", forbidden)
    found = scan(tmp_path)
    assert len(found.pairs) == 1 and "cannot be read (Permission denied)" in found.problems[0].reason


def test_a_video_that_was_cut_off_says_so(tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", [scene(number) for number in range(40)])
    assert not any("cut off" in note for note in scan(path, choice=Choice(1, 0, 0)).notes)
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) // 2])
    found = scan(path, choice=Choice(1, 0, 0))
    assert 10 < len(found.pairs) < 30 and any("of the 40 frames that it announces" in note for note in found.notes)


# ---- DICOM


def dicom(path: Path, pixels: np.ndarray, *, patient: str | None = "4711", kind: str = "1.2.840.10008.5.1.4.1.1.77.1.1",
          bits: int = 8, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID, data.StudyInstanceUID = kind, meta.MediaStorageSOPInstanceUID, generate_uid()
    data.PatientName, data.PatientBirthDate = "DOE^JANE", "19700101"
    if patient is not None:
        data.PatientID = patient
    frames = pixels if pixels.ndim == 4 else pixels[None]
    data.Rows, data.Columns, data.SamplesPerPixel = frames.shape[1], frames.shape[2], frames.shape[3]
    data.PhotometricInterpretation = "RGB" if frames.shape[3] == 3 else "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits, bits - 1, 0
    if frames.shape[3] == 3:
        data.PlanarConfiguration = 0
    if len(frames) > 1:
        data.NumberOfFrames = len(frames)
    data.PixelData = frames.tobytes()
    for name, value in more.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def test_frames_of_a_patient_stay_together_and_the_header_stays_behind(tmp_path: Path, store: Store, project: Project) -> None:
    dicom(tmp_path / "DOE_JANE" / "1.dcm", scene(1))
    dicom(tmp_path / "DOE_JANE" / "2", scene(2))
    dicom(tmp_path / "other.dcm", np.stack([scene(number) for number in range(3, 8)]), patient="0815")
    found = scan(tmp_path, choice=Choice(2, 0, 0))
    assert found.kind == "dicom" and sorted(found.groups.values()) == [2, 3] and not found.problems
    result = import_folder(store, project, found, actor="ann")
    assert result.num_added == 5
    kept = repr([vars(image) if hasattr(image, "__dict__") else image for image in store.images(project.id)])
    assert not any(word in kept for word in ("DOE", "JANE", "4711", "0815", "1970"))
    by_pixels = {store.blobs.image(image.blob).tobytes() for image in store.images(project.id)}
    assert by_pixels == {scene(number).tobytes() for number in (1, 2, 3, 5, 7)}


def test_grey_frames_become_three_equal_channels(tmp_path: Path) -> None:
    dicom(tmp_path / "a.dcm", scene(1)[..., :1])
    pixels = scan(tmp_path).pairs[0].picture.image().pixels
    assert np.array_equal(pixels, np.repeat(scene(1)[..., :1], 3, axis=2))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"BurnedInAnnotation": "YES"}, "text is burnt into the picture"),
        ({"patient": None, "StudyInstanceUID": ""}, "neither patient nor examination"),
        ({"kind": "1.2.840.10008.5.1.4.1.1.2"}, "no endoscopic or photographic picture"),
        ({"kind": "1.2.840.10008.5.1.4.1.1.77.1.1.1"}, "holds a compressed video"),
        ({"Rows": 0}, "outside 16"),
        ({"PixelData": b"1234"}, "pixels cannot be read"),
        ({"PhotometricInterpretation": "HSV"}, "colours are stored as 'HSV'"),
        ({"PhotometricInterpretation": "YBR_RCT"}, "colours are stored as 'YBR_RCT'"),
        ({"PixelRepresentation": 1}, "values are signed"),
        ({"BitsStored": 1, "HighBit": 0}, "it has 1 bits a sample"),
        ({"NumberOfFrames": -2}, "announces -2 frames"),
    ],
)
def test_dicom_files_that_cannot_be_used_are_named(tmp_path: Path, values: dict, words: str) -> None:
    dicom(tmp_path / "a.dcm", scene(1), **values)
    found = scan(tmp_path)
    assert not found.pairs and words in found.problems[0].reason


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    dicom(tmp_path / "a.dcm", scene(1)[..., :1].astype(np.uint16) * 100, bits=16)
    assert "more than 8 bits" in scan(tmp_path).problems[0].reason


def test_burnt_in_text_that_was_looked_at_is_taken(tmp_path: Path) -> None:
    dicom(tmp_path / "a.dcm", scene(1), BurnedInAnnotation="YES")
    assert len(scan(tmp_path, burnt_in=True).pairs) == 1


def test_a_cut_dicom_file_is_named(tmp_path: Path) -> None:
    whole = dicom(tmp_path / "a.dcm", scene(1)).read_bytes()
    (tmp_path / "a.dcm").write_bytes(whole[: len(whole) // 2])
    found = scan(tmp_path)
    assert not found.pairs and "cannot be read" in found.problems[0].reason


def test_a_jpeg_compressed_frame_is_read(tmp_path: Path) -> None:
    smooth = cv2.GaussianBlur(scene(1), (0, 0), 4)
    path = dicom(tmp_path / "a.dcm", smooth)
    data = pydicom.dcmread(path)
    is_coded, stream = cv2.imencode(".jpg", cv2.cvtColor(smooth, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert is_coded
    data.PixelData = pydicom.encaps.encapsulate([stream.tobytes()])
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    data["PixelData"].is_undefined_length = True
    data.PhotometricInterpretation = "YBR_FULL_422"
    data.save_as(path, enforce_file_format=True)
    pixels = scan(tmp_path).pairs[0].picture.image().pixels
    assert np.abs(pixels.astype(int) - smooth).mean() < 8


def test_unusual_greys_and_palettes_keep_their_colours(tmp_path: Path) -> None:
    grey = scene(1)[..., :1]
    dicom(tmp_path / "1.dcm", grey, PhotometricInterpretation="MONOCHROME1")
    tables = {name: np.random.default_rng(place).integers(0, 256, 256, dtype=np.uint8)
              for place, name in enumerate(("Red", "Green", "Blue"))}  # fmt: skip
    palette = {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 8] for name in tables}
    palette |= {f"{name}PaletteColorLookupTableData": table.tobytes() for name, table in tables.items()}
    wide = {name: [256, 0, 16] if name.endswith("Descriptor") else np.frombuffer(data, np.uint8).astype("<u2").tobytes()
            for name, data in palette.items()}  # fmt: skip
    wide |= {f"{name}PaletteColorLookupTableData": (table.astype("<u2") * 257).tobytes() for name, table in tables.items()}
    dicom(tmp_path / "2.dcm", grey, PhotometricInterpretation="PALETTE COLOR", **palette)
    dicom(tmp_path / "3.dcm", grey, PhotometricInterpretation="PALETTE COLOR", **wide)
    dicom(tmp_path / "4.dcm", grey, PhotometricInterpretation="PALETTE COLOR")
    found = scan(tmp_path)
    one, two, three = [pair.picture.image().pixels for pair in found.pairs]
    assert np.array_equal(one, np.repeat(255 - grey, 3, axis=2))
    assert np.array_equal(two, np.stack([table[grey[..., 0]] for table in tables.values()], axis=2))
    assert np.array_equal(three, two)
    assert len(found.problems) == 1 and "palette of colours is missing" in found.problems[0].reason


def test_files_named_by_their_uid_are_found(tmp_path: Path) -> None:
    for name in ("1.2.840.113619.2.5.1", "1.2.840.113619.2.5.17", "IM0001.v2"):
        dicom(tmp_path / name, scene(1))
    (tmp_path / "report.txt").write_text("text")
    found = scan(tmp_path)
    assert found.kind == "dicom" and len(found.pairs) == 3 and not found.problems


def test_a_deflated_file_is_refused_before_it_is_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dicom(tmp_path / "a.dcm", scene(1))
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)
    monkeypatch.setattr("zlib.decompress", lambda *args: pytest.fail("inflated"))
    assert "deflated as a whole" in scan(tmp_path).problems[0].reason


@pytest.mark.parametrize(("name", "written"), [("NumberOfFrames", b"abc "), ("NumberOfFrames", b"1\\2 "), ("Columns", b"")])
def test_a_header_without_sense_refuses_its_file_alone(tmp_path: Path, name: str, written: bytes) -> None:
    dicom(tmp_path / "good.dcm", scene(2))
    path = dicom(tmp_path / "bad.dcm", scene(1), NumberOfFrames=1234)
    if name == "Columns":
        data = pydicom.dcmread(path)
        data.NumberOfFrames, data.Columns = 1, [64, 64]
        data.save_as(path)
    path.write_bytes(path.read_bytes().replace(b"1234", written or b"1234"))
    found = scan(tmp_path)
    assert len(found.pairs) == 1 and f"no whole number as {name}" in found.problems[0].reason


def test_one_number_is_one_patient_whoever_issued_it(tmp_path: Path) -> None:
    dicom(tmp_path / "1.dcm", scene(1), patient="AB 47")
    dicom(tmp_path / "2.dcm", scene(2), patient="AB 47", IssuerOfPatientID="Hospital")
    dicom(tmp_path / "3.dcm", scene(3), patient="ab47 ")
    assert list(scan(tmp_path).groups.values()) == [3]
