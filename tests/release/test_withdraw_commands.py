"""Withdrawals on the command line."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from saadi.cli import app
from saadi.config import Home
from saadi.errors import BadInputError, NotFoundError
from saadi.store import Store
from tests.exports.builders import full_project

RUN = CliRunner()


def test_out_and_back_by_command(store: Store, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAADI_USER", "ann")
    name, where = full_project(store).name, ["--home", str(home.path)]
    unsaid = RUN.invoke(app, ["withdraw", name, "DOE_JANE", *where])
    assert isinstance(unsaid.exception, BadInputError) and "wants --reason" in str(unsaid.exception)
    looked = json.loads(RUN.invoke(app, ["withdraw", name, "real-000002", "--trace", "--json", *where]).output)
    assert looked["patient"] == "group-000001" and not looked["withdrawn"] and not store.withdrawals(1)
    done = RUN.invoke(app, ["withdraw", name, "DOE_JANE", "--reason", "the patient wrote to us", *where])
    assert done.exit_code == 0 and "withdrawal written down" in done.output and "3 synthetic images made under" in done.output
    assert "DOE" not in done.output and store.withdrawn_groups(1) == {"DOE_JANE"}
    told = RUN.invoke(app, ["withdrawals", name, *where]).output
    assert "group-000001, written down by ann" in told.replace("\n", " ") and "DOE" not in told
    back = RUN.invoke(app, ["withdraw", name, "DOE_JANE", "--undo", "--reason", "it was somebody else", *where])
    assert back.exit_code == 0 and store.withdrawn_groups(1) == set()
    again = RUN.invoke(app, ["withdraw", name, "DOE_JANE", "--undo", "--reason", "it was somebody else", *where])
    assert isinstance(again.exception, BadInputError) and "nobody of that name has withdrawn" in str(again.exception)
    nobody = RUN.invoke(app, ["withdraw", name, "ROE_RACHEL", "--reason", "the patient wrote to us", *where])
    assert isinstance(nobody.exception, NotFoundError) and "RACHEL" not in str(nobody.exception)
