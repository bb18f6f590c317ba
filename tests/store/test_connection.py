"""Opening, migrating and writing: what is acknowledged stays, what fails leaves nothing."""

from __future__ import annotations

import sqlite3 as standard_sqlite
from pathlib import Path

import pytest
from sqlite_utils.utils import sqlite3

from saadi.config import Home
from saadi.errors import BadInputError, NewerStoreError, StorageError
from saadi.records import Project
from saadi.store import Store
from saadi.store.connection import connect, dump, migrate, wal_is_safe
from saadi.store.migrations import schema
from tests.builders import add_label_map, add_samples, count, new_request
from tests.conftest import CLASSES


@pytest.mark.parametrize(("version", "is_safe"), [
    ((3, 40, 1), False), ((3, 44, 5), False), ((3, 44, 6), True), ((3, 45, 0), False), ((3, 50, 6), False), ((3, 50, 7), True),
    ((3, 51, 2), False), ((3, 51, 3), True), ((3, 52, 0), False), ((3, 53, 4), True)])
def test_wal_is_used_only_where_its_race_is_fixed(version: tuple[int, ...], is_safe: bool) -> None:
    assert wal_is_safe(version) is is_safe


def test_settings_that_keep_acknowledged_rows(store: Store) -> None:
    answers = {name: store.db.execute(f"PRAGMA {name}").fetchone()[0]
               for name in ("journal_mode", "synchronous", "foreign_keys", "recursive_triggers", "busy_timeout")}
    expected = "wal" if wal_is_safe(sqlite3.sqlite_version_info) else "delete"
    assert answers == {"journal_mode": expected, "synchronous": 2, "foreign_keys": 1, "recursive_triggers": 1,
                       "busy_timeout": 10_000}


def test_an_error_leaves_neither_row_nor_audit(store: Store, project: Project) -> None:
    rows, trail = count(store, "label_maps"), count(store, "audit")
    with pytest.raises(RuntimeError), store.write():
        add_label_map(store, project)
        raise RuntimeError
    assert (count(store, "label_maps"), count(store, "audit")) == (rows, trail)
    assert not store.db.conn.in_transaction


def test_nested_writes_join_the_outer_one(store: Store, project: Project) -> None:
    with pytest.raises(RuntimeError), store.write():
        with store.write():
            add_label_map(store, project)
        raise RuntimeError
    assert count(store, "label_maps") == 0


def test_a_caught_error_undoes_only_the_inner_write(store: Store, project: Project) -> None:
    with store.write():
        add_label_map(store, project)
        with pytest.raises(RuntimeError), store.write():
            add_label_map(store, project, value=0)
            raise RuntimeError
    assert count(store, "label_maps") == 1
    assert store.first_broken_audit_row() is None


def test_a_reader_sees_nothing_of_an_open_write(home: Home, store: Store, project: Project) -> None:
    with Store.open(home) as reader:
        with store.write():
            add_label_map(store, project)
            assert count(reader, "label_maps") == 0
        assert count(reader, "label_maps") == 1


def test_a_full_disk_is_a_sentence_and_changes_nothing(store: Store, project: Project) -> None:
    left, right = add_samples(store, project)
    pages = store.db.execute("PRAGMA page_count").fetchone()[0]
    before, trail = count(store, "label_map_revisions"), count(store, "audit")
    store.db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StorageError, match="disk is full, nothing was changed"):
        for _ in range(10_000):
            store.add_vote(project.id, left_id=left.id, right_id=right.id, answer="left", voter="x" * 500,
                           request_id=new_request())
    assert store.first_broken_audit_row() is None
    assert count(store, "label_map_revisions") == before
    assert count(store, "audit") - trail == count(store, "votes")
    store.db.execute("PRAGMA max_page_count=1000000")
    store.add_vote(project.id, left_id=left.id, right_id=right.id, answer="right", voter="ann", request_id=new_request())


def test_a_lock_held_too_long_is_a_sentence(home: Home, store: Store) -> None:
    store.db.execute("PRAGMA busy_timeout=20")
    refusal = pytest.raises(StorageError, match="another program holds the database")
    with Store.open(home) as other, other.write(), refusal, store.write():
        pass


def test_a_newer_folder_is_refused_by_name(home: Home) -> None:
    with Store.open(home) as store, store.write() as db:
        db.table("_sqlite_migrations").insert({"migration_set": "saadi", "name": "m999_future", "applied_at": ""})
    with pytest.raises(NewerStoreError, match=r"m999_future.*update the program"):
        Store.open(home)


def test_an_old_folder_is_brought_up_to_date(home: Home) -> None:
    home.path.mkdir()
    db = connect(home.database)
    schema.apply(db, stop_before="m002_generation")
    classes = dump([{"index": index, "name": name, "color": "#000000"} for index, name in enumerate("ab")])
    db.execute("INSERT INTO projects (name, task, classes, resolution, created_at) VALUES "
               "('old', 'segmentation', ?, 64, '2026-01-01')", [classes])
    db.conn.close()
    with Store.open(home) as store:
        project = store.project("old")
        assert project.class_names == ("a", "b")
        assert add_samples(store, project)
        job, _ = store.add_job("fit", {}, project_id=project.id, actor="ann", request_id="r")
        assert job.state == "queued"


def test_migrating_twice_changes_nothing(store: Store) -> None:
    version = store.db.execute("PRAGMA schema_version").fetchone()
    migrate(store.db)
    assert store.db.execute("PRAGMA schema_version").fetchone() == version


@pytest.mark.parametrize("is_gone", [True, False])
def test_an_empty_or_missing_database_beside_images_is_refused(home: Home, is_gone: bool) -> None:
    with Store.open(home) as store:
        add_label_map(store, store.create_project("p", task="segmentation", classes=CLASSES, resolution=16, actor="ann"))
    home.database.unlink() if is_gone else home.database.write_bytes(b"")
    with pytest.raises(StorageError, match="restore it from the backup"):
        Store.open(home)


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_database_is_a_sentence(home: Home, content: bytes) -> None:
    home.path.mkdir()
    home.database.write_bytes(content)
    with pytest.raises(StorageError, match="restore it from the backup"):
        Store.open(home)


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another with --home"):
        Store.open(tmp_path / "file")


@pytest.mark.parametrize(("name", "resolution"), [("", 64), ("   ", 64), ("x" * 81, 64), ("fine", 8), ("fine", 2048)])
def test_a_project_out_of_bounds_is_refused(store: Store, name: str, resolution: int) -> None:
    with pytest.raises(BadInputError):
        store.create_project(name, task="segmentation", classes=CLASSES, resolution=resolution, actor="ann")
    assert store.projects() == []


def test_a_backup_is_whole_while_others_write(home: Home, store: Store, project: Project, tmp_path: Path) -> None:
    add_label_map(store, project)
    with Store.open(home) as other, other.write():
        add_label_map(other, project)
        store.backup(tmp_path / "copy.db")  # sees what was committed, does not wait
    copy = standard_sqlite.connect(tmp_path / "copy.db")
    assert copy.execute("SELECT count(*) FROM label_maps").fetchone() == (1,)
    copy.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "home"]
    with pytest.raises(StorageError, match="exists already"):
        store.backup(tmp_path / "copy.db")


def test_a_backup_to_nowhere_is_a_sentence(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="choose another place"):
        store.backup(tmp_path / "missing" / "copy.db")
