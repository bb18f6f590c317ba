"""All fast paths: plain routes (p50 about 1 ms) beside Gradio; a queued Gradio event would cost 32-96 ms."""

from __future__ import annotations

from fastapi import APIRouter, Response

from saadi.errors import NotFoundError
from ui import (
    pictures,
    routes_align,
    routes_curate,
    routes_evidence,
    routes_exports,
    routes_generate,
    routes_jobs,
    routes_library,
    routes_masks,
    routes_pool,
    routes_release,
    routes_review,
    routes_segment,
    routes_withdrawals,
)
from ui.context import STATIC_DIR, Context

STATIC_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


def build_router(context: Context) -> APIRouter:
    """Return every own route; each opens its own store."""
    router = APIRouter()
    parts = (
        pictures,
        routes_library,
        routes_masks,
        routes_segment,
        routes_pool,
        routes_release,
        routes_review,
        routes_curate,
        routes_generate,
        routes_jobs,
        routes_align,
        routes_exports,
        routes_evidence,
        routes_withdrawals,
    )
    for part in parts:
        router.include_router(part.build_router(context))

    @router.get("/healthz")
    def healthz() -> dict[str, bool]:
        return {"ok": True}

    @router.get("/favicon.ico")
    def favicon() -> Response:
        return Response(
            (STATIC_DIR / "icon.svg").read_bytes(),
            media_type=STATIC_TYPES[".svg"],
            headers={"Cache-Control": "private, max-age=86400"},
        )

    @router.get("/static/{version}/{name}")
    def static(version: str, name: str) -> Response:
        # The name is looked up among the files that are there, so no path can be built from it.
        path = next((entry for entry in STATIC_DIR.iterdir() if entry.name == name and entry.suffix in STATIC_TYPES), None)
        if path is None:
            raise NotFoundError("no such file; reload the page")
        fresh = version == context.static_version
        headers = {"Cache-Control": "private, max-age=31536000, immutable" if fresh else "no-store"}
        return Response(path.read_bytes(), media_type=STATIC_TYPES[path.suffix], headers=headers)

    return router
