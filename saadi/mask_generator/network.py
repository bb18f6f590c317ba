"""The denoiser of label maps: diffusers' U-Net on signed distances, told how much of the image each class is to cover."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from torch import Tensor, nn

from saadi.engines import attention, norms, residual

TIME_FLOOR = 0.05
"""Smallest noise level trained on, as in the compact engine."""


def default_architecture(*, num_classes: int) -> dict[str, Any]:
    """The measured default: a grid of 96 behind patches of 4, 2.1 M parameters."""
    return {"kind": "masks", "num_classes": num_classes, "grid": 96, "patch": 4, "widths": [48, 64, 96], "shift": 3.0}


class MaskDenoiser(nn.Module):
    """Predicts the clean distances behind the noise, as the compact engine predicts images."""

    def __init__(self, *, num_classes: int, patch: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.patch = patch
        channels = (num_classes - 1) * patch**2
        levels = len(widths)
        self.unet = UNet2DModel(
            in_channels=channels,
            out_channels=channels,
            block_out_channels=tuple(widths),
            layers_per_block=1,
            norm_num_groups=8,
            attention_head_dim=min(32, widths[-1]),
            class_embed_type="identity",
            down_block_types=("DownBlock2D",) * (levels - 1) + ("AttnDownBlock2D",),
            up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (levels - 1),
        )
        attention.replace_processors(self.unet)
        norms.replace_group_norms(self.unet)
        residual.replace_residual_blocks(self.unet)
        self.wish = nn.Linear(2 * (num_classes - 1) + 1, widths[0] * 4)

    def forward(self, noisy: Tensor, times: Tensor, wishes: Tensor) -> Tensor:
        """(B, num_classes - 1, grid, grid) float32 estimate of the clean distances.

        Args:
            noisy: Same shape, (1 - t) x + t eps.
            times: (B,) in (0, 1].
            wishes: (B, 2 * (num_classes - 1) + 1) as from `wish`; zeros = nothing asked for.
        """
        dtype = self.wish.weight.dtype
        patches = F.pixel_unshuffle(noisy.to(dtype), self.patch).contiguous(memory_format=torch.channels_last)
        raw = self.unet(patches, times * 1000.0, class_labels=self.wish(wishes.to(dtype))).sample
        return F.pixel_shuffle(raw, self.patch).float()


def wish(shares: Sequence[float]) -> list[float]:
    """What is asked for: of each class but the background the root of its share of the image, and whether it occurs at all."""
    return [1.0, *(share**0.5 for share in shares), *(float(share > 0) for share in shares)]
