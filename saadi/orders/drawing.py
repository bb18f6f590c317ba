"""Orders that draw label maps: fit a mask generator, and let it suggest."""

from __future__ import annotations

import hashlib
from typing import Annotated, ClassVar, Self

from pydantic import Field

from saadi.errors import BadInputError, TooFewError
from saadi.orders.base import Order, Seed, is_classification, need_nobody_withdrawn
from saadi.store import Store
from saadi.store.connection import dump

MIN_MASKS_TO_LEARN = 5
NO_MASKS = "this project has classes of whole images and no masks to draw; choose a class in Generate"


class FitMasksOrder(Order):
    """Learn to draw label maps like those of the training images."""

    kind: ClassVar[str] = "fit_masks"
    steps: int | None = Field(default=None, ge=1, le=1_000_000)
    """None = 2,000: some minutes on two cores."""
    seed: Seed = 0

    def unique_key(self, store: Store) -> str | None:
        """The same label maps are learnt alike, unless others have been learnt since."""
        newest = store.newest_mask_model(self.project_id)
        named = [self.kind, self.steps, self.seed, bases(store, self.project_id), newest.id if newest else None]
        return hashlib.sha256(dump(named).encode()).hexdigest()

    def check(self, store: Store) -> None:
        need_masks(store, self.project_id)


class SuggestMasksOrder(Order):
    """New label maps for a person who waits; where nothing draws them yet, it is learnt first."""

    kind: ClassVar[str] = "suggest_masks"
    priority: ClassVar[int] = 10
    count: int = Field(default=12, ge=1, le=1000)
    seed: Seed = 0
    label_map_id: int | None = None
    """Vary this one; None = new ones from the training images' own."""
    strength: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """0 keeps the mask, 1 draws everything anew; None = by chance."""
    classes: Annotated[tuple[Annotated[int, Field(ge=1, le=99)], ...], Field(max_length=100)] = ()
    """Must occur."""
    keep: bool = False
    """Store them as label maps of the project, drawn by nobody."""
    model_id: int | None = None
    """None = the newest mask generator, or one that is learnt now."""
    start_blob: str | None = None
    """The revision of `label_map_id` when the job started for the first time."""

    def check(self, store: Store) -> None:
        names = store.project(self.project_id).class_names
        for index in self.classes:
            if index >= len(names):
                raise BadInputError(f"class {index} is not in this project; it has classes 0 to {len(names) - 1}")
        if self.model_id is not None and store.mask_model(self.model_id).project_id != self.project_id:
            raise BadInputError(f"mask generator {self.model_id} belongs to another project; leave it out")
        if self.label_map_id is not None and store.label_map(self.label_map_id).project_id != self.project_id:
            raise BadInputError(f"label map {self.label_map_id} belongs to another project; reload the page")
        if is_classification(store, self.project_id):
            raise BadInputError(NO_MASKS)
        need_nobody_withdrawn(store, self.project_id, () if self.label_map_id is None else (self.label_map_id,))
        if self.model_id is not None and self.model_id in store.standing_trace(self.project_id).mask_models:
            raise BadInputError(f"mask generator {self.model_id} draws from masks of a patient who has withdrawn; leave it "
                                "out, and one is learnt from the others")  # fmt: skip
        if self.model_id is None and store.newest_mask_model(self.project_id) is None:
            need_masks(store, self.project_id)

    def frozen(self, store: Store) -> Self:
        newest = store.newest_mask_model(self.project_id)
        start = store.label_map(self.label_map_id).blob if self.label_map_id is not None else None
        return self.model_copy(update={"model_id": self.model_id or (newest.id if newest else None), "start_blob": start})


def bases(store: Store, project_id: int) -> list[str]:
    """Blobs of the training images' label maps, each once, in the order in which they came."""
    return list(dict.fromkeys(record.blob for record in store.label_maps(project_id, splits=["train"])))


def need_masks(store: Store, project_id: int) -> None:
    """Raises: BadInputError, TooFewError: there is nothing to learn from."""
    if is_classification(store, project_id):
        raise BadInputError(NO_MASKS)
    if (found := len(bases(store, project_id))) < MIN_MASKS_TO_LEARN:
        raise TooFewError(f"{found} different masks of training images, {MIN_MASKS_TO_LEARN} needed to draw new ones like them; "
                          f"import or draw {MIN_MASKS_TO_LEARN - found} more")  # fmt: skip
