"""Job `export`: the accepted images of a project become a folder that has been read again before it is offered."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saadi import orders
from saadi.errors import BadInputError, NotFoundError, StorageError, TooFewError
from saadi.exports import preferences
from saadi.exports.card import CARD, DATASHEET, card, datasheet
from saadi.exports.credentials import Signer
from saadi.exports.croissant import NAME as CROISSANT
from saadi.exports.croissant import croissant
from saadi.exports.facts import facts_of
from saadi.exports.formats import Format, format_named
from saadi.exports.labels import (
    LabelScheme,
    at_image_size,
    check_real_size,
    compile_label_map,
    count_pixels,
    refined,
    vanished_classes,
)
from saadi.exports.layout import Content
from saadi.exports.manifest import ITEMS, MANIFEST, Written, item_line, item_row, manifest_bytes, sha256
from saadi.exports.marks import MARKS, mark
from saadi.exports.pairs import num_pairs, select_pairs, without_broken_pairs
from saadi.exports.parallel import in_order
from saadi.exports.selection import Item, Selection, select
from saadi.exports.verify import verify_export
from saadi.jobs import JobContext, Outcome, checkpointed
from saadi.orders import ExportOrder
from saadi.records import IGNORE, LabelMap, Project
from saadi.store import Store
from saadi.store.blobs import fsync_dir, png_size
from saadi.store.releases import ExportItem

PREFIX = ".saadi-export-"
"""Names of half-written folders beside the target; a leftover one may be deleted."""
PASSES = 5
"""Counting, writing, the index, reading everything again, and the rules of the format: each looks at every item."""
MAX_NAMED = 5
"""Items that a refusal names."""
RUNNING, READY = "temporary.json", "ready.json"


@dataclass
class _Counted:
    """What the first look at all label maps tells."""

    has_ignore: bool = False
    unreadable: list[Item] = field(default_factory=list)
    """Image or label map is missing in the store, or damaged."""
    num_resized: int = 0
    vanished: dict[str, int] = field(default_factory=dict)
    """Class name -> number of images from which resizing removed the class."""
    filled: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Class name -> pixels that the format adds to it, and in how many masks."""


class _Look(NamedTuple):
    """What the first look at one item tells."""

    has_ignore: bool = False
    is_resized: bool = False
    vanished: Sequence[int] = ()
    """Classes that resizing removes."""
    filled: Mapping[int, int] = {}
    """Class -> pixels that the format adds to it."""


def run_job(context: JobContext) -> Outcome:
    """Write, verify and publish an export; a crash or a cancel leaves nothing under the target's name."""
    order = orders.order(ExportOrder, **context.params)
    assert isinstance(order, ExportOrder), "built as one"
    store, project = context.store, context.store.project(order.project_id)
    kind = format_named(order.format)
    kind.check_project(project)
    target = _target(context, project, order)
    # A worker that died between renaming and publishing left a finished folder and a note about it.
    if _is_finished(context, target):
        return _outcome(context, project, order, target)
    signer = Signer(Path(order.credentials), Path(order.credentials_key)) if order.credentials and order.credentials_key else None
    selection = _selected(store, project, order)
    total = PASSES * len(selection.items)
    # Count before writing: what cannot be read, which classes, ignored pixels, and what the format or a smaller size will lose.
    counted = _count(context, kind, project, order, selection.items, total)
    if counted.unreadable:
        selection = _without_unreadable(selection, counted.unreadable, is_wanted=order.without_unreadable)
        total = PASSES * len(selection.items)
    scheme = kind.scheme(project.classes, has_ignore=counted.has_ignore)
    with _temporary_sibling(context, target) as folder:
        written = _write_items(context, kind, project, scheme, selection.items, folder, total, signer)
        manifest = _write_index(context, kind, project, order, scheme, selection, written, [*scheme.lost, *_losses(counted)],
                                folder)  # fmt: skip
        del selection, counted, written  # reading again brings all of it back
        # Read everything again, by the consumer's rules and against the store.
        _verify(context, folder, total)
        context.report(total, total, "publishing")
        _move_into_place(context, folder, target, manifest)
    return _outcome(context, project, order, target)


def _selected(store: Store, project: Project, order: ExportOrder) -> Selection:
    if order.format == preferences.NAME:
        return select_pairs(store, project, include_real=order.include_real, include_refused=order.include_refused,
                            with_tied_versions=order.despite_withdrawn is not None)  # fmt: skip
    return select(store, project, include_real=order.include_real, include_refused=order.include_refused,
                  with_tied_versions=order.despite_withdrawn is not None,
                  refinement=orders.refinement(store, project.id) if order.refined else None)


def _verify(context: JobContext, folder: Path, total: int) -> None:
    num_items = total // PASSES

    def progress(number: int) -> None:
        context.report(3 * num_items + number, total, f"verifying {number + 1} of {num_items}")

    def by_rules(number: int) -> None:
        context.report(4 * num_items + min(number, num_items), total, "reading it as other programs do")

    if problems := verify_export(folder, store=context.store, progress=progress, by_rules=by_rules):
        raise StorageError(f"the written export differs from the store and was thrown away ({problems[0]}; {len(problems)} in "
                           "all); check the disk and export again")


def _target(context: JobContext, project: Project, order: ExportOrder) -> Path:
    """The folder to make, absolute.

    Raises:
        BadInputError: It has content, is a file, or lies among the program's own data.
    """
    home = context.store.home
    if order.out_dir is None:
        slug = re.sub(r"[^A-Za-z0-9_-]+", "-", project.name).strip("-")[:40] or "project"
        return (home.exports / f"{slug}-{order.format}-{context.job.id:04d}").absolute()
    target, data = Path(order.out_dir).expanduser().resolve(), home.path.resolve()
    if target == data or (data in target.parents and home.exports.resolve() not in target.parents):
        raise BadInputError("that folder belongs to the data folder of the program; choose another for the export")
    return target


def _refuse_content(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise BadInputError(f"the target '{target.name}' is a file or a link; choose a new folder for the export")
    if target.is_dir() and any(target.iterdir()):
        raise BadInputError(f"the folder '{target.name}' is not empty; choose a new folder for the export")


def _count(
    context: JobContext, kind: Format, project: Project, order: ExportOrder, items: Sequence[Item], total: int
) -> _Counted:
    found, indices = _Counted(), {label.name: label.index for label in project.classes}

    def look(item: Item) -> _Look | None:
        return _looked(context.store, kind, item, indices, order.options)

    with in_order(look, items) as looks:
        for number, (item, one) in enumerate(zip(items, looks, strict=True)):
            context.report(number, total, f"counting {number + 1} of {len(items)}")
            if one is None:
                found.unreadable.append(item)
                continue
            found.has_ignore |= one.has_ignore
            found.num_resized += one.is_resized
            for index in one.vanished:
                name = project.class_names[index] if index < len(project.classes) else str(index)
                found.vanished[name] = found.vanished.get(name, 0) + 1
            for index, pixels in one.filled.items():
                if index >= len(project.class_names):
                    continue  # refused when it is written, in words
                before_it = found.filled.get(project.class_names[index], (0, 0))
                found.filled[project.class_names[index]] = (before_it[0] + pixels, before_it[1] + 1)
    return found


def _looked(
    store: Store, kind: Format, item: Item, indices: Mapping[str, int], options: Mapping[str, str]
) -> _Look | None:
    """What counts about one item; None = the store cannot read it."""
    try:
        png, before = _stored(store, item)
    except (NotFoundError, BadInputError, OSError):
        return None
    if before is None:
        return _Look()
    after = _sized(before, item, png_size(png))
    return _Look(has_ignore=bool((after == IGNORE).any()), is_resized=after.shape != before.shape,
                 vanished=vanished_classes(before, after), filled=kind.lost_in(refined(after, item.lineage, indices), options))


def _stored(store: Store, item: Item) -> tuple[bytes, LabelMap | None]:
    """The image of an item, as PNG, and its label map.

    Raises:
        NotFoundError, BadInputError, OSError: The store cannot read one of them.
    """
    label_map = store.label_map_pixels(item.label_map_blob) if item.label_map_blob is not None else None
    return store.blobs.get(item.blob), label_map


def _without_unreadable(selection: Selection, unreadable: Sequence[Item], *, is_wanted: bool) -> Selection:
    """The selection without what is lost, counted.

    Raises:
        NotFoundError: Nobody said that it may be left out; a data set must not shrink unseen.
        TooFewError: Nothing that was made is left.
    """
    names = [item.name for item in unreadable]
    if not is_wanted:
        shown = ", ".join(names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")
        raise NotFoundError(f"{len(names)} of {len(selection.items)} images cannot be read ({shown}); restore them from a "
                            "backup, or export without them (--without-unreadable)")
    left_out = selection.left_out + Counter(f"{item.kind}, cannot be read" for item in unreadable)
    items = without_broken_pairs([item for item in selection.items if item.name not in names])
    if all(item.kind == "real" for item in items):
        raise TooFewError(f"all images to export but {len(items)} real ones cannot be read; restore them from a backup")
    return Selection(items, left_out)


def _losses(counted: _Counted) -> list[str]:
    holes = [f"polygons have no holes: {pixels} pixels more are '{name}' in {count} masks"
             for name, (pixels, count) in sorted(counted.filled.items())]  # fmt: skip
    if not counted.num_resized:
        return holes
    resized = f"{counted.num_resized} label maps were brought to the size of their image by nearest neighbour"
    vanished = [f"class '{name}' vanished from {count} masks by that" for name, count in sorted(counted.vanished.items())]
    return [resized, *vanished, *holes]


def _sized(label_map: LabelMap, item: Item, size: tuple[int, ...]) -> LabelMap:
    height, width = size
    fit = check_real_size if item.kind == "real" else at_image_size
    return fit(label_map, size=(height, width))


def _write_items(context: JobContext, kind: Format, project: Project, scheme: LabelScheme, items: Sequence[Item], folder: Path,
                 total: int, signer: Signer | None) -> list[Written]:
    written: list[Written] = []

    def write(item: Item) -> Written:
        return _write_item(context.store, kind, project, scheme, item, folder, signer)

    with in_order(write, items) as results:
        for number, one in enumerate(results):
            context.report(len(items) + number, total, f"writing {number + 1} of {len(items)}")
            written.append(one)
    return written


def _write_item(store: Store, kind: Format, project: Project, scheme: LabelScheme, item: Item, folder: Path,
                signer: Signer | None) -> Written:  # fmt: skip
    image_path, mask_path = kind.paths(project, item)
    png, label_map = _stored(store, item)
    size = png_size(png)
    if item.kind in MARKS:
        png = mark(png, item.kind)
        png = signer.sign(png, item.kind, name=item.name) if signer is not None else png
    _write_file(folder / image_path, png)
    mask_sha256, pixels = None, dict[str, int]()
    if mask_path is not None and label_map is not None:
        label_map = _sized(label_map, item, size)
        label_map = refined(label_map, item.lineage, {label.name: label.index for label in project.classes})
        mask = kind.encode_mask(np.ascontiguousarray(compile_label_map(label_map, scheme)))
        _write_file(folder / mask_path, mask)
        mask_sha256, pixels = sha256(mask), count_pixels(label_map, project.classes)
    return Written(item=item, image=image_path, image_sha256=sha256(png), mask=mask_path, mask_sha256=mask_sha256,
                   size=size, pixels=pixels)


def _write_index(
    context: JobContext, kind: Format, project: Project, order: ExportOrder, scheme: LabelScheme, selection: Selection,
    written: Sequence[Written], lost: Sequence[str], folder: Path,
) -> bytes:  # fmt: skip
    """Write the format's own files, items.jsonl and manifest.json; returns the manifest's bytes."""
    rows = [item_row(one) for one in written]

    def progress(number: int) -> None:
        context.report(2 * len(rows) + min(number, len(rows)), PASSES * len(rows), "writing the index")

    index = kind.index_files(project, rows, scheme, folder, order.options, progress)
    hashes = {name: _write_content(folder / name, content) for name, content in index.items()}
    items_sha256 = _write_content(folder / ITEMS, map(item_line, rows))
    facts = facts_of(context.store, project, rows, format=order.format, left_out=selection.left_out, lost=lost)
    own = {CROISSANT: croissant(facts, rows, items_sha256=items_sha256), DATASHEET: datasheet(facts), CARD: card(facts, project)}
    hashes |= {name: _write_content(folder / name, content) for name, content in own.items()}
    manifest = manifest_bytes(project, format=order.format, options=order.options, scheme=scheme, rows=rows,
                              items_sha256=items_sha256, left_out=selection.left_out, lost=lost, num_pairs=num_pairs(rows),
                              index_files=hashes)
    _write_file(folder / MANIFEST, manifest)
    return manifest


def _write_content(path: Path, content: Content) -> str:
    """Write an index file and return its SHA-256; pieces pass through one by one."""
    pieces, found = [content] if isinstance(content, bytes) else content, hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as stream:
        for piece in pieces:
            found.update(piece)
            stream.write(piece)
    return found.hexdigest()


def _write_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as stream:
        stream.write(content)


@contextmanager
def _temporary_sibling(context: JobContext, target: Path) -> Iterator[Path]:
    """A new folder beside the target, on the same disk; gone again unless it was moved into place.

    Raises:
        StorageError: The disk is full or refuses; the target does not exist then.
    """
    _remove_leftover(context)
    _refuse_content(target)
    folder: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=PREFIX))
        _remember(context, RUNNING, {"path": str(folder)})
        yield folder
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        reason = "the disk is full" if error.errno == errno.ENOSPC else f"the disk refused ({error.strerror})"
        raise StorageError(f"{reason}, nothing was exported; free some space or choose another folder and try again") from error
    finally:
        if folder is not None and folder.exists():
            shutil.rmtree(folder, ignore_errors=True)  # the first error is the one to tell


def _remove_leftover(context: JobContext) -> None:
    """Delete what a killed attempt of this job was writing."""
    known = _recalled(context, RUNNING)
    if known and Path(known["path"]).name.startswith(PREFIX):
        shutil.rmtree(known["path"], ignore_errors=True)


def _make_durable(folder: Path) -> None:
    """Wait until the disk has every file, then every folder.

    One after the other each file would wait for a commit of its own, 2 ms on an SSD; after `sync` there is nothing left to wait
    for, and asking for each file tells what the disk has refused.
    """
    if hasattr(os, "sync"):
        os.sync()
    paths = sorted(folder.rglob("*"), reverse=True)
    with in_order(_sync_file, [path for path in paths if not path.is_dir()]) as done:
        for _ in done:
            pass
    for path in paths:
        if path.is_dir():
            fsync_dir(path)
    fsync_dir(folder)


def _sync_file(path: Path) -> None:
    with path.open("rb+") as stream:  # Windows wants the right to write
        os.fsync(stream.fileno())


def _move_into_place(context: JobContext, folder: Path, target: Path, manifest: bytes) -> None:
    _make_durable(folder)
    _refuse_content(target)
    if target.is_dir():
        target.rmdir()
    _remember(context, READY, {"path": str(target), "manifest_sha256": sha256(manifest)})
    os.rename(folder, target)
    fsync_dir(target.parent)


def _is_finished(context: JobContext, target: Path) -> bool:
    """True where an earlier attempt of this job has moved this very export into place."""
    ready = _recalled(context, READY)
    manifest = target / MANIFEST
    if ready is None or ready["path"] != str(target) or not manifest.is_file():
        return False
    return sha256(manifest.read_bytes()) == ready["manifest_sha256"] and not verify_export(target)


def _remember(context: JobContext, name: str, content: Mapping[str, str]) -> None:
    with checkpointed(context.dir, name) as path:
        path.write_text(json.dumps(dict(content)), encoding="utf-8")


def _recalled(context: JobContext, name: str) -> dict[str, str] | None:
    path = context.dir / name
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def _outcome(context: JobContext, project: Project, order: ExportOrder, target: Path) -> Outcome:
    raw = (target / MANIFEST).read_bytes()
    manifest = json.loads(raw)
    num_items = int(manifest["num_items"])

    def publish(store: Store) -> dict[str, Any]:
        record = store.add_export(project.id, format=order.format, path=str(target), manifest_sha256=sha256(raw),
                                  num_items=num_items, actor=context.job.created_by, job_id=context.job.id,
                                  items=_items_of(target), despite_withdrawn=context.params.get("despite_withdrawn"))
        try:  # somebody may have withdrawn while it was written
            store.refuse_withdrawn(record.id)
        except BadInputError:
            shutil.rmtree(target, ignore_errors=True)
            raise
        return {"path": str(target), "export_id": record.id, "num_items": num_items, "counts": manifest["counts"],
                "left_out": manifest["left_out"], "lost": manifest["lost"], "verified": True}

    num_left_out = sum(manifest["left_out"].values())
    more = f"; {num_left_out} left out" if num_left_out else ""
    pairs = f"{manifest['num_pairs']} pairs of " if "num_pairs" in manifest else ""
    return Outcome(f"{pairs}{num_items} images exported, read again and found equal to the store{more}", publish)


def _items_of(target: Path) -> list[ExportItem]:
    with (target / ITEMS).open("rb") as stream:
        return [ExportItem(row["name"], row["kind"], row["blob"]) for row in map(json.loads, stream)]
