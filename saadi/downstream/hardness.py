"""How hard images are for a downstream model, as something to differentiate by: of probabilities, where scores count pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from saadi.downstream.classifier import Classifier, class_of
from saadi.downstream.folds import CrossFitted, CrossFittedClassifiers
from saadi.downstream.models import DownstreamModel
from saadi.downstream.segmenter import Segmenter
from saadi.records import IGNORE, LabelMap


def members(model: DownstreamModel | CrossFitted | CrossFittedClassifiers) -> list[Segmenter | Classifier]:
    """The networks of a model: its folds, or itself."""
    if isinstance(model, (CrossFitted, CrossFittedClassifiers)):
        return [*model.folds]
    assert isinstance(model, (Segmenter, Classifier))
    return [model]


def losses(model: Segmenter | Classifier, pixels: Tensor, asked: Sequence[LabelMap]) -> Tensor:
    """(B,) 0 to 1: 1 - soft Dice, mean over the classes asked for (background where none is); of a classifier 1 - probability.

    Args:
        pixels: (B, 3, H, W) in [-1, 1]; gradients reach them.
    """
    side = model.size_px
    if pixels.shape[2:] != (side, side):
        pixels = F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    logits = model.network(pixels.to(model.device)).float() / model.temperature
    probabilities = logits.softmax(1)
    if isinstance(model, Classifier):
        wanted = torch.tensor([class_of(label_map) for label_map in asked], device=logits.device)
        return 1 - probabilities.gather(1, wanted[:, None])[:, 0]
    targets = model.encode_label_maps(asked)
    known = targets != IGNORE
    found = []
    for row, target in enumerate(targets):
        held = [index for index in target.unique().tolist() if index not in (0, IGNORE)] or [0]
        seen = (probabilities[row] * known[row])[held]
        truth = torch.stack([target == index for index in held])
        overlap = 2 * (seen * truth).sum((1, 2)) / (seen.sum((1, 2)) + truth.sum((1, 2))).clamp_min(1e-6)
        found.append(1 - overlap.mean())
    return torch.stack(found)
