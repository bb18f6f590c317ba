"""Tiny invented scenes and randomly initialised models, for tests that need pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from saadi.downstream.segmenter import Segmenter
from saadi.engines.compact import CompactEngine
from saadi.records import Image, LabelMap

CPU = torch.device("cpu")
SIDE = 16


def architecture(*, resolution: int = SIDE, num_classes: int = 3, prediction: str = "x0") -> dict[str, Any]:
    return {
        "engine": "compact",
        "num_classes": num_classes,
        "resolution": resolution,
        "patch": 2,
        "widths": [16, 16],
        "prediction": prediction,
        "sampler": {"name": "euler", "num_inference_steps": 3},
    }


def engine(seed: int = 0, **changes: Any) -> CompactEngine:
    torch.manual_seed(seed)
    return CompactEngine(architecture(**changes), device=CPU)


def segmenter(model: str, seed: int = 0, *, num_classes: int = 3) -> Segmenter:
    torch.manual_seed(seed)
    return Segmenter(
        {"model": model, "num_classes": num_classes, "size_px": 32, "channels": [8, 8, 16, 16], "init_filters": 8}, device=CPU
    )


def scene(seed: int, *, side: int = SIDE) -> tuple[Image, LabelMap]:
    """A green organ (class 1) and sometimes a grey bar (class 2) on red tissue."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    cx, cy, radius = draw.uniform(0.3, 0.7) * side, draw.uniform(0.3, 0.7) * side, draw.uniform(0.15, 0.3) * side
    label_map = ((x - cx) ** 2 + (y - cy) ** 2 < radius**2).astype(np.uint8)
    if draw.random() < 0.5:
        label_map[side // 8 : side // 4] = 2
    colors = np.array([[170, 70, 60], [80, 150, 70], [150, 150, 160]], np.float64)
    image = colors[label_map] + draw.normal(0, 6, (side, side, 3))
    return image.clip(0, 255).astype(np.uint8), label_map


def scenes(count: int, *, side: int = SIDE) -> tuple[list[Image], list[LabelMap]]:
    pairs = [scene(seed, side=side) for seed in range(count)]
    return [image for image, _ in pairs], [label_map for _, label_map in pairs]
