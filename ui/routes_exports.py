"""Fast paths for what leaves the program: exports that were made, and each as a zip."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from saadi import orders
from saadi.errors import NotFoundError
from saadi.exports.archive import Archive
from saadi.exports.selection import refusals
from saadi.records import ExportRecord, Job
from saadi.release import texts
from saadi.release.withdrawn import TIES
from saadi.store.releases import is_there
from ui.context import Context
from ui.ranges import asked_range
from ui.routes_release import summary


def build_router(context: Context) -> APIRouter:
    """Return the routes under /api for exports."""
    router = APIRouter(prefix="/api")

    @router.get("/projects/{project_id}/exports")
    def exports(project_id: int) -> dict[str, Any]:
        with context.open() as store:
            project = store.project(project_id)
            measured = orders.refinement(store, project_id)
            audits = {one.export_id: one for one in store.disclosures(project_id)}
            by_id = {one.id: one for one in store.disclosures(project_id)}
            releases = {one.export_id: asdict(one) | {"signed": summary(by_id.get(one.disclosure_id or 0))}
                        for one in store.releases(project_id)}  # fmt: skip
            finished = [job for job in store.jobs(project_id, kind="export", limit=200) if job.state == "done"]
            tied, samples = store.withdrawn_exports(), store.standing_trace(project_id).samples
            shown = {item.blob for item in texts.shown_in(store, project)}
            return {
                "refinement": measured,
                "num_tied": sum(samples.get(row.id) == "version" for row in store.samples(project_id, curation="accepted"))
                if samples else 0,
                "num_tied_pairs": sum(tie == "version" for tie in samples.values()),
                "texts": {"shown": len(shown), "held": len(store.held_texts(shown))},
                "num_refused": len(refusals(store, project, store.samples(project_id, curation="accepted"))),
                "items": [
                    {
                        "id": record.id,
                        "format": record.format,
                        "path": record.path,
                        "num_items": record.num_items,
                        "manifest_sha256": record.manifest_sha256,
                        "created_at": record.created_at,
                        "is_there": is_there(record),
                        "message": _export_message(finished, record.id, record.path),
                        "audit": summary(audits.get(record.id)),
                        "release": releases.get(record.id),
                        "withdrawn": [f"{count} {TIES[tie][count != 1]}" for tie in TIES
                                      if (count := tied.get(record.id, {}).get(tie, 0))],
                    }
                    for record in reversed(store.exports(project_id))
                ]
            }

    @router.api_route("/projects/{project_id}/exports/{export_id}.zip", methods=["GET", "HEAD"])
    def download(project_id: int, export_id: int, request: Request) -> Response:
        with context.open() as store:
            record = next((item for item in store.exports(project_id) if item.id == export_id), None)
            if record is None or not is_there(record):
                raise NotFoundError("this export is no longer in its folder; export again")
            store.refuse_withdrawn(export_id)
        return _download(context, record, request)

    return router


def _export_message(jobs: list[Job], export_id: int, path: str) -> str | None:
    """The sentence with which the export's job ended, which says what was verified."""
    return next((job.message for job in jobs if job.result.get("export_id") == export_id or job.result.get("path") == path), None)


def _download(context: Context, record: ExportRecord, request: Request) -> Response:
    """The archive or a part of it. The audit trail gets a line for each download, not for each part of one."""
    folder = Path(record.path)
    archive = Archive(folder, crcs=_crcs(record.manifest_sha256))
    etag = f'"{record.manifest_sha256}"'
    headers = {"Accept-Ranges": "bytes", "ETag": etag, "Content-Disposition": _attachment(f"{folder.name}.zip")}
    asked = asked_range(request.headers, size=archive.size, etag=etag)
    start, end = asked or (0, archive.size)
    headers["Content-Length"] = str(end - start)
    if asked is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{archive.size}"
    if request.method == "HEAD":
        return Response(status_code=206 if asked else 200, headers=headers, media_type="application/zip")
    with context.open() as store:
        if start == 0 or not store.was_downloaded(record.id, actor=context.actor):
            store.downloaded(record.id, actor=context.actor)
    return StreamingResponse(archive.read(start, end), 206 if asked else 200, headers, "application/zip")


@lru_cache(maxsize=4)
def _crcs(manifest_sha256: str) -> dict[int, int]:
    """Checksums of one export's files as far as they have been read, for downloads that go on; the manifest decides of what."""
    return {}


def _attachment(name: str) -> str:
    plain = "".join(char if char.isascii() and (char.isalnum() or char in "-_. ") else "_" for char in name)
    return f"attachment; filename=\"{plain}\"; filename*=utf-8''{quote(name, safe='')}"
