"""Pascal VOC: JPEGImages, SegmentationClass, names of the splits in ImageSets/Segmentation, CVAT's labelmap.txt.

Masks with a palette are read as indices, others as colours; either way labelmap.txt says which class a colour is. 255 is void.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from saadi.datasets.folder_pairs import list_files, normal
from saadi.datasets.folder_table import SPLIT_WORDS, Row
from saadi.datasets.readers.base import Entry, Listing, MaskFile, PictureFile, folder_named, read
from saadi.decoding import COLOUR_BIT, display_name
from saadi.errors import BadInputError
from saadi.records import IGNORE, Split

NAME = "voc"
LABELMAP = "labelmap.txt"
_BITS = 8
DEVKIT = ("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
          "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")  # fmt: skip


def is_here(root: Path) -> bool:
    """Whether the folder has the two folders of VOC."""
    return folder_named(root, "SegmentationClass") is not None and folder_named(root, "JPEGImages") is not None


def listing(root: Path) -> Listing:
    """Images with a mask; those without one were never meant for segmentation.

    Raises:
        BadInputError: The folders are not there, or one image is named for two splits.
    """
    images, masks = folder_named(root, "JPEGImages"), folder_named(root, "SegmentationClass")
    if images is None or masks is None:
        raise BadInputError("the folders JPEGImages and SegmentationClass are not there; choose the folder of a VOC data set")
    found = Listing(NAME, has_masks=True, names=_names(root / LABELMAP))
    splits = _splits(root)
    by_stem = {normal(file.relative.with_suffix("").as_posix()): file for file in list_files(masks)}
    num_without = 0
    for file in list_files(images):
        stem = normal(file.relative.with_suffix("").as_posix())
        mask = by_stem.pop(stem, None)
        if mask is None:
            num_without += 1
            continue
        found.entries.append(Entry(PurePosixPath(images.name, file.relative), PictureFile(file.path, file.relative.name),
                                   MaskFile(mask.path, mask.relative.name), Row(split=splits.get(stem))))  # fmt: skip
    for file in by_stem.values():
        found.refuse(file.relative.name, "this mask has no image of the same name; add the image or remove the mask")
    if num_without:
        found.notes.append(f"{num_without} images have no mask in SegmentationClass and were left out")
    return found


def _splits(root: Path) -> dict[str, Split]:
    """Name of an image -> its side, where a list names it."""
    found: dict[str, Split] = {}
    for path in sorted((root / "ImageSets" / "Segmentation").glob("*.txt")):
        side = SPLIT_WORDS.get(normal(path.stem))
        for line in read(path).decode("utf-8", "replace").splitlines() if side else ():
            name = normal(line.strip())
            if side and name and found.setdefault(name, side) != side:
                raise BadInputError(f"{display_name(line)} is named for {found[name]} and for {side}; name it for one of them")
    return found


def _names(path: Path) -> dict[int, str]:
    """Mask value -> class name, for palette masks by their place and for colour masks by their colour."""
    names = {IGNORE: "void", COLOUR_BIT | 0xE0E0C0: "void"}
    lines = [line.split(":") for line in read(path).decode("utf-8", "replace").splitlines() if ":" in line and line[0] != "#"] \
        if path.is_file() else []  # fmt: skip
    by_colour = {index: _packed(*colour(index)) for index in range(IGNORE)}
    if not lines:
        return names | {value: name for index, name in enumerate(DEVKIT) for value in (index, by_colour[index])}
    places = {value: index for index, value in by_colour.items()}
    for name, rgb, *_ in lines:
        try:
            red, green, blue = (int(value) for value in rgb.split(","))
        except ValueError as error:
            raise BadInputError(f"{LABELMAP} has no colour for {display_name(name)}; write `name:r,g,b::`") from error
        value = _packed(red, green, blue)
        names[value] = name
        if value in places:
            names.setdefault(places[value], name)
    return names


def _packed(red: int, green: int, blue: int) -> int:
    """A colour as `saadi.decoding` marks it."""
    return red if red == green == blue else COLOUR_BIT | red << 16 | green << 8 | blue


def colour(index: int) -> tuple[int, int, int]:
    """Of a class in the VOC devkit: its bits, three by three, spread over red, green and blue from the highest bit on."""
    channels, rest = [0, 0, 0], index
    for place in reversed(range(_BITS)):
        for channel in range(3):
            channels[channel] |= (rest >> channel & 1) << place
        rest >>= 3
    return channels[0], channels[1], channels[2]
