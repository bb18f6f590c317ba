"""Job `mine`: images that are hard for the selector and right in the eyes of the judge.

Of label maps drawn by what the selector misses, several turns of candidates are made, until one passes: gated by judge and
quality check, ranked by the selector's loss (methods.md, section 3, "gate by judge A, rank by target B"). All candidates stay in
the pool: what is easy or wrong is told as such in Curate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from saadi import devices, quality_gate
from saadi.curation import describe_images
from saadi.downstream import scoring
from saadi.downstream.scoring import Looking
from saadi.engines.loading import full_memory_told
from saadi.generation import Plan, chosen_adapter, generate_samples, label_maps_of, plan
from saadi.jobs import JobContext, Outcome, Report, silent
from saadi.mask_generator.job import new_label_maps
from saadi.mining import seen
from saadi.mining.choosing import QUADRANTS, Limits, hardest, quadrants
from saadi.mining.learning import known_start, learnt_start
from saadi.orders.generating import known_weakness
from saadi.previews import Previews
from saadi.quality_gate import Looked
from saadi.records import LabelMapRecord, Model, Project, Sample
from saadi.store import Store

SUGGESTED_PER_WANTED = 4
"""Label maps drawn for each that is searched for: the more, the more of them ask for what is missed."""
TURN_SEEDS = 1_000_003
"""Each turn's seeds lie beyond those of the one before; a round number would give each turn the same strengths of a learnt start
(`saadi.engines.starting.strengths`)."""
SHARE_OF_MAKING = 0.8
"""Of a turn's time; the rest is looking at what was made."""
SHARE_OF_LEARNING = 0.5
"""Of the whole time, where a start is learnt first."""


class Found(NamedTuple):
    """One candidate, as judge, quality check and selector see it."""

    sample: Sample
    fidelity: float
    loss: float
    is_plausible: bool


def run_job(context: JobContext) -> Outcome:
    """Job `mine`."""
    devices.use_all_threads()
    store, order = context.store, context.params
    context.yields = True  # what is made already is found again by its recipe
    project = store.project(order["project_id"])
    scorers = scoring.load_scorers(store, project)
    scoring.look_at_project(store, project, scorers, context.report)
    limits = seen.limits(store, project)
    assert limits is not None, "checked when the job started"
    records = _searched_for(context, project)
    model = store.model(order["model_id"])
    with full_memory_told("close other programs that use it and try again, or set SAADI_DEVICE=cpu, which is slow"):
        wanted, begins = plan(store, project, model=model, settings=order["settings"], purpose="pool",
                              adapter=chosen_adapter(store, project, order["adapter"], model=model)), 0.0  # fmt: skip
        if order.get("learned"):
            begins = SHARE_OF_LEARNING if known_start(context, wanted, scorers) is None else 0.0
            wanted = learnt_start(context, wanted, scorers, _within(context.report, 0.0, begins))
        samples, mined, counts = _searched(context, wanted, scorers, records, limits, _within(context.report, begins, 1.0))
    scoring.look_at_project(store, project, scorers, silent)

    def publish(store: Store) -> dict[str, Any]:
        return {"sample_ids": [sample.id for sample in samples], "mined_ids": sorted(mined.values()), "num_masks": len(records),
                "made": dict(counts), "limits": asdict(limits)}  # fmt: skip

    share = f"{counts['prize']} of {len(samples)} images made are hard and right"
    asked = f"of {len(records)}" if project.task == "classification" else f"for {len(records)} masks"
    return Outcome(f"{len(mined)} hard image{'' if len(mined) == 1 else 's'} {asked}; {share}", publish)


def _searched(
    context: JobContext, wanted: Plan, scorers: Sequence[tuple[Model, Looking]], records: Sequence[LabelMapRecord],
    limits: Limits, report: Report,
) -> tuple[list[Sample], dict[int, int], Counter[str]]:  # fmt: skip
    """All images made, the hardest right one of each label map (by its place) that has one, and how many lie in each quadrant."""
    store, order, project = context.store, context.params, wanted.project
    previews, turns = Previews(context.dir), order["turns"]
    mined: dict[int, int] = {}
    counts: Counter[str] = Counter()
    samples: list[Sample] = []
    for turn in range(turns):
        places = [place for place in range(len(records)) if place not in mined]
        if not places:
            break
        making = _within(report, turn / turns, (turn + SHARE_OF_MAKING) / turns)
        looking = _within(report, (turn + SHARE_OF_MAKING) / turns, (turn + 1) / turns)
        made = generate_samples(store, wanted, [records[place] for place in places], candidates=order["candidates"],
                                seed=order["seed"] + turn * TURN_SEEDS, report=making, previews=previews)  # fmt: skip
        scoring.score_samples(store, project, made, scorers, looking)
        found = look_at(store, project, made)
        counts.update(tally(found, limits))
        for place, best in zip(places, best_of_each(found, order["candidates"], limits), strict=True):
            if best is not None:
                mined[place] = best
        samples += made
        report(round(1000 * (turn + 1) / turns), 1000, f"{len(mined)} of {len(records)} found",
               metrics={"found": float(len(mined))})  # fmt: skip
    return samples, mined, counts


def _searched_for(context: JobContext, project: Project) -> list[LabelMapRecord]:
    """The label maps of the order; where it leaves them open they are drawn once, and written into it: after a pause the search
    goes on with the same ones, whatever was corrected or imported meanwhile."""
    if context.params["label_map_ids"] is None and (suggested := _suggested(context, project)):
        named = {**context.params, "label_map_ids": [record.id for record in suggested]}
        context.job = context.store.set_job_params(context.job, named)
    return label_maps_of(context)


def _suggested(context: JobContext, project: Project) -> list[LabelMapRecord]:
    """New label maps by the mask generator, chosen by what the selector misses, and kept; none where the order wants none."""
    store, order = context.store, context.params
    model = store.newest_mask_model(project.id) if order["suggests"] else None
    if model is None:
        return []
    report = _within(context.report, 0.0, 0.0)
    drawn = new_label_maps(store, project, model, count=order["count"] * SUGGESTED_PER_WANTED, seed=order["seed"], report=report)
    if not drawn:
        return []
    generator = np.random.default_rng(order["seed"])
    weakness = known_weakness(store, project.id)
    odds = weakness.odds([seen.asked_by(one.label_map, project) for one in drawn])
    places = generator.choice(len(drawn), size=min(order["count"], len(drawn)), replace=False, p=odds)
    job = context.job
    return [store.add_label_map(project.id, blob=store.blobs.put_label_map(one.label_map), name=f"for search, seed {one.seed}",
                                author=job.created_by, request_id=f"mined-{job.id}-{one.seed}", origin="sampled")
            for one in (drawn[place] for place in sorted(places))]  # fmt: skip


def look_at(store: Store, project: Project, samples: Sequence[Sample]) -> list[Found]:
    """What judge, quality check and selector say of scored samples; who was looked at by neither is a wrong one."""
    pairs = [Looked(sample.blob, sample.label_map_blob, sample.is_composite) for sample in samples]
    describe_images(store, [sample.blob for sample in samples], silent)
    quality_gate.describe(store, project, pairs)
    refused = quality_gate.refused(store, project, pairs)
    dice: dict[tuple[int, str], float] = {(row.sample_id, row.kind): row.dice for row in store.score_rows(project.id)}
    return [Found(sample, dice.get((sample.id, "judge"), 0.0), 1 - dice.get((sample.id, "selector"), 0.0), not is_refused)
            for sample, is_refused in zip(samples, refused, strict=True)]  # fmt: skip


def tally(found: Sequence[Found], limits: Limits) -> Counter[str]:
    """How many lie in each quadrant."""
    places = quadrants([one.fidelity for one in found], [one.loss for one in found], [one.is_plausible for one in found], limits)
    return Counter(QUADRANTS[place] for place in places.tolist())


def best_of_each(found: Sequence[Found], candidates: int, limits: Limits) -> list[int | None]:
    """Sample id of the hardest prize of each label map, whose candidates lie side by side."""
    chosen: list[int | None] = []
    for first in range(0, len(found), candidates):
        own = found[first : first + candidates]
        best = hardest([one.fidelity for one in own], [one.loss for one in own], [one.is_plausible for one in own], limits)
        chosen.append(None if best is None else own[best].sample.id)
    return chosen


def _within(report: Report, first: float, last: float) -> Report:
    """Report a part of the work as its share of the whole."""

    def scaled(step: int, total: int, message: str, *, metrics: Any = None, images: Any = None) -> None:
        report(round(1000 * (first + (last - first) * step / max(1, total))), 1000, message, metrics=metrics, images=images)

    return scaled
