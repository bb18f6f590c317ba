"""A project's real images with their newest label maps, as arrays: what every model is trained or measured on."""

from __future__ import annotations

from saadi.masks import fit_image_to, fit_to
from saadi.records import Image, LabelMap, LabelMapRecord, Project, RealImage, Split
from saadi.store import Store


def real_pairs(
    store: Store, project: Project, split: Split, *, limit: int | None = None, side: int | None = None
) -> tuple[list[Image], list[LabelMap]]:
    """Real images and their newest label maps of one split.

    Args:
        limit: At most this many, spread over the whole split: the first ones of a video import would all be one patient.
        side: Scale each pair to this side as it is read, so that a thousand large frames never lie in memory together; None =
            sizes as imported.
    """
    found = _records(store, project, split)
    chosen = [found[index * len(found) // limit] for index in range(limit)] if limit and limit < len(found) else found
    pixels, label_maps = [], []
    for picture, record in chosen:
        image, label_map = store.blobs.image(picture.blob), store.blobs.label_map(record.blob)
        pixels.append(image if side is None else fit_image_to(image, side=side))
        label_maps.append(label_map if side is None else fit_to(label_map, size=(side, side)))
    return pixels, label_maps


def real_groups(store: Store, project: Project, split: Split) -> list[str]:
    """The patients of `real_pairs`, in the same order."""
    return [picture.group_id for picture, _ in _records(store, project, split)]


def _records(store: Store, project: Project, split: Split) -> list[tuple[RealImage, LabelMapRecord]]:
    images = {record.id: record for record in store.images(project.id, splits=[split])}
    newest = {record.image_id: record for record in store.label_maps(project.id, splits=[split])}
    return [(images[image_id], record) for image_id, record in newest.items() if image_id in images]
