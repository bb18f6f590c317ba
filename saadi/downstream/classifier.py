"""Classifiers of whole images by MONAI: the selector and the judge of classification projects.

What is asked for is a label map like any other, one whose pixels all hold the class of the image, so that generators, pairs and
gates serve both tasks. What a classifier thinks of an image is its calibrated probability of that class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from monai.networks.nets import DenseNet, ResNet
from numpy.typing import NDArray
from torch import Tensor, nn

from saadi import devices
from saadi.downstream.metrics import Fidelity
from saadi.downstream.segmenter import BATCH, SIZE_PX, Prediction
from saadi.engines import weights
from saadi.masks import class_of as class_of
from saadi.masks import fit_image_to
from saadi.records import Image, LabelMap

CLASSIFIERS = ("resnet", "densenet")


def default_architecture(kind: Literal["selector", "judge"], *, num_classes: int) -> dict[str, Any]:
    """Selector = ResNet-10 of half the usual width (1.2 M parameters), judge = a small DenseNet."""
    if kind == "selector":
        return {"model": "resnet", "num_classes": num_classes, "size_px": SIZE_PX, "widths": [32, 64, 128, 256]}
    return {"model": "densenet", "num_classes": num_classes, "size_px": SIZE_PX, "growth_rate": 16, "blocks": [2, 4, 4, 3]}


def build(architecture: dict[str, Any]) -> nn.Module:
    """A randomly initialised network; seed torch before."""
    num_classes = architecture["num_classes"]
    if architecture["model"] == "resnet":
        return ResNet("basic", [1, 1, 1, 1], list(architecture["widths"]), spatial_dims=2, n_input_channels=3,
                      num_classes=num_classes, conv1_t_stride=2, bias_downsample=False)  # fmt: skip
    return DenseNet(spatial_dims=2, in_channels=3, out_channels=num_classes, init_features=32,
                    growth_rate=architecture["growth_rate"], block_config=architecture["blocks"])  # fmt: skip


class Classifier:
    """A trained classifier, picklable by architecture and file; holds no store. Offers what `Segmenter` does."""

    def __init__(
        self, architecture: dict[str, Any], state: dict[str, Tensor] | None = None, *, device: torch.device | None = None
    ) -> None:
        self.architecture = architecture
        self.size_px: int = architecture["size_px"]
        self.num_classes: int = architecture["num_classes"]
        self.temperature: float = architecture.get("temperature", 1.0)
        """Divides the logits: fitted on held-out images, so that probabilities say how often the class is right."""
        self.device = device or devices.device()
        self.network = build(architecture)
        if state is not None:
            weights.load_state(self.network, state)
        devices.placed(self.network, self.device).eval()

    @classmethod
    def from_file(cls, architecture: dict[str, Any], file: Path) -> Classifier:
        return cls(architecture, weights.read(file))

    @torch.no_grad()
    def logits(self, images: Sequence[Image]) -> Tensor:
        """(N, num_classes) float32, not divided by the temperature."""
        found = []
        for first in range(0, len(images), BATCH):
            with devices.autocast(self.device):
                found.append(self.network(self.encode(images[first : first + BATCH])).float().cpu())
        return torch.cat(found)

    def probabilities(self, images: Sequence[Image]) -> NDArray[np.float64]:
        """(N, num_classes), rows sum to 1."""
        return np.asarray((self.logits(images).double() / self.temperature).softmax(1).numpy(), dtype=np.float64)

    def predict(self, images: Sequence[Image]) -> list[Prediction]:
        """The likeliest class of each image, as a label map of its size."""
        return predictions_of(images, self.probabilities(images))

    def fidelity(self, images: Sequence[Image], asked: Sequence[LabelMap]) -> list[Fidelity]:
        """The probability of the asked class."""
        return fidelities_of(self.probabilities(images), asked)

    @torch.no_grad()
    def features(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """(N, D) float32: what the last layer decides on, as a feature space for distances."""
        with _pooled(self.network) as caught:
            self.logits(images)
        return np.asarray(torch.cat(caught).numpy(), dtype=np.float32)

    def encode(self, images: Sequence[Image]) -> Tensor:
        """(B, 3, size_px, size_px) float32 in [-1, 1]."""
        side = self.size_px
        stacked = torch.from_numpy(np.stack([fit_image_to(image, side=side) for image in images]))
        pixels = stacked.permute(0, 3, 1, 2).to(self.device).float() / 127.5 - 1
        return pixels.contiguous(memory_format=torch.channels_last)


def predictions_of(images: Sequence[Image], probabilities: NDArray[np.float64]) -> list[Prediction]:
    """The likeliest class of each image, as a label map of its size.

    Args:
        probabilities: (N, num_classes).
    """
    return [
        Prediction(np.full(image.shape[:2], row.argmax(), np.uint8), float(row.max()))
        for image, row in zip(images, probabilities, strict=True)
    ]


def fidelities_of(probabilities: NDArray[np.float64], asked: Sequence[LabelMap]) -> list[Fidelity]:
    """The probability of the asked class of each image.

    Args:
        probabilities: (N, num_classes).
    """
    indices = [class_of(label_map) for label_map in asked]
    return [Fidelity(float(row[index]), {index: float(row[index])}) for row, index in zip(probabilities, indices, strict=True)]


@contextmanager
def _pooled(network: Any) -> Iterator[list[Tensor]]:
    caught: list[Tensor] = []
    layer: nn.Module = network.avgpool if isinstance(network, ResNet) else network.class_layers.pool
    handle = layer.register_forward_hook(lambda module, inputs, output: caught.append(output.float().flatten(1).cpu()))
    try:
        yield caught
    finally:
        handle.remove()
