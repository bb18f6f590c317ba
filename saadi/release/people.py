"""The images of an audit, reduced as they are read, so that ten thousand of them lie in memory at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from saadi.privacy import verifier
from saadi.privacy.audit import People
from saadi.privacy.copies import Traces
from saadi.records import Image, Project, RealImage, Split
from saadi.store import Store

SIDE = 96
MAX_TO_LEARN = 2000
"""Training images that the verifier learns from, spread over all."""
CHUNK = 64

Look = Callable[[int, int, str], None]


def real_images(store: Store, project: Project, splits: Sequence[Split]) -> list[RealImage]:
    """In the order in which they came, which is that of time within a video; of patients who have withdrawn none."""
    found = store.images(project.id, splits=splits)
    return sorted((image for image in found if image.withdrawn_from is None), key=lambda image: image.id)


def reduced(store: Store, blobs: Sequence[str], look: Look, words: str) -> list[Image]:
    """(96, 96, 3) uint8 of each."""
    images = []
    for number, blob in enumerate(blobs):
        if number % CHUNK == 0:
            look(number, len(blobs), f"{words}, {number + 1} of {len(blobs)}")
        images.append(np.asarray(cv2.resize(store.blobs.image(blob), (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8))
    return images


def known_verifier(store: Store, project: Project, images: Sequence[Image], records: Sequence[RealImage], look: Look,
                   actor: str) -> verifier.Verifier:  # fmt: skip
    """The network that was fitted to just these training images, or one that is fitted now and kept."""
    from saadi.engines import weights

    parts = [f"{verifier.STEPS} {verifier.SIDE} {verifier.WIDTHS}", *(f"{record.blob} {record.group_id}" for record in records)]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    file = store.verifier(project.id, key)
    if file is not None:
        return verifier.from_state(weights.read(store.files.path(file)))
    places = _spread([record.group_id for record in records])
    groups = [records[place].group_id for place in places]
    fitted, metrics = verifier.fit([images[place] for place in places], groups, report=look)
    store.add_verifier(project.id, input=key, file=store.files.put(weights.to_bytes(fitted.state_dict())), metrics=metrics,
                       actor=actor)  # fmt: skip
    return fitted


def _spread(groups: Sequence[str]) -> list[int]:
    """MAX_TO_LEARN places, of as many patients as there are, one image after the other of each."""
    of_group: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        of_group.setdefault(group, []).append(place)
    each = max(2, MAX_TO_LEARN // len(of_group))
    return sorted(places[index * len(places) // min(each, len(places))] for places in of_group.values()
                  for index in range(min(each, len(places))))  # fmt: skip


def people(images: Sequence[Image], records: Sequence[RealImage], network: verifier.Verifier) -> People | None:
    """None where there is nobody."""
    if not images:
        return None
    return People(Traces.of(images, embeddings=network.embed(images)), tuple(record.group_id for record in records))
