"""Job `align`: from a project's pairs to a candidate adapter, compared with the version in use, and what is kept of both."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from saadi import devices
from saadi.alignment import material, resume
from saadi.alignment.crew import Crew, leading
from saadi.alignment.gate import Gate, class_changes, metrics_of
from saadi.alignment.material import Learning
from saadi.alignment.recipe import STRIP, Aligned, InGuidance, align
from saadi.alignment.trainer import PairTrainer
from saadi.engines import lora, weights
from saadi.engines.base import TrainableEngine
from saadi.engines.fitting import load_engine
from saadi.errors import AlignmentStoppedError
from saadi.jobs import JobContext, Outcome
from saadi.records import Adapter, PairSet, Task
from saadi.store import Store

GATE_FIRST_SEED = 2**40
"""Seeds of the gate's images: beyond those that people and pools can use."""
MEMORY_ADVICE = "align with --checkpointing, or with a smaller --batch-size"
TRIAL_PAIRS = 64
"""Gate images kept of both versions, from which the blind test of a reviewer takes twenty."""


def trainer_of(store: Store, order: dict[str, Any], crew: Crew) -> PairTrainer:
    """The trainer of an order in a process that helps with it."""
    engine = load_engine(store, store.project(order["project_id"]), model_id=order["model_id"])
    learning = material.learning(store, order, engine)
    return PairTrainer(engine, learning.pairs, learning.config, parent=learning.parent, parent_scale=learning.parent_scale,
                       anchors=learning.anchors, singles=learning.singles, crew=crew)  # fmt: skip


def run_job(context: JobContext) -> Outcome:
    """Job `align`: pairs to a candidate adapter, compared with the version in use."""
    devices.use_all_threads()
    store, order = context.store, context.params
    context.keeps_checkpoint = True  # "Continue" starts from it
    places = devices.accelerators(order.get("gpus", 1))  # refused before anything is loaded
    resume.take_over(store, order.get("continues"), context.dir)
    project, pair_set = store.project(order["project_id"]), store.pair_set(order["pair_set_id"])
    engine = load_engine(store, project, model_id=order["model_id"])
    learnt = {pair.label_map_blob for pair in pair_set.pairs} | {single.label_map_blob for single in pair_set.singles}
    gate = material.build_gate(store, project, count=order["gate_masks"], exclude=learnt, with_pictures=engine.needs_picture)
    learning = material.learning(store, order, engine)
    seeds = [GATE_FIRST_SEED + index for index in range(len(gate.label_maps))]

    label_maps = [store.blobs.put_label_map(label_map) for label_map in gate.label_maps[:TRIAL_PAIRS]]
    context.report(0, learning.config.num_steps, "drawing the old model's images",
                   images={f"label map {index}": blob for index, blob in enumerate(label_maps[:STRIP], start=1)})  # fmt: skip
    drawing = None
    if order.get("negative") is not None:
        other = load_engine(store, project, model_id=order["model_id"])
        drawing = InGuidance(other, gate, seeds, guidance_scale=order["negative"], parent=learning.parent,
                             parent_scale=learning.parent_scale, folder=context.dir)  # fmt: skip
    try:
        found = _found(context, engine, learning, gate, seeds, drawing, places)
    except AlignmentStoppedError:
        context.keeps_checkpoint = False  # it ran to its end; to go on would end the same way
        raise
    file = store.files.put(weights.to_bytes(found.state))
    metrics = (_measured(found, pair_set, task=project.task)
               | _pictures(context, found, gate, seeds, file=file, drawing=drawing)
               | {"strip_label_maps": label_maps[:STRIP], "strip_trial_label_maps": label_maps})  # fmt: skip
    settings = asdict(learning.config) | {"pair_set": pair_set.sha256, "targets": list(lora.TARGETS)}
    settings |= {"negative": drawing.guidance_scale} if drawing else {}

    def publish(store: Store) -> dict[str, Any]:
        adapter: Adapter = store.add_adapter(
            project.id, model_id=order["model_id"], parent_id=order["parent_id"], file=file, scale=learning.parent_scale,
            config=settings, metrics=metrics, actor=context.job.created_by, job_id=context.job.id)  # fmt: skip
        told = {name: metrics[name] for name in ("win_rate", "dice_before", "dice_after", "verdict")}
        return {"adapter_id": adapter.id, "name": adapter.name} | told

    return Outcome(_said(found, task=project.task, is_negative=drawing is not None), publish)


def _found(
    context: JobContext, engine: TrainableEngine, learning: Learning, gate: Gate, seeds: list[int],
    drawing: InGuidance | None, places: Sequence[str],
) -> Aligned:  # fmt: skip
    """The recipe on this order's pairs; places: of each process that computes its steps."""
    store = context.store

    def keep(state: dict[str, Tensor]) -> str:
        return str(store.files.path(store.files.put(weights.to_bytes(state))))

    command = [sys.executable, "-m", "saadi.alignment.crew_member", str(store.home.path), str(context.job.id)]
    with leading(command, places, context.dir) as crew, devices.memory_told(MEMORY_ADVICE):
        return align(
            engine, learning.pairs, gate, learning.config, context.report, seeds=seeds, anchors=learning.anchors,
            singles=learning.singles, folder=context.dir, parent=learning.parent, parent_scale=learning.parent_scale, keep=keep,
            show=store.blobs.put_image, crew=crew, drawing=drawing)  # fmt: skip


def _measured(found: Aligned, pair_set: PairSet, *, task: Task) -> dict[str, Any]:
    """What is told of a version beside its pictures."""
    return metrics_of(found.reading, found.reference, found.verdict, task=task) | {
        "step": found.step,
        "strength": found.scale,
        "classes": class_changes(found.reading, found.reference),
        "history": found.history,
        "num_pairs": len(pair_set.pairs),
        "num_singles": len(pair_set.singles),
        "pairs": pair_set.summary,
    }


def _pictures(
    context: JobContext, found: Aligned, gate: Gate, seeds: list[int], *, file: str, drawing: InGuidance | None
) -> dict[str, Any]:
    """Blobs of the gate's first images by the old version and the new one.

    Args:
        file: Of the new adapter.
    """
    store, order = context.store, context.params
    after = found.after
    if not after and drawing:
        after = drawing.by(found.state)
    elif not after:  # a resumed run has no pictures of its best checkpoint; they need an engine without any adapter
        engine = load_engine(store, store.project(order["project_id"]), model_id=order["model_id"])
        regions, shown = gate.regions(engine), gate.label_maps[:TRIAL_PAIRS]
        after = engine.generate(shown, seeds[: len(shown)], adapter=store.files.path(file),
                                regions=regions[: len(shown)] if regions else None)  # fmt: skip
    old, new = ([store.blobs.put_image(image) for image in images[:TRIAL_PAIRS]] for images in (found.before, after))
    return {"strip_before": old[:STRIP], "strip_after": new[:STRIP], "strip_trial_old": old, "strip_trial_new": new}


def _said(found: Aligned, *, task: Task, is_negative: bool) -> str:
    wins = f"{found.verdict.win_rate:.0%} of the {'test images' if task == 'classification' else 'masks'}"
    if is_negative:
        return f"a negative version is ready: guidance that leads away from it makes images which the judge prefers in {wins}"
    return f"a new version waits for acceptance: the judge prefers it in {wins}"
