"""The one label compiler: a project's label maps and classes to the ids of a format, and what gets lost on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saadi.errors import SizeMismatchError, UnknownClassError
from saadi.masks import fit_to
from saadi.records import IGNORE, LabelClass, LabelMap
from saadi.refinement import eroded

IGNORED = "255 (ignore)"
"""The name under which pixels that do not count are counted."""


@dataclass(frozen=True)
class LabelScheme:
    """How a format numbers classes. Class indices of a project are consecutive already, so ids equal indices."""

    names: Mapping[str, int]
    """Name in the format -> id, background first."""
    num_classes: int
    ignore_id: int | None
    """What pixels that do not count (255 in the store) become; None = no mask has such pixels."""
    lost: tuple[str, ...] = ()
    """Sentences: what this format cannot hold."""


def label_scheme(classes: Sequence[LabelClass], *, has_ignore: bool, background_is_zero: bool,
                 ignore_is_highest: bool) -> LabelScheme:
    """Compile the classes for a format.

    Args:
        has_ignore: Whether any mask has pixels that do not count.
        background_is_zero: The format calls id 0 'background', whatever the project calls it, and reserves 'ignore'.
        ignore_is_highest: The format wants the ignored id to be the number after the last class, else it stays 255.
    """
    names: dict[str, int] = {}
    lost: list[str] = []
    for label in classes:
        name = label.name
        if background_is_zero:
            name = "background" if label.index == 0 else f"{name}_class" if name in ("background", "ignore") else name
            while name in names:
                name += "_class"
        if name != label.name:
            lost.append(f"class {label.index} '{label.name}' is called '{name}' in this format")
        names[name] = label.index
    ignore_id = (len(classes) if ignore_is_highest else IGNORE) if has_ignore else None
    if ignore_id is not None and ignore_is_highest:
        names["ignore"] = ignore_id
    return LabelScheme(names=names, num_classes=len(classes), ignore_id=ignore_id, lost=tuple(lost))


def compile_label_map(label_map: LabelMap, scheme: LabelScheme) -> LabelMap:
    """Return the label map with the ids of a format, (H, W) uint8.

    Raises:
        UnknownClassError: A value that is neither a class nor ignore; names it and its number of pixels.
    """
    counts = np.bincount(label_map.ravel(), minlength=256)
    if unknown := [value for value in range(scheme.num_classes, IGNORE) if counts[value]]:
        raise UnknownClassError(f"a label map holds value {unknown[0]} ({counts[unknown[0]]} pixels), classes are "
                                f"0 to {scheme.num_classes - 1}; correct it in Draw")
    if not counts[IGNORE] or scheme.ignore_id == IGNORE:
        return label_map
    if scheme.ignore_id is None:
        raise UnknownClassError(f"a label map has {counts[IGNORE]} ignored pixels, none were expected; start the export again")
    return np.where(label_map == IGNORE, np.uint8(scheme.ignore_id), label_map).astype(np.uint8)


def at_image_size(label_map: LabelMap, *, size: tuple[int, int]) -> LabelMap:
    """The label map of a sample at the size of its image, by nearest neighbour, as the generator sees it.

    Args:
        size: (height, width) of the sample's image; a label map may be larger than what was generated from it.
    """
    return fit_to(label_map, size=size)


def refined(label_map: LabelMap, lineage: Mapping[str, Any], classes: Mapping[str, int]) -> LabelMap:
    """The label map of an item without the rim that its lineage says it is written without, at the size of its image.

    Args:
        classes: Class name -> index in the project.
    """
    told = lineage.get("refined")
    return label_map if told is None else eroded(label_map, {classes[name]: int(px) for name, px in told["radii_px"].items()})


def check_real_size(label_map: LabelMap, *, size: tuple[int, int]) -> LabelMap:
    """The label map of a real image, which has its size from the start.

    Raises:
        SizeMismatchError: It has not; a real mask is never resized.
    """
    if label_map.shape != size:
        raise SizeMismatchError(f"a label map is {label_map.shape}, its image {size}; import the pair again")
    return label_map


def vanished_classes(before: LabelMap, after: LabelMap) -> list[int]:
    """Classes that resizing has removed altogether; before and after may be the same array."""
    if before is after:
        return []
    return sorted(set(np.unique(before).tolist()) - set(np.unique(after).tolist()) - {IGNORE})


def count_pixels(label_map: LabelMap, classes: Sequence[LabelClass]) -> dict[str, int]:
    """Class name -> pixels of a label map as the store holds it, `IGNORED` last where there is any."""
    counts = np.bincount(label_map.ravel(), minlength=256)
    found = {label.name: int(counts[label.index]) for label in classes}
    return found | ({IGNORED: int(counts[IGNORE])} if counts[IGNORE] else {})
