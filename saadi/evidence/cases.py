"""Data sets for evidence: a project's own images, or rendered scenes."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from saadi.datasets import phantom
from saadi.errors import NotFoundError, TooFewError
from saadi.masks import fit_image_to, fit_to
from saadi.masks import whole as whole
from saadi.records import Image, LabelMap, Project, RealImage, Split, Task
from saadi.store import Store

SPLITS: tuple[Split, ...] = ("train", "val", "test")
FEW, MANY = 200, 2000
"""Rendered training scenes; the latter where most of a cell's images are to lack a class that nearly all scenes show."""
SCARCE_SHOWN = 3
"""Real images of a cell that show what is scarce on purpose: enough to know that it exists."""


@dataclass(frozen=True)
class Example:
    """A real image with its label map."""

    image: Image
    """(side, side, 3) uint8."""
    label_map: LabelMap
    """(side, side) uint8."""
    group: str
    """Patient, video or operation."""


@dataclass(frozen=True)
class Case:
    """A data set: training and test patients are disjoint."""

    name: str
    class_names: tuple[str, ...]
    train: tuple[Example, ...]
    test: tuple[Example, ...]
    task: Task = "segmentation"
    """In classification each label map holds the class of its image in all pixels."""

    def __post_init__(self) -> None:
        shared = {example.group for example in self.train} & {example.group for example in self.test}
        if shared:
            raise ValueError(f"{len(shared)} patients are in training and test, for example {min(shared)!r}")


def digest(examples: Sequence[Example]) -> str:
    """Of pixels, label maps and patients."""
    found = hashlib.sha256()
    for one in examples:
        for part in (one.image.tobytes(), one.label_map.tobytes(), one.group.encode()):
            found.update(hashlib.sha256(part).digest())
    return found.hexdigest()


def choose_real(examples: Sequence[Example], count: int, *, seed: int, scarce: Collection[int] = ()) -> list[Example]:
    """Images for one cell, one patient after the other as long as there are others.

    Args:
        scarce: Classes of which SCARCE_SHOWN of them show one or more, and no other does; patients come as they are drawn then.

    Raises:
        TooFewError: The data set has fewer.
    """
    if count > len(examples):
        raise TooFewError(f"{count} real images wanted, the training patients have {len(examples)}; choose fewer")
    draw = np.random.default_rng(seed)
    by_group: dict[str, list[Example]] = {}
    order = [examples[index] for index in draw.permutation(len(examples))]
    if scarce:
        shows = [bool(np.isin(example.label_map, list(scarce)).any()) for example in order]
        showing, without = ([example for example, is_shown in zip(order, shows, strict=True) if is_shown is wanted]
                            for wanted in (True, False))  # fmt: skip
        if len(showing) < SCARCE_SHOWN or count <= SCARCE_SHOWN or len(without) < count - SCARCE_SHOWN:
            raise TooFewError(f"{SCARCE_SHOWN} of {count} real images are to show what is scarce; the training patients have "
                              f"{len(showing)} with it and {len(without)} without")  # fmt: skip
        order = showing[:SCARCE_SHOWN] + without[: count - SCARCE_SHOWN]
    for example in order:
        by_group.setdefault(example.group, []).append(example)
    return [group[turn] for turn in range(len(examples)) for group in by_group.values() if turn < len(group)][:count]


def of_project(
    store: Store, project: Project, *, side: int, test_share: float | None = None, test_groups: Collection[str] = ()
) -> Case:
    """Training images against those of the test split, or of the validation split where there is no other: nothing else uses it.

    Args:
        test_share: Deal all patients out anew instead, this share of them to the test set (always the same ones): more test
            images than a split that was made for training leaves.
        test_groups: Test on these patients, train on all others (leave one operation out).

    Raises:
        TooFewError: No labelled images to train on, or to measure on.
        NotFoundError: A test patient that the project does not have.
    """
    found = {split: _examples(store, project, split, side=side) for split in SPLITS}
    every = found["train"] + found["val"] + found["test"]
    if unknown := sorted(set(test_groups) - {example.group for example in every}):
        known = sorted({example.group for example in every})
        raise NotFoundError(f"patient {unknown[0]!r} is not in {project.name}; it has {len(known)}, for example {known[:3]}")
    if test_share is not None:
        test_groups = dealt({example.group for example in every}, share=test_share)
    if test_groups:
        train = tuple(example for example in every if example.group not in test_groups)
        test = tuple(example for example in every if example.group in test_groups)
    else:
        train, test = found["train"], found["test"] or found["val"]
    if not train or not test:
        raise TooFewError(f"{len(train)} labelled training images and {len(test)} of test or validation patients; import both")
    return Case(project.name, project.class_names, train, test, project.task)


def patients(store: Store, project: Project) -> list[str]:
    """Of all labelled images, whatever their split."""
    indices = {label.name for label in project.classes}
    found: set[str] = set()
    for split in SPLITS:
        labelled = {record.image_id for record in store.label_maps(project.id, splits=[split])}
        found |= {image.group_id for image in store.images(project.id, splits=[split])
                  if (image.label in indices if project.task == "classification" else image.id in labelled)}  # fmt: skip
    return sorted(found)


def is_rendered(case: Case) -> bool:
    """Whether these are phantom scenes, as in the demo."""
    return all(example.group.startswith("phantom-") for example in case.train)


def dealt(groups: Collection[str], *, share: float, seed: int = 0) -> set[str]:
    """This share of the patients, at least one and not all of them where there are two."""
    names = sorted(groups)
    count = min(max(1, round(share * len(names))), max(1, len(names) - 1))
    return {names[index] for index in np.random.default_rng(seed).permutation(len(names))[:count]}


def _examples(store: Store, project: Project, split: Split, *, side: int) -> tuple[Example, ...]:
    maps = {record.image_id: record.blob for record in store.label_maps(project.id, splits=[split])}
    indices = {label.name: label.index for label in project.classes}

    def label_map(image: RealImage) -> LabelMap | None:
        if project.task == "classification":
            return whole(indices[image.label], side=side) if image.label in indices else None
        return fit_to(store.blobs.label_map(maps[image.id]), size=(side, side)) if image.id in maps else None

    labelled = ((image, label_map(image)) for image in store.images(project.id, splits=[split]))
    return tuple(
        Example(fit_image_to(store.blobs.image(image.blob), side=side), found, image.group_id)
        for image, found in labelled
        if found is not None
    )


def rendered(*, side: int, num_train: int = FEW, num_test: int = 200, seed: int = 0, task: Task = "segmentation",
             num_test_patients: int = 40) -> Case:  # fmt: skip
    """Phantom scenes of 40 training and 40 test patients; in classification their phase of the operation is the class."""

    def scenes(count: int, *, first_seed: int, first_patient: int, patients: int = 40) -> tuple[Example, ...]:
        made = (phantom.render(first_seed + index, patient=first_patient + index % patients, size_px=side)
                for index in range(count))  # fmt: skip
        return tuple(
            Example(one.image, asked(one), one.patient_id) for one in made
        )

    def asked(one: phantom.Scene) -> LabelMap:
        return whole(phantom.PHASES.index(one.phase), side=side) if task == "classification" else one.label_map

    return Case(
        "phantom phases" if task == "classification" else "phantom",
        phantom.PHASES if task == "classification" else phantom.CLASS_NAMES,
        scenes(num_train, first_seed=700_000 + 10_000 * seed, first_patient=700),
        scenes(num_test, first_seed=800_000, first_patient=800, patients=num_test_patients),
        task,
    )


def rarest_class(case: Case) -> str:
    """The class (other than the background of masks) in the fewest training images."""
    counts = [sum(bool((example.label_map == index).any()) for example in case.train) for index in range(len(case.class_names))]
    first = 0 if case.task == "classification" else 1
    return case.class_names[min(range(first, len(counts)), key=lambda index: counts[index])]
