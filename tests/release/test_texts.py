"""Text in pictures from the audit to the next export: found, held, called harmless by somebody, and never written down."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from saadi import orders
from saadi.cli import app
from saadi.config import Home
from saadi.errors import BadInputError, NotFoundError
from saadi.privacy import burnt_in
from saadi.records import Image, Project
from saadi.release import texts
from saadi.release.report import html, lines
from saadi.store import Store
from saadi.store.texts import with_texts
from tests.release.test_audit_job import FRESH, SIDE, accept, audited, exported, picture, quick, run, scenes  # noqa: F401
from ui.context import Context
from ui.server import build_app

needs_reader = pytest.mark.skipif(not burnt_in.is_available(), reason="rapidocr-onnxruntime has no release for this Python")


_FIND_TEXT = burnt_in.find_text


@pytest.fixture(autouse=True)
def reader(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Other tests of audits look for no text."""
    monkeypatch.setattr(burnt_in, "find_text", _FIND_TEXT)


def named(patient: int) -> Image:
    """A frame with a name in it."""
    pixels = cv2.resize(picture(patient), (2 * SIDE, 2 * SIDE))
    cv2.putText(pixels, "DOE JANE", (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(pixels, np.uint8)


@needs_reader
def test_an_image_with_a_name_holds_the_export_until_somebody_calls_it_harmless(
    store: Store, scenes: Project, tmp_path: Path  # noqa: F811
) -> None:
    accept(store, scenes, [named(200), *(picture(patient) for patient in FRESH[1:])])
    first = exported(store, scenes, tmp_path / "out")
    found = audited(store, scenes, first)
    [shown] = found.findings["texts"]["found"]
    assert shown["boxes"] and shown["size"] == [2 * SIDE, 2 * SIDE] and found.findings["texts"]["num_looked"] == 60
    assert found.findings["verdict"] == "fails"
    assert found.findings["reasons"][-1] == "1 image shows text that nobody has called harmless"
    with pytest.raises(BadInputError, match="the audit of export 1 says: fails"):
        store.release(first, disclosure_id=found.id, person="ann", reason="for the partner hospital")
    # Nothing keeps the words: neither the database nor the report.
    everything = json.dumps(found.findings) + "\n".join(lines(found.findings)) + html(store, scenes, found)
    everything += json.dumps([dict(row) for row in store.db.query("SELECT * FROM texts")]) + str(store.audit_rows(limit=500))
    assert "DOE" not in everything.upper() and "JANE" not in everything.upper()
    # The next export leaves it out and says so.
    exported(store, scenes, tmp_path / "next")
    manifest = json.loads((tmp_path / "next" / "manifest.json").read_text())
    assert manifest["left_out"]["synthetic, shows text that nobody has called harmless"] == 1
    # Somebody has looked: the same audit once more, without that reason; the one before stays as it was.
    store.clear_texts([shown["blob"]], person="eve")
    newest = store.disclosures(scenes.id, export_id=first)[-1]
    assert newest.id != found.id and newest.findings["repeats"] == found.id and newest.findings["texts"]["held"] == []
    assert not any("text" in reason for reason in newest.findings["reasons"]) and newest.findings["verdict"] != "fails"
    assert store.disclosure(found.id).findings["verdict"] == "fails"
    with pytest.raises(BadInputError, match="has been audited again since"):
        store.release(first, disclosure_id=found.id, person="ann", reason="for the partner hospital", despite=True)
    [row] = [row for row in store.audit_rows() if row.action == "text.clear"]
    assert row.actor == "eve" and row.details == {"blobs": [shown["blob"]]} and store.first_broken_audit_row() is None
    third = exported(store, scenes, tmp_path / "third")
    assert shown["blob"] in {item.blob for item in store.export_items(third)}


@needs_reader
def test_metadata_in_a_file_fails_the_audit(store: Store, scenes: Project, tmp_path: Path) -> None:  # noqa: F811
    accept(store, scenes, [picture(patient) for patient in FRESH[:12]])
    export_id = exported(store, scenes, tmp_path / "out")
    target = next((tmp_path / "out" / "images").rglob("*.png"))
    png = target.read_bytes()
    target.write_bytes(png[:-12] + bytes.fromhex("0000000074494d45") + bytes(4) + png[-12:])  # an empty tIME before the end
    (tmp_path / "out" / "notes about DOE.txt").write_text("x")
    found = audited(store, scenes, export_id).findings
    assert "2 of the files carry more than pixels: not in the manifest, tIME" in found["reasons"] and found["verdict"] == "fails"
    assert found["files"]["num_files"] > 12 and "DOE" not in json.dumps(found)


def test_a_folder_that_is_gone_is_an_open_question(store: Store, scenes: Project) -> None:  # noqa: F811
    made = store.add_export(scenes.id, format="voc", path="x", manifest_sha256="0", num_items=0, actor="ann")
    asked = audited(store, scenes, made.id).findings["open_questions"]
    assert "its files could not be looked into, as its folder is gone" in asked


def test_without_a_reader_of_text_nothing_is_concluded(
    store: Store, scenes: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    monkeypatch.setattr(burnt_in, "is_available", lambda: False)
    monkeypatch.setattr(burnt_in, "find_text", lambda image: pytest.fail("it is not there"))
    accept(store, scenes, [picture(patient) for patient in FRESH[:12]])
    found = audited(store, scenes, exported(store, scenes, tmp_path / "out")).findings
    assert texts.MISSING in found["open_questions"] and found["texts"]["num_looked"] is None
    assert found["verdict"] != "nothing found" and "could not be looked for" in "\n".join(lines(found))


@needs_reader
def test_the_check_looks_once_at_each_image_and_tells_which(
    store: Store, scenes: Project, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    store.add_image(scenes.id, blob=store.blobs.put_image(named(0)), size=(128, 128), group_id="patient 0", split="train",
                    label=None, source_name="a.png", label_map_blob=None, actor="ann")  # fmt: skip
    ended = run_check(store, scenes)
    assert ended.message == "1 of 93 images show text; 1 of them stay out of exports until somebody calls their text harmless"
    [item] = texts.shown_in(store, scenes)
    assert item.name == "real-000093"
    monkeypatch.setattr(burnt_in, "find_text", lambda image: pytest.fail("looked at twice"))
    assert run_check(store, scenes).result == {"num_images": 93, "num_text": 1, "num_held": 1, "num_unreadable": 0}
    monkeypatch.setattr(burnt_in, "DETECTOR", "a newer one")
    monkeypatch.setattr(burnt_in, "find_text", lambda image: [])
    assert run_check(store, scenes).message.startswith("no text found in 93 images; that is no proof")


def run_check(store: Store, project: Project):  # type: ignore[no-untyped-def]
    from saadi.jobs import run_job

    orders.place(store, orders.TextCheckOrder(project_id=project.id), actor="ann")
    claimed = store.claim_job("worker")
    assert claimed is not None
    run_job(store, claimed, {"text_check": texts.run_job})
    return store.job(claimed.id)


def put(store: Store, project: Project, number: int = 0) -> str:
    """A real image of which a detector says that it shows text."""
    blob = store.blobs.put_image(np.full((16, 24, 3), number, np.uint8))
    store.add_image(project.id, blob=blob, size=(24, 16), group_id="p", split="train", label=None, source_name="a.png",
                    label_map_blob=None, actor="ann")  # fmt: skip
    store.add_texts({blob: [(1, 2, 10, 4)]}, detector="one")
    return blob


def test_a_word_counts_for_the_places_that_were_seen(store: Store, project: Project) -> None:
    blob = put(store, project)
    store.clear_texts([blob], person="ann")
    store.add_texts({blob: [(1, 2, 10, 4)]}, detector="two")
    assert store.held_texts([blob]) == set() and store.texts_unlooked([blob], detector="two") == []
    assert store.texts_unlooked([blob], detector="three") == [blob]
    store.add_texts({blob: [(1, 2, 10, 4), (3, 9, 4, 4)]}, detector="three")
    assert store.held_texts([blob]) == {blob}  # nobody has looked at the second place


def test_it_can_be_taken_back_and_a_signed_release_stays(store: Store, project: Project) -> None:
    blob = put(store, project)
    records = [store.add_export(project.id, format="voc", path=str(number), manifest_sha256=str(number), num_items=1, actor="ann")
               for number in range(2)]  # fmt: skip
    plain = {"reasons": [], "open_questions": [], "verdict": "nothing found", "earlier_exports": [1], "flagged": [],
             "looked_at": []}  # fmt: skip
    told = {"num_looked": 1, "found": [{"blob": blob, "name": "real-000001", "boxes": [[1, 2, 10, 4]], "size": [16, 24]}]}
    for record in records:
        store.add_disclosure(project.id, export_id=record.id, findings=with_texts(plain, told, held={blob}), actor="ann")
    store.release(records[0].id, disclosure_id=1, person="ann", reason="they are my own", despite=True)
    store.clear_texts([blob], person="ann")
    assert [one.id for one in store.disclosures(project.id, export_id=records[0].id)] == [1]
    assert store.disclosures(project.id, export_id=records[1].id)[-1].findings["verdict"] == "nothing found"
    store.clear_texts([blob], person="bob", is_harmless=False)
    again = store.disclosures(project.id, export_id=records[1].id)[-1].findings
    assert again["verdict"] == "fails" and again["reasons"] == ["1 image shows text that nobody has called harmless"]
    assert [row.action for row in store.audit_rows(limit=4) if row.action.startswith("text.")] == ["text.hold", "text.clear"]
    with pytest.raises(NotFoundError, match="no text was found in the picture ffffffffffff"):
        store.clear_texts(["f" * 64], person="ann")


def test_the_command_names_images_as_an_export_does(store: Store, home: Home, project: Project) -> None:
    blob, where = put(store, project), ["--home", str(home.path)]
    told = CliRunner().invoke(app, ["text-harmless", "tiny", "real-000001", *where])
    assert told.exit_code == 0 and "1 images: their text is called harmless" in told.output and not store.held_texts([blob])
    CliRunner().invoke(app, ["text-harmless", "tiny", "real-000001", "--undo", *where])
    assert store.held_texts([blob]) == {blob}
    wrong = CliRunner().invoke(app, ["text-harmless", "tiny", "real-000009", *where])
    assert isinstance(wrong.exception, NotFoundError) and "`saadi text-check` lists them" in str(wrong.exception)


def test_the_page_lists_and_clears(store: Store, home: Home, project: Project) -> None:
    blobs = [put(store, project, number) for number in range(2)]
    with TestClient(build_app(Context(home, "ann"), with_page=False), base_url="http://127.0.0.1:7860") as client:
        assert client.get("/api/projects/1/exports").json()["texts"] == {"shown": 2, "held": 2}
        assert client.post("/api/texts/harmless", json={"blobs": blobs[:1]}).json() == {"held": []}
        [held, cleared] = client.get("/api/projects/1/texts").json()["items"]
        assert (held["blob"], held["cleared_by"]) == (blobs[1], None) and cleared["cleared_by"] == "ann"
        assert held["boxes"] == [[1, 2, 10, 4]] and held["size"] == [16, 24]
        refused = client.post("/api/texts/harmless", json={"blobs": ["0" * 64]})
        assert refused.status_code == 404 and "no text was found" in refused.json()["error"]


def test_rows_of_pixels_that_are_gone_go_too(store: Store, project: Project) -> None:
    store.add_texts({"a" * 64: [(0, 0, 4, 4)]}, detector="one")
    kept = put(store, project)
    store.sweep_unnamed_blobs(older_than_s=0)
    assert [row["blob"] for row in store.db.query("SELECT blob FROM texts")] == [kept]


def test_an_unreadable_image_is_counted_and_the_others_are_looked_at(
    store: Store, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, seen, away = put(store, project, 1), put(store, project, 2), store.blobs.put_image(np.full((16, 24, 3), 3, np.uint8))
    store.add_image(project.id, blob=away, size=(24, 16), group_id="gone", split="train", label=None, source_name="b.png",
                    label_map_blob=None, actor="ann")  # fmt: skip
    store.withdraw(project.id, "gone", person="ann", reason="the patient wrote to us")
    store.blobs.path(lost).unlink()
    monkeypatch.setattr(burnt_in, "is_available", lambda: True)
    monkeypatch.setattr(burnt_in, "find_text", lambda image: [(1, 2, 10, 4)] if image[0, 0, 0] == 2 else pytest.fail("withdrawn"))
    ended = run_check(store, project)
    assert ended.state == "done" and ended.result == {"num_images": 2, "num_text": 2, "num_held": 2, "num_unreadable": 1}
    assert ended.message.endswith("; 1 cannot be read, restore them from a backup")
    assert store.texts_unlooked([lost, seen, away], detector=burnt_in.DETECTOR) == [lost, away]
    store.add_texts({away: [(1, 2, 10, 4)]}, detector="one")
    assert {item.name for item in texts.shown_in(store, project)} == {"real-000001", "real-000002"}
