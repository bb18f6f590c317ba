"""Zips of data sets: what would lead out, explode or hide is refused before a byte is written."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from saadi import orders
from saadi.datasets import folder
from saadi.datasets.folder import scan
from saadi.datasets.readers import archive
from saadi.datasets.readers.archive import opened
from saadi.errors import BadInputError, StorageError
from saadi.jobs import run_job
from saadi.orders import ImportOrder
from saadi.records import Project
from saadi.store import Store
from tests.datasets.test_folder import pair


def packed(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as made:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                made.write(path, f"set/{path.relative_to(folder).as_posix()}")
    return target


def member(name: str, *, mode: int = 0o644, kind: int = stat.S_IFREG) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | mode) << 16
    return info


def test_a_zip_is_read_as_its_folder_and_leaves_nothing(tmp_path: Path) -> None:
    for seed in range(3):
        pair(tmp_path / "set", f"f{seed}", seed)
    target = packed(tmp_path / "set", tmp_path / "set.zip")
    with opened(target, tmp_path / "tmp") as inside:
        assert len(scan(inside).pairs) == 3
    assert list((tmp_path / "tmp").iterdir()) == [] and target.exists()
    with opened(tmp_path / "set", tmp_path / "tmp") as inside:
        assert inside == tmp_path / "set"


def test_what_a_killed_process_unpacked_goes_with_the_next_zip(tmp_path: Path) -> None:
    pair(tmp_path / "set", "a", 1)
    left = tmp_path / "tmp" / "unpacked-999999999-abc"
    left.mkdir(parents=True)
    (left / "patient.png").write_bytes(b"pixels")
    with opened(packed(tmp_path / "set", tmp_path / "set.zip"), tmp_path / "tmp"):
        assert not left.exists()


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (member("../../x.png"), "leads out"),
        (member("/etc/x.png"), "leads out"),
        (member("a\\..\\..\\x.png"), "leads out"),
        (member("C:/x.png"), "leads out"),
        (member("link.png", kind=stat.S_IFLNK), "is a link"),
        (member("pipe", kind=stat.S_IFIFO), "is a link or a device"),
        (member("a/" * 30 + "x.png"), "too long"),
        (member("x" * 300 + ".png"), "too long"),
        (member("bell\a.png"), "control characters"),
    ],
)
def test_members_that_no_data_set_has_refuse_the_whole(tmp_path: Path, info: zipfile.ZipInfo, words: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr("images/good.png", b"x")
        made.writestr(info, b"/etc/passwd")
    with pytest.raises(BadInputError, match=words), opened(tmp_path / "a.zip", tmp_path / "tmp"):
        pass
    assert not any(path.is_file() for path in (tmp_path / "tmp").rglob("*"))


def test_twins_encryption_bombs_and_damage_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(words: str, *, kind: type[Exception] = BadInputError) -> None:
        with pytest.raises(kind, match=words), opened(tmp_path / "a.zip", tmp_path / "tmp"):
            pass
        assert list((tmp_path / "tmp").iterdir()) == []

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr("A.png", b"1")
        made.writestr("a.png", b"2")
    refused("comes twice")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("zeros.json", bytes(300 * 2**20))
    refused("times what it is")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr("a.png", bytes(1000))
    whole = (tmp_path / "a.zip").read_bytes()
    flagged = bytearray(whole)
    flagged[whole.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(flagged)
    refused("is encrypted")
    (tmp_path / "a.zip").write_bytes(whole[:500])
    refused("damaged or cut off")
    (tmp_path / "a.zip").write_bytes(whole.replace(bytes(900), bytes(899) + b"x"))
    refused("damaged or cut off")
    (tmp_path / "a.zip").write_bytes(whole)
    monkeypatch.setattr(archive, "MAX_MEMBERS", 0)
    refused("divide it")
    monkeypatch.undo()
    monkeypatch.setattr(archive, "_FREE_BYTES", 2**60)
    refused("unpacking needs", kind=StorageError)


def test_a_zip_becomes_a_part_of_the_project(tmp_path: Path, store: Store, project: Project) -> None:
    for seed in range(3):
        pair(tmp_path / "set", f"f{seed}", seed)
    target = packed(tmp_path / "set", tmp_path / "a.zip")
    order = ImportOrder(project_id=project.id, images_dir=str(target), values={0: 0, 255: 1})
    job, _ = orders.place(store, order, actor="ann")
    claimed = store.claim_job("w")
    assert claimed is not None
    run_job(store, claimed, {"import": folder.run_job})
    done = store.job(job.id)
    assert done.state == "done" and done.result["num_added"] == 3, done
    assert not any("unpacked" in path.name for path in store.home.path.rglob("*"))
