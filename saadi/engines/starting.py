"""Where sampling starts: a learnt shift of the start noise, by the label map that is asked for.

After the noise miner of methods.md, section 3: z = m + s eps instead of z = eps, with m and s from a small network. Here only the
means of square blocks of noise are shifted and stretched, each an orthonormal direction of the noise. So all that the network
does can be read off in standard deviations of block means, its distance from plain noise is a closed sum over blocks, and within
the blocks the noise stays the noise that the generator knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saadi.engines import weights
from saadi.masks import fit_to
from saadi.records import LabelMap

MAX_GRID = 16
"""Blocks a side."""
GOLDEN = (5**0.5 - 1) / 2
MAX_LOG_STD = 1.0
"""Either way; tanh keeps it within."""


def default_architecture(*, num_classes: int, noise: tuple[int, int, int]) -> dict[str, Any]:
    """
    Args:
        noise: Channels, height and width of an engine's start noise.
    """
    channels, side, _ = noise
    grid = max(count for count in range(1, MAX_GRID + 1) if side % count == 0 and side // count >= 2)
    return {"num_classes": num_classes, "channels": channels, "grid": grid, "width": 32}


class NoiseShift(nn.Module):
    """Mean and standard deviation of the block means of start noise, from the share of each class in each block.

    Untrained it changes nothing, bit for bit.
    """

    def __init__(self, architecture: dict[str, Any], state: dict[str, Tensor] | None = None) -> None:
        super().__init__()
        self.architecture = dict(architecture)
        self.grid: int = architecture["grid"]
        width: int = architecture["width"]
        last = nn.Conv2d(width, 2 * architecture["channels"], 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.layers = nn.Sequential(nn.Conv2d(architecture["num_classes"] + 2, width, 3, padding=1), nn.SiLU(),
                                    nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), last)  # fmt: skip
        if state is not None:
            weights.load_state(self, state)

    @classmethod
    def from_file(cls, architecture: dict[str, Any], file: Path) -> NoiseShift:
        """Raises: WeightsError: the file is damaged or belongs to another architecture."""
        return cls(architecture, weights.read(file)).eval()

    def shares(self, label_maps: Sequence[LabelMap]) -> Tensor:
        """(B, num_classes + 2, grid, grid) float32: share of each class in each block, and where the block lies (-1 to 1)."""
        side = self.grid * max(1, 64 // self.grid)
        scaled = np.stack([fit_to(label_map, size=(side, side)) for label_map in label_maps])
        classes = np.arange(self.architecture["num_classes"], dtype=np.uint8)[:, None, None]
        one_hot = torch.from_numpy((scaled[:, None] == classes).astype(np.float32))
        line = torch.linspace(-1, 1, self.grid)
        place = torch.stack(torch.meshgrid(line, line, indexing="ij")).expand(len(scaled), -1, -1, -1)
        return torch.cat([F.adaptive_avg_pool2d(one_hot, self.grid), place], dim=1).to(next(self.parameters()).device)

    def forward(self, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of each block mean, (B, channels, grid, grid) each; of plain noise 0 and 0."""
        mean, log_std = self.layers(shares).chunk(2, dim=1)
        return mean, MAX_LOG_STD * torch.tanh(log_std / MAX_LOG_STD)

    def moved(self, noise: Tensor, label_maps: Sequence[LabelMap], seeds: Sequence[int]) -> Tensor:
        """Start noise for these label maps, moved by the share of the shift that belongs to each seed (`strengths`).

        Args:
            noise: (B, channels, h, w) standard normal; h and w are multiples of the grid.
        """
        mean, log_std = self(self.shares(label_maps))
        strength = strengths(seeds).view(-1, 1, 1, 1).to(mean.device)
        return moved(noise, strength * mean, strength * log_std)


def strengths(seeds: Sequence[int]) -> Tensor:
    """(B,) in (0, 1]: any few seeds in a row cover it evenly (multiples of the golden ratio), so that the candidates of a label
    map go from nearly plain noise to all that was learnt, and the hardest that is still right lies among them."""
    return torch.tensor([1 - (seed * GOLDEN) % 1.0 for seed in seeds], dtype=torch.float32)


def moved(noise: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Shift and stretch the block means of noise, which are otherwise normal with a deviation of 1 / (side of a block)."""
    block = noise.shape[-1] // mean.shape[-1]
    means = F.avg_pool2d(noise, block)
    change = means * torch.expm1(log_std) + mean / block
    return noise + F.interpolate(change, scale_factor=float(block), mode="nearest")


def divergence(mean: Tensor, log_std: Tensor) -> Tensor:
    """(B,) Kullback-Leibler divergence of the start from plain noise, in nats: sum of that of every block mean."""
    each = (mean**2 + torch.exp(2 * log_std) - 1) / 2 - log_std
    return each.sum((1, 2, 3))
