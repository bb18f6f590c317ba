"""Does a generator denoise the images that it has learnt from better than others? The errors of `saadi.privacy.membership`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from saadi.engines import lora
from saadi.engines.base import SAMPLING_BATCH, TrainableEngine
from saadi.engines.few_shot import TIMES
from saadi.engines.loading import engine_from_file
from saadi.masks import fit_image_to, fit_to
from saadi.privacy.membership import Membership
from saadi.records import Adapter, Model, Project, RealImage, Split
from saadi.release.people import real_images
from saadi.store import Store

MAX_IMAGES = 96
"""On each side, spread over the patients."""


def membership(store: Store, project: Project, model: Model, adapter: Adapter | None,
               look: Callable[[int, int, str], None]) -> Membership | None:  # fmt: skip
    """How well a generator's errors tell its training images; None with too few patients on a side."""
    members, others = (_labelled(store, project, splits) for splits in (("train",), ("val", "test")))
    total = len(members) + len(others)
    if not members or not others:
        return None
    engine = engine_from_file(model.architecture, store.files.path(model.file))
    if adapter is not None:
        lora.load(engine.denoiser, store.files.path(adapter.file), scale=adapter.scale)
    engine.denoiser.eval()
    known = errors(store, engine, members, lambda number: look(number, total, "measuring what the generator remembers"))
    unknown = errors(store, engine, others,
                     lambda number: look(len(members) + number, total, "measuring what the generator remembers"))  # fmt: skip
    return Membership.of(known, unknown, patients=[image.group_id for image in members],
                         other_patients=[image.group_id for image in others])  # fmt: skip


def _labelled(store: Store, project: Project, splits: Sequence[Split]) -> list[RealImage]:
    found = [image for image in real_images(store, project, splits) if image.label_map_id is not None]
    count = min(MAX_IMAGES, len(found))
    return [found[index * len(found) // count] for index in range(count)]


@torch.no_grad()
def errors(
    store: Store, engine: TrainableEngine, images: Sequence[RealImage], told: Callable[[int], None]
) -> NDArray[np.float64]:
    """(N,) mean error over noise levels, with the same noise for every image."""
    side, found = engine.resolution, []
    noise: list[torch.Tensor] = []
    for first in range(0, len(images), SAMPLING_BATCH):
        told(first)
        chunk = images[first : first + SAMPLING_BATCH]
        pixels = [fit_image_to(store.blobs.image(image.blob), side=side) for image in chunk]
        label_maps = [fit_to(store.blobs.label_map(store.label_map(image.label_map_id or 0).blob), size=(side, side))
                      for image in chunk]  # fmt: skip
        clean = engine.encode_images(pixels)
        condition = engine.encode_label_maps(label_maps, pixels)
        if not noise:
            generator = torch.Generator().manual_seed(0)
            noise = [torch.randn((1, *clean.shape[1:]), generator=generator).to(clean.device) for _ in TIMES]
        of_chunk = []
        for time, one in zip(TIMES, noise, strict=True):
            times = torch.full((len(clean),), time, device=clean.device)
            of_chunk.append(engine.errors(clean, condition, times, one.expand(clean.shape).contiguous()))
        found.append(torch.stack(of_chunk).mean(0).double().cpu().numpy())
    return np.concatenate(found)
