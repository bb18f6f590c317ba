"""What every part of the store shares: the folder, one connection, one way to write."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlite_utils import Database

from saadi.config import Home
from saadi.errors import NotFoundError, StorageError
from saadi.store.blobs import BlobStore, fsync_dir
from saadi.store.connection import connect, immediate, migrate, vacuum_into


class StoreBase:
    """A connection belongs to one thread: pass the home around, and open where you need it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        try:
            home.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StorageError(f"the data folder cannot be created ({error.strerror}); choose another with --home") from error
        size = home.database.stat().st_size if home.database.exists() else 0
        if size == 0 and next(home.blobs.glob("??/*.png"), None) is not None:
            raise StorageError("the database in the data folder is empty or gone although images are there; "
                               "restore it from the backup")
        self.db: Database = connect(home.database)
        try:
            migrate(self.db)
        except BaseException:
            self.db.conn.close()
            raise
        self.blobs = BlobStore(home.blobs)
        self.files = BlobStore(home.files, suffix=".safetensors")

    @classmethod
    def open(cls, home: Home | Path | str) -> Self:
        """Open (and create or migrate) the store in a data folder; use as a context manager."""
        return cls(home if isinstance(home, Home) else Home(Path(home)))

    def write(self) -> AbstractContextManager[Database]:
        """All changes go through here: BEGIN IMMEDIATE ... COMMIT, or nothing. Nested use joins the outer one."""
        return _joined(self.db) if self.db.conn.in_transaction else immediate(self.db)

    def need_blobs(self, *blobs: str | None) -> None:
        """Call inside `write()` before a row names these pixels: an import that failed may have taken equal ones away again.

        Raises:
            NotFoundError: They are not in the data folder.
        """
        for blob in blobs:
            if blob is not None and not self.blobs.path(blob).exists():
                raise NotFoundError(f"the pixels {blob[:12]} are not in the data folder any more; send them again")

    def referenced_blobs(self) -> set[str]:
        """Hashes that some row names."""
        columns = (("images", "blob"), ("label_map_revisions", "blob"), ("samples", "blob"), ("samples", "label_map_blob"),
                   ("samples", "source_blob"), ("scores", "prediction_blob"), ("job_images", "blob"),
                   ("trials", "label_map_blob"), ("trials", "old_blob"), ("trials", "new_blob"))
        named = {blob for table, column in columns
                 for (blob,) in self.db.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL")}
        for (metrics,) in self.db.execute("SELECT metrics FROM adapters"):
            named |= {blob for name, blobs in json.loads(metrics).items() if name.startswith("strip_") for blob in blobs}
        return named

    def people(self) -> list[str]:
        """Who has drawn or voted here, by name."""
        sql = ("SELECT voter FROM votes UNION "
               "SELECT author FROM label_map_revisions WHERE rev > 1 OR request_id NOT LIKE 'import-%'")
        return sorted(row[0] for row in self.db.execute(sql))

    def sweep_unnamed_blobs(self, *, older_than_s: float = 24 * 3600.0) -> int:
        """Remove pixels that no row names and that were put long ago: a killed import leaves them; returns how many."""
        with self.write() as db:
            named = self.referenced_blobs()
            unnamed = self.blobs.all_hashes() - named
            old = [blob for blob in unnamed if time.time() - self.blobs.path(blob).stat().st_mtime > older_than_s]
            for blob in old:
                self.blobs.path(blob).unlink(missing_ok=True)
            db.execute("DELETE FROM texts WHERE blob NOT IN (SELECT value FROM json_each(?))", [json.dumps(list(named))])
            # A vector of two blobs together is kept under 'one.other'.
            self.db.execute("DELETE FROM descriptors WHERE substr(blob, 1, instr(blob || '.', '.') - 1) NOT IN "
                            "(SELECT value FROM json_each(?))", [json.dumps(list(named))])
        return len(old)

    def backup(self, target: Path) -> None:
        """Write a consistent copy of the database while others write (VACUUM INTO); blobs are plain files beside it.

        Raises:
            StorageError: `target` exists, or the disk is full.
        """
        if target.exists():
            raise StorageError(f"{target.name} exists already; choose another name for the backup")
        # Under a temporary name until it is whole and checked: a half copy must never look like a backup.
        partial = target.with_name(f".tmp-{target.name}")
        try:
            partial.unlink(missing_ok=True)
            vacuum_into(self.db, partial)
            with partial.open("r+b") as stream:
                os.fsync(stream.fileno())
            os.replace(partial, target)
            fsync_dir(target.parent)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"the backup could not be written ({error.strerror}); choose another place") from error
        finally:
            partial.unlink(missing_ok=True)

    def close(self) -> None:
        self.db.conn.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@contextmanager
def _joined(db: Database) -> Iterator[Database]:
    # A savepoint: where the outer block catches an error of the inner one, the inner half-change is gone.
    with db.atomic():
        yield db
