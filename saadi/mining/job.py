"""Job `mine`: images that are hard for the selector and right in the eyes of the judge.

Of label maps drawn by what the selector misses, turns of candidates are made (`saadi.mining.turns`) and looked at: gated by judge
and quality check, ranked by the selector's loss (methods.md, section 3, "gate by judge A, rank by target B"). All candidates stay
in the pool: what is easy or wrong is told as such in Curate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from saadi import devices, quality_gate
from saadi.curation import describe_images
from saadi.downstream import scoring
from saadi.downstream.scoring import Looking
from saadi.engines.loading import full_memory_told
from saadi.generation import Plan, chosen_adapter, generate_samples, plan
from saadi.jobs import JobContext, Outcome, Report, silent, within
from saadi.mask_generator.job import new_label_maps
from saadi.mining import seen
from saadi.mining.choosing import QUADRANTS, Limits, hardest, quadrants
from saadi.mining.learning import known_start, learnt_start
from saadi.mining.turns import Turns
from saadi.mining.weakness import in_lots
from saadi.orders.generating import TRIED_PER_WANTED, MineOrder, known_weakness
from saadi.previews import Previews
from saadi.quality_gate import Looked
from saadi.records import LabelMapRecord, Model, Project, Sample
from saadi.store import Store

SUGGESTED_PER_WANTED = 6
"""Label maps drawn for each image that is searched for: the more, the more of them ask for what is missed."""
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
    searched = _searched_for(context, project)
    model = store.model(order["model_id"])
    with full_memory_told("close other programs that use it and try again, or set SAADI_DEVICE=cpu, which is slow"):
        wanted, begins = plan(store, project, model=model, settings=order["settings"], purpose="pool",
                              adapter=chosen_adapter(store, project, order["adapter"], model=model)), 0.0  # fmt: skip
        if order.get("learned"):
            begins = SHARE_OF_LEARNING if known_start(context, wanted, scorers) is None else 0.0
            wanted = learnt_start(context, wanted, scorers, within(context.report, 0.0, begins))
        samples, mined, counts = _searched(context, wanted, scorers, searched, limits, within(context.report, begins, 1.0))
    scoring.look_at_project(store, project, scorers, silent)

    def publish(store: Store) -> dict[str, Any]:
        return {"sample_ids": [sample.id for sample in samples], "mined_ids": sorted(mined), "num_masks": num_masks,
                "made": dict(counts), "limits": asdict(limits)}  # fmt: skip

    num_masks = len({sample.label_map_id for sample in samples})
    share = f"{counts['prize']} of {len(samples)} images made are hard and right"
    tried = "" if project.task == "classification" else f", {num_masks} mask{'' if num_masks == 1 else 's'} tried"
    found = f"{len(mined)} hard image{'' if len(mined) == 1 else 's'} of {searched.wanted} searched for"
    return Outcome(f"{found}{tried}; {share}", publish)


class Searched(NamedTuple):
    """What a search goes over."""

    label_map_ids: Sequence[int]
    spares: Sequence[dict[str, Any]]
    """Drawn by the mask generator and not kept as label maps before their turn comes: blob and seed of each."""
    wanted: int
    """Hard images, one for a label map at most."""


def _searched(
    context: JobContext, wanted: Plan, scorers: Sequence[tuple[Model, Looking]], searched: Searched, limits: Limits,
    report: Report,
) -> tuple[list[Sample], list[int], Counter[str]]:  # fmt: skip
    """All images made, the hardest right one of each label map that has one, and how many lie in each quadrant."""
    store, order, project = context.store, context.params, wanted.project
    previews = Previews(context.dir)
    turns = Turns(wanted=searched.wanted, num_maps=len(searched.label_map_ids) + len(searched.spares), turns=order["turns"])
    of_place: dict[int, list[Found]] = {}
    mined: dict[int, int] = {}
    samples: list[Sample] = []
    counts: Counter[str] = Counter()
    turn, before = 0, 0.0
    while places := turns.next():
        after = turns.share_taken
        middle = before + SHARE_OF_MAKING * (after - before)
        made = generate_samples(store, wanted, [_record(context, searched, place) for place in places],
                                candidates=order["candidates"], seed=order["seed"] + turn * TURN_SEEDS,
                                report=within(report, before, middle), previews=previews)  # fmt: skip
        scoring.score_samples(store, project, made, scorers, within(report, middle, after))
        found = look_at(store, project, made)
        counts.update(tally(found, limits))
        for number, place in enumerate(places):
            first = number * order["candidates"]
            own = of_place.setdefault(place, [])
            own += found[first : first + order["candidates"]]
            if (best := best_of(own, limits)) is not None:
                mined[place] = best
        turns.tell(places, [place in mined for place in places])
        samples += made
        turn, before = turn + 1, after
        report(round(1000 * after), 1000, f"{len(mined)} of {searched.wanted} found", metrics={"found": float(len(mined))})
    return samples, list(mined.values()), counts


def _searched_for(context: JobContext, project: Project) -> Searched:
    """The label maps of the order; where it leaves them open they are drawn once, and written into it: after a pause the search
    goes on with the same ones, whatever was corrected or imported meanwhile."""
    store, order = context.store, context.params
    if order.get("spares") is None:
        spares = _suggested(context, project) if order["label_map_ids"] is None else []
        wanted = MineOrder(**{name: value for name, value in order.items() if name in MineOrder.model_fields})
        ids = order["label_map_ids"] or (None if spares else wanted.tried(store))
        context.job = store.set_job_params(context.job, {**order, "label_map_ids": ids, "spares": spares})
    ids, spares = context.params["label_map_ids"] or [], context.params["spares"]
    return Searched(ids, spares, min(context.params["count"], len(ids) + len(spares)))


def _record(context: JobContext, searched: Searched, place: int) -> LabelMapRecord:
    store, job, own = context.store, context.job, len(searched.label_map_ids)
    if place < own:
        return store.label_map(searched.label_map_ids[place])
    spare = searched.spares[place - own]
    return store.add_label_map(context.params["project_id"], blob=spare["blob"], name=f"for search, seed {spare['seed']}",
                               author=job.created_by, request_id=f"mined-{job.id}-{spare['seed']}", origin="sampled")  # fmt: skip


def _suggested(context: JobContext, project: Project) -> list[dict[str, Any]]:
    """New label maps by the mask generator, those first that ask for what is missed; none where the order wants none."""
    store, order = context.store, context.params
    model = store.newest_mask_model(project.id) if order["suggests"] else None
    if model is None:
        return []
    report = within(context.report, 0.0, 0.0)
    drawn = new_label_maps(store, project, model, count=order["count"] * SUGGESTED_PER_WANTED, seed=order["seed"], report=report)
    if not drawn:
        return []
    odds = known_weakness(store, project.id).odds([seen.asked_by(one.label_map, project) for one in drawn])
    chosen = [drawn[place] for place in in_lots(odds, order["count"] * TRIED_PER_WANTED, seed=order["seed"])]
    spares: list[dict[str, Any]] = [{"blob": store.blobs.put_label_map(one.label_map), "seed": one.seed,
                                     "mask_model_id": model.id} for one in chosen]  # fmt: skip
    # Named by the job, they are no leftovers while it waits.
    context.report(0, 1000, f"{len(spares)} masks drawn", images={f"mask {one['seed']}": one["blob"] for one in spares})
    return spares


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


def best_of(found: Sequence[Found], limits: Limits) -> int | None:
    """Sample id of the hardest prize among the candidates of one label map."""
    best = hardest([one.fidelity for one in found], [one.loss for one in found], [one.is_plausible for one in found], limits)
    return None if best is None else found[best].sample.id
