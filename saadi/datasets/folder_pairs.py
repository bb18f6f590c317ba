"""Which file is an image, which its mask: by folder and file names only, nothing is decoded here."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from saadi.decoding import display_name
from saadi.errors import BadInputError

IMAGE_FOLDERS = frozenset({"image", "images", "img", "imgs", "frame", "frames", "rgb", "imagestr", "jpegimages"})
MASK_FOLDERS = frozenset({"mask", "masks", "label", "labels", "labelstr", "label_maps", "labelmaps", "annotation", "annotations",
                          "seg", "segmentation", "segmentations", "segmentationclass", "gt", "groundtruth", "ground_truth"})
SKIPPED_SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".md", ".rst", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini",
                              ".xlsx", ".xls", ".log", ".db", ".py", ".m", ".sha256", ".lnk"})
"""Companions of data sets; every other file is taken for a picture and, where it is none, listed with advice."""
_MASK_SUFFIX = re.compile(r"[_\-. ](masks?|seg|segmentation|labels?|gt|groundtruth)$", re.IGNORECASE)
_CHANNEL_SUFFIX = re.compile(r"_0000$")


class Problem(NamedTuple):
    """A file that cannot be used, and why."""

    name: str
    """Shortened for display, in quotes."""
    reason: str
    """One sentence."""

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class FoundFile:
    """A file below the folder that the user named."""

    path: Path
    relative: PurePosixPath

    @property
    def folders(self) -> tuple[str, ...]:
        return tuple(normal(part) for part in self.relative.parts[:-1])

    @property
    def stem(self) -> str:
        return normal(self.relative.stem)


@dataclass
class PairedFiles:
    """What the names say."""

    pairs: list[tuple[FoundFile, FoundFile | None]] = field(default_factory=list)
    """(image, its mask); the mask is None for all where there are no masks at all."""
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    has_masks: bool = False


def normal(text: str) -> str:
    """One spelling for names that people take for the same: Unicode NFC, lower case."""
    return unicodedata.normalize("NFC", text).casefold()


def natural_order(relative: PurePosixPath) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts frame 9 before frame 10."""
    parts = re.split(r"(\d+)", normal(relative.as_posix()))
    return tuple((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts)


def list_files(root: Path, *, without: Path | None = None) -> list[FoundFile]:
    """Regular files below `root` in natural order; hidden ones, companions (CSV, text) and the folder `without` are left out."""
    found: list[FoundFile] = []
    for folder, subfolders, names in os.walk(root):
        here = Path(folder)
        subfolders[:] = [name for name in subfolders if not name.startswith((".", "__MACOSX")) and here / name != without]
        for name in names:
            path = here / name
            if name.startswith(".") or name.lower() == "thumbs.db" or path.suffix.lower() in SKIPPED_SUFFIXES:
                continue
            if path.is_file():  # a pipe would wait for ever, a dead link has nothing
                found.append(FoundFile(path, PurePosixPath(path.relative_to(root).as_posix())))
    return sorted(found, key=lambda file: natural_order(file.relative))


def pair_files(images_dir: Path, masks_dir: Path | None) -> PairedFiles:
    """Pair images with masks under any common naming; what does not fit is listed, not raised.

    Args:
        images_dir: Images, or a folder that holds images and masks (sub-folders 'images' and 'masks', or suffixes '_mask').
        masks_dir: Masks with the same stem, or stem plus suffix; None = look for them in `images_dir`.

    Raises:
        BadInputError: A folder is missing or holds nothing that could be a picture.
    """
    _need_folder(images_dir, "images")
    separate = masks_dir is not None and masks_dir.resolve() != images_dir.resolve()
    result = PairedFiles()
    if separate and masks_dir is not None:
        _need_folder(masks_dir, "masks")
        images, masks = list_files(images_dir, without=masks_dir), list_files(masks_dir, without=images_dir)
        if not masks:
            raise BadInputError(f"the folder {display_name(masks_dir.name)} holds no picture; choose the folder with the masks")
    else:
        images, masks = _split_roles(list_files(images_dir), result)
    if not images:
        raise BadInputError(f"the folder {display_name(images_dir.name)} holds no picture; choose the folder with the images")
    result.has_masks = bool(masks)
    if masks:
        _match(images, masks, result)
    else:
        result.pairs = [(image, None) for image in images]
    return result


def _need_folder(folder: Path, what: str) -> None:
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise BadInputError(f"the folder with the {what}, {display_name(folder.name)}, {state}; choose an existing folder")


def _split_roles(files: list[FoundFile], result: PairedFiles) -> tuple[list[FoundFile], list[FoundFile]]:
    """Images and masks of one folder: masks lie in a folder called so, or carry a suffix beside their image."""
    in_mask_folder = [file for file in files if MASK_FOLDERS & set(file.folders)]
    rest = [file for file in files if not MASK_FOLDERS & set(file.folders)]
    if in_mask_folder:
        in_image_folder = [file for file in rest if IMAGE_FOLDERS & set(file.folders)]
        if in_image_folder and (num_other := len(rest) - len(in_image_folder)):
            result.notes.append(f"{num_other} pictures outside the folders of images and masks were left out")
        return in_image_folder or rest, in_mask_folder
    plain = {(file.folders, file.stem) for file in rest if not _MASK_SUFFIX.search(file.stem)}
    suffixed = [file for file in rest if _MASK_SUFFIX.search(file.stem)]
    if not any((file.folders, _MASK_SUFFIX.sub("", file.stem)) in plain for file in suffixed):
        return rest, []
    return [file for file in rest if not _MASK_SUFFIX.search(file.stem)], suffixed


def _match(images: list[FoundFile], masks: list[FoundFile], result: PairedFiles) -> None:
    by_key, by_stem = _index(images)
    fitting: dict[PurePosixPath, list[FoundFile]] = defaultdict(list)
    shared: set[PurePosixPath] = set()
    for mask in masks:
        candidates = _candidates(mask, by_key, by_stem)
        if not candidates:
            result.problems.append(Problem(display_name(mask.relative.name),
                                           "this mask has no image of the same name; add the image or remove the mask"))
        for image in candidates:
            fitting[image.relative].append(mask)
        if len(candidates) > 1:
            shared |= {image.relative for image in candidates}
    for image in images:
        found = fitting[image.relative]
        if image.relative in shared:
            reason = "another image has the same name; rename one, and its mask, alike"
        elif not found:
            reason = "this image has no mask of the same name; add the mask or remove the image"
        elif len(found) > 1:
            reason = f"{len(found)} masks fit this image; keep the right one"
        else:
            result.pairs.append((image, found[0]))
            continue
        result.problems.append(Problem(display_name(image.relative.name), reason))


Index = dict[tuple[tuple[str, ...], str], list[FoundFile]]


def _index(images: list[FoundFile]) -> tuple[Index, dict[str, list[FoundFile]]]:
    by_key: Index = defaultdict(list)
    by_stem: dict[str, list[FoundFile]] = defaultdict(list)
    for image in images:
        for stem in {image.stem, _CHANNEL_SUFFIX.sub("", image.stem)}:
            by_key[(_place(image), stem)].append(image)
            by_stem[stem].append(image)
    return by_key, by_stem


def _candidates(mask: FoundFile, by_key: Index, by_stem: dict[str, list[FoundFile]]) -> list[FoundFile]:
    """Images that a mask may belong to: same place first, then the same name elsewhere, if only one has it."""
    stems = [mask.stem, _MASK_SUFFIX.sub("", mask.stem)]
    for stem in stems:
        if found := by_key.get((_place(mask), stem)):
            return found
    for stem in stems:
        if len(found := by_stem.get(stem, [])) == 1:
            return found
    return []


def _place(file: FoundFile) -> tuple[str, ...]:
    """The folders of a file without those that only say 'images' or 'masks'."""
    return tuple(part for part in file.folders if part not in IMAGE_FOLDERS and part not in MASK_FOLDERS)
