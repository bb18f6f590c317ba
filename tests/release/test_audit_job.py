"""The audit as a job, the ledger over several exports, the gate before the next export, and the signature."""

from __future__ import annotations

import hashlib
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from saadi import orders
from saadi.datasets.phantom import render
from saadi.errors import BadInputError, NotFoundError, TooFewError
from saadi.exports import recipe
from saadi.jobs import run_job
from saadi.privacy import burnt_in, verifier
from saadi.records import Disclosure, ExportRecord, Image, Job, LabelClass, Project, Split
from saadi.release import job as release_job
from saadi.release.report import html, lines, measures
from saadi.store import Store
from saadi.store.releases import ExportItem
from tests.exports.builders import add_sample, drawing

SIDE = 64
CLASSES = tuple(LabelClass(index, f"class {index}", "#000000") for index in range(7))
NUM_TRAINED, NUM_HELD_OUT = 52, 40


_fitted: dict[tuple[tuple[str, ...], int], tuple[verifier.Verifier, dict[str, Any]]] = {}
"""Most tests have the same training images."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps, once for the same images, no generator to be asked what it remembers, and no text to be looked for."""
    monkeypatch.setattr(burnt_in, "find_text", lambda image: [])
    fit = verifier.fit

    def once(images: list[Image], groups: list[str], **more: Any) -> tuple[verifier.Verifier, dict[str, Any]]:
        key = (tuple(groups), hash(b"".join(image.tobytes() for image in images)))
        if key not in _fitted:
            _fitted[key] = fit(images, groups, **{**more, "steps": 60})
        return _fitted[key]

    monkeypatch.setattr(verifier, "fit", once)
    monkeypatch.setattr(release_job, "membership", lambda *args: None)


@cache
def picture(patient: int) -> Image:
    return render(1000 * patient, patient=patient, size_px=SIDE).image


@pytest.fixture
def scenes(store: Store) -> Project:
    """Training and held-out patients with an image each."""
    project = store.create_project("scenes", task="segmentation", classes=CLASSES, resolution=SIDE, actor="ann")
    blank = store.blobs.put_label_map(np.ones((SIDE, SIDE), np.uint8))
    for patient in range(NUM_TRAINED + NUM_HELD_OUT):
        split: Split = "train" if patient < NUM_TRAINED else "val"
        added = store.add_image(project.id, blob=store.blobs.put_image(picture(patient)), size=(SIDE, SIDE),
                                group_id=f"patient {patient}", split=split, label=None, source_name=f"{patient}.png",
                                label_map_blob=blank, actor="ann")  # fmt: skip
        assert added is not None
    return project


def accept(store: Store, project: Project, pictures: list[Image], first_seed: int = 0) -> None:
    record = drawing(store, project, np.full((SIDE, SIDE), 2, np.uint8))
    for number, pixels in enumerate(pictures):
        add_sample(store, project, record, first_seed + number, pixels=pixels)


def run(store: Store, wanted: orders.Order) -> Job:
    job, _ = orders.place(store, wanted, actor="ann")
    claimed = store.claim_job(f"worker-{job.id}")
    assert claimed is not None
    run_job(store, claimed, {"export": recipe.run_job, "audit": release_job.run_job})
    return store.job(job.id)


def exported(store: Store, project: Project, out: Path, **values: Any) -> int:
    wanted = orders.ExportOrder(project_id=project.id, out_dir=str(out), **{"format": "folders", "include_real": False, **values})
    ended = run(store, wanted)
    assert ended.state == "done", ended.error
    return int(ended.result["export_id"])


def audited(store: Store, project: Project, export_id: int | None = None, **values: Any) -> Disclosure:
    ended = run(store, orders.AuditOrder(project_id=project.id, export_id=export_id, **values))
    assert ended.state == "done", (ended.error, store.job_traceback(ended.id))
    return store.disclosure(ended.result["disclosure_id"])


FRESH = [200 + number for number in range(60)]


def test_fresh_images_may_go_and_the_signature_is_kept(store: Store, scenes: Project, tmp_path: Path) -> None:
    accept(store, scenes, [picture(patient) for patient in FRESH])
    export_id = exported(store, scenes, tmp_path / "out")
    with pytest.raises(BadInputError, match=r"nobody has looked yet at what export 1 reveals"):
        store.release(export_id, disclosure_id=1, person="ann", reason="for the partner hospital")
    found = audited(store, scenes, export_id)
    if found.findings["flagged"]:  # by chance: they stay out of the next one, and this one is deleted
        shutil.rmtree(tmp_path / "out")
        store.never_left(export_id, person="ann", reason="flagged by chance")
        export_id = exported(store, scenes, tmp_path / "out")
        found = audited(store, scenes, export_id)
    assert found.findings["verdict"] == "nothing found", found.findings["open_questions"]
    assert found.findings["own"]["num_items"] >= 56 and found.findings["union"] is None
    assert found.findings["own"]["copies"]["planted_found"] >= 0.9
    assert "no attack found anything" in store.job(found.job_id or 0).message
    with pytest.raises(BadInputError, match="wants a reason of 8 characters"):
        store.release(export_id, disclosure_id=found.id, person="ann", reason="  ok ")
    with pytest.raises(BadInputError, match="has been audited again since"):
        store.release(export_id, disclosure_id=found.id + 1, person="ann", reason="for the partner hospital")
    made = store.release(export_id, disclosure_id=found.id, person="ann", reason="for the partner hospital")
    again = store.release(export_id, disclosure_id=9, person="bob", reason="a second click")
    assert again == made == store.releases(scenes.id)[-1]
    [row] = [row for row in store.audit_rows() if row.action == "export.release"]
    assert row.actor == "ann" and "partner hospital" in str(row.details) and store.first_broken_audit_row() is None
    with pytest.raises(Exception, match="append-only"), store.write() as db:
        db.execute("DELETE FROM releases")


def test_copies_fail_and_are_left_out_of_the_next_export(store: Store, scenes: Project, tmp_path: Path) -> None:
    copies = [np.ascontiguousarray(picture(patient)[:, ::-1]) for patient in range(5)]
    coded = cv2.imencode(".jpg", picture(5), [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    copies.append(np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8))
    accept(store, scenes, copies + [picture(patient) for patient in FRESH])
    export_id = exported(store, scenes, tmp_path / "out")
    found = audited(store, scenes, export_id)
    flagged = {one["blob"]: one["image_id"] for one in found.findings["flagged"]}
    images = {image.id: image.group_id for image in store.images(scenes.id)}
    planted = [store.blobs.put_image(pixels) for pixels in copies]
    assert set(planted) <= set(flagged) and [images[flagged[blob]] for blob in planted] == [f"patient {n}" for n in range(6)]
    assert found.findings["verdict"] == "fails" and len(flagged) <= 11
    with pytest.raises(BadInputError, match="the audit of export 1 says: fails"):
        store.release(export_id, disclosure_id=found.id, person="ann", reason="for the partner hospital")
    store.release(export_id, disclosure_id=found.id, person="ann", reason="they are their own patients", despite=True)
    second = exported(store, scenes, tmp_path / "next")
    assert not set(flagged) & {item.blob for item in store.export_items(second)}
    manifest = json.loads((tmp_path / "next" / "manifest.json").read_text())
    assert manifest["left_out"]["synthetic, held for a copy of a training image by an audit"] == len(flagged)


def test_a_second_export_of_the_same_patients_is_measured_with_the_first(store: Store, scenes: Project, tmp_path: Path) -> None:
    copies = [picture(patient) for patient in range(20)]
    accept(store, scenes, [np.clip(pixels.astype(int) + 9, 0, 255).astype(np.uint8) for pixels in copies])
    first = exported(store, scenes, tmp_path / "out")
    with store.write():
        store.curate([sample.id for sample in store.samples(scenes.id)], "rejected", actor="ann")
    accept(store, scenes, [picture(patient) for patient in FRESH], first_seed=100)
    second = exported(store, scenes, tmp_path / "next")
    found = audited(store, scenes, second).findings
    assert found["earlier_exports"] == [first] and found["union"]["num_items"] == 80 and found["own"]["num_items"] == 60
    assert found["verdict"] == "fails" and all("with the exports before it" in reason for reason in found["reasons"])
    assert found["own"]["reasons"] == [] and found["union"]["verdict"] == "fails"
    assert not any("with the exports before it" in words and "export again" in words for words in found["open_questions"])


def test_another_project_with_the_same_images_shares_the_ledger(store: Store, scenes: Project, tmp_path: Path) -> None:
    accept(store, scenes, [picture(patient) for patient in FRESH])
    first = exported(store, scenes, tmp_path / "out")
    other = store.create_project("other", task="segmentation", classes=CLASSES, resolution=SIDE, actor="ann")
    stranger = store.create_project("stranger", task="segmentation", classes=CLASSES, resolution=SIDE, actor="ann")
    store.add_image(other.id, blob=store.images(scenes.id)[0].blob, size=(SIDE, SIDE), group_id="x", split="train", label=None,
                    source_name="x.png", label_map_blob=None, actor="ann")  # fmt: skip
    records = [store.add_export(one.id, format="voc", path=str(tmp_path / "out"), manifest_sha256="0", num_items=1, actor="ann")
               for one in (other, stranger)]  # fmt: skip
    assert [one.id for one in store.earlier_exports(records[0])] == [first] and store.earlier_exports(records[1]) == []


def test_neither_a_later_release_nor_a_moved_folder_is_forgotten(store: Store, scenes: Project, tmp_path: Path) -> None:
    def made(name: str) -> ExportRecord:
        return store.add_export(scenes.id, format="voc", path=str(tmp_path / name), manifest_sha256=name, num_items=1,
                                actor="ann")  # fmt: skip

    first, second, third = made("a"), made("b"), made("c")
    assert [one.id for one in store.earlier_exports(first)] == []
    findings = {"verdict": "nothing found", "earlier_exports": [first.id], "flagged": [], "looked_at": [], "texts": {}}
    signed = store.add_disclosure(scenes.id, export_id=second.id, findings=findings, actor="ann")
    store.release(second.id, disclosure_id=signed.id, person="ann", reason="for the partner")
    assert [one.id for one in store.earlier_exports(first)] == [second.id]  # although it was made later
    assert [one.id for one in store.earlier_exports(third)] == [first.id, second.id]  # although their folders are gone
    store.never_left(first.id, person="ann", reason="deleted at once")
    with pytest.raises(BadInputError, match="ann says that export 1 was deleted and never left"):
        store.release(first.id, disclosure_id=signed.id, person="bob", reason="for the partner")
    assert [one.id for one in store.earlier_exports(third)] == [second.id]
    with pytest.raises(BadInputError, match="was released by ann"):
        store.never_left(second.id, person="ann", reason="deleted at once")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "manifest.json").write_bytes(b"another export")
    last = store.add_export(scenes.id, format="voc", path=str(tmp_path / "c"), num_items=1, actor="ann",
                            manifest_sha256=hashlib.sha256(b"another export").hexdigest())  # fmt: skip
    with pytest.raises(BadInputError, match="is still in its folder 'c'"):
        store.never_left(last.id, person="ann", reason="deleted at once")
    store.never_left(third.id, person="ann", reason="overwritten by another")  # that is another one


def test_an_audit_that_misses_an_export_signs_nothing(store: Store, scenes: Project, tmp_path: Path) -> None:
    accept(store, scenes, [picture(patient) for patient in FRESH])
    first, second = exported(store, scenes, tmp_path / "a"), exported(store, scenes, tmp_path / "b")
    findings = {"verdict": "nothing found", "earlier_exports": [], "flagged": [], "looked_at": []}
    store.add_disclosure(scenes.id, export_id=second, findings=findings, actor="ann")
    with pytest.raises(BadInputError, match=f"export {first} shows the same patients and is not in this audit"):
        store.release(second, disclosure_id=1, person="ann", reason="for the partner hospital")


def test_real_images_and_composites_are_called_what_they_are(store: Store, scenes: Project, tmp_path: Path) -> None:
    accept(store, scenes, [picture(patient) for patient in FRESH[:10]])
    listed = store.add_export(scenes.id, format="voc", path="x", manifest_sha256="0", num_items=12, actor="ann", items=[
        *(ExportItem(f"synthetic-{sample.id}", "synthetic", sample.blob) for sample in store.samples(scenes.id)[:-1]),
        ExportItem("composite-1", "composite", store.images(scenes.id)[0].blob),
        ExportItem("real-1", "real", store.images(scenes.id)[1].blob)])  # fmt: skip
    found = audited(store, scenes, listed.id).findings
    assert found["verdict"] == "fails" and found["reasons"] == [
        "1 real images show their patients as they are", "1 composites hold pixels of real images"]  # fmt: skip
    assert found["kinds"] == {"real": 1, "composite": 1, "synthetic": 9} and found["own"]["num_items"] == 9
    assert store.images(scenes.id)[0].blob not in {one["blob"] for one in found["flagged"]}  # it is no copy by mistake


def test_the_report_says_what_was_tried_and_shows_no_name(store: Store, scenes: Project) -> None:
    accept(store, scenes, [picture(0)] * 1 + [picture(patient) for patient in FRESH])
    found = audited(store, scenes)
    page, told = html(store, scenes, found), "\n".join(lines(found.findings))
    for words in (page, told):
        lowered = words.lower()
        assert "anonym" not in lowered and "pso" not in lowered and "no proof" in lowered and "patient 0" not in lowered
        for line in measures(found.findings["own"]):
            assert line.name in words
    assert "<script" not in page and "http" not in page and "nearer is flagged" in page
    hostile = store.create_project("<script>alert(1)</script>", task="segmentation", classes=CLASSES, resolution=64, actor="ann")
    assert "<script" not in html(store, hostile, found)


def test_the_verifier_is_fitted_once_for_the_same_patients(
    store: Store, scenes: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(store, scenes, [picture(patient) for patient in FRESH])
    first = audited(store, scenes).findings
    monkeypatch.setattr(verifier, "fit", lambda *args, **more: pytest.fail("fitted again"))
    assert audited(store, scenes).findings["own"] == first["own"] and len(store.verifier_files(scenes.id)) == 1


def test_strangers_of_another_project_set_limits(store: Store, scenes: Project) -> None:
    accept(store, scenes, [picture(patient) for patient in FRESH])
    other = store.create_project("strangers", task="segmentation", classes=CLASSES, resolution=SIDE, actor="ann")
    for patient in range(300, 320):
        store.add_image(other.id, blob=store.blobs.put_image(picture(patient)), size=(SIDE, SIDE), group_id=str(patient),
                        split="none", label=None, source_name=f"{patient}.png", label_map_blob=None, actor="ann")  # fmt: skip
    alone, helped = audited(store, scenes).findings["own"], audited(store, scenes, strangers_id=other.id).findings["own"]
    assert alone["people_missing"] == 52 + 520 - 40 and helped["people_missing"] == 52 + 520 - 60


def test_refusals_name_a_way_out(store: Store, scenes: Project) -> None:
    with pytest.raises(TooFewError, match="no accepted images to look at"):
        orders.AuditOrder(project_id=scenes.id).check(store)
    with pytest.raises(NotFoundError, match="no export 7"):
        orders.AuditOrder(project_id=scenes.id, export_id=7).check(store)
    lonely = store.create_project("lonely", task="segmentation", classes=CLASSES, resolution=SIDE, actor="ann")
    with pytest.raises(TooFewError, match="0 training patients, 4 needed to tell patients apart"):
        orders.AuditOrder(project_id=lonely.id).check(store)
    accept(store, scenes, [picture(200)])
    with pytest.raises(BadInputError, match="strangers are patients of another project"):
        orders.AuditOrder(project_id=scenes.id, strangers_id=scenes.id).check(store)
    store.add_image(lonely.id, blob=store.images(scenes.id)[0].blob, size=(SIDE, SIDE), group_id="x", split="train", label=None,
                    source_name="x.png", label_map_blob=None, actor="ann")  # fmt: skip
    with pytest.raises(BadInputError, match="1 images of that project are in this one, too"):
        orders.AuditOrder(project_id=scenes.id, strangers_id=lonely.id).check(store)
    made = store.add_export(lonely.id, format="voc", path="x", manifest_sha256="0", num_items=1, actor="ann")
    with pytest.raises(BadInputError, match="belongs to another project"):
        orders.AuditOrder(project_id=scenes.id, export_id=made.id).check(store)


def test_what_nobody_knows_any_more_is_not_called_clean(store: Store, scenes: Project) -> None:
    old = store.add_export(scenes.id, format="voc", path="x", manifest_sha256="0", num_items=1, actor="ann")
    refused = run(store, orders.AuditOrder(project_id=scenes.id, export_id=old.id))
    assert refused.state == "failed" and "nobody knows any more what was in export 1" in (refused.error or "")
    blob = store.blobs.put_image(picture(200))
    new = store.add_export(scenes.id, format="voc", path="y", manifest_sha256="1", num_items=1, actor="ann",
                           items=[ExportItem("synthetic-1", "synthetic", blob)])  # fmt: skip
    found = audited(store, scenes, new.id).findings
    assert found["verdict"] == "nothing concluded" and "in export 1, whose folder is gone" in found["open_questions"][0]


def test_a_blind_audit_clears_no_flag(store: Store, scenes: Project) -> None:
    blob, image = store.blobs.put_image(picture(0)), store.images(scenes.id)[0]
    common: dict[str, Any] = {"verdict": "fails", "earlier_exports": []}
    sharp = common | {"flagged": [{"blob": blob, "image_id": image.id}], "looked_at": [blob]}
    store.add_disclosure(scenes.id, export_id=None, findings=sharp, actor="ann")
    store.add_disclosure(scenes.id, export_id=None, findings=common | {"flagged": [], "looked_at": []}, actor="ann")
    assert store.flagged_blobs(scenes.id) == {blob: image.id}
    store.add_disclosure(scenes.id, export_id=None, findings=common | {"flagged": [], "looked_at": [blob]}, actor="ann")
    assert store.flagged_blobs(scenes.id) == {}


def test_of_no_synthetic_image_nothing_is_said(store: Store, scenes: Project) -> None:
    made = store.add_export(scenes.id, format="voc", path="x", manifest_sha256="0", num_items=0, actor="ann")
    found = audited(store, scenes, made.id).findings
    assert found["verdict"] == "nothing concluded" and found["own"] is None
    assert lines(found)[0] == "Nothing can be concluded."
