"""Fast paths for what people draw: label maps with autosave."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from saadi import masks
from saadi.config import MAX_SIDE_PX
from saadi.errors import BadInputError, ConflictError
from saadi.records import Project
from saadi.store import Store
from ui.context import Context
from ui.payloads import NewLabelMap, SaveLabelMap, pack, unpack
from ui.views import label_map_view


def build_router(context: Context) -> APIRouter:
    """Return the routes under /api for label maps."""
    router = APIRouter(prefix="/api")

    @router.get("/projects/{project_id}/drawings")
    def drawings(project_id: int) -> dict[str, Any]:
        """Label maps that belong to no real image, the last touched first."""
        with context.open() as store:
            store.project(project_id)
            free = [record for record in store.label_maps(project_id) if record.image_id is None and record.origin != "sampled"]
            return {
                "items": [label_map_view(record) for record in sorted(free, key=lambda record: record.updated_at, reverse=True)]
            }

    @router.get("/labels/{blob}")
    def labels(
        blob: str, w: int = Query(ge=1, le=MAX_SIDE_PX), h: int = Query(ge=1, le=MAX_SIDE_PX)
    ) -> dict[str, Any]:
        """Pixels of any label map, a model's too, scaled (nearest neighbour) to (w, h)."""
        with context.open() as store:
            return {"w": w, "h": h, "labels": pack(masks.fit_to(store.label_map_pixels(blob), size=(h, w)))}

    @router.get("/label_maps/{label_map_id}")
    def label_map(label_map_id: int) -> dict[str, Any]:
        with context.open() as store:
            return _with_pixels(store, label_map_id)

    @router.post("/label_maps")
    def new_label_map(body: NewLabelMap) -> dict[str, Any]:
        with context.open() as store:
            project = store.project(body.project_id)
            _need_masks(project)
            size = _size_for(store, project, image_id=body.image_id, copy_of=body.copy_of)
            if body.attach and body.image_id is None:
                raise BadInputError("a mask can only be attached to a real image; name the image")
            drawn = np.zeros(size, np.uint8) if body.labels is None else unpack(body.labels, size=size)
            blob = store.blobs.put_label_map(masks.validate(drawn, num_classes=len(project.classes), size=size))
            made = store.add_label_map(
                project.id,
                blob=blob,
                name=body.name,
                author=context.actor,
                request_id=body.request_id,
                origin="drawn",
                image_id=body.image_id if body.attach else None,
                underlay_id=None if body.attach else body.image_id or _picture_under(store, body.copy_of),
            )
            return _with_pixels(store, made.id)

    @router.post("/label_maps/save")
    def save_label_map(body: SaveLabelMap) -> Any:
        with context.open() as store:
            record = store.label_map(body.label_map_id)
            project = store.project(record.project_id)
            _need_masks(project)
            size = store.label_map_pixels(record.blob).shape
            drawn = unpack(body.labels, size=size)
            num_classes = len(project.classes)
            blob = store.blobs.put_label_map(masks.validate(drawn, num_classes=num_classes, size=size))
            try:
                saved = store.save_label_map(record.id, blob=blob, rev=body.rev, author=context.actor, request_id=body.request_id)
            except ConflictError as error:
                return JSONResponse(
                    {"error": str(error), "theirs": _with_pixels(store, record.id), "yours": body.labels}, status_code=409
                )
            return label_map_view(saved)

    return router


def _need_masks(project: Project) -> None:
    """Raises: BadInputError: The images of this project have a class each, and no masks."""
    if project.task == "classification":
        raise BadInputError(f"{project.name} has classes of whole images and nothing to draw; choose a class in Generate")


def _picture_under(store: Store, copy_of: int | None) -> int | None:
    """The image of a mask of which this is another version: one of a validation or test patient stays known as such."""
    if copy_of is None:
        return None
    record = store.label_map(copy_of)
    return record.image_id or record.underlay_id


def _with_pixels(store: Store, label_map_id: int) -> dict[str, Any]:
    record = store.label_map(label_map_id)
    pixels = store.label_map_pixels(record.blob)
    return label_map_view(record) | {"w": pixels.shape[1], "h": pixels.shape[0], "labels": pack(pixels)}


def _size_for(store: Store, project: Project, *, image_id: int | None, copy_of: int | None) -> tuple[int, int]:
    """(height, width) of a label map or a real image of this project; without either, the project's square."""
    image = store.image(image_id) if image_id is not None else None
    if image is not None and image.project_id != project.id:
        raise BadInputError(f"image {image_id} belongs to another project; reload the page")
    if copy_of is not None:
        record = store.label_map(copy_of)
        if record.project_id != project.id:
            raise BadInputError(f"label map {copy_of} belongs to another project; reload the page")
        height, width = store.label_map_pixels(record.blob).shape
        return height, width
    return (image.height, image.width) if image is not None else (project.resolution, project.resolution)
