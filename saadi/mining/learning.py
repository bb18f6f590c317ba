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
from saadi.records import Model

SURROUNDINGS = "surroundings"
"""Of what a start was learnt for, in its metrics."""


def known_start(context: JobContext, wanted: Plan, scorers: Sequence[tuple[Model, Looking]]) -> int | None:
    """The start that this job has learnt or used already; or, where the order does not want one anew, the newest for its
    generator, surroundings and selector."""
    store, order = context.store, context.params
    if (kept := order.get("learnt_id")) is not None:
        return int(kept)
    everything = store.noise_shifts(wanted.project.id)
    if own := [shift for shift in everything if shift.job_id == context.job.id]:
        return own[-1].id
    selector, _ = _selector(scorers)
    key = (wanted.model.id, wanted.adapter.id if wanted.adapter is not None else None, selector.id)
    fitting = [shift.id for shift in everything if (shift.model_id, shift.adapter_id, shift.selector_id) == key
               and shift.metrics.get(SURROUNDINGS, "") == order["settings"].get("surroundings")]  # fmt: skip
    return fitting[-1] if fitting and order.get("learn_steps") is None else None


def learnt_start(context: JobContext, wanted: Plan, scorers: Sequence[tuple[Model, Looking]], report: Report) -> Plan:
    """The plan with start noise that is known (`known_start`) or learnt now. What is learnt is stored as soon as it is there, and
    which one is used is written into the order: after a pause the search goes on from the same noise, whatever was learnt or
    trained meanwhile."""
    store = context.store
    found = known_start(context, wanted, scorers)
    if found is None:
        found = _stored(context, wanted, scorers, report)
    if context.params.get("learnt_id") is None:
        context.job = store.set_job_params(context.job, {**context.params, "learnt_id": found})
    return plan(store, wanted.project, model=wanted.model, adapter=wanted.adapter, purpose="pool",
                settings=context.params["settings"] | {"noise_shift_id": found})  # fmt: skip


def _stored(context: JobContext, wanted: Plan, scorers: Sequence[tuple[Model, Looking]], report: Report) -> int:
    store, (selector, looking) = context.store, _selector(scorers)
    adapter_id = wanted.adapter.id if wanted.adapter is not None else None
    key = f"start-{wanted.model.id}-{adapter_id}-{selector.id}"  # what was begun for another selector is not gone on with
    learnt, metrics = _learnt(context, wanted, looking, report, context.dir / key)
    return store.add_noise_shift(
        wanted.project.id, model_id=wanted.model.id, adapter_id=adapter_id, selector_id=selector.id,
        file=store.files.put(weights.to_bytes(learnt.state_dict())), architecture=learnt.architecture,
        metrics=metrics | {SURROUNDINGS: context.params["settings"].get("surroundings")}, actor=context.job.created_by,
        job_id=context.job.id).id  # fmt: skip


def _selector(scorers: Sequence[tuple[Model, Looking]]) -> tuple[Model, Looking]:
    return next((model, looking) for model, looking in scorers if model.kind == "selector")


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
