"""Folder import for the page: a look at what was found, then the order for it; both by `saadi.datasets.folder`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saadi.datasets.folder_pairs import normal
from saadi.decoding import value_name
from saadi.errors import BadInputError
from saadi.orders import ImportOrder
from saadi.records import Project
from ui.payloads import ImportFolder, ScanFolder

MAX_PROBLEMS_SHOWN = 20


def preview(project: Project, body: ScanFolder) -> dict[str, Any]:
    """Return number of pairs, groups, splits, the values in the masks with a proposed class each, notes and problems.

    In classification also the labels that were found, each with the class of the project that it names (None = no such class),
    and no values: masks are left out there.
    """
    from saadi.datasets import folder  # here, because the page comes up faster without it

    found = _scan(body)
    classes = {normal(label.name): label.index for label in project.classes}
    is_classification = project.task == "classification"
    proposed = folder.suggested_values(found, project.classes)
    values = [
        {"value": value, "name": value_name(value), "pixels": pixels, "masks": masks, "class": proposed.get(value, 0)}
        for value, (pixels, masks) in sorted(found.values.items())
        if not is_classification
    ]
    labels = [{"name": name, "images": count, "class": classes.get(normal(name))} for name, count in found.labels.items()]
    return {
        "num_pairs": len(found.pairs),
        "has_masks": found.has_masks,
        "num_groups": len(found.groups),
        "splits": found.splits,
        "values": values,
        "labels": labels if is_classification else [],
        "num_unlabelled": sum(pair.label is None for pair in found.pairs) if is_classification else 0,
        "notes": list(found.notes),
        "num_problems": len(found.problems),
        "problems": [str(problem) for problem in found.problems[:MAX_PROBLEMS_SHOWN]],
    }


def wanted(body: ImportFolder) -> ImportOrder:
    """Return the order that takes in what `preview` showed.

    Raises:
        BadInputError: A folder is not there.
    """
    return ImportOrder(
        project_id=body.project_id,
        # Whole paths: the worker runs in another folder than the page.
        images_dir=str(_folder(body.images_dir).resolve()),
        masks_dir=str(_folder(body.masks_dir).resolve()) if body.masks_dir else None,
        csv=str(Path(body.csv).expanduser().resolve()) if body.csv else None,
        group_pattern=body.group_pattern or None,
        group_column=body.group_column or None,
        split_column=body.split_column or None,
        label_column=body.label_column or None,
        values=dict(body.values),
    )


def _scan(body: ScanFolder) -> Any:
    from saadi.datasets import folder

    return folder.scan(
        _folder(body.images_dir),
        _folder(body.masks_dir) if body.masks_dir else None,
        csv=Path(body.csv).expanduser() if body.csv else None,
        group_pattern=body.group_pattern or None,
        group_column=body.group_column or None,
        split_column=body.split_column or None,
        label_column=body.label_column or None,
    )


def _folder(text: str) -> Path:
    path = Path(text.strip()).expanduser()
    if not path.is_dir():
        raise BadInputError(
            f"there is no folder {path.name!r} at this address; type the whole path on the computer that runs the program"
        )
    return path
