"""Fast paths of the smart click: an image is opened, a click or a box becomes a mask. Nothing is stored here."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter
from pydantic import Field

from saadi import masks
from saadi.config import MAX_SIDE_PX
from saadi.errors import BadInputError
from saadi.segmentation.base import MAX_CLICKS, Box, Prompt
from saadi.segmentation.service import SmartClick, Status
from ui.context import Context
from ui.payloads import Blob, Body, pack

Coordinate = Annotated[float, Field(ge=-MAX_SIDE_PX, le=2 * MAX_SIDE_PX, allow_inf_nan=False)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE_PX)]


class OpenImage(Body):
    image_blob: Blob


class SmartPrompt(Body):
    """Points and box in pixels of the label map, which may be of another size than the image below it."""

    image_blob: Blob
    w: Side
    h: Side
    points: list[tuple[Coordinate, Coordinate, bool]] = Field(default=[], max_length=MAX_CLICKS)
    """(x, y, is on the object), in the order of the clicks."""
    box: tuple[Coordinate, Coordinate, Coordinate, Coordinate] | None = None
    number: int = Field(ge=0, le=2**53)
    """Given back: the page drops answers that come after a newer one."""
    is_preview: bool = False


def build_router(context: Context) -> APIRouter:
    """Return the routes under /api/segment. They run in the thread pool, so a slow answer keeps nobody else waiting."""
    router = APIRouter(prefix="/api/segment")
    smart = SmartClick(context.home.blobs)

    @router.post("/open")
    def open_image(body: OpenImage) -> dict[str, Any]:
        """Start the embedding where there is SAM; asked again while it is on its way, the state changes."""
        return status_view(smart.open(body.image_blob))

    @router.post("/click")
    def click(body: SmartPrompt) -> dict[str, Any]:
        height, width = smart.image(body.image_blob).shape[:2]
        if any(not (0 <= x < body.w and 0 <= y < body.h) for x, y, _ in body.points):
            raise BadInputError(f"a click lies outside the mask of {body.w} x {body.h} pixels; click on the image")
        prompt = scaled(body, size=(width, height))
        found = smart.segment(body.image_blob, prompt, is_preview=body.is_preview)
        chosen = masks.fit_to(found.mask.astype(np.uint8), size=(body.h, body.w))
        return {
            "number": body.number,
            "mask": pack(chosen),
            "pixels": int(chosen.sum()),
            "method": found.method,
            "why": found.why,
            "score": found.score,
        }

    return router


def scaled(body: SmartPrompt, *, size: tuple[int, int]) -> Prompt:
    """The prompt in pixels of an image of (width, height)."""
    fx, fy = size[0] / body.w, size[1] / body.h
    clicks = tuple((min(x * fx, size[0] - 1e-3), min(y * fy, size[1] - 1e-3), is_on) for x, y, is_on in body.points)
    box: Box | None = None
    if body.box is not None:
        x0, y0, x1, y1 = body.box
        box = (x0 * fx, y0 * fy, x1 * fx, y1 * fy)
    return Prompt(clicks, box)


def status_view(status: Status) -> dict[str, Any]:
    return {"state": status.state, "method": status.method, "words": status.words}
