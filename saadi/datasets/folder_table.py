"""A CSV beside a folder of images: group, split and label of each file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import cast

from saadi.datasets.folder_pairs import normal
from saadi.decoding import display_name
from saadi.errors import BadInputError
from saadi.records import Split

FILE_COLUMNS = ("id", "file_name", "filename", "file", "image", "image_id", "image_name", "name", "path")
GROUP_COLUMNS = ("group", "group_id", "patient", "patient_id", "subject", "subject_id", "video", "video_id", "operation",
                 "operation_id", "op", "case", "case_id", "procedure")
SPLIT_COLUMNS = ("split",)
LABEL_COLUMNS = ("label", "class")
SPLIT_WORDS: dict[str, Split] = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
                                 "dev": "val", "test": "test", "testing": "test"}
MAX_CSV_BYTES = 50 * 2**20
MAX_GROUP_CHARS = 80


@dataclass(frozen=True)
class Row:
    """What the CSV says about one file; None where it has no such column."""

    group: str | None = None
    split: Split | None = None
    label: str | None = None
    line: int = 0


@dataclass
class Table:
    """Rows by the normalised name of their file, without folder traversal: names are compared, never opened."""

    rows: dict[str, Row] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    has_group: bool = False
    has_split: bool = False
    has_label: bool = False

    def row_for(self, relative: PurePosixPath) -> Row | None:
        """The row that names a file by its path, its name or its stem."""
        path = normal(relative.as_posix())
        for key in (path, path.removesuffix(normal(relative.suffix)), normal(relative.name), normal(relative.stem)):
            if key in self.rows:
                self.used.add(key)
                return self.rows[key]
        return None

    def unused(self) -> int:
        """Number of rows that named no file so far."""
        return len(self.rows) - len(self.used)


def read_table(path: Path, *, group_column: str | None, split_column: str | None, label_column: str | None) -> Table:
    """Read a CSV (comma, semicolon or tab; UTF-8). Columns not named are recognised by common headers.

    Raises:
        BadInputError: The file cannot be read, a named column is missing, a split is unknown, or a file has two different rows.
    """
    header, lines = _read_lines(path)
    file_column = _column(header, None, FILE_COLUMNS, "file") or header[0]
    group = _column(header, group_column, GROUP_COLUMNS, "group")
    split = _column(header, split_column, SPLIT_COLUMNS, "split")
    label = _column(header, label_column, LABEL_COLUMNS, "label")
    table = Table(has_group=group is not None, has_split=split is not None, has_label=label is not None)
    for role, column, asked in (("group", group, group_column), ("split", split, split_column), ("label", label, label_column)):
        if column is not None and asked is None:
            table.notes.append(f"{role} taken from the CSV column '{column}'")
    for number, line in enumerate(lines, start=2):
        name = (line.get(file_column) or "").strip()
        if not name:
            raise BadInputError(f"line {number} of the CSV names no file in column '{file_column}'; fill it or remove the line")
        row = Row(group=_cell(line, group)[:MAX_GROUP_CHARS] or None, split=_split(line, split, number),
                  label=_cell(line, label) or None, line=number)
        key = normal(name.replace("\\", "/").removeprefix("./"))
        known = table.rows.setdefault(key, row)
        if (known.group, known.split, known.label) != (row.group, row.split, row.label):
            raise BadInputError(f"lines {known.line} and {number} of the CSV differ about one file; keep one of them")
    return table


def _read_lines(path: Path) -> tuple[Sequence[str], list[dict[str, str | None]]]:
    shown = display_name(path.name)
    if not path.is_file():
        raise BadInputError(f"the CSV {shown} does not exist; choose an existing file")
    if path.stat().st_size > MAX_CSV_BYTES:
        raise BadInputError(f"the CSV {shown} is larger than {MAX_CSV_BYTES // 2**20} MB; keep only file, group and split in it")
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        reader = csv.DictReader(text.splitlines(), delimiter=delimiter)
        lines = [cast(dict[str, str | None], line) for line in reader]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise BadInputError(f"the CSV {shown} cannot be read as text; save it as CSV in UTF-8") from error
    header = [column.strip() for column in reader.fieldnames or [] if column]
    if not header or not lines:
        raise BadInputError(f"the CSV {shown} has no rows; the first line names the columns, for example 'id,split'")
    return header, [{(key or "").strip(): value for key, value in line.items()} for line in lines]


def _column(header: Sequence[str], asked: str | None, common: Sequence[str], role: str) -> str | None:
    by_name = {normal(column): column for column in header}
    if asked is None:
        return next((by_name[name] for name in common if name in by_name), None)
    if normal(asked) not in by_name:
        raise BadInputError(f"the CSV has no {role} column '{asked}'; its columns are {', '.join(header)[:200]}")
    return by_name[normal(asked)]


def _cell(line: dict[str, str | None], column: str | None) -> str:
    return (line.get(column) or "").strip() if column is not None else ""


def _split(line: dict[str, str | None], column: str | None, number: int) -> Split | None:
    if column is None:
        return None
    word = normal(_cell(line, column))
    if word not in SPLIT_WORDS:
        raise BadInputError(f"line {number} of the CSV has the split '{word[:20]}'; write train, val or test")
    return SPLIT_WORDS[word]
