"""What an export reveals, as a dialog and as a report, and the signature that lets it go."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import Field

from saadi.errors import NotFoundError
from saadi.exports.card import Audited, card
from saadi.exports.facts import facts_of
from saadi.exports.manifest import ITEMS, MANIFEST
from saadi.records import Disclosure, ExportRecord
from saadi.release import texts
from saadi.release.report import CAUTION, HEADLINES, html, marks, measures
from saadi.store import Store
from saadi.store.releases import is_there
from ui.context import Context
from ui.payloads import Blob, Body, Id

NUM_PICTURES = 12
"""Flagged images that are shown, the nearest first."""


class ReleaseBody(Body):
    disclosure_id: Id
    """The audit that was read."""
    reason: Annotated[str, Field(max_length=500)]
    despite: bool = False


class HarmlessBody(Body):
    blobs: Annotated[list[Blob], Field(min_length=1, max_length=1000)]
    is_harmless: bool = True
    """False takes it back."""


class NeverLeftBody(Body):
    reason: Annotated[str, Field(max_length=500)]


def summary(record: Disclosure | None) -> dict[str, Any] | None:
    """What a list tells of an audit."""
    if record is None:
        return None
    findings = record.findings
    return {"id": record.id, "verdict": findings["verdict"], "headline": HEADLINES[findings["verdict"]],
            "why": (findings["reasons"] or findings["open_questions"] or [None])[0], "created_at": record.created_at}  # fmt: skip


def build_router(context: Context) -> APIRouter:
    """Return the routes under /api for audits and releases of exports."""
    router = APIRouter(prefix="/api")

    def newest(store: Store, export_id: int) -> tuple[ExportRecord, Disclosure]:
        export = store.export(export_id)
        audits = store.disclosures(export.project_id, export_id=export_id)
        if not audits:
            raise NotFoundError("nobody has looked yet at what this export reveals; audit it first")
        return export, audits[-1]

    @router.get("/exports/{export_id}/audit")
    def audit(export_id: int) -> dict[str, Any]:
        with context.open() as store:
            export, record = newest(store, export_id)
            findings = record.findings
            images = {image.id: image.blob for image in store.images(export.project_id)}
            return {
                **(summary(record) or {}), "reasons": findings["reasons"], "open_questions": findings["open_questions"],
                "caution": CAUTION, "num_earlier": len(findings["earlier_exports"]), "num_flagged": len(findings["flagged"]),
                "marks": [line._asdict() for line in marks(findings)],
                "texts": _texts(store, findings.get("texts", {}).get("found", ())),
                "own": [line._asdict() for line in measures(findings["own"])],
                "union": [line._asdict() for line in measures(findings["union"])], "variety": findings["variety"],
                "flagged": [{"name": one["name"], "blob": one["blob"], "image_id": one["image_id"],
                             "image_blob": images.get(one["image_id"])} for one in findings["flagged"][:NUM_PICTURES]],
            }  # fmt: skip

    @router.get("/exports/{export_id}/audit.html")
    def report(export_id: int) -> Response:
        """The report as a file, for those who decide elsewhere."""
        with context.open() as store:
            export, record = newest(store, export_id)
            page = html(store, store.project(export.project_id), record)
        headers = {"Content-Disposition": f'attachment; filename="audit-of-export-{export_id:04d}.html"'}
        return Response(page, media_type="text/html; charset=utf-8", headers=headers)

    @router.get("/exports/{export_id}/card.html")
    def dataset_card(export_id: int) -> Response:
        """The card of the export as it lies in its folder, with what its newest audit found."""
        with context.open() as store:
            export = store.export(export_id)
            listed, described = Path(export.path) / ITEMS, Path(export.path) / MANIFEST
            if not listed.is_file() or not is_there(export):
                raise NotFoundError("this export is no longer in its folder; export again")
            project, manifest = store.project(export.project_id), json.loads(described.read_text(encoding="utf-8"))
            rows = [json.loads(line) for line in listed.read_text(encoding="utf-8").splitlines()]
            facts = facts_of(store, project, rows, format=export.format, left_out=manifest["left_out"], lost=manifest["lost"])
            audits = store.disclosures(export.project_id, export_id=export_id)
            told = None
            if audits:
                found = audits[-1].findings
                told = Audited(HEADLINES[found["verdict"]], found["verdict"], found["reasons"], measures(found["own"]))
            page = card(facts, project, audit=told)
        policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
        return Response(page, media_type="text/html; charset=utf-8", headers=policy)

    @router.get("/projects/{project_id}/texts")
    def shown_texts(project_id: int) -> dict[str, Any]:
        """Real and accepted images that show text."""
        with context.open() as store:
            found = texts.texts_of(store, texts.shown_in(store, store.project(project_id)))["found"]
            return {"items": _texts(store, found)}

    @router.post("/texts/harmless")
    def call_harmless(body: HarmlessBody) -> dict[str, Any]:
        with context.open() as store:
            store.clear_texts(body.blobs, person=context.actor, is_harmless=body.is_harmless)
            return {"held": sorted(store.held_texts(body.blobs))}

    @router.post("/exports/{export_id}/release")
    def release(export_id: int, body: ReleaseBody) -> dict[str, Any]:
        with context.open() as store:
            return asdict(store.release(export_id, disclosure_id=body.disclosure_id, person=context.actor, reason=body.reason,
                                        despite=body.despite))  # fmt: skip

    @router.post("/exports/{export_id}/never-left")
    def never_left(export_id: int, body: NeverLeftBody) -> dict[str, Any]:
        with context.open() as store:
            return asdict(store.never_left(export_id, person=context.actor, reason=body.reason))

    return router


def _texts(store: Store, found: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those that are held first; who has cleared the others as of now."""
    found = list(found)
    looks = store.texts(one["blob"] for one in found)
    told = [{**one, "cleared_by": looks[one["blob"]].cleared_by if one["blob"] in looks else None} for one in found]
    return sorted(told, key=lambda one: (one["cleared_by"] is not None, one["name"]))
