"""Thumbs, 'both good' and 'both bad' as single labels: who counts, what is disputed, what may not train."""

from __future__ import annotations

import pytest

from saadi import pairing
from saadi.agreement import LEAST_WEIGHT
from saadi.alignment import plan
from saadi.records import Answer, Project, Sample, Thumb, ThumbValue
from saadi.singles import Verdict, verdicts
from saadi.store import Store
from tests import builders
from tests.alignment.test_plan import Pool
from tests.test_preferences import vote


def thumb(sample_id: int, value: ThumbValue, voter: str = "ann") -> Thumb:
    return Thumb(0, 1, sample_id, value, voter, "")


def test_both_good_and_both_bad_are_verdicts_on_both_images_and_preferences_are_none():
    found, disputed = verdicts([vote(1, 2, "both_bad"), vote(3, 4, "both_good"), vote(5, 6, "left")], [], {})
    assert found == {number: Verdict(number > 2, "people", 1, 1.0) for number in (1, 2, 3, 4)} and disputed == set()


def test_a_thumb_stands_above_ones_own_verdict_on_a_pair_and_not_above_others():
    own, disputed = verdicts([vote(1, 2, "both_bad")], [thumb(1, "up")], {})
    assert (own[1].is_liked, own[2].is_liked, disputed) == (True, False, set())
    found, disputed = verdicts([vote(1, 2, "both_bad")], [thumb(1, "up", "bob")], {})
    assert disputed == {1} and set(found) == {2}


def test_who_says_both_in_two_pairs_says_nothing():
    found, disputed = verdicts([vote(1, 2, "both_bad"), vote(1, 3, "both_good")], [], {})
    assert disputed == {1} and {number: one.is_liked for number, one in found.items()} == {2: False, 3: True}


def test_a_ruling_settles_what_people_dispute():
    votes = [vote(1, 2, "both_bad"), vote(1, 2, "both_good", voter="bob"), vote(1, 2, "both_bad", voter="lead", kind="ruling")]
    found, disputed = verdicts(votes, [thumb(1, "up")], {"ann": 0.2})
    assert disputed == set() and found[1] == found[2] == Verdict(False, "ruling", 1, 1.0)
    # A ruling that names a winner takes the votes on the pair back, and says nothing of an image by itself.
    assert verdicts([*votes[:2], vote(1, 2, "left", voter="lead", kind="ruling")], [], {}) == ({}, set())


def test_people_weigh_together_as_much_as_they_are_reliable_and_one_at_most():
    weights = {"ann": LEAST_WEIGHT, "bob": 0.3}
    assert verdicts([], [thumb(1, "down")], weights)[0][1].weight == 0.2
    assert verdicts([], [thumb(1, "down"), thumb(1, "down", "bob")], weights)[0][1] == Verdict(False, "people", 2, 0.5)
    assert verdicts([], [thumb(1, "up"), thumb(1, "up", "bob"), thumb(1, "up", "eve")], weights)[0][1].weight == 1.0


@pytest.fixture
def pool(store: Store, project: Project) -> Pool:
    return Pool(store, project)


def judge(pool: Pool, sample: Sample, value: ThumbValue, voter: str = "ann") -> None:
    pool.store.add_thumb(pool.project.id, sample_id=sample.id, value=value, voter=voter, request_id=builders.new_request())


def cast(pool: Pool, left: Sample, right: Sample, answer: Answer) -> None:
    pool.store.add_vote(pool.project.id, left_id=left.id, right_id=right.id, answer=answer, voter="ann",
                        request_id=builders.new_request())  # fmt: skip


def singles(pool: Pool) -> list[tuple[str, bool, str]]:
    found = pairing.build_pairs(pool.store, pool.project.id, actor="t")
    return [(single.blob, single.is_liked, single.source) for single in found.singles]


def test_the_newest_thumb_counts_and_one_taken_back_does_not(pool: Pool) -> None:
    first, second = pool.samples(pool.label_map(), 0.9, 0.4)
    judge(pool, first, "down")
    judge(pool, first, "up")
    judge(pool, second, "up")
    judge(pool, second, "none")
    assert singles(pool) == [(first.blob, True, "people")]


def test_what_may_not_train_in_pairs_does_not_train_alone(pool: Pool) -> None:
    usable = pool.samples(pool.label_map(), 0.9, 0.4)
    hidden = pool.samples(pool.label_map(), 0.9, 0.4)
    test_patient = pool.samples(pool.label_map(split="test"), 0.9, 0.4)
    pool.part_of(usable[0], 0.5)
    part = pool.store.samples(pool.project.id)[-1]
    assert part.source_blob is not None
    unscored = pool.samples(usable and pool.store.label_map(usable[0].label_map_id), None)
    for sample in (*usable, *hidden, *test_patient, part, *unscored):
        judge(pool, sample, "up")
    pool.store.curate([sample.id for sample in hidden], "quarantined", actor="ann")
    # An image that no scorer has seen may train: people have.
    assert [blob for blob, *_ in singles(pool)] == [sample.blob for sample in (*usable, *unscored)]
    builders.add_engine(pool.store, pool.project, content=b"fitted anew")
    now = pool.samples(pool.label_map(), 0.9, 0.4)
    judge(pool, now[0], "up")
    assert singles(pool) == [(now[0].blob, True, "people")]


def test_real_images_stand_for_liked_ones_where_more_are_disliked(pool: Pool) -> None:
    reals = [pool.label_map(split="train") for _ in range(4)]
    images = {pool.store.image(record.image_id).blob for record in reals}
    samples = pool.samples(pool.label_map(), 0.9, 0.8, 0.7, 0.4)
    cast(pool, samples[0], samples[1], "both_bad")
    judge(pool, samples[2], "down")
    judge(pool, samples[3], "up")
    found = singles(pool)
    assert [is_liked for _, is_liked, _ in found] == [False, False, False, True, True, True]
    stand_ins = [blob for blob, _, source in found if source == "real"]
    assert len(set(stand_ins)) == 2 and set(stand_ins) <= images and found == singles(pool)
    told = plan.plan(pool.store, pool.project)["singles"]
    assert told == {"liked": 1, "disliked": 3, "real": 2, "disputed": 0}


def test_a_disputed_image_is_counted_and_left_out(pool: Pool) -> None:
    first, _ = pool.samples(pool.label_map(), 0.9, 0.4)
    judge(pool, first, "up")
    judge(pool, first, "down", "bob")
    assert singles(pool) == [] and plan.plan(pool.store, pool.project)["singles"]["disputed"] == 1


def test_single_images_change_the_hash_and_their_absence_does_not(pool: Pool) -> None:
    first, _ = pool.samples(pool.label_map(), 0.9, 0.4)
    before = pairing.build_pairs(pool.store, pool.project.id, actor="t")
    judge(pool, first, "up")
    after = pairing.build_pairs(pool.store, pool.project.id, actor="t")
    assert after.pairs == before.pairs and after.sha256 != before.sha256 and before.singles == ()
    assert pool.store.pair_set(after.id) == after == pairing.build_pairs(pool.store, pool.project.id, actor="t")
    judge(pool, first, "none")
    assert pairing.build_pairs(pool.store, pool.project.id, actor="t") == before
