"""Folder import: pairs under any naming, nothing silently background, no group on two sides, nothing stored on refusal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saadi.datasets.folder import FolderScan, import_folder, scan, suggested_values, value_map
from saadi.decoding import COLOUR_BIT
from saadi.errors import BadInputError, CancelledError, StorageError
from saadi.records import LabelClass, Project
from saadi.store import Store

VALUES = {0: 0, 255: 1}


def put(path: Path, array: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def picture(seed: int, *, size: tuple[int, int] = (20, 24)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def mask(*, size: tuple[int, int] = (20, 24), value: int = 255) -> np.ndarray:
    pixels = np.zeros(size, np.uint8)
    pixels[4:8, 4:10] = value
    return pixels


def pair(root: Path, name: str, seed: int, *, image: str = "images/{}.png", label: str = "masks/{}.png") -> None:
    put(root / image.format(name), picture(seed))
    put(root / label.format(name), mask())


def contents(store: Store) -> tuple[object, ...]:
    """Everything that must not change when an import is refused."""
    tables = ("images", "label_maps", "label_map_revisions", "audit")
    rows = tuple(store.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)
    return (*rows, sorted(path.as_posix() for path in store.home.path.rglob("*.png")))


@pytest.fixture
def phases(store: Store) -> Project:
    classes = [LabelClass(index, name, "#000000") for index, name in enumerate(("preparation", "dissection"))]
    return store.create_project("phases", task="classification", classes=classes, resolution=16, actor="test")


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/{}.png", "masks/{}.png"),
        ("images/{}.jpg", "masks/{}_mask.png"),
        ("img/{}.png", "labels/{}-mask.PNG"),
        ("{}.png", "{}_seg.png"),
        ("{}.jpg", "{}_label.png"),
        ("{}.png", "{}_gt.png"),
        ("{}.png", "{}.mask.png"),
        ("p1/images/{}.png", "p1/masks/{}.png"),
        ("images/p1/{}.png", "masks/p1/{}.png"),
        ("images/p1/{}.png", "masks/{}.png"),
        ("imagesTr/{}_0000.png", "labelsTr/{}.png"),
        ("Images/{}.png", "Masks/{}.png"),
    ],
)
def test_pairs_are_found_under_common_names(tmp_path: Path, image: str, label: str) -> None:
    for seed, name in enumerate(("frame9", "frame10", "Ä")):
        pair(tmp_path, name, seed, image=image, label=label)
    (tmp_path / "README.md").write_text("not a picture")
    found = scan(tmp_path)
    assert not found.problems and [item.picture.path.stem.removesuffix("_0000") for item in found.pairs] == [
        "frame9",
        "frame10",
        "Ä",
    ]
    for item in found.pairs:
        assert item.mask is not None and item.mask.path.stem.startswith(item.picture.path.stem.removesuffix("_0000"))


def test_given_folders_pair_by_stem(tmp_path: Path) -> None:
    pair(tmp_path, "a", 1, image="pictures/{}.png", label="truth/{}.png")
    found = scan(tmp_path / "pictures", tmp_path / "truth")
    assert [item.name for item in found.pairs] == ["a.png"] and found.values == {0: (456, 1), 255: (24, 1)}


def test_nested_patients_with_equal_frame_names_stay_apart(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        pair(tmp_path / patient, "0001", len(patient) + ord(patient[1]))
    found = scan(tmp_path, group_pattern=r"(p\d)/")
    assert found.groups == {"p1": 1, "p2": 1}
    assert all(item.mask is not None and item.mask.path.parts[-3] == item.group for item in found.pairs)


def test_all_problems_are_listed_and_the_good_pair_remains(tmp_path: Path) -> None:
    pair(tmp_path, "good", 1)
    put(tmp_path / "images/alone.png", picture(2))
    put(tmp_path / "masks/orphan.png", mask())
    put(tmp_path / "images/small.png", picture(3))
    put(tmp_path / "masks/small.png", mask(size=(10, 24))[:, :20].repeat(2, 0))
    put(tmp_path / "images/torn.png", picture(4)).write_bytes(b"\x89PNG")
    put(tmp_path / "masks/torn.png", mask())
    put(tmp_path / "images/lossy.png", picture(5))
    put(tmp_path / "masks/lossy.jpg", mask())
    (tmp_path / "images/scan.dcm").write_bytes(bytes(128) + b"DICM")
    put(tmp_path / "masks/scan.png", mask())
    put(tmp_path / "images/double.png", picture(6))
    put(tmp_path / "masks/double.png", mask())
    put(tmp_path / "masks/double_mask.png", mask())
    found = scan(tmp_path)
    reasons = {problem.name: problem.reason for problem in found.problems}
    assert [item.name for item in found.pairs] == ["images/good.png"]
    for name, words in {
        "'alone.png'": "no mask of the same name",
        "'orphan.png'": "no image of the same name",
        "'small.png'": "20 x 20 pixels, its image 24 x 20",
        "'torn.png'": "damaged|not a PNG",
        "'lossy.png'": "saved with loss",
        "'scan.dcm'": "DICOM",
        "'double.png'": "2 masks fit",
    }.items():
        assert any(word in reasons[name] for word in words.split("|")), (name, reasons[name])
    assert len(reasons) == 7


def test_equal_names_are_not_guessed(tmp_path: Path) -> None:
    pair(tmp_path, "a", 1)
    put(tmp_path / "images/a.jpg", picture(2))
    assert [problem.name for problem in scan(tmp_path).problems] == ["'a.jpg'", "'a.png'"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "does not exist"),
        (lambda root: (root / "in").mkdir(parents=True), "holds no picture"),
        (lambda root: put(root / "in" / ".hidden.png", picture(1)), "holds no picture"),
        (lambda root: (root / "in").write_text("file"), "is a file"),
    ],
)
def test_a_missing_or_empty_folder_is_one_sentence(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path)
    with pytest.raises(BadInputError, match=f"'in'.*{message}"):
        scan(tmp_path / "in")


def test_an_empty_mask_folder_is_one_sentence(tmp_path: Path) -> None:
    put(tmp_path / "images/a.png", picture(1))
    (tmp_path / "masks").mkdir()
    with pytest.raises(BadInputError, match="'masks' holds no picture; choose the folder with the masks"):
        scan(tmp_path / "images", tmp_path / "masks")


def test_import_stores_full_size_pixels_and_their_label_map(tmp_path: Path, store: Store, project: Project) -> None:
    pair(tmp_path, "a", 1)
    result = import_folder(store, project, scan(tmp_path), values=VALUES, actor="ann")
    (image,) = store.images(project.id)
    assert result.num_added == 1 and (image.width, image.height) == (24, 20) and image.source_name == "images/a.png"
    assert np.array_equal(store.blobs.image(image.blob), picture(1))
    assert image.label_map_id is not None
    assert np.array_equal(store.label_map_pixels(store.label_map(image.label_map_id).blob), mask(value=1))


def test_an_unknown_value_refuses_its_mask_and_stores_nothing(tmp_path: Path, store: Store, project: Project) -> None:
    pair(tmp_path, "a", 1)
    before = contents(store)
    result = import_folder(store, project, scan(tmp_path), values={0: 0}, actor="ann")
    assert result.num_added == 0 and "value 255 (24 pixels) has no class" in result.refused[0].reason
    assert contents(store) == before and "1 refused" in result.message


def test_strict_refuses_everything_when_one_is_refused(tmp_path: Path, store: Store, project: Project) -> None:
    pair(tmp_path, "a", 1)
    put(tmp_path / "images/b.png", picture(2))
    before = contents(store)
    with pytest.raises(BadInputError, match=r"1 files cannot be used and nothing was imported; the first is 'b.png'"):
        import_folder(store, project, scan(tmp_path), values=VALUES, actor="ann", strict=True)
    assert contents(store) == before


@pytest.mark.parametrize(
    ("values", "message"), [({}, r"the masks hold 0 \(456 pixels in 1 masks\), 255"), ({0: 0, 255: 7}, "no class 7")]
)
def test_values_without_sense_are_refused_as_a_whole(
    tmp_path: Path, store: Store, project: Project, values: dict[int, int], message: str
) -> None:
    pair(tmp_path, "a", 1)
    with pytest.raises(BadInputError, match=message):
        import_folder(store, project, scan(tmp_path), values=values, actor="ann")


def test_images_without_masks_do_not_enter_a_segmentation_project(tmp_path: Path, store: Store, project: Project) -> None:
    put(tmp_path / "a.png", picture(1))
    with pytest.raises(BadInputError, match="no masks"):
        import_folder(store, project, scan(tmp_path), values=VALUES, actor="ann")


def test_repeated_pixels_are_counted_and_a_different_mask_is_reported(tmp_path: Path, store: Store, project: Project) -> None:
    pair(tmp_path, "a", 1)
    put(tmp_path / "images/copy.png", picture(1))
    put(tmp_path / "masks/copy.png", mask())
    first = import_folder(store, project, scan(tmp_path), values=VALUES, actor="ann")
    put(tmp_path / "masks/a.png", mask()[::-1].copy())
    second = import_folder(store, project, scan(tmp_path), values=VALUES, actor="ann")
    assert (first.num_added, first.num_duplicates, second.num_added, second.num_duplicates) == (1, 1, 0, 2)
    assert not any("another mask" in note for note in first.notes) and any(
        "1 images" in note and "another mask" in note for note in second.notes
    )


def test_colour_masks_are_mapped_by_their_colours(tmp_path: Path, store: Store, project: Project) -> None:
    put(tmp_path / "images/a.png", picture(1))
    put(tmp_path / "masks/a.png", np.stack([mask(), mask(value=0), mask(value=0)], axis=2))
    found = scan(tmp_path)
    assert found.values == {0: (456, 1), COLOUR_BIT | 0xFF0000: (24, 1)}
    import_folder(store, project, found, values=value_map("0=background,#ff0000=polyp", project.classes), actor="ann")
    assert store.label_map_pixels(store.label_maps(project.id)[0].blob).sum() == 24


def test_a_group_is_never_on_two_sides_and_later_images_follow_it(tmp_path: Path, store: Store, project: Project) -> None:
    for frame in range(24):
        pair(tmp_path / "first", f"op{frame % 6}_{frame}", frame)
        pair(tmp_path / "later", f"op{frame % 9}_{frame + 50}", frame + 50)
    for part in ("first", "later"):
        result = import_folder(store, project, scan(tmp_path / part, group_pattern=r"op(\d+)_"), values=VALUES, actor="ann")
        assert result.num_added == 24
    sides: dict[str, set[str]] = {}
    for image in store.images(project.id):
        sides.setdefault(image.group_id, set()).add(image.split)
    assert len(sides) == 9 and all(len(found) == 1 for found in sides.values())
    assert {side for found in sides.values() for side in found} == {"train", "val", "test"}


def test_images_without_group_are_their_own_with_a_note_and_without_a_name(
    tmp_path: Path, store: Store, project: Project
) -> None:
    pair(tmp_path, "DOE_JANE", 1)
    result = import_folder(store, project, scan(tmp_path), values=VALUES, actor="ann")
    assert any("own group" in note for note in result.notes) and "DOE" not in store.images(project.id)[0].group_id


def test_a_name_that_the_pattern_does_not_fit_is_refused(tmp_path: Path) -> None:
    pair(tmp_path, "op1_a", 1)
    pair(tmp_path, "other", 2)
    found = scan(tmp_path, group_pattern=r"op(\d+)_")
    assert found.groups == {"1": 1} and "pattern does not fit" in found.problems[0].reason


@pytest.mark.parametrize(("pattern", "message"), [("op(", "cannot be read"), ("op1", "one group"), ("(a)(b)", "one group")])
def test_a_pattern_without_one_group_is_refused(tmp_path: Path, pattern: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        scan(tmp_path, group_pattern=pattern)


@pytest.mark.parametrize(
    "text",
    [
        "id,split,patient\na,train,x\nb,validation,y\n",
        "file_name;split;patient\nimages/a.png;train;x\nimages/b.png;val;y\n",
        "\ufeffname\tsplit\tpatient\na.png\tTRAIN\tx\nb.png\tval\ty\n",
    ],
)
def test_csv_gives_split_and_group(tmp_path: Path, store: Store, project: Project, text: str) -> None:
    pair(tmp_path, "a", 1)
    pair(tmp_path, "b", 2)
    (tmp_path / "table.csv").write_text(text, encoding="utf-8")
    found = scan(tmp_path, csv=tmp_path / "table.csv", split_column="split")
    result = import_folder(store, project, found, values=VALUES, actor="ann")
    assert result.splits == {"train": 1, "val": 1} and [image.group_id for image in store.images(project.id)] == ["x", "y"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,split\na,holdout\n", "line 2.*'holdout'; write train, val or test"),
        ("id,split\na,train\na,val\n", "lines 2 and 3"),
        ("id,split\n", "no rows"),
        ("id,fold\na,1\n", "no split column 'split'; its columns are id, fold"),
        ("id,split\n,train\n", "names no file"),
    ],
)
def test_a_csv_without_sense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    pair(tmp_path, "a", 1)
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(BadInputError, match=message):
        scan(tmp_path, csv=tmp_path / "table.csv", split_column="split")


def test_csv_rows_are_compared_and_never_opened(tmp_path: Path) -> None:
    pair(tmp_path / "in", "a", 1)
    put(tmp_path / "secret.png", picture(9))
    (tmp_path / "table.csv").write_text("id,split\na,train\n../secret.png,train\n/etc/passwd,val\n")
    found = scan(tmp_path / "in", csv=tmp_path / "table.csv", split_column="split")
    assert [item.name for item in found.pairs] == [
        "images/a.png"
    ] and "2 rows of the CSV name no image in the folder" in found.notes


def test_an_image_without_csv_row_is_refused(tmp_path: Path) -> None:
    pair(tmp_path, "a", 1)
    pair(tmp_path, "b", 2)
    (tmp_path / "table.csv").write_text("id,split\na,train\n")
    assert "no row" in scan(tmp_path, csv=tmp_path / "table.csv").problems[0].reason


def test_a_given_split_that_divides_a_patient_is_refused(tmp_path: Path, store: Store, project: Project) -> None:
    pair(tmp_path, "a", 1)
    pair(tmp_path, "b", 2)
    (tmp_path / "table.csv").write_text("id,split,patient\na,train,x\nb,test,x\n")
    before = contents(store)
    with pytest.raises(BadInputError, match="1 groups are on two sides"):
        import_folder(store, project, scan(tmp_path, csv=tmp_path / "table.csv"), values=VALUES, actor="ann")
    assert contents(store) == before


def test_a_patient_cannot_change_sides_in_a_second_import(tmp_path: Path, store: Store, project: Project) -> None:
    pair(tmp_path, "p1_a", 1)
    import_folder(store, project, scan(tmp_path, group_pattern="(p1)"), values=VALUES, actor="ann", split={"p1": "train"})
    pair(tmp_path, "p1_b", 2)
    with pytest.raises(BadInputError, match="another side in this project already"):
        import_folder(store, project, scan(tmp_path, group_pattern="(p1)"), values=VALUES, actor="ann", split={"p1": "test"})


def test_a_mapping_must_name_every_group(tmp_path: Path, store: Store, project: Project) -> None:
    pair(tmp_path, "p2_a", 1)
    with pytest.raises(BadInputError, match=r"names no side for the group of 'p2_a\.png'"):
        import_folder(store, project, scan(tmp_path, group_pattern=r"(p\d)"), values=VALUES, actor="ann", split={"p1": "train"})


def test_labels_come_from_a_column(tmp_path: Path, store: Store, phases: Project) -> None:
    for seed in range(3):
        put(tmp_path / f"images/v1_{seed}.jpg", picture(seed))
    (tmp_path / "labels.csv").write_text("id,video,phase\nv1_0,1,preparation\nv1_1,1,Dissection\nv1_2,2,closing\n")
    found = scan(tmp_path / "images", csv=tmp_path / "labels.csv", label_column="phase")
    result = import_folder(store, phases, found, actor="ann")
    assert [(image.label, image.group_id) for image in store.images(phases.id)] == [("preparation", "1"), ("dissection", "1")]
    assert "'closing' is no class of this project" in result.refused[0].reason


def test_labels_and_splits_come_from_folders(tmp_path: Path, store: Store, phases: Project) -> None:
    put(tmp_path / "train/preparation/a.png", picture(1))
    put(tmp_path / "test/dissection/b.png", picture(2))
    import_folder(store, phases, scan(tmp_path), actor="ann")
    assert {(image.split, image.label) for image in store.images(phases.id)} == {
        ("train", "preparation"),
        ("test", "dissection"),
    }


def test_a_classification_project_needs_labels(tmp_path: Path, store: Store, phases: Project) -> None:
    put(tmp_path / "a.png", picture(1))
    with pytest.raises(BadInputError, match="no labels"):
        import_folder(store, phases, scan(tmp_path), actor="ann")


def test_a_limit_takes_from_every_operation(tmp_path: Path) -> None:
    for operation in range(3):
        for frame in range(8):
            pair(tmp_path, f"op{operation}_{frame}", operation * 8 + frame)
    assert scan(tmp_path, group_pattern=r"op(\d)", limit=6).groups == {"0": 2, "1": 2, "2": 2}


def test_cancelling_leaves_no_row(tmp_path: Path, store: Store, project: Project) -> None:
    for seed in range(4):
        pair(tmp_path, f"a{seed}", seed)

    def stop(step: int, total: int, message: str) -> None:
        if step == 2:
            raise CancelledError("cancelled")

    with pytest.raises(CancelledError):
        import_folder(store, project, scan(tmp_path), values=VALUES, actor="ann", report=stop)
    assert (
        store.images(project.id) == []
        and import_folder(store, project, scan(tmp_path), values=VALUES, actor="ann").num_added == 4
    )


def test_a_full_disk_stops_the_import_and_leaves_no_row(
    tmp_path: Path, store: Store, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair(tmp_path, "a", 1)
    found = scan(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="disk is full"):
        import_folder(store, project, found, values=VALUES, actor="ann")
    assert store.images(project.id) == []


def test_a_file_that_vanished_after_the_scan_is_refused(tmp_path: Path, store: Store, project: Project) -> None:
    pair(tmp_path, "a", 1)
    found = scan(tmp_path)
    (tmp_path / "images/a.png").unlink()
    assert "cannot be read" in import_folder(store, project, found, values=VALUES, actor="ann").refused[0].reason


def test_strange_file_names_neither_leak_nor_break(tmp_path: Path, store: Store, project: Project) -> None:
    for seed, name in enumerate(("DOE\nJANE\x1b[31m", "x" * 200, "a'; DROP TABLE images;--", os.fsdecode(b"\xff\xfe"))):
        pair(tmp_path, name, seed)
    os.mkfifo(tmp_path / "images" / "pipe.png")
    (tmp_path / "images" / "dead.png").symlink_to(tmp_path / "nowhere.png")
    result = import_folder(store, project, scan(tmp_path), values={0: 0}, actor="ann")
    assert len(result.refused) == 4 and all(len(name) <= 42 and name.isprintable() for name, _ in result.refused)
    assert import_folder(store, project, scan(tmp_path), values=VALUES, actor="ann").num_added == 4


@pytest.mark.parametrize(
    ("text", "message"), [("0", "write values as"), ("0=liver", "no class 'liver'"), ("300=polyp", "mask value")]
)
def test_a_value_map_that_cannot_be_read_is_refused(project: Project, text: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        value_map(text, project.classes)


def test_a_suggestion_needs_as_many_values_as_classes(project: Project) -> None:
    empty = FolderScan(pairs=(), problems=(), values={0: (1, 1), 255: (1, 1)}, has_masks=True)
    assert suggested_values(empty, project.classes) == {0: 0, 255: 1}
    assert suggested_values(FolderScan(pairs=(), problems=(), values={0: (1, 1)}, has_masks=True), project.classes) == {}


def test_a_cancelled_import_leaves_no_pixels_behind(store: Store, project: Project, tmp_path: Path) -> None:
    for number in range(4):
        pair(tmp_path, str(number), number)
    found = scan(tmp_path / "images", tmp_path / "masks")
    kept = store.blobs.put_image(picture(0))
    store.add_image(project.id, blob=kept, size=(24, 20), group_id="p", split="train", source_name="a", label_map_blob=None,
                    actor="test")  # fmt: skip
    before = contents(store)

    def stop(step: int, total: int, message: str) -> None:
        if message == "storing images" and step == 3:
            raise CancelledError("cancelled")

    with pytest.raises(CancelledError):
        import_folder(store, project, found, values=VALUES, actor="test", report=stop)
    assert contents(store) == before
    assert import_folder(store, project, found, values=VALUES, actor="test").num_added == 3
