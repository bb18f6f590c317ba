"""Commands about what leaves the program: what an export reveals, and who lets it go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from saadi import config, orders
from saadi.cli.common import DetachOption, HomeOption, JsonOption, ProjectArgument, answer, home_of, note, run_order
from saadi.cli.work import order_from
from saadi.errors import BadInputError
from saadi.records import Disclosure, Project, Release
from saadi.release import texts
from saadi.release.report import html, lines
from saadi.store import Store

ExportArgument = Annotated[int, typer.Argument(metavar="EXPORT", help="Number of the export; see `saadi releases`.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    for command in (audit, releases, release, surrogates):
        app.command(command.__name__)(command)
    app.command("text-check")(text_check)
    app.command("text-harmless")(text_harmless)


def audit(name: ProjectArgument,
          export: Annotated[int | None, typer.Option(help="Number of an export; default: the accepted images.")] = None,
          strangers: Annotated[str | None, typer.Option(metavar="PROJECT", help="Another project with patients of the same kind "
                                                        "whom nothing was learnt from, to set limits on.")] = None,
          report: Annotated[Path | None, typer.Option(help="Also write the report to this new HTML file.")] = None,
          detach: DetachOption = False, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Look at what synthetic images reveal about training patients: copies, nearness, singling out, what the generator
    remembers."""
    if report is not None and (report.exists() or detach or not report.absolute().parent.is_dir()):
        raise BadInputError(f"the file {report.name!r} is there already; choose a new one" if report.exists() else
                            "a report is written once the audit is over; leave --detach out" if detach else
                            f"there is no folder for {report.name!r}; make it first")  # fmt: skip

    def build(store: Store, project: Project) -> orders.Order:
        other = store.project(strangers).id if strangers is not None else None
        return orders.order(orders.AuditOrder, project_id=project.id, export_id=export, strangers_id=other)

    ended = run_order(home_of(home), name, build, detach=detach, as_json=as_json)
    if ended is None:
        return
    with Store.open(home_of(home)) as store:
        found = store.disclosure(ended.result["disclosure_id"])
        if report is not None:
            report.write_text(html(store, store.project(name), found), encoding="utf-8")
    if not as_json:
        answer({}, as_json=False, lines=lambda: [f"Audit {found.id}. {lines(found.findings)[0]}", *lines(found.findings)[1:]])


def releases(name: ProjectArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """The ledger: every export, what its newest audit says, and who let it go for what reason, by which audit."""
    with Store.open(home_of(home)) as store:
        project = store.project(name)
        audits = store.disclosures(project.id)
        newest, by_id = {record.export_id: record for record in audits}, {record.id: record for record in audits}
        gone = {record.export_id: record for record in store.releases(project.id)}
        tied = store.withdrawn_exports()
        rows = [{"export": one.id, "withdrawn": tied.get(one.id, {}),
                 "format": one.format, "num_items": one.num_items, "path": one.path, "made": one.created_at,
                 "audit": _told(newest.get(one.id)), "release": _release(gone[one.id], by_id) if one.id in gone else None}
                for one in store.exports(project.id)]  # fmt: skip
    answer({"exports": rows}, as_json=as_json, lines=lambda: [_line(row) for row in rows] or ["no export yet"])


def _release(record: Release, audits: Mapping[int, Disclosure]) -> dict[str, Any]:
    signed = audits.get(record.disclosure_id) if record.disclosure_id is not None else None
    return asdict(record) | {"signed": _told(signed)}


def _told(record: Disclosure | None) -> dict[str, Any] | None:
    return None if record is None else {"id": record.id, "verdict": record.findings["verdict"], "at": record.created_at}


def _line(row: dict[str, Any]) -> str:
    audited = f"audit {row['audit']['id']}: {row['audit']['verdict']}" if row["audit"] else "not audited"
    gone = row["release"]
    if not gone:
        released = "not released"
    elif gone["signed"] is None:
        released = f"never left, says {gone['person']} ({gone['reason']})"
    else:
        released = f"released by {gone['person']} on an audit that said {gone['signed']['verdict']} ({gone['reason']})"
    tied = f"; {sum(row['withdrawn'].values())} images are tied to a patient who has withdrawn" if row["withdrawn"] else ""
    return f"{row['export']}: {row['format']}, {row['num_items']} images; {audited}; {released}{tied}"


def release(name: ProjectArgument, export: ExportArgument,
            reason: Annotated[str, typer.Option(help="Why it may go, and to whom; kept in the ledger.")],
            read: Annotated[int | None, typer.Option("--audit", help="Number of the audit that was read; `saadi audit` "
                                                     "and `saadi releases` print it.")] = None,
            despite: Annotated[bool, typer.Option("--despite", help="Although its audit does not say 'nothing found'.")] = False,
            never_left: Annotated[bool, typer.Option("--never-left", help="Say instead that it was deleted before it went "
                                                     "anywhere; audits count it no more.")] = False,
            home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Sign that an export may leave, by its newest audit; the ledger keeps who, why, and what the audit said."""
    with Store.open(home_of(home)) as store:
        if store.export(export).project_id != store.project(name).id:
            raise BadInputError(f"export {export} belongs to another project; see `saadi releases {name}`")
        person = config.user_name()
        if never_left:
            made = store.never_left(export, person=person, reason=reason)
        elif read is None:
            raise BadInputError("a release signs the audit that was read; name it with --audit")
        else:
            made = store.release(export, disclosure_id=read, person=person, reason=reason, despite=despite)
    said = "never left, says" if never_left else "is released by"
    answer(asdict(made), as_json=as_json, lines=lambda: [f"export {export} {said} {made.person}"])


def surrogates(name: ProjectArgument,
               count: Annotated[int | None, typer.Option(help="Masks, one image each at most; default: 32.")] = None,
               candidates: Annotated[int | None, typer.Option(help="Images per mask and round; default: 4.")] = None,
               rounds: Annotated[int | None, typer.Option(help="The cap; default: 6.")] = None,
               guidance: Annotated[float | None, typer.Option(help="Of the first round; default: the generator's.")] = None,
               guidance_step: Annotated[float | None, typer.Option(help="By so much it falls each round; default: 0.1.")] = None,
               lowest_guidance: Annotated[float | None, typer.Option(help="Not below this; default: 0.5.")] = None,
               seed: int | None = None,
               adapter: Annotated[str | None, typer.Option(help="accepted, none, or the number of an adapter.")] = None,
               accept: Annotated[bool, typer.Option("--accept", help="Accept what is kept, for the next export.")] = False,
               detach: DetachOption = False, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """A set to share: of each mask the image that fits it best among those near to no training patient; new seeds with less
    guidance where there is none, and masks that stay without one are told."""
    wanted = int(adapter) if adapter is not None and adapter.isdecimal() else adapter
    settings = {"guidance_scale": guidance} if guidance is not None else None

    def build(store: Store, project: Project) -> orders.Order:
        return order_from(orders.SurrogatesOrder, count=count, candidates=candidates, rounds=rounds, guidance_step=guidance_step,
                          lowest_guidance=lowest_guidance, seed=seed, adapter=wanted, settings=settings,
                          accept=accept or None)(store, project)  # fmt: skip

    ended = run_order(home_of(home), name, build, detach=detach, as_json=as_json)
    if ended is None or as_json:
        return
    for number, one in enumerate(ended.result["rounds"], start=1):
        variety = f", reaches {one['irs']:.0%} of the training images" if one["irs"] is not None else ""
        note(f"round {number}: guidance {one['guidance']:g}, {one['made']} made, {one['near']} too near, {one['implausible']} "
             f"unlike real ones, {one['kept']} kept so far{variety}")  # fmt: skip
    if unfilled := ended.result["unfilled_label_map_ids"]:
        note(f"without an image: masks {', '.join(map(str, unfilled[:20]))}{' ...' if len(unfilled) > 20 else ''}")


def text_check(name: ProjectArgument, detach: DetachOption = False, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Look for text burnt into the real and the accepted images (names, dates, what devices write); exports leave such images
    out until somebody calls their text harmless."""
    if run_order(home_of(home), name, order_from(orders.TextCheckOrder), detach=detach, as_json=as_json) is None or as_json:
        return
    with Store.open(home_of(home)) as store:
        shown = texts.shown_in(store, store.project(name))
        looks = store.texts(item.blob for item in shown)
    said = [f"{item.name}: {len(looks[item.blob].boxes)} places, {_cleared(looks[item.blob].cleared_by)}" for item in shown]
    answer({}, as_json=False, lines=lambda: said)


def _cleared(person: str | None) -> str:
    return f"harmless, says {person}" if person else "held"


def text_harmless(name: ProjectArgument,
                  items: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="real-000012, synthetic-000034 ..., as "
                                                             "`saadi text-check` names them.")],
                  undo: Annotated[bool, typer.Option("--undo", help="Take it back: hold them again.")] = False,
                  home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Say that the text in these images is no personal data, so that it holds no export; the audit trail keeps who said so."""
    with Store.open(home_of(home)) as store:
        count = texts.call_harmless(store, store.project(name), items, person=config.user_name(), is_harmless=not undo)
    answer({"num_images": count, "is_harmless": not undo}, as_json=as_json,
           lines=lambda: [f"{count} images: their text {'holds exports again' if undo else 'is called harmless'}"])
