"""Rows that many tests need, made through the store's own methods."""

from __future__ import annotations

import uuid

import numpy as np

from saadi.records import LabelMapRecord, Model, Project, Sample
from saadi.store import Store


def new_request() -> str:
    """What a form sends along."""
    return uuid.uuid4().hex


def add_label_map(store: Store, project: Project, *, value: int = 1, size_px: int = 16) -> LabelMapRecord:
    """A drawing with a square of one class."""
    pixels = np.zeros((size_px, size_px), np.uint8)
    pixels[4:8, 4:8] = value
    return store.add_label_map(project.id, blob=store.blobs.put_label_map(pixels), name="square", author="ann",
                               request_id=new_request(), origin="drawn")


def add_engine(store: Store, project: Project, *, content: bytes = b"weights") -> Model:
    """An engine whose weights are a few bytes."""
    return store.add_model(project.id, kind="engine", architecture={"width": 8}, file=store.files.put(content), metrics={},
                           actor="test")


def add_samples(store: Store, project: Project, *, count: int = 2, label_map: LabelMapRecord | None = None) -> list[Sample]:
    """Synthetic images of one label map that differ by seed."""
    drawing = label_map or add_label_map(store, project)
    model = store.active_model(project.id, "engine") or add_engine(store, project)
    return [store.add_sample(
        project.id, label_map_id=drawing.id, label_map_rev=drawing.rev, label_map_blob=drawing.blob,
        blob=store.blobs.put_image(np.full((16, 16, 3), seed % 256, np.uint8)), seed=seed, engine="compact", model_id=model.id,
        adapter_id=None, settings={"num_inference_steps": 4}, purpose="pool") for seed in range(count)]


def count(store: Store, table: str, where: str = "1") -> int:
    """Number of rows; for tests only."""
    return int(store.db.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()[0])


def add_many_samples(store: Store, project: Project, *, count: int, num_blobs: int = 40) -> list[int]:
    """Thousands of rows in one transaction, sharing a few pictures and masks; returns their ids."""
    first = add_samples(store, project, count=num_blobs)
    rows = [dict(row) for row in store.db.query("SELECT * FROM samples WHERE project_id = ? ORDER BY id", [project.id])]
    rows = [row for row in rows if row["id"] in {sample.id for sample in first}]
    start = max(row["id"] for row in rows)
    with store.write() as db:
        db.table("samples").insert_all(
            ({**rows[number % num_blobs], "id": start + number, "seed": 1000 + number, "recipe": f"many-{number}"}
             for number in range(1, count - num_blobs + 1)), batch_size=500)
    return [row.id for row in store.sample_rows(project.id)]
