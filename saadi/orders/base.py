"""What all orders have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from saadi.errors import BadInputError, TooFewError
from saadi.records import ModelKind
from saadi.store import Store

Share = Annotated[float, Field(gt=0, le=20, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


def is_classification(store: Store, project_id: int) -> bool:
    """Whether the images of a project have a class each in place of a mask."""
    return store.project(project_id).task == "classification"


def need_labelled(store: Store, project_id: int, *, needed: int, purpose: str) -> None:
    """Raises: TooFewError: fewer training images say what they show."""
    usable = store.count_labelled(project_id)["train"]
    if usable < needed:
        has, way = ("a class", "import") if is_classification(store, project_id) else ("a label map", "import or draw")
        raise TooFewError(f"{usable} training images with {has}, {needed} needed to {purpose}; {way} {needed - usable} more")


def need_own_model(store: Store, project_id: int, model_id: int, kind: ModelKind) -> None:
    """Raises: BadInputError: the model belongs to another project, or is of another kind."""
    model = store.model(model_id)
    if (model.project_id, model.kind) != (project_id, kind):
        raise BadInputError(f"model {model_id} is no {kind} of this project; leave it out to use the present one")


def need_nobody_withdrawn(store: Store, project_id: int, label_map_ids: Iterable[int]) -> None:
    """Raises: BadInputError: one of these label maps is of a patient who has withdrawn, or was drawn over an image of theirs."""
    if found := sorted(store.withdrawn_label_maps(project_id) & set(label_map_ids)):
        raise BadInputError(f"label map {found[0]} is of a patient who has withdrawn; leave it out, or choose another")


class Order(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[str]
    priority: ClassVar[int] = 0
    project_id: int

    def unique_key(self, store: Store) -> str | None:
        """Hash of what the job would do, where doing it twice makes no sense."""
        return None

    def check(self, store: Store) -> None:
        """Raises: SaadiError: the order cannot be carried out; says what is missing."""

    def frozen(self, store: Store) -> Self:
        """The order with the versions in use written into it, made when its job starts for the first time: a retry must not mix
        them with those of a later accept or fit, while one that waits behind a fit is to use what that makes."""
        return self
