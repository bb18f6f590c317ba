"""Jobs `fit_masks` and `suggest_masks`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from saadi import devices
from saadi.engines import weights
from saadi.errors import BadInputError
from saadi.jobs import JobContext, Outcome, Report
from saadi.mask_generator import fitting
from saadi.mask_generator.model import MaskGenerator, Suggestion
from saadi.masks import fit_to
from saadi.orders.drawing import bases
from saadi.records import LabelMap, MaskModel, Project
from saadi.store import Store

_kept: dict[int, MaskGenerator] = {}
"""The mask generator used last, by the number of its row: reading it and its label maps takes a second."""


def run_fit_job(context: JobContext) -> Outcome:
    """Job `fit_masks`."""
    devices.use_all_threads()
    model = _fitted(context, context.store.project(context.params["project_id"]), steps=context.params["steps"],
                    seed=context.params["seed"])  # fmt: skip
    return Outcome(f"learnt to draw masks from {len(model.bases)} of them", lambda store: {"mask_model_id": model.id})


def run_suggest_job(context: JobContext) -> Outcome:
    """Job `suggest_masks`: label map blobs that nobody owns yet; who likes one makes it a drawing of theirs."""
    devices.use_all_threads()
    store, order = context.store, context.params
    project = store.project(order["project_id"])
    model = store.mask_model(order["model_id"]) if order["model_id"] is not None else _fitted(context, project)
    generator = _loaded(store, model, project.resolution)
    start = store.blobs.label_map(order["start_blob"]) if order["start_blob"] is not None else None
    side = project.resolution if start is None else max(start.shape)
    made, refused = _suggestions(context, generator, project, side=side, start=start)
    if not made:
        raise refused[0]
    masks = [{"blob": store.blobs.put_label_map(_shaped(one.label_map, start)), "seed": one.seed,
              "strength": round(one.strength, 3), "tries": one.tries,
              "base_blob": order["start_blob"] if one.base < 0 else model.bases[one.base]} for one in made]  # fmt: skip
    is_stale = model.metrics.get("learnt_of", sorted(model.bases)) != sorted(bases(store, project.id))

    def publish(store: Store) -> dict[str, Any]:
        ids = _kept_as_label_maps(store, context, masks) if order["keep"] else []
        return {"label_map_ids": ids, "masks": masks, "mask_model_id": model.id, "num_learnt": len(model.bases),
                "is_stale": is_stale, "num_refused": len(refused)}  # fmt: skip

    return Outcome(f"{len(made)} new mask{'' if len(made) == 1 else 's'}", publish)


def _kept_as_label_maps(store: Store, context: JobContext, masks: Sequence[dict[str, Any]]) -> list[int]:
    """Their numbers; a repeat of the job gives the same ones. A variation stays with the image of the mask that it varies, so
    that one of a validation or test patient is known as such."""
    job, varied = context.job, context.params["label_map_id"]
    record = store.label_map(varied) if varied is not None else None
    underlay_id = (record.image_id or record.underlay_id) if record is not None else None
    return [store.add_label_map(context.params["project_id"], blob=one["blob"], name=f"suggested, seed {one['seed']}",
                                author=job.created_by, request_id=f"suggested-{job.id}-{one['seed']}", origin="sampled",
                                underlay_id=underlay_id).id for one in masks]  # fmt: skip


def _suggestions(
    context: JobContext, generator: MaskGenerator, project: Project, *, side: int, start: LabelMap | None
) -> tuple[list[Suggestion], list[BadInputError]]:
    """One for each seed whose drawing passes the anatomy, and the refusals of the others, in the project's class names."""
    order, made, refused = context.params, list[Suggestion](), list[BadInputError]()
    for place in range(order["count"]):
        context.report(place, order["count"], f"mask {place + 1} of {order['count']}")
        try:
            made += generator.suggest(1, seed=order["seed"] + place, side=side, start=start, strength=order["strength"],
                                      classes=order["classes"])  # fmt: skip
        except BadInputError as error:
            refused.append(BadInputError(_named(str(error), project.class_names)))
    return made, refused


def new_label_maps(
    store: Store, project: Project, model: MaskModel, *, count: int, seed: int, report: Report
) -> list[Suggestion]:
    """Label maps of the project's own anatomy on the seeds `seed`, `seed` + 1, ...; none for one whose drawings do not pass."""
    generator, made = _loaded(store, model, project.resolution), list[Suggestion]()
    for place in range(count):
        report(place, count, f"drawing masks, {place + 1} of {count}")
        with suppress(BadInputError):
            made += generator.suggest(1, seed=seed + place, side=project.resolution)
    return made


def _named(words: str, class_names: Sequence[str]) -> str:
    """'class 3' by its name; from the last to the first, as 'class 1' begins 'class 12'."""
    for index in reversed(range(len(class_names))):
        words = words.replace(f"class {index}", class_names[index])
    return words


def _shaped(label_map: LabelMap, start: LabelMap | None) -> LabelMap:
    """As tall and wide as the mask that it varies."""
    return label_map if start is None else fit_to(label_map, size=(start.shape[0], start.shape[1]))


def _fitted(context: JobContext, project: Project, *, steps: int | None = None, seed: int = 0) -> MaskModel:
    """A mask generator of the project's training masks, stored as soon as it is there: a retry finds it."""
    store = context.store
    for model in store.mask_models(project.id):
        if model.job_id == context.job.id:
            return model
    blobs = bases(store, project.id)

    def report(step: int, total: int, message: str, **rest: Any) -> None:
        context.report(step, total, message.replace("fitting", "learning to draw masks"), **rest)

    config = fitting.MaskFitConfig(num_steps=steps or fitting.MaskFitConfig.num_steps, seed=seed)
    generator, metrics = fitting.fit([store.blobs.label_map(blob) for blob in blobs], num_classes=len(project.classes),
                                     side=project.resolution, config=config, report=report, folder=context.dir)
    learnt = [blobs[index] for index in metrics.pop("held")]
    file = store.files.put(weights.to_bytes(generator.denoiser.state_dict()))
    metrics["learnt_of"] = sorted(blobs)  # with those that hold nothing, which are not drawn from
    return store.add_mask_model(project.id, architecture=generator.architecture, file=file, bases=learnt, metrics=metrics,
                                actor=context.job.created_by, job_id=context.job.id)


def _loaded(store: Store, model: MaskModel, side: int) -> MaskGenerator:
    if model.id not in _kept:
        _kept.clear()
        real = [fit_to(store.blobs.label_map(blob), size=(side, side)) for blob in model.bases]
        _kept[model.id] = MaskGenerator.from_file(model.architecture, store.files.path(model.file), real=real)
    return _kept[model.id]
