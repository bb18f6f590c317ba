"""Commands about what leaves the program: what an export reveals, and who lets it go."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from saadi import config, orders
from saadi.cli.common import DetachOption, HomeOption, JsonOption, ProjectArgument, answer, home_of, run_order
from saadi.errors import BadInputError
from saadi.records import Disclosure, Project
from saadi.release.report import html, lines
from saadi.store import Store

ExportArgument = Annotated[int, typer.Argument(metavar="EXPORT", help="Number of the export; see `saadi releases`.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    for command in (audit, releases, release):
        app.command(command.__name__)(command)


def audit(name: ProjectArgument,
          export: Annotated[int | None, typer.Option(help="Number of an export; default: the accepted images.")] = None,
          strangers: Annotated[str | None, typer.Option(metavar="PROJECT", help="Another project with patients of the same kind "
                                                        "whom nothing was learnt from, to set limits on.")] = None,
          report: Annotated[Path | None, typer.Option(help="Also write the report to this new HTML file.")] = None,
          detach: DetachOption = False, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Look at what synthetic images reveal about training patients: copies, nearness, singling out, what the generator
    remembers."""
    if report is not None and (report.exists() or detach):
        raise BadInputError(f"the file {report.name!r} is there already; choose a new one" if report.exists() else
                            "a report is written once the audit is over; leave --detach out")  # fmt: skip

    def build(store: Store, project: Project) -> orders.Order:
        other = store.project(strangers).id if strangers is not None else None
        return orders.order(orders.AuditOrder, project_id=project.id, export_id=export, strangers_id=other)

    run_order(home_of(home), name, build, detach=detach, as_json=as_json)
    if detach:
        return
    with Store.open(home_of(home)) as store:
        project = store.project(name)
        newest = store.disclosures(project.id, export_id=export)[-1]
        if report is not None:
            report.write_text(html(store, project, newest), encoding="utf-8")
    if not as_json:
        answer({}, as_json=False, lines=lambda: lines(newest.findings))


def releases(name: ProjectArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """The ledger: every export, what its newest audit says, and who let it go for what reason."""
    with Store.open(home_of(home)) as store:
        project = store.project(name)
        audits = {record.export_id: record for record in store.disclosures(project.id)}
        gone = {record.export_id: record for record in store.releases(project.id)}
        rows = [{"export": one.id, "format": one.format, "num_items": one.num_items, "path": one.path, "made": one.created_at,
                 "audit": _told(audits.get(one.id)), "release": asdict(gone[one.id]) if one.id in gone else None}
                for one in store.exports(project.id)]  # fmt: skip
    answer({"exports": rows}, as_json=as_json, lines=lambda: [_line(row) for row in rows] or ["no export yet"])


def _told(record: Disclosure | None) -> dict[str, Any] | None:
    return None if record is None else {"id": record.id, "verdict": record.findings["verdict"], "at": record.created_at}


def _line(row: dict[str, Any]) -> str:
    audited = f"audit: {row['audit']['verdict']}" if row["audit"] else "not audited"
    gone = row["release"]
    released = f"released by {gone['person']} ({gone['reason']})" if gone else "not released"
    return f"{row['export']}: {row['format']}, {row['num_items']} images; {audited}; {released}"


def release(name: ProjectArgument, export: ExportArgument,
            reason: Annotated[str, typer.Option(help="Why it may go, and to whom; kept in the ledger.")],
            despite: Annotated[bool, typer.Option("--despite", help="Although its audit does not say 'nothing found'.")] = False,
            home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Sign that an export may leave, by its newest audit; the ledger keeps who, why, and what the audit said."""
    with Store.open(home_of(home)) as store:
        if store.export(export).project_id != store.project(name).id:
            raise BadInputError(f"export {export} belongs to another project; see `saadi releases {name}`")
        made = store.release(export, person=config.user_name(), reason=reason, despite=despite)
    answer(asdict(made), as_json=as_json, lines=lambda: [f"export {export} is released by {made.person}"])
