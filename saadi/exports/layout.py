"""What several formats have in common: images and masks in folders of their own, by split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from saadi.decoding import decode_mask
from saadi.exports.selection import Item
from saadi.records import LabelMap, Project

Content = bytes | Iterable[bytes]
"""Of an index file: all of it, or one piece after the other where it grows with every object."""


def images_and_masks(project: Project, item: Item) -> tuple[PurePosixPath, PurePosixPath | None]:
    """images/<split> and masks/<split>; no mask in classification."""
    has_mask = project.task == "segmentation" and item.label_map_blob is not None
    mask = PurePosixPath("masks", item.split, f"{item.name}.png") if has_mask else None
    return PurePosixPath("images", item.split, f"{item.name}.png"), mask


def nothing_lost(label_map: LabelMap, options: Mapping[str, str]) -> dict[int, int]:
    """Of a format that holds masks: no pixel of them is lost."""
    return {}


def label_map_of(folder: Path, row: Mapping[str, Any]) -> LabelMap:
    """The mask of an exported item; all background where it has none."""
    if row["mask"] is None:
        return np.zeros((row["height"], row["width"]), np.uint8)
    png = (folder / row["mask"]).read_bytes()
    return decode_mask(png, name=row["name"], max_bytes=len(png)).pixels
