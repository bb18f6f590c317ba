"""Generate candidates for label maps, and score them in the same job; the engine stays warm between jobs."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import structlog

from saadi import devices
from saadi.config import Home
from saadi.downstream import scoring
from saadi.engines.base import StepCallback
from saadi.engines.compact import SAMPLING_BATCH, CompactEngine
from saadi.errors import NotFoundError
from saadi.jobs import JobContext, Outcome, Report
from saadi.records import Adapter, LabelMapRecord, Model, Project, Sample
from saadi.store import Store
from saadi.store.candidates import sample_recipe
from saadi.store.connection import dump

log = structlog.get_logger()


@lru_cache(maxsize=2)
def _engine(architecture: str, file: str) -> CompactEngine:
    return CompactEngine.from_file(json.loads(architecture), Path(file))


def warm_engine(store: Store, model: Model) -> CompactEngine:
    """The engine of a model, kept in memory: reading and preparing its weights takes a second."""
    return _engine(dump(model.architecture), str(store.files.path(model.file)))


def warm_up(home: Home) -> None:
    """Load the newest project's engine before somebody waits for it."""
    devices.use_all_threads()
    with Store.open(home) as store:
        for project in store.projects()[-1:]:
            model = store.active_model(project.id, "engine")
            if model is not None:
                engine = warm_engine(store, model)
                blank = np.zeros((engine.resolution, engine.resolution), np.uint8)
                engine.generate([blank], [0], num_inference_steps=2)
                log.info("engine_warm", project=project.id)


def generate_samples(
    store: Store,
    project: Project,
    label_maps: Sequence[LabelMapRecord],
    *,
    model: Model,
    candidates: int,
    seed: int,
    settings: dict[str, Any],
    adapter: Adapter | None,
    purpose: Literal["draw", "pool"],
    report: Report,
    parent_id: int | None = None,
    total: int | None = None,
) -> list[Sample]:
    """K images per label map, seeds seed, seed + 1, ...; all candidates of one label map differ by seed only.

    Samples that exist already under the same recipe are returned as they are, so that a resumed job repeats nothing.
    """
    engine = warm_engine(store, model)
    wanted = [
        (record, seed + position * candidates + offset)
        for position, record in enumerate(label_maps)
        for offset in range(candidates)
    ]
    steps = settings.get("num_inference_steps") or engine.architecture["sampler"]["num_inference_steps"]
    settings = {
        **settings,
        "num_inference_steps": steps,
        "sampler": engine.architecture["sampler"]["name"],
        "adapter_scale": adapter.scale if adapter else 1.0,
    }
    total = total or len(wanted) * steps
    made: list[Sample] = []
    for first in range(0, len(wanted), SAMPLING_BATCH):
        chunk = wanted[first : first + SAMPLING_BATCH]
        known = {
            index: store.sample_by_recipe(
                sample_recipe(
                    project.id,
                    label_map_blob=record.blob,
                    seed=number,
                    engine=engine.name,
                    model_id=model.id,
                    adapter_id=adapter.id if adapter else None,
                    settings=settings,
                )
            )
            for index, (record, number) in enumerate(chunk)
        }
        missing = [index for index, sample in known.items() if sample is None]
        images = (
            engine.generate(
                [store.blobs.label_map(chunk[index][0].blob) for index in missing],
                [chunk[index][1] for index in missing],
                num_inference_steps=steps,
                guidance_scale=settings["guidance_scale"],
                adapter=store.files.path(adapter.file) if adapter else None,
                adapter_scale=adapter.scale if adapter else 1.0,
                on_step=_steps_of(report, first=first, size=len(missing), count=len(wanted), steps=steps, total=total),
            )
            if missing
            else []
        )
        for index, image in zip(missing, images, strict=True):
            record, number = chunk[index]
            known[index] = store.add_sample(
                project.id,
                label_map_id=record.id,
                label_map_rev=record.rev,
                label_map_blob=record.blob,
                blob=store.blobs.put_image(image),
                seed=number,
                engine=engine.name,
                model_id=model.id,
                adapter_id=adapter.id if adapter else None,
                settings=settings,
                purpose=purpose,
                parent_id=parent_id,
            )
        made += [sample for sample in known.values() if sample is not None]
    return made


def _steps_of(report: Report, *, first: int, size: int, count: int, steps: int, total: int) -> StepCallback:
    """Report the network steps of one chunk as progress of the whole order."""

    def on_step(step: int, of: int) -> None:
        report(first * steps + step * size, total, f"image {first + 1} of {count}, step {step} of {of}")

    return on_step


def chosen_adapter(store: Store, project: Project, wanted: str | int, *, model: Model) -> Adapter | None:
    """'none' = base weights, a number = that adapter.

    Raises:
        NotFoundError: The adapter belongs to another generator.
    """
    if wanted == "none":
        return None
    adapter = store.adapter(int(wanted))
    if adapter.project_id != project.id or adapter.model_id != model.id:
        raise NotFoundError(f"adapter {wanted} does not belong to the present generator of {project.name}; see `saadi adapters`")
    return adapter


def run_job(context: JobContext) -> Outcome:
    """Job `generate`: candidates for label maps, then their scores where the project has scorers."""
    devices.use_all_threads()
    store, order = context.store, context.params
    project = store.project(order["project_id"])
    records = [store.label_map(label_map_id) for label_map_id in order["label_map_ids"]]
    model = store.model(order["model_id"])
    adapter = chosen_adapter(store, project, order["adapter"], model=model)
    samples = generate_samples(
        store,
        project,
        records,
        model=model,
        candidates=order["candidates"],
        seed=order["seed"],
        settings=order["settings"],
        adapter=adapter,
        purpose=order["purpose"],
        parent_id=order["parent_id"],
        report=context.report,
    )
    scorers = scoring.load_scorers(store, project)
    if scorers:
        scoring.score_samples(store, project, samples, scorers, context.report)

    def publish(store: Store) -> dict[str, Any]:
        return {"sample_ids": [sample.id for sample in samples]}

    return Outcome(f"{len(samples)} images for {len(records)} label maps", publish)


def new_seed() -> int:
    """A seed for people who do not care: 31 bits, so that it can be read out and typed in."""
    return uuid.uuid4().int % 2**31
