"""The ledger on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from saadi.cli import app
from saadi.config import Home
from saadi.errors import BadInputError
from saadi.records import Project
from saadi.store import Store

RUN = CliRunner()


@pytest.fixture
def exported(store: Store, project: Project) -> int:
    made = store.add_export(project.id, format="voc", path="x", manifest_sha256="0" * 64, num_items=3, actor="ann")
    findings = {"verdict": "nothing concluded", "earlier_exports": [], "flagged": [], "looked_at": [],
                "texts": {"num_looked": 0, "found": [], "held": [], "reason": None}}  # fmt: skip
    store.add_disclosure(project.id, export_id=made.id, findings=findings, actor="ann")
    return made.id


def test_the_ledger_tells_what_was_signed(home: Home, exported: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAADI_USER", "ann")
    where = ["--home", str(home.path)]
    assert "1: voc, 3 images; audit 1: nothing concluded; not released" in RUN.invoke(app, ["releases", "tiny", *where]).output
    unread = RUN.invoke(app, ["release", "tiny", "1", "--reason", "for the partner", *where])
    assert isinstance(unread.exception, BadInputError) and "name it with --audit" in str(unread.exception)
    sign = ["--audit", "1", "--reason", "for the partner"]
    refused = RUN.invoke(app, ["release", "tiny", "1", *sign, *where])
    assert isinstance(refused.exception, BadInputError) and "says: nothing concluded" in str(refused.exception)
    assert RUN.invoke(app, ["release", "tiny", "1", *sign, "--despite", *where]).exit_code == 0
    told = RUN.invoke(app, ["releases", "tiny", *where]).output.replace("\n", " ")
    assert "released by ann on an audit that said nothing concluded (for the partner)" in told
    [row] = json.loads(RUN.invoke(app, ["releases", "tiny", "--json", *where]).output)["exports"]
    assert (row["release"]["person"], row["release"]["reason"]) == ("ann", "for the partner")
    other = Store.open(home)
    with other:
        other.create_project("other", task="segmentation", classes=other.project("tiny").classes, resolution=16, actor="ann")
    wrong = RUN.invoke(app, ["release", "other", "1", "--reason", "for the partner", *where])
    assert "belongs to another project" in str(wrong.exception)


def test_a_report_goes_into_a_new_file(home: Home, exported: int, tmp_path: Path) -> None:
    (tmp_path / "there.html").write_text("mine")
    where = ["--home", str(home.path), "--report", str(tmp_path / "there.html")]
    refused = RUN.invoke(app, ["audit", "tiny", "--export", "1", *where])
    assert "is there already" in str(refused.exception) and (tmp_path / "there.html").read_text() == "mine"
    nowhere = RUN.invoke(app, ["audit", "tiny", "--home", str(home.path), "--report", str(tmp_path / "no" / "such.html")])
    assert "there is no folder" in str(nowhere.exception)


def test_a_deleted_export_never_left(home: Home, exported: int) -> None:
    where = ["--home", str(home.path)]
    assert RUN.invoke(app, ["release", "tiny", "1", "--never-left", "--reason", "a trial only", *where]).exit_code == 0
    assert "never left" in RUN.invoke(app, ["releases", "tiny", *where]).output
