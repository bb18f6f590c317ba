"""What an export says about itself: read by the library of the format, the same bytes each time, no name of anybody."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import mlcroissant
import pytest

from saadi.exports.card import in_table
from saadi.exports.facts import facts_of
from saadi.exports.formats import FORMATS
from saadi.exports.verify import verify_export
from saadi.records import LabelClass
from saadi.store import Store
from tests.exports.builders import add_sample, export, full_project, make_project

OWN = ("croissant.json", "datasheet.md", "card.html")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"preferences"}))  # pairs: test_preferences
def test_croissant_reads_every_item_of_every_format(tmp_path: Path, store: Store, name: str) -> None:
    job = export(store, full_project(store), tmp_path / "out", format=name)
    assert job.state == "done", job.error
    dataset = mlcroissant.Dataset(jsonld=str(tmp_path / "out" / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    found = {record["items/name"].decode(): record for record in dataset.records("items")}
    expected = rows_of(tmp_path / "out")
    assert len(found) == len(expected) == 13
    for row in expected:
        record = found[row["name"]]
        assert (record["items/kind"].decode(), record["items/height"]) == (row["kind"], row["height"])
        assert (tmp_path / "out" / record["items/image"].decode()).is_file()


def test_the_same_images_give_the_same_bytes(tmp_path: Path, store: Store) -> None:
    project = full_project(store)
    for name in ("a", "b"):
        assert export(store, project, tmp_path / name, format="folders").state == "done"
    first, second = ({path.relative_to(tmp_path / name).as_posix(): path.read_bytes()
                      for path in (tmp_path / name).rglob("*") if path.is_file()} for name in ("a", "b"))  # fmt: skip
    assert first == second and set(OWN) < set(first)
    manifest = json.loads(first["manifest.json"])
    assert all(manifest["index_files"][name] == hashlib.sha256(first[name]).hexdigest() for name in OWN)


@pytest.mark.parametrize("name", OWN)
def test_no_patient_is_named_and_a_changed_word_is_found(tmp_path: Path, store: Store, name: str) -> None:
    export(store, full_project(store), tmp_path / "out", format="voc")
    told = (tmp_path / "out" / name).read_text(encoding="utf-8")
    for secret in ("DOE", "JANE", "ROE", "RICHARD", str(tmp_path)):
        assert secret not in told, secret
    (tmp_path / "out" / name).write_text(told.replace("Research use only", "Cleared for diagnosis"), encoding="utf-8")
    assert any(name in problem for problem in verify_export(tmp_path / "out"))


def test_the_numbers_are_those_of_the_rows(tmp_path: Path, store: Store) -> None:
    project = full_project(store)
    export(store, project, tmp_path / "out", format="folders")
    rows = rows_of(tmp_path / "out")
    facts = facts_of(store, project, rows, format="folders", left_out={"open": 2}, lost=["holes"])
    assert (facts.num_items, facts.num_of("real"), facts.num_of("synthetic")) == (13, 8, 5)
    assert facts.groups == {"test": 1, "train": 2, "val": 1} and sum(facts.versions.values()) == 5
    organ = next(one for one in facts.classes["real"] if one.name == "organ")
    showing = [row for row in rows if row["kind"] == "real" and row["pixels"].get("organ")]
    assert (organ.num_images, sum(organ.areas)) == (len(showing), len(showing)) and organ.num_groups == 4
    assert organ.share == pytest.approx(sum(row["pixels"]["organ"] for row in showing) / (8 * 24 * 24), abs=1e-9)
    assert sum(one.share for one in facts.classes["real"]) == pytest.approx(1.0)
    sheet = (tmp_path / "out" / "datasheet.md").read_text()
    assert "| train | 4 | 5 | 2 |" in sheet and f"| organ | {organ.num_images} | 4 |" in sheet
    assert "Nobody has voted" in sheet and "saadi verify DIR" in sheet


def test_names_from_people_break_no_table_and_no_page(tmp_path: Path, store: Store) -> None:
    hostile = (LabelClass(0, "tissue", "#000000"), LabelClass(1, "<b>a|b</b>", "#d55e00"), LabelClass(2, "tip", "#0072b2"))
    project = make_project(store)
    with store.write():
        store.db["projects"].update(project.id, {"classes": json.dumps([vars(one) for one in hostile])})  # type: ignore[union-attr]
    project = store.project(project.id)
    add_sample(store, project, store.images(project.id)[0], 1)
    assert export(store, project, tmp_path / "out", format="folders").state == "done"
    page, sheet = ((tmp_path / "out" / name).read_text() for name in ("card.html", "datasheet.md"))
    assert "<b>" not in sheet
    assert "<b>a|b" not in page and "&lt;b&gt;a|b" in page and "| &lt;b>a\\|b&lt;/b> |" in sheet
    assert "<script" not in page and "src=" not in page and "http" not in page
    assert in_table("a\n| b") == "a \\| b"


def test_a_classification_export_describes_its_classes(tmp_path: Path, store: Store) -> None:
    project = store.create_project("phases", task="classification", classes=[LabelClass(0, "cut", "#000000"),
                                   LabelClass(1, "clip", "#d55e00")], resolution=16, actor="ann")  # fmt: skip
    rows = [{"kind": "real", "split": "train", "group": f"g{number}", "label": label, "pixels": {}, "height": 8, "width": 8,
             "lineage": {}} for number, label in enumerate(["cut", "cut", "clip"])]  # fmt: skip
    facts = facts_of(store, project, rows, format="imagefolder", left_out={}, lost=[])
    assert [(one.name, one.num_images, one.num_groups) for one in facts.classes["real"]] == [("cut", 2, 2), ("clip", 1, 1)]
