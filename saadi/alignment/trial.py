"""The blind test of a new version against its parent: same masks, same seeds, sides by chance, nobody told which is which."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from saadi.errors import BadInputError
from saadi.records import Adapter, Trial

MAX_PAIRS = 20
"""About two minutes; 15 of 20 preferences leave chance behind (Wilson 95 %: 53 to 89 %)."""


@dataclass(frozen=True)
class TrialPair:
    """Two images of one mask and seed, as one reviewer sees them."""

    index: int
    """Among the images kept with the version; the page answers by it, so no name tells old from new."""
    label_map_blob: str
    old_blob: str
    new_blob: str
    new_is_left: bool


def pairs_for(adapter: Adapter, voter: str) -> list[TrialPair]:
    """At most twenty pairs in this reviewer's own order and with this reviewer's own sides, the same at each call."""
    kept = adapter.metrics
    names = ("strip_trial_label_maps", "strip_trial_old", "strip_trial_new")
    if names[0] not in kept:  # versions of earlier programs kept the six images that they show
        names = ("strip_label_maps", "strip_before", "strip_after")
    rows = list(zip(*(kept.get(name, []) for name in names), strict=False))
    # Those shown with their names on the version's card would give the answer away, where there are enough others.
    shown = set(zip(kept.get("strip_before", []), kept.get("strip_after", []), strict=False))
    num_hidden = sum((old, new) not in shown for _, old, new in rows)
    if num_hidden < MAX_PAIRS // 2:
        shown = set()
    # Where both are equal there is nothing to see.
    found = [
        TrialPair(index, label_map, old, new, random.Random(f"side:{adapter.id}:{voter}:{index}").random() < 0.5)
        for index, (label_map, old, new) in enumerate(rows)
        if old != new and (old, new) not in shown
    ]
    found.sort(key=lambda pair: random.Random(f"order:{adapter.id}:{voter}:{pair.index}").random())
    return found[:MAX_PAIRS]


def pair_for(adapter: Adapter, voter: str, index: int) -> TrialPair:
    """Raises: BadInputError: this reviewer was not asked about that pair."""
    for pair in pairs_for(adapter, voter):
        if pair.index == index:
            return pair
    raise BadInputError(f"pair {index} is not part of this test; reload the page")


def outcome(trials: Sequence[Trial]) -> dict[str, Any]:
    """Answers in numbers.

    Returns:
        new, old (preferences), even (both good or both bad), skipped, people, rate = new / (new + old) or None, and its 95 %
        Wilson interval or None. Answers of several people on one pair count each.
    """
    new, old = (sum(trial.prefers_new is side for trial in trials) for side in (True, False))
    skipped = sum(trial.answer == "skip" for trial in trials)
    interval = None
    if new + old:
        from scipy.stats import binomtest  # here, because it takes half a second to import

        low, high = binomtest(new, new + old).proportion_ci(method="wilson")
        interval = [round(float(low), 4), round(float(high), 4)]
    return {
        "new": new,
        "old": old,
        "even": len(trials) - new - old - skipped,
        "skipped": skipped,
        "people": len({trial.voter for trial in trials if trial.answer != "skip"}),
        "rate": round(new / (new + old), 4) if new + old else None,
        "interval": interval,
    }
