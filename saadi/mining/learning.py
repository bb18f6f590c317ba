"""Learn, store and use where a project's hard images begin (`saadi.mining.noise_shift`), inside of a search for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch

from saadi import inpainting
from saadi.downstream import hardness
from saadi.downstream.scoring import Looking
from saadi.engines import weights
from saadi.engines.base import TrainableEngine
from saadi.engines.starting import NoiseShift, default_architecture
from saadi.generation import Plan, part_of, plan
from saadi.jobs import JobContext
from saadi.mining import noise_shift
from saadi.records import Model


def learnt_start(context: JobContext, wanted: Plan, scorers: Sequence[tuple[Model, Looking]]) -> Plan:
    """The plan with start noise that has been learnt for its generator and the selector: the newest; one of now where there is
    none, or where the order says so. It is stored as soon as it is there, so that a retry finds it."""
    store, order, project = context.store, context.params, wanted.project
    selector, looking = next((model, looking) for model, looking in scorers if model.kind == "selector")
    adapter_id = wanted.adapter.id if wanted.adapter is not None else None
    found = store.newest_noise_shift(project.id, model_id=wanted.model.id, adapter_id=adapter_id, selector_id=selector.id)
    if found is None or (order["learn_steps"] is not None and found.job_id != context.job.id):
        learnt, metrics = _learnt(context, wanted, looking)
        file = store.files.put(weights.to_bytes(learnt.state_dict()))
        found = store.add_noise_shift(
            project.id, model_id=wanted.model.id, adapter_id=adapter_id, selector_id=selector.id, file=file, metrics=metrics,
            architecture=learnt.architecture, actor=context.job.created_by, job_id=context.job.id)  # fmt: skip
    return plan(store, project, model=wanted.model, adapter=wanted.adapter, purpose="pool",
                settings=order["settings"] | {"noise_shift_id": found.id})  # fmt: skip


def _learnt(context: JobContext, wanted: Plan, looking: Looking) -> tuple[NoiseShift, dict[str, Any]]:
    """From the masks of training images, and how it went."""
    store, order, adapter = context.store, context.params, wanted.adapter
    config = noise_shift.ShiftConfig(num_steps=order["learn_steps"] or noise_shift.ShiftConfig.num_steps, seed=order["seed"])
    engine = cast(TrainableEngine, wanted.engine)
    rollout = engine.rollout(steps=config.rollout_steps, adapter=store.files.path(adapter.file) if adapter else None,
                             adapter_scale=adapter.scale if adapter else 1.0)  # fmt: skip
    torch.manual_seed(config.seed)
    made = NoiseShift(default_architecture(num_classes=len(wanted.project.classes), noise=rollout.noise)).to(engine.device)
    records = [record for record in store.label_maps(wanted.project.id, splits=["train"])
               if not wanted.paints or not inpainting.paints_nothing(store, record)]  # fmt: skip

    def asked(place: int) -> noise_shift.Asked:
        part = part_of(store, wanted, records[place])
        return noise_shift.Asked(store.blobs.label_map(records[place].blob), part.region() if part is not None else None)

    def report(step: int, total: int, message: str, **rest: Any) -> None:
        context.report(step, total, message.replace("fitting", "learning where hard images begin"), **rest)

    metrics = noise_shift.fit(made, rollout, hardness.members(looking), len(records), asked, config, report, folder=context.dir)
    return made.to("cpu"), metrics
