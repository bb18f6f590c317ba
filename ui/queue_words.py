"""The queue in words: what a job is, whose it is, and when another one's turn comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saadi.records import Job
from saadi.store import Store

NOUNS = {
    "fit": "fitting",
    "train_scorer": "training of the scorers",
    "score": "scoring",
    "align": "alignment",
    "export": "export",
    "import": "import",
    "predict": "segmentation of an image",
    "map": "map",
    "evidence": "measurement of the gain",
    "fit_masks": "learning to draw masks",
    "suggest_masks": "drawing of masks",
    "mine": "search for hard images",
    "surrogates": "images to share",
    "refine": "measuring of outlines",
    "audit": "audit",
    "text_check": "look for text in images",
}


def num_images(params: dict[str, Any]) -> int:
    """How many images an order to generate asks for."""
    masks = len(params["label_map_ids"]) if params.get("label_map_ids") else params.get("count", 1)
    return int(masks) * int(params.get("candidates", 1))


def noun(job: Job) -> str:
    """'pool of 64 images', '4 images of a drawing', 'alignment'."""
    if job.kind != "generate":
        return NOUNS.get(job.kind, job.kind)
    count = num_images(job.params)
    return f"pool of {count} images" if job.params.get("purpose") == "pool" else f"{count} images of a drawing"


def what(store: Store, job: Job) -> str | None:
    """Masks times images, version and seed of an order to generate; None for other jobs."""
    if job.kind != "generate":
        return None
    params, adapter = job.params, job.params.get("adapter", "accepted")
    candidates = int(params.get("candidates", 1))
    masks = num_images(params) // candidates
    version = {"accepted": "version in use", "none": "base"}.get(adapter) if isinstance(adapter, str) else None
    names = {item.id: item.name for item in store.adapters(job.project_id or 0)}  # a row that is wrong must not hide the queue
    version = version or names.get(int(adapter), f"adapter {adapter}")
    part = "a part of one image, " if params.get("inpaint") else ""
    if series := params.get("series"):
        part = f"round {series['round']} of {series['of']}, "
    named = f"{masks} {_asked(store, job)}{'' if masks == 1 else 's'} \u00d7 {candidates}"
    if classes := params.get("classes"):
        named += f" of {_names(store, job, classes)}"
    return f"{part}{named} \u00b7 {version} \u00b7 seed {params.get('seed', 0)}"


def _asked(store: Store, job: Job) -> str:
    """What images are made for: masks, or sets of a class."""
    is_classification = job.project_id is not None and store.project(job.project_id).task == "classification"
    return "set" if is_classification else "mask"


def _names(store: Store, job: Job, classes: Sequence[int]) -> str:
    names = store.project(job.project_id).class_names if job.project_id is not None else ()
    listed = [names[index] for index in classes if index < len(names)]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def turn(before: Sequence[Job], *, viewer: str | None) -> str:
    """When a waiting job's turn comes.

    Args:
        before: The jobs that run first, in their order.
        viewer: Whose own jobs are called 'your'.
    """
    if not before:
        return "next; it starts in a moment"
    first = before[0]
    owner = "your" if first.created_by == viewer else f"{first.created_by}'s"
    more = f" and {len(before) - 1} more" if len(before) > 1 else ""
    left = _seconds(before)
    return f"{_ordinal(len(before) + 1)} in the queue, after {owner} {noun(first)}{more}" + (f" ({left})" if left else "")


def _seconds(before: Sequence[Job]) -> str:
    """What is known of the wait: only a running job has an estimate."""
    eta_s = before[0].eta_s
    if eta_s is None:
        return ""
    amount = f"{max(1, round(eta_s))} s" if eta_s < 90 else f"{round(eta_s / 60)} min"
    return f"about {amount}" if len(before) == 1 else f"at least {amount}"


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
