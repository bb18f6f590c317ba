"""How a version was judged by people: blind trials against its parent (append-only), and who decided on it, and why."""

from __future__ import annotations

import json
from typing import Any, get_args

from saadi.errors import BadInputError
from saadi.records import Answer, AuditRow, Trial
from saadi.store import audit
from saadi.store.candidates import CandidateStore
from saadi.store.connection import now


class TrialStore(CandidateStore):
    """The part of the store that holds blind comparisons of two versions and the decisions that followed."""

    def add_trial(self, adapter_id: int, *, label_map_blob: str, old_blob: str, new_blob: str, new_is_left: bool, answer: Answer,
                  voter: str, request_id: str, response_ms: int | None = None) -> Trial:
        """Append an answer; a later one of the same voter on the same images replaces it in `trials`. A repeated `request_id`
        gives the first answer.

        Raises:
            BadInputError: The answer is unknown, or both images are the same.
        """
        if answer not in get_args(Answer):
            raise BadInputError(f"an answer is one of {', '.join(get_args(Answer))}; got {answer!r}")
        if old_blob == new_blob:
            raise BadInputError("both versions made the same image; there is nothing to compare")
        with self.write() as db:
            if (known := self._trial_by_request(request_id)) is not None:
                return known
            adapter = self.adapter(adapter_id)
            self.need_blobs(label_map_blob, old_blob, new_blob)
            db.table("trials").insert({
                "project_id": adapter.project_id, "request_id": request_id, "adapter_id": adapter_id,
                "label_map_blob": label_map_blob, "old_blob": old_blob, "new_blob": new_blob, "new_is_left": int(new_is_left),
                "answer": answer, "voter": voter, "response_ms": response_ms, "created_at": now()})
            audit.append(db, actor=voter, action="trial", subject=f"adapter:{adapter_id}", details={"answer": answer})
        trial = self._trial_by_request(request_id)
        assert trial is not None, "an answer just stored is there"
        return trial

    def trials(self, project_id: int, *, adapter_id: int | None = None, voter: str | None = None) -> list[Trial]:
        """Answers in force: each voter's last one on each pair of images; oldest first."""
        found = self.db.query(
            "SELECT * FROM trials WHERE id IN (SELECT max(id) FROM trials WHERE project_id = :p "
            "AND (:a IS NULL OR adapter_id = :a) AND (:v IS NULL OR voter = :v) "
            "GROUP BY adapter_id, voter, label_map_blob, old_blob, new_blob) ORDER BY id",
            {"p": project_id, "a": adapter_id, "v": voter})
        return [_trial(row) for row in found]

    def adapter_decisions(self, project_id: int) -> list[AuditRow]:
        """Who accepted, turned down or rolled back a version of this project, and why; oldest first."""
        found = self.db.query(
            "SELECT * FROM audit WHERE (action = 'adapter.accept' AND json_extract(details, '$.project') = :p) OR (action = "
            "'adapter.reject' AND subject IN (SELECT 'adapter:' || id FROM adapters WHERE project_id = :p)) ORDER BY seq",
            {"p": project_id})
        return [AuditRow(seq=row["seq"], created_at=row["created_at"], actor=row["actor"], action=row["action"],
                         subject=row["subject"], details=json.loads(row["details"]), hash=row["hash"]) for row in found]

    def _trial_by_request(self, request_id: str) -> Trial | None:
        for row in self.db.query("SELECT * FROM trials WHERE request_id = ?", [request_id]):
            return _trial(row)
        return None


def _trial(row: dict[str, Any]) -> Trial:
    kept = {key: value for key, value in row.items() if key not in ("request_id", "new_is_left")}
    return Trial(**kept, new_is_left=bool(row["new_is_left"]))
