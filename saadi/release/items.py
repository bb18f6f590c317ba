"""What an export holds: its images, and its files. Imports no torch, as the page asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from saadi.exports.manifest import ITEMS, MANIFEST
from saadi.records import ExportRecord, Project
from saadi.store import Store
from saadi.store.releases import ExportItem, is_there


def items_of(store: Store, project: Project, export: ExportRecord | None) -> list[ExportItem]:
    """The images of an export, real ones too, or of what is accepted; of an old export as its own list says."""
    if export is None:
        return [ExportItem(f"{'composite' if sample.is_composite else 'synthetic'}-{sample.id:06d}",
                           "composite" if sample.is_composite else "synthetic", sample.blob)
                for sample in store.samples(project.id, curation="accepted")]  # fmt: skip
    found = store.export_items(export.id)
    listed = Path(export.path) / ITEMS
    if not found and listed.is_file() and is_there(export):
        rows = [json.loads(line) for line in listed.read_text(encoding="utf-8").splitlines()]
        found = [ExportItem(row["name"], row["kind"], row["blob"]) for row in rows]
    return found


def files_of(export: ExportRecord) -> set[str] | None:
    """Paths in the folder of an export that its manifest and list name; None where it is gone or holds another one."""
    folder = Path(export.path)
    if not is_there(export) or not (folder / ITEMS).is_file():
        return None
    manifest = _manifest(export)
    rows = [json.loads(line) for line in (folder / ITEMS).read_text(encoding="utf-8").splitlines()]
    return {*manifest["index_files"], *(row[key] for row in rows for key in ("image", "mask") if row[key])}


def has_credentials(export: ExportRecord) -> bool:
    """Whether the images of an export whose folder is there carry content credentials (C2PA)."""
    return "credentials" in _manifest(export).get("options", {})


def _manifest(export: ExportRecord) -> dict[str, Any]:
    return dict(json.loads((Path(export.path) / MANIFEST).read_text(encoding="utf-8")))
