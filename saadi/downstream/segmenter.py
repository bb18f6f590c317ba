"""Segmenters by MONAI: the selector and the judge differ in architecture and seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.nets import SegResNet, UNet
from numpy.typing import NDArray
from torch import Tensor, nn

from saadi import devices
from saadi.downstream.metrics import Fidelity, agreement, mean_over_asked
from saadi.engines import norms, weights
from saadi.masks import fit_image_to, fit_to
from saadi.records import IGNORE, Image, LabelMap

SIZE_PX = 128
"""Side at which segmenters look; predictions are scaled back by their probabilities. Four times cheaper than 256 px."""
BATCH = 32
ModelName = Literal["unet", "segresnet"]


@dataclass(frozen=True)
class Prediction:
    label_map: LabelMap
    """(H, W) uint8 at the size of the image."""
    confidence: float
    """Mean probability of the winning class, 0..1."""


def default_architecture(kind: Literal["selector", "judge"], *, num_classes: int) -> dict[str, Any]:
    """Selector = U-Net with residual units; judge = SegResNet, another family with other norms."""
    if kind == "selector":
        return {"model": "unet", "num_classes": num_classes, "size_px": SIZE_PX, "channels": [32, 64, 128, 192]}
    return {"model": "segresnet", "num_classes": num_classes, "size_px": SIZE_PX, "init_filters": 16}


def build(architecture: dict[str, Any]) -> nn.Module:
    """A randomly initialised network; seed torch before."""
    num_classes = architecture["num_classes"]
    if architecture["model"] == "unet":
        return UNet(
            spatial_dims=2,
            in_channels=3,
            out_channels=num_classes,
            channels=architecture.get("channels", (32, 64, 128, 192)),
            strides=(2, 2, 2),
            num_res_units=2,
        )
    network = SegResNet(
        spatial_dims=2,
        in_channels=3,
        out_channels=num_classes,
        init_filters=architecture.get("init_filters", 16),
        blocks_down=(1, 2, 2, 2),
        blocks_up=(1, 1, 1),
    )
    norms.replace_group_norms(network)
    return network


def _deepest(network: Any) -> nn.Module:
    """The bottleneck: MONAI's U-Net nests its levels, its SegResNet lists them."""
    layer: nn.Module = (
        network.down_layers[-1] if isinstance(network, SegResNet) else network.model[1].submodule[1].submodule[1].submodule
    )
    return layer


@contextmanager
def _deepest_means(network: nn.Module) -> Iterator[list[Tensor]]:
    """Gather, batch by batch, the deepest activations averaged over the picture: (B, D) float32 each."""
    caught: list[Tensor] = []
    handle = _deepest(network).register_forward_hook(
        lambda module, inputs, output: caught.append(output.float().mean((2, 3)).cpu())
    )
    try:
        yield caught
    finally:
        handle.remove()


class Segmenter:
    """A trained segmenter, picklable by architecture and file; holds no store."""

    def __init__(
        self, architecture: dict[str, Any], state: dict[str, Tensor] | None = None, *, device: torch.device | None = None
    ) -> None:
        self.architecture = architecture
        self.size_px: int = architecture["size_px"]
        self.device = device or devices.device()
        self.network = build(architecture)
        if state is not None:
            weights.load_state(self.network, state)
        devices.placed(self.network, self.device).eval()

    @classmethod
    def from_file(cls, architecture: dict[str, Any], file: Path) -> Segmenter:
        return cls(architecture, weights.read(file))

    def predict(self, images: Sequence[Image]) -> list[Prediction]:
        """What the network sees in each image; sizes may differ."""
        return self._predict(images)

    def fidelity(self, images: Sequence[Image], asked: Sequence[LabelMap]) -> list[Fidelity]:
        """Dice of what the network sees and the asked label map, which is scaled to the image."""
        num_classes, found = self.architecture["num_classes"], []
        for image, prediction, label_map in zip(images, self.predict(images), asked, strict=True):
            label_map = fit_to(label_map, size=(image.shape[0], image.shape[1]))
            classes = agreement(prediction.label_map, label_map, num_classes=num_classes)
            present = set(np.unique(label_map).tolist()) - {0, IGNORE}
            found.append(Fidelity(mean_over_asked(classes, label_map), {index: classes[index].dice for index in present}))
        return found

    def predict_with_features(self, images: Sequence[Image]) -> tuple[list[Prediction], NDArray[np.float32]]:
        """`predict` and `features` in one pass."""
        with _deepest_means(self.network) as caught:
            found = self._predict(images)
        return found, np.asarray(torch.cat(caught).numpy(), dtype=np.float32)

    @torch.no_grad()
    def _predict(self, images: Sequence[Image]) -> list[Prediction]:
        found: list[Prediction] = []
        for first in range(0, len(images), BATCH):
            chunk = images[first : first + BATCH]
            with devices.autocast(self.device):
                logits = self.network(self.encode(chunk))
            for image, logit in zip(chunk, logits.float(), strict=True):
                large = F.interpolate(logit[None], size=image.shape[:2], mode="bilinear", align_corners=False)
                best, label_map = large.softmax(1)[0].max(0)
                found.append(Prediction(label_map.cpu().numpy().astype(np.uint8), float(best.mean())))
        return found

    @torch.no_grad()
    def features(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """(N, D) float32: deepest activations averaged over the picture, as a feature space for distances."""
        with _deepest_means(self.network) as caught:
            for first in range(0, len(images), BATCH):
                with devices.autocast(self.device):
                    self.network(self.encode(images[first : first + BATCH]))
        return np.asarray(torch.cat(caught).numpy(), dtype=np.float32)

    def encode(self, images: Sequence[Image]) -> Tensor:
        """(B, 3, size_px, size_px) float32 in [-1, 1]."""
        side = self.size_px
        scaled = [fit_image_to(image, side=side) for image in images]
        stacked = torch.from_numpy(np.stack(scaled)).permute(0, 3, 1, 2).to(self.device)
        return (stacked.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)

    def encode_label_maps(self, label_maps: Sequence[LabelMap]) -> Tensor:
        """(B, size_px, size_px) int64, nearest neighbour."""
        side = self.size_px
        scaled = [fit_to(label_map, size=(side, side)) for label_map in label_maps]
        return torch.from_numpy(np.stack(scaled).astype(np.int64)).to(self.device)
