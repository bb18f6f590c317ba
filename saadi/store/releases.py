"""What left the program, what it reveals, and who let it go."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from saadi.errors import BadInputError, NotFoundError
from saadi.records import Disclosure, ExportRecord, Release
from saadi.store import audit
from saadi.store.base import StoreBase
from saadi.store.connection import dump, new_id, now

DOWNLOAD = "export.download"
MIN_REASON = 8
"""Characters: a person who reads the trail later wants a sentence."""


class ExportItem(NamedTuple):
    """An image of an export."""

    name: str
    kind: str
    """'real', 'synthetic' or 'composite'."""
    blob: str


def is_there(export: ExportRecord) -> bool:
    """Whether the folder still holds this export: by its manifest, as another one may have been written there since."""
    manifest = Path(export.path) / "manifest.json"
    return manifest.is_file() and hashlib.sha256(manifest.read_bytes()).hexdigest() == export.manifest_sha256


def verdict_of(reasons: Sequence[str], open_questions: Sequence[str]) -> Literal["fails", "nothing found", "nothing concluded"]:
    """Of an audit: one reason is enough to fail, one open question to conclude nothing."""
    return "fails" if reasons else "nothing concluded" if open_questions else "nothing found"


class ReleaseStore(StoreBase):
    """The part of the store that holds exports, their audits and releases. The ledger is append-only."""

    def add_export(self, project_id: int, *, format: str, path: str, manifest_sha256: str, num_items: int, actor: str,
                   job_id: int | None = None, items: Iterable[ExportItem] = (),
                   despite_withdrawn: str | None = None) -> ExportRecord:
        """Write down a finished export and what is in it. One per job: a repeat gives the first.

        Args:
            despite_withdrawn: Why it holds images by versions that may have learnt from a patient who has withdrawn.
        """
        with self.write() as db:
            known = db.execute("SELECT id FROM exports WHERE job_id = ?", [job_id]).fetchone()
            if known is None:
                export_id = new_id(db.table("exports").insert({
                    "project_id": project_id, "format": format, "path": path, "manifest_sha256": manifest_sha256,
                    "num_items": num_items, "job_id": job_id, "created_at": now()}))
                db.conn.executemany("INSERT INTO export_items (export_id, name, kind, blob) VALUES (?, ?, ?, ?)",
                                    [(export_id, *item) for item in items])
                audit.append(db, actor=actor, action="export", subject=f"project:{project_id}",
                             details={"format": format, "num_items": num_items, "manifest": manifest_sha256}
                             | ({"despite_withdrawn": despite_withdrawn} if despite_withdrawn else {}))
                known = [export_id]
        return self.export(known[0])

    def export(self, export_id: int) -> ExportRecord:
        """Raises: NotFoundError: there is none."""
        for row in self.db.query("SELECT id, project_id, format, path, manifest_sha256, num_items, created_at FROM exports "
                                 "WHERE id = ?", [export_id]):
            return ExportRecord(**row)
        raise NotFoundError(f"no export {export_id}; see `saadi releases`")

    def exports(self, project_id: int) -> list[ExportRecord]:
        """Oldest first."""
        found = self.db.query("SELECT id, project_id, format, path, manifest_sha256, num_items, created_at FROM exports "
                              "WHERE project_id = ? ORDER BY id", [project_id])
        return [ExportRecord(**row) for row in found]

    def export_items(self, export_id: int) -> list[ExportItem]:
        """By name; none of an export that was made before they were written down."""
        return [ExportItem(**row) for row in self.db.query(
            "SELECT name, kind, blob FROM export_items WHERE export_id = ? ORDER BY name", [export_id])]

    def earlier_exports(self, export: ExportRecord) -> list[ExportRecord]:
        """Those that its patients may have been seen in already: of any project that holds a real image of this one's, those made
        before it and those released, but for what somebody says never left."""
        found = self.db.query(
            "SELECT id, project_id, format, path, manifest_sha256, num_items, created_at FROM exports WHERE id <> :e AND "
            "(id < :e OR id IN (SELECT export_id FROM releases)) AND "
            "id NOT IN (SELECT export_id FROM releases WHERE disclosure_id IS NULL) AND "
            "(project_id = :p OR project_id IN (SELECT theirs.project_id FROM images AS mine JOIN images AS theirs "
            "ON theirs.blob = mine.blob WHERE mine.project_id = :p)) ORDER BY id", {"e": export.id, "p": export.project_id})
        return [ExportRecord(**row) for row in found]

    def add_verifier(self, project_id: int, *, input: str, file: str, metrics: dict[str, Any], actor: str) -> str:
        """Keep a network that tells patients apart; returns its file. One per input: a repeat gives the first."""
        with self.write() as db:
            known = self.verifier(project_id, input)
            if known is None:
                number = new_id(db.table("verifiers").insert({"project_id": project_id, "input": input, "file": file,
                                                              "metrics": dump(metrics), "created_at": now()}))
                audit.append(db, actor=actor, action="verifier.add", subject=f"verifier:{number}", details={"file": file})
        return known or file

    def verifier(self, project_id: int, input: str) -> str | None:
        """Its file; None where none has been fitted to this."""
        row = self.db.execute("SELECT file FROM verifiers WHERE project_id = ? AND input = ?", [project_id, input]).fetchone()
        return None if row is None else str(row[0])

    def verifier_files(self, project_id: int) -> set[str]:
        return {row["file"] for row in self.db.query("SELECT file FROM verifiers WHERE project_id = ?", [project_id])}

    def add_disclosure(self, project_id: int, *, export_id: int | None, findings: dict[str, Any], actor: str,
                       job_id: int | None = None) -> Disclosure:
        """Write down what an audit found. One per job: a repeat gives the first."""
        with self.write() as db:
            for row in db.query("SELECT id FROM disclosures WHERE job_id = ?", [job_id]):
                return self.disclosure(row["id"])
            number = new_id(db.table("disclosures").insert({
                "project_id": project_id, "export_id": export_id, "findings": dump(findings), "job_id": job_id,
                "created_at": now()}))
            audit.append(db, actor=actor, action="disclosure.audit", subject=f"disclosure:{number}",
                         details={"export": export_id, "verdict": findings["verdict"]})
        return self.disclosure(number)

    def disclosure(self, disclosure_id: int) -> Disclosure:
        """Raises: NotFoundError: there is none."""
        for row in self.db.query("SELECT * FROM disclosures WHERE id = ?", [disclosure_id]):
            return _disclosure(row)
        raise NotFoundError(f"no audit {disclosure_id}; see `saadi releases`")

    def disclosures(self, project_id: int, *, export_id: int | None = None) -> list[Disclosure]:
        """Oldest first; of one export, or all."""
        return [_disclosure(row) for row in self.db.query(
            "SELECT * FROM disclosures WHERE project_id = :p AND (:e IS NULL OR export_id = :e) ORDER BY id",
            {"p": project_id, "e": export_id})]

    def flagged_blobs(self, project_id: int) -> dict[str, int]:
        """Pixels that the newest audit that looked at them held for a copy -> the image that they come too near to. A copy of a
        patient who has withdrawn stays one, as no audit compares with them any more."""
        found: dict[str, int] = {}
        away = {row["id"] for row in self.db.query("SELECT id FROM images WHERE project_id = ? AND withdrawn_from IS NOT NULL",
                                                   [project_id])}  # fmt: skip
        for record in self.disclosures(project_id):
            if "repeats" in record.findings:  # nobody looked for copies again
                continue
            for blob in record.findings["looked_at"]:
                if found.get(blob) not in away:
                    found.pop(blob, None)
            found |= {one["blob"]: one["image_id"] for one in record.findings["flagged"]}
        return found

    def release(self, export_id: int, *, disclosure_id: int, person: str, reason: str, despite: bool = False) -> Release:
        """Let an export go, by the audit that was read.

        Raises:
            BadInputError: No reason, not audited or audited again since, an earlier export missing in the audit, or the audit
                found something and nobody said that it goes despite that.
        """
        export, reason = self.export(export_id), checked_reason(reason)
        with self.write() as db:
            if (known := self._signed(export_id)) is not None:
                if known.disclosure_id is None:
                    raise BadInputError(f"{known.person} says that export {export_id} was deleted and never left; export again, "
                                        "so that the ledger knows what goes")
                return known
            audits = self.disclosures(export.project_id, export_id=export_id)
            if not audits:
                raise BadInputError(f"nobody has looked yet at what export {export_id} reveals; audit it first (`saadi audit`)")
            newest = audits[-1]
            if newest.id != disclosure_id:
                raise BadInputError(f"export {export_id} has been audited again since; read what was found, then sign")
            earlier = {record.id for record in self.earlier_exports(export)}
            if missed := earlier - set(newest.findings["earlier_exports"]):
                raise BadInputError(f"export {min(missed)} shows the same patients and is not in this audit; audit export "
                                    f"{export_id} again")
            if "texts" not in newest.findings:
                raise BadInputError(f"the audit of export {export_id} is of a program that did not look for text in pictures; "
                                    "audit it again")
            if newest.findings["verdict"] != "nothing found" and not despite:
                raise BadInputError(f"the audit of export {export_id} says: {newest.findings['verdict']}; read it, and release "
                                    "despite it only if you can answer for that")
            audit.append(db, actor=person, action="export.release", subject=f"export:{export_id}",
                         details={"reason": reason, "disclosure": newest.id, "verdict": newest.findings["verdict"],
                                  "manifest": export.manifest_sha256})
            return self._sign(export_id, newest.id, person, reason)

    def downloaded(self, export_id: int, *, actor: str) -> None:
        """Write down that somebody took an export out of the program: it cannot be said to have never left."""
        export = self.export(export_id)
        with self.write() as db:
            audit.append(db, actor=actor, action=DOWNLOAD, subject=f"export:{export_id}",
                         details={"manifest": export.manifest_sha256})

    def was_downloaded(self, export_id: int, *, actor: str) -> bool:
        """Whether this person has begun a download of it."""
        return self.db.execute("SELECT 1 FROM audit WHERE action = ? AND subject = ? AND actor = ?",
                               [DOWNLOAD, f"export:{export_id}", actor]).fetchone() is not None

    def never_left(self, export_id: int, *, person: str, reason: str) -> Release:
        """Say that an export was deleted before it went anywhere: it counts in no audit from now on.

        Raises:
            BadInputError: No reason, it was released or downloaded, or it is still there.
        """
        export, reason = self.export(export_id), checked_reason(reason)
        with self.write() as db:
            if (known := self._signed(export_id)) is not None:
                if known.disclosure_id is not None:
                    raise BadInputError(f"export {export_id} was released by {known.person}; what left cannot be called back")
                return known
            for row in db.query("SELECT actor FROM audit WHERE action = ? AND subject = ?", [DOWNLOAD, f"export:{export_id}"]):
                raise BadInputError(f"export {export_id} was downloaded by {row['actor']}, so nobody can say that it never left")
            if is_there(export):
                raise BadInputError(f"export {export_id} is still in its folder '{Path(export.path).name}'; delete that first, "
                                    "then say that it never left")
            audit.append(db, actor=person, action="export.never_left", subject=f"export:{export_id}",
                         details={"reason": reason, "manifest": export.manifest_sha256})
            return self._sign(export_id, None, person, reason)

    def _signed(self, export_id: int) -> Release | None:
        return next((Release(**row) for row in self.db.query("SELECT * FROM releases WHERE export_id = ?", [export_id])), None)

    def _sign(self, export_id: int, disclosure_id: int | None, person: str, reason: str) -> Release:
        self.db.table("releases").insert({"export_id": export_id, "disclosure_id": disclosure_id, "person": person,
                                          "reason": reason, "created_at": now()})
        found = self._signed(export_id)
        assert found is not None, "just written"
        return found

    def releases(self, project_id: int) -> list[Release]:
        """Oldest first."""
        return [Release(**row) for row in self.db.query(
            "SELECT releases.* FROM releases JOIN exports ON exports.id = export_id WHERE project_id = ? ORDER BY releases.id",
            [project_id])]


def checked_reason(reason: str) -> str:
    """Without blanks around it. Raises: BadInputError: too short to tell anything."""
    if len(reason.strip()) < MIN_REASON:
        raise BadInputError(f"the ledger wants a reason of {MIN_REASON} characters or more, for whoever reads it later; got "
                            f"{len(reason.strip())}")
    return reason.strip()


def _disclosure(row: dict[str, Any]) -> Disclosure:
    return Disclosure(**{**row, "findings": json.loads(row["findings"])})
