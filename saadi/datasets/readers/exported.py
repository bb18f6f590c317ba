"""An export of this program, whatever its format: items.jsonl names images, masks, patients and sides, manifest.json the classes.

Pixels come from the image and mask files that every format has; synthetic images and composites say so and are refused where real
ones are wanted.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from saadi.datasets.folder_pairs import normal
from saadi.datasets.folder_table import SPLIT_WORDS, Row
from saadi.datasets.readers.base import Entry, Listing, MaskFile, PictureFile, below, class_names, read_json, text_of
from saadi.errors import BadInputError

NAME = "saadi"
MANIFEST, ITEMS = "manifest.json", "items.jsonl"


def is_here(root: Path) -> bool:
    """Whether the folder has manifest and items of an export."""
    return (root / MANIFEST).is_file() and (root / ITEMS).is_file()


def listing(root: Path) -> Listing:
    """All items of an export.

    Raises:
        BadInputError: Manifest or items are not those of an export.
    """
    manifest = read_json(root / MANIFEST, "the manifest")
    try:
        names = class_names(manifest["label_ids"], "the classes of the manifest")
        if manifest["ignore_id"] is not None:
            names[int(manifest["ignore_id"])] = "ignore"
        rows = [json.loads(line) for line in (root / ITEMS).read_text(encoding="utf-8").splitlines()]
        found = Listing(NAME, names=names)
        for row in rows:
            image, mask = below(root, row["image"]), below(root, row["mask"]) if row["mask"] else None
            if image is None or (row["mask"] and mask is None):
                found.refuse(str(row["name"]), "its image or mask is missing from the export; unpack it again")
                continue
            relative = PurePosixPath(row["image"])
            found.entries.append(Entry(relative, PictureFile(image, image.name), MaskFile(mask, mask.name) if mask else None,
                                       Row(group=text_of(row["group"]), split=SPLIT_WORDS[row["split"]], label=row["label"]),
                                       folders=tuple(normal(part) for part in relative.parts[:-1])))  # fmt: skip
    except (OSError, LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise BadInputError("manifest.json or items.jsonl are not those of an export of this program; take them away to read the "
                            "folder as what it is otherwise") from error  # fmt: skip
    found.has_masks = any(entry.mask for entry in found.entries)
    return found
