"""Let selector and judge look at synthetic images: do they see the label map, or the class, that was asked for?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saadi import devices, quality_gate
from saadi.curation import describe_project
from saadi.downstream import models
from saadi.downstream.classifier import Classifier
from saadi.downstream.folds import CrossFitted, CrossFittedClassifiers, selector_from_file
from saadi.downstream.metrics import agreement, mean_over_asked
from saadi.downstream.models import DownstreamModel
from saadi.downstream.segmenter import Prediction
from saadi.errors import TooFewError
from saadi.jobs import JobContext, Outcome, Report
from saadi.masks import class_of, fit_to, whole
from saadi.mining import seen
from saadi.mining.weakness import parts_of, whole_part
from saadi.quality import selector_space
from saadi.records import Image, LabelMap, Model, ModelKind, Project, Sample, Score
from saadi.store import Store

CHUNK = 16
KINDS: tuple[ModelKind, ModelKind] = ("selector", "judge")
Looking = DownstreamModel | CrossFitted | CrossFittedClassifiers


def load_scorers(store: Store, project: Project) -> list[tuple[Model, Looking]]:
    """The active selector, as cross-fitted as it was trained, and the judge; those that there are."""
    found = [store.active_model(project.id, kind) for kind in KINDS]
    return [(model, load_scorer(store, model)) for model in found if model is not None]


def selector_and_judge(
    store: Store, project: Project
) -> tuple[CrossFitted | CrossFittedClassifiers, DownstreamModel] | None:
    """What a gate is made of; None unless there are both."""
    selector, judge = (store.active_model(project.id, kind) for kind in KINDS)
    if selector is None or judge is None:
        return None
    return (selector_from_file(selector.architecture, store.files.path(selector.file)),
            models.from_file(judge.architecture, store.files.path(judge.file)))  # fmt: skip


def load_scorer(store: Store, model: Model) -> Looking:
    read = selector_from_file if model.kind == "selector" else models.from_file
    return read(model.architecture, store.files.path(model.file))


def score_of(
    prediction: Prediction, asked: LabelMap, *, sample_id: int, model: Model, project: Project, prediction_blob: str
) -> Score:
    """One model's opinion: Dice, IoU and recall per class against the asked label map."""
    height, width = prediction.label_map.shape
    asked = fit_to(asked, size=(height, width))
    classes = agreement(prediction.label_map, asked, num_classes=len(project.classes))
    per_class = {
        project.classes[index].name: {"dice": round(found.dice, 4), "iou": round(found.iou, 4), "recall": round(found.recall, 4)}
        for index, found in classes.items()
    }
    return Score(
        sample_id=sample_id,
        model_id=model.id,
        kind=model.kind,
        dice=round(mean_over_asked(classes, asked), 4),
        iou=round(mean_over_asked(classes, asked, "iou"), 4),
        confidence=round(prediction.confidence, 4),
        per_class=per_class,
        prediction_blob=prediction_blob,
    )


def class_score_of(
    probabilities: NDArray[np.float64], asked: LabelMap, *, sample_id: int, model: Model, project: Project, prediction_blob: str
) -> Score:
    """One classifier's opinion: its probability of the asked class, and that of each class.

    Args:
        probabilities: (num_classes,).
    """
    wanted, likeliest = class_of(asked), int(probabilities.argmax())
    return Score(
        sample_id=sample_id,
        model_id=model.id,
        kind=model.kind,
        dice=round(float(probabilities[wanted]), 4),
        iou=float(wanted == likeliest),
        confidence=round(float(probabilities[likeliest]), 4),
        per_class={
            name: {"probability": round(float(value), 4)}
            for name, value in zip(project.class_names, probabilities, strict=True)
        },
        prediction_blob=prediction_blob,
    )


def score_samples(
    store: Store,
    project: Project,
    samples: Sequence[Sample],
    scorers: Sequence[tuple[Model, Looking]],
    report: Report,
    *,
    first_step: int = 0,
    total: int | None = None,
) -> None:
    """Score samples and store the scores, chunk by chunk; a sample already scored by a model is skipped.

    Where the selector is cross-fitted, the part of it that has not seen the patient of the label map looks; all of them where
    the label map is a class.
    """
    groups = store.sample_groups(project.id, [sample.id for sample in samples])
    total = total or len(samples) * len(scorers)
    step = first_step
    for model, scorer in scorers:
        unscored = {sample.id for sample in store.unscored_samples(project.id, model.id)}
        for first in range(0, len(samples), CHUNK):
            chunk = [sample for sample in samples[first : first + CHUNK] if sample.id in unscored]
            if chunk:
                store.add_scores(_looked_at(store, project, model, scorer, chunk, groups))
            step += len(samples[first : first + CHUNK])
            report(step, total, f"the {model.kind} looks at the images")


def _looked_at(
    store: Store, project: Project, model: Model, scorer: Looking, samples: Sequence[Sample], groups: Mapping[int, str]
) -> list[Score]:
    """A model's scores; of the selector also what it makes of each image inside, for "the nearest in its eyes"."""
    images = [store.blobs.image(sample.blob) for sample in samples]
    places = [groups.get(sample.id) for sample in samples]
    asked = [store.blobs.label_map(sample.label_map_blob) for sample in samples]
    common: dict[str, Any] = {"model": model, "project": project}
    features: NDArray[np.float32] | None = None
    if isinstance(scorer, Classifier | CrossFittedClassifiers):
        rows = scorer.probabilities(images) if isinstance(scorer, Classifier) else scorer.probabilities(images, places)
        features = None if isinstance(scorer, Classifier) else scorer.features(images)
        shown = {int(index): store.blobs.put_label_map(whole(int(index), side=project.resolution)) for index in rows.argmax(1)}
        scores = [
            class_score_of(row, wanted, sample_id=sample.id, prediction_blob=shown[int(row.argmax())], **common)
            for sample, row, wanted in zip(samples, rows, asked, strict=True)
        ]
    else:
        predictions: list[Prediction]
        if isinstance(scorer, CrossFitted):
            predictions, features = scorer.predict_with_features(images, places)
        else:
            predictions = scorer.predict(images)
        scores = [
            score_of(prediction, wanted, sample_id=sample.id, prediction_blob=store.blobs.put_label_map(prediction.label_map),
                     **common)
            for sample, prediction, wanted in zip(samples, predictions, asked, strict=True)
        ]  # fmt: skip
    if features is not None:
        store.put_descriptors(selector_space(model.id), dict(zip([sample.blob for sample in samples], features, strict=True)))
    return scores


def look_at_project(
    store: Store, project: Project, scorers: Sequence[tuple[Model, Looking]], report: Report
) -> None:
    """Look once at every image: colours and layout; and, of real ones, what the selector makes of them, for comparison."""
    describe_project(store, project, report)
    quality_gate.describe_project(store, project, report)
    for model, scorer in scorers:
        if model.kind == "selector":
            missing = store.undescribed(selector_space(model.id), [image.blob for image in store.images(project.id)])
            for first in range(0, len(missing), CHUNK):
                chunk = missing[first : first + CHUNK]
                features = scorer.features([store.blobs.image(blob) for blob in chunk])
                store.put_descriptors(selector_space(model.id), dict(zip(chunk, features, strict=True)))
                report(min(first + CHUNK, len(missing)), len(missing), "the selector looks at the real images")
        see_real_images(store, project, model, scorer, report)


def see_real_images(store: Store, project: Project, model: Model, scorer: Looking, report: Report) -> int:
    """Keep what a model finds in the real images that it has not learnt from (`saadi.mining.seen`); those it has seen already are
    left out. Returns how many were new."""
    unseen = {one.key: one for one in seen.unseen_by(model, seen.labelled(store, project))}
    missing = store.undescribed(seen.space(model), unseen)
    for first in range(0, len(missing), CHUNK):
        chunk = [unseen[key] for key in missing[first : first + CHUNK]]
        images = [store.blobs.image(one.image.blob) for one in chunk]
        asked = [store.blobs.label_map(one.label_map_blob) for one in chunk]
        found = _found_in(scorer, images, asked, [one.image.group_id for one in chunk], num_classes=len(project.classes))
        store.put_descriptors(seen.space(model), {one.key: seen.pack(what) for one, what in zip(chunk, found, strict=True)})
        report(min(first + CHUNK, len(missing)), len(missing), f"the {model.kind} looks for what the real images show")
    return len(missing)


def _found_in(
    scorer: Looking, images: Sequence[Image], asked: Sequence[LabelMap], groups: Sequence[str], *, num_classes: int
) -> list[seen.Seen]:
    """By the part of the model that has not seen the patient."""
    if isinstance(scorer, Classifier | CrossFittedClassifiers):
        rows = scorer.probabilities(images) if isinstance(scorer, Classifier) else scorer.probabilities(images, list(groups))
        labels = [class_of(label_map) for label_map in asked]
        return [seen.Seen(float(row[label]), (whole_part(label, seen=int(row.argmax()), group=group),))
                for row, label, group in zip(rows, labels, groups, strict=True)]  # fmt: skip
    predictions = scorer.predict(images, list(groups)) if isinstance(scorer, CrossFitted) else scorer.predict(images)
    found = []
    for image, prediction, label_map, group in zip(images, predictions, asked, groups, strict=True):
        height, width = prediction.label_map.shape
        wanted = fit_to(label_map, size=(height, width))
        fidelity = mean_over_asked(agreement(prediction.label_map, wanted, num_classes=num_classes), wanted)
        found.append(seen.Seen(fidelity, tuple(parts_of(label_map, image=image, seen=prediction.label_map, group=group))))
    return found


def run_job(context: JobContext) -> Outcome:
    """Job `score`: every sample of the project that the active selector or judge has not seen."""
    devices.use_all_threads()
    store = context.store
    project = store.project(context.params["project_id"])
    scorers = load_scorers(store, project)
    if not scorers:
        raise TooFewError("this project has no selector yet; run `train-scorer` first")
    unseen = {sample.id: sample for model, _ in scorers for sample in store.unscored_samples(project.id, model.id)}
    score_samples(store, project, list(unseen.values()), scorers, context.report)
    look_at_project(store, project, scorers, context.report)

    def publish(store: Store) -> dict[str, Any]:
        return {"num_scored": len(unseen)}

    return Outcome(f"{len(unseen)} images scored", publish)
