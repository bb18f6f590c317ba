"""Look at a folder of images and masks: pairs, values, groups, splits, labels, and what is wrong with it. Stores nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from saadi.datasets import mask_doctor, readers
from saadi.datasets.folder_pairs import IMAGE_FOLDERS, FoundFile, Problem, normal, pair_files
from saadi.datasets.folder_table import SPLIT_WORDS, Row, Table, read_table
from saadi.datasets.readers.base import Entry, Listing, MaskFile, MaskSource, Picture, PictureFile
from saadi.datasets.readers.video import Choice
from saadi.decoding import display_name
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
    picture: Picture
    mask: MaskSource | None
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
    kind: str = readers.FOLDER
    """The format that it was read as, one of `saadi.datasets.readers.KINDS`."""
    names: Mapping[int, str] = field(default_factory=dict)
    """Mask value -> what the data set calls it, where it says so."""
    needs_masks: bool = True
    """False where a segmentation project takes the images without masks: frames of videos, DICOM pictures."""

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
         limit: int | None = None, kind: str | None = None, choice: Choice | None = None, burnt_in: bool = False,
         report: Progress = silent) -> FolderScan:
    """Find pairs, values, groups, splits and labels in a folder; every file is decoded once, problems are listed and not raised.

    Args:
        images_dir: Images, a folder that holds both images and masks, a data set in one of `readers.KINDS`, a video.
        masks_dir: Masks; None = none, or found inside `images_dir` by folder name or suffix.
        group_pattern: Regular expression with one group `(...)`, searched in the file name: what it catches is the group.
        limit: At most so many images, spread evenly over the folder (so that each operation is there).
        kind: The format; None = looked for.
        choice: Which frames of videos and DICOM series.
        burnt_in: Take DICOM pictures whose header says that text is burnt in.

    Raises:
        BadInputError: A folder or the CSV is missing or empty, the pattern is no pattern with one group, or a column is missing.
    """
    pattern = _pattern(group_pattern, group_column)
    if csv is None and (group_column or split_column or label_column):
        raise BadInputError("a column was named but no CSV; choose the CSV that has it")
    if limit is not None and limit < 1:
        raise BadInputError(f"the limit is 1 or more images, got {limit}")
    table = read_table(csv, group_column=group_column, split_column=split_column, label_column=label_column) if csv else None
    images_dir = Path(images_dir)
    found = _listing(images_dir, masks_dir, kind, choice or Choice(), burnt_in, report)
    facts = {entry.name: _facts(entry, table, pattern) for entry in found.entries}
    wanted = _spread(found.entries, limit)
    pairs: list[FolderPair] = []
    problems = list(found.problems)
    values: dict[int, tuple[int, int]] = {}
    changes: Counter[str] = Counter()
    for step, entry in enumerate(wanted):
        report(step, len(wanted), "looking at images")
        try:
            pair, seen = _look(entry, facts[entry.name])
        except BadInputError as error:
            problems.append(Problem(display_name(entry.name.name), str(error)))
            continue
        pairs.append(pair)
        changes.update(seen)
        for value, count in pair.values.items():
            pixels, masks = values.get(value, (0, 0))
            values[value] = (pixels + count, masks + 1)
    report(len(wanted), len(wanted), "looked at all images")
    notes = found.notes + _table_notes(table) + [f"{count} files: {change}" for change, count in sorted(changes.items())]
    return FolderScan(pairs=tuple(pairs), problems=tuple(problems), values=dict(sorted(values.items())),
                      has_masks=found.has_masks, notes=tuple(notes), kind=found.kind,
                      names=mask_doctor.names_of(values, found.names), needs_masks=found.needs_masks)


def _listing(images_dir: Path, masks_dir: Path | None, kind: str | None, choice: Choice, burnt_in: bool,
             report: Progress) -> Listing:
    kind = kind or (readers.kind_of(images_dir) if masks_dir is None else readers.FOLDER)
    if kind == readers.FOLDER:
        return _plain(images_dir, Path(masks_dir) if masks_dir is not None else None)
    if masks_dir is not None:
        raise BadInputError(f"a folder of masks was given, and {readers.WORDS.get(kind, kind)} hold their own; leave it out")
    return readers.listing(kind, images_dir, choice=choice, burnt_in=burnt_in,
                           report=lambda name, number: _tell(report, name, number))


def _tell(report: Progress, name: str, number: int) -> None:
    report(0, 0, f"looking at {display_name(name)}, frame {number}")


def _plain(images_dir: Path, masks_dir: Path | None) -> Listing:
    """Images and masks paired by their names; split and label may be in names of folders."""
    files = pair_files(images_dir, masks_dir)
    entries = [Entry(image.relative, PictureFile(image.path, image.relative.name),
                     MaskFile(mask.path, mask.relative.name) if mask else None,
                     Row(split=_folder_split(image), label=_folder_label(image.relative)), folders=image.folders)
               for image, mask in files.pairs]  # fmt: skip
    return Listing(readers.FOLDER, entries, list(files.problems), list(files.notes), files.has_masks)


def _look(entry: Entry, facts: Row | str) -> tuple[FolderPair, tuple[str, ...]]:
    if isinstance(facts, str):
        raise BadInputError(facts)
    values, notes, size = dict[int, int](), tuple[str, ...](), entry.size
    if size is None or entry.mask is not None:
        picture = entry.picture.image()
        height, width = picture.pixels.shape[:2]
        size, notes = (width, height), picture.notes
        if entry.mask is not None:
            decoded = entry.mask.mask((height, width))
            check_sizes((height, width), decoded.pixels.shape)
            values, notes = decoded.counts(), notes + tuple(note for note in decoded.notes if " colours: " not in note)
    pair = FolderPair(name=entry.name.as_posix(), picture=entry.picture, mask=entry.mask, size=size, values=values,
                      group=facts.group, split=facts.split, label=facts.label)
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


def _facts(entry: Entry, table: Table | None, pattern: re.Pattern[str] | None) -> Row | str:
    """Group, split and label of an image, or the sentence that refuses it; CSV and pattern go before what the format says."""
    # A frame has a name of our making; what people named is its recording.
    given = entry.name.parent if entry.size is not None else entry.name
    row = (table.row_for(entry.name) or table.row_for(given)) if table else None
    if table is not None and row is None:
        return "the CSV has no row for this image; add one or remove the image"
    group, split, label = (row.group, row.split, row.label) if row else (None, None, None)
    if table is not None and table.has_label and label is None:
        return "the CSV has no label for this image; fill the column"
    if table is not None and table.has_group and pattern is None and group is None:
        return "the CSV has no group for this image; fill the column"
    if pattern is not None:
        match = pattern.search(given.name) or pattern.search(given.as_posix())
        group = (match.group(1) or "").strip().encode("utf-8", "replace").decode() if match else None
        if not group:
            return "the group pattern does not fit this file name, so its patient is unknown; change the pattern or the name"
    return Row(group=group or entry.row.group, split=split or entry.row.split, label=label or entry.row.label)


def _folder_split(image: FoundFile) -> Split | None:
    return next((SPLIT_WORDS[part] for part in image.folders if part in SPLIT_WORDS), None)


def _folder_label(relative: PurePosixPath) -> str | None:
    """Name of the innermost sub-folder that says neither 'train' nor 'images'."""
    plain = SPLIT_WORDS.keys() | IMAGE_FOLDERS
    return next((part for part in reversed(relative.parts[:-1]) if normal(part) not in plain), None)


def _spread(entries: list[Entry], limit: int | None) -> list[Entry]:
    if limit is None or limit >= len(entries):
        return entries
    return [entries[index * len(entries) // limit] for index in range(limit)]


def _table_notes(table: Table | None) -> list[str]:
    if table is None:
        return []
    unused = table.unused()
    return table.notes + ([f"{unused} rows of the CSV name no image in the folder"] if unused else [])
