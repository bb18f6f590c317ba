"""Going on with an alignment that was stopped or that failed: the same frozen order once more, from its checkpoint. No torch."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from safetensors import safe_open

from saadi import orders
from saadi.errors import BadInputError, NotFoundError
from saadi.records import Job
from saadi.store import Store

CHECKPOINT = "checkpoint.safetensors"
"""As `saadi.engines.checkpoints` names it; that module needs torch."""


def checkpoint_holder(store: Store, job: Job) -> Job | None:
    """The youngest of a stopped or failed alignment and those that it went on with which left a checkpoint: one that was stopped
    while it waited has none of its own. None = there is nothing to go on from."""
    if job.kind != "align" or job.state not in ("cancelled", "failed"):
        return None
    return next((part for part in reversed(chain(store, job)) if _checkpoint(store, part).exists()), None)


def checkpoint_step(store: Store, job: Job) -> int | None:
    """The step from which a stopped or failed alignment can go on; None = it cannot."""
    holder = checkpoint_holder(store, job)
    if holder is None:
        return None
    with safe_open(_checkpoint(store, holder), framework="numpy") as opened:
        return int(json.loads(opened.metadata()["state"])["step"])


def _checkpoint(store: Store, job: Job) -> Path:
    return store.home.job_dir(job.id) / CHECKPOINT


def continued(store: Store, job: Job) -> orders.Order:
    """The order that goes on with a job: pairs, generator, parent, seed and settings are those frozen when it began.

    Raises:
        BadInputError: It cannot go on; says why.
    """
    holder = checkpoint_holder(store, job)
    if holder is None:
        raise BadInputError(f"job {job.id} left nothing to go on from; press Align now to begin anew")
    engine = store.active_model(job.project_id or 0, "engine")
    if engine is None or engine.id != holder.params["model_id"]:
        raise BadInputError("the generator has been fitted anew since; what was learned does not fit it, press Align now")
    return orders.order(orders.AlignOrder, **{**holder.params, "continues": holder.id})


def take_over(store: Store, continues: int | None, folder: Path) -> None:
    """Move the checkpoint of the job to go on with into this job's folder; later attempts find it there."""
    if continues is None or (folder / CHECKPOINT).exists():
        return
    left = store.home.job_dir(continues)
    if not (left / CHECKPOINT).exists():
        raise NotFoundError(f"the checkpoint of job {continues} is gone; press Align now to begin anew")
    os.replace(left / CHECKPOINT, folder / CHECKPOINT)
    shutil.rmtree(left, ignore_errors=True)


def chain(store: Store, job: Job) -> list[Job]:
    """The jobs that this one goes on with, oldest first, itself last."""
    found = [job]
    while (before := found[0].params.get("continues")) is not None and before < found[0].id:
        found.insert(0, store.job(before))
    return found
