"""kill -9 and crowds: nothing acknowledged is lost, nothing half-done stays, nobody sees "locked"."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from saadi.config import Home
from saadi.records import Project
from saadi.store import Store
from tests import actors
from tests.builders import add_samples, count
from tests.conftest import CLASSES

NUM_ROUNDS, WRITERS_PER_ROUND, ROUNDS_PER_HOME = 40, 5, 8
"""200 kills in all."""


def test_200_killed_writers_lose_nothing(tmp_path: Path) -> None:
    random_source, num_acknowledged, num_killed = random.Random(5), 0, 0
    for number in range(NUM_ROUNDS // ROUNDS_PER_HOME):
        home = Home(tmp_path / str(number))
        with Store.open(home) as store:
            project = store.create_project("p", task="segmentation", classes=CLASSES, resolution=16, actor="test")
            left, right = add_samples(store, project)
        acknowledged: list[dict[str, Any]] = []
        for _ in range(ROUNDS_PER_HOME):
            acknowledged += kill_round(home, (left.id, right.id), random_source)
            num_killed += WRITERS_PER_ROUND
        check_everything(home, acknowledged)
        shutil.rmtree(home.path)
        num_acknowledged += len(acknowledged)
    assert num_killed == 200
    assert num_acknowledged > 100, "the writers were killed before they did anything"


def kill_round(home: Home, pair: tuple[int, int], random_source: random.Random) -> list[dict[str, Any]]:
    """Start writers, kill each at its own moment, and return what they had acknowledged."""
    context = actors.context()
    started = []
    for _ in range(WRITERS_PER_ROUND):
        ours, theirs = context.Pipe(duplex=False)
        seed = random_source.randrange(2**31)
        process = context.Process(target=actors.write_forever, args=(str(home.path), pair, seed, theirs))
        process.start()
        theirs.close()
        started.append((random_source.uniform(0.03, 0.25), process, ours))
    begun = time.monotonic()
    for delay, process, _ in sorted(started, key=lambda item: item[0]):
        time.sleep(max(0.0, begun + delay - time.monotonic()))
        process.kill()
    facts = [fact for _, process, ours in started for fact in received(ours)]
    for _, process, _ in started:
        process.join()
    return facts


def received(pipe: Connection) -> list[dict[str, Any]]:
    """Everything that came through before the other end died."""
    facts = []
    try:
        while True:
            facts.append(json.loads(pipe.recv_bytes()))
    except (EOFError, OSError):  # OSError: killed in the middle of a message
        return facts


def check_everything(home: Home, acknowledged: list[dict[str, Any]]) -> None:
    with Store.open(home) as store:
        assert store.quick_check() == []
        assert store.first_broken_audit_row() is None
        revisions = {(row["label_map_id"], row["rev"]): row["blob"]
                     for row in store.db.query("SELECT label_map_id, rev, blob FROM label_map_revisions")}
        votes = {row["id"] for row in store.db.query("SELECT id FROM votes")}
        for fact in acknowledged:
            assert fact["id"] in votes if fact["kind"] == "vote" else revisions[fact["id"], fact["rev"]] == fact["blob"]
        # No half transactions: each change has its audit row and the head of each label map is its newest revision.
        assert len(votes) == count(store, "audit", "action = 'vote'")
        assert len([rev for _, rev in revisions if rev > 1]) == count(store, "audit", "action = 'label_map.save'")
        assert count(store, "label_maps") == count(store, "audit", "action = 'label_map.add'")
        heads = {row["id"]: (row["rev"], row["blob"]) for row in store.db.query("SELECT id, rev, blob FROM label_maps")}
        for label_map_id, (rev, blob) in heads.items():
            assert revisions[label_map_id, rev] == blob
            assert (label_map_id, rev + 1) not in revisions
        # No torn file under a final name, no row without its file.
        for path in home.blobs.glob("??/*.png"):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem
        assert store.referenced_blobs() <= store.blobs.all_hashes()
        store.blobs.sweep(older_than_s=-1)
    assert [path for path in home.blobs.rglob(".tmp-*")] == []


def test_eight_processes_vote_without_one_refusal(home: Home, store: Store, project: Project) -> None:
    left, right = add_samples(store, project)
    context = actors.context()
    pipes, processes = [], []
    for _ in range(8):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=actors.vote_often, args=(str(home.path), (left.id, right.id), 50, theirs))
        process.start()
        pipes.append(ours)
        processes.append(process)
    refusals = [refusal for pipe in pipes for refusal in pipe.recv()]
    for process in processes:
        process.join()
    assert refusals == []
    assert count(store, "votes") == 400
    assert len(store.votes(project.id)) == 1  # one voter, one pair: each vote superseded exactly one other
    assert store.db.execute("SELECT count(DISTINCT supersedes) FROM votes").fetchone()[0] == 399
    assert store.first_broken_audit_row() is None


@pytest.mark.parametrize("attempt", range(5))
def test_processes_may_open_a_fresh_folder_at_once(tmp_path: Path, attempt: int) -> None:
    context = actors.context()
    at, pipes, processes = time.time() + 0.15, [], []
    for _ in range(4):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=actors.open_fresh, args=(str(tmp_path / "home"), at, theirs))
        process.start()
        pipes.append(ours)
        processes.append(process)
    assert [pipe.recv() for pipe in pipes] == [0, 0, 0, 0]
    for process in processes:
        process.join()
