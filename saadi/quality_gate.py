"""Which synthetic images of a project look unlike its real ones, or like one of them. Keeps what it looked at; imports no torch.

The rules are those of `saadi.plausibility`; here they meet the store. An image is judged in the space of colours and layout, in
the selector's eyes where it has looked, and class by class. Of a composite, whose surroundings are a real image's, nearness is
expected and not held against it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saadi import quality
from saadi.config import Home
from saadi.jobs import Report, silent
from saadi.plausibility import CLASS_LOOK, CLASS_LOOK_VALUES, ClassLooks, Plausibility, RealImages, class_looks
from saadi.records import Project, RealImage, Split
from saadi.store import Store

CHUNK = 32
SPLITS: tuple[Split, Split] = ("train", "val")
NEAR_UNDER_ITS_MASK = 0.25
"""An image made under a training image's own mask is near to it by its layout; only from so near on it is a copy."""


class Looked(NamedTuple):
    """An image, and the label map under which it was made or labelled."""

    blob: str
    label_map_blob: str
    is_composite: bool = False

    @property
    def key(self) -> str:
        """Under which the looks of its classes are kept."""
        return f"{self.blob}.{self.label_map_blob}"


# ---- looks of classes


def describe(store: Store, project: Project, pairs: Sequence[Looked], report: Report = silent) -> int:
    """Look at the classes of those that have not been looked at, 4 ms each; returns how many. Nothing in classification, where a
    class is the whole image."""
    if project.task == "classification":
        return 0
    by_key = {pair.key: pair for pair in pairs}
    missing = store.undescribed(CLASS_LOOK, by_key)
    for first in range(0, len(missing), CHUNK):
        chunk = [by_key[key] for key in missing[first : first + CHUNK]]
        store.put_descriptors(CLASS_LOOK, {
            pair.key: _packed(class_looks(store.blobs.image(pair.blob), store.blobs.label_map(pair.label_map_blob)))
            for pair in chunk})  # fmt: skip
        report(min(first + CHUNK, len(missing)), len(missing), "looking at each class")
    return len(missing)


def describe_project(store: Store, project: Project, report: Report = silent) -> int:
    """`describe` for every sample and every labelled real image."""
    rows = [Looked(row.blob, row.label_map_blob) for row in store.sample_rows(project.id)]
    return describe(store, project, [*_real_pairs(store, project).values(), *rows], report)


def _packed(looks: ClassLooks) -> NDArray[np.float32]:
    """(K, 16) flat: class index and its values, one row after the other."""
    rows = [np.concatenate([[index], values]) for index, values in sorted(looks.items())]
    return np.concatenate(rows).astype(np.float32) if rows else np.empty(0, np.float32)


def _unpacked(vector: NDArray[np.float32]) -> dict[int, NDArray[np.float32]]:
    return {int(row[0]): row[1:] for row in vector.reshape(-1, CLASS_LOOK_VALUES + 1)}


def _real_pairs(store: Store, project: Project) -> dict[int, Looked]:
    """Image id -> the image under its own label map, where it has one; in classification none, where a label map is a class."""
    if project.task == "classification":
        return {}
    records = {record.id: record.blob for record in store.label_maps(project.id)}
    return {image.id: Looked(image.blob, records[image.label_map_id]) for image in store.images(project.id)
            if image.label_map_id in records}  # fmt: skip


# ---- verdicts


@dataclass
class Yardstick:
    """The real images of a project as a measure, and what was found so far."""

    real: RealImages
    training: tuple[RealImage, ...]
    label_map_blobs: tuple[str, ...]
    """Of the training images; '' where there is none."""
    spaces: tuple[str, ...]
    _found: dict[Looked, Plausibility] = field(default_factory=dict)

    def judge(self, store: Store, pairs: Sequence[Looked]) -> dict[Looked, Plausibility]:
        """Those that have been looked at in every space."""
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._found]
        features = {space: store.descriptors(space, [pair.blob for pair in new]) for space in self.spaces}
        looks = store.descriptors(CLASS_LOOK, [pair.key for pair in new]) if self.real.classes else {}
        known = [pair for pair in new if all(pair.blob in found for found in features.values())
                 and (not self.real.classes or pair.key in looks)]  # fmt: skip
        if known:
            found = self.real.judge(
                {space: np.stack([features[space][pair.blob] for pair in known]) for space in self.spaces},
                [_unpacked(looks[pair.key]) if pair.key in looks else {} for pair in known])  # fmt: skip
            self._found |= {pair: self._fair(pair, one) for pair, one in zip(known, found, strict=True)}
        return {pair: self._found[pair] for pair in pairs if pair in self._found}


    def _fair(self, pair: Looked, found: Plausibility) -> Plausibility:
        """Nearness that the way of making explains is no copy."""
        has_its_mask = self.label_map_blobs[found.nearest] == pair.label_map_blob
        if found.verdict == "copy" and (pair.is_composite or (has_its_mask and found.nearness >= NEAR_UNDER_ITS_MASK)):
            return replace(found, verdict="implausible" if found.strangeness > self.real.far else "plausible")
        return found


def judged(store: Store, project: Project, pairs: Sequence[Looked]) -> list[Plausibility | None]:
    """What is found about each; None where it, or the real images, have not been looked at, or there are too few real ones."""
    selector = store.active_model(project.id, "selector")
    spaces: list[tuple[str, ...]] = [(quality.LOOK,)]
    if selector is not None:
        spaces.insert(0, (quality.LOOK, quality.selector_space(selector.id)))
    found: dict[Looked, Plausibility] = {}
    for names in spaces:
        if (stick := yardstick(store, project, names)) is not None:
            found = stick.judge(store, [pair for pair in pairs if pair not in found]) | found
    return [found.get(pair) for pair in pairs]


def refused(store: Store, project: Project, pairs: Sequence[Looked]) -> list[bool]:
    """Which of them are implausible or copies; those that nothing is known of are not."""
    return [one is not None and one.verdict != "plausible" for one in judged(store, project, pairs)]


def in_words(found: Plausibility, project: Project) -> str:
    """One sentence for a person."""
    if found.verdict == "copy":
        return "lies nearer to one real image than other patients' images do: it may be a copy"
    where = "as a whole"
    if found.reason.startswith("class "):
        where = f"in the {project.class_names[int(found.reason.removeprefix('class '))]}"
    elif found.reason.startswith("selector"):
        where = "to the segmenter"
    if found.verdict == "implausible":
        return f"looks unlike real images {where}"
    return f"looks like real images (farthest from them {where})"


def yardstick(store: Store, project: Project, spaces: tuple[str, ...]) -> Yardstick | None:
    """The training and validation images that have been looked at in all these spaces; None with too few of them. Test patients
    set no limits: what passes becomes winners of pairs and training data."""
    real = store.images(project.id, splits=SPLITS)
    missing = {blob for space in spaces for blob in store.undescribed(space, [image.blob for image in real])}
    labels = _real_pairs(store, project)
    unlooked = set(store.undescribed(CLASS_LOOK, [pair.key for pair in labels.values()]))
    parts = [f"{image.id}{image.split}{image.group_id}{labels[image.id].key if image.id in labels else ''}" for image in real
             if image.blob not in missing and (image.id not in labels or labels[image.id].key not in unlooked)]  # fmt: skip
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return _yardstick(store.home, project.id, spaces, key)


@lru_cache(maxsize=8)
def _yardstick(home: Home, project_id: int, spaces: tuple[str, ...], key: str) -> Yardstick | None:
    """`key` names the real images and label maps that have been looked at: with others the limits are others."""
    with Store.open(home) as store:
        images, labels = store.images(project_id, splits=SPLITS), _real_pairs(store, store.project(project_id))
        features = {space: store.descriptors(space, [image.blob for image in images]) for space in spaces}
        looks = store.descriptors(CLASS_LOOK, [pair.key for pair in labels.values()])
    seen = [image for image in images if all(image.blob in found for found in features.values())]
    keys = [labels[image.id].key if image.id in labels else "" for image in seen]
    if not seen:
        return None
    made = RealImages.of(
        {space: np.stack([found[image.blob] for image in seen]) for space, found in features.items()},
        [_unpacked(looks[one]) if one in looks else {} for one in keys], patients=[image.group_id for image in seen],
        is_training=[image.split == "train" for image in seen])  # fmt: skip
    if made is None:
        return None
    training = tuple(image for image in seen if image.split == "train")
    blobs = tuple(labels[image.id].label_map_blob if image.id in labels else "" for image in training)
    return Yardstick(made, training, blobs, spaces)
