"""The audit trail: who did what and when, chained by hashes, written in the same transaction as the change."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sqlite_utils import Database

from saadi.records import AuditRow
from saadi.store.connection import dump, now

GENESIS = "0" * 64


def append(db: Database, *, actor: str, action: str, subject: str, details: dict[str, Any] | None = None) -> None:
    """Add one row; call inside `Store.write()`, so that change and trail are stored together or not at all."""
    last = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    seq, prev = (last[0] + 1, last[1]) if last else (1, GENESIS)
    row = {"seq": seq, "created_at": now(), "actor": actor, "action": action, "subject": subject,
           "details": dump(details or {}), "prev": prev}
    db.table("audit").insert(row | {"hash": _digest(row)})


def rows(db: Database, *, limit: int) -> list[AuditRow]:
    """Newest first."""
    found = db.query("SELECT * FROM audit ORDER BY seq DESC LIMIT ?", [limit])
    return [AuditRow(seq=row["seq"], created_at=row["created_at"], actor=row["actor"], action=row["action"],
                     subject=row["subject"], details=json.loads(row["details"]), hash=row["hash"]) for row in found]


def first_broken(db: Database) -> int | None:
    """Sequence number of the first row that was changed after it was written; None when the chain holds."""
    prev = GENESIS
    for expected, row in enumerate(db.query("SELECT * FROM audit ORDER BY seq"), start=1):
        stored = row.pop("hash")
        if row["seq"] != expected or row["prev"] != prev or _digest(row) != stored:
            return int(row["seq"])
        prev = stored
    return None


def _digest(row: dict[str, Any]) -> str:
    return hashlib.sha256((row["prev"] + dump(row)).encode()).hexdigest()
