"""A folder of images and masks becomes part of a project: first looked at (`scan`), then taken in (`import_folder`)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from saadi import orders
from saadi.datasets import mask_doctor
from saadi.datasets.folder_pairs import Problem, normal
from saadi.datasets.folder_scan import FolderPair, FolderScan, Progress, check_sizes, scan, silent
from saadi.datasets.folder_split import SIDES, assign_splits, check_fractions
from saadi.datasets.folder_table import SPLIT_WORDS
from saadi.datasets.readers.archive import opened
from saadi.datasets.readers.video import Choice
from saadi.decoding import check_values, display_name, parse_value, value_name
from saadi.errors import BadInputError, SaadiError, UnknownClassError
from saadi.jobs import JobContext, Outcome
from saadi.orders import ImportOrder
from saadi.privacy import burnt_in
from saadi.records import IGNORE, Image, Job, LabelClass, LabelMap, Project, RealImage, Split
from saadi.store import Store, audit
from saadi.store.blobs import encode_png

__all__ = ["FolderPair", "FolderScan", "ImportResult", "Problem", "import_folder", "scan", "scan_order", "suggested_values",
           "value_map"]

Shares = tuple[float, float, float]
DEFAULT_SHARES: Shares = (0.7, 0.15, 0.15)
ROWS_PER_WRITE = 500
"""Rows in one transaction: others wait for the database meanwhile, about half a second."""
WITHDRAWN = "its patient has withdrawn; leave it out, or take the withdrawal back first"
MAX_REFUSED_KEPT = 200


@dataclass(frozen=True)
class ImportResult:
    """What became of a folder. `num_added` 0 with entries in `refused` means that nothing was created."""

    num_added: int
    num_duplicates: int
    """Images whose pixels the project has already, or that came twice."""
    refused: list[Problem]
    splits: dict[str, int]
    """Split -> images added."""
    groups: dict[str, int]
    """Split -> groups among the images added."""
    notes: list[str] = field(default_factory=list)

    @property
    def message(self) -> str:
        """One sentence for a person: '12 images added, 3 were there already, 1 refused (the first: ...)'."""
        there = f", {self.num_duplicates} were there already" if self.num_duplicates else ""
        refused = f", {len(self.refused)} refused (the first: {self.refused[0]})" if self.refused else ""
        return f"{self.num_added} images added{there}{refused}"


def import_folder(store: Store, project: Project, scan: FolderScan, *, values: Mapping[int, int] | None = None, actor: str,
                  split: Mapping[str, str] | Shares = DEFAULT_SHARES, seed: int = 0, report: Progress = silent,
                  strict: bool = False, without_masks: bool = False) -> ImportResult:
    """Take a scanned folder into a project: pixels first, then rows, at full size.

    Args:
        values: Mask value -> class index (255 = ignore); a value not in it refuses its mask. Unused in classification.
        split: Shares of (train, val, test) by group, or group -> split; a split from CSV or folders goes before shares.
        strict: Refuse everything when anything is refused.
        without_masks: Take images alone into a project of masks, to draw them here.

    Raises:
        BadInputError: The import as a whole makes no sense (no masks, unknown class, one group on two sides), or `strict` met a
            refusal; no row was added.
    """
    values = dict(values or {})
    if without_masks:
        alone = tuple(replace(pair, mask=None, values={}) for pair in scan.pairs)
        scan = replace(scan, pairs=alone, values={}, has_masks=False)
    _check_import(project, scan, values, split, without_masks=without_masks)
    labels = {normal(name): name for name in project.class_names}
    refused = list(scan.problems)
    usable: list[FolderPair] = []
    withdrawn = store.withdrawn_groups(project.id)
    for pair in scan.pairs:
        reason = WITHDRAWN if pair.group in withdrawn else _refusal(project, pair, values, labels)
        refused += [Problem(display_name(pair.name), reason)] if reason else []
        usable += [] if reason else [pair]
    _check_strict(refused, strict)
    # A scan may be old, so everything is decoded again; pixels go into the store, rows wait.
    intake = _Intake(store, project, values)
    with intake.undone_on_error():
        added, num_ready = _take_all(store, project, usable, intake, split, seed, refused, labels, actor, report, strict=strict)
    return _result(scan, intake, added, num_ready, refused)


def _take_all(store: Store, project: Project, usable: Sequence[FolderPair], intake: _Intake, split: Mapping[str, str] | Shares,
              seed: int, refused: list[Problem], labels: Mapping[str, str], actor: str, report: Progress, *,
              strict: bool) -> tuple[list[RealImage], int]:
    """Pixels, then rows; returns what was added and how many were ready."""
    given = _given_splits(usable, split, {image.group_id: image.split for image in intake.known.values()})
    ready: list[tuple[FolderPair, _Stored]] = []
    for step, pair in enumerate(usable):
        report(step, len(usable), "storing images")
        try:
            stored = intake.take(pair)
        except BadInputError as error:
            refused.append(Problem(display_name(pair.name), str(error)))
            continue
        if stored is not None:
            ready.append((pair, stored))
    _check_strict(refused, strict)
    # Rows last: a crash before this line leaves blobs that no row names, and the next import goes on from there.
    sides = _sides(ready, given, split, seed, intake.known)
    return _add_rows(store, project, ready, sides, labels, actor), len(ready)


def run_job(context: JobContext) -> Outcome:
    """Job `import`: scan the folders again, take everything usable in, say what was refused."""
    store, order = context.store, orders.order(ImportOrder, **context.params)
    assert isinstance(order, ImportOrder), "built as one"
    project = store.project(order.project_id)
    # A zip is unpacked in the job's folder: what a killed attempt left there goes with it.
    with opened(Path(order.images_dir), context.dir, context.report) as images_dir:
        found = scan_order(order, images_dir, report=context.report)
        result = import_folder(store, project, found, values=order.values, actor=context.job.created_by, report=context.report,
                               without_masks=order.without_masks)

    def publish(store: Store) -> dict[str, Any]:
        told = asdict(result) | {"refused": [str(problem) for problem in result.refused[:MAX_REFUSED_KEPT]]}
        return told | _look_for_text(store, project, context.job)

    return Outcome(result.message, publish)


def _look_for_text(store: Store, project: Project, job: Job) -> dict[str, Any]:
    """Queue a look for burnt-in text, which takes longer than the import, where it has not been made yet."""
    if not store.texts_unlooked([image.blob for image in store.images(project.id)], detector=burnt_in.DETECTOR):
        return {}
    try:
        wanted = orders.order(orders.TextCheckOrder, project_id=project.id)
        placed, _ = orders.place(store, wanted, actor=job.created_by, request_id=f"text-check-after-{job.id}")
    except SaadiError as error:  # the import itself went well
        return {"no_text_check": str(error)}
    return {"text_check_id": placed.id}


def scan_order(order: ImportOrder, images_dir: Path, *, limit: int | None = None, report: Progress = silent) -> FolderScan:
    """`scan` as an order asks for it.

    Args:
        images_dir: The folder of the order, or where its zip was unpacked.
    """
    return scan(images_dir, Path(order.masks_dir) if order.masks_dir else None, csv=Path(order.csv) if order.csv else None,
                group_pattern=order.group_pattern, group_column=order.group_column, split_column=order.split_column,
                label_column=order.label_column, limit=limit, kind=order.source,
                choice=Choice(order.every, order.sharpness, order.change), burnt_in=order.burnt_in, report=report)


def value_map(text: str, classes: Sequence[LabelClass]) -> dict[int, int]:
    """Read '0=background,255=polyp' (or '#ff0000=1', 'ignore' for pixels that do not count) as mask value -> class index.

    Raises:
        BadInputError: Not of that form, or no such class.
    """
    by_name = {label.name.casefold(): label.index for label in classes} | {str(label.index): label.index for label in classes}
    by_name = {"ignore": IGNORE, str(IGNORE): IGNORE} | by_name
    result: dict[int, int] = {}
    for part in text.split(","):
        value, sign, name = part.partition("=")
        if not sign:
            raise BadInputError(f"write values as 0=background,255=polyp; got {part.strip()[:30]!r}")
        if name.strip().casefold() not in by_name:
            names = ", ".join(label.name for label in classes)
            raise BadInputError(f"there is no class {name.strip()[:30]!r}; classes are {names} and ignore")
        result[parse_value(value)] = by_name[name.strip().casefold()]
    return result


def suggested_values(scan: FolderScan, classes: Sequence[LabelClass]) -> dict[int, int]:
    """A guess for a form, to be confirmed by a person; values without a reason for one are left out."""
    return mask_doctor.proposals(scan.values, scan.names, classes)


@dataclass(frozen=True)
class _Stored:
    blob: str
    label_map_blob: str | None
    group: str
    """The pair's group, or one made of the pixels' hash: stable, and without a name in it."""


class _Intake:
    """Puts pixels into the blob store and remembers which the project has."""

    def __init__(self, store: Store, project: Project, values: Mapping[int, int]) -> None:
        self.store = store
        self.values = values if project.task == "segmentation" else None
        self.known: dict[str, RealImage] = {image.blob: image for image in store.images(project.id)}
        self.fresh: dict[str, str | None] = {}
        self.new: list[str] = []
        """Blobs that were not in the store before."""
        self.num_duplicates = 0
        self.num_other_masks = 0

    def take(self, pair: FolderPair) -> _Stored | None:
        """Decode, check and store one pair; None for pixels that are there already."""
        image, label_map = _pixels(pair, self.values)
        image_png = encode_png(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        mask_png = encode_png(np.ascontiguousarray(label_map)) if label_map is not None else None
        blob = hashlib.sha256(image_png).hexdigest()
        if blob in self.known or blob in self.fresh:
            self.num_duplicates += 1
            self._note_other_mask(blob, mask_png)
            return None
        self._put(image_png)
        label_map_blob = self._put(mask_png) if mask_png is not None else None
        self.fresh[blob] = label_map_blob
        return _Stored(blob, label_map_blob, pair.group or f"own-{blob[:16]}")

    def _put(self, png: bytes) -> str:
        blob = hashlib.sha256(png).hexdigest()
        if not self.store.blobs.path(blob).exists():
            self.new.append(blob)
        return self.store.blobs.put(png)

    @contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Cancelled or failed: pixels that no row names are patients' images that nobody could ever find to delete."""
        try:
            yield
        except BaseException:
            self.store.drop_unnamed_blobs(self.new)
            raise

    def _note_other_mask(self, blob: str, mask_png: bytes | None) -> None:
        if mask_png is None:
            return
        label_map_id = self.known[blob].label_map_id if blob in self.known else None
        present = self.store.label_map_history(label_map_id)[0]["blob"] if label_map_id is not None else self.fresh.get(blob)
        self.num_other_masks += int(present != hashlib.sha256(mask_png).hexdigest())


def _pixels(pair: FolderPair, values: Mapping[int, int] | None) -> tuple[Image, LabelMap | None]:
    image = pair.picture.image().pixels
    if pair.mask is None or values is None:
        return image, None
    size = (image.shape[0], image.shape[1])
    mask = pair.mask.mask(size)
    check_sizes(size, mask.pixels.shape)
    return image, mask.mapped(values)


def _check_import(project: Project, scan: FolderScan, values: Mapping[int, int], split: Mapping[str, str] | Shares, *,
                  without_masks: bool) -> None:
    if isinstance(split, Mapping):
        if unknown := sorted(set(split.values()) - set(SPLIT_WORDS)):
            raise BadInputError(f"a split is train, val or test; got {unknown[0][:20]!r}")
    else:
        check_fractions(split)
    if project.task == "classification":
        if scan.pairs and not scan.labels:
            raise BadInputError("the images have no labels; name the CSV column with the class, "
                                "or put each class into its own sub-folder")
        return
    if scan.pairs and not scan.has_masks and scan.needs_masks and not without_masks:
        raise BadInputError("the folder has no masks and this project needs them; choose the folder with the masks, or import "
                            "the images without masks and draw them here")
    if scan.values and not values:
        found = ", ".join(f"{value_name(value)} ({pixels} pixels in {masks} masks)"
                          for value, (pixels, masks) in list(scan.values.items())[:8])
        raise BadInputError(f"say which class each mask value is, for example 0=background; the masks hold {found}")
    known = {label.index for label in project.classes} | {IGNORE}
    if wrong := sorted(set(values.values()) - known):
        raise BadInputError(f"there is no class {wrong[0]} in this project; classes are 0 to {len(project.classes) - 1}, "
                            f"and {IGNORE} for ignore")


def _refusal(project: Project, pair: FolderPair, values: Mapping[int, int], labels: Mapping[str, str]) -> str | None:
    if project.task == "segmentation":
        try:
            check_values(pair.values, values)
        except UnknownClassError as error:
            return str(error)
        return None
    if pair.label is None:
        return "this image has no label; fill the CSV column or put it into the sub-folder of its class"
    if normal(pair.label) not in labels:
        return f"the label {display_name(pair.label)} is no class of this project; classes are {', '.join(labels.values())}"
    return None


def _check_strict(refused: Sequence[Problem], strict: bool) -> None:
    if strict and refused:
        raise BadInputError(f"{len(refused)} files cannot be used and nothing was imported; the first is {refused[0]}")


def _given_splits(pairs: Sequence[FolderPair], split: Mapping[str, str] | Shares, known: Mapping[str, Split]) -> dict[str, Split]:
    """Named group -> split, where CSV, folders, caller or earlier imports say so.

    Raises:
        BadInputError: One group on two sides, or a group that the caller's mapping leaves out.
    """
    given: dict[str, Split] = {}
    divided: set[str] = set()
    for pair in pairs:
        if isinstance(split, Mapping):
            if pair.group is None or pair.group not in split:
                raise BadInputError(f"the split names no side for the group of {display_name(pair.name)}; "
                                    "add it, or let the split be made by shares")
            side: Split | None = SPLIT_WORDS[split[pair.group]]
        else:
            side = pair.split
        if side is not None and pair.group is not None and given.setdefault(pair.group, side) != side:
            divided.add(pair.group)
    if divided:
        raise BadInputError(f"{len(divided)} groups are on two sides of the given split, so a model would be tested on patients "
                            "it learned from; correct the split, or leave it out and it is made by group")
    moved = [group for group, side in given.items() if known.get(group, side) != side]
    if moved:
        raise BadInputError(f"{len(moved)} groups are on another side in this project already; "
                            "give the same split as before, or leave it out")
    return given


def _sides(ready: Sequence[tuple[FolderPair, _Stored]], given: Mapping[str, Split], split: Mapping[str, str] | Shares,
           seed: int, known: Mapping[str, RealImage]) -> dict[str, Split]:
    """Group -> side for everything that is about to be added."""
    fixed: dict[str, Split] = {image.group_id: image.split for image in known.values()} | dict(given)
    fixed |= {stored.group: pair.split for pair, stored in ready if pair.group is None and pair.split is not None}
    shares = DEFAULT_SHARES if isinstance(split, Mapping) else split
    return assign_splits([stored.group for _, stored in ready], known=fixed, fractions=shares, seed=seed)


def _add_rows(store: Store, project: Project, ready: Sequence[tuple[FolderPair, _Stored]], sides: Mapping[str, Split],
              labels: Mapping[str, str], actor: str) -> list[RealImage]:
    added: list[RealImage] = []
    shown = {label for label in map(_label_in(project, labels), (pair for pair, _ in ready)) if label is not None}
    class_maps = {label: store.class_map(project, label) for label in sorted(shown)}
    for start in range(0, len(ready), ROWS_PER_WRITE):
        with store.write() as db:
            before = len(added)
            for pair, stored in ready[start:start + ROWS_PER_WRITE]:
                label = _label_in(project, labels)(pair)
                label_map_blob = stored.label_map_blob if label is None else class_maps[label]
                image = store.add_image(project.id, blob=stored.blob, size=pair.size, group_id=stored.group,
                                        split=sides[stored.group], label=label, source_name=_text(pair.name),
                                        label_map_blob=label_map_blob, actor=actor)
                added += [image] if image is not None else []
            audit.append(db, actor=actor, action="images.import", subject=f"project:{project.id}",
                         details={"num_added": len(added) - before})
    return added


def _label_in(project: Project, labels: Mapping[str, str]) -> Callable[[FolderPair], str | None]:
    """How a pair's class is called in a project; None where that has none."""
    def label(pair: FolderPair) -> str | None:
        return labels[normal(pair.label)] if project.task == "classification" and pair.label is not None else None

    return label


def _text(name: str) -> str:
    """A file name as text: file systems allow bytes that are none."""
    return name.encode("utf-8", "replace").decode()


def _result(scan: FolderScan, intake: _Intake, added: Sequence[RealImage], num_ready: int,
            refused: list[Problem]) -> ImportResult:
    splits = Counter(image.split for image in added)
    groups = Counter(side for _, side in {(image.group_id, image.split) for image in added})
    notes = list(scan.notes)
    if num_own := sum(1 for image in added if image.group_id.startswith("own-")):
        notes.append(f"{num_own} images came without patient, video or operation; each is its own group, "
                     "so frames of one patient may be on both sides")
    if intake.num_other_masks:
        notes.append(f"{intake.num_other_masks} images that are there already came with another mask; the first mask was kept")
    present = set(splits) | {image.split for image in intake.known.values()}
    if added and (empty := [side for side in SIDES if side not in present]):
        notes.append(f"no images for {' and '.join(empty)}; import more patients, or give a split")
    return ImportResult(num_added=len(added), num_duplicates=intake.num_duplicates + num_ready - len(added), refused=refused,
                        splits={side: splits[side] for side in SIDES if splits[side]},
                        groups={side: groups[side] for side in SIDES if groups[side]}, notes=notes)
