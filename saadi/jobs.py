"""Work above a second: rows in SQLite, one worker process, progress, cancel, resume; knows no job by name.

Why an own table: huey on SQLite lost 3 of 5 jobs under kill -9, litequeue froze, others need Redis or PostgreSQL. Alive means
"holds the lock file": the kernel frees it milliseconds after SIGKILL, and no clock is involved.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import filelock
import psutil
import structlog

from saadi.config import Home
from saadi.errors import CancelledError, FencedError, NotFoundError, SaadiError, YieldedError
from saadi.records import Job
from saadi.store import Store

HANG_EXIT = 75
LOCK_WAIT_S = 1.0
"""How long a starting worker tries for the lock: `worker_is_alive` of another process holds it for an instant."""
POLL_S = 0.05
"""How long a waiting worker sleeps between looks at the queue; one look costs 10 microseconds."""
HANG_FLOOR_S = 3600.0
HANG_FACTOR = 10
"""A job hangs when it has been silent for this many times its median pause between steps, and for `HANG_FLOOR_S` at least."""
WATCH_EVERY_S = 5.0
REPORT_EVERY_S = 0.25
"""Progress is written at most this often; each write is an fsync."""
KEPT_CHECKPOINT_S = 30 * 24 * 3600.0
log = structlog.get_logger()


class Report(Protocol):
    """What a recipe calls after each step; raises `CancelledError` once the user has pressed stop, and `YieldedError` where a job
    that makes room is overtaken."""

    def __call__(self, step: int, total: int, message: str, *, metrics: Mapping[str, float] | None = None,
                 images: Mapping[str, str] | None = None) -> None: ...


def silent(step: int, total: int, message: str, *, metrics: Mapping[str, float] | None = None,
           images: Mapping[str, str] | None = None) -> None:
    """A `Report` that nobody reads."""


def within(report: Report, first: float, last: float) -> Report:
    """A `Report` of a part of the work, told as its share of the whole: from `first` to `last`, 0 to 1."""

    def scaled(step: int, total: int, message: str, *, metrics: Mapping[str, float] | None = None,
               images: Mapping[str, str] | None = None) -> None:
        report(round(1000 * (first + (last - first) * step / max(1, total))), 1000, message, metrics=metrics, images=images)

    return scaled


@dataclass
class Outcome:
    """How a job ends: the sentence for people, and what is published in the same transaction as its end."""

    message: str
    publish: Callable[[Store], dict[str, Any]] = field(default=lambda store: {})
    """Adds the output's rows and returns the job's result, JSON."""


@dataclass
class JobContext:
    """What a handler is given."""

    store: Store
    job: Job
    keeps_checkpoint: bool = False
    """Set by a handler whose stopped or failed job can be continued by another one: `dir` then stays."""
    yields: bool = False
    """Set by a handler whose job loses little when it is interrupted: it makes room for one of higher priority, and goes on after
    it."""
    _started: float = field(default_factory=time.monotonic)
    _last: float = 0.0
    _first_step: int | None = None
    _beats: deque[float] = field(default_factory=lambda: deque([time.monotonic()], maxlen=50))
    """When the last steps were."""

    @property
    def hangs(self) -> bool:
        """No step for much longer than usual (by a clock that nobody sets)."""
        beats = list(self._beats)
        pauses = [later - earlier for earlier, later in pairwise(beats)]
        allowed = max(HANG_FLOOR_S, HANG_FACTOR * median(pauses)) if pauses else HANG_FLOOR_S
        return time.monotonic() - beats[-1] > allowed

    @property
    def params(self) -> dict[str, Any]:
        return self.job.params

    @property
    def dir(self) -> Path:
        """A folder that stays between attempts, for checkpoints."""
        folder = self.store.home.job_dir(self.job.id)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def report(self, step: int, total: int, message: str, *, metrics: Mapping[str, float] | None = None,
               images: Mapping[str, str] | None = None) -> None:
        """Write progress; see `Report`. Calls without metrics or images are thinned out."""
        clock = time.monotonic()
        self._beats.append(clock)
        if self._first_step is None:
            self._first_step, self._started = step, clock
        if self.yields and self.store.is_overtaken(self.job.id):
            if self.store.is_cancel_requested(self.job.id):
                raise CancelledError("cancelled")
            raise YieldedError("somebody waits")
        if metrics is None and images is None and clock - self._last < REPORT_EVERY_S and step < total:
            if self.store.is_cancel_requested(self.job.id):  # a read of 10 us, no fsync
                raise CancelledError("cancelled")
            return
        self._last = clock
        done = step - self._first_step
        eta_s = (clock - self._started) / done * (total - step) if done > 0 else None
        if self.store.report_job(self.job, step=step, total=total, message=message, eta_s=eta_s, metrics=metrics, images=images):
            raise CancelledError("cancelled")


Handler = Callable[[JobContext], Outcome]


def run_worker(home: Home, handlers: Mapping[str, Handler], *, exit_when_idle: bool = False, parent_pid: int | None = None,
               on_start: Callable[[], None] | None = None) -> bool:
    """Run jobs one after the other until stopped.

    Args:
        exit_when_idle: Return once the queue is empty (for the command line).
        parent_pid: Return once this process is gone and the queue is empty (for the page's worker).
        on_start: Called once after the lock was taken, for slow imports while nobody waits.

    Returns:
        False when another worker holds this data folder.
    """
    home.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = filelock.FileLock(home.worker_lock)
    while True:
        try:
            lock.acquire(timeout=LOCK_WAIT_S)
        except filelock.Timeout:
            return False
        with Store.open(home) as store:
            try:
                for job in store.requeue_orphans():
                    log.warning("job_orphaned", job=job.id, state=job.state, attempt=job.attempt)
                store.blobs.sweep()
                store.sweep_unnamed_blobs()
                _sweep_checkpoints(store)
                store.files.sweep()
                if on_start:
                    on_start()
                    on_start = None
                _work_until_idle(store, handlers, exit_when_idle=exit_when_idle, parent_pid=parent_pid)
            finally:
                lock.release()
            # Who queues a job now finds the lock free and starts a worker; who did so just before is found here.
            if not any(job.state == "queued" for job in store.jobs(active_only=True, limit=1)):
                return True


def _work_until_idle(store: Store, handlers: Mapping[str, Handler], *, exit_when_idle: bool, parent_pid: int | None) -> None:
    name = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    while True:
        claimed = store.claim_job(name)
        if claimed is not None:
            run_job(store, claimed, handlers)
        elif exit_when_idle or (parent_pid is not None and not psutil.pid_exists(parent_pid)):
            return
        else:
            time.sleep(POLL_S)


def run_job(store: Store, job: Job, handlers: Mapping[str, Handler]) -> None:
    """Run one claimed job to one of its three ends, each with a sentence."""
    log.info("job_started", job=job.id, kind=job.kind, attempt=job.attempt)
    context = JobContext(store, job)
    try:
        handler = handlers.get(job.kind)
        if handler is None:
            raise NotFoundError(f"the running program knows no jobs of the kind {job.kind!r}, as it was started before an "
                                "update; stop it, start it again, and give this order once more")  # fmt: skip
        with _watched(context):
            outcome = handler(context)
        with store.write():
            result = outcome.publish(store)
            store.finish_job(job, state="done", message=outcome.message, result=result)
        _drop_checkpoints(store, job)
        log.info("job_done", job=job.id)
    except FencedError:
        log.warning("job_fenced", job=job.id, attempt=job.attempt)
    except YieldedError:
        store.release_job(job, message="paused, somebody waits; goes on by itself")
        log.info("job_yielded", job=job.id)
    except CancelledError:
        _end(store, job, state="cancelled", message="cancelled", error=None, keep=context.keeps_checkpoint)
    except SaadiError as error:
        _end(store, job, state="failed", message="refused", error=str(error), keep=context.keeps_checkpoint)
    except (SystemExit, KeyboardInterrupt):
        store.release_job(job)
        log.info("job_released", job=job.id, attempt=job.attempt)
        raise
    except Exception as error:  # the one place that may catch everything: the traceback stays with the job
        log.error("job_failed", job=job.id, error=type(error).__name__, traceback=traceback.format_exc())
        _end(store, job, state="failed", message="failed", error=_sentence(error), trace=traceback.format_exc(),
             keep=context.keeps_checkpoint)


@contextmanager
def _watched(context: JobContext) -> Iterator[None]:
    """End this process when the job hangs: its lock is then free, and the next worker resumes the job from its checkpoint."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(WATCH_EVERY_S):
            if context.hangs:
                log.error("job_hangs", job=context.job.id, attempt=context.job.attempt)
                os._exit(HANG_EXIT)  # a thread cannot interrupt native code in any gentler way

    threading.Thread(target=watch, name="job-watch", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _end(store: Store, job: Job, *, state: str, message: str, error: str | None, trace: str | None = None,
         keep: bool = False) -> None:
    try:
        store.finish_job(job, state=state, message=message, error=error, traceback=trace)
        if not keep:
            _drop_checkpoints(store, job)
    except FencedError:
        log.warning("job_fenced", job=job.id, attempt=job.attempt)


def _drop_checkpoints(store: Store, job: Job) -> None:
    # A fit leaves 180 MB; nobody reads them once the job has ended.
    shutil.rmtree(store.home.job_dir(job.id), ignore_errors=True)


def _sweep_checkpoints(store: Store) -> None:
    """Remove what ended jobs left to be continued from, once nobody has done so for `KEPT_CHECKPOINT_S`."""
    active = {str(job.id) for job in store.jobs(active_only=True, limit=100_000)}
    for folder in store.home.jobs.glob("[0-9]*"):  # one without a row is left by a database restored from a backup
        if folder.name not in active and time.time() - folder.stat().st_mtime > KEPT_CHECKPOINT_S:
            shutil.rmtree(folder, ignore_errors=True)


def _sentence(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        return "memory ran out; choose fewer images at once, a smaller batch or a smaller resolution, and start again"
    if isinstance(error, OSError) and "No space left" in text:
        return "the disk is full, nothing was published; free some space and start again"
    return f"an unexpected error stopped this job ({type(error).__name__}); its details are kept with the job"


class WorkerProcess:
    """Keeps one worker process alive for a data folder; it outlives the page and finishes what it began."""

    def __init__(self, home: Home, *, exit_when_idle: bool = False) -> None:
        self.home = home
        self.exit_when_idle = exit_when_idle
        self.process: subprocess.Popen[bytes] | None = None

    def ensure(self) -> None:
        """Start a worker unless one holds the lock already."""
        if self.process is not None and self.process.poll() is None:
            return
        if worker_is_alive(self.home):
            return
        self.home.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Absolute: the worker runs in the program's folder, not in the caller's.
        command = [sys.executable, "-m", "saadi", "worker", "--home", str(self.home.path.resolve())]
        command += ["--exit-when-idle"] if self.exit_when_idle else ["--parent", str(os.getpid())]
        with self.home.worker_log.open("ab") as stream:
            # A new session: Ctrl+C at the page, or its end, does not kill a training run.
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                                            start_new_session=True, cwd=Path(__file__).resolve().parent.parent)

    def stop(self, *, timeout_s: float = 5.0) -> None:
        """End the worker that this object started; its job resumes with the next worker."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def worker_is_alive(home: Home) -> bool:
    """True while some process holds the worker lock."""
    if not home.path.exists():
        return False
    lock = filelock.FileLock(home.worker_lock)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    lock.release()
    return False


def wait_for(store: Store, job_id: int, *, poll_s: float = 0.2) -> Iterator[Job]:
    """Yield a job's row again and again until it has ended; the last one is the ended job."""
    while True:
        job = store.job(job_id)
        yield job
        if not job.is_active:
            return
        time.sleep(poll_s)


@contextmanager
def checkpointed(folder: Path, name: str) -> Iterator[Path]:
    """Give a temporary path in `folder` and move it to `name` when the block ends well, so that no torn checkpoint remains."""
    temporary = folder / f".tmp-{name}"
    try:
        yield temporary
        with temporary.open("r+b") as stream:  # Windows flushes only what is open for writing
            os.fsync(stream.fileno())
        os.replace(temporary, folder / name)
    finally:
        temporary.unlink(missing_ok=True)
