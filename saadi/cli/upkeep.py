"""Commands that look after the data folder: jobs, cancel, doctor, backup, bench, and the worker itself."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import structlog
import typer

from saadi import config, jobs
from saadi.cli.common import HomeOption, JsonOption, answer, home_of, note
from saadi.config import Home
from saadi.records import Job
from saadi.store import Store


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("jobs")(list_jobs)
    app.command("cancel")(cancel)
    app.command("doctor")(doctor)
    app.command("backup")(backup)
    app.command("bench")(bench)
    app.command("worker", hidden=True)(worker)


def list_jobs(active: Annotated[bool, typer.Option("--active", help="Only those that wait or run.")] = False,
              home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List jobs, newest first."""
    with Store.open(home_of(home)) as store:
        found = store.jobs(active_only=active)
        names = {project.id: project.name for project in store.projects()}
    answer({"jobs": [_row(job, names) for job in found]}, as_json=as_json,
           lines=lambda: [_line(job, names) for job in found] or ["no jobs"])


def cancel(job_id: Annotated[int, typer.Argument(metavar="JOB", help="Number of the job; see `saadi jobs`.")],
           home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Stop a job: a waiting one at once, a running one after its present step."""
    with Store.open(home_of(home)) as store:
        before = store.job(job_id)
        job = store.cancel_job(job_id, actor=config.user_name()) if before.is_active else before
    text = f"job {job_id} had ended already ({job.state})" if not before.is_active else \
        f"job {job_id} {'stops after its present step' if job.is_active else 'is cancelled'}"
    answer({"job": job.id, "state": job.state, "cancel_requested": job.cancel_requested}, as_json=as_json, lines=lambda: [text])


def doctor(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Look at everything that can be broken; exit status 1 when something is."""
    from saadi import doctor as examination

    checks = examination.examine(home_of(home))
    is_healthy = all(check.ok for check in checks)
    answer({"ok": is_healthy, "checks": [{"name": c.name, "ok": c.ok, "message": c.message} for c in checks]}, as_json=as_json,
           lines=lambda: [f"{'ok  ' if c.ok else 'FAIL'}  {c.name}: {c.message}" for c in checks])
    if not is_healthy:
        note("; ".join(f"{check.name}: {check.message}" for check in checks if not check.ok))
        raise typer.Exit(1)


def backup(file: Annotated[Path, typer.Argument(metavar="FILE", help="New file for the copy of the database.")],
           home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Write a checked copy of the database while everything goes on; pixels and weights are plain files beside it."""
    with Store.open(home_of(home)) as store:
        store.backup(file)
        size = file.stat().st_size
        folders = [str(store.home.blobs), str(store.home.files)]
    answer({"file": str(file), "bytes": size, "copy_also": folders}, as_json=as_json,
           lines=lambda: [f"{file} ({size:,} bytes); copy these folders after it: {', '.join(folders)}"])


def bench(names: Annotated[list[str] | None, typer.Argument(help="Benchmarks to run; default: all.")] = None,
          out: Annotated[Path | None, typer.Option("--out", help="JSON file for the results.")] = None,
          home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Run the benchmarks; prints ratios and writes JSON."""
    from saadi import bench as benchmarks

    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        result = benchmarks.main(names or [], out)
    if as_json:
        answer(result, as_json=True)


def worker(home: HomeOption = None,
           exit_when_idle: Annotated[bool, typer.Option("--exit-when-idle", help="End once the queue is empty.")] = False,
           parent: Annotated[int | None, typer.Option(help="End once this process is gone and no job waits.")] = None) -> None:
    """Run the jobs of a data folder, one after the other."""
    _prepare_process()
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True),
                    structlog.processors.JSONRenderer()],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr))
    folder = home_of(home)
    from saadi.datasets.readers import archive
    from saadi.worker import HANDLERS

    # What a killed page, command or job has unpacked; whatever is in use is locked and stays.
    archive.sweep([folder.path / "tmp", *folder.jobs.glob("[0-9]*")])

    # A one-off worker has a job waiting; the page's worker has time to load its engine before somebody draws.
    on_start = None if exit_when_idle else (lambda: _warm_up(folder))
    held = jobs.run_worker(folder, HANDLERS, exit_when_idle=exit_when_idle, parent_pid=parent, on_start=on_start)
    if not held:
        note("another worker holds this data folder already; nothing to do")


def _prepare_process() -> None:
    """Threads and offline mode, before anything imports torch or a hub client; an orderly end on SIGTERM."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(config.num_threads())
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

    def end(number: int, frame: FrameType | None) -> None:
        # Unwinds through the open transaction (rolled back) and the running job (given back to the queue).
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)


def _warm_up(home: Home) -> None:
    from saadi import generation

    generation.warm_up(home)


def _row(job: Job, names: dict[int, str]) -> dict[str, Any]:
    return {"id": job.id, "project": names.get(job.project_id or 0), "kind": job.kind, "state": job.state, "step": job.step,
            "total": job.total, "message": job.message, "error": job.error, "attempt": job.attempt, "eta_s": job.eta_s,
            "result": job.result, "created_at": job.created_at, "finished_at": job.finished_at}


def _line(job: Job, names: dict[int, str]) -> str:
    progress = f"{job.step}/{job.total}" if job.total else ""
    project = names.get(job.project_id or 0, "")
    return f"{job.id:>5}  {job.state:<9} {job.kind:<13} {project:<16} {progress:<12} {job.error or job.message}"
