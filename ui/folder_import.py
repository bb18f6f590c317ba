"""Import for the page: a look at what was found, then the order for it; both by `saadi.datasets.folder`."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from saadi.datasets.folder_pairs import normal
from saadi.decoding import value_name
from saadi.errors import BadInputError, CancelledError
from saadi.orders import ImportOrder
from saadi.records import Project
from saadi.store.blobs import encode_png
from ui.payloads import ImportFolder, ScanFolder

if TYPE_CHECKING:
    from saadi.datasets.folder_scan import FolderScan

MAX_PROBLEMS_SHOWN = 20
MAX_EXAMPLES = 24
EXAMPLE_SIDE = 96
DARKENED = 0.25
"""Brightness of what an example is not about."""


Progress = Callable[[int, int, str], None]


class Looks:
    """How far each look at a data set is, under the name that the page gave it. Ten thousand images take a minute."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[int, int, str]] = {}
        self._stopped: set[str] = set()

    @contextmanager
    def one(self, name: str | None) -> Iterator[Progress]:
        """For as long as it takes; what is yielded raises CancelledError once the look is to stop."""

        def report(step: int, total: int, message: str) -> None:
            if name is None:
                return
            self._told[name] = (step, total, message)
            if name in self._stopped:
                raise CancelledError("stopped looking; nothing was imported")

        try:
            yield report
        finally:
            if name is not None:
                self._told.pop(name, None)
                self._stopped.discard(name)

    def told(self, name: str) -> dict[str, Any]:
        """Step, total (0 = unknown) and words, which are None where it has not begun or is over."""
        step, total, message = self._told.get(name, (0, 0, None))
        return {"step": step, "total": total, "message": message}

    def stop(self, name: str) -> None:
        """Nothing where it is over."""
        if name in self._told:
            self._stopped.add(name)


def preview(project: Project, body: ScanFolder, temporary_dir: Path, report: Progress) -> dict[str, Any]:
    """Return format, number of pairs, groups, splits, the values in the masks with a proposed class each, notes and problems.

    Of each value an example is shown as a small picture. The class is None where nothing says which it is: a person chooses. In
    classification also the labels that were found, each with the class of the project that it names (None = no such class), and
    no values: masks are left out there.
    """
    from saadi.datasets import folder, mask_doctor, readers  # here, because the page comes up faster without them
    from saadi.datasets.readers.archive import opened

    order = wanted(body)
    with opened(Path(order.images_dir), temporary_dir, report) as images_dir:
        found = folder.scan_order(order, images_dir, report=report)
        is_classification = project.task == "classification"
        shown = {} if is_classification else found.values
        soft = set() if found.names else set(mask_doctor.soft_edges(shown, project.classes))
        num_plain = len(shown) - len(soft)
        proposed = folder.suggested_values(found, project.classes)
        values = [
            {"value": value, "name": value_name(value), "pixels": pixels, "masks": masks, "class": proposed.get(value),
             "called": found.names.get(value), "example": example(found, value) if num_plain <= MAX_EXAMPLES else None}
            for value, (pixels, masks) in sorted(shown.items()) if value not in soft
        ]  # fmt: skip
    classes = {normal(label.name): label.index for label in project.classes}
    labels = [{"name": name, "images": count, "class": classes.get(normal(name))} for name, count in found.labels.items()]
    return {
        "kind": readers.WORDS[found.kind],
        "is_video": found.kind in ("video", "dicom"),
        "num_pairs": len(found.pairs),
        "has_masks": found.has_masks,
        "needs_masks": found.needs_masks,
        "num_groups": len(found.groups),
        "splits": found.splits,
        "values": values,
        # Dozens of them, so one choice for all.
        "soft": {"values": sorted(soft), "pixels": sum(shown[value][0] for value in soft)} if soft else None,
        "findings": mask_doctor.findings(shown, project.classes) if shown else [],
        "labels": labels if is_classification else [],
        "num_unlabelled": sum(pair.label is None for pair in found.pairs) if is_classification else 0,
        "notes": list(found.notes),
        "num_problems": len(found.problems),
        "problems": [str(problem) for problem in found.problems[:MAX_PROBLEMS_SHOWN]],
    }


def example(found: FolderScan, value: int) -> str | None:
    """The image with most pixels of a value, all else darkened, as a small PNG in a data address."""
    best = max((pair for pair in found.pairs if value in pair.values), key=lambda pair: pair.values[value], default=None)
    if best is None or best.mask is None:
        return None
    image = best.picture.image().pixels
    mask = best.mask.mask((image.shape[0], image.shape[1])).mapped({other: int(other == value) for other in best.values})
    scale = EXAMPLE_SIDE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    inside = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)[..., None]
    lit = np.clip(small * (DARKENED + (1 - DARKENED) * inside), 0, 255).astype(np.uint8)
    return f"data:image/png;base64,{base64.b64encode(encode_png(cv2.cvtColor(lit, cv2.COLOR_RGB2BGR))).decode()}"


def wanted(body: ScanFolder) -> ImportOrder:
    """Return the order that takes in what `preview` showed.

    Raises:
        BadInputError: A folder is not there.
    """
    return ImportOrder(
        project_id=body.project_id,
        # Whole paths: the worker runs in another folder than the page.
        images_dir=str(_existing(body.images_dir).resolve()),
        masks_dir=str(_folder(body.masks_dir).resolve()) if body.masks_dir else None,
        csv=str(Path(body.csv).expanduser().resolve()) if body.csv else None,
        group_pattern=body.group_pattern or None,
        group_column=body.group_column or None,
        split_column=body.split_column or None,
        label_column=body.label_column or None,
        values=dict(body.values) if isinstance(body, ImportFolder) else {},
        every=body.every,
        sharpness=body.sharpness,
        change=body.change,
        burnt_in=body.burnt_in,
        source=body.source,
        without_masks=isinstance(body, ImportFolder) and body.without_masks,
    )


def _existing(text: str) -> Path:
    """A folder, or a file that holds a data set: a zip, a video, a DICOM file."""
    path = Path(text.strip()).expanduser()
    return path if path.is_file() else _folder(text)


def _folder(text: str) -> Path:
    path = Path(text.strip()).expanduser()
    if not path.is_dir():
        raise BadInputError(
            f"there is no folder {path.name!r} at this address; type the whole path on the computer that runs the program"
        )
    return path
