"""Orders that let models look at what there is: scores, what the selector sees, the map."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar, Literal, Self, cast

from saadi.errors import BadInputError, TooFewError
from saadi.orders.base import Order, is_classification, need_own_model
from saadi.quality import LOOK
from saadi.records import ModelKind
from saadi.store import Store
from saadi.store.connection import dump


class ScoreOrder(Order):
    """Let selector and judge look at every sample they have not seen."""

    kind: ClassVar[str] = "score"

    def check(self, store: Store) -> None:
        if store.active_model(self.project_id, "selector") is None:
            raise TooFewError("this project has no selector yet; run `train-scorer` first")


class PredictOrder(Order):
    """What the selector sees in one real image, for a person who waits."""

    kind: ClassVar[str] = "predict"
    priority: ClassVar[int] = 10
    image_id: int
    model_id: int | None = None
    """None = the selector in use."""

    def check(self, store: Store) -> None:
        if store.image(self.image_id).project_id != self.project_id:
            raise BadInputError(f"image {self.image_id} belongs to another project; reload the page")
        if store.active_model(self.project_id, "selector") is None:
            what = "classifier" if is_classification(store, self.project_id) else "segmenter"
            raise TooFewError(f"this project has no {what} yet; train the scorers first (tab Data)")
        if self.model_id is not None:
            need_own_model(store, self.project_id, self.model_id, "selector")

    def frozen(self, store: Store) -> Self:
        selector = store.active_model(self.project_id, "selector")
        return self.model_copy(update={"model_id": self.model_id or (selector.id if selector else None)})

    def unique_key(self, store: Store) -> str | None:
        """The same network sees the same in the same image."""
        frozen = self.frozen(store)
        assert isinstance(frozen, PredictOrder)
        return hashlib.sha256(dump([self.kind, self.image_id, frozen.model_id]).encode()).hexdigest()


MIN_TO_REFINE = 8
"""Validation images, on which outlines are measured."""


class RefineOrder(Order):
    """Measure by how many pixels masks of synthetic images should be smaller than what was asked for (`saadi.refinement`)."""

    kind: ClassVar[str] = "refine"
    model_id: int | None = None
    """None = the generator in use, with the version in use."""
    adapter: int | Literal["none", "accepted"] = "accepted"
    selector_id: int | None = None
    """None = the selector in use."""

    def check(self, store: Store) -> None:
        if is_classification(store, self.project_id):
            raise BadInputError("outlines are measured of masks, and this project has classes of whole images; there is "
                                "nothing to refine")  # fmt: skip
        if store.active_model(self.project_id, "engine") is None:
            raise TooFewError("this project has no generator yet; run `fit` first")
        if store.active_model(self.project_id, "selector") is None:
            raise TooFewError("this project has no selector yet; run `train-scorer` first")
        for model_id, kind in ((self.model_id, "engine"), (self.selector_id, "selector")):
            if model_id is not None:
                need_own_model(store, self.project_id, model_id, cast(ModelKind, kind))
        if isinstance(self.adapter, int) and self.adapter not in {adapter.id for adapter in store.adapters(self.project_id)}:
            raise BadInputError(f"adapter {self.adapter} is not in this project; leave it out to use the version in use")
        found = store.count_labelled(self.project_id)["val"]
        if found < MIN_TO_REFINE:
            raise TooFewError(f"{found} labelled images of validation patients, {MIN_TO_REFINE} needed to measure outlines where "
                              "nobody has learnt; import more with the split val")  # fmt: skip

    def frozen(self, store: Store) -> Self:
        model, selector = (store.active_model(self.project_id, kind) for kind in ("engine", "selector"))
        adapter = store.accepted_adapter(self.project_id)
        return self.model_copy(update={
            "model_id": self.model_id or (model.id if model else None),
            "selector_id": self.selector_id or (selector.id if selector else None),
            "adapter": (adapter.id if adapter else "none") if self.adapter == "accepted" else self.adapter})  # fmt: skip

    def unique_key(self, store: Store) -> str | None:
        """The same models find the same on the same images."""
        frozen = self.frozen(store)
        held = [[record.image_id, record.blob] for record in store.label_maps(self.project_id, splits=["val"])]
        return hashlib.sha256(dump([self.kind, frozen.model_dump(), held]).encode()).hexdigest()


def refinement(store: Store, project_id: int) -> dict[str, Any] | None:
    """What the newest measurement says of the version in use: 'radii' by class name, 'classes', 'examples', 'job_id'; None
    where there is none."""
    model, adapter = store.active_model(project_id, "engine"), store.accepted_adapter(project_id)
    in_use = (model.id if model else None, adapter.id if adapter else None)
    for job in store.jobs(project_id, kind="refine", limit=200):
        if job.state == "done" and model is not None and (job.result.get("model_id"), job.result.get("adapter_id")) == in_use:
            return job.result | {"job_id": job.id}
    return None


class MapOrder(Order):
    """Lay all pictures out on a 2-D map, those that look alike side by side; waits for everything else."""

    kind: ClassVar[str] = "map"
    priority: ClassVar[int] = -5

    def unique_key(self, store: Store) -> str | None:
        return f"map:{self.project_id}:{store.projection_input(self.project_id, LOOK)}"

    def check(self, store: Store) -> None:
        store.project(self.project_id)
