"""For each pair that the next alignment would learn from: who decided it, and how sure that is; and for the others, why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from saadi import preferences
from saadi.conditions import asked_blob
from saadi.curation import mask_shares
from saadi.errors import BadInputError, TooFewError
from saadi.pairing import Settled, settle
from saadi.preferences import Candidate, Decision, LeftOut
from saadi.records import Pair, Project, Single
from saadi.store import Store
from saadi.trust import Doubt, doubt, separating_class

Decider = Literal["ruling", "vote", "agreed", "score", "real"]
DECIDERS: tuple[Decider, ...] = ("ruling", "vote", "agreed", "score", "real")
"""In the order in which they are shown: what people decided comes first."""
REASONS: tuple[preferences.LeftOutReason, ...] = ("conflict", "undecided", "both_bad", "both_good", "cap")
"""In the order in which they are shown: where an opinion helps comes first."""


@dataclass(frozen=True)
class Picture:
    """One of the two images."""

    blob: str
    sample_id: int | None
    """None = a real image."""
    dice: float | None
    """By the selector (in classification its probability of the asked class); None = a real image, which is not scored."""


@dataclass(frozen=True)
class Row:
    """Two images under one mask."""

    label_map_blob: str
    first: Picture
    """The chosen one; of a pair that is left out, the one that would be."""
    second: Picture
    decider: Decider | None
    """None = left out, for `reason`."""
    reason: preferences.LeftOutReason | None
    num_people: int
    """Who voted for the first one."""
    num_against: int
    weight: float
    margin: float
    separating_class: int | None
    """The class in which the selector sees them differ most."""
    weak_dice: float | None
    """Its mean Dice for that class on held-out real images, where it is weak there."""
    confidence: float | None
    """Its lower confidence of the two, where it is not sure of both."""


@dataclass(frozen=True)
class SingleRow:
    """One image that is liked or not by itself."""

    label_map_blob: str
    first: Picture
    is_liked: bool
    source: Literal["people", "ruling", "real"]
    num_people: int
    weight: float
    second: None = None
    """There is none: by this the page tells a single image from a pair."""


def rows(settled: Settled) -> list[Row]:
    """All pairs, by who decided them, and behind them all that are left out, by reason."""
    found: list[Row] = []
    for blob, merged in settled.merged.items():
        group = {candidate.sample_id: candidate for candidate in settled.groups[blob]}
        found += [_decided(item, blob, settled) for item in merged.decisions]
        left = preferences.left_out(settled.groups[blob], settled.votes.get(blob, []), merged)
        found += [_left_out(item, blob, group, settled) for item in left]
    by_blob = {(asked_blob(name), item.blob): item for name, group in settled.groups.items() for item in group}
    found += [_real(pair, by_blob[pair.label_map_blob, pair.rejected_blob]) for pair in settled.pairs if pair.source == "real"]
    order: dict[str | None, int] = {name: index for index, name in enumerate((*DECIDERS, *REASONS))}
    return sorted(found, key=lambda row: (order[row.decider or row.reason], row.weight, row.label_map_blob))


def page(store: Store, project: Project, *, who: str = "all", first: int = 0, count: int = 12) -> dict[str, Any]:
    """Some rows, JSON, and how many there are of each kind.

    Args:
        who: 'all' pairs, those of one of `DECIDERS`, 'left_out', or 'single': the images that are liked or not by themselves.

    Raises:
        BadInputError: `who` is none of these.
    """
    if who not in ("all", "left_out", "single", *DECIDERS):
        raise BadInputError(f"who decided is one of all, left_out, single, {', '.join(DECIDERS)}; got {who[:20]!r}")
    try:
        settled = settle(store, project.id)
    except TooFewError:
        settled = Settled([], {}, {}, {}, {})
    everything = rows(settled)
    pairs = [row for row in everything if row.decider is not None]
    left = [row for row in everything if row.decider is None]
    chosen: Sequence[Row | SingleRow]
    if who == "single":
        chosen = single_rows(store, project, settled.singles)
    else:
        chosen = left if who == "left_out" else [row for row in pairs if who in ("all", row.decider)]
    shown = chosen[first : first + count]
    return {
        "num_pairs": len(pairs),
        "deciders": dict(Counter(row.decider for row in pairs)),
        "reasons": dict(Counter(row.reason for row in left)),
        "num_singles": len(settled.singles),
        "total": len(chosen),
        "first": first,
        "rows": _with_classes(store, project, shown),
    }


def single_rows(store: Store, project: Project, singles: Sequence[Single]) -> list[SingleRow]:
    """Disliked ones first, then liked ones, then real images that stand for liked ones."""
    dice = {score.sample_id: score.dice for score in store.score_rows(project.id) if score.kind == "selector"}
    ids = {(sample.label_map_blob, sample.blob): sample.sample_id for sample in store.usable_samples(project.id)}
    found = []
    for single in sorted(singles, key=lambda single: (single.source == "real", single.is_liked)):
        sample_id = None if single.source == "real" else ids.get((single.label_map_blob, single.blob))
        if sample_id is None and single.source != "real":
            continue  # taken into quarantine this very moment; without a number the page would call it real
        score = None if sample_id is None else dice.get(sample_id)
        found.append(SingleRow(single.label_map_blob, Picture(single.blob, sample_id, score), single.is_liked, single.source,
                               single.num_people, single.weight))  # fmt: skip
    return found


def _with_classes(store: Store, project: Project, chosen: Sequence[Row | SingleRow]) -> list[dict[str, Any]]:
    shares = mask_shares(store, [row.label_map_blob for row in chosen])
    first = 0 if project.task == "classification" else 1  # without the background
    classes = {blob: [index for index in np.flatnonzero(found).tolist() if index >= first] for blob, found in shares.items()}
    return [asdict(row) | {"classes": classes[row.label_map_blob]} for row in chosen]


def _picture(candidate: Candidate) -> Picture:
    return Picture(candidate.blob, candidate.sample_id, candidate.score)


def _decided(item: Decision, condition: str, settled: Settled) -> Row:
    return Row(
        label_map_blob=asked_blob(condition),
        first=_picture(item.chosen),
        second=_picture(item.rejected),
        decider="ruling" if item.is_ruled else item.source,
        reason=None,
        num_people=item.num_people,
        num_against=item.num_against,
        weight=preferences.training_weight(item),
        margin=round(item.margin, 4),
        separating_class=separating_class(item.chosen, item.rejected),
        **_doubt(item.doubt, settled),
    )


def _doubt(found: Doubt | None, settled: Settled) -> dict[str, float | None]:
    weak_on = found.class_index if found else None
    return {
        "weak_dice": None if weak_on is None else settled.trust.weak[weak_on],
        "confidence": found.confidence if found else None,
    }


def _real(pair: Pair, worst: Candidate) -> Row:
    return Row(pair.label_map_blob, Picture(pair.chosen_blob, None, None), _picture(worst), "real", None, 0, 0, pair.weight,
               pair.margin, None, None, None)  # fmt: skip


def _left_out(item: LeftOut, condition: str, group: dict[int, Candidate], settled: Settled) -> Row:
    first, second = group[item.first_id], group[item.second_id]
    return Row(asked_blob(condition), _picture(first), _picture(second), None, item.reason, 0, 0, 0.0, 0.0,
               separating_class(first, second), **_doubt(doubt(first, second, settled.trust), settled))  # fmt: skip
