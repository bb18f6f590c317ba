"""From the store's votes and scores to a frozen pair set, and to the pairs that a reviewer sees next."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saadi import agreement, asking, preferences, quality_gate
from saadi.conditions import asked_blob, condition_of, is_painted
from saadi.curation import mask_shares
from saadi.errors import TooFewError
from saadi.preferences import MIN_MARGIN, Candidate, Merged, merge, strengths, to_pairs, undecidedness
from saadi.quality_gate import Looked
from saadi.records import Pair, PairSet, Project, Single, Vote
from saadi.singles import settle_singles
from saadi.store import Store
from saadi.trust import Trust, doubt, trust_in

RAREST = 0.25
"""The rarest quarter of the classes (at least one) has its quota of pairs, as far as most label maps of the pool lack them."""


@dataclass(frozen=True)
class Settled:
    """What a project's votes and scores say now, before anything is frozen."""

    pairs: list[Pair]
    summary: dict[str, Any]
    groups: dict[str, list[Candidate]]
    """Condition (`saadi.conditions`; in segmentation a label map's blob) -> its usable candidates."""
    votes: dict[str, list[Vote]]
    """Condition -> votes in force; those on candidates that are not usable under their label map's blob."""
    merged: dict[str, Merged]
    """Condition -> what was decided about its candidates, and what was not."""
    trust: Trust = field(default_factory=Trust)
    """What is known of the selector."""
    singles: list[Single] = field(default_factory=list)
    """Images that are liked or not by themselves."""


def build_pairs(store: Store, project_id: int, *, actor: str, real_winners: bool = True) -> PairSet:
    """Settle all pairs of a project and freeze them; raises as `settle` does."""
    settled = settle(store, project_id, real_winners=real_winners)
    return store.freeze_pairs(project_id, settled.pairs, settled.summary, actor=actor, singles=settled.singles)


def settle(store: Store, project_id: int, *, real_winners: bool = True) -> Settled:
    """Settle all pairs of a project; changes nothing.

    Under each label map with scored candidates (in classification: in each place of a class, see `saadi.conditions`) merged
    votes and scores decide chosen and rejected; and where the label map belongs to a real training image, that image is the
    winner against the worst candidate (the strongest lever in both trials, DESIGN section 6). Beside the pairs, images that
    people like or not by themselves (`saadi.singles`).

    Raises:
        TooFewError: No scored candidates yet.
    """
    project = store.project(project_id)
    groups = _candidates(store, project_id, names=project.class_names)
    if not groups:
        raise TooFewError("no scored candidates yet; generate some and let the scorers look at them first")
    groups = _gated(store, project, groups)
    trust = selector_trust(store, project_id)
    rare = rarest_classes(_held_classes(store, project, groups))
    everything, repeats = store.votes_and_repeats(project_id)
    votes = _votes_by_condition(everything, groups)
    weights = agreement.weights(everything, repeats)
    trainable = _real_images(store, project)
    reals = trainable if real_winners else {}
    pairs, conflicts, undecided, outcomes = _settle(groups, votes, weights, reals, rare=rare, trust=trust)
    singles, num_disputed = settle_singles(store, project_id, votes=everything, weights=weights, reals=trainable)
    decisions = [item for merged in outcomes.values() for item in merged.decisions]
    summary: dict[str, Any] = {
        "num_pairs": len(pairs),
        "by_source": dict(Counter(pair.source for pair in pairs)),
        "num_label_maps": len(groups),
        "num_candidates": sum(len(group) for group in groups.values()),
        "num_votes": sum(len(group) for group in votes.values()),
        "num_conflicts": conflicts,
        "num_undecided": undecided,
        "num_rare": sum(preferences.is_rare(item, rare) for item in decisions),
        "num_doubted": sum(item.doubt is not None for item in decisions),
        "num_refused": sum(item.is_refused for group in groups.values() for item in group),
        "num_singles": count_singles(singles) | {"disputed": num_disputed},
    }
    return Settled(pairs, summary, groups, votes, outcomes, trust, singles)


def count_singles(singles: Iterable[Single]) -> dict[str, int]:
    """How many are liked by people, disliked, and real images that stand for liked ones."""
    found = Counter("real" if single.source == "real" else "liked" if single.is_liked else "disliked" for single in singles)
    return {name: found[name] for name in ("liked", "disliked", "real")}


def _settle(
    groups: Mapping[str, list[Candidate]],
    votes: Mapping[str, list[Vote]],
    weights: Mapping[str, float],
    reals: Mapping[str, str],
    *,
    rare: Collection[int],
    trust: Trust,
) -> tuple[list[Pair], int, int, dict[str, Merged]]:
    """Training pairs by condition, the numbers of conflicts and of undecided conditions, and what each condition came to."""
    outcomes = {blob: merge(group, votes.get(blob, []), weights, trust=trust) for blob, group in sorted(groups.items())}
    if rare:
        options = {
            blob: preferences.rare_decision(groups[blob], votes.get(blob, []), merged, rare, weights, trust=trust)
            for blob, merged in outcomes.items()
            if any(item.class_dice[index] is not None for item in groups[blob][:1] for index in rare)  # it asks for one
        }
        outcomes = preferences.with_rare_quota(outcomes, {blob: item for blob, item in options.items() if item}, rare)
    pairs: list[Pair] = []
    conflicts = undecided = 0
    for condition, merged in outcomes.items():
        candidates, own_votes = groups[condition], votes.get(condition, [])
        conflicts += len(merged.conflicts)
        undecided += merged.num_undecided
        pairs += to_pairs(merged.decisions, label_map_blob=asked_blob(condition))
        if condition in reals and candidates:
            strength = strengths(candidates, own_votes, weights)
            worst = min(candidates, key=lambda candidate: (strength[candidate.sample_id], candidate.sample_id))
            pairs.append(
                Pair(
                    label_map_blob=asked_blob(condition),
                    chosen_blob=reals[condition],
                    rejected_blob=worst.blob,
                    source="real",
                    weight=1.0,
                    margin=round(max(1e-6, 1 - worst.score), 6),
                )
            )
    return pairs, conflicts, undecided, outcomes


def num_changed_pairs(store: Store, project_id: int, *, voter: str, block: str) -> int:
    """How many training pairs are what they are because of one reviewer's votes in one block.

    The pairs are settled twice, with these votes and without them, with the same weights of reviewers and without the quota of
    rare classes, which looks at the whole pool. In each label map the pairs that differ in winner, loser or weight are counted;
    one that turned round or was replaced by another counts once.
    """
    votes, repeats = store.votes_and_repeats(project_id)
    cast = {vote.id for vote in votes if vote.voter == voter and vote.block == block}
    project = store.project(project_id)
    everything = _gated(store, project, _candidates(store, project_id, names=project.class_names))
    touched = set(_votes_by_condition([vote for vote in votes if vote.id in cast], everything)) & everything.keys()
    weights = agreement.weights(votes, repeats)
    reals, trust = _real_images(store, project), selector_trust(store, project_id)
    found = []
    for kept in (votes, [vote for vote in votes if vote.id not in cast]):
        by_condition: dict[str, set[tuple[str, str, float]]] = {}
        own = _votes_by_condition(kept, everything)
        for condition in touched:
            pairs = _settle({condition: everything[condition]}, own, weights, reals, rare=(), trust=trust)[0]
            by_condition[condition] = {(pair.chosen_blob, pair.rejected_blob, pair.weight) for pair in pairs}
        found.append(by_condition)
    now, before = found
    return sum(max(len(now[name] - before[name]), len(before[name] - now[name])) for name in touched)


def next_vote_pairs(
    store: Store, project_id: int, *, voter: str, count: int, exclude: set[tuple[int, int]]
) -> list[asking.Question]:
    """What a reviewer is asked next: least certain pairs, pairs with the rarest class, shared and random ones, own repeats.

    Args:
        exclude: Pairs that the browser holds and has not sent an answer for, (smaller id, larger id).

    Returns:
        At most `count`; `asking` has the shares.
    """
    votes, repeats = store.votes_and_repeats(project_id)
    own = [vote for vote in votes + [repeat for repeat, _ in repeats] if vote.voter == voter]
    own.sort(key=lambda vote: vote.id)
    closed = {vote.pair for vote in own} | {vote.pair for vote in votes if vote.kind == "ruling"} | exclude
    met = {vote.pair for vote in votes if vote.kind == "shared" and vote.voter != voter}
    weights = agreement.weights(votes, repeats)
    trust = selector_trust(store, project_id)
    # The scores of single classes are read only where they matter: that costs a third of the time to the next pair.
    project = store.project(project_id)
    groups = _candidates(store, project_id, names=project.class_names if trust.weak else ())
    by_condition = _votes_by_condition(votes, groups)
    rare = _rare_conditions(store, project, groups)
    found: list[asking.OpenPair] = []
    for blob, candidates in groups.items():
        merged = strengths(candidates, by_condition.get(blob, []), weights)
        by_id = {candidate.sample_id: candidate for candidate in candidates}
        ids = sorted(merged)
        for index, first in enumerate(ids):
            for second in ids[index + 1 :]:
                if (first, second) not in closed:
                    is_doubted = doubt(by_id[first], by_id[second], trust) is not None
                    found.append(asking.OpenPair(first, second, blob, undecidedness(merged, first, second), blob in rare,
                                                 (first, second) in met, is_doubted))  # fmt: skip
    places = _places(groups)
    repeatable = [vote for vote in asking.repeatable_votes(own, exclude=exclude) if _compares(vote, places)]
    return asking.choose(found, repeatable, voter=voter, first_slot=len(own) + len(exclude), count=count)


def doubted_votes(store: Store, project_id: int, votes: Iterable[Vote]) -> list[tuple[int, int, float]]:
    """On how many of these votes the images differ most in a class on which the selector is weak.

    Returns:
        (class index, number of votes, the selector's Dice or F1 for it on held-out real images), most votes first.
    """
    trust = selector_trust(store, project_id)
    if not trust.weak:
        return []
    groups = _candidates(store, project_id, names=store.project(project_id).class_names)
    by_id = {item.sample_id: item for group in groups.values() for item in group}
    pairs = [vote.pair for vote in votes if vote.answer != "skip" and set(vote.pair) <= by_id.keys()]
    doubts = [doubt(by_id[first], by_id[second], trust) for first, second in pairs]
    found = Counter(item.class_index for item in doubts if item is not None and item.class_index is not None)
    return [(index, count, trust.weak[index]) for index, count in found.most_common()]


def contests(store: Store, project_id: int) -> list[agreement.Contest]:
    """Pairs of the present generator that wait for a word of the lead, most contested first."""
    groups = _candidates(store, project_id)
    scores = {item.sample_id: item.score for group in groups.values() for item in group}
    places = _places(groups)
    votes = [vote for vote in store.votes(project_id) if _compares(vote, places)]
    return agreement.contested(votes, scores, min_gap=MIN_MARGIN)


def next_thumbs(store: Store, project_id: int, *, voter: str, count: int, exclude: set[int]) -> list[int]:
    """Sample ids for single-image verdicts: without anybody's verdict first, then those on which selector and judge differ most.

    Args:
        exclude: Samples that the browser holds already.
    """
    thumbs = store.thumbs(project_id)
    seen = Counter(thumb.sample_id for thumb in thumbs)
    closed = {thumb.sample_id for thumb in thumbs if thumb.voter == voter} | exclude
    judged = {score.sample_id: score.dice for score in store.score_rows(project_id) if score.kind == "judge"}
    open_items = [item for group in _candidates(store, project_id, at_least=1).values() for item in group]
    open_items = [item for item in open_items if item.sample_id not in closed]
    open_items.sort(
        key=lambda item: (seen[item.sample_id], -abs(item.score - judged.get(item.sample_id, item.score)), item.sample_id)
    )
    return [item.sample_id for item in open_items[:count]]


def _candidates(
    store: Store, project_id: int, *, at_least: int = 2, names: tuple[str, ...] = ()
) -> dict[str, list[Candidate]]:
    """Condition -> its candidates that the active selector has scored, where there are `at_least` so many.

    Only images of the present generator, only label maps that belong to no validation or test patient (those measure), none
    that somebody has quarantined, and none of which only a part was made: most of its pixels are another picture's. A rejected
    image stays, as a loser it teaches.

    Args:
        names: Classes whose scores are read, too.
    """
    task = store.project(project_id).task
    held_ids, held_blobs = store.held_out_label_maps(project_id)
    samples = [sample for sample in store.scored_samples(project_id)
               if sample.label_map_id not in held_ids and sample.label_map_blob not in held_blobs]  # fmt: skip
    asked = _asked_classes(store, {sample.label_map_blob for sample in samples}) if task == "classification" else {}
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for sample in samples:
        condition = condition_of(task, sample.label_map_blob, sample.label_map_id, sample.picture_blob)
        parts: tuple[float | None, ...] = ()
        if names:
            wanted = asked.get(sample.label_map_blob)
            parts = (
                _class_dice(sample.per_class, names)
                if wanted is None
                else tuple(sample.dice if index == wanted else None for index in range(len(names)))
            )
        groups[condition].append(Candidate(sample.sample_id, sample.blob, sample.dice, sample.confidence, parts))
    return {condition: group for condition, group in groups.items() if len(group) >= at_least}


def _gated(store: Store, project: Project, groups: Mapping[str, list[Candidate]]) -> dict[str, list[Candidate]]:
    """The same candidates; those marked that the quality gate keeps from winning: copies, and what looks unlike real images where
    another candidate does not. A generator that is still weak makes nothing plausible, and the better of two teaches even so."""
    everything = [(condition, item) for condition, group in groups.items() for item in group]
    pairs = [Looked(item.blob, asked_blob(condition), is_painted(project.task, condition)) for condition, item in everything]
    verdicts: dict[str, list[str]] = defaultdict(list)
    for (condition, _), one in zip(everything, quality_gate.judged(store, project, pairs), strict=True):
        verdicts[condition].append("plausible" if one is None else one.verdict)
    return {condition: [item._replace(is_refused=verdict == "copy" or (verdict == "implausible" and "plausible" in found))
                        for item, verdict in zip(groups[condition], found, strict=True)]
            for condition, found in verdicts.items()}  # fmt: skip


def _asked_classes(store: Store, blobs: Iterable[str]) -> dict[str, int]:
    """Label map blob -> the class that it asks of the whole image."""
    return {blob: int(shares.argmax()) for blob, shares in mask_shares(store, list(blobs)).items()}


def _votes_by_condition(votes: list[Vote], groups: Mapping[str, list[Candidate]]) -> dict[str, list[Vote]]:
    """Votes by the condition of their images, also where only one of them is still usable: 'both bad' says something of either.
    Where they differ or none is usable, by the label map, which is no condition where a place or a picture belongs to it."""
    places = _places(groups)
    found: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        known = {places[sample_id] for sample_id in vote.pair if sample_id in places}
        found[known.pop() if len(known) == 1 else vote.label_map_blob].append(vote)
    return found


def _places(groups: Mapping[str, list[Candidate]]) -> dict[int, str]:
    """Sample id -> its condition."""
    return {candidate.sample_id: condition for condition, group in groups.items() for candidate in group}


def _compares(vote: Vote, places: Mapping[int, str]) -> bool:
    """Whether both images of a vote are usable and made under one condition."""
    left, right = (places.get(sample_id) for sample_id in vote.pair)
    return left is not None and left == right


def _real_images(store: Store, project: Project) -> dict[str, str]:
    """Condition -> blob of the real training image it belongs to; in segmentation with the image as the picture, too."""
    images = {record.id: record.blob for record in store.images(project.id, splits=["train"])}
    found: dict[str, str] = {}
    for record in store.label_maps(project.id, splits=["train"]):
        if record.image_id in images:
            blob = images[record.image_id]
            found |= {condition_of(project.task, record.blob, record.id, picture): blob for picture in (None, blob)}
    return found


@lru_cache(maxsize=65_536)
def _class_dice(per_class: str, names: tuple[str, ...]) -> tuple[float | None, ...]:
    """Dice by class index, None for the background, out of a score's JSON; a score never changes, and 10,000 of them take 0.1 s
    to read."""
    found = json.loads(per_class)
    return tuple(found[name]["dice"] if index and name in found else None for index, name in enumerate(names))


def selector_trust(store: Store, project_id: int) -> Trust:
    """What is known of the selector in use; without one, nothing speaks against it."""
    selector = store.active_model(project_id, "selector")
    return trust_in(selector.metrics, store.project(project_id).class_names) if selector else Trust()


def _held_classes(store: Store, project: Project, conditions: Iterable[str]) -> dict[str, NDArray[np.bool_]]:
    """Condition -> (100,) which classes it asks for, the background not among them; from the label maps themselves: a class that
    every model misses leaves no trace in the scores."""
    asked = {condition: asked_blob(condition) for condition in conditions}
    held = {blob: shares > 0 for blob, shares in mask_shares(store, list(dict.fromkeys(asked.values()))).items()}
    if project.task == "segmentation":
        for row in held.values():
            row[0] = False
    return {condition: held[blob] for condition, blob in asked.items()}


def rarest_classes(held: Mapping[str, NDArray[np.bool_]]) -> tuple[int, ...]:
    """The rarest quarter of the classes that any condition asks for, as far as at most half do; rarest first."""
    if not held:
        return ()
    num_holders = np.stack(list(held.values())).sum(axis=0)
    present = np.flatnonzero(num_holders).tolist()
    chosen = sorted(present, key=lambda index: (num_holders[index], index))[: math.ceil(RAREST * len(present))]
    return tuple(index for index in chosen if 2 * num_holders[index] <= len(held))


def _rare_conditions(store: Store, project: Project, conditions: Iterable[str]) -> set[str]:
    """Conditions that ask for the class which the fewest of them ask for."""
    held = _held_classes(store, project, conditions)
    if not held:
        return set()
    table = np.stack(list(held.values()))
    num_holders = table.sum(axis=0)
    if not num_holders.any():
        return set()
    rarest = int(np.argmin(np.where(num_holders > 0, num_holders, len(table) + 1)))
    return {blob for blob, is_holder in zip(held, table[:, rarest], strict=True) if is_holder}
