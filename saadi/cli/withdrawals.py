"""Commands for patients who withdraw: take them out, see where their data are, take it back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from saadi import config
from saadi.cli.common import HomeOption, JsonOption, ProjectArgument, answer, home_of
from saadi.errors import BadInputError
from saadi.exports.selection import group_names
from saadi.records import Withdrawal
from saadi.release.withdrawn import patient_of, report
from saadi.store import Store


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    for command in (withdraw, withdrawals):
        app.command(command.__name__)(command)


def withdraw(name: ProjectArgument,
             patient: Annotated[str, typer.Argument(help="As imported, as an export names them (group-000012), or an image of "
                                                    "theirs (real-000012).")],
             reason: Annotated[str | None, typer.Option(help="Why; kept in the audit trail. Name no patient.")] = None,
             trace: Annotated[bool, typer.Option("--trace", help="Only tell where their data are; change nothing.")] = False,
             undo: Annotated[bool, typer.Option("--undo", help="Take a withdrawal back: the images go where they were.")] = False,
             home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Take a patient out of all that is done from now on, and tell which models, images and exports hold their data."""
    if not trace and reason is None:
        raise BadInputError("a withdrawal wants --reason, for whoever reads the audit trail later; --trace tells without one")
    with Store.open(home_of(home)) as store:
        project = store.project(name)
        group = patient_of(store, project, patient)
        record = next((one for one in store.withdrawals(project.id) if one.group_id == group and one.revoked_at is None), None)
        if not trace and undo:
            if record is None:
                raise BadInputError("nobody of that name has withdrawn; `saadi withdrawals` lists those who have")
            record = store.revoke_withdrawal(record.id, person=config.user_name(), reason=str(reason))
        elif not trace:
            record = store.withdraw(project.id, group, person=config.user_name(), reason=str(reason))
        told = report(store, project, group)
    done = "taken back" if undo else "written down" if not trace else "only looked at"
    answer({"withdrawal": record.id if record else None, "withdrawn": record is not None and record.revoked_at is None, **told},
           as_json=as_json, lines=lambda: [f"{told['patient']}, {told['images']} images: withdrawal {done}", *told["sentences"]])


def withdrawals(name: ProjectArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Who has withdrawn, by the names that exports use, since when, and what was taken back."""
    with Store.open(home_of(home)) as store:
        project = store.project(name)
        names = group_names(store.images(project.id))
        rows = [_row(record, names[record.group_id]) for record in store.withdrawals(project.id)]
    answer({"withdrawals": rows}, as_json=as_json, lines=lambda: [_line(row) for row in rows] or ["nobody has withdrawn"])


def _row(record: Withdrawal, patient: str) -> dict[str, Any]:
    return {"patient": patient} | {name: value for name, value in asdict(record).items() if name != "group_id"}


def _line(row: dict[str, Any]) -> str:
    revoked = f"; taken back by {row['revoked_by']}, {row['revoked_at']} ({row['revoked_reason']})" if row["revoked_at"] else ""
    return f"{row['id']}: {row['patient']}, written down by {row['person']}, {row['created_at']} ({row['reason']}){revoked}"
