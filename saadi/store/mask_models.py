"""Mask generators: weights, and the label maps that they were fitted to and draw from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from saadi.errors import NotFoundError
from saadi.records import MaskModel
from saadi.store import audit
from saadi.store.base import StoreBase
from saadi.store.connection import dump, new_id, now


class MaskModelStore(StoreBase):
    """The part of the store that holds what draws label maps; the newest one of a project is in use."""

    def add_mask_model(self, project_id: int, *, architecture: dict[str, Any], file: str, bases: Sequence[str],
                       metrics: dict[str, Any], actor: str, job_id: int | None = None) -> MaskModel:
        """Add a version. One per job: a repeat gives the first.

        Args:
            bases: Label map blobs that it was fitted to.
        """
        with self.write() as db:
            if job_id is not None:
                for row in db.query("SELECT * FROM mask_models WHERE job_id = ?", [job_id]):
                    return _mask_model(row)
            self.need_blobs(*bases)
            model_id = new_id(db.table("mask_models").insert({
                "project_id": project_id, "architecture": dump(architecture), "file": file, "bases": dump(list(bases)),
                "metrics": dump(metrics), "job_id": job_id, "created_at": now()}))
            audit.append(db, actor=actor, action="mask_model.add", subject=f"mask_model:{model_id}", details={"file": file})
        return self.mask_model(model_id)

    def mask_model(self, model_id: int) -> MaskModel:
        """Raises: NotFoundError: there is none."""
        for row in self.db.query("SELECT * FROM mask_models WHERE id = ?", [model_id]):
            return _mask_model(row)
        raise NotFoundError(f"no mask generator {model_id}; fit one with `saadi fit-masks`")

    def mask_models(self, project_id: int) -> list[MaskModel]:
        """Oldest first."""
        return [_mask_model(row) for row in self.db.query("SELECT * FROM mask_models WHERE project_id = ? ORDER BY id",
                                                          [project_id])]  # fmt: skip

    def newest_mask_model(self, project_id: int) -> MaskModel | None:
        """The newest one that draws from no mask of a patient who has withdrawn."""
        held = {row[0] for row in self.db.execute(
            "SELECT r.blob FROM images AS i JOIN label_maps AS m ON m.image_id = i.id OR m.underlay_id = i.id "
            "JOIN label_map_revisions AS r ON r.label_map_id = m.id WHERE i.project_id = ? AND i.withdrawn_from IS NOT NULL",
            [project_id])}  # fmt: skip
        return next((model for model in reversed(self.mask_models(project_id)) if not held & set(model.bases)), None)


def _mask_model(row: dict[str, Any]) -> MaskModel:
    return MaskModel(id=row["id"], project_id=row["project_id"], architecture=json.loads(row["architecture"]), file=row["file"],
                     bases=tuple(json.loads(row["bases"])), metrics=json.loads(row["metrics"]), job_id=row["job_id"],
                     created_at=row["created_at"])
