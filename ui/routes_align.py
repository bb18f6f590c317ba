"""Fast paths around an alignment: what it would do, its curves, going on with it, the blind test, and the tree of versions."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Query

from saadi import orders
from saadi.alignment import acceptance, resume, trial
from saadi.records import Adapter, AuditRow, Project, Trial
from saadi.store import Store
from ui.context import Context
from ui.payloads import AnswerTrial, ContinueJob
from ui.views import adapter_view, asked_classes, job_view, told_class

MAX_POINTS = 300
"""Of one curve sent to the page; a chart is 300 pixels wide."""


def build_router(context: Context) -> APIRouter:
    """Return the routes under /api for plan, progress, continuation, trials and versions."""
    router = APIRouter(prefix="/api")

    @router.get("/projects/{project_id}/alignment")
    def plan(project_id: int) -> dict[str, Any]:
        from saadi.alignment.plan import plan  # here, because scikit-learn and evalica would slow the start

        with context.open() as store:
            return plan(store, store.project(project_id))

    @router.get("/projects/{project_id}/pairs")
    def settled_pairs(
        project_id: int,
        who: str = Query(default="all", max_length=20),
        first: int = Query(default=0, ge=0, le=10_000_000),
        count: int = Query(default=12, ge=1, le=200),
    ) -> dict[str, Any]:
        """Which pairs the next alignment would learn from, and who decided each; nothing is frozen."""
        from saadi import settled

        with context.open() as store:
            return settled.page(store, store.project(project_id), who=who, first=first, count=count)

    @router.get("/alignments/{job_id}")
    def progress(job_id: int) -> dict[str, Any]:
        """A job with the curves and pictures of those that it goes on with, and from which step it can be continued."""
        with context.open() as store:
            job = store.job(job_id)
            metrics: dict[str, dict[int, float]] = defaultdict(dict)
            images: dict[tuple[str, int], str] = {}
            for part in resume.chain(store, job):
                for name, points in store.job_metrics(part.id).items():
                    metrics[name] |= dict(points)
                images |= {(name, step): blob for name, step, blob in store.job_images(part.id)}
            return job_view(store, job) | {
                "params": job.params,
                "metrics": {name: thinned(sorted(points.items())) for name, points in metrics.items()},
                "images": [(name, step, blob) for (name, step), blob in sorted(images.items(), key=lambda item: item[0][1])],
                "continue_from": resume.checkpoint_step(store, job),
            }

    @router.get("/projects/{project_id}/alignments/last")
    def last(project_id: int) -> dict[str, Any]:
        """The newest alignment, where it was stopped or failed; None where it is done or there was none."""
        with context.open() as store:
            found = store.jobs(project_id, kind="align", limit=1)
            return {"job": job_view(store, found[0]) if found and found[0].state in ("cancelled", "failed") else None}

    @router.post("/jobs/{job_id}/continue")
    def go_on(job_id: int, body: ContinueJob) -> dict[str, Any]:
        """Queue the same frozen order again, from the checkpoint of a stopped or failed alignment."""
        with context.open() as store:
            running = store.jobs(store.job(job_id).project_id, active_only=True, kind="align", limit=1)
            if running:
                return {"job": job_view(store, running[0]), "is_new": False}
            wanted = resume.continued(store, store.job(job_id))
            job, is_new = orders.place(store, wanted, actor=context.actor, request_id=body.request_id)
            return {"job": job_view(store, job), "is_new": is_new}

    @router.get("/adapters/{adapter_id}/trial")
    def trial_pairs(adapter_id: int) -> dict[str, Any]:
        """Pairs that this reviewer has not answered yet; nothing in them tells the old from the new."""
        with context.open() as store:
            adapter = store.adapter(adapter_id)
            mine = store.trials(adapter.project_id, adapter_id=adapter_id, voter=context.actor)
            answered = {(item.old_blob, item.new_blob) for item in mine}
            pairs = trial.pairs_for(adapter, context.actor)
            asked = asked_classes(store, adapter.project_id, [pair.label_map_blob for pair in pairs])
            return {
                "total": len(pairs),
                "pairs": [
                    {
                        "pair": pair.index,
                        "left": pair.new_blob if pair.new_is_left else pair.old_blob,
                        "right": pair.old_blob if pair.new_is_left else pair.new_blob,
                        "label_map_blob": pair.label_map_blob,
                    }
                    | told_class(asked, pair.label_map_blob)
                    for pair in pairs
                    if (pair.old_blob, pair.new_blob) not in answered
                ],
            }

    @router.post("/trials")
    def answer_trial(body: AnswerTrial) -> dict[str, Any]:
        with context.open() as store:
            pair = trial.pair_for(store.adapter(body.adapter_id), context.actor, body.pair)
            stored = store.add_trial(
                body.adapter_id,
                label_map_blob=pair.label_map_blob,
                old_blob=pair.old_blob,
                new_blob=pair.new_blob,
                new_is_left=pair.new_is_left,
                answer=body.answer,
                voter=context.actor,
                request_id=body.request_id,
                response_ms=body.response_ms,
            )
            return {"trial_id": stored.id}

    @router.get("/adapters/{adapter_id}/trial/result")
    def trial_result(adapter_id: int) -> dict[str, Any]:
        with context.open() as store:
            found = store.trials(store.adapter(adapter_id).project_id, adapter_id=adapter_id)
            mine = [item for item in found if item.voter == context.actor]
            return {"mine": trial.outcome(mine), "all": trial.outcome(found)}

    @router.get("/projects/{project_id}/versions")
    def versions(project_id: int) -> dict[str, Any]:
        """The tree of versions, newest first, each with its acceptance card and who decided what about it, and why."""
        with context.open() as store:
            return versions_view(store, store.project(project_id), context.actor)

    return router


def thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most about `MAX_POINTS` points, evenly spread, the last one always among them."""
    every = -(-len(points) // MAX_POINTS)
    return [point for index, point in enumerate(points) if index % every == 0 or index == len(points) - 1]


def versions_view(store: Store, project: Project, voter: str) -> dict[str, Any]:
    engine = store.active_model(project.id, "engine")
    trials: dict[int, list[Trial]] = defaultdict(list)
    for item in store.trials(project.id):
        trials[item.adapter_id].append(item)
    decisions: dict[str, list[AuditRow]] = defaultdict(list)
    for row in store.adapter_decisions(project.id):
        decisions[row.subject].append(row)
    return {
        "engine_id": engine.id if engine else None,
        "generators": [{"id": model.id, "created_at": model.created_at} for model in store.models(project.id, "engine")],
        "base": _decision(decisions.get("adapter:base", [])),
        "items": [
            version_view(adapter, project, trials[adapter.id], decisions[f"adapter:{adapter.id}"], voter)
            for adapter in reversed(store.adapters(project.id))
        ],
    }


def version_view(
    adapter: Adapter, project: Project, trials: list[Trial], decisions: list[AuditRow], voter: str
) -> dict[str, Any]:
    view = adapter_view(adapter)
    people = trial.outcome(trials) if trials else None
    found = acceptance.questions(adapter.metrics, project.class_names, people)
    pairs = trial.pairs_for(adapter, voter)
    answered = {(item.old_blob, item.new_blob) for item in trials if item.voter == voter}
    return view | {
        "questions": [asdict(question) for question in found],
        "headline": acceptance.headline(found, is_open=adapter.state == "candidate" and not orders.is_negative(adapter)),
        "trial": people,
        "trial_pairs": len(pairs),
        "trial_left": sum((pair.old_blob, pair.new_blob) not in answered for pair in pairs),
        "decision": _decision(decisions),
    }


def _decision(rows: list[AuditRow]) -> dict[str, Any] | None:
    """The last word on a version."""
    if not rows:
        return None
    last = rows[-1]
    return {
        "who": last.actor,
        "what": "accepted" if last.action == "adapter.accept" else "turned down",
        "why": last.details.get("reason", ""),
        "created_at": last.created_at,
    }
