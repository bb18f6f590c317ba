"""From the store's votes and scores to a frozen pair set, and to the pairs that a reviewer sees next."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from saadi.errors import TooFewError
from saadi.preferences import Candidate, Merged, merge, strengths, to_pairs, undecidedness
from saadi.records import IGNORE, Pair, PairSet, Vote
from saadi.store import Store
from saadi.store.blobs import BlobStore

RARE_SHARE = 0.25
"""Of the pairs shown, this share comes from label maps with the rarest class (docs/design.md: votes count most there)."""
REAL_SHARE = 1.0
"""Real-image winners added per synthetic pair: the real image against the worst candidate of the same label map."""


@dataclass(frozen=True)
class Settled:
    """What a project's votes and scores say now, before anything is frozen."""

    pairs: list[Pair]
    summary: dict[str, Any]
    groups: dict[str, list[Candidate]]
    """Label map blob -> its usable candidates."""
    votes: dict[str, list[Vote]]
    """Label map blob -> votes in force, those on candidates that are not usable included."""
    merged: dict[str, Merged]
    """Label map blob -> what was decided about its candidates, and what was not."""


def build_pairs(store: Store, project_id: int, *, actor: str, real_winners: bool = True) -> PairSet:
    """Settle all pairs of a project and freeze them; raises as `settle` does."""
    settled = settle(store, project_id, real_winners=real_winners)
    return store.freeze_pairs(project_id, settled.pairs, settled.summary, actor=actor)


def settle(store: Store, project_id: int, *, real_winners: bool = True) -> Settled:
    """Settle all pairs of a project; changes nothing.

    Under each label map with scored candidates: merged votes and scores decide chosen and rejected; and where the label map
    belongs to a real training image, that image is the winner against the worst candidate (the strongest lever in both
    trials, DESIGN section 6).

    Raises:
        TooFewError: No scored candidates yet.
    """
    groups = _candidates(store, project_id)
    if not groups:
        raise TooFewError("no scored candidates yet; generate some and let the scorers look at them first")
    votes = _votes_by_label_map(store.votes(project_id))
    reals = _real_images(store, project_id) if real_winners else {}
    pairs: list[Pair] = []
    outcomes: dict[str, Merged] = {}
    conflicts = undecided = 0
    for label_map_blob, candidates in sorted(groups.items()):
        merged = outcomes[label_map_blob] = merge(candidates, votes.get(label_map_blob, []))
        conflicts += len(merged.conflicts)
        undecided += merged.num_undecided
        pairs += to_pairs(merged.decisions, label_map_blob=label_map_blob)
        if label_map_blob in reals and candidates:
            strength = strengths(candidates, votes.get(label_map_blob, []))
            worst = min(candidates, key=lambda candidate: (strength[candidate.sample_id], candidate.sample_id))
            pairs.append(
                Pair(
                    label_map_blob=label_map_blob,
                    chosen_blob=reals[label_map_blob],
                    rejected_blob=worst.blob,
                    source="real",
                    weight=1.0,
                    margin=round(max(1e-6, 1 - worst.score), 6),
                )
            )
    summary: dict[str, Any] = {
        "num_pairs": len(pairs),
        "by_source": dict(Counter(pair.source for pair in pairs)),
        "num_label_maps": len(groups),
        "num_candidates": sum(len(group) for group in groups.values()),
        "num_votes": sum(len(group) for group in votes.values()),
        "num_conflicts": conflicts,
        "num_undecided": undecided,
    }
    return Settled(pairs, summary, groups, votes, outcomes)


def next_vote_pairs(
    store: Store, project_id: int, *, voter: str, count: int, exclude: set[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Pairs that a reviewer has not judged: the least certain first, with a quota for the rarest class; sides are random.

    Args:
        exclude: Pairs the browser holds already, (smaller id, larger id).

    Returns:
        (left sample id, right sample id), at most `count`.
    """
    groups = _candidates(store, project_id)
    votes = _votes_by_label_map(store.votes(project_id))
    mine = {tuple(sorted((vote.left_id, vote.right_id))) for vote in store.votes(project_id, voter=voter)}
    rare = _rare_label_maps(store, groups)
    found: list[tuple[float, bool, int, int]] = []
    for blob, candidates in groups.items():
        merged = strengths(candidates, votes.get(blob, []))
        ids = sorted(merged)
        for index, first in enumerate(ids):
            for second in ids[index + 1 :]:
                if (first, second) not in mine and (first, second) not in exclude:
                    found.append((undecidedness(merged, first, second), blob in rare, first, second))
    # Ties are broken by a hash of the ids, not by their order: the oldest label map would otherwise fill a sitting.
    found.sort(key=lambda item: (-round(item[0], 2), random.Random(f"{voter}:{item[2]}:{item[3]}").random()))
    quota = round(count * RARE_SHARE)
    chosen = [item for item in found if item[1]][:quota]
    chosen += [item for item in found if item not in chosen][: count - len(chosen)]
    return [
        (first, second) if random.Random(f"side:{voter}:{first}:{second}").random() < 0.5 else (second, first)
        for _, _, first, second in chosen
    ]


def _candidates(store: Store, project_id: int) -> dict[str, list[Candidate]]:
    """Label map blob -> its candidates that the active selector has scored.

    Only images of the present generator, only label maps that belong to no validation or test patient (those measure), none
    that somebody has quarantined, and none of which only a part was made: most of its pixels are another picture's. A rejected
    image stays, as a loser it teaches.
    """
    by_selector = {score.sample_id: score.dice for score in store.scores(project_id) if score.kind == "selector"}
    engine = store.active_model(project_id, "engine")
    held = store.label_maps(project_id, splits=["val", "test"])
    held_ids, held_blobs = {record.id for record in held}, {record.blob for record in held}
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for sample in store.samples(project_id):
        is_usable = sample.id in by_selector and sample.curation != "quarantined" and engine and sample.model_id == engine.id
        is_usable = is_usable and sample.source_blob is None
        if is_usable and sample.label_map_id not in held_ids and sample.label_map_blob not in held_blobs:
            groups[sample.label_map_blob].append(Candidate(sample.id, sample.blob, by_selector[sample.id]))
    return {blob: group for blob, group in groups.items() if len(group) >= 2}


def _votes_by_label_map(votes: list[Vote]) -> dict[str, list[Vote]]:
    groups: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        groups[vote.label_map_blob].append(vote)
    return groups


def _real_images(store: Store, project_id: int) -> dict[str, str]:
    """Label map blob -> blob of the real training image it belongs to."""
    images = {record.id: record.blob for record in store.images(project_id, splits=["train"])}
    return {
        record.blob: images[record.image_id]
        for record in store.label_maps(project_id, splits=["train"])
        if record.image_id in images
    }


def _rare_label_maps(store: Store, blobs: Iterable[str]) -> set[str]:
    """Label maps that hold the class which the fewest of them hold."""
    holders: dict[int, set[str]] = defaultdict(set)
    for blob in blobs:
        for index in _classes_in(store.home.blobs, blob):
            holders[index].add(blob)
    return min(holders.values(), key=len) if holders else set()


@lru_cache(maxsize=100_000)
def _classes_in(root: Path, blob: str) -> frozenset[int]:
    """Read from the label map itself: a class that every model misses leaves no trace in the scores."""
    return frozenset(np.unique(BlobStore(root).label_map(blob)).tolist()) - {0, IGNORE}
