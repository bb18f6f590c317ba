"""Looking for text that was burnt into pictures: in what an export holds, or in all that a project has (job `text_check`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from saadi.errors import BadInputError, NotFoundError
from saadi.jobs import JobContext, Outcome
from saadi.privacy import burnt_in
from saadi.records import Project
from saadi.release.items import items_of
from saadi.store import Store
from saadi.store.releases import ExportItem
from saadi.store.withdrawals import OWN

CHUNK = 8
"""Pictures between two steps of progress; what was seen is kept when a job is stopped."""
MISSING = ("text in the pictures could not be looked for: rapidocr-onnxruntime is not installed, which has no release for Python "
           "3.13 and later")  # fmt: skip


def look_for_text(store: Store, blobs: Sequence[str], look: Callable[[int, int, str], None]) -> int:
    """Look at those pictures that this detector has not seen yet, about 0.1 s each, and keep where text is.

    Returns:
        How many of them the store cannot read: they count as not looked at.
    """
    num_lost, missing = 0, store.texts_unlooked(blobs, detector=burnt_in.DETECTOR)
    for first in range(0, len(missing), CHUNK):
        look(first, len(missing), f"looking for text in pictures, {first + 1} of {len(missing)}")
        found = {}
        for blob in missing[first : first + CHUNK]:
            try:
                pixels = store.blobs.image(blob)
            except (NotFoundError, BadInputError, OSError):
                num_lost += 1
                continue
            found[blob] = burnt_in.find_text(pixels)
        store.add_texts(found, detector=burnt_in.DETECTOR)
    return num_lost


def texts_of(store: Store, items: Sequence[ExportItem]) -> dict[str, Any]:
    """For `saadi.store.texts.with_texts`: which of these pictures show text, and where."""
    looks = store.texts(item.blob for item in items)
    found = [{"blob": item.blob, "name": item.name, "boxes": [list(box) for box in looks[item.blob].boxes],
              "size": list(store.blobs.image(item.blob).shape[:2])} for item in items if item.blob in looks]  # fmt: skip
    return {"num_looked": len({item.blob for item in items}) if burnt_in.is_available() else None, "found": found}


def shown_in(store: Store, project: Project) -> list[ExportItem]:
    """The real and the accepted images of a project in which text was found, under the names that an export gives them; none of
    a patient who has withdrawn."""
    items = _present(store, project)
    known = store.texts(item.blob for item in items)
    return [item for item in items if item.blob in known]


def _present(store: Store, project: Project) -> list[ExportItem]:
    """The real and the accepted images of a project, without those of patients who have withdrawn."""
    tied = store.standing_trace(project.id)
    away = {row.blob for row in store.samples(project.id, curation="accepted") if tied.samples.get(row.id) in OWN}
    items = [ExportItem(f"real-{image.id:06d}", "real", image.blob) for image in store.images(project.id)
             if image.withdrawn_from is None]  # fmt: skip
    return items + [item for item in items_of(store, project, None) if item.blob not in away]


def call_harmless(store: Store, project: Project, names: Sequence[str], *, person: str, is_harmless: bool = True) -> int:
    """Say of images, named as `shown_in` names them, that their text is no personal data, or take it back; returns how many.

    Raises:
        NotFoundError: No text was found in an image of that name.
    """
    shown = {item.name: item.blob for item in shown_in(store, project)}
    if unknown := [name for name in names if name not in shown]:
        raise NotFoundError(f"no text was found in an image called {unknown[0][:30]!r}; `saadi text-check` lists them, as "
                            "real-000012 or synthetic-000034")  # fmt: skip
    store.clear_texts([shown[name] for name in names], person=person, is_harmless=is_harmless)
    return len(set(names))


def run_job(context: JobContext) -> Outcome:
    """Job `text_check`: the real images of a project, and the accepted ones that were made in it."""
    store = context.store
    project = store.project(context.params["project_id"])
    context.yields = True  # what was seen is kept, and not looked at again
    blobs = [item.blob for item in _present(store, project)]
    num_lost = look_for_text(store, blobs, lambda step, total, words: context.report(step, total, words))
    found, held = store.texts(blobs), store.held_texts(blobs)
    told = {"num_images": len(set(blobs)), "num_text": len(found), "num_held": len(held), "num_unreadable": num_lost}
    lost = f"; {num_lost} cannot be read, restore them from a backup" if num_lost else ""
    if not found:
        return Outcome(f"no text found in {told['num_images'] - num_lost} images; that is no proof that there is none{lost}",
                       lambda store: told)  # fmt: skip
    return Outcome(f"{len(found)} of {told['num_images']} images show text; {len(held)} of them stay out of exports until "
                   f"somebody calls their text harmless{lost}", lambda store: told)  # fmt: skip
