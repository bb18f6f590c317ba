"""What can be ordered: checked settings of every job, the same for the page and the command line. Imports no torch."""

from __future__ import annotations

import uuid
from typing import Any

from pydantic import ValidationError

from saadi.errors import BadInputError
from saadi.orders.base import Order, is_classification
from saadi.orders.drawing import MIN_MASKS_TO_LEARN, FitMasksOrder, SuggestMasksOrder
from saadi.orders.files import AuditOrder, ExportOrder, ImportOrder, TextCheckOrder
from saadi.orders.generating import (
    DrawOrder,
    GenerateOrder,
    Inpaint,
    MineOrder,
    NegativeSettings,
    PictureChoice,
    SamplingSettings,
    Series,
    is_negative,
)
from saadi.orders.looking import MapOrder, PredictOrder, RefineOrder, ScoreOrder, refinement
from saadi.orders.sharing import SurrogatesOrder
from saadi.orders.training import (
    MIN_IMAGES_TO_FIT,
    MIN_IMAGES_TO_TRAIN_SCORER,
    MIN_PAIRS_TO_ALIGN,
    PROMPT,
    AlignOrder,
    EvidenceOrder,
    FitOrder,
    TrainScorerOrder,
)
from saadi.records import Job
from saadi.store import Store

__all__ = [
    "MIN_IMAGES_TO_FIT",
    "MIN_MASKS_TO_LEARN",
    "MIN_IMAGES_TO_TRAIN_SCORER",
    "MIN_PAIRS_TO_ALIGN",
    "PROMPT",
    "is_classification",
    "is_negative",
    "NegativeSettings",
    "SamplingSettings",
    "PictureChoice",
    "Inpaint",
    "Series",
    "Order",
    "FitOrder",
    "GenerateOrder",
    "DrawOrder",
    "MineOrder",
    "SurrogatesOrder",
    "TrainScorerOrder",
    "ScoreOrder",
    "RefineOrder",
    "refinement",
    "PredictOrder",
    "MapOrder",
    "AlignOrder",
    "EvidenceOrder",
    "ImportOrder",
    "ExportOrder",
    "AuditOrder",
    "TextCheckOrder",
    "FitMasksOrder",
    "SuggestMasksOrder",
    "order",
    "place",
    "ORDERS",
    "freeze",
]


def order(kind: type[Order], **values: Any) -> Order:
    """Build an order from untrusted values.

    Raises:
        BadInputError: One sentence naming the first value out of bounds.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "order"
        raise BadInputError(f"{name}: {first['msg'].lower()}; got {str(first['input'])[:40]!r}") from error


def place(store: Store, wanted: Order, *, actor: str, request_id: str | None = None) -> tuple[Job, bool]:
    """Check an order and queue it.

    Returns:
        The job, and True where it is new; a second click gets the job of the first.
    """
    store.complete_class_maps(wanted.project_id, actor=actor)
    wanted.check(store)
    return store.add_job(
        wanted.kind,
        wanted.model_dump(mode="json"),
        project_id=wanted.project_id,
        actor=actor,
        request_id=request_id or uuid.uuid4().hex,
        unique_key=wanted.unique_key(store),
        priority=wanted.priority,
    )
ORDERS: dict[str, type[Order]] = {
    kind.kind: kind
    for kind in (FitOrder, GenerateOrder, TrainScorerOrder, ScoreOrder, PredictOrder, MapOrder, AlignOrder, EvidenceOrder,
                 ImportOrder, ExportOrder, FitMasksOrder, SuggestMasksOrder, MineOrder,
                 RefineOrder, AuditOrder, SurrogatesOrder, TextCheckOrder)
}


def freeze(store: Store, job: Job) -> Job:
    """Write the versions in use into a job's order when it starts for the first time; a retry finds them there.

    Raises:
        TooFewError: What the order needs has gone since it was placed.
    """
    if job.attempt > 1 or job.kind not in ORDERS:
        return job
    wanted = ORDERS[job.kind](**job.params)
    wanted.check(store)
    return store.set_job_params(job, wanted.frozen(store).model_dump(mode="json"))
