"""Patients who withdraw: who has, what their data are in, and the way in and out."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from saadi.errors import BadInputError
from saadi.exports.selection import group_names
from saadi.records import Project, Withdrawal
from saadi.release.withdrawn import report
from saadi.store import Store
from ui.context import Context
from ui.payloads import Body


class WithdrawBody(Body):
    patient: Annotated[str, Field(max_length=40)]
    """By the name that exports use: group-000012."""
    reason: Annotated[str, Field(max_length=500)]


class RevokeBody(Body):
    reason: Annotated[str, Field(max_length=500)]


def build_router(context: Context) -> APIRouter:
    """Return the routes under /api for withdrawals."""
    router = APIRouter(prefix="/api")

    @router.get("/projects/{project_id}/withdrawals")
    def withdrawals(project_id: int) -> dict[str, Any]:
        """Everybody in the project, as imported and as exports name them, and the withdrawals, newest first."""
        with context.open() as store:
            images = store.images(store.project(project_id).id)
            names, gone = group_names(images), store.withdrawn_groups(project_id)
            counts: dict[str, int] = {}
            for image in images:
                counts[image.group_id] = counts.get(image.group_id, 0) + 1
            return {
                "patients": [{"patient": name, "group": group, "images": counts[group], "withdrawn": group in gone}
                             for group, name in names.items()],
                "items": [_view(record, names) for record in reversed(store.withdrawals(project_id))],
            }  # fmt: skip

    @router.get("/projects/{project_id}/withdrawals/trace")
    def trace(project_id: int, patient: Annotated[str, Query(max_length=40)]) -> dict[str, Any]:
        """Where data of a patient are; the same before they withdraw as after."""
        with context.open() as store:
            project = store.project(project_id)
            return report(store, project, _group(store, project, patient))

    @router.post("/projects/{project_id}/withdrawals")
    def withdraw(project_id: int, body: WithdrawBody) -> dict[str, Any]:
        with context.open() as store:
            project = store.project(project_id)
            group = _group(store, project, body.patient)
            record = store.withdraw(project_id, group, person=context.actor, reason=body.reason)
            return {"id": record.id, **report(store, project, group)}

    @router.post("/withdrawals/{withdrawal_id}/revoke")
    def revoke(withdrawal_id: int, body: RevokeBody) -> dict[str, Any]:
        with context.open() as store:
            record = store.revoke_withdrawal(withdrawal_id, person=context.actor, reason=body.reason)
            return _view(record, group_names(store.images(record.project_id)))

    return router


def _group(store: Store, project: Project, patient: str) -> str:
    found = next((group for group, name in group_names(store.images(project.id)).items() if name == patient), None)
    if found is None:
        raise BadInputError("this project has no such patient; reload the page and choose one of the list")
    return found


def _view(record: Withdrawal, names: dict[str, str]) -> dict[str, Any]:
    return {"id": record.id, "patient": names[record.group_id], "person": record.person, "reason": record.reason,
            "created_at": record.created_at, "revoked_by": record.revoked_by, "revoked_reason": record.revoked_reason,
            "revoked_at": record.revoked_at}  # fmt: skip
