"""Folder import for the page: a preview of what was found, then the import itself, both by `saadi.datasets.folder`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saadi.errors import BadInputError
from saadi.records import Project
from saadi.store import Store
from ui.payloads import ImportFolder

MAX_PROBLEMS_SHOWN = 20


def preview(project: Project, images_dir: str, masks_dir: str) -> dict[str, Any]:
    """Return number of pairs, the values in the masks with pixel counts and a proposed class each, and the problems."""
    from saadi.datasets import folder  # here, because the page must come up without it

    found = folder.scan(_folder(images_dir), _folder(masks_dir))
    values = sorted(found.values)
    direct = all(value < len(project.classes) or value == 255 for value in values) and len(values) > 2
    proposed = {value: value if direct else min(rank, len(project.classes) - 1) for rank, value in enumerate(values)}
    return {"num_pairs": len(found.pairs), "problems": [str(problem) for problem in found.problems[:MAX_PROBLEMS_SHOWN]],
            "num_problems": len(found.problems),
            "values": [{"value": int(value), "pixels": int(found.values[value]), "class": proposed[value]} for value in values]}


def run(store: Store, project: Project, body: ImportFolder, *, actor: str) -> dict[str, Any]:
    """Import the folder and return what came in."""
    from saadi.datasets import folder

    unknown = [index for index in body.values.values() if index >= len(project.classes) and index != 255]
    if unknown:
        raise BadInputError(f"class {unknown[0]} is not in this project; it has classes 0 to {len(project.classes) - 1}")
    scanned = folder.scan(_folder(body.images_dir), _folder(body.masks_dir))
    report = folder.import_folder(store, project, scanned, values=dict(body.values), actor=actor)
    return {"message": str(getattr(report, "message", report)), "overview": store.count_images(project.id)}


def _folder(text: str) -> Path:
    path = Path(text.strip()).expanduser()
    if not path.is_dir():
        raise BadInputError(f"there is no folder {path.name!r} at this address; type the whole path on the computer that runs the program")
    return path
