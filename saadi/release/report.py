"""The report of an audit: lines for a terminal, a page for whoever decides. Plain words, no promise that nobody can keep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined

from saadi.config import VERSION
from saadi.records import Disclosure, Project
from saadi.store import Store

CAUTION = ("Each line is an attack that was tried, on these images and these patients. An attack that finds nothing is no proof "
           "that there is nothing to find, and rare findings, text that no reader of text finds and what somebody knows besides "
           "are not measured here.")  # fmt: skip
HEADLINES = {"fails": "Something was found", "nothing found": "No attack found anything",
             "nothing concluded": "Nothing can be concluded"}  # fmt: skip


class Line(NamedTuple):
    """One measure."""

    name: str
    found: str
    means: str


def measures(own: Mapping[str, Any] | None) -> list[Line]:
    """What was measured of a set, each with what it means."""
    if not own:
        return []
    copies, found = own["copies"], []
    if copies["limit"] is None:
        found.append(Line("Copies", "could not be looked for", "there are too few images of other patients"))
    else:
        found.append(Line("Copies", f"{copies['num_flagged']} of {own['num_items']} images flagged",
                          "nearer to a training image than the images of strangers come, flips, crops and brightness included; "
                          f"up to {copies['expected_share']:.0%} may be by chance"
                          + _known("; of strangers themselves {:.0%} would be flagged", copies["false_flags"])
                          + _known("; {:.0%} of planted copies were found", copies["planted_found"])))  # fmt: skip
    if nearest := own["nearest"]:
        found.append(Line("Nearest person",
                          f"{nearest['share']:.0%} are a training patient ({nearest['low']:.0%} to {nearest['high']:.0%})",
                          f"{nearest['expected']:.0%} would be if nothing were remembered, and no layout taken over from the "
                          "masks of training patients"))  # fmt: skip
    if isolation := own["isolation"]:
        found.append(Line("Singling out", f"{isolation['of_trained']:.1%} of the images fit one training patient alone",
                          f"{isolation['of_held_out']:.1%} fit one stranger alone, {isolation['by_chance']:.1%} is chance; "
                          f"excess {isolation['excess']:.3f} ({isolation['low']:.3f} to {isolation['high']:.3f})"))  # fmt: skip
    else:
        why = "this project has too few patients of its own whom nothing was learnt from"
        if own["nearest"]:
            why = f"{own['people_missing']} more patients whom nothing was learnt from are needed; another project may lend them"
        found.append(Line("Singling out", "not measured", why))
    if member := own["membership"]:
        found.append(Line("Memory of the generator", f"its errors tell today's training images in {member['auc']:.0%} of pairs "
                          f"({member['low']:.0%} to {member['high']:.0%})", "50% is chance; this is about the weights, which are "
                          "not in the export"))  # fmt: skip
    if reach := own["retrieval"]:
        low, high = (reach[name] / reach["num_real"] for name in ("low", "high"))
        words = f"at least {low:.0%}" if reach["is_saturated"] else f"{reach['score']:.0%} ({low:.0%} to {high:.0%})"
        found.append(Line("Reach", f"of the training images {words} could be nearest to some image, as far as "
                          f"{reach['num_synthetic']} tell", "the more, the less a few patients carry the set"))  # fmt: skip
    return found


def marks(findings: Mapping[str, Any]) -> list[Line]:
    """What was looked for beside nearness: text in the pictures, metadata in the files; of an older audit nothing."""
    found = []
    if texts := findings.get("texts"):
        looked, shown, held = texts["num_looked"], len({one["blob"] for one in texts["found"]}), len(texts["held"])
        seen = "could not be looked for" if looked is None else f"{shown} of {looked} images show text"
        means = "capitals below 8 pixels (16 in full HD) and faint ones are often missed"
        means = f"{held} of them nobody has called harmless; {means}" if shown else means
        found.append(Line("Text in the pictures", seen, means))
    if files := findings.get("files"):
        found.append(Line("Metadata in the files", f"{len(files['found'])} of {files['num_files']} files carry some",
                          "tEXt, zTXt, iTXt, eXIf, tIME, iCCP and every other chunk that is neither pixels nor the mark of "
                          "synthetic media, and files that are not the export's"))  # fmt: skip
    return found


def _known(form: str, value: float | None) -> str:
    return "" if value is None else form.format(value)


def lines(findings: Mapping[str, Any]) -> list[str]:
    """For a terminal."""
    told = [f"{HEADLINES[findings['verdict']]}."]
    told += [f"  - {reason}" for reason in findings["reasons"]]
    told += [f"  {line.name}: {line.found} ({line.means})" for line in measures(findings["own"])]
    told += [f"  {line.name}: {line.found} ({line.means})" for line in marks(findings)]
    if findings["union"]:
        told.append(f"Together with {len(findings['earlier_exports'])} earlier exports of the same patients:")
        told += [f"  {line.name}: {line.found}" for line in measures(findings["union"])]
    told += [f"  open: {question}" for question in findings["open_questions"]]
    return [*told, CAUTION]


def html(store: Store, project: Project, record: Disclosure) -> str:
    """One page with everything in it and no picture of a patient; loads nothing."""
    findings = record.findings
    return PAGE.render(
        project=project.name, record=record, findings=findings, headline=HEADLINES[findings["verdict"]], caution=CAUTION,
        own=measures(findings["own"]), union=measures(findings["union"]), version=VERSION, variety=findings["variety"],
        marks=marks(findings),
        boxes=boxes(findings["own"]), release=next((one for one in store.releases(project.id) if one.disclosure_id == record.id),
                                                   None))  # fmt: skip


class Box(NamedTuple):
    """Quantiles of how near images come, in per cent of the plot's width."""

    name: str
    marks: tuple[float, ...]
    """0, 5, 25, 50, 75, 95 and 100 %."""


def boxes(own: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A box plot of the set and of strangers, and where the limit lies; None without strangers."""
    if not own or not own["nearness"]:
        return None
    limit = own["copies"]["limit"]
    values = [value for quantiles in own["nearness"].values() for value in quantiles] + [limit]
    low, high = min(values), max(values)
    scale = 100 / max(high - low, 1e-9)
    names = {"items": "this set", "strangers": "strangers"}
    return {"limit": round((limit - low) * scale, 2),
            "rows": [Box(names[name], tuple(round((value - low) * scale, 2) for value in quantiles))
                     for name, quantiles in own["nearness"].items()]}  # fmt: skip


PAGE = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
    (Path(__file__).parent / "report.html").read_text(encoding="utf-8"))  # fmt: skip
