"""Data sets for evidence: a project's own images, or rendered scenes."""

from __future__ import annotations

from saadi.datasets import phantom
from saadi.errors import TooFewError
from saadi.evidence.gains import Case, Example
from saadi.masks import fit_image_to, fit_to
from saadi.records import Project, Split
from saadi.store import Store


def of_project(store: Store, project: Project, *, side: int) -> Case:
    """Training images against those of the test split, or of the validation split where there is no other: nothing else uses it.

    Raises:
        TooFewError: No labelled images to train on, or to measure on.
    """
    found = {split: _examples(store, project, split, side=side) for split in ("train", "val", "test")}
    test = found["test"] or found["val"]
    if not found["train"] or not test:
        raise TooFewError(
            f"{len(found['train'])} labelled training images and {len(test)} of test or validation patients; import both"
        )
    return Case(project.name, project.class_names, found["train"], test)


def _examples(store: Store, project: Project, split: Split, *, side: int) -> tuple[Example, ...]:
    maps = {record.image_id: record.blob for record in store.label_maps(project.id, splits=[split])}
    return tuple(
        Example(
            fit_image_to(store.blobs.image(image.blob), side=side),
            fit_to(store.blobs.label_map(maps[image.id]), size=(side, side)),
            image.group_id,
        )
        for image in store.images(project.id, splits=[split])
        if image.id in maps
    )


def rendered(*, side: int, num_train: int = 200, num_test: int = 200, seed: int = 0) -> Case:
    """Phantom scenes of 40 training and 40 test patients."""

    def scenes(count: int, *, first_seed: int, first_patient: int) -> tuple[Example, ...]:
        made = (phantom.render(first_seed + index, patient=first_patient + index % 40, size_px=side) for index in range(count))
        return tuple(Example(one.image, one.label_map, f"patient {first_patient + index % 40}") for index, one in enumerate(made))

    return Case(
        "phantom",
        phantom.CLASS_NAMES,
        scenes(num_train, first_seed=700_000 + 10_000 * seed, first_patient=700),
        scenes(num_test, first_seed=800_000, first_patient=800),
    )
