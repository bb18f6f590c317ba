"""The tables of `saadi evidence gains`: each arm with intervals, its gains over the arms it is compared with, and its cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from saadi.evidence import classified
from saadi.evidence.cases import Case, rarest_class
from saadi.evidence.gains import Cell, Measured
from saadi.evidence.intervals import mean_with_interval
from saadi.evidence.settings import Arm
from saadi.evidence.stages import Arrays


def summary(
    cells: Sequence[tuple[Cell, Measured]], *, report: Callable[[str], None] = lambda message: None
) -> dict[str, Any]:
    """Per arm: Dice, IoU and HD95 with intervals, overall and per class, paired gains over other arms, and what it cost.

    Args:
        cells: Per seed a cell of one number of real images (or of several) and its arms; all with as many draws. Draws and
            sizes of a seed count together: more of them make its number surer, not the seeds more.
    """
    case, rows = cells[0][0].case, {}
    shown = [_is_shown([cell.case for cell, _ in cells], index) for index in range(len(case.class_names))]
    seeds = [cell.seed for cell, _ in cells for _ in range(cell.settings.draws)]
    for arm in cells[0][0].arms():
        row: dict[str, Any] = {"minutes": round(float(np.mean([cell.seconds(arm) for cell, _ in cells])) / 60, 1)}
        if arm.version:  # a refused round leaves the version before in use, whose images these then are
            row["refused"] = sum("refused" in cell.rounds.round(arm.version).arrays for cell, _ in cells)
        report(f"computing ranges: {arm}")
        mine, compared = _arrays(cells, arm), [other for other in _compared_with(arm) if str(other) in rows]
        others = {other: _arrays(cells, other) for other in compared}
        if case.task == "classification":
            rows[str(arm)] = row | _told_of_classes(case, mine, others, seeds)
        else:
            rows[str(arm)] = row | _told_of_masks(case, [_only(shown, one) for one in mine], others, seeds)
    return {"arms": rows, "rarest_class": rarest_class(case), "rounds": [cell.rounds.in_numbers() for cell, _ in cells]}


def _is_shown(cases: Sequence[Case], index: int) -> bool:
    """Whether some test image shows the class: of one that none shows, a single invented pixel would count as 0 beside all that
    is right of the others."""
    different = {id(case): case for case in cases}.values()
    return any((example.label_map == index).any() for case in different for example in case.test)


def _only(shown: Sequence[bool], arrays: Arrays) -> Arrays:
    """Numbers of those classes alone; the others are unknown."""
    return arrays | {name: np.where(shown, arrays[name], np.nan) for name in ("dice", "iou", "hd95")}


def _arrays(cells: Sequence[tuple[Cell, Measured]], arm: Arm) -> list[Arrays]:
    """Of each draw of each cell, in the order of the cells."""
    return [stage.arrays for _, found in cells for stage in found[str(arm)]]


def _told_of_masks(
    case: Case, mine: Sequence[Arrays], others: dict[Arm, list[Arrays]], seeds: Sequence[int]
) -> dict[str, Any]:
    foreground, groups = list(range(1, len(case.class_names))), [arm["group"] for arm in mine]

    def over(name: str, classes: list[int], minus: Sequence[Arrays] | None = None) -> list[float | None]:
        less = None if minus is None else [arm[name][:, classes] for arm in minus]
        return _rounded(mean_with_interval([arm[name][:, classes] for arm in mine], groups, seeds, minus=less))

    row: dict[str, Any] = {}
    for name in ("dice", "iou", "hd95"):
        row[name] = over(name, foreground)
        row[f"{name}_per_class"] = {case.class_names[index]: over(name, [index]) for index in foreground}
    for other, theirs in others.items():
        gain = row[f"gain over {other}"] = over("dice", foreground, theirs)
        row[f"relative gain over {other}"] = _relative(gain, row["dice"])
        row[f"gain per class over {other}"] = {case.class_names[index]: over("dice", [index], theirs) for index in foreground}
    return row


def _told_of_classes(
    case: Case, mine: Sequence[Arrays], others: dict[Arm, list[Arrays]], seeds: Sequence[int]
) -> dict[str, Any]:
    names = list(enumerate(case.class_names))
    row: dict[str, Any] = {
        name: _rounded(classified.with_interval(mine, statistic, seeds)) for name, statistic in classified.STATISTICS.items()
    }
    row["f1_per_class"] = {
        name: _rounded(classified.with_interval(mine, classified.f1_of(index), seeds)) for index, name in names
    }
    for other, theirs in others.items():
        gain = row[f"gain over {other}"] = _rounded(classified.gain_with_interval(mine, theirs, classified.macro_f1, seeds))
        row[f"relative gain over {other}"] = _relative(gain, row["f1"])
        row[f"gain per class over {other}"] = {
            name: _rounded(classified.gain_with_interval(mine, theirs, classified.f1_of(index), seeds)) for index, name in names
        }
    return row


def _relative(gain: Sequence[float | None], mine: Sequence[float | None]) -> float | None:
    """The gain as a share of what the other arm reaches."""
    if gain[0] is None or mine[0] is None or not mine[0] - gain[0]:
        return None
    return round(gain[0] / (mine[0] - gain[0]), 4)


def _compared_with(arm: Arm) -> list[Arm]:
    """The arms that a gain is told over: real images alone, and whatever is one step simpler."""
    others = [Arm("plain"), Arm("augmented")]
    if arm.share:
        others += [Arm(kind, arm.share, arm.recipe) for kind in ("base", "weak", "hardest", "mined", "painted", "rejection")]
        others += [Arm(f"aligned {number}", arm.share, arm.recipe) for number in range(1, arm.version + 1)]
    return [other for other in others if other != arm]


def _rounded(values: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(value) else round(value, 4) for value in values]


_WORDS = {
    "plain": "real images only",
    "augmented": "the same, augmented",
    "base": "+ base synthetic",
    "ceiling": "+ base of all images, 4 x the steps,",
    "rejection": "+ best of K",
    "aligned": "+ aligned, round",
    "curated": "+ best of K, aligned",
    "few": "+ few-shot fit",
    "weak": "+ base, masks by what is missed",
    "hardest": "+ hardest, whatever the judge says",
    "mined": "+ hard and right",
    "learned": "+ hard and right, learnt start",
    "gated": "+ base, quality check",
    "unlike": "+ best of K, copies left out",
    "refined": "+ base, refined masks",
    "painted": "+ painted into real images",
    "guided": "+ painted with a guide",
}
_COMPARED = ("plain", "augmented", "base", "weak", "hardest", "mined", "painted", "rejection")
"""Arms over which the table has a column."""


def markdown(result: dict[str, Any]) -> list[str]:
    """From what the command writes as JSON: a table per number of real images, and the last arm's gain class by class."""
    found: list[str] = []
    measure, others = ("f1", ["accuracy", "auroc"]) if result["task"] == "classification" else ("dice", ["iou", "hd95"])
    for size, part in result["real"].items():
        arms: dict[str, dict[str, Any]] = part["arms"]
        compared = [name for name in arms if name.split()[0] in _COMPARED]
        sized = "all sizes together" if size == "together" else f"{size} real images"
        found += ["", f"{sized}, {_runs(len(part['rounds']), result.get('settings', {}))}:", "",
                  "| trained on | " + " | ".join([measure, *others, *(f"over {name}" for name in compared), "minutes"]) + " |",
                  "|" + "---|" * (3 + len(others) + len(compared))]  # fmt: skip
        for name, row in arms.items():
            gains = [_ranged(row.get(f"gain over {other}"), signed=True) for other in compared]
            numbers = [_ranged(row[measure]), *(_plain(row[other]) for other in others), *gains, f"{row['minutes']:g}"]
            found.append(f"| {_words(name)} | " + " | ".join(numbers) + " |")
        last = list(arms)[-1]
        for other in compared[1:]:
            per_class = arms[last].get(f"gain per class over {other}", {})
            if len(per_class) > 1:
                told = (f"{label}{' (rarest)' if label == part['rarest_class'] else ''} "
                        f"{_ranged(gain, signed=True) or 'in no test image'}" for label, gain in per_class.items())  # fmt: skip
                found += ["", f"{last} over {other}, class by class: " + "; ".join(told)]
        found += _told_of_material(part.get("material") or {}) + _told_of_weak_cell(part.get("weak cell") or {})
    return found


def _told_of_material(rows: dict[str, Any]) -> list[str]:
    """What the images of arms of hard images are like."""
    if not rows:
        return []
    heads = ("images", "loss of the selectors", "Dice of an outsider", "over weak", "distance", "pass the quality check", "found",
             "made")  # fmt: skip
    found = ["", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for kind, row in rows.items():
        distance = " ".join(f"{value:.2f}" for value in row.get("distance", []))
        counts = [" ".join(map(str, row.get(name, []))) for name in ("prizes", "made")]
        found.append(f"| {_words(kind)} | " + " | ".join([
            _ranged(row["loss"]), _ranged(row["outsider"]), _ranged(row.get("outsider over weak"), signed=True), distance,
            _plain(row["plausible"]), *counts]) + " |")  # fmt: skip
    return found


def _told_of_weak_cell(found: dict[str, Any]) -> list[str]:
    """Recall of what was missed most, and of all else."""
    if not found or "missing" in found:
        return ["", f"Missed most: unknown; {found['missing']}."] if found else []
    columns = ("weak over base", "weak over weak", "others over base", "others over weak")
    heads = ("over base", "over masks by what is missed", "others over base", "others over masks by what is missed")
    lines = ["", f"Missed most: {'; '.join(found['cells'])}. Recall:", "", "| trained on | missed most | others | "
             + " | ".join(heads) + " |", "|" + "---|" * (3 + len(heads))]  # fmt: skip
    for name, row in found["arms"].items():
        gains = [_ranged(row.get(column), signed=True) for column in columns]
        lines.append(f"| {_words(name)} | " + " | ".join([_ranged(row["weak"]), _ranged(row["others"]), *gains]) + " |")
    for name, row in found["arms"].items():
        if gains_of := {label: one["over base"] for label, one in row.get("by class", {}).items() if "over base" in one}:
            lines += ["", f"{_words(name)}, recall over base, class by class: " + "; ".join(
                f"{label} {_ranged(gain, signed=True) or 'in no test image'}" for label, gain in gains_of.items())]  # fmt: skip
    return lines


def _runs(count: int, settings: dict[str, Any]) -> str:
    """How often it was measured, and who ordered the candidates where that was not the selectors."""
    draws = settings.get("draws", 1)
    times = f"{count} runs" + (f" of {draws} draws" if draws > 1 else "")
    return f"{times}, candidates ordered by those who vote" if settings.get("voters") else times


def _words(name: str) -> str:
    kind, *rest = name.split()
    return " ".join([_WORDS[kind], *(rest if kind not in ("plain", "augmented") else [])])


def _plain(value: Sequence[float | None]) -> str:
    return "-" if value[0] is None else f"{value[0]:.3f}"


def _ranged(value: Sequence[float | None] | None, *, signed: bool = False) -> str:
    """0.512 (0.480 to 0.544)"""
    if value is None or value[0] is None or value[1] is None or value[2] is None:
        return ""
    mean, low, high = value
    return f"{mean:{'+' if signed else ''}.3f} ({low:.3f} to {high:.3f})"
