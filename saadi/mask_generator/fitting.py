"""Fit a mask generator to the label maps of a project's training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saadi import poses
from saadi.engines.fitting import Averaged, run_steps
from saadi.errors import TooFewError
from saadi.jobs import Report
from saadi.mask_generator import distances
from saadi.mask_generator.anatomy import Anatomy
from saadi.mask_generator.model import MaskGenerator
from saadi.mask_generator.network import TIME_FLOOR, default_architecture, wish
from saadi.masks import fit_to
from saadi.orders import MIN_MASKS_TO_LEARN
from saadi.records import LabelMap

BANK = 512
"""Label maps and poses of theirs that are encoded before the first step; a picture of distances costs 5 ms."""
MAX_WEIGHT = 8.0


def _odds(label_maps: Sequence[LabelMap], *, num_classes: int) -> np.ndarray:
    """(N,) sum 1: the root of the rarity of the rarest class that each holds."""
    held = np.stack([np.isin(np.arange(1, num_classes), label_map) for label_map in label_maps])
    rarity = np.where(held, 1 / np.maximum(held.mean(0), 1e-9), 1.0).max(1)
    return np.sqrt(rarity) / np.sqrt(rarity).sum()


@dataclass(frozen=True)
class MaskFitConfig:
    """Settings of one fit; `saadi.engines.fitting.Budget`."""

    num_steps: int | None = 2000
    minutes: float = 5.0
    batch_size: int = 16
    learning_rate: float = 1e-3
    ema_decay: float = 0.995
    wish_dropout: float = 0.1
    """Share of label maps whose sizes are hidden."""
    seed: int = 0
    sample_every: int = 0


@dataclass
class MaskBatch:
    clean: Tensor
    """(B, num_classes - 1, grid, grid)."""
    wishes: Tensor
    times: Tensor
    noise: Tensor


class Bank:
    """Encoded label maps: each real one as it is, then poses of them until there are enough; those that hold a rare class come
    more often, as the root of its rarity, or it would be learnt as noise."""

    def __init__(self, label_maps: Sequence[LabelMap], *, num_classes: int, grid: int, seed: int, size: int = BANK) -> None:
        draw = np.random.default_rng(seed)
        count = max(size, 2 * len(label_maps))
        self.pictures = torch.empty(count, num_classes - 1, grid, grid, dtype=torch.float16)
        self.wishes = torch.empty(count, 2 * (num_classes - 1) + 1)
        odds = _odds(label_maps, num_classes=num_classes)
        for place in range(count):
            if place < len(label_maps):
                label_map = label_maps[place]
            else:
                label_map = poses.warped(poses.moved(label_maps[int(draw.choice(len(odds), p=odds))], draw), draw)
            self.pictures[place] = torch.from_numpy(distances.encode(label_map, num_classes=num_classes, grid=grid))
            self.wishes[place] = torch.tensor(wish([float((label_map == index).mean()) for index in range(1, num_classes)]))

    def class_weights(self) -> Tensor:
        """(1, num_classes - 1, 1, 1), mean 1: classes near which few cells lie weigh more, at most `MAX_WEIGHT` times the others,
        or small instruments would be drawn as an average of all that they might be."""
        near = (self.pictures.float() > -1).float().mean((0, 2, 3)).clamp_min(1e-4)
        raw = (near.max() / near).sqrt().clamp(max=MAX_WEIGHT)
        return (raw / raw.mean()).view(1, -1, 1, 1)

    def batch(self, generator: MaskGenerator, config: MaskFitConfig, *, step: int) -> MaskBatch:
        """The batch of a step depends on seed and step only, so that a resumed fit equals an uninterrupted one."""
        draw = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        chosen = torch.randint(len(self.pictures), (config.batch_size,), generator=draw)
        clean = self.pictures[chosen].float()
        mirrored = torch.rand(config.batch_size, generator=draw) < 0.5
        clean[mirrored] = clean[mirrored].flip(-1)
        told = (torch.rand(config.batch_size, 1, generator=draw) >= config.wish_dropout).float()
        shift = generator.architecture["shift"]
        times = torch.sigmoid(torch.randn(config.batch_size, generator=draw) + np.log(shift)).clamp(TIME_FLOOR, 0.999)
        noise = torch.randn(clean.shape, generator=draw)
        on = generator.device
        return MaskBatch(clean.to(on), (self.wishes[chosen] * told).to(on), times.to(on), noise.to(on))


class MaskTrainer(Averaged):
    """State of a fit: weights, their moving average, optimiser, and the step reached."""

    def __init__(self, generator: MaskGenerator, config: MaskFitConfig, class_weights: Tensor) -> None:
        self.generator, self.config = generator, config
        self.class_weights = class_weights.to(generator.device)
        self.parameters = dict(generator.denoiser.named_parameters())
        self.average = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=config.learning_rate, weight_decay=0.0, fused=True)
        self.step = 0
        self.seconds = 0.0

    def train_step(self, batch: MaskBatch, *, progress: float) -> float:
        """One update; returns the loss: the error of the clean distances, weighed as that of the velocity."""
        rate = self.config.learning_rate * min(1.0, (self.step + 1) / 50) * min(1.0, max(0.02, (1 - progress) / 0.3))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.generator.denoiser.train()
        level = batch.times.view(-1, 1, 1, 1)
        estimate = self.generator.denoiser((1 - level) * batch.clean + level * batch.noise, batch.times, batch.wishes)
        errors = (self.class_weights * (estimate - batch.clean) ** 2).mean((1, 2, 3))
        loss = (errors / batch.times.clamp_min(TIME_FLOOR) ** 2).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.values()), [value.detach() for value in self.parameters.values()], 1 - decay)
        return float(loss.detach())

    def use_average(self) -> None:
        """Put the moving average into the generator, for good."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.average[name])
        self.generator.denoiser.eval()
        self.generator.weights_changed()


def fit(
    label_maps: Sequence[LabelMap], *, num_classes: int, side: int, config: MaskFitConfig, report: Report,
    folder: Path | None = None, architecture: dict[str, Any] | None = None,
) -> tuple[MaskGenerator, dict[str, Any]]:  # fmt: skip
    """A mask generator of these label maps, and how the fit went: as `saadi.engines.fitting.run_steps`, and `held`, the places of
    those label maps that hold anything.

    Args:
        side: Label maps are brought to this square size first.

    Raises:
        TooFewError: Fewer than `MIN_MASKS_TO_LEARN` that hold anything.
    """
    square = [fit_to(label_map, size=(side, side)) for label_map in label_maps]
    used = [place for place, label_map in enumerate(square) if ((label_map > 0) & (label_map < num_classes)).any()]
    held = [square[place] for place in used]
    if len(held) < MIN_MASKS_TO_LEARN:
        raise TooFewError(f"{len(held)} training masks that hold a class, {MIN_MASKS_TO_LEARN} needed to draw new ones like "
                          f"them; draw or import {MIN_MASKS_TO_LEARN - len(held)} more")  # fmt: skip
    made = dict(architecture or default_architecture(num_classes=num_classes))
    made["anatomy"] = Anatomy.of(held, num_classes=num_classes).as_json()
    torch.manual_seed(config.seed)
    generator = MaskGenerator(made, real=held)
    bank = Bank(held, num_classes=num_classes, grid=generator.grid, seed=config.seed)
    trainer = MaskTrainer(generator, config, bank.class_weights())
    metrics = run_steps(trainer, lambda step: bank.batch(generator, config, step=step), config, report, folder=folder)
    trainer.use_average()
    return generator, metrics | {"held": used}
