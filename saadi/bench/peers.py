"""The named reference: diffusers' UNet2DModel with the label map joined to its input, and DDIM."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, UNet2DModel
from torch import Tensor

WIDTHS = (64, 96, 128, 160)
"""With diffusers' default block types and two blocks a level this has 10.3 M parameters; the compact engine has 10.9 M."""


def peer_network(num_classes: int, *, side: int) -> UNet2DModel:
    """UNet2DModel at its defaults (two blocks a level, attention in three of four levels, SiLU, group norm)."""
    torch.manual_seed(0)
    return UNet2DModel(sample_size=side, in_channels=3 + num_classes, out_channels=3, block_out_channels=WIDTHS).eval()


@torch.no_grad()
def peer_sample(network: UNet2DModel, condition: Tensor, *, steps: int) -> Tensor:
    """DDIM as in diffusers' DDIMPipeline, with the label map joined to the noisy image.

    Args:
        condition: (B, num_classes, H, W) one-hot; its dtype and layout are those of the network.
    """
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(steps)
    image = torch.randn(len(condition), 3, *condition.shape[2:], generator=torch.Generator().manual_seed(0)).to(condition.device)
    for time in scheduler.timesteps:
        stacked = torch.cat([image.to(condition.dtype), condition], 1)
        predicted = network(stacked, time).sample
        image = scheduler.step(predicted.float(), int(time), image).prev_sample
    return image.clamp(-1, 1)
