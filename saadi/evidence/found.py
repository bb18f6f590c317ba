"""Beside the Dice of arms of hard images: what their images are like, and what becomes of the parts that were missed most.

After the acceptance list of methods.md, section 3: mined images are harder for the target than others of the same label maps, as
right for somebody who has not chosen them, and no farther from real ones; and a model that has learnt from them finds more in the
weak cell.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saadi.evidence.extra_arms import OF_WEAKNESS, SOURCES
from saadi.evidence.gains import Cell, Measured
from saadi.evidence.intervals import mean_with_interval
from saadi.evidence.rounds import Masks
from saadi.evidence.settings import Arm
from saadi.mining.weakness import BINS, MIN_PARTS, Weakness
from saadi.plausibility import class_looks
from saadi.quality import LOOK, look, nearest_distance, standardised
from saadi.records import Image

WeakCell = frozenset[tuple[int, int]]
"""Classes and sizes, by their places in BINS."""


def material(cells: Sequence[Cell]) -> dict[str, Any]:
    """Of each arm that begins with what is missed: loss of the selectors; Dice and distance to real images (1 = what images of
    the arm 'weak' have) in the eyes of an outsider, who has learnt from the test patients alone and by whom nothing was chosen;
    share that passes the quality check, by which mined images were chosen; and what was made for it."""
    kinds = [kind for kind in OF_WEAKNESS if kind in cells[0].settings.extras]
    if not kinds or cells[0].case.task == "classification":
        return {}
    seeds, groups = [cell.seed for cell in cells], [_groups(cell, kinds[0]) for cell in cells]
    looked = {kind: [_looked_at(cell, kind) for cell in cells] for kind in kinds}
    rows: dict[str, Any] = {}
    for kind in kinds:
        rows[kind] = {name: _ranged([one[name] for one in looked[kind]], groups, seeds)
                      for name in ("loss", "outsider", "plausible")}  # fmt: skip
        if "weak" in kinds:
            rows[kind]["outsider over weak"] = _ranged([one["outsider"] for one in looked[kind]], groups, seeds,
                                                       minus=[one["outsider"] for one in looked["weak"]])  # fmt: skip
            rows[kind]["distance"] = [round(float(mine["distance"].mean() / plain["distance"].mean()), 4)
                                      for mine, plain in zip(looked[kind], looked["weak"], strict=True)]  # fmt: skip
        told = [cell.synthetic(Arm(kind, cell.settings.shares[0]))[0].arrays for cell in cells]
        for name in ("prizes", "made"):
            if f"_{name}" in told[0]:
                rows[kind][name] = [int(one[f"_{name}"]) for one in told]
    return rows


def _made(cell: Cell, kind: str) -> tuple[list[Image], Masks]:
    """The images of an arm and their label maps with the numbers of the real images that these are moved from."""
    arrays = cell.synthetic(Arm(kind, cell.settings.shares[0]))[0].arrays
    images = list(arrays["images"])
    if SOURCES not in arrays:  # made by an earlier version
        return images, cell.extras.weak_masks(len(images), first=0)
    return images, list(zip(list(arrays["label_maps"]), arrays[SOURCES].tolist(), strict=True))


def _groups(cell: Cell, kind: str) -> NDArray[np.str_]:
    return np.array([cell.learners.real[source].group for _, source in _made(cell, kind)[1]])


def _looked_at(cell: Cell, kind: str) -> dict[str, NDArray[np.float64]]:
    own = cell.learners
    images, masks = _made(cell, kind)
    outsider, stick = own.scorer("expert"), cell.extras.yardstick()
    fidelity = [one.mean for one in outsider.fidelity(images, [label_map for label_map, _ in masks])]
    real = outsider.features([example.image for example in own.real])
    distance = nearest_distance(standardised(outsider.features(images), real), standardised(real, real))
    looks = [class_looks(image, label_map) for image, (label_map, _) in zip(images, masks, strict=True)]
    verdicts = stick.judge({LOOK: np.stack([look(image) for image in images])}, looks) if stick is not None else []
    plausible = [one is None or one.verdict == "plausible" for one in verdicts] or [True] * len(images)
    return {"loss": 1 - own.scores(images, masks), "outsider": np.array(fidelity), "distance": distance.astype(np.float64),
            "plausible": np.array(plausible, np.float64)}  # fmt: skip


def weak_cell(cells: Sequence[tuple[Cell, Measured]]) -> dict[str, Any]:
    """What each arm's models find of the parts that the selectors had missed most (the class and size with the lowest recall in
    unseen real images; where a kind of object is scarce on purpose, its classes), and of all other parts, in the images of test
    patients."""
    if cells[0][0].case.task == "classification":
        return {}
    if any("parts" not in stage.arrays for _, found in cells for stages in found.values() for stage in stages):
        return {"missing": "some of these arms were measured by an earlier version, which kept no parts; measure them anew in "
                           "another --folder"}  # fmt: skip
    draws = cells[0][0].settings.draws
    seeds = [cell.seed for cell, _ in cells for _ in range(draws)]
    known = [cell.extras.weakness() for cell, _ in cells]
    if not all(one.classes for one in known):
        return {"missing": "no real image that the selectors have not seen shows a class"}
    names, scarce = cells[0][0].case.class_names, cells[0][0].settings.scarce
    planted = frozenset((names.index(name), size) for name in scarce for size in range(len(BINS)))
    weakest = [planted or frozenset([weakest_of(one)]) for one in known]
    rows: dict[str, Any] = {}

    def seen(arm: Arm, wanted: Callable[[tuple[int, int], WeakCell], bool]) -> list[NDArray[np.float64]]:
        return [_recall(stage.arrays, cell_known, lambda part, weak=weak: wanted(part, weak),  # type: ignore[misc]
                        {index for index, _ in planted})
                for (_, found), cell_known, weak in zip(cells, known, weakest, strict=True)
                for stage in found[str(arm)]]  # fmt: skip

    groups = [stage.arrays["group"] for _, found in cells for stage in found["plain 0"]]
    for arm in cells[0][0].arms():
        row = rows[str(arm)] = {}
        for name, wanted in (("weak", _is_weak), ("others", _is_other)):
            mine = seen(arm, wanted)
            row[name] = _ranged(mine, groups, seeds)
            for other in ("base", "weak"):
                simpler = Arm(other, arm.share, arm.recipe)
                if arm.share and arm != simpler and str(simpler) in rows:
                    row[f"{name} over {other}"] = _ranged(mine, groups, seeds, minus=seen(simpler, wanted))
        row["by class"] = {}
        base = Arm("base", arm.share, arm.recipe)
        for index in sorted({index for one in known for index in one.classes}):
            mine = seen(arm, partial(_is_of, index))
            told_of = row["by class"][names[index]] = {"recall": _ranged(mine, groups, seeds)}
            if arm.share and arm != base:
                told_of["over base"] = _ranged(mine, groups, seeds, minus=seen(base, partial(_is_of, index)))
    told = [" and ".join(scarce)] if scarce else [
        ", ".join(f"{names[index]}, {BINS[size]}" for index, size in one) for one in weakest]  # fmt: skip
    return {"cells": told, "arms": rows}


def _is_weak(part: tuple[int, int], weak: WeakCell) -> bool:
    return part in weak


def _is_of(index: int, part: tuple[int, int], weak: WeakCell) -> bool:
    return part[0] == index


def _is_other(part: tuple[int, int], weak: WeakCell) -> bool:
    return not _is_weak(part, weak)


def weakest_of(known: Weakness) -> tuple[int, int]:
    """The class and size that is found worst, of those with MIN_PARTS parts; as long as another class is found, none of a class
    that never is: nothing that is learnt of it could be told from chance. With too few parts in all of them the class alone."""
    told = [(cell.recall, index, size) for index, one in known.classes.items() if one.recall > 0.02
            for size, cell in enumerate(one.axes["size"]) if cell.num_parts >= MIN_PARTS]  # fmt: skip
    told = told or [(one.recall, index, 0) for index, one in known.classes.items()]
    _, index, size = min(told)
    return index, size


def _recall(
    arrays: dict[str, NDArray[Any]], known: Weakness, wanted: Callable[[tuple[int, int]], bool], planted: Collection[int] = ()
) -> NDArray[np.float64]:
    """(N,) mean recall over the wanted parts of each test image; NaN where it has none. Classes that no unseen real image shows
    do not count, but for those that are scarce on purpose."""
    total, count = np.zeros(len(arrays["group"])), np.zeros(len(arrays["group"]))
    for row, index, area, _, _, recall in arrays["parts"]:
        one = known.classes.get(int(index))
        if one is None and int(index) not in planted:
            continue
        # Of a class that no unseen image shows all sizes are alike.
        if wanted((int(index), 0 if one is None else int(area > one.size_edges[0]) + int(area > one.size_edges[1]))):
            total[int(row)] += recall
            count[int(row)] += 1
    return np.asarray(total / np.where(count > 0, count, np.nan))


def _ranged(
    values: Sequence[NDArray[np.float64]], groups: Sequence[NDArray[np.str_]], seeds: Sequence[int],
    minus: Sequence[NDArray[np.float64]] | None = None,
) -> list[float | None]:  # fmt: skip
    return [None if np.isnan(value) else round(value, 4)
            for value in mean_with_interval(values, groups, seeds, minus=minus)]  # fmt: skip
