"""Records as JSON for the page: only what a tab shows, in the words it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saadi import previews
from saadi.curation import mask_shares
from saadi.inpainting import is_part
from saadi.records import Adapter, Job, LabelMapRecord, Model, ModelKind, Project, RealImage, Sample, Score
from saadi.store import Store
from saadi.trust import trust_in
from ui.lineage import badge_of, lineage
from ui.queue_words import num_images, turn, what
from ui.words import describe, describe_class, sureness

SPECK = 0.004
"""Share of the image below which an invented class is not worth a word (16 x 16 pixels of 256 x 256)."""
MAX_MASKS_READ = 500
"""Enough for quantiles in steps of 5 %; reading 256 x 256 pixels takes 1 ms."""
CLOSE_LOOK = 16
"""Up to so many samples the words also tell what the segmenter invented; reading thousands of predictions would take seconds."""
FACT_NAMES = {"num_inference_steps": "steps", "guidance_scale": "guidance", "adapter_scale": "strength"}
LONG = ("sample_ids", "mined_ids", "kept_ids", "label_map_ids", "unfilled_label_map_ids", "masks", "examples")
"""Parts of a result that lists of jobs leave out."""
KIND_WORDS = {
    "fit": "Fitting the generator",
    "generate": "Generating images",
    "train_scorer": "Training the scorers",
    "score": "Scoring",
    "predict": "Segmenting",
    "align": "Aligning",
    "evidence": "Measuring the gain",
    "export": "Exporting",
    "import": "Importing",
    "map": "Laying out the map",
    "fit_masks": "Learning to draw masks",
    "suggest_masks": "Drawing masks",
    "mine": "Searching for hard images",
    "surrogates": "Making a set to share",
    "refine": "Measuring outlines",
    "audit": "Looking at what an export reveals",
    "text_check": "Looking for text in images",
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
        "withdrawn": image.withdrawn_from is not None,
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
        "underlay_id": record.underlay_id,
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
    sample: Sample, scores: dict[str, Score], adapter_names: dict[int, str], *, asked: tuple[str, ...], words: str
) -> dict[str, Any]:
    """What the grid and the draw results show of a sample; `scores` by model kind."""
    selector, judge = scores.get("selector"), scores.get("judge")
    return {
        "id": sample.id,
        "blob": sample.blob,
        "label_map_blob": sample.label_map_blob,
        "label_map_id": sample.label_map_id,
        "asked": list(asked),
        "seed": str(sample.seed),
        "curation": sample.curation,
        "purpose": sample.purpose,
        "created_at": sample.created_at,
        "adapter": adapter_names.get(sample.adapter_id or 0, "base"),
        "badge": badge_of(sample),
        "source_blob": sample.source_blob,
        "is_part": is_part(sample),
        "dice": selector.dice if selector else None,
        "judge_dice": judge.dice if judge else None,
        "words": words,
    }


def sample_detail(store: Store, sample: Sample) -> dict[str, Any]:
    """Everything about one sample: both models' scores, the recipe, where it comes from."""
    view = sample_views(store, [sample])[0]
    scores = {score.kind: score_view(score) for score in store.scores(sample.project_id, sample_id=sample.id)}
    record, project = store.label_map(sample.label_map_id), store.project(sample.project_id)
    is_classification = project.task == "classification"
    seen = [scores["selector"]["prediction_blob"]] if "selector" in scores and not is_classification else []
    shares = mask_shares(store, [sample.label_map_blob, *seen])
    asked = _asked(project, shares[sample.label_map_blob])
    shown = ("class", asked[0]) if is_classification else ("mask", f"{record.name}, revision {sample.label_map_rev}")
    facts = {
        "seed": str(sample.seed),
        "generator": f"{sample.engine} (weights {sample.model_id})",
        "adapter": view["adapter"],
        shown[0]: shown[1],
        "made for": "drawing" if sample.purpose == "draw" else "pool",
        "created": sample.created_at[:19].replace("T", " ") + " UTC",
    }
    facts |= {
        FACT_NAMES.get(key, key.replace("_", " ")): str(value)
        for key, value in sample.settings.items()
        if not isinstance(value, (dict, list))
    }
    if sample.is_composite:
        facts["pixels"] = "real pixels outside the regenerated region"
    return view | {
        "scores": scores,
        "facts": facts,
        "lineage": lineage(store, sample),
        "sureness": _sureness(store, sample, scores, asked),
        "invented": [name for blob in seen for name in _invented(project.class_names, shares[blob], asked)],
    }


def _sureness(store: Store, sample: Sample, scores: Mapping[ModelKind, dict[str, Any]], asked: tuple[str, ...]) -> str | None:
    """How far the segmenter is to be trusted on this sample; None while it was not looked at."""
    selector = store.active_model(sample.project_id, "selector")
    if selector is None or "selector" not in scores:
        return None
    project = store.project(sample.project_id)
    names, is_classifier = project.class_names, project.task == "classification"
    trust = trust_in(selector.metrics, names)
    weak = {names[index]: dice for index, dice in trust.weak.items() if names[index] in asked}
    confidence = scores["selector"]["confidence"]
    return sureness(confidence, unsure_below=trust.unsure_below, weak=weak, is_classifier=is_classifier)


def sample_views(store: Store, samples: list[Sample]) -> list[dict[str, Any]]:
    """Views of samples of one project, in the given order."""
    if not samples:
        return []
    project_id = samples[0].project_id
    found = (
        store.scores(project_id)
        if len(samples) > CLOSE_LOOK
        else [score for sample in samples for score in store.scores(project_id, sample_id=sample.id)]
    )
    scores: dict[int, dict[str, Score]] = {}
    for score in found:
        scores.setdefault(score.sample_id, {})[score.kind] = score
    names = {adapter.id: adapter.name for adapter in store.adapters(project_id)}
    project = store.project(project_id)
    is_close = len(samples) <= CLOSE_LOOK and project.task == "segmentation"
    seen = {
        sample.id: scores[sample.id]["selector"].prediction_blob
        for sample in samples
        if is_close and "selector" in scores.get(sample.id, {})
    }
    shares = mask_shares(store, [*(sample.label_map_blob for sample in samples), *seen.values()])
    views = []
    for sample in samples:
        asked, own = _asked(project, shares[sample.label_map_blob]), scores.get(sample.id, {})
        if project.task == "classification":
            words = describe_class(own.get("selector"), asked[0])
        else:
            invented = _invented(project.class_names, shares[seen[sample.id]], asked) if sample.id in seen else ()
            words = describe(own.get("selector"), asked, invented)
        views.append(sample_view(sample, own, names, asked=asked, words=words))
    return views


def asked_classes(store: Store, project_id: int, blobs: Sequence[str]) -> dict[str, int]:
    """Label map -> the class that it asks of the whole image; {} in a segmentation project, where that is a mask."""
    if store.project(project_id).task != "classification":
        return {}
    return {blob: int(shares.argmax()) for blob, shares in mask_shares(store, list(dict.fromkeys(blobs))).items()}


def told_class(asked: Mapping[str, int], blob: str) -> dict[str, int]:
    """What an image was made for, told beside its label map: in classification the class; nothing in segmentation."""
    return {"class": asked[blob]} if blob in asked else {}


def _asked(project: Project, shares: NDArray[np.float32]) -> tuple[str, ...]:
    """Names of the classes that a label map asks for; in classification the one of the whole image."""
    if project.task == "classification":
        return (project.class_names[int(shares[: len(project.classes)].argmax())],)
    return _named(project.class_names, shares)


def _named(names: tuple[str, ...], shares: NDArray[np.float32], *, min_share: float = 0.0) -> tuple[str, ...]:
    """Names of the classes that cover more than `min_share` of a label map, background left out."""
    return tuple(name for index, name in enumerate(names) if index and shares[index] > min_share)


def _invented(names: tuple[str, ...], shares: NDArray[np.float32], asked: tuple[str, ...]) -> tuple[str, ...]:
    """Classes that a model sees in more than a speck although nobody drew them."""
    return tuple(name for name in _named(names, shares, min_share=SPECK) if name not in asked)


def class_areas(store: Store, project: Project) -> dict[str, Any]:
    """How much of an image each class covers in the real label maps: {masks, classes: {index: {share, areas}}}.

    `share` is the part of the label maps that hold the class; `areas` are the 0, 5, ... 100 % quantiles of the part of the
    image it covers where it is. Read from at most `MAX_MASKS_READ` label maps, evenly spread.
    """
    records = store.label_maps(project.id, splits=["train", "val", "none"])
    chosen = records[:: max(1, -(-len(records) // MAX_MASKS_READ))]
    areas: dict[int, list[float]] = {}
    shares = mask_shares(store, [record.blob for record in chosen])
    for record in chosen:
        for index in np.flatnonzero(shares[record.blob]).tolist():
            areas.setdefault(index, []).append(float(shares[record.blob][index]))
    return {
        "masks": len(chosen),
        "classes": {
            index: {
                "share": round(len(found) / len(chosen), 4),
                "areas": [round(float(value), 6) for value in np.quantile(found, np.linspace(0, 1, 21))],
            }
            for index, found in areas.items()
        },
    }


def job_view(
    store: Store, job: Job, *, full: bool = False, before: Sequence[Job] | None = None, viewer: str | None = None
) -> dict[str, Any]:
    """A job for the strip; `full` adds curves and live pictures.

    Args:
        before: The jobs that run first, where the caller knows them already.
        viewer: Who reads 'your' where it is his own.
    """
    if job.state != "queued":
        before = []
    elif before is None:
        before = store.jobs_before(job.id)
    num_previews, stamp = previews.found(store.home.job_dir(job.id)) if job.state == "running" else (0, 0)
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
        "before": len(before),
        "turn": turn(before, viewer=viewer) if job.state == "queued" else None,
        "what": what(store, job),
        "num_images": num_images(job.params) if job.kind == "generate" else None,
        # A string: the number has more digits than JavaScript can count.
        "previews": {"count": num_previews, "stamp": str(stamp)},
        # A pool's thousands of samples are of use to who follows that job only.
        "result": job.result if full else {name: value for name, value in job.result.items() if name not in LONG},
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
        # The pictures of the blind test stay on the server until they are asked for, side by side and unnamed.
        "metrics": {name: value for name, value in adapter.metrics.items() if not name.startswith("strip_trial_")},
        "config": adapter.config,
        "created_at": adapter.created_at,
    }


def model_view(model: Model | None) -> dict[str, Any] | None:
    if model is None:
        return None
    made_by = {"engine": model.architecture.get("engine", "compact"),
               "paints_like": bool(model.architecture.get("style_dim"))} if model.kind == "engine" else {}  # fmt: skip
    return {"id": model.id, "kind": model.kind, "metrics": model.metrics, "created_at": model.created_at, **made_by}


def overview(store: Store, project: Project, voter: str) -> dict[str, Any]:
    """What the header, the Data tab and the promises count."""
    images = store.images(project.id)
    curation = {"pending": 0, "accepted": 0, "rejected": 0, "quarantined": 0} | store.count_curation(project.id)
    accepted, tied = store.accepted_adapter(project.id), store.standing_trace(project.id)
    return {
        "withdrawn": {"models": sorted(tied.models), "adapters": sorted(tied.adapters)},
        "images": len(images),
        "with_mask": sum(image.label_map_id is not None for image in images),
        "shown": store.count_classes(project.id, splits=["train"]) if project.task == "classification" else {},
        "splits": store.count_images(project.id),
        "groups": len({image.group_id for image in images}),
        "samples": sum(curation.values()),
        "curation": curation,
        "votes": store.count_votes(project.id),
        "my_votes": store.count_votes(project.id, voter=voter),
        "models": {kind: model_view(store.active_model(project.id, kind)) for kind in ("engine", "selector", "judge")},
        "adapter": adapter_view(accepted) if accepted else None,
    }
