"""The dataset card: datasheet.md after Gebru et al., "Datasheets for datasets" (2021), and card.html, the same in pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined

from saadi.config import VERSION
from saadi.exports.croissant import describe, personal
from saadi.exports.facts import AREA_EDGES, SCORE_BINS, Facts
from saadi.exports.manifest import NOTICE, PROGRAM
from saadi.records import Project

DATASHEET, CARD = "datasheet.md", "card.html"
_HERE = Path(__file__).parent
_PLAIN = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
_PAGE = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


class Audited(NamedTuple):
    """What an audit of the export found."""

    headline: str
    verdict: str
    reasons: Sequence[str]
    lines: Sequence[tuple[str, str, str]]
    """Measure, what was found, what it means."""


def datasheet(facts: Facts) -> bytes:
    """The content of datasheet.md."""
    template = _PLAIN.from_string((_HERE / "datasheet.md.jinja").read_text(encoding="utf-8"))
    return (template.render(**_told(facts), in_table=in_table).rstrip() + "\n").encode()


def card(facts: Facts, project: Project, *, audit: Audited | None = None) -> bytes:
    """The content of card.html: loads nothing, holds no picture; with an audit where there has been one."""
    template = _PAGE.from_string((_HERE / "card.html.jinja").read_text(encoding="utf-8"))
    colors = {label.name: label.color for label in project.classes}
    told = _told(facts) | {"colors": colors, "charts": _charts(facts), "audit": audit}
    return (template.render(told).rstrip() + "\n").encode()


def in_table(text: str) -> str:
    """A name as a Markdown table takes it."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def _told(facts: Facts) -> dict[str, Any]:
    return {"facts": facts, "kinds": [kind for kind in ("real", "synthetic", "composite") if facts.num_of(kind)],
            "splits": sorted(facts.counts), "notice": NOTICE, "program": f"{PROGRAM} {VERSION}",
            "description": describe(facts), "personal": personal(facts)}  # fmt: skip


class Bar(NamedTuple):
    """One bar of a chart, in per cent of its height."""

    words: str
    height: float
    number: int


def _charts(facts: Facts) -> dict[str, Any]:
    """Areas of each class by kind, and scores of synthetic images."""
    names = [f"to {_percent(edge)}" for edge in AREA_EDGES[1:]]
    areas = {kind: {one.name: _bars(names, one.areas) for one in classes if sum(one.areas)}
             for kind, classes in facts.classes.items()}  # fmt: skip
    marks = [f"{place / SCORE_BINS:.1f} to {(place + 1) / SCORE_BINS:.1f}" for place in range(SCORE_BINS)]
    return {"areas": areas, "scores": {kind: _bars(marks, tuple(found)) for kind, found in facts.scores.items()}}


def _bars(names: list[str], numbers: tuple[int, ...]) -> list[Bar]:
    most = max(max(numbers, default=0), 1)
    return [Bar(name, round(100 * number / most, 1), number) for name, number in zip(names, numbers, strict=True)]


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
