"""Zips of data sets: what would lead out, explode or hide is refused before a byte is written."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from saadi import orders
from saadi.datasets import folder
from saadi.datasets.folder import scan
from saadi.datasets.readers import archive
from saadi.datasets.readers.archive import opened
from saadi.errors import BadInputError, CancelledError, StorageError
from saadi.jobs import run_job
from saadi.orders import ImportOrder
from saadi.privacy import burnt_in
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
        (member("a/b:c.png"), "not every computer"),
        (member("a/end./b.png"), "not every computer"),
        (member("a/end "), "not every computer"),
        (member("a/NUL.png"), "not every computer"),
        (member("com1"), "not every computer"),
        (member("."), "has no name"),
        (member("images\\good.png"), "comes twice"),
        (member("./images//good.png"), "comes twice"),
        (member("images"), "a folder of that name"),
        (member("Images/Good.png/other.png"), "a folder of that name"),
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


@pytest.mark.parametrize(("written", "words"), [(b"abc\0d.png", "leads out"), (b"\0bcdd.png", "leads out"),
                                                (b"\xff\xfe\xfdd.png", "no text")])  # fmt: skip
def test_names_that_are_no_text_refuse_the_whole(tmp_path: Path, written: bytes, words: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr("\u00e4bcd.png", b"x")  # marked as UTF-8
    whole = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(whole.replace("\u00e4bcd.png".encode(), written.rjust(9, b"x")[-9:]))
    with pytest.raises(BadInputError, match=words), opened(tmp_path / "a.zip", tmp_path / "tmp"):
        pass
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_empty_name_refuses_the_whole() -> None:
    with zipfile.ZipFile(io.BytesIO(), "w") as made:
        info = zipfile.ZipInfo("x")
        info.filename = info.orig_filename = ""
        made.filelist.append(info)
        with pytest.raises(BadInputError, match="has no name"):
            archive.check(made)
        made.filelist.clear()


def test_names_that_a_disk_takes_for_one_are_no_lack_of_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr("a.png", b"1")
        made.writestr("a.png/b.png", b"2")
    monkeypatch.setattr(archive, "check", lambda made, **more: made.infolist())
    with pytest.raises(BadInputError, match="names are one"), opened(tmp_path / "a.zip", tmp_path / "tmp"):
        pass


def test_members_that_overlap_do_not_hide_a_bomb(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        infos = [member(f"{place}.png") for place in range(1000)]
        for info in infos:
            info.file_size, info.compress_size = 2**21, 2**20  # all of them the same MB of the file
        made.filelist[:] = infos
        assert len(archive.check(made)) == 1000
        with pytest.raises(BadInputError, match="times what it is"):
            archive.check(made, num_bytes=2**20 + 10**5)
        made.filelist.clear()


def test_hidden_companions_do_not_hide_the_only_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        for name in ("set/images/a.png", ".DS_Store", "__MACOSX/._set", "Thumbs.db", "desktop.ini"):
            made.writestr(name, b"x")
    with opened(tmp_path / "a.zip", tmp_path / "tmp") as inside:
        assert inside.name == "set"
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as made:
        made.writestr("a.png", b"x")
        made.writestr(".DS_Store", b"x")
    with opened(tmp_path / "b.zip", tmp_path / "tmp") as inside:
        assert (inside / "a.png").exists()


def test_leftovers_go_whatever_process_has_their_number_and_what_is_in_use_stays(tmp_path: Path) -> None:
    pair(tmp_path / "set", "a", 1)
    target = packed(tmp_path / "set", tmp_path / "set.zip")
    own = tmp_path / "tmp" / f"unpacked-{os.getpid()}-abc"  # in a container each start has this number
    own.mkdir(parents=True)
    with opened(target, tmp_path / "tmp") as first:
        assert not own.exists()
        with opened(target, tmp_path / "tmp") as second:
            assert first != second and len(scan(first).pairs) == 1
        assert archive.sweep([tmp_path / "tmp"]) == 0 and len(scan(first).pairs) == 1
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_starting_worker_removes_what_killed_jobs_and_pages_unpacked(store: Store) -> None:
    home = store.home.path
    lefts = [home / "tmp" / "unpacked-abc", store.home.job_dir(7) / "unpacked-1-abc"]
    for left in lefts:
        left.mkdir(parents=True)
        (left / "patient.png").write_bytes(b"pixels")
    (store.home.job_dir(7) / "checkpoint").write_bytes(b"weights")
    subprocess.run([sys.executable, "-m", "saadi", "worker", "--home", str(home), "--exit-when-idle"], check=True, timeout=120)
    assert not any(left.exists() for left in lefts) and (store.home.job_dir(7) / "checkpoint").exists()


def test_unpacking_reports_and_stops_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        for place in range(3):
            made.writestr(f"{place}.png", bytes(10_000))
    monkeypatch.setattr(archive, "_PIECE", 1000)
    monkeypatch.setattr(archive, "_PIECES_PER_REPORT", 5)
    steps: list[tuple[int, int, str]] = []
    with opened(tmp_path / "a.zip", tmp_path / "tmp", lambda *step: steps.append(step)):
        pass
    assert [step for step, _, _ in steps] == [0, 0, 0, 1, 1, 1, 2, 2, 2] and set(steps[0][1:]) == {3, "unpacking the zip"}

    def stop(step: int, total: int, message: str) -> None:
        if step == 1:
            raise CancelledError("cancelled")

    with pytest.raises(CancelledError), opened(tmp_path / "a.zip", tmp_path / "tmp", stop):
        pass
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_import_can_be_cancelled_while_it_unpacks(tmp_path: Path, store: Store, project: Project,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    pair(tmp_path / "set", "a", 1)
    target = packed(tmp_path / "set", tmp_path / "a.zip")
    order = ImportOrder(project_id=project.id, images_dir=str(target), values={0: 0, 255: 1})
    job, _ = orders.place(store, order, actor="ann")
    claimed = store.claim_job("w")
    assert claimed is not None
    store.cancel_job(job.id, actor="ann")
    monkeypatch.setattr(folder, "scan_order", lambda *args, **more: pytest.fail("unpacked to the end"))
    run_job(store, claimed, {"import": folder.run_job})
    assert store.job(job.id).state == "cancelled"
    assert not any("unpacked" in path.name for path in store.home.path.rglob("*"))


@pytest.mark.parametrize("can_look", [True, False])
def test_what_was_imported_is_looked_at_for_text_next(tmp_path: Path, store: Store, project: Project,
                                                      monkeypatch: pytest.MonkeyPatch, can_look: bool) -> None:
    monkeypatch.setattr(burnt_in, "is_available", lambda: can_look)
    pair(tmp_path / "set", "a", 1)
    order = ImportOrder(project_id=project.id, images_dir=str(tmp_path / "set"), values={0: 0, 255: 1})
    for is_looked_at in (False, False, True):  # the second time nothing is new, but nobody has looked yet
        if is_looked_at:
            store.add_texts({image.blob: [] for image in store.images(project.id)}, detector=burnt_in.DETECTOR)
        job, _ = orders.place(store, order, actor="ann")
        claimed = store.claim_job("w")
        assert claimed is not None and claimed.id == job.id
        run_job(store, claimed, {"import": folder.run_job})
        ended = store.job(job.id)
        assert ended.state == "done"
        waiting = [one for one in store.jobs() if one.state == "queued"]
        if is_looked_at or not can_look:
            assert not waiting and ("no_text_check" in ended.result) == (not is_looked_at)
            continue
        assert [(one.id, one.kind, one.created_by) for one in waiting] == [(ended.result["text_check_id"], "text_check", "ann")]
        store.cancel_job(waiting[0].id, actor="ann")
