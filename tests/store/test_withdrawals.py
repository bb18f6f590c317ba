"""Who withdraws is in nothing from then on, and everything that may know them is named."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saadi import orders
from saadi.alignment.material import anchors
from saadi.config import Home
from saadi.datasets.real import real_pairs
from saadi.errors import BadInputError, NotFoundError, TooFewError
from saadi.orders.drawing import bases
from saadi.records import Model, Project, Sample
from saadi.release.people import real_images
from saadi.release.withdrawn import patient_of, report
from saadi.store import Store
from saadi.store.connection import connect
from saadi.store.migrations import schema
from saadi.store.releases import ExportItem
from tests.builders import new_request
from tests.exports.builders import add_sample, drawing, export, full_project, image, label_map, make_project

WHY = {"person": "ann", "reason": "the patient wrote to us"}
JANE = "DOE_JANE"


def model_by_job(store: Store, project: Project, kind: str = "engine", parent_id: int | None = None) -> Model:
    """As a fit leaves it."""
    job, _ = store.add_job("fit", {}, project_id=project.id, actor="ann", request_id=new_request())
    store.cancel_job(job.id, actor="ann")  # it waits for nobody
    time.sleep(0.002)
    return store.add_model(project.id, kind=kind, architecture={}, file=store.files.put(f"{job.id}".encode()), metrics={},  # type: ignore[arg-type]
                           actor="ann", parent_id=parent_id, job_id=job.id)  # fmt: skip


def of_jane(store: Store, project: Project) -> list[int]:
    return [one.id for one in store.images(project.id) if one.group_id == JANE]


def test_images_go_out_of_all_that_learns_and_come_back(store: Store) -> None:
    project = full_project(store)
    before = {side: len(store.images(project.id, splits=[side])) for side in ("train", "val", "test", "none")}
    labels, masks = store.count_labelled(project.id), bases(store, project.id)
    record = store.withdraw(project.id, JANE, **WHY)
    assert store.withdraw(project.id, JANE, person="bob", reason="a second click") == record
    jane = {image.blob for image in store.images(project.id) if image.group_id == JANE}
    assert all(one.split == "none" and one.withdrawn_from == "train" for one in store.images(project.id) if one.blob in jane)
    # Every consumer asks for a split.
    assert store.count_labelled(project.id)["train"] == labels["train"] - 2
    assert len(real_pairs(store, project, "train")[0]) == 2 and len(anchors(store, project, side=16)) == 2
    assert len(bases(store, project.id)) == len(masks) - 2
    assert not jane & {one.blob for one in real_images(store, project, ["train", "val", "test", "none"])}
    store.revoke_withdrawal(record.id, person="bob", reason="it was somebody else")
    assert {side: len(store.images(project.id, splits=[side])) for side in before} == before  # type: ignore[list-item]
    assert bases(store, project.id) == masks and store.withdrawn_groups(project.id) == set()


def test_both_are_in_the_trail_without_a_name(store: Store) -> None:
    project = full_project(store)
    record = store.withdraw(project.id, JANE, **WHY)
    store.revoke_withdrawal(record.id, person="bob", reason="it was somebody else")
    store.revoke_withdrawal(record.id, person="eve", reason="once more, nothing happens")
    rows = [row for row in store.audit_rows() if row.action.startswith("patient.")]
    assert [(row.action, row.actor) for row in rows] == [("patient.withdrawal_revoked", "bob"), ("patient.withdraw", "ann")]
    assert rows[1].details == {"reason": "the patient wrote to us", "project": project.id, "group": "group-000001", "images": 2}
    assert "DOE" not in str(rows) and store.first_broken_audit_row() is None


def test_a_withdrawal_wants_a_reason_and_a_patient(store: Store) -> None:
    project = make_project(store)
    with pytest.raises(BadInputError, match="wants a reason of 8 characters"):
        store.withdraw(project.id, JANE, person="ann", reason="ok")
    with pytest.raises(NotFoundError, match="no such patient"):
        store.withdraw(project.id, "nobody", **WHY)
    assert not store.withdrawals(project.id) and not store.withdrawn_groups(project.id)


@pytest.mark.parametrize("wanted", [JANE, "group-000001", "real-000002", "2"])
def test_a_patient_is_named_in_four_ways(store: Store, wanted: str) -> None:
    assert patient_of(store, make_project(store), wanted) == JANE


def test_a_number_that_means_two_is_asked_about(store: Store, project: Project) -> None:
    for number, group in enumerate(("2", "other")):
        store.add_image(project.id, blob=store.blobs.put_image(image(number)), size=(24, 24), group_id=group, split="train",
                        label=None, source_name="x", label_map_blob=None, actor="ann")  # fmt: skip
    with pytest.raises(BadInputError, match="write real-000002 for the image, or group-000001 for the patient"):
        patient_of(store, project, "2")
    assert patient_of(store, project, "real-000002") == "other"
    with pytest.raises(NotFoundError, match="no such patient or image"):
        patient_of(store, project, "7")


def test_models_are_tied_by_when_they_were_made(store: Store) -> None:
    project = store.create_project("p", task="segmentation", classes=make_project(store).classes, resolution=16, actor="ann")
    early = model_by_job(store, project)
    time.sleep(0.002)
    store.add_image(project.id, blob=store.blobs.put_image(image(1)), size=(24, 24), group_id=JANE, split="train", label=None,
                    source_name="x", label_map_blob=None, actor="ann")  # fmt: skip
    time.sleep(0.002)
    knows, heir = model_by_job(store, project), None
    time.sleep(0.002)
    first = store.withdraw(project.id, JANE, **WHY)
    time.sleep(0.002)
    fresh, heir = model_by_job(store, project), model_by_job(store, project, parent_id=knows.id)
    time.sleep(0.002)
    assert store.standing_trace(project.id).models == {knows.id, heir.id} and early.id < knows.id
    store.revoke_withdrawal(first.id, person="ann", reason="taken back again")
    time.sleep(0.002)
    late = model_by_job(store, project)
    time.sleep(0.002)
    assert store.standing_trace(project.id).models == frozenset()
    store.withdraw(project.id, JANE, **WHY)
    assert store.standing_trace(project.id).models == {knows.id, heir.id, late.id} and fresh.id not in {knows.id, late.id}


def test_a_validation_patient_ties_no_model(store: Store) -> None:
    project = make_project(store)
    model_by_job(store, project)
    store.withdraw(project.id, "val patient", **WHY)
    assert store.standing_trace(project.id).models == frozenset()


def aligned(store: Store, project: Project, model: Model, pairs: list[Any], parent_id: int | None = None) -> int:
    pair_set = store.freeze_pairs(project.id, pairs, {}, actor="ann")
    job, _ = store.add_job("align", {"pair_set_id": pair_set.id}, project_id=project.id, actor="ann", request_id=new_request())
    store.cancel_job(job.id, actor="ann")
    return store.add_adapter(project.id, model_id=model.id, parent_id=parent_id, file=store.files.put(b"a"), scale=1.0, config={},
                             metrics={}, actor="ann", job_id=job.id).id  # fmt: skip


def test_samples_and_exports_are_tied_by_what_they_hold(store: Store, tmp_path: Path) -> None:
    project = full_project(store)
    jane = of_jane(store, project)
    under_mask, free = store.samples(project.id)[0], store.samples(project.id)[8]
    record = store.label_map(store.images(project.id)[4].label_map_id or 0)  # somebody else's
    engine = store.active_model(project.id, "engine")
    assert engine is not None

    def made(seed: int, **more: Any) -> Sample:
        values = {"settings": {}, "adapter_id": None, "model_id": engine.id} | more
        return store.add_sample(project.id, label_map_id=record.id, label_map_rev=1, label_map_blob=record.blob, seed=seed,
                                blob=store.blobs.put_image(image(seed)), engine="compact", purpose="pool", **values)  # fmt: skip

    looks = made(700, settings={"references": [{"class_index": 1, "image_id": jane[0]}]})
    pixels = made(701, source_blob=store.image(jane[0]).blob, is_composite=True, settings={"inpaint": {"image_id": jane[0]}})
    again = made(702, source_blob=pixels.blob, is_composite=True, settings={"inpaint": {"image_id": jane[0]}})
    exported = store.add_export(project.id, format="voc", path="x", manifest_sha256="0", num_items=3, actor="ann", items=[
        ExportItem("real-000001", "real", store.image(jane[0]).blob), ExportItem("composite-1", "composite", again.blob),
        ExportItem("synthetic-1", "synthetic", under_mask.blob), ExportItem("synthetic-2", "synthetic", free.blob)])  # fmt: skip
    store.withdraw(project.id, JANE, **WHY)
    trace = store.standing_trace(project.id)
    assert (trace.samples[looks.id], trace.samples[pixels.id], trace.samples[again.id]) == ("look", "pixels", "pixels")
    assert trace.samples[under_mask.id] == "mask" and free.id not in trace.samples
    assert trace.exports == {exported.id: {"real": 1, "pixels": 1, "mask": 1}} == {exported.id: store.withdrawn_in(exported.id)}
    told = report(store, project, JANE)
    assert told["samples"] == {"pixels": 2, "mask": 3, "look": 1} and "DOE" not in json.dumps(told)
    held = "Export 1 holds 1 image of theirs, 1 image that holds pixels of theirs, 1 image made under a mask of theirs: "
    assert any(words.startswith(held) for words in told["sentences"])


def test_the_next_export_leaves_out_all_that_is_theirs(store: Store, tmp_path: Path) -> None:
    project = full_project(store)
    store.withdraw(project.id, JANE, **WHY)
    ended = export(store, project, tmp_path / "out", format="folders")
    left_out = ended.result["left_out"]
    assert left_out["real, of a patient who has withdrawn"] == 2
    assert left_out["synthetic, label map of a patient who has withdrawn"] == 2
    groups = {json.loads(line)["group"] for line in (tmp_path / "out" / "items.jsonl").read_text().splitlines()}
    assert "group-000001" not in groups and store.withdrawn_in(ended.result["export_id"]) == {}


def tied_project(store: Store) -> tuple[Project, int]:
    """All accepted images of other patients, made by an adapter that learnt when Jane was there."""
    project = make_project(store)
    model = model_by_job(store, project)
    adapter = aligned(store, project, model, [])
    store.accept_adapter(adapter, project_id=project.id, actor="ann")
    record = drawing(store, project, label_map(3, size_px=40))
    add_sample(store, project, record, 50)
    return project, adapter


def test_images_of_a_tied_version_want_a_reason(store: Store, tmp_path: Path) -> None:
    project, adapter = tied_project(store)
    store.withdraw(project.id, JANE, **WHY)
    assert store.standing_trace(project.id).adapters == {adapter}
    refused = export(store, project, tmp_path / "out", format="folders")
    assert refused.state == "failed" and "may have learnt from a patient who has withdrawn" in (refused.error or "")
    assert "--despite-withdrawn" in (refused.error or "")
    with pytest.raises(BadInputError, match="despite_withdrawn: string should have at least 8 characters"):
        orders.order(orders.ExportOrder, project_id=project.id, format="folders", despite_withdrawn="ok")
    done = export(store, project, tmp_path / "next", format="folders", despite_withdrawn="for the ethics board alone")
    assert done.state == "done" and store.withdrawn_in(done.result["export_id"]) == {"version": 1}
    [row] = [row for row in store.audit_rows() if row.action == "export"]
    assert row.details["despite_withdrawn"] == "for the ethics board alone"


def test_a_reason_answers_for_those_who_had_withdrawn_by_then(store: Store, tmp_path: Path) -> None:
    project, _ = tied_project(store)
    store.withdraw(project.id, JANE, **WHY)
    export_id = export(store, project, tmp_path / "out", format="folders", include_real=False,
                       despite_withdrawn="for the ethics board alone").result["export_id"]  # fmt: skip
    store.refuse_withdrawn(export_id)
    other = next(image.group_id for image in store.images(project.id, splits=["train"]) if image.group_id != JANE)
    record = store.withdraw(project.id, other, **WHY)
    with pytest.raises(BadInputError, match=f"1 images of export {export_id} were made by a version that may have learnt"):
        store.refuse_withdrawn(export_id)
    audit = clean_audit(store, project, export_id)
    store.release(export_id, disclosure_id=audit, person="ann", reason="both are told of it", despite=True)
    store.refuse_withdrawn(export_id)  # a signature answers for both, by an audit that knew of both
    store.revoke_withdrawal(record.id, person="ann", reason="it was somebody else")
    store.withdraw(project.id, other, **WHY)
    with pytest.raises(BadInputError, match="may have learnt"):
        store.refuse_withdrawn(export_id)


def clean_audit(store: Store, project: Project, export_id: int) -> int:
    findings = {"verdict": "nothing found", "reasons": [], "open_questions": [], "flagged": [], "looked_at": [],
                "texts": {"num_looked": 0, "found": [], "held": [], "reason": None},
                "earlier_exports": [one.id for one in store.earlier_exports(store.export(export_id))]}  # fmt: skip
    return store.add_disclosure(project.id, export_id=export_id, findings=findings, actor="ann").id


def test_an_export_from_before_is_not_released_any_more(store: Store, tmp_path: Path) -> None:
    project = full_project(store)
    export_id = export(store, project, tmp_path / "out", format="folders").result["export_id"]
    audit = clean_audit(store, project, export_id)
    record = store.withdraw(project.id, JANE, **WHY)
    for despite in (False, True):
        with pytest.raises(BadInputError, match="4 images of export 1 hold data of a patient who has withdrawn; export again"):
            store.release(export_id, disclosure_id=audit, person="ann", reason="for the partner", despite=despite)
    store.revoke_withdrawal(record.id, person="ann", reason="it was somebody else")
    assert store.release(export_id, disclosure_id=audit, person="ann", reason="for the partner").person == "ann"
    store.withdraw(project.id, JANE, **WHY)  # what is signed stays signed
    assert store.release(export_id, disclosure_id=audit, person="bob", reason="a second click").person == "ann"


def test_images_of_a_tied_version_are_released_only_despite_it(store: Store, tmp_path: Path) -> None:
    project, _ = tied_project(store)
    export_id = export(store, project, tmp_path / "out", format="folders", include_real=False).result["export_id"]
    audit = clean_audit(store, project, export_id)
    store.withdraw(project.id, JANE, **WHY)
    with pytest.raises(BadInputError, match="has withdrawn since export 1 was audited; audit it again"):  # nobody has read it
        store.release(export_id, disclosure_id=audit, person="ann", reason="for the partner", despite=True)
    audit = clean_audit(store, project, export_id)
    with pytest.raises(BadInputError, match="1 images of export 1 were made by a version that may have learnt"):
        store.release(export_id, disclosure_id=audit, person="ann", reason="for the partner")
    assert store.release(export_id, disclosure_id=audit, person="ann", reason="for the partner", despite=True)


def test_nothing_new_is_made_with_their_masks_or_pixels(store: Store) -> None:
    project = full_project(store)
    first = store.images(project.id)[0]
    over = store.add_label_map(project.id, blob=store.blobs.put_label_map(label_map(9)), name="over", author="ann",
                               request_id="over", origin="drawn", underlay_id=first.id)  # fmt: skip
    store.withdraw(project.id, JANE, **WHY)
    for number in (first.label_map_id, over.id):
        with pytest.raises(BadInputError, match=f"label map {number} is of a patient who has withdrawn"):
            orders.GenerateOrder(project_id=project.id, label_map_ids=(number,)).check(store)
        with pytest.raises(BadInputError, match=f"label map {number} is of a patient who has withdrawn"):
            orders.SuggestMasksOrder(project_id=project.id, label_map_id=number).check(store)
    jane = set(of_jane(store, project))
    drawn = orders.GenerateOrder(project_id=project.id, count=40).drawn(store)
    assert not jane & {store.label_map(number).image_id for number in drawn}
    with pytest.raises(BadInputError, match="whose patient has withdrawn; choose another picture"):
        part = orders.Inpaint(source=orders.PictureChoice(image_id=first.id), class_index=1)
        other = store.images(project.id)[2].label_map_id
        orders.GenerateOrder(project_id=project.id, label_map_ids=(other,), inpaint=part).check(store)


def test_their_masks_are_drawn_from_no_more(store: Store) -> None:
    project = make_project(store)
    both = bases(store, project.id)
    old = store.add_mask_model(project.id, architecture={}, file=store.files.put(b"m"), bases=both, metrics={}, actor="ann")
    store.withdraw(project.id, JANE, **WHY)
    assert store.newest_mask_model(project.id) is None and store.standing_trace(project.id).mask_models == {old.id}
    with pytest.raises(BadInputError, match=f"mask generator {old.id} draws from masks of a patient who has withdrawn"):
        orders.SuggestMasksOrder(project_id=project.id, model_id=old.id).check(store)
    new = store.add_mask_model(project.id, architecture={}, file=store.files.put(b"n"), bases=bases(store, project.id),
                               metrics={}, actor="ann")  # fmt: skip
    assert store.newest_mask_model(project.id) == new


def test_pairs_under_their_masks_are_not_learnt_from(store: Store) -> None:
    project = full_project(store)
    held, _ = store.held_out_label_maps(project.id)
    store.withdraw(project.id, JANE, **WHY)
    now_held, blobs = store.held_out_label_maps(project.id)
    maps = {store.image(number).label_map_id for number in of_jane(store, project)}
    assert now_held == held | maps and {store.label_map(number or 0).blob for number in maps} <= blobs


def test_a_frozen_set_of_pairs_with_their_images_is_refused(store: Store) -> None:
    from saadi.records import Pair

    project = full_project(store)
    samples = store.samples(project.id)
    pair = Pair(samples[0].label_map_blob, store.images(project.id)[0].blob, samples[0].blob, "real", 1.0, 0.5)
    other = Pair(samples[2].label_map_blob, samples[2].blob, samples[3].blob, "vote", 1.0, 0.5)
    sets = [store.freeze_pairs(project.id, pairs, {}, actor="ann") for pairs in ([pair, other], [other])]
    store.withdraw(project.id, JANE, **WHY)
    with pytest.raises(BadInputError, match="among the pairs of this alignment are images of a patient who has withdrawn"):
        orders.AlignOrder(project_id=project.id, pair_set_id=sets[0].id).check(store)
    with pytest.raises(TooFewError, match="1 usable pairs"):
        orders.AlignOrder(project_id=project.id, pair_set_id=sets[1].id).check(store)


def test_the_same_pixels_elsewhere_are_named(store: Store) -> None:
    project = make_project(store)
    other = store.create_project("other", task="segmentation", classes=project.classes, resolution=16, actor="ann")
    store.add_image(other.id, blob=store.images(project.id)[0].blob, size=(24, 24), group_id="x", split="train", label=None,
                    source_name="x", label_map_blob=None, actor="ann")  # fmt: skip
    assert report(store, project, JANE)["projects"] == ["other"]
    assert report(store, project, "ROE_RICHARD")["projects"] == []


def test_an_import_refuses_more_of_them(store: Store, tmp_path: Path) -> None:
    import cv2

    from saadi.datasets import folder

    project = make_project(store)
    store.withdraw(project.id, JANE, **WHY)
    images = tmp_path / "images"
    images.mkdir()
    for name in (f"{JANE}-9", "NEW_ONE-1"):
        cv2.imwrite(str(images / f"{name}.png"), np.full((24, 24, 3), len(name), np.uint8))
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in (f"{JANE}-9", "NEW_ONE-1"):
        cv2.imwrite(str(masks / f"{name}.png"), label_map(1))
    found = folder.scan(images, masks, group_pattern=r"^([A-Z_]+)-")
    made = folder.import_folder(store, project, found, values={0: 0, 1: 1, 2: 2}, actor="ann")
    assert made.num_added == 1 and [problem.reason for problem in made.refused] == [folder.WITHDRAWN]


def test_an_old_folder_gets_the_column(home: Home) -> None:
    home.path.mkdir()
    db = connect(home.database)
    schema.apply(db, stop_before="m015_texts_and_withdrawals")
    db.execute("INSERT INTO projects (name, task, classes, resolution, created_at) VALUES ('old', 'segmentation', '[]', 64, 'x')")
    db.execute("INSERT INTO images (project_id, blob, width, height, group_id, split, source_name, created_at) VALUES "
               "(1, ?, 4, 4, 'p', 'val', 'a', '2026-01-01')", ["a" * 64])
    db.conn.close()
    with Store.open(home) as store:
        assert store.image(1).withdrawn_from is None
        store.withdraw(1, "p", **WHY)
        assert (store.image(1).split, store.image(1).withdrawn_from) == ("none", "val")
        assert store.texts(["a" * 64]) == {}


def test_a_tied_version_leaves_only_with_a_reason(store: Store, tmp_path: Path) -> None:
    from saadi.exports.adapters import export_adapter

    project, adapter_id = tied_project(store)
    store.withdraw(project.id, JANE, **WHY)
    common: dict[str, Any] = {"format": "peft", "actor": "ann", "out_dir": tmp_path / "out"}
    with pytest.raises(BadInputError, match="may have learnt from a patient who has withdrawn; align again without them"):
        export_adapter(store, store.adapter(adapter_id), **common)
    with pytest.raises(BadInputError, match="wants a reason of 8 characters"):
        export_adapter(store, store.adapter(adapter_id), **common, despite_withdrawn="ok")
    assert not (tmp_path / "out").exists()


def test_a_copy_of_theirs_stays_a_copy_when_no_audit_compares_with_them(store: Store) -> None:
    project = full_project(store)
    jane, other = store.images(project.id)[0], store.images(project.id)[2]
    blobs = [sample.blob for sample in store.samples(project.id)[8:10]]

    def audited(flagged: dict[str, int]) -> None:
        store.add_disclosure(project.id, export_id=None, actor="ann", findings={
            "verdict": "fails", "looked_at": blobs, "flagged": [{"blob": blob, "image_id": number}
                                                                for blob, number in flagged.items()]})  # fmt: skip

    audited({blobs[0]: jane.id, blobs[1]: other.id})
    record = store.withdraw(project.id, JANE, **WHY)
    audited({})
    assert store.flagged_blobs(project.id) == {blobs[0]: jane.id}
    store.revoke_withdrawal(record.id, person="ann", reason="it was somebody else")
    assert store.flagged_blobs(project.id) == {}


def add_jane(store: Store, project: Project, seed: int = 77, group: str = JANE) -> int:
    added = store.add_image(project.id, blob=store.blobs.put_image(image(seed)), size=(24, 24), group_id=group, split="train",
                            label=None, source_name="x", label_map_blob=None, actor="ann")  # fmt: skip
    time.sleep(0.002)
    assert added is not None
    return added.id


def test_images_that_come_after_the_withdrawal_are_out_too(store: Store) -> None:
    project = make_project(store)
    record = store.withdraw(project.id, JANE, **WHY)
    late = store.image(add_jane(store, project))
    assert (late.split, late.withdrawn_from) == ("none", "train")
    # As an import of an earlier program left it.
    store.db.execute("UPDATE images SET split = 'train', withdrawn_from = NULL WHERE id = ?", [late.id])
    store.db.conn.commit()
    assert store.withdraw(project.id, JANE, **WHY) == record
    assert (store.image(late.id).split, store.image(late.id).withdrawn_from) == ("none", "train")
    store.revoke_withdrawal(record.id, person="ann", reason="it was somebody else")
    assert store.image(late.id).split == "train" and store.image(add_jane(store, project, 78)).split == "train"


def test_ties_are_handed_on_to_what_is_painted_into_or_like_a_tied_image(store: Store) -> None:
    project = full_project(store)
    jane = of_jane(store, project)
    record = store.label_map(store.images(project.id)[4].label_map_id or 0)
    model, engine = model_by_job(store, project), store.active_model(project.id, "engine")
    free = store.add_model(project.id, kind="engine", architecture={}, file=store.files.put(b"w"), metrics={}, actor="ann")
    adapter = aligned(store, project, model, [])
    shift = store.add_noise_shift(project.id, model_id=model.id, adapter_id=None, selector_id=free.id, architecture={},
                                  file=store.files.put(b"n"), metrics={}, actor="ann").id  # fmt: skip
    assert engine is not None

    def made(seed: int, model_id: int = free.id, **more: Any) -> Sample:
        values = {"settings": {}, "adapter_id": None} | more
        return store.add_sample(project.id, label_map_id=record.id, label_map_rev=1, label_map_blob=record.blob, seed=seed,
                                blob=store.blobs.put_image(image(seed)), engine="compact", purpose="pool", model_id=model_id,
                                **values)  # fmt: skip

    def like(sample: Sample) -> dict[str, Any]:
        return {"references": [{"class_index": 1, "sample_id": sample.id, "blob": sample.blob}]}

    look = made(700, settings={"references": [{"class_index": 1, "image_id": jane[0]}]})
    version = made(701, model.id)
    wanted = {"look": [made(710, source_blob=look.blob), made(711, settings=like(look))],
              "version": [made(720, source_blob=version.blob), made(721, settings=like(version)),
                          made(722, settings={"noise_shift_id": shift}),
                          made(723, settings={"negative": {"adapter_id": adapter, "weight": 1.0}})]}  # fmt: skip
    wanted["look"].append(made(730, source_blob=wanted["look"][0].blob))
    wanted["version"].append(made(731, settings=like(wanted["version"][2])))
    clean = [made(740), made(741, settings=like(store.samples(project.id)[8]))]
    store.withdraw(project.id, JANE, **WHY)
    found = store.standing_trace(project.id).samples
    for tie, samples in wanted.items():
        assert [found.get(sample.id) for sample in samples] == [tie] * len(samples)
    assert not found.keys() & {sample.id for sample in clean}


def test_a_job_that_crosses_a_withdrawal_may_have_learnt(store: Store) -> None:
    project = make_project(store)
    job, _ = store.add_job("fit", {}, project_id=project.id, actor="ann", request_id=new_request())
    time.sleep(0.002)
    add_jane(store, project, group="new patient")  # it waited, or ran, while they came
    claimed = store.claim_job("one")
    assert claimed is not None
    store.withdraw(project.id, "new patient", **WHY)
    store.release_job(claimed)
    time.sleep(0.002)
    store.claim_job("two")
    model = store.add_model(project.id, kind="engine", architecture={}, file=store.files.put(b"f"), metrics={}, actor="ann",
                            job_id=job.id)  # fmt: skip
    assert store.standing_trace(project.id).models == {model.id}


def test_an_alignment_that_goes_on_with_another_has_its_beginning(store: Store) -> None:
    project = full_project(store)
    engine = store.active_model(project.id, "engine")
    assert engine is not None
    first, _ = store.add_job("align", {"continues": None}, project_id=project.id, actor="ann", request_id=new_request())
    time.sleep(0.002)
    store.withdraw(project.id, JANE, **WHY)
    time.sleep(0.002)
    adapters = []
    for before in (first.id, None):
        job, _ = store.add_job("align", {"continues": before}, project_id=project.id, actor="ann", request_id=new_request())
        adapters.append(store.add_adapter(project.id, model_id=engine.id, parent_id=None, file=store.files.put(b"a"), scale=1.0,
                                          config={}, metrics={}, actor="ann", job_id=job.id).id)  # fmt: skip
    assert store.standing_trace(project.id).adapters == {adapters[0]}


def test_the_withdrawal_of_one_patient_hides_no_other(store: Store) -> None:
    project = make_project(store)
    time.sleep(0.002)
    store.withdraw(project.id, JANE, **WHY)
    time.sleep(0.002)
    model = model_by_job(store, project)
    assert store.standing_trace(project.id).models == frozenset()
    store.withdraw(project.id, "ROE_RICHARD", **WHY)
    assert store.standing_trace(project.id).models == {model.id}


def test_images_under_masks_that_a_tied_mask_generator_drew_are_tied(store: Store) -> None:
    project = make_project(store)
    old = store.add_mask_model(project.id, architecture={}, file=store.files.put(b"m"), bases=bases(store, project.id),
                               metrics={}, actor="ann")  # fmt: skip
    others = [store.label_map(one.label_map_id or 0).blob for one in store.images(project.id) if one.group_id == "ROE_RICHARD"]
    new = store.add_mask_model(project.id, architecture={}, file=store.files.put(b"n"), bases=others, metrics={}, actor="ann")
    samples = {}
    for seed, (kind, model) in enumerate((kind, model) for kind in ("suggest_masks", "mine") for model in (old, new)):
        params = {"spares": [{"mask_model_id": model.id}]} if kind == "mine" else {}
        job, _ = store.add_job(kind, params, project_id=project.id, actor="ann", request_id=new_request())
        claimed = store.claim_job("one")
        assert claimed is not None
        name = "mined" if kind == "mine" else "suggested"
        record = store.add_label_map(project.id, blob=store.blobs.put_label_map(label_map(seed, size_px=32 + seed)), name="x",
                                     author="ann", request_id=f"{name}-{job.id}-{seed}", origin="sampled")  # fmt: skip
        result = {"mask_model_id": model.id} if kind == "suggest_masks" else {}
        store.finish_job(claimed, state="done", message="x", result=result)
        samples[kind, model.id] = add_sample(store, project, record, 300 + seed).id
    store.withdraw(project.id, JANE, **WHY)
    found = store.standing_trace(project.id).samples
    assert {key: found.get(number) for key, number in samples.items()} == {
        (kind, model.id): tie for kind in ("suggest_masks", "mine") for model, tie in ((old, "version"), (new, None))}


def test_a_trace_is_worked_out_once_until_somebody_writes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    project = full_project(store)
    store.withdraw(project.id, JANE, **WHY)
    first = store.standing_trace(project.id)
    assert store.standing_trace(project.id) is first
    with Store.open(store.home) as other:  # the worker, or another request
        add_sample(other, project, other.images(project.id)[0], 91)
    second = store.standing_trace(project.id)
    assert len(second.samples) == len(first.samples) + 1
    add_sample(store, project, store.images(project.id)[0], 92)
    third = store.standing_trace(project.id)
    assert len(third.samples) == len(second.samples) + 1
    with pytest.raises(RuntimeError), store.write():
        add_sample(store, project, store.images(project.id)[0], 93)
        assert len(store.standing_trace(project.id).samples) == len(third.samples) + 1
        raise RuntimeError
    assert len(store.standing_trace(project.id).samples) == len(third.samples)


def test_nobody_signs_for_an_export_of_which_nobody_knows_what_was_in_it(store: Store) -> None:
    project = make_project(store)
    old = store.add_export(project.id, format="voc", path="x", manifest_sha256="0", num_items=3, actor="ann")
    audit = clean_audit(store, project, old.id)
    record = store.withdraw(project.id, JANE, **WHY)
    with pytest.raises(BadInputError, match="nobody knows what was in export 1, which is older than the ledger"):
        store.release(old.id, disclosure_id=audit, person="ann", reason="for the partner", despite=True)
    store.revoke_withdrawal(record.id, person="ann", reason="it was somebody else")
    assert store.release(old.id, disclosure_id=audit, person="ann", reason="for the partner").disclosure_id == audit


def test_an_audit_that_did_not_look_for_text_is_run_again(store: Store) -> None:
    project = make_project(store)
    old = store.add_export(project.id, format="voc", path="x", manifest_sha256="0", num_items=0, actor="ann")
    findings = {"verdict": "nothing found", "reasons": [], "open_questions": [], "flagged": [], "looked_at": [],
                "earlier_exports": []}  # fmt: skip
    number = store.add_disclosure(project.id, export_id=old.id, findings=findings, actor="ann").id
    with pytest.raises(BadInputError, match="did not look for text in pictures; audit it again"):
        store.release(old.id, disclosure_id=number, person="ann", reason="for the partner", despite=True)


def test_who_withdraws_while_an_export_is_written_is_not_in_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saadi.exports import recipe

    project, moved = full_project(store), recipe._move_into_place

    def meanwhile(context: Any, *rest: Any) -> None:
        moved(context, *rest)
        with Store.open(store.home) as other:
            other.withdraw(project.id, JANE, **WHY)

    monkeypatch.setattr(recipe, "_move_into_place", meanwhile)
    ended = export(store, project, tmp_path / "out", format="folders")
    assert ended.state == "failed" and "hold data of a patient who has withdrawn; export again" in (ended.error or "")
    assert not (tmp_path / "out").exists() and not store.exports(project.id)
    monkeypatch.setattr(recipe, "_move_into_place", moved)
    assert export(store, project, tmp_path / "out", format="folders").state == "done"


def test_a_name_that_means_two_patients_is_asked_about(store: Store, project: Project) -> None:
    for number, group in enumerate(("somebody", "group-000001")):
        add_jane(store, project, number, group)
    with pytest.raises(BadInputError, match="write real-000002, an image of the first, or real-000001, one of the other"):
        patient_of(store, project, "group-000001")
    assert patient_of(store, project, "real-000001") == "somebody"
    assert patient_of(store, project, "real-000002") == "group-000001"
