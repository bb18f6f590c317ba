"""The demo project: rendered phantom laparoscopy and the weights that ship with the program; no patient data."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from saadi.datasets import phantom
from saadi.engines import shipped
from saadi.errors import NotFoundError
from saadi.mask_generator.anatomy import Anatomy
from saadi.orders.drawing import bases
from saadi.records import LabelClass, ModelKind, Project, Split
from saadi.store import Store

NAME = "demo"
NUM_PATIENTS = 24
NUM_IMAGES = 192
"""Eight frames per patient: 16 patients train, 4 validate, 4 test. Renders in about 10 s on two cores."""
FIRST_SEED = 1000
KINDS: tuple[ModelKind, ...] = ("engine", "selector", "judge")
Progress = Callable[[int, int], None]


def ensure_demo(
    store: Store, *, actor: str, num_images: int = NUM_IMAGES, on_progress: Progress = lambda step, total: None
) -> Project:
    """Create the demo project, or finish one that was interrupted, or return it as it is.

    The shipped weights were fitted to other phantom patients (100-219), so that no image here was seen in fitting. Its generator
    has a weakness on purpose (`shipped.demo_generator`), so that a round of alignment has something to cure.
    """
    entries = shipped.manifest()
    try:
        project = store.project(NAME)
    except NotFoundError:
        classes = [
            LabelClass(index, name, color)
            for index, (name, color) in enumerate(zip(phantom.CLASS_NAMES, phantom.CLASS_COLORS, strict=True))
        ]
        project = store.create_project(
            NAME, task="segmentation", classes=classes, resolution=entries["engine"]["architecture"]["resolution"], actor=actor
        )
    present = {image.source_name for image in store.images(project.id)}
    missing = [index for index in range(num_images) if _source_name(index) not in present]
    if missing:
        _render_into(store, project, missing, actor=actor, on_progress=on_progress)
    for kind in KINDS:
        if store.active_model(project.id, kind) is None:
            metrics = entries[kind]["metrics"]
            data = shipped.file(kind).read_bytes()
            if kind == "engine":
                data = shipped.demo_generator()
                metrics = entries["demo"]["metrics"] | {"note": entries["demo"]["note"]}
            store.add_model(project.id, kind=kind, architecture=entries[kind]["architecture"], file=store.files.put(data),
                            metrics=metrics, actor=actor)  # fmt: skip
    if "masks" in entries and not store.mask_models(project.id):
        _add_mask_generator(store, project, entries["masks"], actor=actor)
    return store.project(NAME)


def _add_mask_generator(store: Store, project: Project, entry: dict[str, Any], *, actor: str) -> None:
    """The shipped one, which draws from the demo's own training masks and keeps to what these have in common."""
    blobs = bases(store, project.id)
    anatomy = Anatomy.of([store.blobs.label_map(blob) for blob in blobs], num_classes=len(project.classes))
    store.add_mask_model(project.id, architecture=entry["architecture"] | {"anatomy": anatomy.as_json()},
                         file=store.files.put(shipped.file("masks").read_bytes()), bases=blobs, metrics=entry["metrics"],
                         actor=actor)  # fmt: skip


def split_of(patient: int) -> Split:
    """Whole patients: 0-15 train, 16-19 val, 20-23 test."""
    return "train" if patient < 16 else "val" if patient < 20 else "test"


def _source_name(index: int) -> str:
    return f"phantom-{index:04d}"


def _render_into(store: Store, project: Project, indices: list[int], *, actor: str, on_progress: Progress) -> None:
    workers = min(4, os.cpu_count() or 1)
    # spawn, never fork: SQLite connections must not cross a fork.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done, (index, scene) in enumerate(zip(indices, pool.map(_render, indices, chunksize=8), strict=True), start=1):
            side = scene.label_map.shape[0]
            store.add_image(
                project.id,
                blob=store.blobs.put_image(scene.image),
                size=(side, side),
                group_id=scene.patient_id,
                split=split_of(index % NUM_PATIENTS),
                label=scene.phase,
                source_name=_source_name(index),
                label_map_blob=store.blobs.put_label_map(scene.label_map),
                actor=actor,
            )
            on_progress(done, len(indices))


def _render(index: int) -> phantom.Scene:
    return phantom.render(FIRST_SEED + index, patient=index % NUM_PATIENTS, size_px=256)
