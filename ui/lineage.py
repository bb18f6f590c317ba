"""Where a synthetic image comes from, step by step, newest first: image, source, mask revision, settings, version, weights."""

from __future__ import annotations

from typing import Any

from saadi.inpainting import real_image_of
from saadi.masks import class_of
from saadi.records import Adapter, Model, Sample
from saadi.store import Store

SHORT = 12
"""Digits of a hash that people see; enough to tell files of one project apart."""


def badge_of(sample: Sample) -> str:
    """'edited' where a real patient's pixels are left, else 'synthetic'."""
    return "edited" if sample.is_composite else "synthetic"


def lineage(store: Store, sample: Sample) -> list[dict[str, Any]]:
    """The steps, each with a title, a sentence and, where there is one, a picture."""
    steps = [_image(sample)]
    if sample.source_blob is not None:
        steps.append(_source(store, sample))
    steps += [_mask(store, sample), _settings(store, sample), _version(store, sample)]
    return [*steps, _weights(store.model(sample.model_id))]


def adapter_path(store: Store, adapter_id: int | None) -> list[Adapter]:
    """An adapter and its ancestors, youngest first."""
    path: list[Adapter] = []
    while adapter_id is not None:
        path.append(store.adapter(adapter_id))
        adapter_id = path[-1].parent_id
    return path


def _image(sample: Sample) -> dict[str, Any]:
    made_for = "in Draw" if sample.purpose == "draw" else "for the pool"
    return {"kind": "image", "title": f"Image {sample.id}", "text": f"made {made_for}", "blob": sample.blob,
            "created_at": sample.created_at, "badge": badge_of(sample)}  # fmt: skip


def _source(store: Store, sample: Sample) -> dict[str, Any]:
    """The picture of which only a part was made anew."""
    part = sample.settings["inpaint"]
    names = store.project(sample.project_id).class_names
    region = "what changed" if part["class_index"] is None else names[part["class_index"]]
    if part.get("is_whole"):
        region = "what the mask names"
    image_id = real_image_of(sample)
    origin = f"image {sample.parent_id}" if sample.parent_id is not None else f"real image {image_id}"
    stays = "real pixels outside the regenerated region" if image_id is not None else "all else is kept, bit for bit"
    return {"kind": "source", "title": f"Only {region}, in {origin}", "text": stays, "blob": sample.source_blob,
            "sample_id": sample.parent_id, "badge": _badge_of_source(store, sample)}  # fmt: skip


def _badge_of_source(store: Store, sample: Sample) -> str:
    return badge_of(store.sample(sample.parent_id)) if sample.parent_id is not None else "real"


def _mask(store: Store, sample: Sample) -> dict[str, Any]:
    project = store.project(sample.project_id)
    if project.task == "classification":
        index = class_of(store.label_map_pixels(sample.label_map_blob))
        return {"kind": "class", "title": f"Class {project.class_names[index]}", "text": "of the whole image", "class": index}
    record = store.label_map(sample.label_map_id)
    revision = next(row for row in store.label_map_history(record.id) if row["rev"] == sample.label_map_rev)
    return {"kind": "mask", "title": f"Mask \u201c{record.name}\u201d, revision {sample.label_map_rev} of {record.rev}",
            "text": f"{record.origin} by {revision['author']}", "label_map_blob": sample.label_map_blob,
            "label_map_id": record.id, "rev": sample.label_map_rev, "created_at": revision["created_at"]}  # fmt: skip


def _settings(store: Store, sample: Sample) -> dict[str, Any]:
    told, names = sample.settings, store.project(sample.project_id).class_names
    parts = [f"{told['num_inference_steps']} steps"] if "num_inference_steps" in told else []
    parts += [f"guidance {told['guidance_scale']:g}"] if "guidance_scale" in told else []
    parts += [str(told["sampler"]).replace("_", " ")] if "sampler" in told else []
    settings = {key: told.get(key) for key in ("num_inference_steps", "guidance_scale")}
    if negative := told.get("negative"):
        parts.append(f"negative adapter {negative['adapter_id']} at {negative['weight']:g}")
        settings["negative"] = negative
    if guide := told.get("guide"):
        parts.append(f"begun {guide['reach_px']} px wider, exact after {guide['until']:.0%} of the steps")
    settings |= {key: told[key] for key in ("surroundings", "guide") if key in told}
    if references := told.get("references"):
        parts += [f"{names[one['class_index']]} like image {one.get('image_id') or one.get('sample_id')}" for one in references]
        known = ("class_index", "image_id", "sample_id")
        settings["references"] = [{key: value for key, value in one.items() if key in known} for one in references]
    if (shift_id := told.get("noise_shift_id")) is not None:
        parts.append(f"from learnt noise {shift_id}")
        settings["noise_shift_id"] = shift_id
    use = {"seed": sample.seed, "settings": settings, "adapter": "none" if sample.adapter_id is None else sample.adapter_id}
    return {"kind": "settings", "title": f"Seed {sample.seed}", "text": ", ".join(parts), "use": use}


def _version(store: Store, sample: Sample) -> dict[str, Any]:
    path = adapter_path(store, sample.adapter_id)
    title = " \u2190 ".join([adapter.name for adapter in path] + ["base"])
    text = f"{path[0].state}, adapter {path[0].file[:SHORT]}" if path else "the generator without an adapter"
    return {"kind": "version", "title": title, "text": text} | ({"created_at": path[0].created_at} if path else {})


def _weights(model: Model) -> dict[str, Any]:
    fitted = model.metrics.get("num_images")
    trained = f"fitted to {fitted} images of this project" if fitted else "as shipped with the program"
    parent = f", starting from weights {model.parent_id}" if fitted and model.parent_id is not None else ""
    return {"kind": "weights", "title": f"Weights {model.id}: {model.file[:SHORT]}", "text": trained + parent,
            "created_at": model.created_at}  # fmt: skip
