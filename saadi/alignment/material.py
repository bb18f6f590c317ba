"""What an order of an alignment becomes for the recipe: pairs and images with their pixels, and the gate's label maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from saadi.alignment.gate import Gate
from saadi.alignment.settings import AlignmentConfig, TrainingPair, TrainingSingle
from saadi.datasets.real import real_pairs
from saadi.downstream.scoring import selector_and_judge
from saadi.engines.base import TrainableEngine
from saadi.errors import TooFewError
from saadi.masks import fit_image_to, fit_to, whole
from saadi.orders.recipe import learning_rate_and_term
from saadi.records import Image, LabelMap, PairSet, Project, Task
from saadi.store import Store

MIN_HELD = 8
"""Held-out real images below which training images take their place."""
MAX_REAL = 200
"""Real images used for distances."""
MAX_ANCHORS = 128
"""Real images held for the denoising term."""


def training_pairs(store: Store, pair_set: PairSet, *, side: int) -> list[TrainingPair]:
    """Pairs with their pixels, from the blob store, scaled to the engine's side; a blob that several pairs share is held once."""
    groups = pair_groups(pair_set, store.project(pair_set.project_id).task)

    @cache
    def image(blob: str) -> Image:
        return fit_image_to(store.blobs.image(blob), side=side)

    @cache
    def label_map(blob: str) -> LabelMap:
        return fit_to(store.blobs.label_map(blob), size=(side, side))

    return [
        TrainingPair(
            label_map=label_map(pair.label_map_blob),
            chosen=image(pair.chosen_blob),
            rejected=image(pair.rejected_blob),
            weight=pair.weight,
            is_real=pair.source == "real",
            group=group,
        )
        for pair, group in zip(pair_set.pairs, groups, strict=True)
    ]


def pair_groups(pair_set: PairSet, task: Task) -> list[str]:
    """What falls on one side of the held-out split, per pair: the pairs of a label map; in classification, where all pairs of a
    class have the same one, those that share an image."""
    if task == "segmentation":
        return [pair.label_map_blob for pair in pair_set.pairs]
    group_of = _linked_images(pair_set)
    return [group_of(pair.chosen_blob) for pair in pair_set.pairs]


def _linked_images(pair_set: PairSet) -> Callable[[str], str]:
    """Blob of an image -> one name for all images that pairs connect with it."""
    leader: dict[str, str] = {}

    def find(blob: str) -> str:
        while (above := leader.setdefault(blob, blob)) != blob:
            blob = above
        return blob

    for pair in pair_set.pairs:
        leader[find(pair.chosen_blob)] = find(pair.rejected_blob)
    return find


def training_singles(store: Store, pair_set: PairSet, *, side: int) -> list[TrainingSingle]:
    """Single images with their pixels, scaled to the engine's side; one that a pair has is of that pair's group."""
    is_classification = store.project(pair_set.project_id).task == "classification"
    group_of = _linked_images(pair_set)
    return [
        TrainingSingle(
            label_map=fit_to(store.blobs.label_map(single.label_map_blob), size=(side, side)),
            image=fit_image_to(store.blobs.image(single.blob), side=side),
            is_liked=single.is_liked,
            weight=single.weight,
            group=group_of(single.blob) if is_classification else single.label_map_blob,
        )
        for single in pair_set.singles
    ]


def anchors(store: Store, project: Project, *, side: int) -> list[tuple[Image, LabelMap]]:
    """Real training images with their label maps, at the engine's side, spread over the split."""
    return list(zip(*real_pairs(store, project, "train", limit=MAX_ANCHORS, side=side), strict=True))


def gate_label_maps(store: Store, project: Project, *, count: int, exclude: set[str]) -> list[tuple[str, bool]]:
    """Label maps that no pair uses: of the validation split, then unused ones of the training split, then mirrored ones.

    Returns:
        (blob, whether it is to be mirrored) each.

    Raises:
        TooFewError: The project has fewer than four label maps in all.
    """
    validation = [record.blob for record in store.label_maps(project.id, splits=["val"])]
    training = [record.blob for record in store.label_maps(project.id, splits=["train"])]
    unused = list(dict.fromkeys(blob for blob in [*validation, *training] if blob not in exclude))
    chosen = [(blob, False) for blob in unused[:count]]
    chosen += [(blob, True) for blob in dict.fromkeys([*unused, *training])][: count - len(chosen)]
    if len(chosen) < 4:
        raise TooFewError(f"{len(chosen)} label maps to check the new model on, 4 needed; import or draw {4 - len(chosen)} more")
    return chosen


def gate_classes(store: Store, project: Project, *, count: int) -> list[int]:
    """The classes on which a new version of a classification project is tested, on seeds of their own.

    Each class that real images show comes twice, then as often as the held-out real images (the training images, where there are
    few) show it, so that both sets are mixed alike when their distance is measured.

    Raises:
        TooFewError: No training image has a class.
    """
    shown = store.count_classes(project.id, splits=["train"])
    if not shown:
        raise TooFewError("no training image has a class to check the new model on; import images with their classes")
    held = store.count_classes(project.id, splits=["val"])
    like = held if sum(held.values()) >= MIN_HELD else shown
    shares = {project.class_names.index(name): like.get(name, 0) for name in shown if name in project.class_names}
    chosen = sorted(shares) * 2
    while len(chosen) < count:  # the highest averages, as seats are dealt out
        chosen.append(max(shares, key=lambda index: (shares[index] / (chosen.count(index) + 1), -index)))
    return chosen[: max(count, len(shares))]


def _turned(pixels: np.ndarray, is_mirrored: bool) -> np.ndarray:
    return np.ascontiguousarray(pixels[:, ::-1]) if is_mirrored else pixels


def _pictures(store: Store, project: Project, chosen: Sequence[tuple[str, bool]]) -> list[Image]:
    """The real images that label maps belong to, at the project's side."""
    blobs = {image.id: image.blob for image in store.images(project.id, splits=["train", "val"])}
    of = {record.blob: blobs[record.image_id] for record in store.label_maps(project.id, splits=["train", "val"])
          if record.image_id in blobs}  # fmt: skip
    return [_turned(fit_image_to(store.blobs.image(of[blob]), side=project.resolution), mirrored) for blob, mirrored in chosen]


def build_gate(store: Store, project: Project, *, count: int, exclude: set[str], with_pictures: bool = False) -> Gate:
    """The gate of a project: its selector and judge, unused label maps, held-out real images.

    Args:
        with_pictures: Also the real images of the label maps, for a generator that paints into pictures.
    """
    scorers = selector_and_judge(store, project)
    if scorers is None:
        raise TooFewError("this project has no selector and judge yet; run `train-scorer` first")
    side = project.resolution  # real images are compared at the size at which images are made
    training = real_pairs(store, project, "train", limit=MAX_REAL, side=side)[0]
    real = real_pairs(store, project, "val", limit=MAX_REAL, side=side)[0]
    scaled = {"training": training, "real": real if len(real) >= MIN_HELD else training}
    if project.task == "classification":
        label_maps = [whole(index, side=side) for index in gate_classes(store, project, count=count)]
        return Gate(label_maps=label_maps, selector=scorers[0], judge=scorers[1], num_classes=len(project.classes), **scaled)
    chosen = gate_label_maps(store, project, count=count, exclude=exclude)
    return Gate(
        label_maps=[_turned(store.blobs.label_map(blob), mirrored) for blob, mirrored in chosen],
        pictures=_pictures(store, project, chosen) if with_pictures else None,
        selector=scorers[0],
        judge=scorers[1],
        num_classes=len(project.classes),
        **scaled,
    )


@dataclass(frozen=True)
class Learning:
    """What an order learns from, and how; the same in every process of a crew."""

    config: AlignmentConfig
    pairs: list[TrainingPair]
    singles: list[TrainingSingle]
    anchors: list[tuple[Image, LabelMap]]
    parent: Path | None
    parent_scale: float


def learning(store: Store, order: dict[str, Any], engine: TrainableEngine) -> Learning:
    project, pair_set = store.project(order["project_id"]), store.pair_set(order["pair_set_id"])
    parent = store.adapter(order["parent_id"]) if order["parent_id"] is not None else None
    found = Learning(
        config=config_of(order, engine=engine.name),
        pairs=training_pairs(store, pair_set, side=engine.resolution),
        singles=training_singles(store, pair_set, side=engine.resolution),
        anchors=anchors(store, project, side=engine.resolution),
        parent=store.files.path(parent.file) if parent else None,
        parent_scale=parent.scale if parent else 1.0,
    )
    return found if order.get("negative") is None else _the_other_way_round(found)


def _the_other_way_round(given: Learning) -> Learning:
    """Losers win, and nothing holds the model on real images: what is to be avoided is learnt (Diffusion-NPO)."""
    pairs = [replace(pair, chosen=pair.rejected, rejected=pair.chosen, is_real=False) for pair in given.pairs]
    singles = [replace(single, is_liked=not single.is_liked) for single in given.singles]
    return replace(given, pairs=pairs, singles=singles, anchors=[])


def config_of(order: dict[str, Any], *, engine: str) -> AlignmentConfig:
    """The settings of an order, as they lie in its job; those of earlier versions lack some.

    Args:
        engine: Its name: what is not chosen is its own.
    """
    loss = order.get("loss", "dpo")
    learning_rate, sft_weight = learning_rate_and_term(
        engine, loss, learning_rate=order["learning_rate"], sft_weight=order["sft_weight"],
        is_negative=order.get("negative") is not None)  # fmt: skip
    return AlignmentConfig(
        num_steps=order["steps"],
        batch_size=order["batch_size"],
        learning_rate=learning_rate,
        beta=order["beta"],
        sft_weight=sft_weight,
        gate_every=order["gate_every"],
        seed=order["seed"],
        loss=loss,
        sdpo_mu=order.get("sdpo_mu"),
        accumulation=order.get("accumulation", 1),
        ema_decay=order.get("ema_decay"),
        scale_search=order.get("scale_search", "rescue"),
        checkpointing=order.get("checkpointing", False),
    )
