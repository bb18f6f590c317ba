"""Data sets for evidence: a project's own images, or rendered scenes."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from saadi.datasets import phantom
from saadi.errors import NotFoundError, TooFewError
from saadi.evidence.gains import Case, Example
from saadi.masks import fit_image_to, fit_to
from saadi.masks import whole as whole
from saadi.records import LabelMap, Project, RealImage, Split, Task
from saadi.store import Store


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
    found = {split: _examples(store, project, split, side=side) for split in ("train", "val", "test")}
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


def rendered(*, side: int, num_train: int = 200, num_test: int = 200, seed: int = 0, task: Task = "segmentation") -> Case:
    """Phantom scenes of 40 training and 40 test patients; in classification their phase of the operation is the class."""

    def scenes(count: int, *, first_seed: int, first_patient: int) -> tuple[Example, ...]:
        made = (phantom.render(first_seed + index, patient=first_patient + index % 40, size_px=side) for index in range(count))
        return tuple(
            Example(one.image, asked(one), one.patient_id) for one in made
        )

    def asked(one: phantom.Scene) -> LabelMap:
        return whole(phantom.PHASES.index(one.phase), side=side) if task == "classification" else one.label_map

    return Case(
        "phantom phases" if task == "classification" else "phantom",
        phantom.PHASES if task == "classification" else phantom.CLASS_NAMES,
        scenes(num_train, first_seed=700_000 + 10_000 * seed, first_patient=700),
        scenes(num_test, first_seed=800_000, first_patient=800),
        task,
    )
