"""Votes are append-only: the newest counts, an undo is a row, nothing is ever changed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict

import pytest
from sqlite_utils.utils import sqlite3

from saadi.config import Home
from saadi.errors import BadInputError, NotFoundError
from saadi.records import Answer, Pair, Project, Reason, Sample, Single, Thumb, ThumbValue, Vote, VoteKind
from saadi.store import Store
from saadi.store.connection import connect, dump
from saadi.store.migrations import schema
from tests.builders import add_label_map, add_samples, count, new_request


@pytest.fixture
def samples(store: Store, project: Project) -> list[Sample]:
    return add_samples(store, project, count=3)


def vote(store: Store, project: Project, left: Sample, right: Sample, answer: Answer = "left", *, voter: str = "ann",
         request_id: str | None = None, kind: VoteKind = "fresh", reasons: Sequence[Reason] = (),
         block: str | None = None) -> Vote:
    return store.add_vote(project.id, left_id=left.id, right_id=right.id, answer=answer, voter=voter,
                          request_id=request_id or new_request(), kind=kind, reasons=reasons, block=block)


def test_a_second_vote_on_a_pair_supersedes_the_first_also_with_sides_changed(store: Store, project: Project,
                                                                              samples: list[Sample]) -> None:
    first = vote(store, project, samples[0], samples[1], "left")
    second = vote(store, project, samples[1], samples[0], "left")
    assert second.supersedes == first.id
    assert store.votes(project.id) == [second]
    assert count(store, "votes") == 2


def test_votes_of_others_stand_beside(store: Store, project: Project, samples: list[Sample]) -> None:
    vote(store, project, samples[0], samples[1], voter="ann")
    vote(store, project, samples[0], samples[1], "right", voter="bob")
    vote(store, project, samples[0], samples[2], voter="ann")
    assert [(item.voter, item.answer) for item in store.votes(project.id)] == [("ann", "left"), ("bob", "right"), ("ann", "left")]
    assert len(store.votes(project.id, voter="ann")) == 2


def test_a_resent_vote_counts_once(store: Store, project: Project, samples: list[Sample]) -> None:
    first, second = (vote(store, project, samples[0], samples[1], request_id="r") for _ in range(2))
    assert first == second
    assert count(store, "votes") == count(store, "audit", "action = 'vote'") == 1


def test_an_undone_vote_counts_no_more_and_stays(store: Store, project: Project, samples: list[Sample]) -> None:
    given = vote(store, project, samples[0], samples[1])
    undo = store.undo_vote(given.id, voter="ann", request_id="u")
    assert store.undo_vote(given.id, voter="ann", request_id="u") == undo
    assert store.votes(project.id) == []
    assert count(store, "votes") == 2


def test_undoing_a_replacement_brings_nothing_back(store: Store, project: Project, samples: list[Sample]) -> None:
    vote(store, project, samples[0], samples[1], "left")
    second = vote(store, project, samples[0], samples[1], "right")
    store.undo_vote(second.id, voter="ann", request_id=new_request())
    assert store.votes(project.id) == []


def test_a_pair_can_be_voted_on_again_after_an_undo(store: Store, project: Project, samples: list[Sample]) -> None:
    given = vote(store, project, samples[0], samples[1])
    store.undo_vote(given.id, voter="ann", request_id=new_request())
    again = vote(store, project, samples[0], samples[1], "right")
    assert store.votes(project.id) == [again]


def test_only_a_standing_vote_of_ones_own_is_undone(store: Store, project: Project, samples: list[Sample]) -> None:
    given = vote(store, project, samples[0], samples[1])
    with pytest.raises(BadInputError, match="another reviewer"):
        store.undo_vote(given.id, voter="bob", request_id=new_request())
    undo = store.undo_vote(given.id, voter="ann", request_id=new_request())
    for ended in (given, undo):
        with pytest.raises(BadInputError, match="nothing to undo"):
            store.undo_vote(ended.id, voter="ann", request_id=new_request())
    with pytest.raises(NotFoundError):
        store.undo_vote(99, voter="ann", request_id=new_request())


def test_votes_are_append_only_even_in_sql(store: Store, project: Project, samples: list[Sample]) -> None:
    given = vote(store, project, samples[0], samples[1])
    columns = ("project_id, request_id, left_id, right_id, label_map_blob, 'right', voter, response_ms, supersedes, "
               "is_undo, created_at, reasons, kind, block")
    for statement in ("UPDATE votes SET answer = 'right'", "DELETE FROM votes",
                      f"INSERT OR REPLACE INTO votes SELECT id, {columns} FROM votes"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            store.db.execute(statement)
    assert store.vote(given.id) == given


@pytest.mark.parametrize("answer", ["LEFT", "", "maybe"])
def test_an_unknown_answer_is_refused(store: Store, project: Project, samples: list[Sample], answer: Answer) -> None:
    with pytest.raises(BadInputError, match="a vote is one of left, right"):
        vote(store, project, samples[0], samples[1], answer)


def test_only_two_images_of_one_mask_compare(store: Store, project: Project, samples: list[Sample]) -> None:
    other = add_samples(store, project, count=1, label_map=add_label_map(store, project, value=2))[0]
    with pytest.raises(BadInputError, match="different label maps"):
        vote(store, project, samples[0], other)
    with pytest.raises(BadInputError, match="twice"):
        vote(store, project, samples[0], samples[0])
    assert count(store, "votes") == 0


def test_the_same_pairs_are_one_frozen_set(store: Store, project: Project) -> None:
    pairs = [Pair("0" * 64, "1" * 64, "2" * 64, "score", 1.0, 0.25)]
    first = store.freeze_pairs(project.id, pairs, {"num": 1}, actor="ann")
    assert store.freeze_pairs(project.id, pairs, {"num": 1}, actor="ann") == first
    assert store.pair_set(first.id).pairs == tuple(pairs)


def test_an_export_is_written_down_once_per_job(store: Store, project: Project) -> None:
    first = store.add_export(project.id, format="nnunet", path="a", manifest_sha256="0", num_items=3, actor="ann", job_id=1)
    store.add_export(project.id, format="nnunet", path="b", manifest_sha256="1", num_items=4, actor="ann")
    again = store.add_export(project.id, format="nnunet", path="c", manifest_sha256="2", num_items=5, actor="ann", job_id=1)
    assert again == first
    assert [item.path for item in store.exports(project.id)] == ["a", "b"]


def test_reasons_kind_and_block_are_kept(store: Store, project: Project, samples: list[Sample]) -> None:
    vote(store, project, samples[0], samples[1], reasons=("light", "anatomy"), kind="shared", block="block-01")
    kept = store.votes(project.id)[0]
    assert (kept.reasons, kept.kind, kept.block) == (("light", "anatomy"), "shared", "block-01")


@pytest.mark.parametrize("reasons", [("beauty",), ("light", "light")])
def test_an_unknown_or_doubled_reason_is_refused(store: Store, project: Project, samples: list[Sample],
                                                 reasons: tuple[Reason, ...]) -> None:
    with pytest.raises(BadInputError, match="each once"):
        vote(store, project, samples[0], samples[1], reasons=reasons)


def test_a_repeat_stands_beside_the_vote_it_repeats(store: Store, project: Project, samples: list[Sample]) -> None:
    first = vote(store, project, samples[0], samples[1], "left")
    repeat = vote(store, project, samples[1], samples[0], "left", kind="repeat")
    assert repeat.supersedes is None and store.votes(project.id) == [first]
    assert store.votes(project.id, with_repeats=True) == [first, repeat]
    assert store.repeats(project.id) == store.repeats(project.id, voter="ann") == [(repeat, first)]
    assert store.repeats(project.id, voter="bob") == []


def test_a_repeat_belongs_to_the_vote_in_force_and_is_undone_alone(store: Store, project: Project, samples: list[Sample]) -> None:
    vote(store, project, samples[0], samples[1], "left")
    repeat = vote(store, project, samples[1], samples[0], "left", kind="repeat")
    changed = vote(store, project, samples[0], samples[1], "right")
    assert store.repeats(project.id) == [(repeat, changed)]
    store.undo_vote(repeat.id, voter="ann", request_id=new_request())
    assert store.repeats(project.id) == [] and store.votes(project.id) == [changed]


def test_an_undone_vote_has_no_repeats(store: Store, project: Project, samples: list[Sample]) -> None:
    first = vote(store, project, samples[0], samples[1])
    vote(store, project, samples[1], samples[0], kind="repeat")
    store.undo_vote(first.id, voter="ann", request_id=new_request())
    assert store.repeats(project.id) == store.votes(project.id) == []


def test_a_claimed_repeat_must_repeat(store: Store, project: Project, samples: list[Sample]) -> None:
    vote(store, project, samples[0], samples[1], voter="ann")
    for left, right, voter in ((0, 1, "ann"), (1, 0, "bob"), (2, 0, "ann")):
        with pytest.raises(BadInputError, match="no such vote of yours"):
            vote(store, project, samples[left], samples[right], voter=voter, kind="repeat")
    assert count(store, "votes") == 1


def test_a_ruling_stands_beside_the_leads_own_vote(store: Store, project: Project, samples: list[Sample]) -> None:
    blind = vote(store, project, samples[0], samples[1], "left")
    first = vote(store, project, samples[0], samples[1], "right", kind="ruling")
    second = vote(store, project, samples[0], samples[1], "both_bad", kind="ruling")
    assert second.supersedes == first.id and store.votes(project.id) == [blind, second]
    store.undo_vote(second.id, voter="ann", request_id=new_request())
    assert store.votes(project.id) == [blind]


def test_a_ruling_needs_a_vote_and_an_answer(store: Store, project: Project, samples: list[Sample]) -> None:
    with pytest.raises(BadInputError, match="nobody has voted"):
        vote(store, project, samples[0], samples[1], kind="ruling")
    vote(store, project, samples[0], samples[1])
    with pytest.raises(BadInputError, match="leave the pair in the queue"):
        vote(store, project, samples[0], samples[1], "skip", kind="ruling")


def thumb(store: Store, sample: Sample, value: ThumbValue, *, voter: str = "ann", request_id: str | None = None) -> Thumb:
    return store.add_thumb(sample.project_id, sample_id=sample.id, value=value, voter=voter,
                           request_id=request_id or new_request())


def test_the_newest_thumb_of_a_voter_counts(store: Store, project: Project, samples: list[Sample]) -> None:
    thumb(store, samples[0], "up")
    thumb(store, samples[0], "up", voter="bob")
    thumb(store, samples[0], "down")
    assert [(item.voter, item.value) for item in store.thumbs(project.id)] == [("bob", "up"), ("ann", "down")]
    thumb(store, samples[0], "none")
    assert [item.voter for item in store.thumbs(project.id, sample_id=samples[0].id)] == ["bob"]
    assert store.thumbs(project.id, sample_id=samples[1].id) == [] and count(store, "thumbs") == 4


def test_a_resent_thumb_counts_once_and_is_in_the_trail(store: Store, project: Project, samples: list[Sample]) -> None:
    first, second = (thumb(store, samples[0], "up", request_id="r") for _ in range(2))
    assert first == second and count(store, "thumbs") == count(store, "audit", "action = 'thumb'") == 1
    with pytest.raises(BadInputError, match="one of up, down, none"):
        thumb(store, samples[0], "great")  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="another project"):
        store.add_thumb(99, sample_id=samples[0].id, value="up", voter="ann", request_id=new_request())


def test_pair_sets_from_before_there_were_single_images_keep_their_hash(home: Home) -> None:
    pairs = [Pair("m", "a", "b", "score", 0.5, 0.1)]
    text = dump([asdict(pair) for pair in pairs])
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    home.path.mkdir()
    db = connect(home.database)
    schema.apply(db, stop_before="m010_singles")
    db.execute("INSERT INTO projects (id, name, task, classes, resolution, created_at) VALUES "
               "(1, 'old', 'segmentation', '[]', 64, '2026-01-01')")
    db.execute("INSERT INTO pair_sets (project_id, sha256, pairs, summary, created_at) VALUES (1, ?, ?, '{}', '2026-01-01')",
               [sha256, text])
    db.conn.close()
    with Store.open(home) as store:
        [old] = store.pair_sets(1)
        assert (old.sha256, old.pairs, old.singles) == (sha256, tuple(pairs), ())
        assert store.freeze_pairs(1, pairs, {}, actor="ann") == old
        single = Single("m", "c", True, "people", 2, 1.0)
        both = store.freeze_pairs(1, pairs, {}, actor="ann", singles=[single])
        assert both.singles == (single,) and both.sha256 != sha256
