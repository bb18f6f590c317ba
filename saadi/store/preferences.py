"""Votes (append-only), frozen pair sets, exports."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, get_args

from saadi.errors import BadInputError, NotFoundError
from saadi.records import Answer, ExportRecord, Pair, PairSet, Vote
from saadi.store import audit
from saadi.store.candidates import CandidateStore
from saadi.store.connection import dump, new_id, now


class PreferenceStore(CandidateStore):
    """The part of the store that holds what people prefer and what was made of it."""

    def add_vote(self, project_id: int, *, left_id: int, right_id: int, answer: Answer, voter: str, request_id: str,
                 response_ms: int | None = None) -> Vote:
        """Append a vote; it supersedes the voter's earlier one on this pair. A repeated `request_id` gives the first answer.

        Raises:
            BadInputError: The two samples were not made for the same label map, or the answer is unknown.
        """
        if answer not in get_args(Answer):
            raise BadInputError(f"a vote is one of {', '.join(get_args(Answer))}; got {answer!r}")
        if left_id == right_id:
            raise BadInputError(f"a vote compares two samples; got sample {left_id} twice")
        with self.write() as db:
            if (known := self._vote_by_request(request_id)) is not None:
                return known
            left, right = self.sample(left_id), self.sample(right_id)
            if left.label_map_blob != right.label_map_blob or left.project_id != project_id or right.project_id != project_id:
                raise BadInputError(f"samples {left_id} and {right_id} belong to different label maps; "
                                    "only images of one mask compare")
            # Straight to the pair: reading all votes for each vote took 64 ms at 8,000 votes.
            earlier = db.execute("SELECT id FROM votes AS v WHERE project_id = :p AND voter = :v AND is_undo = 0 AND "
                                 "((left_id = :a AND right_id = :b) OR (left_id = :b AND right_id = :a)) AND NOT EXISTS "
                                 "(SELECT 1 FROM votes WHERE supersedes = v.id)",
                                 {"p": project_id, "v": voter, "a": left_id, "b": right_id}).fetchone()
            self._append_vote(project_id, left_id=left_id, right_id=right_id, label_map_blob=left.label_map_blob, answer=answer,
                              voter=voter, request_id=request_id, response_ms=response_ms,
                              supersedes=earlier[0] if earlier else None, is_undo=0)
            audit.append(db, actor=voter, action="vote", subject=f"samples:{left_id},{right_id}", details={"answer": answer})
        return self._need_vote(request_id)

    def undo_vote(self, vote_id: int, *, voter: str, request_id: str) -> Vote:
        """Take a vote back with a row that supersedes it; the vote itself stays in the table.

        Raises:
            BadInputError: It is somebody else's vote, an undo itself, or it was superseded already.
        """
        with self.write() as db:
            if (known := self._vote_by_request(request_id)) is not None:
                return known
            vote = self.vote(vote_id)
            if vote.voter != voter:
                raise BadInputError(f"vote {vote_id} belongs to another reviewer; only they can take it back")
            if vote.is_undo or db.execute("SELECT 1 FROM votes WHERE supersedes = ?", [vote_id]).fetchone():
                raise BadInputError(f"vote {vote_id} was replaced already; there is nothing to undo")
            self._append_vote(vote.project_id, left_id=vote.left_id, right_id=vote.right_id, answer=vote.answer, voter=voter,
                              label_map_blob=vote.label_map_blob, request_id=request_id, response_ms=None,
                              supersedes=vote_id, is_undo=1)
            audit.append(db, actor=voter, action="vote.undo", subject=f"vote:{vote_id}")
        return self._need_vote(request_id)

    def vote(self, vote_id: int) -> Vote:
        for row in self.db.query("SELECT * FROM votes WHERE id = ?", [vote_id]):
            return _vote(row)
        raise NotFoundError(f"no vote {vote_id}; reload the page")

    def votes(self, project_id: int, *, voter: str | None = None) -> list[Vote]:
        """Votes in force: not undone, not superseded; oldest first."""
        found = self.db.query("SELECT * FROM votes WHERE project_id = ? AND is_undo = 0 AND (? IS NULL OR voter = ?) "
                              "AND id NOT IN (SELECT supersedes FROM votes WHERE supersedes IS NOT NULL) ORDER BY id",
                              [project_id, voter, voter])
        return [_vote(row) for row in found]

    def freeze_pairs(self, project_id: int, pairs: Sequence[Pair], summary: dict[str, Any], *, actor: str) -> PairSet:
        """Store a list of pairs under its hash; the same list gives the same set again."""
        text = dump([asdict(pair) for pair in pairs])
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        with self.write() as db:
            if not db.execute("SELECT 1 FROM pair_sets WHERE project_id = ? AND sha256 = ?", [project_id, sha256]).fetchone():
                db.table("pair_sets").insert({"project_id": project_id, "sha256": sha256, "pairs": text,
                                              "summary": dump(summary), "created_at": now()})
                audit.append(db, actor=actor, action="pairs.freeze", subject=f"pairs:{sha256[:12]}", details=summary)
        return next(item for item in self.pair_sets(project_id) if item.sha256 == sha256)

    def pair_sets(self, project_id: int) -> list[PairSet]:
        """Oldest first."""
        return [_pair_set(row) for row in self.db.query("SELECT * FROM pair_sets WHERE project_id = ? ORDER BY id", [project_id])]

    def pair_set(self, pair_set_id: int) -> PairSet:
        for row in self.db.query("SELECT * FROM pair_sets WHERE id = ?", [pair_set_id]):
            return _pair_set(row)
        raise NotFoundError(f"no pair set {pair_set_id}; build the pairs again")

    def add_export(self, project_id: int, *, format: str, path: str, manifest_sha256: str, num_items: int, actor: str,
                   job_id: int | None = None) -> ExportRecord:
        """Write down a finished export. One per job: a repeat gives the first."""
        with self.write() as db:
            known = db.execute("SELECT id FROM exports WHERE job_id = ?", [job_id]).fetchone()
            if known is None:
                known = [new_id(db.table("exports").insert({
                    "project_id": project_id, "format": format, "path": path, "manifest_sha256": manifest_sha256,
                    "num_items": num_items, "job_id": job_id, "created_at": now()}))]
                audit.append(db, actor=actor, action="export", subject=f"project:{project_id}",
                             details={"format": format, "num_items": num_items, "manifest": manifest_sha256})
        return next(export for export in self.exports(project_id) if export.id == known[0])

    def exports(self, project_id: int) -> list[ExportRecord]:
        """Oldest first."""
        found = self.db.query("SELECT id, project_id, format, path, manifest_sha256, num_items, created_at FROM exports "
                              "WHERE project_id = ? ORDER BY id", [project_id])
        return [ExportRecord(**row) for row in found]

    def _append_vote(self, project_id: int, **columns: Any) -> None:
        self.db.table("votes").insert({"project_id": project_id, "created_at": now(), **columns})

    def _vote_by_request(self, request_id: str) -> Vote | None:
        for row in self.db.query("SELECT * FROM votes WHERE request_id = ?", [request_id]):
            return _vote(row)
        return None

    def _need_vote(self, request_id: str) -> Vote:
        vote = self._vote_by_request(request_id)
        assert vote is not None, "a vote just stored is there"
        return vote


def _vote(row: dict[str, Any]) -> Vote:
    kept = {key: value for key, value in row.items() if key not in ("request_id", "is_undo", "reasons")}
    return Vote(**kept, is_undo=bool(row["is_undo"]), reasons=tuple(json.loads(row["reasons"])))


def _pair_set(row: dict[str, Any]) -> PairSet:
    pairs = tuple(Pair(**item) for item in json.loads(row["pairs"]))
    return PairSet(**(row | {"pairs": pairs, "summary": json.loads(row["summary"])}))
