"""One SQLite connection, set up so that an acknowledged row survives a crash and a power cut."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlite_utils import Database
from sqlite_utils.db import Table
from sqlite_utils.utils import sqlite3  # pysqlite3 where it is installed: SQLite without the WAL-reset bug

from saadi.errors import NewerStoreError, StorageError
from saadi.store.migrations import schema

BUSY_TIMEOUT_MS = 10_000


def sqlite_version() -> tuple[int, ...]:
    """Version of the SQLite library in use."""
    return tuple(sqlite3.sqlite_version_info)


def quick_check(db: Database) -> list[str]:
    """What SQLite finds wrong with the file; empty = nothing. 0.2 s per 100 MB."""
    try:
        found = [str(row[0]) for row in db.execute("PRAGMA quick_check(5)")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [] if found == ["ok"] else found


def wal_is_safe(version: tuple[int, ...]) -> bool:
    """True where SQLite has the fix of the WAL-reset race (sqlite.org/wal.html#walresetbug)."""
    if version == (3, 52, 0):  # withdrawn
        return False
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)


def connect(path: Path) -> Database:
    """Open the store's database file.

    WAL with synchronous=FULL: NORMAL lost acknowledged rows in 789 of 1,000 simulated power cuts, FULL in none.

    Raises:
        StorageError: The file is not a database or the folder cannot be written.
    """
    try:
        connection = sqlite3.connect(str(path), timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None)
    except sqlite3.DatabaseError as error:
        raise StorageError(_reason(error)) from error
    try:
        journal = "WAL" if wal_is_safe(sqlite_version()) else "DELETE"
        answer = _set_journal_mode(connection, journal)
        if answer.upper() != journal:
            raise StorageError(f"the data folder does not allow journal mode {journal} (network share?); use a local disk")
        for pragma in ("synchronous=FULL", "foreign_keys=ON", "recursive_triggers=ON", "trusted_schema=OFF",
                       "cell_size_check=ON", "mmap_size=0", f"busy_timeout={BUSY_TIMEOUT_MS}"):
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise StorageError(_reason(error)) from error
    except StorageError:
        connection.close()
        raise
    return Database(connection)


def _set_journal_mode(connection: sqlite3.Connection, journal: str) -> str:
    """Return the mode in force. Switching a fresh file to WAL does not wait for the busy timeout, so this does."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            return str(connection.execute(f"PRAGMA journal_mode={journal}").fetchone()[0])
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def migrate(db: Database) -> None:
    """Bring the schema up to date, in one immediate transaction so that two starting processes do not race.

    Raises:
        NewerStoreError: The file knows migrations that this release does not.
    """
    known = {step.name for step in schema._migrations}
    try:
        applied = {step.name for step in schema.applied(db)}
    except sqlite3.DatabaseError as error:
        raise StorageError(_reason(error)) from error
    if unknown := sorted(applied - known):
        raise NewerStoreError(
            f"this data folder was written by a newer release (it knows {unknown[-1]}, this program ends at "
            f"{max(known)}); update the program, nothing was changed")
    if applied == known:
        return
    # Also the table of migrations is made inside: two processes that open a fresh folder would both want to create it.
    with immediate(db):
        schema.apply(db)


@contextmanager
def immediate(db: Database) -> Iterator[Database]:
    """BEGIN IMMEDIATE ... COMMIT; sqlite-utils calls inside join it as savepoints.

    Its own `atomic()` is a deferred BEGIN: 1,469 of 1,600 concurrent read-then-write votes failed with "locked".

    Raises:
        StorageError: Locked for longer than the busy timeout, or the disk is full; nothing was changed.
    """
    try:
        db.conn.execute("BEGIN IMMEDIATE")
    except sqlite3.DatabaseError as error:
        raise StorageError(_reason(error)) from error
    try:
        yield db
        db.conn.execute("COMMIT")
    except BaseException as error:
        if db.conn.in_transaction:
            db.conn.execute("ROLLBACK")
        # Disk, locks, damage; a broken CHECK or UNIQUE (IntegrityError) is a mistake of the program and stays loud.
        if isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError:
            raise StorageError(_reason(error)) from error
        raise


def vacuum_into(db: Database, target: Path) -> None:
    """Write a consistent copy to `target`, which must not exist, and check the copy.

    Raises:
        StorageError: The disk is full, the place cannot be written, or the copy is damaged.
    """
    try:
        db.conn.execute("VACUUM INTO ?", [str(target)])
        copy = sqlite3.connect(str(target))
        try:
            verdict = copy.execute("PRAGMA integrity_check").fetchone()[0]
        finally:
            copy.close()
    except sqlite3.DatabaseError as error:
        raise StorageError(f"the backup could not be written ({error}); free some space or choose another place") from error
    if verdict != "ok":
        raise StorageError(f"the database is damaged ({verdict}); no backup was written, restore an earlier one")


def _reason(error: Exception) -> str:
    text = str(error)
    if "unable to open" in text or "readonly" in text:
        return "the data folder cannot be written, nothing was changed; check its permissions or choose another with --home"
    if "malformed" in text or "not a database" in text:
        return f"the database in the data folder is damaged ({text}); restore it from the backup"
    if "full" in text:
        return "the disk is full, nothing was changed; free some space and try again"
    if "locked" in text or "busy" in text:
        return "another program holds the database, nothing was changed; try again in a moment"
    return f"the database refused ({text}), nothing was changed"


def new_id(table: Table) -> int:
    """Key of the row that `table.insert()` has just added."""
    assert isinstance(table.last_pk, int), "every table here has an integer key"
    return table.last_pk


def now() -> str:
    """UTC, ISO 8601 with milliseconds; for people: order comes from integer keys."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def dump(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, NaN refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
