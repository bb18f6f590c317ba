"""Look at a folder of images and masks: pairs, values, groups, splits, labels, and what is wrong with it. Stores nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from saadi.config import MAX_FILE_BYTES
from saadi.datasets.folder_pairs import IMAGE_FOLDERS, FoundFile, Problem, normal, pair_files
from saadi.datasets.folder_table import SPLIT_WORDS, Row, Table, read_table
from saadi.decoding import decode_image, decode_mask, display_name
from saadi.decoding_formats import is_generated
from saadi.errors import BadInputError, SizeMismatchError
from saadi.records import Split

Progress = Callable[[int, int, str], object]
"""(step, total, message), as `saadi.jobs.Report`; may raise `CancelledError`."""


def silent(step: int, total: int, message: str) -> None:
    """A `Progress` that nobody reads."""


@dataclass(frozen=True)
class FolderPair:
    """One image that can be read, with its mask where the folder has masks."""

    name: str
    """Original path below the folder: may hold a patient's name, so it stays in the store."""
    image_path: Path
    mask_path: Path | None
    size: tuple[int, int]
    """(width, height) in pixels, upright."""
    values: Mapping[int, int]
    """Mask value -> number of pixels; empty without a mask."""
    group: str | None
    """Patient, video or operation; None = nobody said, the image is its own group."""
    split: Split | None
    """From the CSV or a folder called train, val or test; None = made by group."""
    label: str | None
    """Class of the whole image, from the CSV or from a sub-folder's name."""


@dataclass(frozen=True)
class FolderScan:
    """What a folder holds. Nothing has been stored."""

    pairs: tuple[FolderPair, ...]
    problems: tuple[Problem, ...]
    """Every file that cannot be used."""
    values: Mapping[int, tuple[int, int]]
    """Mask value -> (pixels, masks), ascending; colours as `saadi.decoding.value_name` writes them."""
    has_masks: bool
    notes: tuple[str, ...] = ()

    @property
    def groups(self) -> dict[str, int]:
        """Group -> number of images; images without a group are left out."""
        return dict(sorted(Counter(pair.group for pair in self.pairs if pair.group is not None).items()))

    @property
    def labels(self) -> dict[str, int]:
        """Label of the whole image -> number of images."""
        return dict(sorted(Counter(pair.label for pair in self.pairs if pair.label is not None).items()))

    @property
    def splits(self) -> dict[str, int]:
        """Split given by CSV or folder -> number of images."""
        return dict(sorted(Counter(pair.split for pair in self.pairs if pair.split is not None).items()))


def scan(images_dir: Path, masks_dir: Path | None = None, *, csv: Path | None = None, group_pattern: str | None = None,
         split_column: str | None = None, label_column: str | None = None, group_column: str | None = None,
         limit: int | None = None, report: Progress = silent) -> FolderScan:
    """Find pairs, values, groups, splits and labels in a folder; every file is decoded once, problems are listed and not raised.

    Args:
        images_dir: Images, or a folder that holds both images and masks.
        masks_dir: Masks; None = none, or found inside `images_dir` by folder name or suffix.
        group_pattern: Regular expression with one group `(...)`, searched in the file name: what it catches is the group.
        limit: At most so many images, spread evenly over the folder (so that each operation is there).

    Raises:
        BadInputError: A folder or the CSV is missing or empty, the pattern is no pattern with one group, or a column is missing.
    """
    pattern = _pattern(group_pattern, group_column)
    if csv is None and (group_column or split_column or label_column):
        raise BadInputError("a column was named but no CSV; choose the CSV that has it")
    if limit is not None and limit < 1:
        raise BadInputError(f"the limit is 1 or more images, got {limit}")
    table = read_table(csv, group_column=group_column, split_column=split_column, label_column=label_column) if csv else None
    files = pair_files(Path(images_dir), Path(masks_dir) if masks_dir is not None else None)
    facts = {image.relative: _facts(image, table, pattern) for image, _ in files.pairs}
    wanted = _spread(files.pairs, limit)
    pairs: list[FolderPair] = []
    problems = list(files.problems)
    values: dict[int, tuple[int, int]] = {}
    changes: Counter[str] = Counter()
    for step, (image, mask) in enumerate(wanted):
        report(step, len(wanted), "looking at images")
        try:
            pair, seen = _look(image, mask, facts[image.relative])
        except BadInputError as error:
            problems.append(Problem(display_name(image.relative.name), str(error)))
            continue
        pairs.append(pair)
        changes.update(seen)
        for value, count in pair.values.items():
            pixels, masks = values.get(value, (0, 0))
            values[value] = (pixels + count, masks + 1)
    report(len(wanted), len(wanted), "looked at all images")
    notes = files.notes + _table_notes(table) + [f"{count} files: {change}" for change, count in sorted(changes.items())]
    return FolderScan(pairs=tuple(pairs), problems=tuple(problems), values=dict(sorted(values.items())),
                      has_masks=files.has_masks, notes=tuple(notes))


def read(path: Path) -> bytes:
    """Bytes of a picture; one more than allowed is enough for the decoder to refuse it.

    Raises:
        BadInputError: The file is gone or may not be read.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BadInputError(f"the file cannot be read ({reason}); check that it is there and may be read") from error


def _look(image: FoundFile, mask: FoundFile | None, facts: Row | str) -> tuple[FolderPair, tuple[str, ...]]:
    if isinstance(facts, str):
        raise BadInputError(facts)
    data = read(image.path)
    if is_generated(data):
        raise BadInputError("it says of itself that a model has made it, or a part of it (IPTC DigitalSourceType), and what is "
                            "imported counts as real; leave it out")  # fmt: skip
    picture = decode_image(data, name=image.relative.name)
    height, width = picture.pixels.shape[:2]
    values, notes = dict[int, int](), picture.notes
    if mask is not None:
        decoded = decode_mask(read(mask.path), name=mask.relative.name)
        check_sizes((height, width), decoded.pixels.shape)
        values, notes = decoded.counts(), notes + tuple(note for note in decoded.notes if " colours: " not in note)
    pair = FolderPair(name=image.relative.as_posix(), image_path=image.path, mask_path=mask.path if mask else None,
                      size=(width, height), values=values, group=facts.group, split=facts.split, label=facts.label)
    return pair, notes


def check_sizes(image: tuple[int, ...], mask: tuple[int, ...]) -> None:
    if image != mask:
        raise SizeMismatchError(f"the mask is {mask[1]} x {mask[0]} pixels, its image {image[1]} x {image[0]}; "
                                "export the mask at the image's size, without smoothing")


def _pattern(text: str | None, group_column: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    if group_column is not None:
        raise BadInputError("the group comes from a pattern or from a CSV column; give one of the two")
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise BadInputError(f"the group pattern cannot be read ({error}); write one such as op(\\d+)_") from error
    if pattern.groups != 1:
        raise BadInputError(f"the group pattern needs one group (...), it has {pattern.groups}; write one such as op(\\d+)_")
    return pattern


def _facts(image: FoundFile, table: Table | None, pattern: re.Pattern[str] | None) -> Row | str:
    """Group, split and label of an image, or the sentence that refuses it."""
    row = table.row_for(image.relative) if table else None
    if table is not None and row is None:
        return "the CSV has no row for this image; add one or remove the image"
    group, split, label = (row.group, row.split, row.label) if row else (None, None, None)
    if table is not None and table.has_label and label is None:
        return "the CSV has no label for this image; fill the column"
    if table is not None and table.has_group and pattern is None and group is None:
        return "the CSV has no group for this image; fill the column"
    if pattern is not None:
        match = pattern.search(image.relative.name) or pattern.search(image.relative.as_posix())
        group = (match.group(1) or "").strip() if match else None
        if not group:
            return "the group pattern does not fit this file name, so its patient is unknown; change the pattern or the name"
    return Row(group=group, split=split or _folder_split(image), label=label or _folder_label(image.relative))


def _folder_split(image: FoundFile) -> Split | None:
    return next((SPLIT_WORDS[part] for part in image.folders if part in SPLIT_WORDS), None)


def _folder_label(relative: PurePosixPath) -> str | None:
    """Name of the innermost sub-folder that says neither 'train' nor 'images'."""
    plain = SPLIT_WORDS.keys() | IMAGE_FOLDERS
    return next((part for part in reversed(relative.parts[:-1]) if normal(part) not in plain), None)


def _spread(pairs: list[tuple[FoundFile, FoundFile | None]], limit: int | None) -> list[tuple[FoundFile, FoundFile | None]]:
    if limit is None or limit >= len(pairs):
        return pairs
    return [pairs[index * len(pairs) // limit] for index in range(limit)]


def _table_notes(table: Table | None) -> list[str]:
    if table is None:
        return []
    unused = table.unused()
    return table.notes + ([f"{unused} rows of the CSV name no image in the folder"] if unused else [])
