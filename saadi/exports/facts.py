"""What datasheet, Croissant metadata and dataset card tell of an export: numbers of its rows, of votes, and the map of Curate.

No name of a person or patient, no file name from outside and no time of day is in them: while nobody votes or lays the map out
anew, the same accepted images give the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saadi.exports.manifest import counts
from saadi.records import Project, Vote
from saadi.store import Store

AREA_EDGES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Shares of an image, between which a class's areas are counted."""
SCORE_BINS = 10
MAX_POINTS = 3000


@dataclass(frozen=True)
class ClassFacts:
    """One class in the images of one kind."""

    name: str
    num_images: int
    """That show it."""
    num_groups: int
    """Patients or videos that show it."""
    share: float
    """Of all pixels that count, 0-1."""
    areas: tuple[int, ...]
    """Images by the share of the image that it covers, between AREA_EDGES."""


@dataclass(frozen=True)
class Facts:
    """All numbers of one export."""

    project: str
    task: str
    format: str
    counts: dict[str, dict[str, int]]
    """Split -> kind -> images."""
    groups: dict[str, int]
    """Split -> patients or videos with real images."""
    sizes: dict[str, int]
    """'256 x 256' -> images."""
    classes: dict[str, list[ClassFacts]]
    """Kind -> its classes; of whole images without areas."""
    scores: dict[str, list[int]]
    """'selector' and 'judge' -> synthetic images by score, in SCORE_BINS from 0 to 1."""
    versions: dict[str, int]
    """Generator and adapter -> images made by them."""
    left_out: dict[str, int]
    lost: list[str]
    num_raters: int = 0
    num_votes: int = 0
    alpha: float | None = None
    label_names: tuple[str, ...] = ()
    num_unknown: int = 0
    """Real images of which nobody said whose they are: each counts as a patient of its own."""
    points: tuple[tuple[float, float, str], ...] = ()
    """Where images lie on the map of Curate, x and y in 0-1, and their kind; none where it has not been laid out."""

    @property
    def num_items(self) -> int:
        return sum(number for by_kind in self.counts.values() for number in by_kind.values())

    def num_of(self, kind: str) -> int:
        return sum(by_kind.get(kind, 0) for by_kind in self.counts.values())


def facts_of(store: Store, project: Project, rows: Sequence[Mapping[str, Any]], *, format: str, left_out: Mapping[str, int],
             lost: Sequence[str]) -> Facts:  # fmt: skip
    """From the rows of items.jsonl; votes and their agreement from the store."""
    votes, _ = store.votes_and_repeats(project.id)
    kinds = sorted({row["kind"] for row in rows})
    return Facts(
        project=project.name, task=project.task, format=format, counts=counts(rows), groups=_groups(rows),
        sizes=dict(sorted(Counter(f"{row['width']} x {row['height']}" for row in rows).items())),
        classes={kind: _classes(project, [row for row in rows if row["kind"] == kind]) for kind in kinds},
        scores=_scores(rows), versions=dict(sorted(Counter(_version(row) for row in rows if row["kind"] != "real").items())),
        left_out=dict(left_out), lost=list(lost), num_raters=len({vote.voter for vote in votes}), num_votes=len(votes),
        alpha=_alpha(votes), label_names=project.class_names,
        num_unknown=_num_unknown(store, project, rows), points=_points(store, project, rows))  # fmt: skip


def _alpha(votes: Sequence[Vote]) -> float | None:
    if not votes:
        return None
    from saadi import agreement  # scipy and evalica take two seconds

    return agreement.krippendorff(votes).value


def _num_unknown(store: Store, project: Project, rows: Sequence[Mapping[str, Any]]) -> int:
    shown = {row["lineage"].get("image_id") for row in rows if row["kind"] == "real"}
    return sum(image.id in shown and image.group_id.startswith("own-") for image in store.images(project.id))


def _points(store: Store, project: Project, rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[float, float, str], ...]:
    laid_out = store.projection(project.id)
    if laid_out is None:
        return ()
    ids = [("sample", int(number)) for number in laid_out.sample_ids] + [("image", int(number)) for number in laid_out.image_ids]
    at = dict(zip(ids, laid_out.points.tolist(), strict=True))
    found = []
    for row in rows:
        key = ("image", row["lineage"].get("image_id")) if row["kind"] == "real" else ("sample", row["lineage"].get("sample_id"))
        if key in at:
            x, y = at[key]
            found.append((round(x, 4), round(y, 4), row["kind"]))
    step = -(-len(found) // MAX_POINTS)
    return tuple(found[::step]) if found else ()


def _groups(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    found: dict[str, set[str]] = {}
    for row in rows:
        if row["kind"] == "real":
            found.setdefault(row["split"], set()).add(row["group"])
    return {split: len(groups) for split, groups in sorted(found.items())}


def _classes(project: Project, rows: Sequence[Mapping[str, Any]]) -> list[ClassFacts]:
    if project.task == "classification":
        labels = Counter(row["label"] for row in rows)
        groups = {name: len({row["group"] for row in rows if row["label"] == name}) for name in project.class_names}
        return [ClassFacts(name, labels[name], groups[name], labels[name] / max(1, len(rows)), ())
                for name in project.class_names]  # fmt: skip
    total = sum(sum(row["pixels"].values()) for row in rows)
    found = []
    for name in project.class_names:
        showing = [row for row in rows if row["pixels"].get(name)]
        areas = [row["pixels"][name] / (row["height"] * row["width"]) for row in showing]
        found.append(ClassFacts(name, len(showing), len({row["group"] for row in showing}),
                                sum(row["pixels"][name] for row in showing) / max(1, total),
                                tuple(int(number) for number in np.histogram(areas, AREA_EDGES)[0])))  # fmt: skip
    return found


def _scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    found: dict[str, list[float]] = {}
    for row in rows:
        for score in row["lineage"].get("scores", ()):
            found.setdefault(score["kind"], []).append(score.get("dice", score.get("probability", 0.0)))
    return {kind: [int(number) for number in np.histogram(values, SCORE_BINS, (0, 1))[0]]
            for kind, values in sorted(found.items())}  # fmt: skip


def _version(row: Mapping[str, Any]) -> str:
    lineage = row["lineage"]
    adapter = f" with adapter {lineage['adapter']['name']}" if lineage.get("adapter") else ""
    return f"{lineage['engine']} {lineage['model']['sha256'][:12]}{adapter}"
