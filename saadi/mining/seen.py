"""What downstream models see in a project's real images, kept beside them, and what follows: where they are weak, and from where
on a synthetic image is faithful or hard. Imports no torch; `saadi.downstream.scoring` fills it in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saadi.masks import class_of
from saadi.mining.choosing import MIN_UNSEEN, Limits
from saadi.mining.weakness import Part, Weakness, parts_of, whole_part
from saadi.records import LabelMap, Model, Project, RealImage, Split
from saadi.store import Store

PER_PART = 5
SPLITS: tuple[Split, Split] = ("train", "val")
"""Test patients are for the evaluation alone: what is made where a model fails on them would have seen them."""


def space(model: Model) -> str:
    """Name of what is kept of a model; a new one when something else is kept."""
    return f"seen-1.{model.id}"


class Labelled(NamedTuple):
    """A real image with the label map in force."""

    image: RealImage
    label_map_blob: str

    @property
    def key(self) -> str:
        """Under which it is kept what a model sees: a corrected label map is another one."""
        return f"{self.image.blob}.{self.label_map_blob}"


class Seen(NamedTuple):
    """What a model sees in one real image."""

    fidelity: float
    """Mean Dice over the asked classes, or probability of the class."""
    parts: tuple[Part, ...]


def labelled(store: Store, project: Project, splits: Sequence[Split] = SPLITS) -> list[Labelled]:
    """Real images that say what they show."""
    records = {record.id: record.blob for record in store.label_maps(project.id)}
    return [Labelled(image, records[image.label_map_id]) for image in store.images(project.id, splits=splits)
            if image.label_map_id in records]  # fmt: skip


def unseen_by(model: Model, images: Iterable[Labelled]) -> list[Labelled]:
    """Those whose patient the model has not learnt from; a cross-fitted selector has a part that has not seen each."""
    is_cross_fitted = model.kind == "selector" and model.architecture.get("folds", 1) > 1
    return [one for one in images if is_cross_fitted or one.image.split == "val"]


def pack(seen: Seen) -> NDArray[np.float32]:
    """(1 + 5 K,) for the store."""
    rows = [(part.class_index, part.area, part.contrast, part.place, part.recall) for part in seen.parts]
    return np.array([seen.fidelity, *(value for row in rows for value in row)], np.float32)


def unpack(vector: NDArray[np.float32], group: str) -> Seen:
    rows = vector[1:].reshape(-1, PER_PART).tolist()
    return Seen(float(vector[0]), tuple(Part(int(row[0]), row[1], row[2], int(row[3]), row[4], group) for row in rows))


def read(store: Store, model: Model, images: Iterable[Labelled]) -> list[Seen]:
    """What the model has seen in those that it has looked at and not learnt from."""
    known = unseen_by(model, images)
    vectors = store.descriptors(space(model), [one.key for one in known])
    return [unpack(vectors[one.key], one.image.group_id) for one in known if one.key in vectors]


def weakness(store: Store, project: Project) -> Weakness | None:
    """Where the selector in use fails; None where it has not looked at any real image that it has not learnt from."""
    model = store.active_model(project.id, "selector")
    if model is None:
        return None
    parts = [part for seen in read(store, model, labelled(store, project)) for part in seen.parts]
    return Weakness.of(parts) if parts else None


def num_looked_at(store: Store, project: Project) -> tuple[int, int]:
    """Patients (or videos), and images, that the selector in use has looked at without having learnt from them. An image of which
    nobody said whose it is counts as an image alone."""
    model = store.active_model(project.id, "selector")
    if model is None:
        return 0, 0
    known = unseen_by(model, labelled(store, project))
    vectors = store.descriptors(space(model), [one.key for one in known])
    looked = [one.image.group_id for one in known if one.key in vectors]
    return len({group for group in looked if not group.startswith("own-")}), len(looked)


def limits(store: Store, project: Project) -> Limits | None:
    """By what judge and selector see in real images that they have not learnt from; without enough validation patients the
    judge's limit is the selector's. None where too few have been looked at."""
    judge, selector = (store.active_model(project.id, kind) for kind in ("judge", "selector"))
    if judge is None or selector is None:
        return None
    images = labelled(store, project)
    by_judge, by_selector = ([seen.fidelity for seen in read(store, model, images)] for model in (judge, selector))
    return Limits.of(by_judge if len(by_judge) >= MIN_UNSEEN else by_selector, by_selector)


def parts_asked(store: Store, project: Project, blobs: Sequence[str]) -> list[list[Part]]:
    """What each label map asks for, 1 ms each and those that come twice once."""
    found: dict[str, list[Part]] = {}
    for blob in dict.fromkeys(blobs):
        found[blob] = asked_by(store.blobs.label_map(blob), project)
    return [found[blob] for blob in blobs]


def asked_by(label_map: LabelMap, project: Project) -> list[Part]:
    """Its parts; of a whole class that class."""
    return [whole_part(class_of(label_map))] if project.task == "classification" else parts_of(label_map)
