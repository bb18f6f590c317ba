"""What "Align now" would do, before it does it: which pairs it learns from, what it leaves out and why, and how long it takes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb
from statistics import median
from typing import Any

import numpy as np

from saadi import preferences
from saadi.alignment import limits
from saadi.conditions import asked_blob, condition_of
from saadi.curation import mask_shares
from saadi.errors import TooFewError
from saadi.inpainting import is_part
from saadi.orders import MIN_PAIRS_TO_ALIGN
from saadi.pairing import Settled, settle
from saadi.preferences import MAX_PAIRS_PER_LABEL_MAP, MIN_MARGIN, Candidate, Merged
from saadi.records import Project, Vote
from saadi.store import Store

MIN_PAIRS_PER_CLASS = 10
"""Below, a class counts as thin: 16 good pairs in all move a small model, a class that few of them show is left to luck."""
SECONDS_PER_VOTE = 4.0
"""Until this project's own votes tell; 20 pairs a minute is what one-key voting aims at."""
MIN_GATE_MASKS = 4
MIN_SCORES = 8
"""Images that hold a class, below which nothing is said of it."""
JOBS_FOR_PACE = 3


@dataclass(frozen=True)
class Pace:
    """How fast alignments ran: seconds, for a batch of `batch_size` pairs and a test on `gate_masks` label maps."""

    step_s: float
    check_s: float
    """One test of a checkpoint: images drawn and measured."""
    start_s: float
    """Before the first step: the present version's images drawn and measured."""
    batch_size: int
    gate_masks: int
    num_jobs: int
    """Alignments that were measured here; 0 = the shipped figure."""


SHIPPED = Pace(step_s=0.95, check_s=12.5, start_s=9.0, batch_size=8, gate_masks=32, num_jobs=0)
"""The demo's first round, 150 steps and three tests at `SHIPPED_SIDE` px, took 189 s on two CPU cores; split into its parts as
those of a run that was measured part by part."""
SHIPPED_SIDE = 256


def plan(store: Store, project: Project) -> dict[str, Any]:
    """Everything the page says before an alignment, JSON; changes nothing."""
    try:
        settled = settle(store, project.id)
    except TooFewError:
        settled = Settled([], {}, {}, {}, {})
    left_out: Counter[str] = Counter()
    for blob, merged in settled.merged.items():
        found = preferences.left_out(settled.groups[blob], settled.votes.get(blob, []), merged)
        left_out.update(item.reason for item in found)
    return {
        "num_pairs": len(settled.pairs),
        "min_pairs": MIN_PAIRS_TO_ALIGN,
        "by_source": dict(Counter(pair.source for pair in settled.pairs)),
        "singles": settled.summary.get("num_singles", {"liked": 0, "disliked": 0, "real": 0, "disputed": 0}),
        "num_label_maps": len(settled.groups),
        "num_images": sum(len(group) for group in settled.groups.values()),
        "pairs_left_out": dict(left_out),
        "images_left_out": images_left_out(store, project.id),
        "classes": classes(store, project, settled),
        "fidelity": fidelity(store, project, settled),
        "votes": votes(settled),
        "missing": missing(store, project, settled),
        "pace": asdict(pace(store, project)),
        "alarms": {
            "winner_ratio": limits.MAX_WINNER_RATIO,
            "accuracy_gap": limits.ACCURACY_GAP,
            "min_held_pairs": limits.MIN_HELD_FOR_GAP,
            "gradient_ratio": limits.GRADIENT_ALARM,
            "gradient_steps": limits.ALARM_STEPS,
        },
    }


def images_left_out(store: Store, project_id: int) -> dict[str, int]:
    """Synthetic images that no pair can use, each under the first reason that holds, as `saadi.pairing` sorts them out.

    Returns:
        Counts of: held_out (mask of a validation or test patient, or drawn over one), other_generator, quarantined, part (only
        a part was made), unscored, alone (no second usable image of its mask).
    """
    engine = store.active_model(project_id, "engine")
    scored = {score.sample_id for score in store.score_rows(project_id) if score.kind == "selector"}
    held_ids, held_blobs = store.held_out_label_maps(project_id)
    task = store.project(project_id).task
    found: Counter[str] = Counter()
    usable: Counter[str] = Counter()
    for sample in store.samples(project_id):
        if sample.label_map_id in held_ids or sample.label_map_blob in held_blobs:
            found["held_out"] += 1
        elif engine is None or sample.model_id != engine.id:
            found["other_generator"] += 1
        elif sample.curation == "quarantined":
            found["quarantined"] += 1
        elif is_part(sample):
            found["part"] += 1
        elif sample.id not in scored:
            found["unscored"] += 1
        else:
            usable[condition_of(task, sample.label_map_blob, sample.label_map_id, sample.source_blob)] += 1
    found["alone"] = sum(1 for count in usable.values() if count == 1)
    return dict(+found)


def classes(store: Store, project: Project, settled: Settled) -> list[dict[str, Any]]:
    """Per class: pairs and label maps that hold it (in classification places of its pool); where it is thin, how many votes would
    help, or that images must be made."""
    pace_s = seconds_per_vote([vote for group in settled.votes.values() for vote in group])
    blobs = [*map(asked_blob, settled.groups), *(pair.label_map_blob for pair in settled.pairs)]
    shares = mask_shares(store, list(dict.fromkeys(blobs)))
    held = {blob: np.flatnonzero(found).tolist() for blob, found in shares.items()}
    pairs = Counter(index for pair in settled.pairs for index in held[pair.label_map_blob])
    masks: Counter[int] = Counter()
    room: Counter[int] = Counter()
    for condition, candidates in settled.groups.items():
        open_votes = _room(candidates, settled.votes.get(condition, []), settled.merged[condition])
        for index in held[asked_blob(condition)]:
            masks[index] += 1
            room[index] += open_votes
    rows = []
    for label in project.classes if project.task == "classification" else project.classes[1:]:
        lacking = max(0, MIN_PAIRS_PER_CLASS - pairs[label.index])
        count = min(lacking, room[label.index])
        rows.append(
            {
                "class": label.index,
                "num_pairs": pairs[label.index],
                "num_label_maps": masks[label.index],
                "is_thin": lacking > 0,
                "votes_that_help": count,
                "votes_s": round(count * pace_s),
            }
        )
    return rows


def fidelity(store: Store, project: Project, settled: Settled) -> dict[str, Any] | None:
    """How well the selector finds the masks of the usable synthetic images, against those of real images that it has not seen:
    where it finds them as well, its scores leave little to repair (measured in docs/evidence).

    Returns:
        synthetic, real (Dice, the mean over classes that both have), weakest (the class that loses most: class, synthetic, real);
        None in classification, and where there are too few numbers.
    """
    selector = store.active_model(project.id, "selector")
    if project.task == "classification" or selector is None:
        return None
    seen: dict[int, list[float]] = defaultdict(list)
    for group in settled.groups.values():
        for candidate in group:
            for index, dice in enumerate(candidate.class_dice[1:], start=1):
                if dice is not None:
                    seen[index].append(dice)
    real = (selector.metrics.get("val") or {}).get("dice_per_class") or {}
    rows = [{"class": label.index, "synthetic": float(np.mean(seen[label.index])), "real": float(real[label.name])}
            for label in project.classes[1:] if label.name in real and len(seen[label.index]) >= MIN_SCORES]  # fmt: skip
    if not rows:
        return None
    means = {name: float(np.mean([row[name] for row in rows])) for name in ("synthetic", "real")}
    return means | {"weakest": max(rows, key=lambda row: row["real"] - row["synthetic"])}


def _room(candidates: Sequence[Candidate], votes: Sequence[Vote], merged: Merged) -> int:
    """Votes on this label map that could still add a pair: on two images that make none yet, while the cap leaves room."""
    known = {candidate.sample_id for candidate in candidates}
    taken = {frozenset((vote.left_id, vote.right_id)) for vote in votes if {vote.left_id, vote.right_id} <= known}
    taken |= {frozenset((item.chosen.sample_id, item.rejected.sample_id)) for item in merged.decisions}
    return max(0, min(MAX_PAIRS_PER_LABEL_MAP - len(merged.decisions), comb(len(known), 2) - len(taken)))


def seconds_per_vote(votes: Sequence[Vote]) -> float:
    """Median time that people took, between 2 and 60 seconds."""
    taken = [vote.response_ms / 1000 for vote in votes if vote.response_ms and vote.answer != "skip"]
    return min(60.0, max(2.0, median(taken))) if len(taken) >= 5 else SECONDS_PER_VOTE


def votes(settled: Settled) -> dict[str, int]:
    """What people said against what the score says, over the usable candidates.

    Returns:
        num, people, left_out (on images that are not usable), agreed (pairs on which both agree), overruled (pairs in which the
        winner's score is clearly lower), tipped (pairs that the score left open).
    """
    found = Counter(dict.fromkeys(("num", "left_out", "agreed", "overruled", "tipped"), 0))
    people: set[str] = set()
    for blob, group in settled.votes.items():
        known = {candidate.sample_id for candidate in settled.groups.get(blob, [])}
        for vote in group:
            if vote.answer != "skip":
                is_usable = {vote.left_id, vote.right_id} <= known
                found["num" if is_usable else "left_out"] += 1
                people |= {vote.voter} if is_usable else set()
    for merged in settled.merged.values():
        for item in merged.decisions:
            gap = item.chosen.score - item.rejected.score
            if item.source != "score":
                found["agreed" if gap >= MIN_MARGIN else "overruled" if gap <= -MIN_MARGIN else "tipped"] += 1
    return {**found, "people": len(people)}


def missing(store: Store, project: Project, settled: Settled) -> dict[str, str] | None:
    """Why an alignment cannot start: one sentence, and the tab where it is put right; None = it can."""
    is_classification = project.task == "classification"
    more = "more images" if is_classification else "images for more masks"
    if store.active_model(project.id, "engine") is None:
        return {"text": "This project has no generator yet. Fit one to your images.", "tab": "generate"}
    if any(store.active_model(project.id, kind) is None for kind in ("selector", "judge")):
        return {"text": "This project has no selector and judge yet. Train the scorers.", "tab": "generate"}
    if not store.samples(project.id, limit=1):
        enough = "two or more in a set" if is_classification else "two or more of each mask"
        return {"text": f"There are no synthetic images yet. Generate some: {enough}.", "tab": "generate"}
    if (num_pairs := len(settled.pairs)) < MIN_PAIRS_TO_ALIGN:
        lacking = MIN_PAIRS_TO_ALIGN - num_pairs
        return {
            "text": f"{num_pairs} usable pair{'' if num_pairs == 1 else 's'}, {MIN_PAIRS_TO_ALIGN} needed: {lacking} missing. "
            f"Vote on pairs that are too close to call, or generate {more}.",
            "tab": "generate" if num_pairs == 0 else "vote",
        }
    if is_classification:
        return None  # a class is tested on fresh seeds
    # As `saadi.alignment.material.gate_label_maps` chooses them: those that nothing is learnt on, then mirrored ones.
    learnt = {pair.label_map_blob for pair in settled.pairs} | {single.label_map_blob for single in settled.singles}
    training = {record.blob for record in store.label_maps(project.id, splits=["train"])}
    held = {record.blob for record in store.label_maps(project.id, splits=["val"])}
    unused = (training | held) - learnt
    if len(unused) + len(unused | training) < MIN_GATE_MASKS:
        return {"text": f"{MIN_GATE_MASKS} masks of real images are needed to test a new version on. Import some.", "tab": "data"}
    return None


def pace(store: Store, project: Project) -> Pace:
    """How fast the newest alignments of this image size ran on this machine, else the shipped figure."""
    sides = {other.id: other.resolution for other in store.projects()}
    runs: list[Pace] = []
    for job in store.jobs(kind="align", limit=20):
        if sides.get(job.project_id or 0) == project.resolution and len(runs) < JOBS_FOR_PACE:
            runs += filter(None, [measured(store.job_metrics(job.id), job.params)])
    if not runs:
        scale = (project.resolution / SHIPPED_SIDE) ** 2
        return Pace(SHIPPED.step_s * scale, SHIPPED.check_s * scale, SHIPPED.start_s, SHIPPED.batch_size, SHIPPED.gate_masks, 0)
    # All on the newest one's batch and test, so that they compare.
    batch, masks = runs[0].batch_size, runs[0].gate_masks
    return Pace(
        step_s=median(run.step_s * batch / run.batch_size for run in runs),
        check_s=median(run.check_s * masks / run.gate_masks for run in runs),
        start_s=median(run.start_s * masks / run.gate_masks for run in runs),
        batch_size=batch,
        gate_masks=masks,
        num_jobs=len(runs),
    )


def measured(curves: Mapping[str, Sequence[tuple[int, float]]], params: Mapping[str, Any]) -> Pace | None:
    """The pace of one alignment from its own curves; None where it ended before its first test."""
    steps, checks = ([value for _, value in curves.get(name, ())] for name in ("step_s", "check_s"))
    starts = [value for _, value in curves.get("start_s", ())]
    if len(steps) < 3 or not checks or not starts:
        return None
    # The mean: the first steps also compute the reference's errors, and they are part of every run.
    return Pace(
        step_s=sum(steps) / len(steps),
        check_s=median(checks),
        start_s=starts[0],
        batch_size=int(params.get("batch_size", 8)),
        gate_masks=int(params.get("gate_masks", 32)),
        num_jobs=1,
    )
