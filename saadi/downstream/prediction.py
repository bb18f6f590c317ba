"""What the project's segmenter or classifier sees in one real image, for the layer beside a person's mask."""

from __future__ import annotations

from typing import Any

from saadi import devices
from saadi.downstream.folds import selector_from_file
from saadi.jobs import JobContext, Outcome
from saadi.store import Store


def run_job(context: JobContext) -> Outcome:
    """Job `predict`: the selector's label map of one image, at the image's size, as a blob that the job names; by the part of a
    cross-fitted selector that has not seen the patient."""
    devices.use_all_threads()
    store, order = context.store, context.params
    model = store.model(order["model_id"])
    image = store.image(order["image_id"])
    selector = selector_from_file(model.architecture, store.files.path(model.file))
    [found] = selector.predict([store.blobs.image(image.blob)], [image.group_id])
    blob = store.blobs.put_label_map(found.label_map)
    context.report(1, 1, "the segmenter has looked", images={"prediction": blob})

    def publish(store: Store) -> dict[str, Any]:
        return {"label_map_blob": blob, "confidence": round(found.confidence, 4)}

    return Outcome("the segmenter has looked at the image", publish)
