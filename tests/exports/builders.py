"""A small project with real and synthetic images of four patients, as an export meets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from saadi import orders
from saadi.jobs import run_job
from saadi.records import Job, LabelClass, LabelMap, LabelMapRecord, Project, RealImage, Sample, Split
from saadi.store import Store

CLASSES = (LabelClass(0, "tissue", "#000000"), LabelClass(1, "organ", "#d55e00"), LabelClass(2, "ignore", "#0072b2"))
PATIENTS: tuple[tuple[str, Split], ...] = (
    ("DOE_JANE", "train"),
    ("ROE_RICHARD", "train"),
    ("val patient", "val"),
    ("test patient", "test"),
)
SIDE = 16


def label_map(seed: int, *, size_px: int = 24, ignore: bool = False) -> LabelMap:
    pixels = np.zeros((size_px, size_px), np.uint8)
    pixels[4:12, 4 + seed % 4 : 12] = 1
    pixels[14:18, 14:20] = 2
    if ignore:
        pixels[:2] = 255
    return pixels


def image(seed: int, *, size_px: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)


def make_project(store: Store, *, ignore: bool = False, label: str | None = None) -> Project:
    """Four patients with two real images each."""
    project = store.create_project("Gall bladder: naïve", task="segmentation", classes=CLASSES, resolution=SIDE, actor="ann")
    for index in range(8):
        group, split = PATIENTS[index // 2]
        added = store.add_image(
            project.id,
            blob=store.blobs.put_image(image(index)),
            size=(24, 24),
            group_id=group,
            split=split,
            label=label,
            source_name=f"{group}_{index}.png",
            label_map_blob=store.blobs.put_label_map(label_map(index, ignore=ignore)),
            actor="ann",
        )
        assert added is not None
    return project


def engine_id(store: Store, project: Project) -> int:
    model = store.active_model(project.id, "engine")
    return (
        model
        or store.add_model(
            project.id, kind="engine", architecture={}, file=store.files.put(b"weights"), metrics={}, actor="ann"
        )
    ).id


def add_sample(
    store: Store,
    project: Project,
    source: RealImage | LabelMapRecord,
    seed: int,
    *,
    curation: str = "accepted",
    pixels: np.ndarray | None = None,
) -> Sample:
    record = store.label_map(source.label_map_id) if isinstance(source, RealImage) and source.label_map_id else source
    assert isinstance(record, LabelMapRecord)
    shown = pixels if pixels is not None else image(1000 + seed, size_px=SIDE)
    sample = store.add_sample(
        project.id,
        label_map_id=record.id,
        label_map_rev=record.rev,
        label_map_blob=record.blob,
        blob=store.blobs.put_image(shown),
        seed=seed,
        engine="compact",
        model_id=engine_id(store, project),
        adapter_id=None,
        settings={"guidance_scale": 1.0},
        purpose="pool",
    )
    store.curate([sample.id], curation, actor="ann")  # type: ignore[arg-type]
    return sample


def drawing(store: Store, project: Project, pixels: LabelMap, *, request_id: str = "drawing") -> LabelMapRecord:
    return store.add_label_map(
        project.id, blob=store.blobs.put_label_map(pixels), name="free", author="ann", request_id=request_id, origin="drawn"
    )


def full_project(store: Store, *, ignore: bool = False, label: str | None = None) -> Project:
    """Samples of every kind: from train, val and test patients, from a drawing, accepted and not."""
    project = make_project(store, ignore=ignore, label=label)
    for index, real in enumerate(store.images(project.id)):
        add_sample(store, project, real, index)
    add_sample(store, project, drawing(store, project, label_map(3, size_px=40)), 50)
    add_sample(store, project, store.images(project.id)[0], 51, curation="pending")
    return project


def order_export(store: Store, project: Project, out: Path | None, **values: Any) -> Job:
    wanted = orders.ExportOrder(project_id=project.id, out_dir=str(out) if out else None, **values)
    job, _ = orders.place(store, wanted, actor="ann")
    return job


def run(store: Store, job: Job, handler: Any = None) -> Job:
    """Claim and run a job as the worker does."""
    from saadi.exports import recipe

    claimed = store.claim_job(f"worker-{job.id}")
    assert claimed is not None and claimed.id == job.id
    run_job(store, claimed, {"export": handler or recipe.run_job})
    return store.job(job.id)


def export(store: Store, project: Project, out: Path | None, **values: Any) -> Job:
    return run(store, order_export(store, project, out, **values))
