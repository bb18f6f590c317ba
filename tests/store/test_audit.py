"""The audit chain: what was written cannot be changed unnoticed."""

from __future__ import annotations

import pytest
from sqlite_utils.utils import sqlite3

from saadi.records import Project
from saadi.store import Store
from tests.builders import add_label_map


@pytest.fixture
def trail(store: Store, project: Project) -> Store:
    for _ in range(4):
        add_label_map(store, project)
    return store


def test_the_chain_holds(trail: Store) -> None:
    assert trail.first_broken_audit_row() is None
    assert [row.seq for row in trail.audit_rows()] == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("statement", [
    "UPDATE audit SET actor = 'eve' WHERE seq = 2", "DELETE FROM audit WHERE seq = 5",
    "INSERT OR REPLACE INTO audit SELECT seq, created_at, 'eve', action, subject, details, prev, hash FROM audit WHERE seq = 2"])
def test_rows_are_neither_changed_nor_removed(trail: Store, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="audit rows are never"):
        trail.db.execute(statement)
    assert trail.first_broken_audit_row() is None


@pytest.mark.parametrize("column", ["created_at", "actor", "action", "subject", "details", "prev", "hash"])
def test_one_edited_byte_is_found(trail: Store, column: str) -> None:
    trail.db.execute("DROP TRIGGER audit_no_update")  # an insider with the file in hand
    trail.db.execute(f"UPDATE audit SET {column} = {column} || ' ' WHERE seq = 3")
    assert trail.first_broken_audit_row() == 3


def test_a_removed_row_is_found(trail: Store) -> None:
    trail.db.execute("DROP TRIGGER audit_no_delete")
    trail.db.execute("DELETE FROM audit WHERE seq = 2")
    assert trail.first_broken_audit_row() == 3
