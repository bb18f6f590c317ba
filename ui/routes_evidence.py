"""Routes of the Evidence tab: measurements that ran, the one that runs, and how long the next one would take."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from saadi import orders
from saadi.errors import SaadiError
from saadi.evidence.pace import estimated_minutes
from ui.context import Context
from ui.payloads import PlanEvidence
from ui.views import job_view


def build_router(context: Context) -> APIRouter:
    """Return the routes under /api for measurements of the gain."""
    router = APIRouter(prefix="/api")

    @router.get("/projects/{project_id}/evidence")
    def runs(project_id: int) -> dict[str, Any]:
        """Newest first: each measurement with its order, and its table or the arms that it has measured so far."""
        with context.open() as store:
            store.project(project_id)
            return {
                "labelled": store.count_labelled(project_id),
                "runs": [
                    job_view(store, job)
                    | {"params": job.params, "result": job.result or None}
                    | {"arms": {} if job.result else _arms_so_far(store.job_metrics(job.id))}
                    for job in store.jobs(project_id, kind="evidence")
                ],
            }

    @router.post("/projects/{project_id}/evidence/plan")
    def plan(project_id: int, body: PlanEvidence) -> dict[str, Any]:
        """Minutes that an order would take here, or why it cannot be carried out."""
        with context.open() as store:
            try:
                wanted = orders.order(orders.EvidenceOrder, project_id=project_id, **body.values)
                wanted.check(store)
            except SaadiError as error:
                return {"minutes": None, "missing": str(error)}
            done = [job for job in store.jobs(project_id, kind="evidence") if job.state == "done"]
            return {"minutes": estimated_minutes(wanted.model_dump(), done), "missing": None}

    return router


def _arms_so_far(curves: dict[str, list[tuple[int, float]]]) -> dict[str, float]:
    """Mean over the seeds measured so far."""
    return {name: round(sum(value for _, value in points) / len(points), 4) for name, points in curves.items()}
