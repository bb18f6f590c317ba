"""Fast paths for what leaves the program: exports that were made, and each as a zip."""

from __future__ import annotations

import os
import tempfile
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from saadi import orders
from saadi.errors import NotFoundError
from saadi.exports.selection import refusals
from saadi.records import Job
from saadi.release import texts
from saadi.release.withdrawn import TIES
from saadi.store.releases import is_there
from ui.context import Context
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

    @router.get("/projects/{project_id}/exports/{export_id}.zip")
    def download(project_id: int, export_id: int) -> FileResponse:
        with context.open() as store:
            record = next((item for item in store.exports(project_id) if item.id == export_id), None)
            if record is None or not is_there(record):
                raise NotFoundError("this export is no longer in its folder; export again")
            store.downloaded(record.id, actor=context.actor)
        archive = _zipped(Path(record.path), context.home.path / "tmp")
        name = f"{Path(record.path).name}.zip"
        return FileResponse(
            archive, media_type="application/zip", filename=name, background=BackgroundTask(archive.unlink, missing_ok=True)
        )

    return router


def _export_message(jobs: list[Job], export_id: int, path: str) -> str | None:
    """The sentence with which the export's job ended, which says what was verified."""
    return next((job.message for job in jobs if job.result.get("export_id") == export_id or job.result.get("path") == path), None)


def _zipped(folder: Path, temporary_dir: Path) -> Path:
    """Pack a folder without compression (PNG is compressed already) and return the archive's path."""
    temporary_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=temporary_dir, suffix=".zip")
    with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                archive.write(path, Path(folder.name) / path.relative_to(folder))
    return Path(name)
