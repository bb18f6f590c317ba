"""Records as JSON for the page: only what a tab shows, in the words it shows."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from saadi.records import Adapter, Job, LabelMapRecord, Model, Project, RealImage, Sample, Score
from saadi.store import Store
from saadi.store.blobs import BlobStore
from ui.words import describe

FACT_NAMES = {"num_inference_steps": "steps", "guidance_scale": "guidance", "adapter_scale": "strength"}
KIND_WORDS = {
    "fit": "Fitting the generator",
    "generate": "Generating images",
    "train_scorer": "Training the scorers",
    "score": "Scoring",
    "align": "Aligning",
    "export": "Exporting",
    "import": "Importing",
}


def project_view(project: Project) -> dict[str, Any]:
    return asdict(project)


def image_view(image: RealImage, label_map: LabelMapRecord | None) -> dict[str, Any]:
    return {
        "id": image.id,
        "blob": image.blob,
        "width": image.width,
        "height": image.height,
        "group": image.group_id,
        "split": image.split,
        "label": image.label,
        "name": image.source_name,
        "label_map_id": image.label_map_id,
        "label_map_blob": label_map.blob if label_map else None,
        "origin": label_map.origin if label_map else None,
    }


def label_map_view(record: LabelMapRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "image_id": record.image_id,
        "name": record.name,
        "rev": record.rev,
        "blob": record.blob,
        "author": record.author,
        "origin": record.origin,
        "updated_at": record.updated_at,
    }


def score_view(score: Score) -> dict[str, Any]:
    return {
        "dice": score.dice,
        "iou": score.iou,
        "confidence": score.confidence,
        "per_class": score.per_class,
        "prediction_blob": score.prediction_blob,
    }


def sample_view(
    sample: Sample, scores: dict[str, Score], asked: tuple[str, ...], adapter_names: dict[int, str]
) -> dict[str, Any]:
    """What the grid and the draw results show of a sample; `scores` by model kind."""
    selector, judge = scores.get("selector"), scores.get("judge")
    return {
        "id": sample.id,
        "blob": sample.blob,
        "label_map_blob": sample.label_map_blob,
        "label_map_id": sample.label_map_id,
        "seed": str(sample.seed),
        "curation": sample.curation,
        "purpose": sample.purpose,
        "created_at": sample.created_at,
        "adapter": adapter_names.get(sample.adapter_id or 0, "base"),
        "dice": selector.dice if selector else None,
        "judge_dice": judge.dice if judge else None,
        "words": describe(selector, asked),
    }


def sample_detail(store: Store, sample: Sample) -> dict[str, Any]:
    """Everything about one sample: both models' scores, the recipe, where it comes from."""
    view = sample_views(store, [sample])[0]
    scores = {score.kind: score_view(score) for score in store.scores(sample.project_id, sample_id=sample.id)}
    record = store.label_map(sample.label_map_id)
    facts = {
        "seed": str(sample.seed),
        "generator": f"{sample.engine} (weights {sample.model_id})",
        "adapter": view["adapter"],
        "mask": f"{record.name}, revision {sample.label_map_rev}",
        "made for": "drawing" if sample.purpose == "draw" else "pool",
        "created": sample.created_at[:19].replace("T", " ") + " UTC",
    }
    facts |= {
        FACT_NAMES.get(key, key.replace("_", " ")): str(value)
        for key, value in sample.settings.items()
        if not isinstance(value, (dict, list))
    }
    return view | {
        "scores": scores,
        "facts": facts,
        "asked": list(asked_classes(store, sample.project_id, sample.label_map_blob)),
    }


def sample_views(store: Store, samples: list[Sample]) -> list[dict[str, Any]]:
    """Views of samples of one project, in the given order."""
    if not samples:
        return []
    project_id = samples[0].project_id
    found = (
        store.scores(project_id)
        if len(samples) > 16
        else [score for sample in samples for score in store.scores(project_id, sample_id=sample.id)]
    )
    scores: dict[int, dict[str, Score]] = {}
    for score in found:
        scores.setdefault(score.sample_id, {})[score.kind] = score
    names = {adapter.id: adapter.name for adapter in store.adapters(project_id)}
    classes, root = store.project(project_id).class_names, store.home.blobs
    return [
        sample_view(sample, scores.get(sample.id, {}), _named(classes, root, sample.label_map_blob), names) for sample in samples
    ]


def asked_classes(store: Store, project_id: int, label_map_blob: str) -> tuple[str, ...]:
    """Names of the classes that a label map holds, background left out."""
    return _named(store.project(project_id).class_names, store.home.blobs, label_map_blob)


def _named(names: tuple[str, ...], root: Path, blob: str) -> tuple[str, ...]:
    return tuple(names[index] for index in _present(root, blob) if 0 < index < len(names))


@lru_cache(maxsize=65536)
def _present(root: Path, blob: str) -> tuple[int, ...]:
    return tuple(int(value) for value in np.flatnonzero(np.bincount(BlobStore(root).label_map(blob).ravel())))


def job_view(store: Store, job: Job, *, full: bool = False) -> dict[str, Any]:
    """A job for the strip; `full` adds curves, live pictures and the result."""
    view: dict[str, Any] = {
        "id": job.id,
        "kind": job.kind,
        "title": KIND_WORDS.get(job.kind, job.kind),
        "state": job.state,
        "step": job.step,
        "total": job.total,
        "message": job.message,
        "eta_s": job.eta_s,
        "error": job.error,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
        "created_by": job.created_by,
        "cancelling": job.cancel_requested and job.is_active,
        "project_id": job.project_id,
        "before": store.queue_position(job.id) if job.state == "queued" else 0,
        "result": job.result,
        "purpose": job.params.get("purpose"),
        "label_map_ids": (job.params.get("label_map_ids") or [])[:4],
    }
    if full:
        view |= {"metrics": store.job_metrics(job.id), "images": store.job_images(job.id), "params": job.params}
    return view


def adapter_view(adapter: Adapter) -> dict[str, Any]:
    return {
        "id": adapter.id,
        "name": adapter.name,
        "parent_id": adapter.parent_id,
        "state": adapter.state,
        "model_id": adapter.model_id,
        "metrics": adapter.metrics,
        "config": adapter.config,
        "created_at": adapter.created_at,
    }


def model_view(model: Model | None) -> dict[str, Any] | None:
    if model is None:
        return None
    return {"id": model.id, "kind": model.kind, "metrics": model.metrics, "created_at": model.created_at}


def overview(store: Store, project: Project, voter: str) -> dict[str, Any]:
    """What the header, the Data tab and the promises count."""
    images = store.images(project.id)
    samples = store.samples(project.id)
    curation = {state: 0 for state in ("pending", "accepted", "rejected", "quarantined")}
    for sample in samples:
        curation[sample.curation] += 1
    accepted = store.accepted_adapter(project.id)
    return {
        "images": len(images),
        "with_mask": sum(image.label_map_id is not None for image in images),
        "splits": store.count_images(project.id),
        "groups": len({image.group_id for image in images}),
        "samples": len(samples),
        "curation": curation,
        "votes": len(store.votes(project.id)),
        "my_votes": len(store.votes(project.id, voter=voter)),
        "models": {kind: model_view(store.active_model(project.id, kind)) for kind in ("engine", "selector", "judge")},
        "adapter": adapter_view(accepted) if accepted else None,
    }
