"""What moves a generator's start noise towards images that are hard for a selector."""

from __future__ import annotations

import json
from typing import Any

from saadi.errors import NotFoundError
from saadi.records import NoiseShiftModel
from saadi.store import audit
from saadi.store.base import StoreBase
from saadi.store.connection import dump, new_id, now


class NoiseShiftStore(StoreBase):
    """The part of the store that holds learnt start noise; of a generator, its adapter and a selector the newest is in use."""

    def add_noise_shift(self, project_id: int, *, model_id: int, adapter_id: int | None, selector_id: int,
                        architecture: dict[str, Any], file: str, metrics: dict[str, Any], actor: str,
                        job_id: int | None = None) -> NoiseShiftModel:
        """Add a version. One per job: a repeat gives the first."""
        with self.write() as db:
            if job_id is not None:
                for row in db.query("SELECT * FROM noise_shifts WHERE job_id = ?", [job_id]):
                    return _noise_shift(row)
            shift_id = new_id(db.table("noise_shifts").insert({
                "project_id": project_id, "model_id": model_id, "adapter_id": adapter_id, "selector_id": selector_id,
                "architecture": dump(architecture), "file": file, "metrics": dump(metrics), "job_id": job_id,
                "created_at": now()}))
            audit.append(db, actor=actor, action="noise_shift.add", subject=f"noise_shift:{shift_id}", details={"file": file})
        return self.noise_shift(shift_id)

    def noise_shift(self, shift_id: int) -> NoiseShiftModel:
        """Raises: NotFoundError: there is none."""
        for row in self.db.query("SELECT * FROM noise_shifts WHERE id = ?", [shift_id]):
            return _noise_shift(row)
        raise NotFoundError(f"no learnt start {shift_id}; learn one with `saadi mine --learned`")

    def noise_shifts(self, project_id: int) -> list[NoiseShiftModel]:
        """Oldest first."""
        return [_noise_shift(row) for row in self.db.query("SELECT * FROM noise_shifts WHERE project_id = ? ORDER BY id",
                                                           [project_id])]  # fmt: skip


def _noise_shift(row: dict[str, Any]) -> NoiseShiftModel:
    return NoiseShiftModel(**{**row, "architecture": json.loads(row["architecture"]), "metrics": json.loads(row["metrics"])})
