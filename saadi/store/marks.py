"""What people mark for themselves: favourites to come back to, flags to look at again. Neither is a decision about an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from saadi.errors import NotFoundError
from saadi.store import audit
from saadi.store.base import StoreBase
from saadi.store.connection import now

MarkKind = Literal["favourite", "flag"]


@dataclass(frozen=True)
class Mark:
    """One person's mark on one synthetic image."""

    project_id: int
    sample_id: int
    kind: MarkKind
    person: str
    note: str
    created_at: str


class MarkStore(StoreBase):
    """The part of the store that holds marks."""

    def set_mark(self, sample_id: int, kind: MarkKind, *, on: bool, person: str, note: str = "") -> None:
        """Put or take away a person's mark; one that is as wanted already stays as it is.

        Raises:
            NotFoundError: No such sample.
        """
        with self.write() as db:
            row = db.execute("SELECT project_id FROM samples WHERE id = ?", [sample_id]).fetchone()
            if row is None:
                raise NotFoundError(f"no sample {sample_id}; reload the page")
            own = [sample_id, kind, person]
            known = db.execute("SELECT note FROM marks WHERE sample_id = ? AND kind = ? AND person = ?", own).fetchone()
            if (known is not None and known[0] == note) if on else known is None:
                return
            db.execute("DELETE FROM marks WHERE sample_id = ? AND kind = ? AND person = ?", own)
            if on:
                db.table("marks").insert({"project_id": row[0], "sample_id": sample_id, "kind": kind, "person": person,
                                          "note": note, "created_at": now()})
            audit.append(db, actor=person, action=f"mark.{kind}", subject=f"sample:{sample_id}", details={"on": on, "note": note})

    def marks(self, project_id: int) -> list[Mark]:
        """Everybody's marks, oldest first."""
        found = self.db.query("SELECT project_id, sample_id, kind, person, note, created_at FROM marks WHERE project_id = ? "
                              "ORDER BY id", [project_id])
        return [Mark(**row) for row in found]
