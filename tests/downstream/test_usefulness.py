"""Usefulness is what a small training step brings on images that the model has not seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saadi.downstream import classifier, usefulness
from saadi.downstream.classifier import Classifier
from saadi.downstream.usefulness import ranks
from saadi.records import IGNORE
from tests import tiny

STEP = 1e-5


def models():
    torch.manual_seed(0)
    small = classifier.default_architecture("selector", num_classes=3) | {"size_px": 32}
    return {"segmentation": tiny.segmenter("unet"), "classification": Classifier(small, device=torch.device("cpu"))}


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_it_is_the_fall_of_the_loss_on_real_images_after_a_small_step(task: str):
    model = models()[task]
    images, label_maps = tiny.scenes(6, side=32)
    if task == "classification":
        label_maps = [np.full((32, 32), index % 3, np.uint8) for index in range(6)]
    made, asked, real, truth = images[:3], label_maps[:3], images[3:], label_maps[3:]
    found = usefulness.usefulness(model, made, asked, real=real, real_label_maps=truth)

    def loss() -> float:
        with torch.no_grad():
            return float(np.mean([float(usefulness._loss(model, *one).double()) for one in zip(real, truth, strict=True)]))

    parameters = list(model.network.parameters())
    for image, label_map, told in zip(made, asked, found, strict=True):
        gradients = torch.autograd.grad(usefulness._loss(model, image, label_map), parameters, allow_unused=True)
        moved = []
        for sign in (-1.0, 1.0):
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter += 0 if gradient is None else sign * STEP * gradient
            moved.append(loss())
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter -= 0 if gradient is None else sign * STEP * gradient
        assert (moved[1] - moved[0]) / (2 * STEP) == pytest.approx(told, rel=0.1, abs=0.02)


def test_the_same_images_help_and_turned_masks_harm():
    model = tiny.segmenter("unet")
    images, label_maps = tiny.scenes(4, side=32)
    right = usefulness.usefulness(model, images, label_maps, real=images, real_label_maps=label_maps)
    inverted = [np.where(label_map == 1, 0, 1).astype(np.uint8) for label_map in label_maps]
    wrong = usefulness.usefulness(model, images, inverted, real=images, real_label_maps=label_maps)
    assert right.sum() > 0 and (right > wrong).all()


def test_unknown_pixels_say_nothing_and_a_mask_without_classes_is_measured():
    model = tiny.segmenter("unet")
    (image, label_map), unknown = tiny.scene(0, side=32), np.full((32, 32), IGNORE, np.uint8)
    empty = np.zeros((32, 32), np.uint8)
    half = label_map.copy()
    half[:, 16:] = IGNORE
    asked = [unknown, empty, half, label_map]
    found = usefulness.usefulness(model, [image] * 4, asked, real=[image], real_label_maps=[label_map])
    assert found[0] == 0 and np.isfinite(found).all() and len(set(found)) == 4


def test_ranks_are_shares_and_equal_numbers_share_theirs():
    assert ranks(np.array([3.0, -1.0, 7.0, 3.0])).tolist() == [0.5, 0.0, 1.0, 0.5]
    assert ranks(np.array([1.0])).tolist() == [0.5] and ranks(np.array([])).tolist() == []
