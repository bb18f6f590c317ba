"""The job table: one row per job, one job running at a time, every update fenced by worker and attempt."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from saadi.errors import FencedError, NotFoundError
from saadi.records import Job
from saadi.store import audit
from saadi.store.base import StoreBase
from saadi.store.connection import dump, new_id, now

MAX_ATTEMPTS = 3
OWNED = "id = :id AND worker = :worker AND attempt = :attempt AND state = 'running'"


class JobStore(StoreBase):
    """The part of the store that holds work; `saadi.jobs` runs it."""

    def add_job(self, kind: str, params: Mapping[str, Any], *, project_id: int | None, actor: str, request_id: str,
                unique_key: str | None = None, priority: int = 0, total: int = 0) -> tuple[Job, bool]:
        """Queue a job.

        Args:
            request_id: From the form; a resend gives the first answer.
            unique_key: Hash of what the job would do; while such a job waits, runs or is done, it is the answer.
            priority: Higher runs first; generation for a waiting person is above training.

        Returns:
            The job, and True where it is new.
        """
        with self.write() as db:
            known = db.execute("SELECT id FROM jobs WHERE request_id = ? OR (unique_key = ? AND "
                               "state IN ('queued', 'running', 'done'))", [request_id, unique_key]).fetchone()
            if known:
                return self.job(known[0]), False
            job_id = new_id(db.table("jobs").insert({
                "project_id": project_id, "kind": kind, "params": dump(dict(params)), "request_id": request_id,
                "unique_key": unique_key, "state": "queued", "priority": priority, "attempt": 0, "step": 0, "total": total,
                "message": "waiting", "result": "{}", "cancel_requested": 0, "created_by": actor, "created_at": now()}))
            audit.append(db, actor=actor, action=f"job.{kind}", subject=f"job:{job_id}")
        return self.job(job_id), True

    def job(self, job_id: int) -> Job:
        for row in self.db.query("SELECT * FROM jobs WHERE id = ?", [job_id]):
            return _job(row)
        raise NotFoundError(f"no job {job_id}; see `saadi jobs`")

    def jobs(self, project_id: int | None = None, *, active_only: bool = False, kind: str | None = None,
             limit: int = 50) -> list[Job]:
        """Newest first."""
        found = self.db.query("SELECT * FROM jobs WHERE (:p IS NULL OR project_id = :p) AND (:k IS NULL OR kind = :k) "
                              "AND (:a = 0 OR state IN ('queued', 'running')) ORDER BY id DESC LIMIT :n",
                              {"p": project_id, "k": kind, "a": int(active_only), "n": limit})
        return [_job(row) for row in found]

    def cancel_job(self, job_id: int, *, actor: str) -> Job:
        """Ask a job to stop: a waiting one is cancelled at once, a running one at its next step, an ended one stays."""
        with self.write() as db:
            self.job(job_id)  # raises where there is none
            db.execute("UPDATE jobs SET state = 'cancelled', message = 'cancelled before it began', finished_at = ?, "
                       "cancel_requested = 1 WHERE id = ? AND state = 'queued'", [now(), job_id])
            db.execute("UPDATE jobs SET cancel_requested = 1 WHERE id = ? AND state = 'running'", [job_id])
            audit.append(db, actor=actor, action="job.cancel", subject=f"job:{job_id}")
        return self.job(job_id)

    def is_cancel_requested(self, job_id: int) -> bool:
        """Whether somebody pressed stop; False where there is no such job."""
        row = self.db.execute("SELECT cancel_requested FROM jobs WHERE id = ?", [job_id]).fetchone()
        return bool(row and row[0])

    def queue(self) -> list[Job]:
        """The running job and those that wait, of all projects, in the order in which they run."""
        found = self.db.query("SELECT * FROM jobs WHERE state IN ('queued', 'running') ORDER BY state DESC, priority DESC, id")
        return [_job(row) for row in found]

    def jobs_before(self, job_id: int) -> list[Job]:
        """The jobs that come before a waiting one, in the order in which they run; none where it does not wait."""
        queue = self.queue()
        place = next((place for place, job in enumerate(queue) if job.id == job_id and job.state == "queued"), 0)
        return queue[:place]

    def jobs_of_label_maps(self, label_map_ids: Sequence[int], *, limit: int = 30) -> list[Job]:
        """The last finished generations for any of these label maps, newest first."""
        if not label_map_ids:
            return []
        marks = ",".join("?" * len(label_map_ids))
        found = self.db.query(
            "SELECT * FROM jobs WHERE kind = 'generate' AND state = 'done' AND EXISTS (SELECT 1 FROM "
            f"json_each(params, '$.label_map_ids') WHERE value IN ({marks})) ORDER BY id DESC LIMIT ?", [*label_map_ids, limit])
        return [_job(row) for row in found]

    # What follows is called by the worker only; it holds the worker lock, so nobody else runs jobs.

    def requeue_orphans(self) -> list[Job]:
        """Jobs left running by a worker that died go back into the queue, or fail after the third attempt."""
        with self.write() as db:
            orphans = [row["id"] for row in db.query("SELECT id FROM jobs WHERE state = 'running'")]
            db.execute("UPDATE jobs SET state = 'cancelled', worker = NULL, eta_s = NULL, finished_at = ?, "
                       "message = 'cancelled' WHERE state = 'running' AND cancel_requested = 1", [now()])
            db.execute("UPDATE jobs SET state = 'failed', worker = NULL, eta_s = NULL, finished_at = :now, message = 'stopped', "
                       "error = 'the worker died ' || attempt || ' times while it ran this job (out of memory?); "
                       "see the worker log' WHERE state = 'running' AND attempt >= :max", {"now": now(), "max": MAX_ATTEMPTS})
            db.execute("UPDATE jobs SET state = 'queued', worker = NULL, eta_s = NULL, message = 'resuming after a restart' "
                       "WHERE state = 'running'")
        return [self.job(job_id) for job_id in orphans]

    def claim_job(self, worker: str) -> Job | None:
        """Take the next job, or None when there is none."""
        if not self.db.execute("SELECT 1 FROM jobs WHERE state = 'queued' LIMIT 1").fetchone():
            return None
        with self.write() as db:
            row = db.execute("SELECT id FROM jobs WHERE state = 'queued' AND NOT EXISTS (SELECT 1 FROM jobs WHERE "
                             "state = 'running') ORDER BY priority DESC, id LIMIT 1").fetchone()
            if row is None:
                return None
            db.execute("UPDATE jobs SET state = 'running', worker = ?, attempt = attempt + 1, started_at = ?, "
                       "message = 'starting' WHERE id = ?", [worker, now(), row[0]])
        return self.job(row[0])

    def set_job_params(self, job: Job, params: Mapping[str, Any]) -> Job:
        """Complete a running job's order before its first step."""
        with self.write() as db:
            db.execute(f"UPDATE jobs SET params = :params WHERE {OWNED}", self._owner(job) | {"params": dump(dict(params))})
        return self.job(job.id)

    def release_job(self, job: Job, *, message: str = "resuming after a restart") -> None:
        """Give a running job back, because the worker was asked to end or another job goes first; that is no death, so the
        attempt is not counted."""
        with self.write() as db:
            db.execute(f"UPDATE jobs SET state = 'queued', worker = NULL, eta_s = NULL, attempt = attempt - 1, "
                       f"message = :message WHERE {OWNED}", self._owner(job) | {"message": message})

    def is_overtaken(self, job_id: int) -> bool:
        """Whether a job of higher priority waits; a read of microseconds."""
        waits = "SELECT 1 FROM jobs WHERE state = 'queued' AND priority > (SELECT priority FROM jobs WHERE id = ?) LIMIT 1"
        return self.db.execute(waits, [job_id]).fetchone() is not None

    def report_job(self, job: Job, *, step: int, total: int, message: str, eta_s: float | None,
                   metrics: Mapping[str, float] | None = None, images: Mapping[str, str] | None = None) -> bool:
        """Write progress, live curves and live pictures; returns True when the user asked to stop.

        Raises:
            FencedError: This worker no longer owns the job.
        """
        with self.write() as db:
            changed = db.execute(f"UPDATE jobs SET step = :step, total = :total, message = :message, eta_s = :eta WHERE {OWNED}",
                                 self._owner(job) | {"step": step, "total": total, "message": message, "eta": eta_s}).rowcount
            if not changed:
                raise FencedError(f"job {job.id} was taken over; attempt {job.attempt} stops")
            for name, value in (metrics or {}).items():
                if not math.isfinite(value):  # SQLite would make NULL of NaN and refuse the row; a curve has no place for it
                    continue
                db.execute("INSERT OR REPLACE INTO job_metrics VALUES (?, ?, ?, ?)", [job.id, name, step, float(value)])
            for name, blob in (images or {}).items():
                db.execute("INSERT OR REPLACE INTO job_images VALUES (?, ?, ?, ?)", [job.id, name, step, blob])
            return bool(db.execute("SELECT cancel_requested FROM jobs WHERE id = ?", [job.id]).fetchone()[0])

    def finish_job(self, job: Job, *, state: str, message: str, result: Mapping[str, Any] | None = None,
                   error: str | None = None, traceback: str | None = None) -> None:
        """End a job. Call inside the `write()` that publishes its output, so that both happen or neither.

        Raises:
            FencedError: This worker no longer owns the job; the surrounding transaction is rolled back.
        """
        with self.write() as db:
            changed = db.execute(
                f"UPDATE jobs SET state = :state, worker = NULL, message = :message, result = :result, error = :error, "
                f"eta_s = NULL, traceback = :traceback, finished_at = :now, "
                f"step = CASE WHEN :state = 'done' THEN total ELSE step END WHERE {OWNED}",
                self._owner(job) | {"state": state, "message": message, "result": dump(dict(result or {})), "error": error,
                                    "traceback": traceback, "now": now()}).rowcount
            if not changed:
                raise FencedError(f"job {job.id} was taken over; attempt {job.attempt} publishes nothing")

    def job_metrics(self, job_id: int) -> dict[str, list[tuple[int, float]]]:
        """Curve name -> [(step, value), ...] by step."""
        curves: dict[str, list[tuple[int, float]]] = {}
        for row in self.db.query("SELECT name, step, value FROM job_metrics WHERE job_id = ? ORDER BY name, step", [job_id]):
            curves.setdefault(row["name"], []).append((row["step"], row["value"]))
        return curves

    def job_images(self, job_id: int) -> list[tuple[str, int, str]]:
        """(name, step, blob) by step, for the live strip."""
        return [(row["name"], row["step"], row["blob"]) for row in
                self.db.query("SELECT name, step, blob FROM job_images WHERE job_id = ? ORDER BY step, name", [job_id])]

    def job_traceback(self, job_id: int) -> str | None:
        row = self.db.execute("SELECT traceback FROM jobs WHERE id = ?", [job_id]).fetchone()
        return row[0] if row else None

    @staticmethod
    def _owner(job: Job) -> dict[str, Any]:
        return {"id": job.id, "worker": job.worker, "attempt": job.attempt}


def _job(row: dict[str, Any]) -> Job:
    dropped = ("request_id", "unique_key", "priority", "traceback")
    kept = {key: value for key, value in row.items() if key not in dropped}
    return Job(**(kept | {"params": json.loads(row["params"]), "result": json.loads(row["result"]),
                          "cancel_requested": bool(row["cancel_requested"])}))
