"""Votes and thumbs (append-only), frozen pair sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, get_args

from saadi.errors import BadInputError, NotFoundError
from saadi.records import (
    Answer,
    Pair,
    PairSet,
    Reason,
    ScoredSample,
    Single,
    Thumb,
    ThumbValue,
    UsableSample,
    Vote,
    VoteKind,
)
from saadi.store import audit
from saadi.store.candidates import CandidateStore
from saadi.store.connection import dump, now

IN_FORCE = "is_undo = 0 AND id NOT IN (SELECT supersedes FROM votes WHERE supersedes IS NOT NULL)"
"""Not undone, not replaced by a newer one of the same kind."""
SAME_KIND: dict[VoteKind, tuple[VoteKind, VoteKind]] = {
    "fresh": ("fresh", "shared"), "shared": ("fresh", "shared"), "repeat": ("repeat", "repeat"), "ruling": ("ruling", "ruling")}
"""What a vote replaces: a repeat stands beside the vote that it repeats, a ruling beside the lead's own blind vote."""
NO_PART = ("(s.source_blob IS NULL OR json_extract(s.settings, '$.inpaint.is_whole')) "
           "AND json_extract(s.settings, '$.references') IS NULL")
"""All of it was made, or all that its mask names (the opposite of `saadi.inpainting.is_part`); and not like a reference, which no
alignment is told of: it would learn one image's looks for all."""


class PreferenceStore(CandidateStore):
    """The part of the store that holds what people prefer and what was made of it."""

    def add_vote(self, project_id: int, *, left_id: int, right_id: int, answer: Answer, voter: str, request_id: str,
                 response_ms: int | None = None, reasons: Sequence[Reason] = (), kind: VoteKind = "fresh",
                 block: str | None = None) -> Vote:
        """Append a vote; it supersedes the voter's earlier one on this pair. A repeated `request_id` gives the first answer.

        A 'repeat' supersedes an earlier repeat only, and a 'ruling' an earlier ruling: the blind vote stays what it was.

        Raises:
            BadInputError: The two samples were not made for the same label map; the answer or a reason is unknown; a 'repeat'
                repeats nothing with its sides swapped; a 'ruling' where nobody has voted, or as a skip.
        """
        if answer not in get_args(Answer):
            raise BadInputError(f"a vote is one of {', '.join(get_args(Answer))}; got {answer!r}")
        if kind not in get_args(VoteKind):
            raise BadInputError(f"the kind of a vote is one of {', '.join(get_args(VoteKind))}; got {kind!r}")
        if (odd := set(reasons) - set(get_args(Reason))) or len(set(reasons)) < len(reasons):
            raise BadInputError(f"reasons are among {', '.join(get_args(Reason))}, each once; got {', '.join(odd or reasons)}")
        if left_id == right_id:
            raise BadInputError(f"a vote compares two samples; got sample {left_id} twice")
        with self.write() as db:
            if (known := self._vote_by_request(request_id)) is not None:
                return known
            left, right = self.sample(left_id), self.sample(right_id)
            if left.label_map_blob != right.label_map_blob or left.project_id != project_id or right.project_id != project_id:
                raise BadInputError(f"samples {left_id} and {right_id} belong to different label maps; "
                                    "only images of one mask compare")
            if left.source_blob != right.source_blob and None not in (left.source_blob, right.source_blob):
                raise BadInputError(f"samples {left_id} and {right_id} are painted into different pictures; "
                                    "only images that differ in what the mask names compare")
            self._check_kind(project_id, left_id, right_id, answer=answer, voter=voter, kind=kind)
            earlier = self._vote_on(project_id, left_id, right_id, voter=voter, kinds=SAME_KIND[kind])
            self._append_vote(project_id, left_id=left_id, right_id=right_id, label_map_blob=left.label_map_blob, answer=answer,
                              voter=voter, request_id=request_id, response_ms=response_ms, reasons=dump(list(reasons)), kind=kind,
                              block=block, supersedes=earlier.id if earlier else None, is_undo=0)
            details = {"answer": answer, "kind": kind, "reasons": list(reasons)}
            audit.append(db, actor=voter, action="vote", subject=f"samples:{left_id},{right_id}", details=details)
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
                              label_map_blob=vote.label_map_blob, request_id=request_id, response_ms=None, kind=vote.kind,
                              block=vote.block, supersedes=vote_id, is_undo=1)
            audit.append(db, actor=voter, action="vote.undo", subject=f"vote:{vote_id}")
        return self._need_vote(request_id)

    def vote(self, vote_id: int) -> Vote:
        for row in self.db.query("SELECT * FROM votes WHERE id = ?", [vote_id]):
            return _vote(row)
        raise NotFoundError(f"no vote {vote_id}; reload the page")

    def votes(self, project_id: int, *, voter: str | None = None, with_repeats: bool = False) -> list[Vote]:
        """Votes in force: not undone, not superseded; oldest first. Repeats measure the reviewer; they come when asked for."""
        found = self.db.query(f"SELECT * FROM votes WHERE project_id = ? AND {IN_FORCE} AND (? IS NULL OR voter = ?) "
                              "AND (? OR kind <> 'repeat') ORDER BY id", [project_id, voter, voter, with_repeats])
        return [_vote(row) for row in found]

    def count_votes(self, project_id: int, *, voter: str | None = None) -> int:
        """How many `votes` there are, repeats left out."""
        return int(self.db.execute(f"SELECT count(*) FROM votes WHERE project_id = ? AND {IN_FORCE} AND "
                                   "(? IS NULL OR voter = ?) AND kind <> 'repeat'", [project_id, voter, voter]).fetchone()[0])

    def repeats(self, project_id: int, *, voter: str | None = None) -> list[tuple[Vote, Vote]]:
        """(repeat, the same voter's blind vote on this pair), both in force; oldest first."""
        return _repeats(self.votes(project_id, voter=voter, with_repeats=True))

    def votes_and_repeats(self, project_id: int) -> tuple[list[Vote], list[tuple[Vote, Vote]]]:
        """`votes` and `repeats` of everybody in one reading."""
        everything = self.votes(project_id, with_repeats=True)
        return [vote for vote in everything if vote.kind != "repeat"], _repeats(everything)

    def scored_samples(self, project_id: int) -> list[ScoredSample]:
        """Images of the present generator with the active selector's score, oldest first; none in quarantine, and none of which
        only a part was made: it would be compared with another picture's surroundings (`saadi.inpainting.is_part`).

        One query that leaves the scores' details unread: reading all of them took half of the time to the next pair.
        """
        found = self.db.execute(
            "SELECT s.id AS sample_id, s.label_map_id, s.label_map_blob, s.blob, scores.dice, scores.confidence, "
            "scores.per_class, s.source_blob FROM samples AS s "
            "JOIN models AS engine ON engine.id = s.model_id AND engine.kind = 'engine' AND engine.is_active = 1 "
            "JOIN scores ON scores.sample_id = s.id "
            "JOIN models AS selector ON selector.id = scores.model_id AND selector.kind = 'selector' AND selector.is_active = 1 "
            f"WHERE s.project_id = ? AND s.curation <> 'quarantined' AND {NO_PART} ORDER BY s.id", [project_id])
        return [ScoredSample(*row) for row in found]

    def usable_samples(self, project_id: int) -> list[UsableSample]:
        """Images of the present generator, scored or not, oldest first; none in quarantine, and none of which only a part was
        made."""
        found = self.db.execute(
            "SELECT s.id, s.label_map_id, s.label_map_blob, s.blob FROM samples AS s JOIN models AS engine ON "
            "engine.id = s.model_id AND engine.kind = 'engine' AND engine.is_active = 1 "
            f"WHERE s.project_id = ? AND s.curation <> 'quarantined' AND {NO_PART} ORDER BY s.id", [project_id])
        return [UsableSample(*row) for row in found]

    def add_thumb(self, project_id: int, *, sample_id: int, value: ThumbValue, voter: str, request_id: str) -> Thumb:
        """Append a verdict on one image; the newest of a voter counts. A repeated `request_id` gives the first answer.

        Raises:
            BadInputError: The value is unknown, or the sample belongs to another project.
        """
        if value not in get_args(ThumbValue):
            raise BadInputError(f"a thumb is one of {', '.join(get_args(ThumbValue))}; got {value!r}")
        with self.write() as db:
            if not (known := self._thumbs("request_id = ?", [request_id])):
                if self.sample(sample_id).project_id != project_id:
                    raise BadInputError(f"sample {sample_id} belongs to another project; reload the page")
                db.table("thumbs").insert({"project_id": project_id, "request_id": request_id, "sample_id": sample_id,
                                           "value": value, "voter": voter, "created_at": now()})
                audit.append(db, actor=voter, action="thumb", subject=f"sample:{sample_id}", details={"value": value})
                known = self._thumbs("request_id = ?", [request_id])
        return known[0]

    def thumbs(self, project_id: int, *, sample_id: int | None = None) -> list[Thumb]:
        """The newest of each voter and sample; those taken back are left out; oldest first."""
        of_one, values = ("", []) if sample_id is None else ("AND sample_id = ? ", [sample_id])
        return self._thumbs(f"project_id = ? {of_one}AND value <> 'none' AND NOT EXISTS (SELECT 1 FROM thumbs AS newer WHERE "
                            "newer.sample_id = thumbs.sample_id AND newer.voter = thumbs.voter AND newer.id > thumbs.id) "
                            "ORDER BY id", [project_id, *values])

    def freeze_pairs(self, project_id: int, pairs: Sequence[Pair], summary: dict[str, Any], *, actor: str,
                     singles: Sequence[Single] = ()) -> PairSet:
        """Store a list of pairs, and of single images, under its hash; the same lists give the same set again."""
        text, alone = dump([asdict(pair) for pair in pairs]), dump([asdict(single) for single in singles])
        # Without single images the hash is that of the pairs, as it was before there were any.
        sha256 = hashlib.sha256((f"{text}\n{alone}" if singles else text).encode()).hexdigest()
        with self.write() as db:
            if not db.execute("SELECT 1 FROM pair_sets WHERE project_id = ? AND sha256 = ?", [project_id, sha256]).fetchone():
                db.table("pair_sets").insert({"project_id": project_id, "sha256": sha256, "pairs": text, "singles": alone,
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

    def _vote_on(self, project_id: int, left_id: int, right_id: int, *, voter: str | None,
                 kinds: tuple[VoteKind, VoteKind]) -> Vote | None:
        """The newest vote in force on a pair, sides in any order; straight to it: reading all votes took 64 ms at 8,000."""
        found = self.db.query(
            "SELECT * FROM votes AS v WHERE project_id = :p AND (:v IS NULL OR voter = :v) AND is_undo = 0 "
            "AND kind IN (:k, :l) AND ((left_id = :a AND right_id = :b) OR (left_id = :b AND right_id = :a)) "
            "AND NOT EXISTS (SELECT 1 FROM votes WHERE supersedes = v.id) ORDER BY id DESC LIMIT 1",
            {"p": project_id, "v": voter, "a": left_id, "b": right_id, "k": kinds[0], "l": kinds[1]})
        return next((_vote(row) for row in found), None)

    def _check_kind(self, project_id: int, left_id: int, right_id: int, *, answer: Answer, voter: str, kind: VoteKind) -> None:
        if kind == "repeat":
            first = self._vote_on(project_id, left_id, right_id, voter=voter, kinds=SAME_KIND["fresh"])
            if first is None or first.left_id != right_id:
                raise BadInputError(f"a repeat shows a pair again with its sides swapped; there is no such vote of yours on "
                                    f"samples {left_id} and {right_id}, so send it as a fresh one")
        if kind == "ruling":
            if answer == "skip":
                raise BadInputError("a ruling says left, right, both good or both bad; leave the pair in the queue to skip it")
            if self._vote_on(project_id, left_id, right_id, voter=None, kinds=SAME_KIND["fresh"]) is None:
                raise BadInputError(f"nobody has voted on samples {left_id} and {right_id}; there is nothing to rule on")

    def _thumbs(self, where: str, values: list[Any]) -> list[Thumb]:
        found = self.db.query(f"SELECT id, project_id, sample_id, value, voter, created_at FROM thumbs WHERE {where}", values)
        return [Thumb(**row) for row in found]

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


def _repeats(votes: list[Vote]) -> list[tuple[Vote, Vote]]:
    blind = {(vote.voter, vote.pair): vote for vote in votes if vote.kind in SAME_KIND["fresh"]}
    return [(vote, blind[vote.voter, vote.pair]) for vote in votes if vote.kind == "repeat" and (vote.voter, vote.pair) in blind]


def _vote(row: dict[str, Any]) -> Vote:
    kept = {key: value for key, value in row.items() if key not in ("request_id", "is_undo", "reasons")}
    return Vote(**kept, is_undo=bool(row["is_undo"]), reasons=tuple(json.loads(row["reasons"])))


def _pair_set(row: dict[str, Any]) -> PairSet:
    pairs = tuple(Pair(**item) for item in json.loads(row["pairs"]))
    singles = tuple(Single(**item) for item in json.loads(row["singles"]))
    return PairSet(**(row | {"pairs": pairs, "singles": singles, "summary": json.loads(row["summary"])}))
