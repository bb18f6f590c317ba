"""Learn, store and use where a project's hard images begin (`saadi.mining.noise_shift`), inside of a search for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from saadi import inpainting
from saadi.downstream import hardness
from saadi.downstream.scoring import Looking
from saadi.engines import weights
from saadi.engines.base import TrainableEngine
from saadi.engines.starting import NoiseShift, default_architecture
from saadi.errors import TooFewError
from saadi.generation import Plan, part_of, plan
from saadi.jobs import JobContext, Report
from saadi.mining import noise_shift
from saadi.records import Model, NoiseShiftModel


def learnt_start(context: JobContext, wanted: Plan, scorers: Sequence[tuple[Model, Looking]], report: Report) -> Plan:
    """The plan with start noise that has been learnt for its generator, the surroundings and the selector: the newest; one of
    now where there is none, or where the order says so. It is stored as soon as it is there, and written into the order: after a
    pause the search goes on from the same noise, whatever was learnt or trained meanwhile."""
    store, order = context.store, context.params
    if (shift_id := order["settings"].get("noise_shift_id")) is None:
        shift_id = _found(context, wanted, scorers, report).id
        settings = order["settings"] | {"noise_shift_id": shift_id}
        context.job = store.set_job_params(context.job, {**order, "settings": settings})
    return plan(store, wanted.project, model=wanted.model, adapter=wanted.adapter, purpose="pool",
                settings=order["settings"] | {"noise_shift_id": shift_id})  # fmt: skip


def _found(
    context: JobContext, wanted: Plan, scorers: Sequence[tuple[Model, Looking]], report: Report
) -> NoiseShiftModel:  # fmt: skip
    store, order, project_id = context.store, context.params, wanted.project.id
    selector, looking = next((model, looking) for model, looking in scorers if model.kind == "selector")
    adapter_id = wanted.adapter.id if wanted.adapter is not None else None
    surroundings = order["settings"].get("surroundings")
    fitting = [shift for shift in store.noise_shifts(project_id)
               if (shift.model_id, shift.adapter_id, shift.selector_id) == (wanted.model.id, adapter_id, selector.id)
               and shift.metrics.get("surroundings") == surroundings]  # fmt: skip
    own = [shift for shift in store.noise_shifts(project_id) if shift.job_id == context.job.id]
    if own or (fitting and order.get("learn_steps") is None):
        return (own or fitting)[-1]
    key = f"start-{wanted.model.id}-{adapter_id}-{selector.id}"  # what was begun for another selector is not gone on with
    learnt, metrics = _learnt(context, wanted, looking, report, context.dir / key)
    file = store.files.put(weights.to_bytes(learnt.state_dict()))
    return store.add_noise_shift(
        project_id, model_id=wanted.model.id, adapter_id=adapter_id, selector_id=selector.id, file=file,
        metrics=metrics | {"surroundings": surroundings}, architecture=learnt.architecture, actor=context.job.created_by,
        job_id=context.job.id)  # fmt: skip


def _learnt(
    context: JobContext, wanted: Plan, looking: Looking, report: Report, folder: Path
) -> tuple[NoiseShift, dict[str, Any]]:  # fmt: skip
    """From the masks of training images, and how it went.

    Raises:
        TooFewError: None of them names anything to paint.
    """
    store, order, adapter = context.store, context.params, wanted.adapter
    steps = order.get("learn_steps") or noise_shift.ShiftConfig.num_steps
    config = noise_shift.ShiftConfig(num_steps=steps, seed=order["seed"])
    engine = cast(TrainableEngine, wanted.engine)
    records = [record for record in store.label_maps(wanted.project.id, splits=["train"])
               if not wanted.paints or not inpainting.paints_nothing(store, record)]  # fmt: skip
    if not records:
        raise TooFewError("no training mask names anything that could be painted, so nothing can be learnt from them; draw or "
                          "import masks, or search without learning a start")  # fmt: skip
    rollout = engine.rollout(steps=config.rollout_steps, adapter=store.files.path(adapter.file) if adapter else None,
                             adapter_scale=adapter.scale if adapter else 1.0)  # fmt: skip
    torch.manual_seed(config.seed)
    made = NoiseShift(default_architecture(num_classes=len(wanted.project.classes), noise=rollout.noise)).to(engine.device)

    def asked(place: int) -> noise_shift.Asked:
        part = part_of(store, wanted, records[place])
        return noise_shift.Asked(store.blobs.label_map(records[place].blob), part.region() if part is not None else None)

    def told(step: int, total: int, message: str, **rest: Any) -> None:
        report(step, total, message.replace("fitting", "learning where hard images begin"), **rest)

    folder.mkdir(parents=True, exist_ok=True)
    metrics = noise_shift.fit(made, rollout, hardness.members(looking), len(records), asked, config, told, folder=folder)
    return made.to("cpu"), metrics
