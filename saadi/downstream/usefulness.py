"""How much a training step on a synthetic image would help a downstream model on real images that it has not seen.

To first order a step along an image's gradient lowers the loss on other images by the dot product of both gradients (the idea of
TracIn, arXiv:2002.08484, and of LESS, arXiv:2402.04333). Unlike the overlap with the asked mask this does not prefer images that
are easy: what the model knows already has no gradient, and what is wrong under its mask points elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from saadi.downstream.classifier import Classifier, class_of
from saadi.downstream.models import DownstreamModel
from saadi.downstream.segmenter import Segmenter
from saadi.records import IGNORE, Image, LabelMap


def usefulness(
    model: DownstreamModel,
    images: Sequence[Image],
    asked: Sequence[LabelMap],
    *,
    real: Sequence[Image],
    real_label_maps: Sequence[LabelMap],
) -> NDArray[np.float64]:
    """Dot product of the loss gradient of each image under its asked label map with the mean one of real images.

    Args:
        real, real_label_maps: Of patients whom the model has not seen, at least one image.

    Returns:
        (N,) in the units of the loss squared per weight: only the order among images of one model means something.
    """
    parameters = [parameter for parameter in model.network.parameters() if parameter.requires_grad]

    def gradient(image: Image, label_map: LabelMap) -> Tensor:
        with torch.enable_grad():
            found = torch.autograd.grad(_loss(model, image, label_map), parameters, allow_unused=True)
        return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten()
                          for g, p in zip(found, parameters, strict=True)])  # fmt: skip

    wanted = torch.zeros(sum(parameter.numel() for parameter in parameters), device=parameters[0].device)
    for image, label_map in zip(real, real_label_maps, strict=True):
        wanted += gradient(image, label_map) / len(real)
    return np.array([float(gradient(*one) @ wanted) for one in zip(images, asked, strict=True)])


def _loss(model: DownstreamModel, image: Image, label_map: LabelMap) -> Tensor:
    """What the model is trained with, of one image: cross-entropy, in segmentation with the Dice of the asked classes."""
    if isinstance(model, Classifier):
        label = torch.tensor([class_of(label_map)], device=model.device)
        return F.cross_entropy(model.network(model.encode([image])).float(), label)
    assert isinstance(model, Segmenter)
    logits, target = model.network(model.encode([image])).float(), model.encode_label_maps([label_map])
    known = (target != IGNORE).unsqueeze(1)
    if not known.any():
        return logits.sum() * 0
    loss = F.cross_entropy(logits, target, ignore_index=IGNORE)
    held = [index for index in target.unique().tolist() if index not in (0, IGNORE)]
    if held:
        seen = (logits.softmax(1) * known)[:, held]
        truth = torch.stack([target == index for index in held], dim=1)
        overlap = 2 * (seen * truth).sum((2, 3)) / (seen.sum((2, 3)) + truth.sum((2, 3)))
        loss = loss + 1 - overlap.mean()
    return loss


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the others that are lower, 0 to 1: so numbers of several models are comparable. Equal ones share their place."""
    if len(values) < 2:
        return np.full(len(values), 0.5)
    return np.asarray((stats.rankdata(values) - 1) / (len(values) - 1), dtype=np.float64)
