"""What the values in masks may mean, and what is odd about them; a guess for a form, to be confirmed by a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from saadi.datasets.folder_pairs import normal
from saadi.decoding import COLOUR_BIT, parse_value, value_name
from saadi.records import IGNORE, LabelClass

RARE = 0.02
"""Share of all pixels below which a value may be nothing but a soft edge."""
SPAN = 60.0
"""Distance in RGB that the farthest two frequent values have at least: numbers of classes lie close to each other."""
_TOLERANCE = 12.0
"""Distance in RGB from the line between two colours within which a third is their blend."""
IGNORED_NAMES = frozenset({"ignore", "ignored", "void", "unlabeled", "unlabelled", "uncertain"})
CHOLECSEG8K = {80: "black background", 17: "abdominal wall", 33: "liver", 19: "gastrointestinal tract", 18: "fat", 49: "grasper",
               35: "connective tissue", 36: "blood", 37: "cystic duct", 50: "l-hook electrocautery", 34: "gallbladder",
               51: "hepatic vein", 5: "liver ligament"}  # fmt: skip
"""Grey levels of the data set's watershed masks, as its authors list them."""

Values = Mapping[int, tuple[int, int]]
"""Mask value -> (pixels, masks)."""


def names_of(values: Values, told: Mapping[int, str]) -> dict[int, str]:
    """What the data set calls its values: as its format tells, else as a data set known by its grey levels."""
    names = {value: told[value] for value in values if value in told}
    if not names and len(values) >= 3 and set(values) - {IGNORE} <= CHOLECSEG8K.keys():
        names = {value: CHOLECSEG8K[value] for value in values if value in CHOLECSEG8K}
    return names


def proposals(values: Values, names: Mapping[int, str], classes: Sequence[LabelClass]) -> dict[int, int]:
    """Value -> class index (255 = ignore) where there is a reason; values nobody can guess are left out.

    By name where the data set has names; by the colours of the classes where the masks are in them; a soft edge and 255 beside
    small numbers do not count; what is left are the classes in ascending order where there are as many of them.
    """
    by_name = {normal(label.name): label.index for label in classes}
    found: dict[int, int] = {}
    for value, name in names.items():
        if normal(name) in by_name:
            found[value] = by_name[normal(name)]
        elif normal(name) in IGNORED_NAMES:
            found[value] = IGNORE
        elif normal(name) == "background":
            found[value] = 0
        elif (plain := normal(name).removesuffix("_class")) in by_name:  # what our exports call a class of a reserved name
            found[value] = by_name[plain]
    if names:
        return found
    by_colour = {parse_value(label.color): label.index for label in classes}
    if len(by_colour) == len(classes) and len(values.keys() & by_colour.keys()) > 1:
        soft = dict.fromkeys(soft_edges(values, classes), IGNORE)
        return {value: by_colour[value] for value in values if value in by_colour} | soft
    found = {value: IGNORE for value in soft_edges(values, classes)}
    if IGNORE in values and len(values) == len(classes) + 1 and max((v for v in values if v < IGNORE), default=0) < len(classes):
        found[IGNORE] = IGNORE
    rest = [value for value in sorted(values) if value not in found]
    if len(rest) == len(classes):
        found |= {value: label.index for value, label in zip(rest, classes, strict=True)}
    return found


def is_certain(values: Values, names: Mapping[int, str], classes: Sequence[LabelClass]) -> bool:
    """Whether the format itself names every value as this project does, so that nobody need be asked."""
    return bool(values) and proposals(values, names, classes).keys() == values.keys() == names.keys()


def soft_edges(values: Values, classes: Sequence[LabelClass]) -> list[int]:
    """Values that are rare and lie between two frequent ones, as smoothed outlines make them.

    Never where as many values as classes are there, never a class's own colour, and never numbers that lie side by side: rare
    classes look so, too.
    """
    if len(values) <= len(classes) + 1:
        return []
    own = {parse_value(label.color) for label in classes}
    total = sum(pixels for pixels, _ in values.values()) or 1
    frequent = [value for value, (pixels, _) in values.items() if pixels > RARE * total or value in own]
    rare = [value for value in values if value not in frequent]
    ends = [_rgb(value) for value in frequent]
    if not ends or max(float(np.linalg.norm(one - other)) for one in ends for other in ends) < SPAN:
        return []
    blends = [value for value in rare if _lies_between(value, frequent, frequent)]
    if len(blends) < 3:
        return []  # a smoothed outline leaves many levels; one or two rare values are rare classes
    # Where three classes meet the blend is of three: it lies between a blend of two and the third.
    return sorted({*blends, *(value for value in rare if _lies_between(value, blends, frequent))})


def _lies_between(value: int, ones: Sequence[int], others: Sequence[int]) -> bool:
    return any(one != other and _is_between(value, one, other) for one in ones for other in others)


def findings(values: Values, classes: Sequence[LabelClass]) -> list[str]:
    """What is odd, a sentence each."""
    found: list[str] = []
    if blends := soft_edges(values, classes):
        pixels = sum(values[value][0] for value in blends)
        shown = ", ".join(map(value_name, blends[:4])) + (", ..." if len(blends) > 4 else "")
        found.append(f"{len(blends)} values ({shown}; {pixels} pixels) look like smoothed edges "
                     "between classes: they are proposed as 'ignore'; masks saved without smoothing would be better")  # fmt: skip
    plain = sorted(value for value in values if value < IGNORE)
    missing = [value for value in range(plain[-1]) if value not in values] if len(plain) > 2 else []
    if missing and len(missing) < len(plain) and not blends:
        found.append(f"no mask shows value {', '.join(map(str, missing[:5]))}, though there are higher ones: a class may be "
                     "missing")  # fmt: skip
    if IGNORE in values and len(plain) > 1 and plain[-1] < 100:
        found.append("255 often means pixels that do not count; say 'ignore' if so here")
    if len(values) - len(blends) > len(classes) + (IGNORE in values):
        found.append(f"the masks hold {len(values) - len(blends)} values and the project has {len(classes)} classes: several "
                     "values may be one class, or the project needs more classes")  # fmt: skip
    return found


def _is_between(value: int, one: int, other: int) -> bool:
    point, start, end = (_rgb(colour) for colour in (value, one, other))
    along = end - start
    length = float(along @ along)
    share = float((point - start) @ along) / length if length else 0.0
    return 0.02 < share < 0.98 and float(np.linalg.norm(start + share * along - point)) <= _TOLERANCE


def _rgb(value: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A colour, or a grey level three times."""
    if value & COLOUR_BIT:
        return np.array([value >> 16 & 255, value >> 8 & 255, value & 255], np.float64)
    return np.full(3, float(value))
