"""An adapter against its parent on label maps that neither pairs nor gate have used: those of the test split."""

from __future__ import annotations

from typing import Any

import numpy as np

from saadi.alignment.gate import Gate, compare, metrics_of
from saadi.alignment.material import MAX_REAL
from saadi.datasets.real import real_pairs
from saadi.downstream.scoring import selector_and_judge
from saadi.engines.fitting import load_engine
from saadi.errors import TooFewError
from saadi.records import Adapter, Project
from saadi.store import Store

FIRST_SEED = 2**41
"""Seeds of fresh images: far from those of pools and gates."""


def measure_adapter(store: Store, project: Project, adapter: Adapter, *, num_masks: int = 64) -> dict[str, Any]:
    """Judge's and selector's Dice, win rate with interval, distances to held-out real images, before and after.

    Label maps come from the test split, then the same mirrored (mirrored masks are new conditions of unseen patients).

    Raises:
        TooFewError: The test split holds fewer than four label maps.
    """
    side = project.resolution
    images, label_maps = real_pairs(store, project, "test", side=side)
    if len(label_maps) < 4:
        raise TooFewError(f"{len(label_maps)} label maps in the test split, 4 needed to measure; import more patients")
    wanted = [*label_maps, *[np.ascontiguousarray(label_map[:, ::-1]) for label_map in label_maps]][:num_masks]
    scorers = selector_and_judge(store, project)
    if scorers is None:
        raise TooFewError("this project has no selector and judge yet; run `train-scorer` first")
    gate = Gate(
        label_maps=wanted, selector=scorers[0], judge=scorers[1], num_classes=len(project.classes),
        real=images[:MAX_REAL], training=real_pairs(store, project, "train", limit=MAX_REAL, side=side)[0],
        pictures=[*images, *[np.ascontiguousarray(image[:, ::-1]) for image in images]][:num_masks])  # fmt: skip
    engine = load_engine(store, project, model_id=adapter.model_id)
    parent = store.adapter(adapter.parent_id) if adapter.parent_id else None
    seeds = [FIRST_SEED + index for index in range(len(wanted))]
    regions = gate.regions(engine)
    before = engine.generate(
        wanted, seeds, adapter=store.files.path(parent.file) if parent else None, adapter_scale=parent.scale if parent else
        1.0, regions=regions)  # fmt: skip
    after = engine.generate(wanted, seeds, adapter=store.files.path(adapter.file), adapter_scale=adapter.scale, regions=regions)
    reference, present = gate.read(before), gate.read(after)
    verdict = compare(present, reference, winner_ratio=adapter.metrics.get("winner_ratio", 1.0), task=project.task)
    ceiling = real_ceiling(gate, project, store)
    return metrics_of(present, reference, verdict, task=project.task) | {
        "adapter": adapter.name,
        "real_images": ceiling,
        "label_maps": "classes of the test split" if project.task == "classification" else "test split, mirrored when needed",
    }


def real_ceiling(gate: Gate, project: Project, store: Store) -> dict[str, float]:
    """What selector and judge reach on the real test images themselves: the ceiling of mask fidelity."""
    images, label_maps = real_pairs(store, project, "test")
    held = Gate(
        label_maps=label_maps,
        selector=gate.selector,
        judge=gate.judge,
        num_classes=len(project.classes),
        real=images,
        training=gate.training,
    )
    reading = held.read(images)
    return {
        "dice": round(float(np.mean(reading.dice)), 4),
        "selector_dice": round(float(np.mean(reading.selector_dice)), 4),
        "num_images": len(images),
    }
