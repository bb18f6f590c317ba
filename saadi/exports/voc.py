"""Pascal VOC: JPEGImages, SegmentationClass with palettes, ImageSets/Segmentation/<split>.txt, and CVAT's labelmap.txt.

Masks are PNGs with a palette: PIL reads the indices, programs that turn palettes into colours (scikit-image, OpenCV) need
labelmap.txt. Colours are those of the VOC devkit, not the project's: readers know them by heart. 255 is the void of VOC and does
not count. Images stay PNGs, as nothing may be lost, in the folder that VOC names after another format.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from saadi.datasets.readers.voc import colour
from saadi.errors import BadInputError
from saadi.exports.labels import LabelScheme, label_scheme
from saadi.exports.layout import nothing_lost
from saadi.exports.manifest import NOTICE
from saadi.exports.selection import Item
from saadi.records import IGNORE, LabelClass, LabelMap, Project

NAME = "voc"
lost_in = nothing_lost
SETS = "ImageSets/Segmentation"
LABELMAP = "labelmap.txt"
NUM_COLOURS = 256
PALETTE = bytes(value for index in range(NUM_COLOURS) for value in colour(index))


def check_project(project: Project) -> None:
    """Raises: BadInputError: these folders hold masks, and this project has none."""
    if project.task != "segmentation":
        raise BadInputError("Pascal VOC holds masks and this project classifies whole images; choose the format imagefolder")


def scheme(classes: Sequence[LabelClass], *, has_ignore: bool) -> LabelScheme:
    """Ids as in the store, 0 is called 'background', 255 = void."""
    return label_scheme(classes, has_ignore=has_ignore, background_is_zero=True, ignore_is_highest=False)


def paths(project: Project, item: Item) -> tuple[PurePosixPath, PurePosixPath | None]:
    """Where image and mask go."""
    mask = PurePosixPath("SegmentationClass", f"{item.name}.png") if item.label_map_blob is not None else None
    return PurePosixPath("JPEGImages", f"{item.name}.png"), mask


def encode_mask(label_map: LabelMap) -> bytes:
    """A PNG of palette indices."""
    picture = Image.fromarray(label_map)
    picture.putpalette(PALETTE)
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()


def index_files(
    project: Project, rows: Sequence[Mapping[str, Any]], scheme: LabelScheme, folder: Path, options: Mapping[str, str],
    progress: Callable[[int], None],
) -> dict[str, bytes]:  # fmt: skip
    """Names of each split, colours of the classes, and a README.md."""
    files = {f"{SETS}/{split}.txt": "".join(f"{row['name']}\n" for row in rows if row["split"] == split).encode()
             for split in ("train", "val", "test") if any(row["split"] == split for row in rows)}  # fmt: skip
    return files | {LABELMAP: _labelmap(scheme.names), "README.md": _readme()}


def check(
    folder: Path, manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], progress: Callable[[int], None]
) -> list[str]:
    """Each split names its images; each mask has the palette, whose colours labelmap.txt tells apart."""
    problems: list[str] = []
    for split in sorted({row["split"] for row in rows}):
        names = (folder / SETS / f"{split}.txt").read_text(encoding="utf-8").splitlines()
        if names != [row["name"] for row in rows if row["split"] == split]:
            problems.append(f"{SETS}/{split}.txt does not name the images of its split")
    if (folder / LABELMAP).read_bytes() != _labelmap(manifest["label_ids"]):
        problems.append(f"{LABELMAP} does not tell the classes and the colours of the palette")
    for number, row in enumerate(rows):
        progress(number)
        if row["mask"] is not None:
            with Image.open(folder / row["mask"]) as picture:
                shown, indices = np.asarray(picture.convert("RGB")), np.asarray(picture)
                is_palette = picture.mode == "P"
            expected = np.frombuffer(PALETTE, np.uint8).reshape(-1, 3)
            if not is_palette or not np.array_equal(shown, expected[indices]):
                problems.append(f"{row['name']}: the mask has not the palette of VOC")
    return problems


def _labelmap(names: Mapping[str, int]) -> bytes:
    """A line for each class; names without what divides fields or begins a remark, with their number where two would be equal."""
    plain = {index: re.sub(r"[:\s\x00-\x1f\x7f-\x9f]+", " ", name).strip().lstrip("#").strip() for name, index in names.items()}
    seen: set[str] = set()
    lines = []
    for index, name in sorted(plain.items()):
        shown = name if name and name not in seen else f"{name} {index}".strip()
        seen.add(shown)
        lines.append(f"{shown}:{','.join(map(str, colour(index)))}::\n")
    return ("# label:color_rgb:parts:actions\n" + "".join(lines)).encode()


def _readme() -> bytes:
    return (f"{NOTICE}.\n\nMasks are palette images: read the indices, not the colours (PIL does; {LABELMAP} tells the colours "
            f"to those who cannot). {IGNORE} does not count. manifest.json and items.jsonl tell which images are synthetic or "
            "edited, and the patient of each; no patient is in two splits.\n").encode()  # fmt: skip
