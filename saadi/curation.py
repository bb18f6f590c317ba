"""Facts by which images are sorted out: for all samples of a project at once, as columns, and without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from saadi import quality, quality_gate
from saadi.config import Home
from saadi.errors import StorageError
from saadi.jobs import Report
from saadi.mining import seen
from saadi.mining.choosing import QUADRANTS, Limits, Quadrant, quadrants
from saadi.quality_gate import Looked
from saadi.records import HELD_OUT_SPLITS, IGNORE, Curation, Project, RealImage, Vote
from saadi.store import Store
from saadi.store.curation import SampleRow

SHARES = "classes-1"
"""Name of the stored vector of a label map: share of the pixels per class, (100,) float32."""
MAX_CLASSES = 100
STATES: tuple[Curation, ...] = ("pending", "accepted", "rejected", "quarantined")
DESCRIBE_CHUNK = 32


# ---- vectors


def class_shares(label_map: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(100,) share of a label map's pixels per class; what is to be ignored counts for none."""
    counts = np.bincount(label_map[label_map != IGNORE].ravel(), minlength=256)[:MAX_CLASSES]
    return (counts / label_map.size).astype(np.float32)


def describe_images(store: Store, blobs: Sequence[str], report: Report) -> int:
    """Look at those images that have not been looked at, 5 ms each; returns how many.

    Stored chunk by chunk, so that a stopped job keeps what it has.
    """
    missing = store.undescribed(quality.LOOK, blobs)
    for first in range(0, len(missing), DESCRIBE_CHUNK):
        chunk = missing[first : first + DESCRIBE_CHUNK]
        store.put_descriptors(quality.LOOK, {blob: quality.look(store.blobs.image(blob)) for blob in chunk})
        report(min(first + DESCRIBE_CHUNK, len(missing)), len(missing), "looking at colours and layout")
    return len(missing)


def describe_project(store: Store, project: Project, report: Report) -> int:
    """Look at every image and label map of a project that has not been looked at; returns how many images that were."""
    rows = store.sample_rows(project.id)
    mask_shares(store, [row.label_map_blob for row in rows])
    mask_shares(store, [record.blob for record in store.label_maps(project.id, splits=["train"])])
    return describe_images(store, [*(image.blob for image in store.images(project.id)), *(row.blob for row in rows)], report)


def mask_shares(store: Store, blobs: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Label map blob -> its `class_shares`; those not known yet (a drawing, an import) are counted now, 0.5 ms each, and kept."""
    counted = {blob: class_shares(store.blobs.label_map(blob)) for blob in store.undescribed(SHARES, blobs)}
    if counted:
        with suppress(StorageError):  # a full disk keeps nobody from looking; the next look counts again
            store.put_descriptors(SHARES, counted)
    return store.descriptors(SHARES, blobs) | counted


# ---- nearness to real images


@dataclass
class Neighbourhood:
    """The real training images of a project in one space, and what was found about samples so far."""

    yardstick: quality.Yardstick
    training: tuple[RealImage, ...]
    space: str
    _found: dict[str, tuple[float, int]] = field(default_factory=dict)

    def find(self, store: Store, blobs: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Distance (N,) to the nearest training image and its position in `training` (N,); NaN and -1 = not looked at yet."""
        vectors = store.descriptors(self.space, [blob for blob in blobs if blob not in self._found])
        if vectors:
            distances, indices = self.yardstick.nearest(np.stack(list(vectors.values())))
            self._found |= dict(zip(vectors, zip(distances.tolist(), indices.tolist(), strict=True), strict=True))
        pairs = [self._found.get(blob, (np.nan, -1)) for blob in blobs]
        return np.array([pair[0] for pair in pairs], np.float32), np.array([pair[1] for pair in pairs], np.int64)


def neighbourhood(store: Store, project: Project, space: str = quality.LOOK) -> Neighbourhood | None:
    """The real images as a yardstick in one space; None until two training images have been looked at."""
    real = store.images(project.id)
    missing = set(store.undescribed(space, [image.blob for image in real]))
    parts = [f"{image.id}{image.split}{image.group_id}" for image in real if image.blob not in missing]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return _neighbourhood(store.home, project.id, space, key)


@lru_cache(maxsize=8)
def _neighbourhood(home: Home, project_id: int, space: str, key: str) -> Neighbourhood | None:
    """`key` names the real images that have been looked at: with others there are other neighbours."""
    with Store.open(home) as store:
        real = store.images(project_id)
        vectors = store.descriptors(space, [image.blob for image in real])
    seen = [image for image in real if image.blob in vectors]
    training = tuple(image for image in seen if image.split == "train")
    held_out = [vectors[image.blob] for image in seen if image.split in HELD_OUT_SPLITS]
    if len(training) < 2:
        return None
    stacked = np.stack([vectors[image.blob] for image in training])
    # Learned features have no natural unit: a tenth of their usual spread is what may count.
    floor = quality.look_floor() if space == quality.LOOK else 0.1 * float(stacked.std(0).mean()) + 1e-6
    yardstick = quality.Yardstick.of(
        stacked,
        [image.group_id for image in training],
        np.stack(held_out) if held_out else np.empty((0, stacked.shape[1]), np.float32),
        floor=floor,
    )
    return None if yardstick is None else Neighbourhood(yardstick, training, space)


@dataclass(frozen=True)
class Neighbour:
    """The real training image that is nearest to a sample."""

    image: RealImage
    quality: float
    """See `saadi.quality.Yardstick.quality`."""
    share_farther: float
    """Share of unseen real images that lie farther from the training images than this sample does."""
    num_unseen: int


def nearest_real(store: Store, project: Project, blob: str, space: str = quality.LOOK) -> Neighbour | None:
    """The nearest training image of one picture; None while the real images or (in a selector's space) it were not looked at."""
    near = neighbourhood(store, project, space)
    if near is None:
        return None
    if space == quality.LOOK and store.undescribed(space, [blob]):
        store.put_descriptors(space, {blob: quality.look(store.blobs.image(blob))})
    distance, index = near.find(store, [blob])
    if index[0] < 0:
        return None
    stick = near.yardstick
    return Neighbour(
        near.training[index[0]], float(stick.quality(distance)[0]), float(stick.share_farther(distance)[0]), len(stick.unseen)
    )


# ---- columns


def sample_columns(store: Store, project: Project, *, person: str) -> dict[str, Any]:
    """Everything by which samples are filtered and sorted, one list per fact and one entry per sample (by id); None = unknown.

    Masks, versions and class names are listed once and named by their position. 10,000 samples: 0.4 s.
    """
    rows = store.sample_rows(project.id)
    masks = list(dict.fromkeys(row.label_map_blob for row in rows))
    positions = {blob: index for index, blob in enumerate(masks)}
    scores, gate = _score_columns(store, project, rows), _gate_column(store, project, rows)
    limits = seen.limits(store, project)
    names = {None: "base"} | {adapter.id: adapter.name for adapter in store.adapters(project.id)}
    versions = sorted({names[row.adapter_id] for row in rows}, key=lambda name: (name != "base", len(name), name))
    return (
        {
            "classes": list(project.class_names),
            "versions": versions,
            "masks": _mask_facts(store, project, masks),
            "id": [row.id for row in rows],
            "blob": [row.blob for row in rows],
            "mask": [positions[row.label_map_blob] for row in rows],
            "version": [versions.index(names[row.adapter_id]) for row in rows],
            "state": [STATES.index(row.curation) for row in rows],
            "is_drawn": [int(row.purpose == "draw") for row in rows],
            "is_composite": [row.is_composite for row in rows],
            "seed": [str(row.seed) for row in rows],
            "created": [int(datetime.fromisoformat(row.created_at).timestamp()) for row in rows],
        }
        | scores
        | _vote_columns(store.votes(project.id), rows)
        | _mark_columns(store, project, rows, person=person)
        | _look_columns(store, project, rows)
        | {"gate": gate, "quadrant": _quadrant_column(limits, scores, gate), "limits": asdict(limits) if limits else None}
    )


def quadrants_of(store: Store, project: Project) -> dict[int, Quadrant]:
    """Sample id -> what the image is for the selector's training (`saadi.mining.choosing`); those that selector and judge have
    looked at, none where nobody knows what is hard."""
    rows = store.sample_rows(project.id)
    scores, gate = _score_columns(store, project, rows), _gate_column(store, project, rows)
    places = _quadrant_column(seen.limits(store, project), scores, gate)
    return {row.id: QUADRANTS[place] for row, place in zip(rows, places, strict=True) if place is not None}


def _quadrant_column(limits: Limits | None, scores: Mapping[str, Any], gate: Sequence[int | None]) -> list[int | None]:
    """Place in QUADRANTS; None where a score is missing."""
    if limits is None:
        return [None] * len(gate)
    by_judge, by_selector = (np.array([np.nan if value is None else value for value in scores[kind]], np.float64)
                             for kind in ("judge", "selector"))  # fmt: skip
    places = quadrants(by_judge, 1 - by_selector, [not verdict for verdict in gate], limits)
    return [None if np.isnan(first + second) else int(place)
            for first, second, place in zip(by_judge, by_selector, places, strict=True)]  # fmt: skip


def _gate_column(store: Store, project: Project, rows: Sequence[SampleRow]) -> list[int | None]:
    """0 = plausible, 1 = unlike real images, 2 = like one of them; None = not looked at."""
    pairs = [Looked(row.blob, row.label_map_blob, bool(row.is_composite)) for row in rows]
    places = {"plausible": 0, "implausible": 1, "copy": 2}
    return [None if one is None else places[one.verdict] for one in quality_gate.judged(store, project, pairs)]


def _mask_facts(store: Store, project: Project, masks: Sequence[str]) -> list[dict[str, Any]]:
    """Per label map: the classes it asks for, the rarest of them, and in which share of the training label maps that one is.

    The background counts for none; in classification there is none.
    """
    first = 0 if project.task == "classification" else 1
    training = [record.blob for record in store.label_maps(project.id, splits=["train"])]
    shares = mask_shares(store, [*masks, *training])
    frequency = np.mean([shares[blob] > 0 for blob in training], axis=0) if training else None
    facts = []
    for blob in masks:
        asked = [int(index) for index in np.flatnonzero(shares[blob][: len(project.classes)]) if index >= first]
        rarest = min(asked, key=lambda index: frequency[index]) if asked and frequency is not None else None
        rarity = None if rarest is None or frequency is None else round(float(frequency[rarest]), 4)
        facts.append({"blob": blob, "classes": asked, "rarest": rarest, "rarity": rarity})
    return facts


def _score_columns(store: Store, project: Project, rows: Sequence[SampleRow]) -> dict[str, Any]:
    """Dice by selector and judge, how far they are apart, and the selector's Dice of each class of the project.

    In classification the probability of the asked class, and the selector's of each class, the first one included; and the class
    that is likeliest in its eyes.
    """
    is_classification = project.task == "classification"
    seen: list[int | None] = [None] * len(rows)
    at = {row.id: index for index, row in enumerate(rows)}
    dice: dict[str, list[float | None]] = {kind: [None] * len(rows) for kind in ("selector", "judge")}
    names, measure = (project.class_names, "probability") if is_classification else (project.class_names[1:], "dice")
    parts: dict[str, list[float | None]] = {name: [None] * len(rows) for name in names}
    for score in store.score_rows(project.id):
        if (index := at.get(score.sample_id)) is None:
            continue  # made and scored since the samples were read
        dice[score.kind][index] = score.dice
        per_class = json.loads(score.per_class)
        for name, values in per_class.items():
            if name in parts:
                parts[name][index] = values[measure]
        if is_classification and per_class:
            likeliest = max(per_class, key=lambda name: float(per_class[name][measure]))
            seen[index] = project.class_names.index(likeliest)
    apart = [
        None if first is None or second is None else round(abs(first - second), 4)
        for first, second in zip(dice["selector"], dice["judge"], strict=True)
    ]
    found = {"selector": dice["selector"], "judge": dice["judge"], "disagreement": apart, "class_dice": list(parts.values())}
    return found | ({"seen": seen} if is_classification else {})


def _vote_columns(votes: Sequence[Vote], rows: Sequence[SampleRow]) -> dict[str, Any]:
    """Number of votes on an image, skipped ones left out, and its share of wins: both good is half a win, both bad none."""
    gains = {"left": (1.0, 0.0), "right": (0.0, 1.0), "both_good": (0.5, 0.5), "both_bad": (0.0, 0.0)}
    count: dict[int, int] = {}
    won: dict[int, float] = {}
    for vote in votes:
        for sample_id, gain in zip((vote.left_id, vote.right_id), gains.get(vote.answer, ()), strict=False):
            count[sample_id] = count.get(sample_id, 0) + 1
            won[sample_id] = won.get(sample_id, 0.0) + gain
    return {
        "votes": [count.get(row.id, 0) for row in rows],
        "wins": [round(won[row.id] / count[row.id], 4) if row.id in count else None for row in rows],
    }


def _mark_columns(store: Store, project: Project, rows: Sequence[SampleRow], *, person: str) -> dict[str, Any]:
    """Who flagged an image (by anybody, and by this person), and this person's own favourites."""
    flagged, own, liked = set(), set(), set()
    for mark in store.marks(project.id):
        if mark.kind == "flag":
            flagged.add(mark.sample_id)
            own |= {mark.sample_id} if mark.person == person else set()
        elif mark.person == person:
            liked.add(mark.sample_id)
    return {
        "flagged": [int(row.id in flagged) for row in rows],
        "flagged_by_me": [int(row.id in own) for row in rows],
        "favourite": [int(row.id in liked) for row in rows],
    }


def _look_columns(store: Store, project: Project, rows: Sequence[SampleRow]) -> dict[str, Any]:
    """Quality, nearness, and the mean colour that a card shows until its picture is there; and how many still lack them."""
    blobs = [row.blob for row in rows]
    near = neighbourhood(store, project)
    colors = _mean_colors(store, blobs)
    if near is None:
        return {"quality": [None] * len(rows), "farther": [None] * len(rows), "color": colors, "unmeasured": len(rows)}
    distance, index = near.find(store, blobs)
    values, farther = near.yardstick.quality(distance), near.yardstick.share_farther(distance)
    known = index >= 0
    return {
        "quality": [round(float(value), 4) if is_known else None for value, is_known in zip(values, known, strict=True)],
        "farther": [round(float(value), 4) if is_known else None for value, is_known in zip(farther, known, strict=True)],
        "color": colors,
        "unmeasured": int((~known).sum()),
    }


def _mean_colors(store: Store, blobs: Sequence[str]) -> list[str | None]:
    """'rrggbb' per picture; None where it was not looked at."""
    vectors = store.descriptors(quality.LOOK, blobs)
    if not vectors:
        return [None] * len(blobs)
    lab = np.stack([vector[:3] for vector in vectors.values()])[:, None].round().clip(0, 255).astype(np.uint8)
    rgb = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)[:, 0]
    names = {blob: f"{red:02x}{green:02x}{blue:02x}" for blob, (red, green, blue) in zip(vectors, rgb, strict=True)}
    return [names.get(blob) for blob in blobs]
