"""Models, adapters, synthetic samples and their scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from saadi.errors import BadInputError, NotFoundError
from saadi.records import Adapter, Curation, Model, ModelKind, Sample, Score
from saadi.store import audit
from saadi.store.base import StoreBase
from saadi.store.connection import dump, new_id, now

SCORE_SQL = "SELECT scores.*, models.kind FROM scores JOIN models ON models.id = model_id"


class CandidateStore(StoreBase):
    """The part of the store that holds what models make and think."""

    def add_model(self, project_id: int, *, kind: ModelKind, architecture: dict[str, Any], file: str, metrics: dict[str, Any],
                  actor: str, parent_id: int | None = None, job_id: int | None = None, activate: bool = True) -> Model:
        """Add a version of weights; `activate` makes it the one in use. One model per job: a repeat gives the first."""
        with self.write() as db:
            if job_id is not None:
                for row in db.query("SELECT id FROM models WHERE job_id = ?", [job_id]):
                    return self.model(row["id"])
            if activate:
                db.execute("UPDATE models SET is_active = 0 WHERE project_id = ? AND kind = ?", [project_id, kind])
                if kind == "engine":  # an adapter belongs to the weights it was made for
                    db.execute("UPDATE adapters SET state = 'retired' WHERE project_id = ? AND state = 'accepted'", [project_id])
            model_id = new_id(db.table("models").insert({
                "project_id": project_id, "kind": kind, "architecture": dump(architecture), "file": file,
                "metrics": dump(metrics), "parent_id": parent_id, "job_id": job_id, "is_active": int(activate),
                "created_at": now()}))
            audit.append(db, actor=actor, action="model.add", subject=f"model:{model_id}", details={"kind": kind, "file": file})
        return self.model(model_id)

    def model(self, model_id: int) -> Model:
        for row in self.db.query("SELECT * FROM models WHERE id = ?", [model_id]):
            return _model(row)
        raise NotFoundError(f"no model {model_id}; see `saadi adapters`")

    def models(self, project_id: int, kind: ModelKind | None = None) -> list[Model]:
        """Oldest first."""
        found = self.db.query("SELECT * FROM models WHERE project_id = ? AND (? IS NULL OR kind = ?) ORDER BY id",
                              [project_id, kind, kind])
        return [_model(row) for row in found]

    def active_model(self, project_id: int, kind: ModelKind) -> Model | None:
        for row in self.db.query("SELECT * FROM models WHERE project_id = ? AND kind = ? AND is_active = 1", [project_id, kind]):
            return _model(row)
        return None

    def add_adapter(self, project_id: int, *, model_id: int, parent_id: int | None, file: str, scale: float,
                    config: dict[str, Any], metrics: dict[str, Any], actor: str, job_id: int | None = None) -> Adapter:
        """Add a candidate version; it takes effect only when accepted. One adapter per job: a repeat gives the first."""
        with self.write() as db:
            if job_id is not None:
                for row in db.query("SELECT id FROM adapters WHERE job_id = ?", [job_id]):
                    return self.adapter(row["id"])
            number = db.execute("SELECT count(*) + 1 FROM adapters WHERE project_id = ?", [project_id]).fetchone()[0]
            adapter_id = new_id(db.table("adapters").insert({
                "project_id": project_id, "model_id": model_id, "parent_id": parent_id, "name": f"v{number}", "file": file,
                "scale": scale, "config": dump(config), "metrics": dump(metrics), "state": "candidate", "job_id": job_id,
                "created_at": now()}))
            audit.append(db, actor=actor, action="adapter.add", subject=f"adapter:{adapter_id}", details={"file": file})
        return self.adapter(adapter_id)

    def adapter(self, adapter_id: int) -> Adapter:
        for row in self.db.query("SELECT * FROM adapters WHERE id = ?", [adapter_id]):
            return _adapter(row)
        raise NotFoundError(f"no adapter {adapter_id}; see `saadi adapters`")

    def adapters(self, project_id: int) -> list[Adapter]:
        """Oldest first."""
        return [_adapter(row) for row in self.db.query("SELECT * FROM adapters WHERE project_id = ? ORDER BY id", [project_id])]

    def accepted_adapter(self, project_id: int) -> Adapter | None:
        for row in self.db.query("SELECT * FROM adapters WHERE project_id = ? AND state = 'accepted'", [project_id]):
            return _adapter(row)
        return None

    def accept_adapter(self, adapter_id: int | None, *, project_id: int, actor: str, reason: str = "") -> None:
        """Make one adapter the version in use; None rolls back to the base model without any adapter. A repeat changes nothing.

        Raises:
            BadInputError: The adapter was made for other base weights than the active ones, or is a negative one.
        """
        with self.write() as db:
            if adapter_id is not None:
                adapter, engine = self.adapter(adapter_id), self.active_model(project_id, "engine")
                if adapter.project_id != project_id or engine is None or adapter.model_id != engine.id:
                    raise BadInputError(f"adapter {adapter.name} was made for other base weights; "
                                        "align again on the present ones")
                if adapter.config.get("negative") is not None:
                    raise BadInputError(f"{adapter.name} has learnt what is not wanted; it works in guidance only: "
                                        f"`generate --negative-adapter {adapter.id}`")
            before = self.accepted_adapter(project_id)
            if (before.id if before else None) == adapter_id:
                return
            db.execute("UPDATE adapters SET state = 'retired' WHERE project_id = ? AND state = 'accepted'", [project_id])
            if adapter_id is not None:
                db.execute("UPDATE adapters SET state = 'accepted' WHERE id = ?", [adapter_id])
            audit.append(db, actor=actor, action="adapter.accept", subject=f"adapter:{adapter_id or 'base'}",
                         details={"reason": reason, "project": project_id, "before": before.id if before else None})

    def reject_adapter(self, adapter_id: int, *, actor: str, reason: str = "") -> None:
        with self.write() as db:
            if self.adapter(adapter_id).state == "rejected":  # raises where there is none
                return
            db.execute("UPDATE adapters SET state = 'rejected' WHERE id = ?", [adapter_id])
            audit.append(db, actor=actor, action="adapter.reject", subject=f"adapter:{adapter_id}", details={"reason": reason})

    def adapter_exported(self, adapter_id: int, *, format: str, actor: str, despite_withdrawn: str | None = None) -> None:
        """Write down that an adapter, which has learnt from patients' images, was written to a folder."""
        with self.write() as db:
            audit.append(db, actor=actor, action="adapter.export", subject=f"adapter:{adapter_id}",
                         details={"format": format} | ({"despite_withdrawn": despite_withdrawn} if despite_withdrawn else {}))

    def add_sample(self, project_id: int, *, label_map_id: int, label_map_rev: int, label_map_blob: str, blob: str, seed: int,
                   engine: str, model_id: int, adapter_id: int | None, settings: dict[str, Any],
                   purpose: Literal["draw", "pool"], parent_id: int | None = None, source_blob: str | None = None,
                   is_composite: bool = False) -> Sample:
        """Add a synthetic image; the same recipe (weights, adapter, label map, seed, settings) gives the first one again.

        Args:
            source_blob: The picture of which only a part was made anew.
            is_composite: Some pixels of it are a real patient's.
        """
        recipe = sample_recipe(project_id, label_map_blob=label_map_blob, seed=seed, engine=engine, model_id=model_id,
                               adapter_id=adapter_id, settings=settings)
        with self.write() as db:
            if (known := self.sample_by_recipe(recipe)) is not None:
                return known
            self.need_blobs(blob, label_map_blob, source_blob)
            sample_id = new_id(db.table("samples").insert({
                "project_id": project_id, "label_map_id": label_map_id, "label_map_rev": label_map_rev,
                "label_map_blob": label_map_blob, "blob": blob, "seed": seed, "engine": engine, "model_id": model_id,
                "adapter_id": adapter_id, "settings": dump(settings), "purpose": purpose, "parent_id": parent_id,
                "source_blob": source_blob, "is_composite": int(is_composite),
                "curation": "pending", "recipe": recipe, "created_at": now()}))
        return self.sample(sample_id)

    def sample_by_recipe(self, recipe: str) -> Sample | None:
        for row in self.db.query("SELECT * FROM samples WHERE recipe = ?", [recipe]):
            return _sample(row)
        return None

    def sample(self, sample_id: int) -> Sample:
        for row in self.db.query("SELECT * FROM samples WHERE id = ?", [sample_id]):
            return _sample(row)
        raise NotFoundError(f"no sample {sample_id}; reload the page")

    def samples(self, project_id: int, *, curation: Curation | None = None, label_map_blob: str | None = None,
                purpose: Literal["draw", "pool"] | None = None, limit: int = -1, newest_first: bool = False) -> list[Sample]:
        order = "DESC" if newest_first else "ASC"
        found = self.db.query(
            "SELECT * FROM samples WHERE project_id = :p AND (:c IS NULL OR curation = :c) "
            f"AND (:m IS NULL OR label_map_blob = :m) AND (:u IS NULL OR purpose = :u) ORDER BY id {order} LIMIT :n",
            {"p": project_id, "c": curation, "m": label_map_blob, "u": purpose, "n": limit})
        return [_sample(row) for row in found]

    def samples_of_label_maps(self, label_map_ids: Sequence[int], *, limit: int = 2000) -> list[Sample]:
        """Made for any revision of these label maps, newest first."""
        marks = ",".join("?" * len(label_map_ids))
        found = self.db.query(f"SELECT * FROM samples WHERE label_map_id IN ({marks}) ORDER BY id DESC LIMIT ?",
                              [*label_map_ids, limit])
        return [_sample(row) for row in found]

    def unscored_samples(self, project_id: int, model_id: int) -> list[Sample]:
        found = self.db.query("SELECT * FROM samples WHERE project_id = ? AND id NOT IN "
                              "(SELECT sample_id FROM scores WHERE model_id = ?) ORDER BY id", [project_id, model_id])
        return [_sample(row) for row in found]

    def curate(self, sample_ids: Sequence[int], curation: Curation, *, actor: str) -> dict[int, Curation]:
        """Set the curation state of samples and return the states before, so that the change can be undone."""
        wanted = dump(list(sample_ids))  # one statement: 10,000 single reads and updates took seconds
        with self.write() as db:
            before = dict(db.execute("SELECT id, curation FROM samples WHERE id IN (SELECT value FROM json_each(?))", [wanted]))
            if missing := set(sample_ids) - set(before):
                raise NotFoundError(f"no sample {min(missing)}; reload the page")
            db.execute("UPDATE samples SET curation = ? WHERE id IN (SELECT value FROM json_each(?))", [curation, wanted])
            audit.append(db, actor=actor, action=f"sample.{curation}", subject=f"samples:{len(sample_ids)}",
                         details={"before": {str(key): value for key, value in before.items()}})
        return before

    def count_curation(self, project_id: int) -> dict[Curation, int]:
        """State -> number of samples; states without samples are left out."""
        return dict(self.db.execute("SELECT curation, count(*) FROM samples WHERE project_id = ? GROUP BY curation",
                                    [project_id]))

    def add_scores(self, scores: Iterable[Score]) -> None:
        """Store what a model thinks of samples; a score already there is kept."""
        scores = list(scores)
        with self.write() as db:
            self.need_blobs(*(score.prediction_blob for score in scores))
            db.table("scores").insert_all(
                ({"sample_id": s.sample_id, "model_id": s.model_id, "dice": s.dice, "iou": s.iou, "confidence": s.confidence,
                  "per_class": dump(s.per_class), "prediction_blob": s.prediction_blob, "created_at": now()} for s in scores),
                ignore=True)

    def scores(self, project_id: int, *, sample_id: int | None = None) -> list[Score]:
        """Scores by the active selector and judge."""
        own = "" if sample_id is None else " AND sample_id = :s"  # "(:s IS NULL OR ...)" would read the whole table
        found = self.db.query(f"{SCORE_SQL} WHERE models.project_id = :p AND models.is_active = 1{own} ORDER BY scores.id",
                              {"p": project_id} | ({} if sample_id is None else {"s": sample_id}))
        return [_score(row) for row in found]


def sample_recipe(project_id: int, **parts: Any) -> str:
    """Hash of everything that decides a sample's pixels."""
    return hashlib.sha256(dump({"project_id": project_id, **parts}).encode()).hexdigest()


def _model(row: dict[str, Any]) -> Model:
    return Model(id=row["id"], project_id=row["project_id"], kind=row["kind"], architecture=json.loads(row["architecture"]),
                 file=row["file"], metrics=json.loads(row["metrics"]), parent_id=row["parent_id"],
                 is_active=bool(row["is_active"]), created_at=row["created_at"])


def _adapter(row: dict[str, Any]) -> Adapter:
    kept = {key: row[key] for key in
            ("id", "project_id", "model_id", "parent_id", "name", "file", "scale", "state", "created_at")}
    return Adapter(**kept, config=json.loads(row["config"]), metrics=json.loads(row["metrics"]))


def _sample(row: dict[str, Any]) -> Sample:
    kept = {key: value for key, value in row.items() if key not in ("recipe", "settings", "is_composite")}
    return Sample(**kept, settings=json.loads(row["settings"]), is_composite=bool(row["is_composite"]))


def _score(row: dict[str, Any]) -> Score:
    kept = {key: row[key] for key in ("sample_id", "model_id", "kind", "dice", "iou", "confidence", "prediction_blob")}
    return Score(**kept, per_class=json.loads(row["per_class"]))
