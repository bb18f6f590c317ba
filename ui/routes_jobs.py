"""Fast paths for work: order, watch and stop jobs; which version is in use."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Query

from saadi import orders
from saadi.errors import BadInputError, NotFoundError
from saadi.records import Job
from saadi.store import Store
from ui.context import Context
from ui.payloads import ChooseAdapter, PlaceOrder
from ui.views import adapter_view, job_view, model_view

MAX_ACTIVE = 200
"""Of the queue, so many are sent to the page."""
ORDERS: dict[str, type[orders.Order]] = {
    "draw": orders.DrawOrder,
    # Alignment and import have routes of their own.
    **{kind: orders.ORDERS[kind] for kind in ("fit", "generate", "train_scorer", "score", "predict", "export", "map",
                                               "evidence", "fit_masks", "suggest_masks", "mine", "surrogates", "refine",
                                               "audit", "text_check")},
}


def build_router(context: Context) -> APIRouter:
    """Return the routes under /api for jobs, orders and adapters."""
    router = APIRouter(prefix="/api")

    @router.get("/jobs")
    def jobs(project_id: int | None = None, limit: int = Query(default=20, ge=1, le=200)) -> dict[str, Any]:
        """Active jobs of the whole data folder (they share one worker) in their turn, and the last ones of the project."""
        with context.open() as store:
            queue = store.queue()
            before = {job.id: queue[:place] for place, job in enumerate(queue)}
            return {
                "active": [job_view(store, job, before=before[job.id], viewer=context.actor) for job in queue[:MAX_ACTIVE]],
                "recent": [job_view(store, job, before=before.get(job.id)) for job in store.jobs(project_id, limit=limit)],
            }

    @router.get("/jobs/{job_id}")
    def job(job_id: int) -> dict[str, Any]:
        with context.open() as store:
            return job_view(store, store.job(job_id), full=True, viewer=context.actor)

    @router.post("/jobs/{job_id}/cancel")
    def cancel(job_id: int) -> dict[str, Any]:
        with context.open() as store:
            store.job(job_id)
            return job_view(store, store.cancel_job(job_id, actor=context.actor))

    @router.post("/orders/align")
    def order_align(body: PlaceOrder) -> dict[str, Any]:
        """Freeze the pairs as they are now and align on them; while one alignment runs, show that one."""
        with context.open() as store:
            running = store.jobs(body.project_id, active_only=True, kind="align", limit=1)
            if running:
                return {"job": job_view(store, running[0]), "is_new": False}
            from saadi.pairing import build_pairs

            built = build_pairs(store, body.project_id, actor=context.actor)
            wanted = orders.order(orders.AlignOrder, **{**body.values, "project_id": body.project_id, "pair_set_id": built.id})
            return _placed(store, *orders.place(store, wanted, actor=context.actor, request_id=body.request_id))

    @router.post("/orders/rounds")
    def order_rounds(body: PlaceOrder) -> dict[str, Any]:
        """Several alignments one after the other, each with a pool of its own; starts with the first pool."""
        from saadi.alignment.rounds import first_order

        if unknown := set(body.values) - {"rounds", "masks", "candidates", "seed", "settings"}:
            raise BadInputError(f"rounds take rounds, masks, candidates, seed and settings; got {min(unknown)[:20]!r}")
        with context.open() as store:
            project = store.project(body.project_id)
            wanted = first_order(project.id, **{"rounds": 2, **body.values})
            return _placed(store, *orders.place(store, wanted, actor=context.actor, request_id=body.request_id))

    @router.post("/orders/{kind}")
    def order(kind: str, body: PlaceOrder) -> dict[str, Any]:
        if kind not in ORDERS:
            raise NotFoundError(f"no such order {kind[:20]!r}; there are: {', '.join(ORDERS)}, align")
        if "out_dir" in body.values:
            raise BadInputError("the page exports into the data folder; use the command line for another place")
        with context.open() as store:
            store.project(body.project_id)
            wanted = orders.order(ORDERS[kind], **{**body.values, "project_id": body.project_id})
            return _placed(store, *orders.place(store, wanted, actor=context.actor, request_id=body.request_id))

    @router.get("/projects/{project_id}/adapters")
    def adapters(project_id: int) -> dict[str, Any]:
        with context.open() as store:
            store.project(project_id)
            return {
                "items": [adapter_view(adapter) for adapter in reversed(store.adapters(project_id))],
                "engine": model_view(store.active_model(project_id, "engine")),
            }

    @router.post("/adapters/choose")
    def choose_adapter(body: ChooseAdapter) -> dict[str, Any]:
        with context.open() as store:
            if body.decision == "accept":
                store.accept_adapter(body.adapter_id, project_id=body.project_id, actor=context.actor, reason=body.reason)
            elif body.adapter_id is None or store.adapter(body.adapter_id).project_id != body.project_id:
                raise BadInputError("only a version of this project can be turned down; reload the page")
            else:
                store.reject_adapter(body.adapter_id, actor=context.actor, reason=body.reason)
            return {"items": [adapter_view(adapter) for adapter in reversed(store.adapters(body.project_id))]}

    return router


def _placed(store: Store, job: Job, is_new: bool) -> dict[str, Any]:
    return {"job": job_view(store, job, viewer=job.created_by), "is_new": is_new}
