"""Fast paths for what people bring: projects, images, folder import."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Query

from saadi import orders
from saadi.errors import BadInputError
from saadi.records import LabelClass
from ui import folder_import
from ui.context import Context
from ui.payloads import ImportFolder, NewProject, ScanFolder
from ui.views import class_areas, image_view, job_view, overview, project_view

CLASS_COLORS = ("#d55e00", "#009e73", "#f0e442", "#56b4e9", "#0072b2", "#cc79a7", "#e69f00", "#999999")
"""Okabe and Ito 2008, plus grey; they repeat after eight classes, the names stay beside them."""


def build_router(context: Context) -> APIRouter:
    """Return the routes under /api for projects and images."""
    router = APIRouter(prefix="/api")
    looks = folder_import.Looks()

    @router.get("/start")
    def start() -> dict[str, Any]:
        with context.open() as store:
            return {
                "user": context.actor,
                "people": sorted({context.user, context.actor, *store.people()}, key=str.casefold),
                "notice": context.notice,
                "projects": [project_view(project) for project in store.projects()],
            }

    @router.get("/projects/{project_id}/overview")
    def project_overview(project_id: int) -> dict[str, Any]:
        with context.open() as store:
            return overview(store, store.project(project_id), context.actor)

    @router.post("/projects")
    def create_project(body: NewProject) -> dict[str, Any]:
        is_classification = body.task == "classification"
        names = [*([] if is_classification else ["background"]), *body.classes]
        if len(set(names)) != len(names):
            there = "" if is_classification else " (background is there already)"
            raise BadInputError(f"two classes have the same name; give each class its own{there}")
        if len(names) < 2:
            raise BadInputError(f"a classifier needs two classes to tell apart, got {len(names)}; name another one")
        hues = [CLASS_COLORS[index % len(CLASS_COLORS)] for index in range(len(body.classes))]
        colors = hues if is_classification else ["#000000", *hues]
        classes = [LabelClass(index, name, color) for index, (name, color) in enumerate(zip(names, colors, strict=True))]
        with context.open() as store:
            made = store.create_project(
                body.name.strip(), task=body.task, classes=classes, resolution=body.resolution, actor=context.actor
            )
            return project_view(made)

    @router.get("/projects/{project_id}/images")
    def images(
        project_id: int, offset: int = Query(default=0, ge=0), limit: int = Query(default=500, ge=1, le=5000)
    ) -> dict[str, Any]:
        with context.open() as store:
            store.project(project_id)
            found = store.images(project_id, limit=limit, offset=offset)
            maps = {record.id: record for record in store.label_maps(project_id)}
            return {"items": [image_view(image, maps.get(image.label_map_id or 0)) for image in found]}

    @router.get("/projects/{project_id}/class_areas")
    def areas(project_id: int) -> dict[str, Any]:
        with context.open() as store:
            return class_areas(store, store.project(project_id))

    @router.post("/import/scan")
    def scan_folder(body: ScanFolder) -> dict[str, Any]:
        with context.open() as store, looks.one(body.look_id) as report:
            return folder_import.preview(store.project(body.project_id), body, context.home.path / "tmp", report)

    @router.get("/import/scan/{look_id}")
    def scan_progress(look_id: str) -> dict[str, Any]:
        return looks.told(look_id)

    @router.post("/import/scan/{look_id}/stop")
    def stop_scan(look_id: str) -> dict[str, Any]:
        looks.stop(look_id)
        return {}

    @router.post("/import/run")
    def import_folder(body: ImportFolder) -> dict[str, Any]:
        with context.open() as store:
            job, _ = orders.place(store, folder_import.wanted(body), actor=context.actor, request_id=body.request_id)
            return {"job": job_view(store, job)}

    return router
