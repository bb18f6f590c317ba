"""Orders that let models look at what there is: scores, what the selector sees, the map."""

from __future__ import annotations

import hashlib
from typing import ClassVar, Self

from saadi.errors import BadInputError, TooFewError
from saadi.orders.base import Order, is_classification, need_own_model
from saadi.quality import LOOK
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


class MapOrder(Order):
    """Lay all pictures out on a 2-D map, those that look alike side by side; waits for everything else."""

    kind: ClassVar[str] = "map"
    priority: ClassVar[int] = -5

    def unique_key(self, store: Store) -> str | None:
        return f"map:{self.project_id}:{store.projection_input(self.project_id, LOOK)}"

    def check(self, store: Store) -> None:
        store.project(self.project_id)
