"""The formats an export can have, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, cast

from saadi.errors import BadInputError
from saadi.exports import coco, folders, imagefolder, nnunet, preferences, voc, yolo
from saadi.exports.labels import LabelScheme
from saadi.exports.layout import Content
from saadi.exports.selection import Item
from saadi.records import LabelClass, LabelMap, Project

Progress = Callable[[int], None]
"""Called with the number of each item that is looked at; may raise to stop."""


class Format(Protocol):
    """What a format's module offers."""

    def check_project(self, project: Project) -> None: ...

    def scheme(self, classes: Sequence[LabelClass], *, has_ignore: bool) -> LabelScheme: ...

    def encode_mask(self, label_map: LabelMap, /) -> bytes: ...

    def lost_in(self, label_map: LabelMap, options: Mapping[str, str]) -> dict[int, int]: ...

    def paths(self, project: Project, item: Item) -> tuple[PurePosixPath, PurePosixPath | None]: ...

    def index_files(
        self, project: Project, rows: Sequence[Mapping[str, Any]], scheme: LabelScheme, folder: Path, options: Mapping[str, str],
        progress: Progress,
    ) -> Mapping[str, Content]: ...  # fmt: skip

    def check(
        self, folder: Path, manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], progress: Progress
    ) -> list[str]: ...


FORMATS: Mapping[str, Format] = {imagefolder.NAME: cast(Format, imagefolder), nnunet.NAME: cast(Format, nnunet),
                                 coco.NAME: cast(Format, coco), voc.NAME: cast(Format, voc), yolo.NAME: cast(Format, yolo),
                                 folders.NAME: cast(Format, folders), preferences.NAME: cast(Format, preferences)}  # fmt: skip


def format_named(name: str) -> Format:
    """Raises: BadInputError: no such format; names those that exist."""
    if name not in FORMATS:
        raise BadInputError(f"there is no export format {name[:20]!r}; choose {', '.join([*FORMATS][:-1])} or {[*FORMATS][-1]}")
    return FORMATS[name]
