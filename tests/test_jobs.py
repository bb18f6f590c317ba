"""Jobs: three ends with a sentence each, one worker, cancel, resume, fences, and 50 kills."""

from __future__ import annotations

import errno
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from saadi import jobs
from saadi.config import Home
from saadi.errors import FencedError, NotFoundError, TooFewError
from saadi.jobs import JobContext, Outcome, run_job, run_worker, wait_for, worker_is_alive
from saadi.records import Job, Project
from saadi.store import Store
from tests import actors
from tests.builders import count, new_request


def add_job(store: Store, project: Project, kind: str = "count", *, priority: int = 0, unique_key: str | None = None) -> Job:
    return store.add_job(kind, {}, project_id=project.id, actor="ann", request_id=new_request(), priority=priority,
                         unique_key=unique_key)[0]


def run_one(store: Store, handler: jobs.Handler, project: Project) -> Job:
    add_job(store, project, "kind")
    claimed = store.claim_job("worker-1")
    assert claimed is not None
    run_job(store, claimed, {"kind": handler})
    return store.job(claimed.id)


def test_a_job_runs_and_publishes_with_its_end(home: Home, store: Store, project: Project) -> None:
    job = add_job(store, project)
    assert run_worker(home, actors.HANDLERS, exit_when_idle=True)
    ended = store.job(job.id)
    assert (ended.state, ended.message, ended.step, ended.total, ended.attempt) == ("done", "counted", 10, 10, 1)
    assert store.label_map(ended.result["label_map"]).name == f"job {job.id}"
    assert [step for step, _ in store.job_metrics(job.id)["loss"]] == list(range(1, 11))


def test_output_that_cannot_be_published_leaves_no_rows(store: Store, project: Project) -> None:
    def publish(inner: Store) -> dict[str, object]:
        blob = inner.blobs.put_label_map(np.zeros((4, 4), np.uint8))
        inner.add_label_map(project.id, blob=blob, name="half", author="w", request_id="r", origin="sampled")
        raise TooFewError("the last row was refused")

    ended = run_one(store, lambda job: Outcome("done", publish), project)
    assert (ended.state, ended.error) == ("failed", "the last row was refused")
    assert count(store, "label_maps") == 0


@pytest.mark.parametrize(("error", "sentence"), [
    (TooFewError("3 pairs, 16 needed"), "3 pairs, 16 needed"),
    (MemoryError(), "memory ran out"),
    (RuntimeError("CUDA out of memory. Tried to allocate"), "memory ran out"),
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "the disk is full"),
    (ZeroDivisionError("division by zero"), r"an unexpected error stopped this job \(ZeroDivisionError\)"),
])
def test_every_failure_is_a_sentence(store: Store, project: Project, error: Exception, sentence: str) -> None:
    def handler(job: JobContext) -> Outcome:
        raise error

    ended = run_one(store, handler, project)
    assert ended.state == "failed"
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(ended.error)


def test_the_traceback_stays_with_the_job(store: Store, project: Project) -> None:
    def handler(job: JobContext) -> Outcome:
        raise KeyError("lost")

    ended = run_one(store, handler, project)
    assert "KeyError: 'lost'" in (store.job_traceback(ended.id) or "")
    assert "lost" not in (ended.error or "")


def test_an_unknown_kind_fails_and_the_worker_goes_on(home: Home, store: Store, project: Project) -> None:
    strange, known = add_job(store, project, "strange"), add_job(store, project)
    run_worker(home, actors.HANDLERS, exit_when_idle=True)
    assert (store.job(strange.id).state, store.job(known.id).state) == ("failed", "done")
    assert "knows no jobs of the kind 'strange', as it was started before an update" in (store.job(strange.id).error or "")


def test_a_waiting_job_is_cancelled_at_once(home: Home, store: Store, project: Project) -> None:
    job = add_job(store, project)
    assert store.cancel_job(job.id, actor="ann").state == "cancelled"
    run_worker(home, actors.HANDLERS, exit_when_idle=True)
    assert (store.job(job.id).attempt, count(store, "label_maps")) == (0, 0)


def test_a_running_job_stops_at_its_next_step(home: Home, store: Store, project: Project) -> None:
    job = add_job(store, project, "wait")
    runner = threading.Thread(target=run_worker, args=(home, actors.HANDLERS), kwargs={"exit_when_idle": True})
    runner.start()
    for state in wait_for(store, job.id, poll_s=0.01):
        if state.step > 2 and not state.cancel_requested:
            assert store.cancel_job(job.id, actor="ann").state == "running"
    runner.join()
    ended = store.job(job.id)
    assert (ended.state, ended.message, ended.error) == ("cancelled", "cancelled", None)


def test_cancelling_nothing_leaves_no_trail(store: Store) -> None:
    with pytest.raises(NotFoundError):
        store.cancel_job(99, actor="ann")
    assert count(store, "audit") == 0


def test_an_ended_job_stays_as_it_ended(home: Home, store: Store, project: Project) -> None:
    job = add_job(store, project)
    run_worker(home, actors.HANDLERS, exit_when_idle=True)
    assert store.cancel_job(job.id, actor="ann").state == "done"


def test_a_fenced_worker_writes_nothing(store: Store, project: Project) -> None:
    job = add_job(store, project)
    first = store.claim_job("worker-1")
    assert first is not None
    store.requeue_orphans()
    second = store.claim_job("worker-2")
    assert second is not None and second.attempt == 2
    with pytest.raises(FencedError, match="taken over"):
        store.report_job(first, step=1, total=2, message="", eta_s=None)
    with pytest.raises(FencedError), store.write():
        blob = store.blobs.put_label_map(np.zeros((4, 4), np.uint8))
        store.add_label_map(project.id, blob=blob, name="late", author="w", request_id="late", origin="sampled")
        store.finish_job(first, state="done", message="late")
    store.release_job(first)
    assert (store.job(job.id).state, store.job(job.id).worker, count(store, "label_maps")) == ("running", "worker-2", 0)


def test_the_third_death_ends_a_job_with_a_reason(store: Store, project: Project) -> None:
    job = add_job(store, project)
    for attempt in (1, 2, 3):
        claimed = store.claim_job(f"worker-{attempt}")
        assert claimed is not None and claimed.attempt == attempt
        store.requeue_orphans()
    ended = store.job(job.id)
    assert ended.state == "failed"
    assert "died 3 times" in (ended.error or "")


def test_a_cancelled_orphan_is_cancelled_and_not_blamed(store: Store, project: Project) -> None:
    job = add_job(store, project)
    for _ in range(3):
        store.claim_job("worker")
        if store.job(job.id).attempt == 3:
            store.cancel_job(job.id, actor="ann")
        store.requeue_orphans()
    assert store.job(job.id).state == "cancelled"


def test_80_inserts_of_10_pieces_of_work_are_10_jobs(home: Home, store: Store, project: Project) -> None:
    def insert() -> None:
        with Store.open(home) as own:
            for number in range(10):
                add_job(own, project, unique_key=f"{number}")

    threads = [threading.Thread(target=insert) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(store, "jobs") == 10
    assert count(store, "audit", "action = 'job.count'") == 10


def test_failed_work_may_be_asked_for_again_and_done_work_is_the_answer(store: Store, project: Project) -> None:
    failed = add_job(store, project, unique_key="k")
    store.cancel_job(failed.id, actor="ann")
    again = add_job(store, project, unique_key="k")
    assert again.id != failed.id
    claimed = store.claim_job("w")
    assert claimed is not None
    store.finish_job(claimed, state="done", message="")
    assert add_job(store, project, unique_key="k").id == again.id


def test_people_who_wait_come_first(store: Store, project: Project) -> None:
    slow, second, drawn = add_job(store, project), add_job(store, project), add_job(store, project, priority=10)
    assert [len(store.jobs_before(job.id)) for job in (drawn, slow, second)] == [0, 1, 2]
    claimed = store.claim_job("w")
    assert claimed is not None and claimed.id == drawn.id
    assert store.claim_job("w") is None, "one job runs at a time"
    assert len(store.jobs_before(slow.id)) == 1


def test_the_time_left_follows_the_steps_of_this_attempt(store: Store, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 110.0, 120.0])
    add_job(store, project)
    claimed = store.claim_job("w")
    assert claimed is not None
    context = JobContext(store, claimed)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    context.report(50, 100, "resumed at 50")
    assert store.job(claimed.id).eta_s is None
    context.report(60, 100, "")
    assert store.job(claimed.id).eta_s == pytest.approx(40.0)
    context.report(80, 100, "")
    assert store.job(claimed.id).eta_s == pytest.approx(20 / 30 * 20)


def test_a_curve_has_no_place_for_nan(store: Store, project: Project) -> None:
    add_job(store, project)
    claimed = store.claim_job("w")
    assert claimed is not None
    JobContext(store, claimed).report(1, 2, "", metrics={"loss": float("nan"), "grad": 2.0})
    assert store.job_metrics(claimed.id) == {"grad": [(1, 2.0)]}


def test_a_checkpoint_is_whole_or_absent(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), jobs.checkpointed(tmp_path, "state") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with jobs.checkpointed(tmp_path, "state") as temporary:
        temporary.write_text("whole")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("state", "whole")]


@pytest.fixture
def other_worker(home: Home, store: Store) -> Iterator[int]:
    process = actors.context().Process(target=actors.work, args=(str(home.path), False, 3))
    process.start()
    while not worker_is_alive(home):
        time.sleep(0.01)
    yield process.pid
    process.kill()
    process.join()


def test_a_second_worker_is_refused(home: Home, other_worker: int) -> None:
    assert run_worker(home, actors.HANDLERS, exit_when_idle=True) is False
    worker = jobs.WorkerProcess(home)
    worker.ensure()
    assert worker.process is None


def test_a_killed_worker_is_noticed_at_once(home: Home, other_worker: int) -> None:
    os.kill(other_worker, signal.SIGKILL)
    begun = time.monotonic()
    while worker_is_alive(home):
        assert time.monotonic() - begun < 2.0
        time.sleep(0.001)


def test_looking_does_not_keep_a_worker_from_starting(home: Home, store: Store, project: Project) -> None:
    add_job(store, project)
    looking = threading.Event()

    def look() -> None:
        while not looking.is_set():
            worker_is_alive(home)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        assert all(run_worker(home, actors.HANDLERS, exit_when_idle=True) for _ in range(5))
    finally:
        looking.set()
        watcher.join()


def test_checkpoints_that_nobody_continues_are_swept_after_a_month(home: Home, store: Store, project: Project) -> None:
    ended = [add_job(store, project) for _ in range(2)]
    for job in ended:
        store.cancel_job(job.id, actor="ann")
    folders = {"young": home.job_dir(ended[0].id), "old": home.job_dir(ended[1].id), "of no row": home.job_dir(9999)}
    for name, folder in folders.items():
        folder.mkdir(parents=True)
        if name != "young":
            past = time.time() - jobs.KEPT_CHECKPOINT_S - 60
            os.utime(folder, (past, past))
    active = add_job(store, project, "slow")
    home.job_dir(active.id).mkdir(parents=True)
    os.utime(home.job_dir(active.id), (0, 0))
    jobs._sweep_checkpoints(store)
    assert sorted(path.name for path in home.jobs.glob("[0-9]*")) == sorted([str(ended[0].id), str(active.id)])


def test_a_stopped_worker_gives_its_job_back_uncounted(store: Store, project: Project) -> None:
    def handler(job: JobContext) -> Outcome:
        raise SystemExit(0)

    job = add_job(store, project)
    for _ in range(5):
        claimed = store.claim_job("w")
        assert claimed is not None
        with pytest.raises(SystemExit):
            run_job(store, claimed, {"count": handler})
    assert (store.job(job.id).state, store.job(job.id).attempt) == ("queued", 0)


def test_50_killed_workers_lose_and_double_nothing(home: Home, store: Store, project: Project) -> None:
    """Deaths while a job ran are counted from outside, so the attempts must add up."""
    random_source, placed = random.Random(3), []
    deaths: set[tuple[int, int]] = set()  # job and attempt: a worker killed before it took over is no death at work
    for _ in range(50):
        placed += [add_job(store, project).id] if len(store.jobs(active_only=True)) < 3 else []
        process = actors.context().Process(target=actors.work, args=(str(home.path), False, 1000))
        process.start()
        time.sleep(random_source.uniform(0.03, 0.2))
        process.kill()
        process.join()
        deaths |= {(job.id, job.attempt) for job in store.jobs(active_only=True) if job.state == "running"}
    process = actors.context().Process(target=actors.work, args=(str(home.path), True, 1000))
    process.start()
    process.join(30)
    ended = [store.job(job_id) for job_id in placed]
    assert {job.state for job in ended} == {"done"}
    assert sum(job.attempt for job in ended) == len(ended) + len(deaths)
    assert len(deaths) >= 10, "the kills missed the work"
    assert sorted(record.name for record in store.label_maps(project.id)) == sorted(f"job {job_id}" for job_id in placed)
    check_resumed(home, ended)
    assert store.first_broken_audit_row() is None


def check_resumed(home: Home, ended: list[Job]) -> None:
    """Each attempt began where the checkpoint of the one before stood, and not at zero."""
    for job in ended:
        starts = [line.split() for line in (home.path / f"starts-{job.id}").read_text().splitlines()]
        assert [int(attempt) for attempt, _ in starts] == sorted({int(attempt) for attempt, _ in starts})
        steps = [int(step) for _, step in starts]
        assert steps == sorted(steps)
        assert len(starts) <= job.attempt


def test_a_job_that_falls_silent_ends_its_worker_and_goes_on_in_the_next(home: Home, store: Store, project: Project) -> None:
    job = add_job(store, project, "hang")
    first = actors.context().Process(target=actors.work, args=(str(home.path), True, 3, 0.5))
    first.start()
    first.join(30)
    assert first.exitcode == jobs.HANG_EXIT and store.job(job.id).state == "running" and not worker_is_alive(home)
    assert run_worker(home, actors.HANDLERS, exit_when_idle=True)
    ended = store.job(job.id)
    assert (ended.state, ended.attempt, ended.message) == ("done", 2, "went on")


def test_long_pauses_are_no_hang_while_they_are_usual(store: Store, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "HANG_FLOOR_S", 0.0)
    add_job(store, project, "kind")
    claimed = store.claim_job("worker-1")
    assert claimed is not None
    context = JobContext(store, claimed)
    now = time.monotonic()
    context._beats.extend([now - 40, now - 30, now - 20])
    assert not context.hangs
    context._beats.clear()
    context._beats.extend([now - 22, now - 21, now - 20])
    assert context.hangs


def test_a_stop_counts_although_somebody_waits(store: Store, project: Project):
    placed, _ = store.add_job("polite", {}, project_id=project.id, actor="x", request_id="p")

    def handler(context: JobContext) -> Outcome:
        context.yields = True
        store.add_job("drawing", {}, project_id=project.id, actor="x", request_id="d", priority=10)
        store.cancel_job(placed.id, actor="x")
        context.report(0, 4, "working")
        return Outcome("done")

    run_job(store, store.claim_job("me"), {"polite": handler})
    assert store.job(placed.id).state == "cancelled"


def test_a_pool_makes_room_for_a_drawing_and_goes_on(store: Store, project: Project):
    """Only jobs that say so; a higher priority is needed; the attempt is not counted."""
    seen: list[str] = []

    def handler(context: JobContext) -> Outcome:
        context.yields = context.job.kind == "polite"
        for step in range(4):
            seen.append(f"{context.job.kind} {step}")
            if context.job.kind != "drawing" and step == 1 and seen.count(f"{context.job.kind} 1") == 1:
                store.add_job("drawing", {}, project_id=project.id, actor="x", request_id=f"r{len(seen)}", priority=10)
            context.report(step, 4, "working")
        return Outcome("done")

    handlers = {"polite": handler, "rude": handler, "drawing": handler}
    for kind in ("polite", "rude"):
        store.add_job(kind, {}, project_id=project.id, actor="x", request_id=kind)
        while (claimed := store.claim_job("me")) is not None:
            run_job(store, claimed, handlers)
    assert seen == ["polite 0", "polite 1", *(f"drawing {n}" for n in range(4)), *(f"polite {n}" for n in range(4)),
                    *(f"rude {n}" for n in range(4)), *(f"drawing {n}" for n in range(4))]  # fmt: skip
    assert {(job.state, job.attempt) for job in store.jobs(project.id)} == {("done", 1)}
