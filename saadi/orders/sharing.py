"""The order for a set to share: one image for each label map that comes near to no training patient."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field

from saadi.errors import BadInputError, TooFewError
from saadi.orders.files import MIN_TO_AUDIT
from saadi.orders.generating import GenerateOrder
from saadi.records import HELD_OUT_SPLITS
from saadi.store import Store

MAX_MASKS = 10_000
MIN_STRANGERS = 8
"""Patients whom the generator has not learnt from, or else training patients, on whom it is measured how near strangers come; as
`saadi.privacy.audit.MIN_HELD_OUT`."""


class SurrogatesOrder(GenerateOrder):
    """Of each label map's candidates keep the one most consistent with it among those that no measure finds near to any training
    image; where there is none, try new seeds with less guidance, up to a cap; see `saadi.privacy.slots`."""

    kind: ClassVar[str] = "surrogates"
    count: int = Field(default=32, ge=1, le=MAX_MASKS)
    """Label maps, one image each at most."""
    focus: Literal["weak"] | None = None
    candidates: int = Field(default=4, ge=1, le=64)
    """Per label map and round."""
    rounds: int = Field(default=6, ge=1, le=50)
    """The cap."""
    guidance_step: float = Field(default=0.1, ge=0, le=5, allow_inf_nan=False)
    """By so much the guidance falls from round to round."""
    lowest_guidance: float = Field(default=0.5, ge=0.1, le=20, allow_inf_nan=False)
    accept: bool = False
    """Accept what is kept, so that the next export holds it."""

    def check(self, store: Store) -> None:
        if self.inpaint is not None or self._needs_picture(store):
            raise BadInputError("what is painted into a real picture shows its patient; a set to share is of whole images, leave "
                                "real surroundings and parts out")  # fmt: skip
        super().check(store)
        if self.settings.negative is not None:
            raise BadInputError("a negative adapter needs guidance above 1, which this search lowers; leave the adapter out")
        if store.active_model(self.project_id, "selector") is None:
            raise TooFewError("this project has no scorers yet, and without one nobody can tell which image fits its mask; run "
                              "`train-scorer` first")  # fmt: skip
        if self.label_map_ids is not None and len(self.label_map_ids) > MAX_MASKS:
            raise BadInputError(f"{len(self.label_map_ids)} label maps, {MAX_MASKS} are allowed in one set; make several")
        self._check_withdrawn(store)
        images = store.images(self.project_id)
        trained = {image.group_id for image in images if image.split == "train"}
        held_out = {image.group_id for image in images if image.split in HELD_OUT_SPLITS}
        if self.accept and (unnamed := sum(image.group_id.startswith("own-") for image in images)):
            raise BadInputError(f"of {unnamed} real images nobody said whose they are, so frames of one patient may pass for "
                                "strangers; look at what is kept and accept it by hand, or import with patients")  # fmt: skip
        if len(trained) < MIN_TO_AUDIT or max(len(trained), len(held_out)) < MIN_STRANGERS:
            raise TooFewError(f"{len(held_out)} held-out and {len(trained)} training patients, {MIN_STRANGERS} of either are "
                              "needed to know how near strangers come; import more")  # fmt: skip

    def _check_withdrawn(self, store: Store) -> None:
        """A version that has learnt from somebody who withdrew may paint them, and nobody compares with them any more."""
        model = store.model(self.model_id) if self.model_id is not None else store.active_model(self.project_id, "engine")
        adapter = store.accepted_adapter(self.project_id) if self.adapter == "accepted" else None
        adapter_id = self.adapter if isinstance(self.adapter, int) else adapter.id if adapter else None
        tied = store.standing_trace(self.project_id)
        if (model is not None and model.id in tied.models) or adapter_id in tied.adapters:
            raise BadInputError("this version may have learnt from a patient who has withdrawn; fit and align without that "
                                "patient first, then make the set")  # fmt: skip

    def frozen(self, store: Store) -> Self:
        found = super().frozen(store)
        return found if found.label_map_ids is None else found.model_copy(update={"count": len(found.label_map_ids)})
