"""How well one box or one click finds an object: IoU per class, on phantom scenes and on real pairs of image and mask."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from saadi.datasets import phantom
from saadi.records import Image
from saadi.segmentation import grabcut
from saadi.segmentation.base import Box, Mask, Prompt

JITTER_PX = 3
"""By which each side of a box is off, at most, as a hand is."""
MIN_SHARE = 0.004
"""Of the image; nobody draws a box around less."""


@dataclass(frozen=True)
class Case:
    """One object to be found."""

    image: Image
    name: str
    """Its class."""
    mask: Mask
    box: Box
    """Around it, off by up to `JITTER_PX` on each side."""


def phantom_cases(num_scenes: int, *, seed: int, first_patient: int, num_patients: int, size_px: int = 256) -> Iterator[Case]:
    """The largest part of each class in each scene; tissue is what is left over and no object."""
    rng = np.random.default_rng(seed)
    for number in range(num_scenes):
        scene = phantom.render(int(rng.integers(2**31)), patient=first_patient + number % num_patients, size_px=size_px)
        for index, name in enumerate(phantom.CLASS_NAMES):
            if index != phantom.TISSUE and (mask := _largest_part(scene.label_map == index)) is not None:
                yield Case(scene.image, name, mask, _drawn_box(mask, rng))


def pair_cases(folder: Path, *, count: int) -> Iterator[Case]:
    """Evenly spread pairs of a folder with images/ and masks/ (above 127 = object)."""
    rng = np.random.default_rng(0)
    found = sorted((folder / "images").iterdir())
    for path in found[:: max(1, len(found) // count)][:count]:
        grey = np.asarray(cv2.imread(str(folder / "masks" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE))
        mask = _largest_part(np.asarray(grey > 127))
        if mask is not None:
            image = np.asarray(cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), np.uint8)
            yield Case(image, folder.name, mask, _drawn_box(mask, rng))


def iou(found: Mask, wanted: Mask) -> float:
    """Intersection over union; 1 where both are empty."""
    union = (found | wanted).sum()
    return float((found & wanted).sum() / union) if union else 1.0


def measure(cases: Iterator[Case] | list[Case], ask: Callable[[Case], Prompt]) -> dict[str, Any]:
    """Mean IoU per class, over all objects, and milliseconds for each (median, slowest)."""
    values: dict[str, list[float]] = {}
    times = []
    for case in cases:
        prompt = ask(case)
        started = time.perf_counter()
        found = grabcut.segment(case.image, prompt)
        times.append(1000 * (time.perf_counter() - started))
        values.setdefault(case.name, []).append(iou(found, case.mask))
    return {
        "classes": {name: round(float(np.mean(part)), 3) for name, part in sorted(values.items())},
        "num_objects": len(times),
        "mean": round(float(np.mean([value for part in values.values() for value in part])), 3),
        "ms_median": round(float(np.median(times)), 1),
        "ms_slowest": round(max(times), 1),
    }


def by_box(case: Case) -> Prompt:
    """One box."""
    return Prompt(box=case.box)


def by_click(case: Case) -> Prompt:
    """One click at the point farthest from the object's border."""
    x, y = _middle(case.mask)[1]
    return Prompt(((x, y, True),))


def corrected(case: Case) -> Prompt:
    """One box, then one click into the middle of the largest mistake, as a hand would."""
    prompt = by_box(case)
    found = grabcut.segment(case.image, prompt)
    missed, wrong = (_middle(part) for part in (case.mask & ~found, found & ~case.mask))
    (depth, point), is_on = (missed, True) if missed[0] >= wrong[0] else (wrong, False)
    return Prompt(((*point, is_on),), prompt.box) if depth else prompt


def _middle(mask: Mask) -> tuple[float, tuple[float, float]]:
    """How far the point that is farthest from the border lies from it, and that point."""
    padded = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)
    y, x = np.unravel_index(int(np.argmax(padded)), padded.shape)
    return float(padded.max()), (float(x) - 0.5, float(y) - 0.5)


def _largest_part(mask: Mask) -> Mask | None:
    num, parts, found, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if num < 2:
        return None
    largest = 1 + int(np.argmax(found[1:, cv2.CC_STAT_AREA]))
    return np.asarray(parts == largest) if found[largest, cv2.CC_STAT_AREA] >= MIN_SHARE * mask.size else None


def _drawn_box(mask: Mask, rng: np.random.Generator) -> Box:
    y, x = np.nonzero(mask)
    off = rng.integers(-JITTER_PX, JITTER_PX + 1, 4)
    height, width = mask.shape
    return (max(0.0, x.min() + float(off[0])), max(0.0, y.min() + float(off[1])),
            min(float(width), x.max() + 1 + float(off[2])), min(float(height), y.max() + 1 + float(off[3])))


def run() -> dict[str, Any]:
    """IoU and time on phantom patients that the weights were not fitted to."""
    cases = list(phantom_cases(40, seed=2, first_patient=30, num_patients=20))
    results = {name: measure(cases, ask) for name, ask in
               (("one_box", by_box), ("box_and_correction", corrected), ("one_click", by_click))}
    for name, found in results.items():
        classes = ", ".join(f"{part} {value:.2f}" for part, value in found["classes"].items())
        print(f"{name}: IoU {found['mean']:.3f} over {found['num_objects']} objects ({classes}); {found['ms_median']:.0f} ms")
    return results
