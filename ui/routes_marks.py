"""Fast paths for favourites and flags."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter

from saadi.errors import BadInputError
from ui.context import Context
from ui.payloads import Body, Id, RequestId


class SetMark(Body):
    project_id: Id
    sample_id: Id
    kind: Literal["favourite", "flag"]
    on: bool
    request_id: RequestId | None = None
    """Setting a mark twice is setting it once, so a resend needs no memory."""


def build_router(context: Context) -> APIRouter:
    """Return the routes under /api for marks."""
    router = APIRouter(prefix="/api")

    @router.get("/projects/{project_id}/marks")
    def marks(project_id: int) -> dict[str, Any]:
        with context.open() as store:
            store.project(project_id)
            return {"items": [asdict(mark) for mark in store.marks(project_id)], "me": context.actor}

    @router.post("/samples/mark")
    def set_mark(body: SetMark) -> dict[str, Any]:
        with context.open() as store:
            if store.sample(body.sample_id).project_id != body.project_id:
                raise BadInputError(f"sample {body.sample_id} belongs to another project; reload the page")
            store.set_mark(body.sample_id, body.kind, on=body.on, person=context.actor)
        return {"sample_id": body.sample_id, "kind": body.kind, "on": body.on}

    return router
