"""What every command shares: its two options, one way to answer, and waiting for a job."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from saadi import config, jobs, orders
from saadi.config import Home
from saadi.errors import SaadiError
from saadi.records import Job, Project
from saadi.store import Store

HomeOption = Annotated[Path | None, typer.Option("--home", help="Data folder; default: SAADI_HOME or the user's data folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; everything else goes to stderr.")]
DetachOption = Annotated[bool, typer.Option("--detach", help="Queue the job and return at once; see `saadi jobs`.")]
ProjectArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the project.")]

MAX_WORKER_STARTS = 5
"""A worker that ends so often without taking the job will not take it the next time, either."""
NOTE_EVERY_S = 10.0
"""Without a terminal there is no bar but a line now and then."""
CANCEL_WAIT_S = 60.0


def home_of(path: Path | None) -> Home:
    """The data folder that a command works on, absolute."""
    return Home((path or config.default_home()).expanduser().resolve())


def note(text: str) -> None:
    """Say something that is no result."""
    print(text, file=sys.stderr, flush=True)


def answer(result: Mapping[str, Any], *, as_json: bool, lines: Callable[[], list[str]] | None = None) -> None:
    """Print the result: one JSON object, or lines for people."""
    if as_json:
        print(json.dumps(result, ensure_ascii=False, default=str))
        return
    for line in lines() if lines else [f"{name}: {value}" for name, value in result.items()]:
        print(line)


def run_order(
    home: Home, name: str, build: Callable[[Store, Project], orders.Order], *, detach: bool, as_json: bool
) -> Job | None:
    """Place an order, see to a worker, wait with a progress bar, print how it ended.

    Returns:
        The job, where it was waited for.

    Raises:
        SaadiError: The order was refused, or the job failed or was cancelled; one sentence.
    """
    with Store.open(home) as store:
        wanted = build(store, store.project(name))
        job, is_new = orders.place(store, wanted, actor=config.user_name())
        if not is_new:
            note(f"the same work is job {job.id} already ({job.state}); nothing new was started")
        worker = jobs.WorkerProcess(home, exit_when_idle=True)
        if detach:
            _see_to_worker(store, worker, job)
            answer(_summary(store.job(job.id)), as_json=as_json, lines=lambda: [f"job {job.id} is queued; see `saadi jobs`"])
            return None
        ended = _wait(store, worker, job)
        while ended.state == "done" and (following := ended.result.get("next_job_id")) is not None:
            note(f"{ended.message}  (job {ended.id})")
            ended = _wait(store, worker, store.job(int(following)))
        if ended.state != "done":
            raise SaadiError(ended.error or f"job {ended.id} was cancelled; nothing was published")
        if why := ended.result.get("series_ended"):
            note(why)
        answer(_summary(ended), as_json=as_json, lines=lambda: [f"{ended.message}  (job {ended.id})"])
        return ended


def _summary(job: Job) -> dict[str, Any]:
    return {"job": job.id, "kind": job.kind, "state": job.state, "message": job.message, "result": job.result}


def _see_to_worker(store: Store, worker: jobs.WorkerProcess, job: Job) -> None:
    """Return once some worker lives that will take the job; one that was just about to end does not count."""
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline and store.job(job.id).state == "queued":
        worker.ensure()
        time.sleep(0.2)
        if jobs.worker_is_alive(worker.home):
            return


def _wait(store: Store, worker: jobs.WorkerProcess, job: Job) -> Job:
    ended = job
    try:
        with Bar(job.kind) as bar:
            for ended in _watched(store, worker, job.id):
                bar.show_job(ended, waiting_for=len(store.jobs_before(job.id)))
    except KeyboardInterrupt:
        note(f"stopping job {job.id} ...")
        store.cancel_job(job.id, actor=config.user_name())
        deadline = time.monotonic() + CANCEL_WAIT_S
        for latest in _watched(store, worker, job.id):
            ended = latest
            if time.monotonic() > deadline:
                raise SaadiError(f"job {job.id} was told to stop and has not answered yet; see `saadi jobs`") from None
    return ended


def _watched(store: Store, worker: jobs.WorkerProcess, job_id: int) -> Iterator[Job]:
    """`jobs.wait_for`, with a worker that is started again when it dies."""
    starts, process = 0, None
    for job in jobs.wait_for(store, job_id):
        if job.is_active:
            worker.ensure()
            if worker.process is not process:
                starts, process = starts + 1, worker.process
            if starts > MAX_WORKER_STARTS and job.state == "queued" and job.attempt == 0:
                raise SaadiError(f"the worker ended {starts} times before it took job {job_id}; "
                                 "see worker.log in the data folder")
        yield job


class Bar:
    """Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, title: str) -> None:
        console = Console(stderr=True)
        self.title = title
        self.is_terminal = console.is_terminal
        self.progress = Progress(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
                                 TextColumn("{task.fields[note]}"), console=console, disable=not self.is_terminal, transient=True)
        self.task = self.progress.add_task(title, total=None, note="")
        self._last = time.monotonic()

    def show(self, step: int, total: int, message: str) -> None:
        """The form of a recipe's progress callback."""
        text = f"{step}/{total}, {message}" if total else message
        self.progress.update(self.task, completed=step, total=total or None, note=text)
        if not self.is_terminal and time.monotonic() - self._last > NOTE_EVERY_S:
            self._last = time.monotonic()
            note(f"{self.title}: {text}")

    def show_job(self, job: Job, *, waiting_for: int) -> None:
        """A job's row, with how long it may still take."""
        message = f"{waiting_for} jobs before this one" if waiting_for else job.message
        if job.eta_s is not None and job.is_active:
            message += f", {_duration(job.eta_s)} left"
        self.show(job.step, job.total, message)

    def stop(self) -> None:
        """Take the bar away."""
        self.progress.stop()

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
