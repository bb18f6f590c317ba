"""Generate candidates for label maps, and score them in the same job; the engine stays warm between jobs."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import structlog

from saadi import devices, inpainting, masks, quality_gate
from saadi.config import Home
from saadi.curation import describe_images
from saadi.downstream import scoring
from saadi.engines.appearance import Reference
from saadi.engines.base import SAMPLING_BATCH, Engine, Negative, PreviewCallback, StepCallback
from saadi.engines.loading import full_memory_told, kept_engine
from saadi.engines.regions import SEAM_PX, Guide, Region, named_region
from saadi.engines.starting import NoiseShift
from saadi.errors import NotFoundError, SaadiError
from saadi.jobs import JobContext, Outcome, Report, silent
from saadi.orders import GenerateOrder, Inpaint
from saadi.orders.generating import ReferenceSettings, looks_of, reference_blobs
from saadi.previews import Previews
from saadi.records import Adapter, LabelMapRecord, Model, Project, Sample
from saadi.store import Store
from saadi.store.candidates import sample_recipe

log = structlog.get_logger()


def warm_engine(store: Store, model: Model) -> Engine:
    """The engine of a model, kept in memory: reading and preparing its weights takes a second, large ones take longer."""
    return kept_engine(model.architecture, store.files.path(model.file))


def warm_up(home: Home) -> None:
    """Load the newest project's engine before somebody waits for it; one that cannot be read is told by the job that needs it."""
    devices.use_all_threads()
    with Store.open(home) as store:
        for project in store.projects()[-1:]:
            model = store.active_model(project.id, "engine")
            # Large weights wait until they are asked for: they fill an accelerator that others may use.
            if model is not None and model.architecture.get("engine", "compact") == "compact":
                try:
                    engine = warm_engine(store, model)
                except SaadiError as error:
                    log.warning("engine_not_warm", project=project.id, error=str(error))
                    continue
                blank = np.zeros((engine.resolution, engine.resolution), np.uint8)
                engine.generate([blank], [0], num_inference_steps=2)
                log.info("engine_warm", project=project.id)


@dataclass(frozen=True)
class Part:
    """What is made anew of one picture."""

    source: inpainting.Source
    region: Callable[[], Region]
    """Reads its pixels; a pool paints into thousands of pictures, one batch after the other."""
    recipe: dict[str, Any]
    """As stored with the sample's settings."""


@dataclass(frozen=True)
class Plan:
    """What all images of one order share; with label map and seed it names a sample."""

    project: Project
    model: Model
    engine: Engine
    adapter: Adapter | None
    settings: dict[str, Any]
    """As stored with the sample: number of steps, sampler, guidance, strength of the adapter."""
    purpose: Literal["draw", "pool"]
    parent_id: int | None = None
    negative: Negative | None = None
    references: tuple[Reference, ...] = ()
    part: Part | None = None
    """The same for all images; None = whole images, or what each label map names, where `paints`."""
    start: NoiseShift | None = None

    @property
    def paints(self) -> bool:
        """What a label map names is painted into the picture under it, by order or because the engine can do nothing else."""
        return self.engine.needs_picture or self.settings.get("surroundings") == "real"

    @property
    def guide(self) -> Guide | None:
        found = self.settings.get("guide")
        return Guide(**found) if found else None

    @property
    def num_inference_steps(self) -> int:
        return int(self.settings["num_inference_steps"])


def plan(
    store: Store,
    project: Project,
    *,
    model: Model,
    adapter: Adapter | None,
    settings: dict[str, Any],
    purpose: Literal["draw", "pool"],
    parent_id: int | None = None,
    inpaint: Inpaint | None = None,
    record: LabelMapRecord | None = None,
) -> Plan:
    """Fill in what the order left to the weights: sampler and number of steps; with `inpaint` also the part under `record`."""
    engine = warm_engine(store, model)
    sampler = engine.architecture["sampler"]
    part = None
    if inpaint is not None and record is not None:
        part = _part(store, project, engine, inpaint, record)
        parent_id = part.source.parent_id
    complete = {
        **settings,
        "num_inference_steps": settings.get("num_inference_steps") or sampler["num_inference_steps"],
        "guidance_scale": settings.get("guidance_scale") or sampler.get("guidance_scale", 1.0),
        "sampler": sampler["name"],
        "adapter_scale": adapter.scale if adapter else 1.0,
    }
    references = [ReferenceSettings(**one) for one in settings.get("references") or ()]
    if references:  # the pixels, not their numbers, make the image: a mask that is corrected later gives another one
        complete["references"] = [_told(store, project, one) for one in references]
    return Plan(project, model, engine, adapter, complete, purpose, parent_id, _negative(store, settings),
                tuple(Reference(one.class_index, looks_of(store, project, one)) for one in references), part,
                _start(store, settings))  # fmt: skip


def _start(store: Store, settings: dict[str, Any]) -> NoiseShift | None:
    if (shift_id := settings.get("noise_shift_id")) is None:
        return None
    shift = store.noise_shift(shift_id)
    return NoiseShift.from_file(shift.architecture, store.files.path(shift.file))


def _told(store: Store, project: Project, one: ReferenceSettings) -> dict[str, Any]:
    blob, label_map_blob = reference_blobs(store, project, one)
    return one.model_dump(exclude_none=True) | {"blob": blob, "label_map_blob": label_map_blob}


def _negative(store: Store, settings: dict[str, Any]) -> Negative | None:
    if (wanted := settings.get("negative")) is None:
        return None
    adapter = store.adapter(wanted["adapter_id"])
    return Negative(store.files.path(adapter.file), scale=adapter.scale, weight=wanted["weight"])


def _part(store: Store, project: Project, engine: Engine, inpaint: Inpaint, record: LabelMapRecord) -> Part:
    """The source at the engine's size, as fitting scales real images: that is what stays bit for bit around the region."""
    source = inpainting.source_of(store, project, **inpaint.source.model_dump())
    weight = inpainting.weight_of(store, project, source, record, class_index=inpaint.class_index, dilate_px=inpaint.dilate_px,
                                  side=engine.resolution)  # fmt: skip
    region = Region(masks.fit_image_to(store.blobs.image(source.blob), side=engine.resolution), weight)
    recipe = inpainting.recipe_of(source, class_index=inpaint.class_index, dilate_px=inpaint.dilate_px)
    return Part(source, lambda: region, recipe)


def part_of(store: Store, wanted: Plan, record: LabelMapRecord) -> Part | None:
    """What is made anew under one label map: the plan's part, or all that it names in the picture under it, and what it no longer
    names there.

    Raises:
        BadInputError: It is to be painted into a picture, and there is none.
    """
    if wanted.part is not None or not wanted.paints:
        return wanted.part
    source = inpainting.source_under(store, record)

    def region() -> Region:
        shown = store.blobs.label_map(source.label_map_blob) if source.label_map_blob is not None else None
        return named_region(store.blobs.label_map(record.blob), store.blobs.image(source.blob), side=wanted.engine.resolution,
                            shown=shown)  # fmt: skip

    return Part(source, region, inpainting.recipe_of(source, class_index=None, dilate_px=SEAM_PX, is_whole=True))


def _settings(wanted: Plan, part: Part | None) -> dict[str, Any]:
    return wanted.settings if part is None else wanted.settings | {"inpaint": part.recipe}


def generate_samples(
    store: Store, wanted: Plan, label_maps: Sequence[LabelMapRecord], *, candidates: int, seed: int, report: Report,
    previews: Previews | None = None,
) -> list[Sample]:
    """K images per label map, seeds seed, seed + 1, ...; all candidates of one label map differ by seed only.

    Samples that exist already under the same recipe are returned as they are, so that a resumed job repeats nothing.
    """
    inputs = [
        (record, seed + position * candidates + offset)
        for position, record in enumerate(label_maps)
        for offset in range(candidates)
    ]
    made: list[Sample] = []
    for first in range(0, len(inputs), SAMPLING_BATCH):
        chunk = inputs[first : first + SAMPLING_BATCH]
        known = [_known(store, wanted, record, number) for record, number in chunk]
        missing = [pair for pair, sample in zip(chunk, known, strict=True) if sample is None]
        on_step = _steps_of(report, first=first, size=len(missing), count=len(inputs), steps=wanted.num_inference_steps)
        drawn = iter(_draw(store, wanted, missing, on_step, previews.offer if previews else None) if missing else [])
        batch = [sample or next(drawn) for sample in known]
        if previews is not None:
            previews.made([sample.id for sample in batch])
        made += batch
    return made


def _known(store: Store, wanted: Plan, record: LabelMapRecord, seed: int) -> Sample | None:
    return store.sample_by_recipe(
        sample_recipe(
            wanted.project.id,
            label_map_blob=record.blob,
            seed=seed,
            engine=wanted.engine.name,
            model_id=wanted.model.id,
            adapter_id=wanted.adapter.id if wanted.adapter else None,
            settings=_settings(wanted, part_of(store, wanted, record)),
        )
    )


def _draw(store: Store, wanted: Plan, inputs: Sequence[tuple[LabelMapRecord, int]], on_step: StepCallback,
          on_preview: PreviewCallback | None) -> list[Sample]:  # fmt: skip
    """Make one batch and store it: all of it, or nothing when somebody stops it."""
    adapter = wanted.adapter
    parts = [part_of(store, wanted, record) for record, _ in inputs]
    images = wanted.engine.generate(
        [store.blobs.label_map(record.blob) for record, _ in inputs],
        [seed for _, seed in inputs],
        num_inference_steps=wanted.num_inference_steps,
        guidance_scale=wanted.settings["guidance_scale"],
        adapter=store.files.path(adapter.file) if adapter else None,
        adapter_scale=adapter.scale if adapter else 1.0,
        negative=wanted.negative,
        on_step=on_step,
        on_preview=on_preview,
        regions=[replace(part.region(), guide=wanted.guide) for part in parts if part] or None,
        references=wanted.references,
        start=wanted.start,
    )
    blobs = [store.blobs.put_image(image) for image in images]
    with store.write():
        return [
            store.add_sample(
                wanted.project.id,
                label_map_id=record.id,
                label_map_rev=record.rev,
                label_map_blob=record.blob,
                blob=blob,
                seed=seed,
                engine=wanted.engine.name,
                model_id=wanted.model.id,
                adapter_id=adapter.id if adapter else None,
                settings=_settings(wanted, part),
                purpose=wanted.purpose,
                parent_id=wanted.parent_id,
                source_blob=part.source.blob if part else None,
                is_composite=part.source.is_real if part else False,
            )
            for (record, seed), part, blob in zip(inputs, parts, blobs, strict=True)
        ]


def _steps_of(report: Report, *, first: int, size: int, count: int, steps: int) -> StepCallback:
    """Report the network steps of one batch as progress of the whole order."""

    made = f"image {first + 1}" if size == 1 else f"images {first + 1} to {first + size}"

    def on_step(step: int, of: int) -> None:
        report(first * steps + step * size, count * steps, f"{made} of {count}, step {step} of {of}")

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
    context.yields = order["purpose"] == "pool"  # what is made already is found again by its recipe
    project = store.project(order["project_id"])
    scorers = scoring.load_scorers(store, project)
    if order["label_map_ids"] is None:
        scoring.look_at_project(store, project, scorers, context.report)
    records = label_maps_of(context)
    model = store.model(order["model_id"])
    if model.architecture.get("engine", "compact") != "compact":  # several GB, the first time
        context.report(0, len(records) * order["candidates"], "reading the weights")
    with full_memory_told("close other programs that use it and try again, or set SAADI_DEVICE=cpu, which is slow"):
        wanted = plan(
            store,
            project,
            model=model,
            adapter=chosen_adapter(store, project, order["adapter"], model=model),
            settings=order["settings"],
            purpose=order["purpose"],
            parent_id=order["parent_id"],
            inpaint=Inpaint(**order["inpaint"]) if order.get("inpaint") else None,
            record=records[0],
        )
        samples = generate_samples(
            store, wanted, records, candidates=order["candidates"], seed=order["seed"], report=context.report,
            previews=Previews(context.dir),
        )  # fmt: skip
    if scorers:
        scoring.score_samples(store, project, samples, scorers, context.report)
    if order["purpose"] == "pool":
        scoring.look_at_project(store, project, scorers, context.report)
    else:  # somebody waits in front of the canvas
        describe_images(store, [sample.blob for sample in samples], silent)
        quality_gate.describe(store, project, [quality_gate.Looked(sample.blob, sample.label_map_blob) for sample in samples])

    def publish(store: Store) -> dict[str, Any]:
        return {"sample_ids": [sample.id for sample in samples]}

    if project.task == "classification":
        count = len({record.blob for record in records})
        return Outcome(f"{len(samples)} images of {count} class{'' if count == 1 else 'es'}", publish)
    return Outcome(f"{len(samples)} images for {len(records)} label map{'' if len(records) == 1 else 's'}", publish)


def label_maps_of(context: JobContext) -> list[LabelMapRecord]:
    """Those that an order names, or draws by what the selector misses: it must have looked at the real images. What is drawn is
    written into the order, so that a retry goes on with the same ones."""
    store, order = context.store, context.params
    if order["label_map_ids"] is None:
        drawn = GenerateOrder(**{name: order[name] for name in GenerateOrder.model_fields}).drawn(store)
        context.job = store.set_job_params(context.job, {**order, "label_map_ids": list(drawn)})
    return [store.label_map(label_map_id) for label_map_id in context.params["label_map_ids"]]


def new_seed() -> int:
    """A seed for people who do not care: 31 bits, so that it can be read out and typed in."""
    return uuid.uuid4().int % 2**31
