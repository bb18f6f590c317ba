"""Alignment in rounds: generate, score, pair, align, accept; and again from what won. No torch.

A round is ordinary jobs. What comes next is placed in the transaction that ends the job before, so that a killed worker neither
loses nor doubles a round.
"""

from __future__ import annotations

from typing import Any

import structlog

from saadi import orders
from saadi.alignment import acceptance
from saadi.alignment.limits import MAX_DISTANCE_OF_ROUNDS, MIN_VENDI_OF_ROUNDS
from saadi.errors import BadInputError, SaadiError
from saadi.pairing import build_pairs
from saadi.records import Adapter, Job, Project
from saadi.store import Store

log = structlog.get_logger()
SETTINGS = ("steps", "batch_size", "learning_rate", "beta", "sft_weight", "gate_masks", "gate_every", "loss", "sdpo_mu",
            "accumulation", "ema_decay", "scale_search", "checkpointing", "gpus")  # fmt: skip
"""What of an alignment is the same in all rounds and may be chosen."""
SEEDS_PER_ROUND = 1_000_000
"""Rounds draw other images than those before them."""


def first_order(
    project_id: int, *, rounds: int, masks: int = 64, candidates: int = 4, seed: int = 0, settings: dict[str, Any] | None = None
) -> orders.Order:
    """The order that starts a series; the others follow by themselves.

    Args:
        masks, candidates: Of each round's pool.
        settings: Of every alignment, as in `orders.AlignOrder`.

    Raises:
        BadInputError: A value is out of bounds.
    """
    if not isinstance(settings or {}, dict) or (odd := set(settings or {}) - set(SETTINGS)):
        named = f"{min(odd)[:20]!r}" if isinstance(settings, dict) else str(settings)[:20]
        raise BadInputError(f"settings of an alignment are {', '.join(SETTINGS)}; got {named}")
    settings = {name: value for name, value in (settings or {}).items() if value is not None}
    orders.order(orders.AlignOrder, project_id=project_id, pair_set_id=0, **settings)  # a wrong one is told now, not in an hour
    series = {"round": 1, "of": rounds, "masks": masks, "candidates": candidates, "seed": seed, "settings": settings}
    return orders.order(orders.GenerateOrder, **_pool(project_id, series))


def go_on(store: Store, job: Job, result: dict[str, Any]) -> dict[str, Any]:
    """What follows on a job of a series that has just ended well; call inside the transaction that ends it.

    Returns:
        The job's result, with 'next_job_id', or with 'series_ended' = why nothing follows.
    """
    if not (series := job.params.get("series")):
        return result
    try:
        wanted = _after_pool(store, job, series) if job.kind == "generate" else _after_alignment(store, job, series, result)
        if wanted is None:
            return result | {"series_ended": f"all {series['of']} rounds are done"}
        if isinstance(wanted, str):
            return result | {"series_ended": wanted}
        number = wanted.model_dump()["series"]["round"]
        placed, _ = orders.place(store, wanted, actor=job.created_by, request_id=f"round-{number}-{wanted.kind}-after-{job.id}")
        return result | {"next_job_id": placed.id}
    except SaadiError as error:  # the job itself went well
        log.warning("series_ended", job=job.id, reason=str(error))
        return result | {"series_ended": str(error)}


def _after_pool(store: Store, job: Job, series: dict[str, Any]) -> orders.Order:
    made = build_pairs(store, _project(store, job).id, actor=job.created_by)
    return orders.order(orders.AlignOrder, project_id=job.project_id, pair_set_id=made.id, series=series,
                        **{"seed": series["seed"]} | series["settings"])  # fmt: skip


def _after_alignment(store: Store, job: Job, series: dict[str, Any], result: dict[str, Any]) -> orders.Order | str | None:
    """Accept what won, and start the next round from it; a version that any question speaks against waits for a person."""
    adapter = store.adapter(int(result["adapter_id"]))
    project = _project(store, job)
    if against := _against(adapter, project) or _collapse(store, adapter, num_rounds=series["round"]):
        return f"{adapter.name} waits for a person: {against}"
    reason = f"round {series['round']} of {series['of']}: {acceptance.headline(_questions(adapter, project))}"
    store.accept_adapter(adapter.id, project_id=project.id, actor=job.created_by, reason=reason)
    if series["round"] >= series["of"]:
        return None
    return orders.order(orders.GenerateOrder, **_pool(project.id, series | {"round": series["round"] + 1}))


def _pool(project_id: int, series: dict[str, Any]) -> dict[str, Any]:
    return {
        "project_id": project_id,
        "count": series["masks"],
        "candidates": series["candidates"],
        "seed": series["seed"] + series["round"] * SEEDS_PER_ROUND,
        "series": series,
    }


def _questions(adapter: Adapter, project: Project) -> list[acceptance.Question]:
    return acceptance.questions(adapter.metrics, project.class_names)


def _against(adapter: Adapter, project: Project) -> str | None:
    return next((question.words for question in _questions(adapter, project) if question.verdict == "no"), None)


def _collapse(store: Store, adapter: Adapter, *, num_rounds: int) -> str | None:
    """What all rounds together have lost: each was compared with the one before it only."""
    kept, version = dict.fromkeys(("vendi", "feature_distance", "appearance_distance"), 1.0), adapter
    for _ in range(num_rounds):
        for name in kept:
            before, after = (version.metrics.get(f"{name}_{when}") for when in ("before", "after"))
            kept[name] *= after / before if before and before > 0 and after is not None else 1.0
        if version.parent_id is None:
            break
        version = store.adapter(version.parent_id)
    since = f"before the first of {num_rounds} rounds."
    if kept["vendi"] < MIN_VENDI_OF_ROUNDS:
        return f"Variety fell to {kept['vendi']:.0%} of what it was {since}"
    for name, what in (("feature_distance", "what the judge sees"), ("appearance_distance", "colour and texture")):
        if kept[name] > MAX_DISTANCE_OF_ROUNDS and num_rounds > 1:
            return f"The distance to real images in {what} grew to {kept[name]:.2f} times what it was {since}"
    return None


def _project(store: Store, job: Job) -> Project:
    assert job.project_id is not None  # these jobs have one
    return store.project(job.project_id)
