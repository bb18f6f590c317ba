"""Fast paths for generation: looking at work while it runs, what was made before, and masks of earlier days."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field

from saadi import curation, orders, previews
from saadi.engines.appearance import MIN_PX, SIDE
from saadi.errors import NotFoundError, SaadiError, TooFewError
from saadi.inpainting import is_part
from saadi.mining import seen
from saadi.mining.weakness import in_numbers, worst
from saadi.orders.generating import known_weakness
from saadi.records import Job, Project, Sample
from saadi.store import Store
from ui.context import Context
from ui.lineage import badge_of
from ui.payloads import Body, Id, RequestId
from ui.views import job_view, label_map_view, sample_views

MAX_REFERENCES = 48
MIN_SHARE = MIN_PX / SIDE**2
"""Of an image; with less a class has no looks to speak of."""
MAX_GAPS = 3
"""Told in words; the picture shows all."""
MAX_IN_ROW = 16
"""Images of one generation that the history shows."""


class ClearOrders(Body):
    project_id: Id
    request_id: RequestId | None = None
    """Stopping twice is stopping once."""


class FromRevision(Body):
    label_map_id: Id
    rev: Annotated[int, Field(ge=1, le=2**31)]
    request_id: RequestId


def _reason(store: Store, project: Project) -> str:
    """Why it is not known what the selector misses: 'no_selector', 'too_few' unseen images, it has 'not_looked' yet, or
    they have 'nothing_shown'."""
    model = store.active_model(project.id, "selector")
    if model is None:
        return "no_selector"
    if not seen.unseen_by(model, seen.labelled(store, project)):
        return "too_few"
    return "nothing_shown" if seen.num_looked_at(store, project)[1] else "not_looked"


def _why_not(store: Store, project_id: int) -> str | None:
    """Why no hard images can be searched for; None where they can."""
    try:
        orders.MineOrder(project_id=project_id).check(store)
    except SaadiError as error:
        return str(error)
    return None


def build_router(context: Context) -> APIRouter:
    """Return the routes under /api for previews, history and revisions."""
    router = APIRouter(prefix="/api")

    @router.get("/projects/{project_id}/weakness")
    def weak_places(project_id: int) -> dict[str, Any]:
        """What the selector misses in real images that it has not learnt from, or why that is not known."""
        with context.open() as store:
            project = store.project(project_id)
            cannot_search = _why_not(store, project_id)
            try:
                found = known_weakness(store, project_id)
            except TooFewError:
                return {"missing": _reason(store, project), "classes": None, "gaps": [], "num_patients": 0, "num_images": 0,
                        "cannot_search": cannot_search}  # fmt: skip
            gaps = [{"class": project.class_names[gap.class_index], "axis": gap.axis, "name": gap.name,
                     "recall": round(gap.cell.recall, 4)} for gap in worst(found, MAX_GAPS)]  # fmt: skip
            patients, images = seen.num_looked_at(store, project)
            return {"missing": None, "classes": in_numbers(found, project.class_names), "gaps": gaps, "num_patients": patients,
                    "num_images": images, "cannot_search": cannot_search}  # fmt: skip

    @router.get("/projects/{project_id}/references")
    def references(project_id: int, class_index: int = Query(ge=0, le=99)) -> dict[str, Any]:
        """Training images that show a class, those with most of it first."""
        with context.open() as store:
            project = store.project(project_id)
            shown = seen.labelled(store, project, ["train"])
            shares = curation.mask_shares(store, [one.label_map_blob for one in shown])
            enough = [one for one in shown if shares[one.label_map_blob][class_index] >= MIN_SHARE]
            enough.sort(key=lambda one: -float(shares[one.label_map_blob][class_index]))
            return {"items": [{"id": one.image.id, "blob": one.image.blob, "name": one.image.source_name}
                              for one in enough[:MAX_REFERENCES]]}  # fmt: skip

    @router.get("/jobs/{job_id}/preview/{index}.jpg")
    def preview(job_id: int, index: int) -> Response:
        return Response(previews.read(context.home.job_dir(job_id), index), media_type="image/jpeg")

    @router.get("/jobs/{job_id}/made")
    def made(job_id: int, limit: int = Query(default=24, ge=1, le=200)) -> dict[str, Any]:
        """The last images that a job has finished, newest first, also before it ends."""
        with context.open() as store:
            job = store.job(job_id)
            ids = previews.made_so_far(context.home.job_dir(job_id)) if job.is_active else job.result.get("sample_ids", [])
            return {"count": len(ids), "items": sample_views(store, [store.sample(number) for number in ids[: -limit - 1 : -1]])}

    @router.post("/jobs/clear")
    def clear(body: ClearOrders) -> dict[str, Any]:
        """Stop one's own orders of drawings, waiting and running; pools and other people's work go on."""
        with context.open() as store:
            mine = [
                job
                for job in store.jobs(body.project_id, active_only=True, kind="generate", limit=1000)
                if job.created_by == context.actor and job.params.get("purpose") == "draw" and not job.cancel_requested
            ]
            stopped = [store.cancel_job(job.id, actor=context.actor) for job in mine]
            return {"stopped": [job_view(store, job) for job in stopped]}

    @router.get("/projects/{project_id}/generations")
    def generations(
        project_id: int,
        label_maps: str = Query(pattern="^[0-9]{1,18}(,[0-9]{1,18}){0,7}$"),
        limit: int = Query(default=24, ge=1, le=100),
    ) -> dict[str, Any]:
        """What was made for these label maps, all their revisions, newest first."""
        with context.open() as store:
            store.project(project_id)
            ids = [int(part) for part in label_maps.split(",")]
            if any(store.label_map(number).project_id != project_id for number in ids):
                raise NotFoundError("this mask belongs to another project; reload the page")
            samples = {sample.id: sample for sample in store.samples_of_label_maps(ids)}
            views, seen = [], set[tuple[int, ...]]()
            for job in store.jobs_of_label_maps(ids, limit=limit):
                own = tuple(number for number in job.result.get("sample_ids", []) if number in samples)
                # The same order again gave the same images; the newest mention is enough.
                if own and own not in seen:
                    seen.add(own)
                    views.append(_generation(store, job, [samples[number] for number in own]))
            return {"items": views}

    @router.post("/label_maps/from_revision")
    def from_revision(body: FromRevision) -> dict[str, Any]:
        """A new label map with the pixels of an earlier revision; the old one stays as it is."""
        with context.open() as store:
            record = store.label_map(body.label_map_id)
            blob = next((row["blob"] for row in store.label_map_history(record.id) if row["rev"] == body.rev), None)
            if blob is None:
                raise NotFoundError(f"mask {record.id} has no revision {body.rev}; reload the page")
            name = f"{record.name[:100]} (revision {body.rev})"
            copied = store.add_label_map(
                record.project_id,
                blob=blob,
                name=name,
                author=context.actor,
                request_id=body.request_id,
                origin="drawn",
                underlay_id=record.image_id or record.underlay_id,
            )
            return label_map_view(copied)

    return router


def _generation(store: Store, job: Job, samples: list[Sample]) -> dict[str, Any]:
    """One order as the history shows it; settings as they were asked for, so that they can be asked for again."""
    params, first = job.params, samples[0]
    adapter = params.get("adapter", "none")
    return {
        "job_id": job.id,
        "finished_at": job.finished_at,
        "created_by": job.created_by,
        "purpose": first.purpose,
        "label_map_id": first.label_map_id,
        "label_map_rev": first.label_map_rev,
        "label_map_blob": first.label_map_blob,
        "seed": first.seed,
        "settings": params.get("settings", {}),
        "num_inference_steps": first.settings.get("num_inference_steps"),
        "adapter": adapter,
        "version": "base" if isinstance(adapter, str) else store.adapter(int(adapter)).name,
        "part": params.get("inpaint"),
        "samples": [_small(sample) for sample in samples[:MAX_IN_ROW]],
    }


def _small(sample: Sample) -> dict[str, Any]:
    return {
        "id": sample.id,
        "blob": sample.blob,
        "seed": str(sample.seed),
        "label_map_blob": sample.label_map_blob,
        "adapter_id": sample.adapter_id,
        "source_blob": sample.source_blob,
        "is_part": is_part(sample),
        "badge": badge_of(sample),
    }
