"""Who decided each pair, and why the others are left out."""

from __future__ import annotations

import time

import pytest

from saadi import pairing, settled
from saadi.errors import BadInputError
from saadi.records import Answer, Project, Sample, Score
from saadi.store import Store
from tests import builders
from tests.alignment.test_plan import Pool


@pytest.fixture
def pool(store: Store, project: Project) -> Pool:
    return Pool(store, project)


def vote(pool: Pool, left: Sample, right: Sample, answer: Answer, voter: str = "ann", **values) -> None:
    pool.store.add_vote(pool.project.id, left_id=left.id, right_id=right.id, answer=answer, voter=voter,
                        request_id=builders.new_request(), **values)  # fmt: skip


def page(pool: Pool, **values) -> dict:
    return settled.page(pool.store, pool.project, **values)


def test_each_pair_says_who_decided_it(pool: Pool) -> None:
    by_people = pool.samples(pool.label_map(), 0.70, 0.71)
    agreed = pool.samples(pool.label_map(), 0.9, 0.4)
    ruled = pool.samples(pool.label_map(), 0.9, 0.4)
    scored = pool.samples(pool.label_map(split="train"), 0.9, 0.4)
    for voter in ("ann", "bob"):
        vote(pool, *by_people, "left", voter)
    vote(pool, *agreed, "left")
    vote(pool, *ruled, "left")
    vote(pool, *ruled, "right", "bob")
    vote(pool, *ruled, "right", "lead", kind="ruling")
    found = page(pool, count=50)
    assert found["deciders"] == {"ruling": 1, "vote": 1, "agreed": 1, "score": 1, "real": 1} and found["reasons"] == {}
    assert [row["decider"] for row in found["rows"]] == ["ruling", "vote", "agreed", "score", "real"]
    rows = {row["decider"]: row for row in found["rows"]}
    sides = {name: (row["first"]["sample_id"], row["second"]["sample_id"]) for name, row in rows.items()}
    assert sides == {"ruling": (ruled[1].id, ruled[0].id), "vote": (by_people[0].id, by_people[1].id),
                     "agreed": (agreed[0].id, agreed[1].id), "score": (scored[0].id, scored[1].id),
                     "real": (None, scored[1].id)}  # fmt: skip
    assert {name: row["num_people"] for name, row in rows.items()} == {"ruling": 1, "vote": 2, "agreed": 1, "score": 0, "real": 0}
    assert {name: row["weight"] for name, row in rows.items()} == {"ruling": 1, "vote": 1, "agreed": 1, "score": 0.5, "real": 1}
    assert all(row["classes"] == [1] for row in found["rows"])


def test_the_rows_are_the_pairs_that_would_be_frozen(pool: Pool) -> None:
    for number in range(6):
        pool.samples(pool.label_map(split="train" if number % 2 else None), 0.9, 0.8, 0.5)
    rows = page(pool, count=100)["rows"]
    frozen = pairing.build_pairs(pool.store, pool.project.id, actor="t").pairs
    assert sorted((row["first"]["blob"], row["second"]["blob"], row["weight"], row["decider"]) for row in rows) == sorted(
        (pair.chosen_blob, pair.rejected_blob, pair.weight, pair.source) for pair in frozen
    )


def test_those_left_out_have_their_reason_and_open_ones_come_first(pool: Pool) -> None:
    close = pool.samples(pool.label_map(), 0.80, 0.82)
    conflict = pool.samples(pool.label_map(), 0.9, 0.4)
    bad = pool.samples(pool.label_map(), 0.9, 0.4)
    vote(pool, *bad, "both_bad")
    vote(pool, *conflict, "right")
    found = page(pool, who="left_out")
    assert [row["reason"] for row in found["rows"]] == ["conflict", "undecided", "both_bad"]
    assert found["reasons"] == {"conflict": 1, "undecided": 1, "both_bad": 1} and found["num_pairs"] == 0
    assert found["rows"][1]["first"]["sample_id"] == close[1].id


def test_pages_hold_every_pair_once_and_the_filter_keeps_the_counts(pool: Pool) -> None:
    for number in range(7):
        pool.samples(pool.label_map(split="train" if number < 3 else None), 0.9, 0.5)
    pages = [page(pool, first=first, count=4) for first in (0, 4, 8, 12)]
    shown = [(row["decider"], row["label_map_blob"]) for one in pages for row in one["rows"]]
    assert len(shown) == len(set(shown)) == 10 and [len(one["rows"]) for one in pages] == [4, 4, 2, 0]
    real = page(pool, who="real")
    assert real["total"] == 3 and real["deciders"] == pages[0]["deciders"] == {"score": 7, "real": 3}
    with pytest.raises(BadInputError, match="who decided is one of"):
        page(pool, who="nobody")


def test_a_weak_selector_is_told_with_the_pair(pool: Pool) -> None:
    metrics = {"val": {"dice_per_class": {"polyp": 0.5}, "low_confidence": 0.95}}
    pool.models["selector"] = pool.store.add_model(pool.project.id, kind="selector", architecture={}, file="weak",
                                                   metrics=metrics, actor="test")  # fmt: skip
    for scores in ((0.9, 0.4), (0.60, 0.62)):
        for sample, dice in zip(pool.samples(pool.label_map(), None, None), scores, strict=True):
            part = {"polyp": {"dice": dice, "iou": dice, "recall": dice}}
            pool.store.add_scores([Score(sample.id, pool.models["selector"].id, "selector", dice, dice, 0.9, part,
                                         sample.label_map_blob)])  # fmt: skip
    for who, weight in (("score", 0.25), ("left_out", 0.0)):
        [row] = page(pool, who=who)["rows"]
        assert (row["separating_class"], row["weak_dice"], row["confidence"], row["weight"]) == (1, 0.5, 0.9, weight)


def test_single_images_are_listed_with_who_said_what(pool: Pool) -> None:
    pool.label_map(split="train")
    first, second, third = pool.samples(pool.label_map(), 0.9, 0.8, None)
    for sample, value, voter in ((first, "up", "ann"), (first, "up", "bob"), (second, "down", "ann"), (third, "down", "ann")):
        pool.store.add_thumb(pool.project.id, sample_id=sample.id, value=value, voter=voter, request_id=builders.new_request())
    found = page(pool, who="single")
    rows = [(row["first"]["sample_id"], row["first"]["dice"], row["is_liked"], row["source"], row["num_people"])
            for row in found["rows"]]  # fmt: skip
    assert rows == [(second.id, 0.8, False, "people", 1), (third.id, None, False, "people", 1),
                    (first.id, 0.9, True, "people", 2), (None, None, True, "real", 0)]  # fmt: skip
    assert found["total"] == found["num_singles"] == 4 and all(row["second"] is None for row in found["rows"])


def test_nothing_scored_gives_an_empty_page(store: Store, project: Project) -> None:
    found = settled.page(store, project)
    assert (found["total"], found["rows"], found["deciders"], found["reasons"]) == (0, [], {}, {})


def test_a_page_of_ten_thousand_images_does_not_take_seconds(pool: Pool) -> None:
    records = [pool.label_map() for _ in range(100)]
    first = pool.samples(records[0], 0.5)[0]
    row = next(dict(row) for row in pool.store.db.query("SELECT * FROM samples WHERE id = ?", [first.id]))
    per_class = {"polyp": {"dice": 0.5, "iou": 0.5, "recall": 0.5}}
    with pool.store.write() as db:
        db.table("samples").insert_all(
            ({**row, "id": first.id + number, "seed": number, "recipe": f"many-{number}",
              "label_map_id": records[number % 100].id,
              "label_map_blob": f"{number // 4:064x}"} for number in range(1, 10_000)), batch_size=500)  # fmt: skip
    selector = pool.models["selector"].id
    pool.store.add_scores(Score(first.id + number, selector, "selector", (37 * number % 97) / 100, 0.5, 0.9,
                                per_class | {"n": {"dice": number / 1e4, "iou": 0, "recall": 0}}, first.label_map_blob)
                          for number in range(1, 10_000))  # fmt: skip
    shares = {f"{number:064x}": pairing.np.zeros(100, pairing.np.float32) for number in range(2500)}
    pool.store.put_descriptors("classes-1", shares)
    start = time.process_time()  # of this process alone, whatever else the computer does
    found = page(pool)
    assert found["num_pairs"] > 2000 and len(found["rows"]) == 12
    assert time.process_time() - start < 1.5
