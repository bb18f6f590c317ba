"""Files named by their content: whole or absent, never torn, damage is noticed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from saadi.errors import BadInputError, NotFoundError, StorageError
from saadi.store.blobs import BlobStore, encode_png


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_an_image_comes_back_exactly(blobs: BlobStore, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (24, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(blobs.image(blobs.put_image(image)), image)


def test_a_label_map_keeps_all_256_values(blobs: BlobStore) -> None:
    label_map = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(blobs.label_map(blobs.put_label_map(label_map)), label_map)


def test_the_same_pixels_are_one_file_without_metadata(blobs: BlobStore) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    assert blobs.put_image(image) == blobs.put_image(image[::1].copy())
    assert len(files_in(blobs.root)) == 1
    assert b"tEXt" not in encode_png(image)


@pytest.mark.parametrize("array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_other_arrays_are_no_images(blobs: BlobStore, array: np.ndarray) -> None:
    with pytest.raises(BadInputError, match="an image is"):
        blobs.put_image(array)


def test_an_image_is_no_label_map(blobs: BlobStore) -> None:
    with pytest.raises(BadInputError, match="label map was expected"):
        blobs.label_map(blobs.put_image(np.zeros((4, 4, 3), np.uint8)))


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 63 + "/"])
def test_no_name_leaves_the_folder(blobs: BlobStore, name: str) -> None:
    with pytest.raises(BadInputError, match="64 hexadecimal"):
        blobs.path(name)


@pytest.mark.parametrize(("number", "sentence"), [(errno.ENOSPC, "the disk is full"), (errno.EIO, "the disk refused to write")])
def test_a_failing_disk_leaves_nothing(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch, number: int, sentence: str) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    (blobs.root / "ab").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StorageError, match=f"{sentence}, nothing was stored"):
            blobs.put(b"pixels")
    assert files_in(blobs.root) == []
    assert blobs.get(blobs.put(b"pixels")) == b"pixels"


@pytest.mark.skipif(os.name == "nt", reason="file size limits are a POSIX feature")
def test_a_write_that_the_kernel_cuts_off_leaves_nothing(blobs: BlobStore) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StorageError, match="nothing was stored"):
            blobs.put(os.urandom(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files_in(blobs.root) == []


def test_a_torn_file_under_a_final_name_is_replaced(blobs: BlobStore) -> None:
    sha256 = blobs.put(b"the whole picture")
    blobs.path(sha256).write_bytes(b"the whole pic")
    assert blobs.put(b"the whole picture") == sha256
    assert blobs.get(sha256) == b"the whole picture"


def test_one_flipped_bit_is_noticed(blobs: BlobStore) -> None:
    sha256 = blobs.put(b"pixels of a patient")
    damaged = bytearray(blobs.path(sha256).read_bytes())
    damaged[5] ^= 1
    blobs.path(sha256).write_bytes(damaged)
    with pytest.raises(NotFoundError, match=r"damaged on disk; restore it from the backup"):
        blobs.get(sha256)


def test_a_missing_blob_is_named(blobs: BlobStore) -> None:
    with pytest.raises(NotFoundError, match="0000 is missing"):
        blobs.get("0" * 64)


def test_sweeping_spares_young_temporaries_and_blobs(blobs: BlobStore) -> None:
    sha256 = blobs.put(b"kept")
    left_over = blobs.path(sha256).parent / ".tmp-killed"
    left_over.write_bytes(b"ke")
    assert blobs.sweep() == 0
    assert blobs.sweep(older_than_s=-1) == 1
    assert blobs.all_hashes() == {sha256}
    assert not left_over.exists()


def test_old_pixels_that_no_row_names_are_swept(store, project):
    named = store.blobs.put_image(np.full((4, 4, 3), 1, np.uint8))
    store.add_image(project.id, blob=named, size=(4, 4), group_id="p", split="train", source_name="a", label_map_blob=None,
                    actor="t")  # fmt: skip
    old, young, touched = (store.blobs.put_image(np.full((4, 4, 3), value, np.uint8)) for value in (2, 3, 4))
    for blob in (named, old, touched):
        os.utime(store.blobs.path(blob), (0, 0))
    store.blobs.put_image(np.full((4, 4, 3), 4, np.uint8))  # somebody wants these again
    vector = np.ones(3, np.float32)
    store.put_descriptors("looks", {named: vector, f"{named}.{old}": vector, old: vector, f"{old}.{named}": vector})
    assert store.sweep_unnamed_blobs() == 1
    assert store.undescribed("looks", [named, f"{named}.{old}", old, f"{old}.{named}"]) == [old, f"{old}.{named}"]
    assert store.blobs.all_hashes() == {named, young, touched}


def test_a_row_never_names_pixels_that_are_gone(store, project):
    blob = store.blobs.put_label_map(np.zeros((4, 4), np.uint8))
    assert store.drop_unnamed_blobs([blob]) == 1
    with pytest.raises(NotFoundError, match="not in the data folder any more"):
        store.add_label_map(project.id, blob=blob, name="n", author="a", request_id="request-1", origin="drawn")
