"""Job `audit`: what the synthetic images of an export reveal about training patients, alone and with all earlier exports.

Isolation does not compose (Cohen and Nissim 2020): two sets that reveal nothing may reveal something together. So everything is
measured again on the union with what left before and shows the same patients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saadi import devices, quality
from saadi.curation import describe_images
from saadi.engines.loading import full_memory_told
from saadi.errors import BadInputError
from saadi.exports.residue import residues
from saadi.jobs import JobContext, Outcome, silent
from saadi.privacy import burnt_in
from saadi.privacy.audit import AGAIN, Audit, audit
from saadi.privacy.copies import Traces, some_planted
from saadi.privacy.membership import Membership
from saadi.records import ExportRecord, Image, Project, RealImage
from saadi.release import texts
from saadi.release.items import files_of, has_credentials, items_of
from saadi.release.memory import membership
from saadi.release.people import Look, known_verifier, people, real_images, reduced
from saadi.store import Store
from saadi.store.releases import ExportItem, verdict_of
from saadi.store.texts import with_texts
from saadi.store.withdrawals import OWN

SHOWN = {"real": "real images show their patients as they are", "composite": "composites hold pixels of real images"}
"""Kind of an image -> what of a patient is left in it."""
STAGES = {"files": 0.05, "text": 0.25, "reading": 0.15, "learning": 0.2, "remembering": 0.15, "comparing": 0.1,
          "comparing with earlier exports": 0.1}  # fmt: skip
"""Parts of the work and their share of its time."""
MAX_FOR_VARIETY = 2000


def run_job(context: JobContext) -> Outcome:
    """Job `audit`."""
    devices.use_all_threads()
    store, order = context.store, context.params
    project = store.project(order["project_id"])
    export = store.export(order["export_id"]) if order["export_id"] is not None else None
    listed = items_of(store, project, export)
    if export is not None and export.num_items and not listed:
        raise BadInputError(f"nobody knows any more what was in export {export.id}: it is older than the ledger, and its folder "
                            "is gone or holds something else; put the folder back, or export again")  # fmt: skip
    items = _synthetic(listed)
    earlier = store.earlier_exports(export) if export is not None else []
    before, lost = list[ExportItem](), list[int]()
    for record in earlier:
        found = items_of(store, store.project(record.project_id), record)
        before += _synthetic(found)
        lost += [record.id] if record.num_items and not found else []
    training = real_images(store, project, ["train"])
    # What no measure of nearness sees: metadata in the files, text in the pictures.
    files = _files(context, export)
    if burnt_in.is_available():
        texts.look_for_text(store, [item.blob for item in listed], _stage(context, "text"))
    told = _Told(project, export, earlier, lost, listed, files, training)
    if not items:
        return _written(context, told, _findings(store, told, None, None, []))
    held_out = real_images(store, project, ["val", "test"])
    strangers = (real_images(store, store.project(order["strangers_id"]), ["train", "val", "test", "none"])
                 if order["strangers_id"] is not None else [])  # fmt: skip
    union = list({item.blob: item for item in (*items, *before)}.values())
    groups: list[Sequence[str]] = [[one.blob for one in part] for part in (training, held_out, strangers, union)]
    pictures = _read(store, groups, _stage(context, "reading"))
    network = known_verifier(store, project, pictures[0], training, _stage(context, "learning"), context.job.created_by)
    with full_memory_told("close other programs that use it and try again, or set SAADI_DEVICE=cpu, which is slow"):
        remembers = _remembered(store, project, items, _stage(context, "remembering"))
    trained = people(pictures[0], training, network)
    assert trained is not None, "checked when the job started"
    copies = some_planted(pictures[0])
    rest: dict[str, Any] = {
        "held_out": people(pictures[1], held_out, network), "calibration": people(pictures[2], strangers, network),
        "membership": remembers, "planted": Traces.of(copies, embeddings=network.embed(copies))}  # fmt: skip
    seen = Traces.of(pictures[3], embeddings=network.embed(pictures[3]))
    places = {item.blob: place for place, item in enumerate(union)}
    own = [places[blob] for blob in dict.fromkeys(item.blob for item in items)]
    found_own = audit(seen.take(own), trained, look=_look(context, "comparing", "comparing with every training image"), **rest)
    together = None
    if len(union) > len(own):
        look = _look(context, "comparing with earlier exports", "comparing all exports with every training image")
        together = audit(seen, trained, look=look, **rest)
    return _written(context, told, _findings(store, told, found_own, together, [union[place] for place in own]))


class _Told(NamedTuple):
    """What an audit is about."""

    project: Project
    export: ExportRecord | None
    earlier: Sequence[ExportRecord]
    lost: Sequence[int]
    """Earlier exports of which nobody knows any more what was in them."""
    listed: Sequence[ExportItem]
    files: dict[str, Any] | None
    """What its files carry beside pixels; None = it has none, or they are gone."""
    training: Sequence[RealImage]


def _files(context: JobContext, export: ExportRecord | None) -> dict[str, Any] | None:
    if export is None or (known := files_of(export)) is None:
        return None
    found = residues(Path(export.path), known, with_credentials=has_credentials(export),
                     look=_look(context, "files", "looking into the files"))
    return {"num_files": len(known), "found": [one._asdict() for one in found]}


def _synthetic(items: Sequence[ExportItem]) -> list[ExportItem]:
    """Those that a model made as a whole; a composite is near to its patient since it shows that patient."""
    return [item for item in items if item.kind == "synthetic"]


def _written(context: JobContext, told: _Told, findings: dict[str, Any]) -> Outcome:
    actor, job_id = context.job.created_by, context.job.id

    def publish(store: Store) -> dict[str, Any]:
        record = store.add_disclosure(told.project.id, export_id=told.export.id if told.export else None, findings=findings,
                                      actor=actor, job_id=job_id)  # fmt: skip
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


def _look(context: JobContext, stage: str, words: str) -> Callable[[int, int], None]:
    report = _stage(context, stage)
    return lambda step, total: report(step, total, f"{words}, {step} of {total}")


def _read(store: Store, groups: Sequence[Sequence[str]], look: Look) -> list[list[Image]]:
    pictures = reduced(store, [blob for blobs in groups for blob in blobs], look, "reading images")
    ends = np.cumsum([len(blobs) for blobs in groups]).tolist()
    return [pictures[end - len(blobs) : end] for end, blobs in zip(ends, groups, strict=True)]


def _remembered(store: Store, project: Project, items: Sequence[ExportItem], look: Look) -> Membership | None:
    """Of the version that made most of the images."""
    blobs = {item.blob for item in items}
    made = Counter((row.model_id, row.adapter_id) for row in store.samples(project.id) if row.blob in blobs)
    if not made:
        return None
    (model_id, adapter_id), _ = made.most_common(1)[0]
    return membership(store, project, store.model(model_id), store.adapter(adapter_id) if adapter_id is not None else None, look)


def _findings(
    store: Store, told: _Told, found: Audit | None, together: Audit | None, items: Sequence[ExportItem]
) -> dict[str, Any]:
    """JSON; numbers of images and pixels by hash, no names."""
    kinds = Counter(item.kind for item in told.listed)
    reasons = [f"{kinds[kind]} {what}" for kind, what in SHOWN.items() if kinds[kind]]
    questions = [f"nobody knows any more what was in export {number}, whose folder is gone" for number in told.lost]
    reasons += _tied(store, told)
    if told.files is not None and (carry := told.files["found"]):
        names = ", ".join(sorted({what for one in carry for what in one["what"]}))
        reasons.append(f"{len(carry)} of the files carry more than pixels: {names}")
    elif told.files is None and told.export is not None:
        questions.append("its files could not be looked into, as its folder is gone")
    if not burnt_in.is_available():
        questions.append(texts.MISSING)
    elif lost := store.texts_unlooked((item.blob for item in told.listed), detector=burnt_in.DETECTOR):
        questions.append(f"{len(lost)} images cannot be read, so nobody has looked for text in them")
    if found is None:
        questions.append("there is no synthetic image to look at")
    else:
        reasons += found.reasons
        questions += found.open_questions
    if found is not None and together is not None:
        known = {*found.reasons, *found.open_questions}
        reasons += [f"with the exports before it: {words}" for words in together.reasons if words not in known]
        questions += [f"with the exports before it: {words}" for words in together.open_questions
                      if words not in known and AGAIN not in words]  # fmt: skip
        if (before := len(together.flags) - len(found.flags)) > 0 and not together.reasons:
            questions.append(f"{before} images of the exports before it are nearer to a training image than strangers come; "
                             "where one of those never left, delete it and say so, and what was released stays")  # fmt: skip
    if found is not None and told.export is None and (exports := store.exports(told.project.id)):
        questions.append(f"{len(exports)} exports were made before, and this look leaves them out; audit an export itself")
    flagged = [{"blob": items[flag.item].blob, "name": items[flag.item].name, "image_id": told.training[flag.nearest].id,
                "score": round(flag.score, 3)} for flag in (found.flags if found else ())]  # fmt: skip
    # Who could not look for copies has not looked: what an earlier audit flagged stays out.
    looked_at = [item.blob for item in items] if found is not None and found.finds_copies else []
    findings = {
        "verdict": verdict_of(reasons, questions), "reasons": reasons,
        "open_questions": questions, "own": found.in_numbers() if found else None,
        "union": together.in_numbers() if together else None, "earlier_exports": [record.id for record in told.earlier],
        "kinds": dict(kinds), "flagged": flagged, "looked_at": looked_at, "files": told.files,
        "variety": _variety(store, items, told.training) if items else None,
    }  # fmt: skip
    return with_texts(findings, texts.texts_of(store, told.listed), held=store.held_texts(item.blob for item in told.listed))


def _tied(store: Store, told: _Told) -> list[str]:
    """What ties the images to patients who have withdrawn, in words."""
    if told.export is not None:
        tied = store.withdrawn_in(told.export.id)
    else:
        samples, listed = store.standing_trace(told.project.id).samples, {item.blob for item in told.listed}
        tied = Counter(samples[row.id] for row in store.samples(told.project.id, curation="accepted")
                       if row.id in samples and row.blob in listed)  # fmt: skip
    words = {"version": "were made by a version that may have learnt from a patient who has withdrawn, with whose images nothing "
                        "is compared any more"}  # fmt: skip
    own = sum(tied.get(tie, 0) for tie in OWN)
    return ([f"{own} images hold data of a patient who has withdrawn"] if own else []) + [
        f"{count} images {words[tie]}" for tie, count in tied.items() if tie in words]  # fmt: skip


def _variety(store: Store, items: Sequence[ExportItem], training: Sequence[RealImage]) -> dict[str, Any]:
    """Effective numbers of different images, each of as many, and how much of the real ones is covered."""
    draw = np.random.default_rng(0)
    items, training = ([part[place] for place in sorted(draw.permutation(len(part))[:MAX_FOR_VARIETY])]
                       for part in (items, training))  # fmt: skip
    describe_images(store, [*(item.blob for item in items), *(image.blob for image in training)], silent)
    vectors = store.descriptors(quality.LOOK, [*(item.blob for item in items), *(image.blob for image in training)])
    made, real = (np.stack([vectors[one.blob] for one in part if one.blob in vectors]) for part in (items, training))
    made, real = quality.standardised(made, real), quality.standardised(real, real)
    count = min(len(made), len(real), 500)
    chosen = [part[draw.permutation(len(part))[:count]] for part in (made, real)]
    return {"vendi": round(quality.vendi_score(chosen[0]), 2), "vendi_real": round(quality.vendi_score(chosen[1]), 2),
            "count": count, "coverage": quality.coverage(made, real)}  # fmt: skip
