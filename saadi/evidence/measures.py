"""What a downstream model reaches on the real images of unseen patients, image by image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance
from numpy.typing import NDArray

from saadi.downstream.classifier import Classifier, class_of
from saadi.downstream.metrics import agreement
from saadi.downstream.models import DownstreamModel
from saadi.evidence import classified
from saadi.evidence.cases import Example
from saadi.evidence.stages import Arrays, Stage
from saadi.mining.weakness import parts_of
from saadi.records import IGNORE, LabelMap, Task

PART_VALUES = 6
"""Row of the image, class, area, contrast, place, recall."""


def measure(model: DownstreamModel, examples: Sequence[Example], *, num_classes: int) -> Arrays:
    """Per test image and class: Dice, IoU and the 95 % Hausdorff distance in pixels; NaN where neither mask has the class. And of
    each connected part of a class: the row of its image, and what a `saadi.mining.weakness.Part` says, but for the patient.

    Of a classifier its probabilities and the true classes.
    """
    groups = np.array([example.group for example in examples])
    if isinstance(model, Classifier):
        labels = np.array([class_of(example.label_map) for example in examples])
        return {"probabilities": model.probabilities([e.image for e in examples]), "label": labels, "group": groups}
    shape = (len(examples), num_classes)
    found = {name: np.full(shape, np.nan) for name in ("dice", "iou", "hd95")}
    parts: list[tuple[float, ...]] = []
    for row, (example, prediction) in enumerate(
        zip(examples, model.predict([example.image for example in examples]), strict=True)
    ):
        for index, values in agreement(prediction.label_map, example.label_map, num_classes=num_classes).items():
            found["dice"][row, index], found["iou"][row, index] = values.dice, values.iou
        found["hd95"][row] = hd95(prediction.label_map, example.label_map, num_classes=num_classes)
        parts += [(row, *part[:-1]) for part in parts_of(example.label_map, image=example.image, seen=prediction.label_map)]
    return found | {"group": groups, "parts": np.array(parts, np.float64).reshape(-1, PART_VALUES)}


def hd95(predicted: LabelMap, asked: LabelMap, *, num_classes: int) -> NDArray[np.float64]:
    """A class that only one of both has counts as far away as the picture's diagonal."""
    counted = asked != IGNORE
    hot = [np.stack([(labels == index) & counted for index in range(num_classes)]) for labels in (predicted, asked)]
    has = [part.reshape(num_classes, -1).any(1) for part in hot]
    values = np.full(num_classes, np.nan)
    values[has[0] ^ has[1]] = math.hypot(*asked.shape)
    both = has[0] & has[1]
    if both.any():
        one, other = (torch.from_numpy(part[both][None]).float() for part in hot)
        values[both] = compute_hausdorff_distance(one, other, include_background=True, percentile=95)[0].numpy()
    return values


def told(task: Task, stage: Stage) -> float:
    """One number of an arm: Dice, averaged over images class by class, then over foreground classes; or mean F1."""
    if task == "classification":
        return classified.macro_f1(stage["probabilities"], stage["label"])
    seen = stage["dice"][:, 1:]
    return float(np.nanmean(seen[:, ~np.isnan(seen).all(0)], axis=0).mean())
