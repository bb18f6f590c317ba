"""Processes that tests start and kill; run by a fork server that has the store loaded, so that each starts in milliseconds.

Forking is safe here: the server itself never opens a database.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np

from saadi import jobs
from saadi.config import Home
from saadi.errors import SaadiError
from saadi.jobs import JobContext, Outcome
from saadi.store import Store, queue
from tests.builders import new_request

BIG_BLOB_BYTES = 800_000
"""Large enough that a naive writer is killed in the middle now and then: with small ones the test proved nothing."""


def context() -> ForkServerContext:
    """Where these processes come from."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["tests.actors"])
    return made


def write_forever(path: str, pair: tuple[int, int], seed: int, acknowledged: Connection) -> None:
    """Draw, save a revision, vote; say so through the pipe only after each call has returned."""
    rng = np.random.default_rng(seed)
    with Store.open(path) as store:
        project = store.projects()[0]
        while True:
            first, second = (store.blobs.put_label_map(rng.integers(0, 3, (96, 96), dtype=np.uint8)) for _ in range(2))
            drawing = store.add_label_map(project.id, blob=first, name="n", author="w", request_id=new_request(), origin="drawn")
            _say(acknowledged, kind="add", id=drawing.id, rev=1, blob=first)
            saved = store.save_label_map(drawing.id, blob=second, rev=1, author="w", request_id=new_request())
            _say(acknowledged, kind="save", id=drawing.id, rev=saved.rev, blob=second)
            store.blobs.put(rng.bytes(BIG_BLOB_BYTES))
            vote = store.add_vote(project.id, left_id=pair[0], right_id=pair[1], answer="left", voter=new_request(),
                                  request_id=new_request())
            _say(acknowledged, kind="vote", id=vote.id)


def vote_often(path: str, pair: tuple[int, int], num_votes: int, outcome: Connection) -> None:
    """Vote as one of many; report the refusals."""
    refusals: list[str] = []
    with Store.open(path) as store:
        project = store.projects()[0]
        for _ in range(num_votes):
            try:
                store.add_vote(project.id, left_id=pair[0], right_id=pair[1], answer="left", voter="same",
                               request_id=new_request())
            except SaadiError as error:
                refusals.append(str(error))
    outcome.send(refusals)


def open_fresh(path: str, at: float, outcome: Connection) -> None:
    """Open a folder that does not exist yet, at the same moment as others."""
    time.sleep(max(0.0, at - time.time()))
    try:
        with Store.open(path) as store:
            outcome.send(len(store.projects()))
    except Exception as error:
        outcome.send(f"{type(error).__name__}: {error}")


def count_to_ten(job: JobContext) -> Outcome:
    """Ten small steps with a checkpoint each; publishes one label map."""
    checkpoint = job.dir / "step"
    first = int(checkpoint.read_text()) if checkpoint.exists() else 0
    with (job.store.home.path / f"starts-{job.job.id}").open("a") as stream:
        stream.write(f"{job.job.attempt} {first}\n")
    for step in range(first + 1, 11):
        time.sleep(0.004)
        with jobs.checkpointed(job.dir, "step") as temporary:
            temporary.write_text(str(step))
        job.report(step, 10, "counting", metrics={"loss": 1 / step})
    blob = job.store.blobs.put_label_map(np.full((8, 8), job.job.id % 256, np.uint8))

    def publish(store: Store) -> dict[str, Any]:
        made = store.add_label_map(job.job.project_id or 0, blob=blob, name=f"job {job.job.id}", author="worker",
                                   request_id=new_request(), origin="sampled")
        return {"label_map": made.id}

    return Outcome("counted", publish)


def wait_for_cancel(job: JobContext) -> Outcome:
    """Runs until somebody presses stop."""
    for step in range(10_000):
        job.report(step, 10_000, "waiting", metrics={"step": step})
        time.sleep(0.005)
    raise AssertionError("nobody pressed stop")


def hang_once(job: JobContext) -> Outcome:
    """Falls silent after three steps the first time; a second attempt ends well."""
    for step in range(3):
        job.report(step, 4, "stepping", metrics={"step": step})
    if job.job.attempt == 1:
        time.sleep(60)
    return Outcome("went on")


HANDLERS = {"count": count_to_ten, "wait": wait_for_cancel, "hang": hang_once}


def work(path: str, exit_when_idle: bool, max_attempts: int, hang_floor_s: float = jobs.HANG_FLOOR_S) -> None:
    """A worker with tiny handlers."""
    queue.MAX_ATTEMPTS = max_attempts
    jobs.HANG_FLOOR_S, jobs.WATCH_EVERY_S = hang_floor_s, min(jobs.WATCH_EVERY_S, hang_floor_s / 5)
    jobs.run_worker(Home(Path(path)), HANDLERS, exit_when_idle=exit_when_idle)


def _say(acknowledged: Connection, **fact: Any) -> None:
    acknowledged.send_bytes(json.dumps(fact).encode())
