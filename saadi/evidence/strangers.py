"""How many strangers does the limit for copies need, and what becomes of it where each has many frames alike?

A verifier is fitted to the training patients once a seed; then the test patients are dealt many times: some are the strangers on
whom the limit is set, all others are images of unseen patients, of which at most one in twenty is to be flagged (methods.md,
section 4, acceptance 3), while copies of training images are to be found. Limits are set as the program does it, by patient, and,
to compare, as if every image were a patient's only one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from saadi.errors import TooFewError
from saadi.evidence.cases import Case
from saadi.evidence.disclosure import EVERYTHING, MAX_PLANTED, World, changed, traces_of
from saadi.jobs import Report, silent
from saadi.privacy.copies import CHANGES, Table, Traces, Yardstick, of_others, similarities

COUNTS = (10, 20, 40, 80, 160)
"""Strangers; those counts at which no more than half of the test patients are."""
WAYS = {"all measures": ("pixels", "hash", "verifier"), "pixels and hash": ("pixels", "hash")}
AIM = 0.05
"""Of an unseen patient's images, on average, that may be flagged."""
Near = Mapping[str, Table]
"""By measure, (N,) of each image the largest similarity to a training image."""


def run(case: Case, *, seeds: int, deals: int, report: Report = silent) -> dict[str, Any]:
    """All rows.

    Args:
        deals: How often the test patients are dealt for each seed and number of strangers.

    Raises:
        TooFewError: Not twice as many test patients as the fewest strangers.
    """
    whose = np.asarray([example.group for example in case.test])
    names = np.unique(whose)
    counts = [count for count in COUNTS if 2 * count <= len(names)]
    if not counts:
        raise TooFewError(f"{len(names)} test patients, {2 * COUNTS[0]} needed: half are strangers, half are unseen; import "
                          "more, or raise --test-share")  # fmt: skip
    worlds = [_measured(case, seed, report) for seed in range(seeds)]
    rows = [_row(worlds, whose, count, way, by_patient, deals)
            for way in WAYS for count in counts for by_patient in (True, False)]  # fmt: skip
    return {"num_training": len(case.train), "num_test": len(case.test), "num_test_patients": len(names), "seeds": seeds,
            "deals": deals, "rows": rows}  # fmt: skip


def _measured(case: Case, seed: int, report: Report) -> dict[str, Near]:
    """Of the test images, and of each kind of copy."""
    world = World.of(case.train, case.test, seed=seed, report=report)
    draw = np.random.default_rng(seed)
    places = draw.permutation(len(case.train))[:MAX_PLANTED]
    told = {"unseen": _near(world.held_out.traces, world)}
    for kind in (*CHANGES, EVERYTHING):
        copies = [changed(case.train[place].image, kind, draw) for place in places]
        told[kind] = _near(traces_of(world.network, copies), world)
    return told


def _near(traces: Traces, world: World) -> Near:
    return {name: table.max(1) for name, table in similarities(traces, world.trained.traces).items()}


def _row(worlds: list[dict[str, Near]], whose: Any, count: int, way: str, by_patient: bool, deals: int) -> dict[str, Any]:
    names, flagged, found = np.unique(whose), list[float](), dict[str, list[float]]()
    for seed, told in enumerate(worlds):
        draw = np.random.default_rng(seed)  # the same deals for every row
        for _ in range(deals):
            known = np.isin(whose, draw.permutation(names)[:count])
            near = {name: told["unseen"][name] for name in WAYS[way]}
            close, patients, _ = of_others({name: values[known] for name, values in near.items()}, list(whose[known]))
            each = patients if by_patient else [str(number) for number in range(len(patients))]
            stick = Yardstick.of_nearest(close, each, by_held_out=True)
            assert stick is not None, "there are enough strangers"
            beyond = stick.scores(near)[~known] > stick.limit
            flagged.append(float(np.mean([beyond[whose[~known] == patient].mean() for patient in np.unique(whose[~known])])))
            for kind in (*CHANGES, EVERYTHING):
                scores = stick.scores({name: told[kind][name] for name in WAYS[way]})
                found.setdefault(kind, []).append(float((scores > stick.limit).mean()))
    return {"way": way, "strangers": count, "limit_by": "patient" if by_patient else "image",
            "unseen_flagged": round(float(np.mean(flagged)), 4),
            "unseen_flagged_10_90": [round(float(value), 4) for value in np.quantile(flagged, [0.1, 0.9])],
            "deals_beyond_aim": round(float(np.mean(np.asarray(flagged) > AIM)), 4),
            "found": {kind: round(float(np.mean(values)), 4) for kind, values in found.items()},
            "found_10": {kind: round(float(np.quantile(values, 0.1)), 4) for kind, values in found.items()}}  # fmt: skip


def markdown(result: dict[str, Any]) -> list[str]:
    """One line for each way, number of strangers and kind of limit: means over deals, and the range of the middle 80 %."""
    lines = [f"{result['num_training']} training images; {result['num_test']} images of {result['num_test_patients']} test "
             f"patients, dealt {result['deals']} times for each of {result['seeds']} seeds", "",
             "| looked at | strangers | limit by | unseen flagged | deals above 5 % | cropped found | all four changes found |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in result["rows"]:
        low, high = row["unseen_flagged_10_90"]
        cells = [f"{row['found'][kind]:.1%} ({row['found_10'][kind]:.0%} in the worst tenth)" for kind in ("cropped", EVERYTHING)]
        lines.append(f"| {row['way']} | {row['strangers']} | {row['limit_by']} | {row['unseen_flagged']:.1%} ({low:.1%} to "
                     f"{high:.1%}) | {row['deals_beyond_aim']:.0%} | {' | '.join(cells)} |")  # fmt: skip
    return lines
