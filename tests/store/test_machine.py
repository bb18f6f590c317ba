"""Any order of votes, undos, saves, jobs, crashes and restarts: the store agrees with a model of ten lines."""

from __future__ import annotations

import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from saadi.errors import BadInputError, ConflictError
from saadi.store import Store
from saadi.store.queue import MAX_ATTEMPTS
from tests.builders import add_label_map, add_samples, count, new_request
from tests.conftest import CLASSES

VOTERS, SAMPLES, REVISIONS = st.sampled_from(["ann", "bob"]), st.integers(0, 2), st.integers(1, 4)


class StoreMachine(RuleBasedStateMachine):
    """The model: who holds which vote on a pair, the revision and author of one drawing, the states of jobs."""

    @initialize()
    def create(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store.open(Path(self.folder.name))
        self.project = self.store.create_project("p", task="segmentation", classes=CLASSES, resolution=16, actor="test")
        self.drawing = add_label_map(self.store, self.project)
        self.blob = self.store.blobs.put_label_map(np.full((4, 4), 1, np.uint8))
        self.samples = [sample.id for sample in add_samples(self.store, self.project, count=3, label_map=self.drawing)]
        self.votes: dict[tuple[str, frozenset[int]], tuple[int, str]] = {}
        self.num_votes, self.rev = 0, 1
        self.jobs: dict[int, str] = {}
        self.attempts: dict[int, int] = {}

    @rule(voter=VOTERS, left=SAMPLES, right=SAMPLES, answer=st.sampled_from(["left", "right", "skip"]), twice=st.booleans())
    def vote(self, voter: str, left: int, right: int, answer: str, twice: bool) -> None:
        request = new_request()
        try:
            for _ in range(1 + twice):
                made = self.store.add_vote(self.project.id, left_id=self.samples[left], right_id=self.samples[right],
                                           answer=answer, voter=voter, request_id=request)  # type: ignore[arg-type]
        except BadInputError:
            assert left == right
            return
        self.votes[voter, frozenset((left, right))] = (made.id, answer)
        self.num_votes += 1

    @precondition(lambda self: self.votes)
    @rule(data=st.data(), by=VOTERS)
    def undo(self, data: st.DataObject, by: str) -> None:
        key = data.draw(st.sampled_from(sorted(self.votes, key=str)))
        try:
            self.store.undo_vote(self.votes[key][0], voter=by, request_id=new_request())
        except BadInputError:
            assert by != key[0]
            return
        del self.votes[key]
        self.num_votes += 1

    @rule(rev=REVISIONS, crash=st.booleans())
    def save(self, rev: int, crash: bool) -> None:
        try:
            with self.store.write():
                self.store.save_label_map(self.drawing.id, blob=self.blob, rev=rev, author="ann", request_id=new_request())
                if crash:
                    raise RuntimeError
        except ConflictError:
            assert rev != self.rev
        except RuntimeError:
            assert rev == self.rev
        else:
            assert rev == self.rev
            self.rev += 1

    @rule(key=st.sampled_from([None, "a", "b"]))
    def enqueue(self, key: str | None) -> None:
        job, is_new = self.store.add_job("k", {}, project_id=self.project.id, actor="ann", request_id=new_request(),
                                         unique_key=key)
        if is_new:
            self.jobs[job.id], self.attempts[job.id] = "queued", 0
        else:
            assert key is not None and self.jobs[job.id] in ("queued", "running", "done")

    @rule(end=st.sampled_from(["done", "failed", "crash", "stop", "cancel"]))
    def work(self, end: str) -> None:
        claimed = self.store.claim_job("w")
        waiting = [job_id for job_id, state in self.jobs.items() if state == "queued"]
        assert (claimed.id if claimed else None) == min(waiting, default=None)
        if claimed is None:
            return
        self.attempts[claimed.id] += 1
        if end in ("done", "failed"):
            self.store.finish_job(claimed, state=end, message="")
            self.jobs[claimed.id] = end
        elif end == "stop":
            self.store.release_job(claimed)
            self.attempts[claimed.id] -= 1
        else:
            if end == "cancel":
                self.store.cancel_job(claimed.id, actor="ann")
            self.store.requeue_orphans()
            is_last = self.attempts[claimed.id] >= MAX_ATTEMPTS
            self.jobs[claimed.id] = "cancelled" if end == "cancel" else "failed" if is_last else "queued"

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = Store.open(Path(self.folder.name))

    @invariant()
    def store_and_model_agree(self) -> None:
        standing = {(vote.voter, vote.id, vote.answer) for vote in self.store.votes(self.project.id)}
        assert standing == {(voter, number, answer) for (voter, _), (number, answer) in self.votes.items()}
        assert count(self.store, "votes") == self.num_votes
        assert self.store.label_map(self.drawing.id).rev == self.rev
        assert [row["rev"] for row in self.store.label_map_history(self.drawing.id)] == list(range(1, self.rev + 1))
        assert {job.id: (job.state, job.attempt) for job in self.store.jobs(limit=1000)} == {
            job_id: (state, self.attempts[job_id]) for job_id, state in self.jobs.items()}
        assert self.store.first_broken_audit_row() is None

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()


StoreMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None, derandomize=True,
                                          suppress_health_check=list(HealthCheck))
TestStoreMachine = StoreMachine.TestCase
