"""Job `surrogates`: one image for each label map that comes near to no training patient, and what cannot be filled stays empty.

Copies are looked for as the audit does it: pixels, perceptual hash and verifier, limits from patients whom nothing was learnt
from. What is kept may still be found by another attack; an export of it is audited like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from saadi import devices, quality
from saadi.curation import describe_images
from saadi.downstream import scoring
from saadi.engines.loading import full_memory_told
from saadi.errors import TooFewError
from saadi.generation import Plan, chosen_adapter, generate_samples, label_maps_of, plan
from saadi.jobs import JobContext, Outcome, Report, silent, within
from saadi.mining.job import TURN_SEEDS, look_at
from saadi.orders.sharing import SurrogatesOrder
from saadi.previews import Previews
from saadi.privacy.audit import UNKNOWN, Watch
from saadi.privacy.copies import Traces, some_planted
from saadi.privacy.retrieval import Retrieval
from saadi.privacy.slots import Candidate, Descent, Slots
from saadi.privacy.verifier import Verifier
from saadi.records import HELD_OUT_SPLITS, LabelMapRecord, Model, Project, Sample
from saadi.release.people import known_verifier, people, real_images, reduced
from saadi.store import Store

SHARE_OF_LEARNING = 0.2
"""Of the whole time: reading the real images and learning to tell patients apart."""
SHARE_OF_MAKING = 0.75
"""Of a round's time; the rest is looking at what was made."""
MAX_FOR_VARIETY = 1000
CHUNK = 64


@dataclass(frozen=True)
class _Guard:
    """Who must not be shown."""

    network: Verifier
    watch: Watch


@dataclass
class _Found:
    """What the rounds have given so far."""

    samples: list[Sample]
    """All that was made."""
    kept: dict[int, Sample]
    """Place of a label map -> its image."""
    nearest: dict[int, int]
    """Place of a label map -> the training image that its image retrieves."""
    rounds: list[dict[str, Any]]


def run_job(context: JobContext) -> Outcome:
    """Job `surrogates`."""
    devices.use_all_threads()
    store, order = context.store, SurrogatesOrder(**context.params)
    context.yields = True  # what is made already is found again by its recipe
    project = store.project(order.project_id)
    scorers = scoring.load_scorers(store, project)
    scoring.look_at_project(store, project, scorers, context.report)
    records = label_maps_of(context)
    guard = _guard(context, project, within(context.report, 0.0, SHARE_OF_LEARNING))
    model = store.model(context.params["model_id"])
    with full_memory_told("close other programs that use it and try again, or set SAADI_DEVICE=cpu, which is slow"):
        wanted = plan(store, project, model=model, settings=context.params["settings"], purpose="pool",
                      adapter=chosen_adapter(store, project, context.params["adapter"], model=model))  # fmt: skip
        slots = Slots(len(records), Descent(wanted.settings["guidance_scale"], order.guidance_step, order.lowest_guidance,
                                            order.rounds))  # fmt: skip
        found = _filled(context, wanted, scorers, records, slots, guard)
    scoring.look_at_project(store, project, scorers, silent)
    return _outcome(context, order, records, slots, found, of="sets" if project.task == "classification" else "masks")


def _outcome(context: JobContext, order: SurrogatesOrder, records: Sequence[LabelMapRecord], slots: Slots, found: _Found, *,
             of: str) -> Outcome:  # fmt: skip
    kept = [found.kept[place].id for place in sorted(found.kept)]
    unfilled = [records[place].id for place in slots.unfilled]
    near = sum(one["near"] for one in found.rounds)

    def publish(store: Store) -> dict[str, Any]:
        # What somebody has decided meanwhile, or long ago about the same image, stays as decided.
        fresh = [number for number in kept if store.sample(number).curation == "pending"] if order.accept else []
        if fresh:
            store.curate(fresh, "accepted", actor=context.job.created_by)
        return {"sample_ids": [sample.id for sample in found.samples], "kept_ids": kept, "unfilled_label_map_ids": unfilled,
                "rounds": found.rounds, "accepted_ids": fresh}  # fmt: skip

    empty = f"; {len(unfilled)} stay without one" if unfilled else ""
    accepted = ", accepted where nobody had decided" if order.accept and kept else ""
    return Outcome(f"{len(kept)} of {len(records)} {of} have an image that is near to no training patient{accepted}{empty}; "
                   f"of {len(found.samples)} images made {near} were too near{_doubt(context.store, order.project_id)}",
                   publish)  # fmt: skip


def _doubt(store: Store, project_id: int) -> str:
    """Where nobody said whose an image is, frames of one patient may stand for a patient and for strangers."""
    unnamed = sum(image.group_id.startswith(UNKNOWN) for image in store.images(project_id, splits=["train", *HELD_OUT_SPLITS]))
    return f"; of {unnamed} real images nobody said whose they are, so near ones may have passed" if unnamed else ""


def _guard(context: JobContext, project: Project, report: Report) -> _Guard:
    """The verifier of the project's patients and how near strangers come to them.

    Raises:
        TooFewError: There are too few strangers to say that, or planted copies are not found by it.
    """
    store = context.store
    training, held_out = real_images(store, project, ["train"]), real_images(store, project, list(HELD_OUT_SPLITS))
    pictures = [reduced(store, [image.blob for image in part], report, "reading real images") for part in (training, held_out)]
    network = known_verifier(store, project, pictures[0], training, report, context.job.created_by)
    trained = people(pictures[0], training, network)
    strangers = people(pictures[1], held_out, network)
    copies = some_planted(pictures[0])
    watch = Watch.of(trained, strangers, planted=Traces.of(copies, embeddings=network.embed(copies)),
                     look=lambda step, total: report(step, total, "how near strangers come")) if trained else None  # fmt: skip
    if watch is None:
        raise TooFewError("too few patients, or too like each other, to tell copies of training images from images of strangers; "
                          "import more, with a column or pattern that says whose each is")  # fmt: skip
    return _Guard(network, watch)


def _filled(context: JobContext, wanted: Plan, scorers: Sequence[tuple[Model, Any]], records: Sequence[LabelMapRecord],
            slots: Slots, guard: _Guard) -> _Found:  # fmt: skip
    """Go round until every label map has its image or the cap is reached."""
    store, order, project = context.store, context.params, wanted.project
    found, previews, each = _Found([], {}, {}, []), Previews(context.dir), order["candidates"]
    while places := slots.open:
        number, guidance = slots.number, slots.guidance
        begins, ends = (SHARE_OF_LEARNING + (1 - SHARE_OF_LEARNING) * part / order["rounds"] for part in (number, number + 1))
        middle = begins + SHARE_OF_MAKING * (ends - begins)
        so = replace(wanted, settings={**wanted.settings, "guidance_scale": guidance})
        made = generate_samples(store, so, [records[place] for place in places], candidates=each,
                                seed=order["seed"] + number * TURN_SEEDS, report=within(context.report, begins, middle),
                                previews=previews)  # fmt: skip
        scoring.score_samples(store, project, made, scorers, within(context.report, middle, (middle + ends) / 2))
        is_near, nearest = _looked_at(store, guard, made, within(context.report, (middle + ends) / 2, ends))
        looked = [Candidate(bool(near), one.is_plausible, 1 - one.loss)
                  for near, one in zip(is_near, look_at(store, project, made), strict=True)]  # fmt: skip
        fresh = slots.tell([looked[row * each : (row + 1) * each] for row in range(len(places))])
        for row, place in enumerate(places):
            if place in fresh:
                index = row * each + fresh[place]
                found.kept[place], found.nearest[place] = made[index], int(nearest[index])
        found.samples += made
        found.rounds.append({
            "guidance": guidance, "made": len(made), "near": sum(one.is_near for one in looked),
            "implausible": sum(not one.is_near and not one.is_plausible for one in looked), "kept": len(found.kept),
            **_variety(store, project, found, len(guard.watch.trained.traces))})  # fmt: skip
        context.report(round(1000 * ends), 1000, f"{len(found.kept)} of {len(records)} have an image",
                       metrics={"kept": float(len(found.kept)), "guidance": guidance})  # fmt: skip
    return found


def _looked_at(store: Store, guard: _Guard, made: Sequence[Sample], report: Report) -> tuple[list[bool], list[int]]:
    """Of each image whether it is too near, and the place of the training image that is nearest; a few at a time, as small as the
    audit takes them."""
    is_near, nearest = list[bool](), list[int]()
    for first in range(0, len(made), CHUNK):
        images = reduced(store, [sample.blob for sample in made[first : first + CHUNK]], silent, "")
        near, places = guard.watch.look(Traces.of(images, embeddings=guard.network.embed(images)))
        is_near += near.tolist()
        nearest += places.tolist()
        done = first + len(images)
        report(done, len(made), f"comparing with every training image, {done} of {len(made)}")
    return is_near, nearest


def _variety(store: Store, project: Project, found: _Found, num_training: int) -> dict[str, float | None]:
    """How much of the real images what is kept so far reaches, and how many different images it amounts to."""
    if not found.kept:
        return {"irs": None, "irs_low": None, "irs_high": None, "vendi": None, "coverage": None, "density": None}
    reached = Retrieval.of(list(found.nearest.values()), num_real=num_training)
    draw = np.random.default_rng(0)
    blobs = [sample.blob for sample in found.kept.values()]
    real = [image.blob for image in real_images(store, project, ["train"])]
    blobs, real = ([part[place] for place in sorted(draw.permutation(len(part))[:MAX_FOR_VARIETY])] for part in (blobs, real))
    describe_images(store, [*blobs, *real], silent)
    vectors = store.descriptors(quality.LOOK, [*blobs, *real])
    made, seen = (np.stack([vectors[blob] for blob in part]) for part in (blobs, real))
    made, seen = quality.standardised(made, seen), quality.standardised(seen, seen)
    return {"irs": round(reached.score, 4), "irs_low": round(reached.low / num_training, 4),
            "irs_high": round(reached.high / num_training, 4), "vendi": round(quality.vendi_score(made), 2),
            "coverage": quality.coverage(made, seen), "density": quality.density(made, seen)}  # fmt: skip
