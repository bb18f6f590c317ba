"""Making only a part of a picture anew: which picture, which part, and what of a real patient stays in it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saadi import masks
from saadi.errors import BadInputError
from saadi.records import IGNORE, LabelMap, LabelMapRecord, Model, Project, Sample
from saadi.store import Store

DILATE_PX = 8
"""Width of the seam around the region, in pixels of the made image; at 256 px 6 still showed an edge on shiny tissue."""
MAX_DILATE_PX = 64


@dataclass(frozen=True)
class Source:
    """The picture of which a part is made anew."""

    blob: str
    label_map_blob: str | None
    """What it shows; None where nobody has drawn that yet."""
    image_id: int | None
    """The real image whose pixels stay; None = there is no real pixel in it."""
    parent_id: int | None
    """The sample it is, if it is one."""

    @property
    def is_real(self) -> bool:
        return self.image_id is not None


def source_of(store: Store, project: Project, *, sample_id: int | None, image_id: int | None) -> Source:
    """The picture that an order names.

    Raises:
        NotFoundError, BadInputError: There is none, or it belongs to another project.
    """
    if sample_id is not None:
        sample = store.sample(sample_id)
        if sample.project_id != project.id:
            raise BadInputError(f"sample {sample_id} belongs to another project; choose one of {project.name}")
        return Source(sample.blob, sample.label_map_blob, real_image_of(sample), sample.id)
    image = store.image(int(image_id or 0))
    if image.project_id != project.id:
        raise BadInputError(f"image {image_id} belongs to another project; choose one of {project.name}")
    record = store.label_map(image.label_map_id) if image.label_map_id is not None else None
    return Source(image.blob, record.blob if record else None, image.id, None)


def needs_picture(model: Model) -> bool:
    """The generator only paints into pictures: every label map needs one under it."""
    return model.architecture.get("mode") == "inpainting"


def source_under(store: Store, record: LabelMapRecord) -> Source:
    """The real image that a label map belongs to or was drawn over: what is painted into where a generator needs a picture.

    Raises:
        BadInputError: There is none.
    """
    image_id = record.image_id or record.underlay_id
    if image_id is None:
        raise BadInputError(f"what it names is to be painted into a picture, and mask {record.id} has none under it; draw over "
                            "an image, or make whole scenes")  # fmt: skip
    image = store.image(image_id)
    own = record if record.image_id is not None else store.label_map(image.label_map_id) if image.label_map_id else None
    return Source(image.blob, own.blob if own else None, image_id, None)


def paints_nothing(store: Store, record: LabelMapRecord) -> bool:
    """Whether a label map names no class, and the picture under it shows none either: painting it would give that picture back.

    Raises:
        BadInputError: There is no picture under it.
    """
    source = source_under(store, record)
    shown = [blob for blob in {record.blob, source.label_map_blob} if blob is not None]
    return not any(np.isin(store.blobs.label_map(blob), [0, IGNORE], invert=True).any() for blob in shown)


def real_image_of(sample: Sample) -> int | None:
    """The real image whose pixels are left in a sample; an edited picture that is edited again keeps them."""
    if not sample.is_composite:
        return None
    image_id: int = sample.settings["inpaint"]["image_id"]
    return image_id


def weight_of(
    store: Store, project: Project, source: Source, record: LabelMapRecord, *, class_index: int | None, dilate_px: int, side: int
) -> NDArray[np.float32]:
    """(side, side) share of the new picture: 1 where the class was or is, falling to 0 over the seam.

    Raises:
        BadInputError: There is nothing to make anew, or the mask differs from the source's elsewhere, too: the picture
            would then not show what its mask says.
    """
    after = masks.fit_to(store.blobs.label_map(record.blob), size=(side, side))
    before: LabelMap | None = None
    if source.label_map_blob is not None:
        before = masks.fit_to(store.blobs.label_map(source.label_map_blob), size=(side, side))
    region = masks.changed_region(before, after, class_index=class_index)
    if not region.any():
        what = "the mask is the one of that picture" if class_index is None else f"there is no {project.class_names[class_index]}"
        raise BadInputError(f"{what}, so nothing would change; draw the change first, or choose another part")
    if before is not None and (other := np.unique(after[(before != after) & ~region])).size:
        names = ", ".join(_name(project, int(index)) for index in other[:3])
        raise BadInputError(f"the mask changed elsewhere, too (now {names}); choose 'What changed', or undo those strokes")
    return masks.feathered(region, width_px=dilate_px)


def recipe_of(source: Source, *, class_index: int | None, dilate_px: int, is_whole: bool = False) -> dict[str, Any]:
    """What the sample's settings say about it, so that it can be made again.

    Args:
        is_whole: All that the label map names was painted (`saadi.engines.base.named_region`), so that images of one label map
            differ in nothing else and can be compared.
    """
    recipe: dict[str, Any] = {
        "source_blob": source.blob, "source_label_map_blob": source.label_map_blob, "image_id": source.image_id,
        "class_index": class_index, "dilate_px": dilate_px}  # fmt: skip
    return recipe | ({"is_whole": True} if is_whole else {})


def is_part(sample: Sample) -> bool:
    """Only a part of it was made, chosen by a person; another image of the same label map may have other surroundings."""
    return sample.source_blob is not None and not sample.settings.get("inpaint", {}).get("is_whole", False)


def _name(project: Project, index: int) -> str:
    return project.class_names[index] if index < len(project.classes) else "unsure"
