"""Job `audit`: what the synthetic images of an export reveal about training patients, alone and with all earlier exports.

Isolation does not compose (Cohen and Nissim 2020): two sets that reveal nothing may reveal something together. So everything is
measured again on the union with what left before and shows the same patients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from saadi import devices, quality
from saadi.curation import describe_images
from saadi.engines.loading import full_memory_told
from saadi.jobs import JobContext, Outcome
from saadi.privacy.audit import Audit, People, audit
from saadi.privacy.copies import Traces
from saadi.privacy.membership import Membership
from saadi.records import ExportRecord, Image, Project, RealImage
from saadi.release.memory import membership
from saadi.release.people import Look, items_of, known_verifier, people, real_images, reduced
from saadi.store import Store
from saadi.store.releases import ExportItem

SHOWN = {"real": "real images show their patients as they are", "composite": "composites hold pixels of real images"}
"""Kind of an image -> what of a patient is left in it."""
STAGES = {"reading": 0.3, "learning": 0.35, "remembering": 0.25, "comparing": 0.1}
"""Parts of the work and their share of its time."""


def run_job(context: JobContext) -> Outcome:
    """Job `audit`."""
    devices.use_all_threads()
    store, order = context.store, context.params
    project = store.project(order["project_id"])
    export = store.export(order["export_id"]) if order["export_id"] is not None else None
    listed = items_of(store, project, export)
    items = [item for item in listed if item.kind != "real"]
    earlier = store.earlier_exports(export) if export is not None else []
    before = [item for record in earlier for item in items_of(store, store.project(record.project_id), record)
              if item.kind != "real"]  # fmt: skip
    training = real_images(store, project, ["train"])
    kinds = Counter(item.kind for item in listed)
    if not items:
        return _written(context, project, export, _findings(store, None, None, [], training, earlier, kinds))
    held_out = real_images(store, project, ["val", "test"])
    strangers = (real_images(store, store.project(order["strangers_id"]), ["train", "val", "test", "none"])
                 if order["strangers_id"] is not None else [])  # fmt: skip
    union = list({item.blob: item for item in (*items, *before)}.values())
    groups: list[Sequence[str]] = [[one.blob for one in part] for part in (training, held_out, strangers, union)]
    pictures = _read(store, groups, _stage(context, "reading"))
    network = known_verifier(store, project, pictures[0], training, _stage(context, "learning"), context.job.created_by)
    with full_memory_told("close other programs that use it and try again, or set SAADI_DEVICE=cpu, which is slow"):
        remembers = _remembered(store, project, items, _stage(context, "remembering"))
    look = _stage(context, "comparing")
    look(0, 2, "comparing each image with every training image")
    trained = people(pictures[0], training, network)
    assert trained is not None, "checked when the job started"
    seen = Traces.of(pictures[3], embeddings=network.embed(pictures[3]))
    places = {item.blob: place for place, item in enumerate(union)}
    own = [places[blob] for blob in dict.fromkeys(item.blob for item in items)]
    rest = (people(pictures[1], held_out, network), people(pictures[2], strangers, network))
    found = _audited(seen.take(own), trained, *rest, remembers)
    look(1, 2, "comparing all exports with every training image")
    together = _audited(seen, trained, *rest, remembers) if len(union) > len(own) else None
    findings = _findings(store, found, together, [union[place] for place in own], training, earlier, kinds)
    return _written(context, project, export, findings)


def _written(context: JobContext, project: Project, export: ExportRecord | None, findings: dict[str, Any]) -> Outcome:
    actor, job_id = context.job.created_by, context.job.id

    def publish(store: Store) -> dict[str, Any]:
        record = store.add_disclosure(project.id, export_id=export.id if export else None, findings=findings, actor=actor,
                                      job_id=job_id)  # fmt: skip
        return {"disclosure_id": record.id, "verdict": findings["verdict"]}

    return Outcome(in_words(findings), publish)


def in_words(findings: dict[str, Any]) -> str:
    """One sentence."""
    if findings["reasons"]:
        return f"fails: {findings['reasons'][0]}"
    if findings["verdict"] == "nothing found":
        return f"no attack found anything in {findings['own']['num_items']} images; that is no proof that there is nothing"
    return f"nothing can be concluded: {findings['open_questions'][0]}"


def _stage(context: JobContext, name: str) -> Look:
    names = list(STAGES)
    begins = sum(STAGES[other] for other in names[: names.index(name)])

    def look(step: int, total: int, words: str) -> None:
        context.report(round(1000 * (begins + STAGES[name] * step / max(1, total))), 1000, words)

    return look


def _read(store: Store, groups: Sequence[Sequence[str]], look: Look) -> list[list[Image]]:
    pictures = reduced(store, [blob for blobs in groups for blob in blobs], look, "reading images")
    ends = np.cumsum([len(blobs) for blobs in groups]).tolist()
    return [pictures[end - len(blobs) : end] for end, blobs in zip(ends, groups, strict=True)]


def _audited(
    seen: Traces, trained: People, held_out: People | None, strangers: People | None, remembers: Membership | None
) -> Audit:
    return audit(seen, trained, held_out, calibration=strangers, membership=remembers)


def _remembered(store: Store, project: Project, items: Sequence[ExportItem], look: Look) -> Membership | None:
    """Of the version that made most of the images."""
    blobs = {item.blob for item in items}
    made = Counter((row.model_id, row.adapter_id) for row in store.samples(project.id) if row.blob in blobs)
    if not made:
        return None
    (model_id, adapter_id), _ = made.most_common(1)[0]
    return membership(store, project, store.model(model_id), store.adapter(adapter_id) if adapter_id is not None else None, look)


def _findings(store: Store, found: Audit | None, together: Audit | None, items: Sequence[ExportItem],
              training: Sequence[RealImage], earlier: Sequence[ExportRecord], kinds: Counter[str]) -> dict[str, Any]:  # fmt: skip
    """JSON; numbers of images and pixels by hash, no names."""
    words = [f"{kinds[kind]} {what}" for kind, what in SHOWN.items() if kinds[kind]]
    words += found.reasons if found else []
    words += [f"with the exports before it: {reason}" for reason in (together.reasons if together else [])
              if found and reason not in found.reasons]  # fmt: skip
    flagged = [{"blob": items[flag.item].blob, "name": items[flag.item].name, "image_id": training[flag.nearest].id,
                "score": round(flag.score, 3)} for flag in (found.flags if found else ())]  # fmt: skip
    return {
        "verdict": "fails" if words else found.verdict if found else "nothing concluded", "reasons": words,
        "open_questions": found.open_questions if found else ["there is no synthetic image to look at"],
        "own": found.in_numbers() if found else None, "union": together.in_numbers() if together else None,
        "earlier_exports": [record.id for record in earlier], "kinds": dict(kinds),
        "flagged": flagged, "looked_at": [item.blob for item in items],
        "variety": _variety(store, items, training) if items else None,
    }  # fmt: skip


def _variety(store: Store, items: Sequence[ExportItem], training: Sequence[RealImage]) -> dict[str, Any]:
    """Effective numbers of different images, each of as many, and how much of the real ones is covered."""
    describe_images(store, [*(item.blob for item in items), *(image.blob for image in training)],
                    lambda *told, **more: None)  # fmt: skip
    vectors = store.descriptors(quality.LOOK, [*(item.blob for item in items), *(image.blob for image in training)])
    made, real = (np.stack([vectors[one.blob] for one in part if one.blob in vectors]) for part in (items, training))
    made, real = quality.standardised(made, real), quality.standardised(real, real)
    count = min(len(made), len(real), 500)
    draw = np.random.default_rng(0)
    chosen = [part[draw.permutation(len(part))[:count]] for part in (made, real)]
    return {"vendi": round(quality.vendi_score(chosen[0]), 2), "vendi_real": round(quality.vendi_score(chosen[1]), 2),
            "count": count, "coverage": quality.coverage(made, real)}  # fmt: skip
