"""What images are compared under: the same label map, and the same picture where only what a label map names is painted; in
classification the same class, and there a place of its pool.

A class is one label map for all its images. Best against worst of them all would be one pair, so the candidates of a class are
compared in the small groups in which they were made: K images for each place that an order gave to the class. The place is that
of a real training image of the class, which can be the winner there.
"""

from __future__ import annotations

from saadi.records import Task

MARK = "#"
"""Occurs in no hash."""


def condition_of(task: Task, label_map_blob: str, label_map_id: int, picture_blob: str | None = None) -> str:
    """The condition under which an image was made.

    Args:
        picture_blob: What it was painted into; None = all of it was made.
    """
    if task == "classification":
        return f"{label_map_blob}{MARK}{label_map_id}"
    return label_map_blob if picture_blob is None else f"{label_map_blob}{MARK}{picture_blob}"


def is_painted(task: Task, condition: str) -> bool:
    """Whether its images were painted into a picture, which is left around what was made."""
    return task == "segmentation" and MARK in condition


def asked_blob(condition: str) -> str:
    """The blob of the label map that a condition asks for."""
    return condition.partition(MARK)[0]
