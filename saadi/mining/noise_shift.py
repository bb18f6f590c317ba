"""Learn where hard images begin: the start noise of a frozen generator, moved so that a frozen target model does badly.

After the miner of methods.md, section 3. What is maximised is min(kappa, loss) - beta KL: beyond kappa nothing is gained, and
every step away from plain noise costs. It steers by the target's gradient, which can find what fools it instead of what is hard;
hence the leash, and hence all that is made passes judge and quality check before it counts (`saadi.mining.choosing`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saadi.downstream import hardness
from saadi.downstream.classifier import Classifier
from saadi.downstream.segmenter import Segmenter
from saadi.engines.base import Rollout
from saadi.engines.fitting import Averaged, run_steps
from saadi.engines.regions import Region
from saadi.engines.starting import NoiseShift, divergence, moved
from saadi.jobs import Report
from saadi.mining.choosing import KAPPA
from saadi.records import LabelMap

LOSS_SCALE = 2.0**10
PROBES = 6
FIRST_PROBE = 900_000
"""Of probes the numbers begin here: no step has them."""


@dataclass(frozen=True)
class ShiftConfig:
    """Settings of one search; `saadi.engines.fitting.Budget`."""

    num_steps: int | None = 150
    minutes: float = 5.0
    batch_size: int = 4
    learning_rate: float = 3e-3
    beta: float = 1e-3
    """Cost of a nat."""
    ema_decay: float = 0.95
    rollout_steps: int = 4
    """Network calls from noise to image while learning; images are made with as many as always."""
    seed: int = 0
    sample_every: int = 0


class Asked(NamedTuple):
    """What an image may be asked for."""

    label_map: LabelMap
    region: Region | None = None
    """What it is painted into, for generators that paint."""


class ShiftTrainer(Averaged):
    """State of a search: weights, their moving average, optimiser, and the step reached."""

    def __init__(
        self, shift: NoiseShift, rollout: Rollout, targets: Sequence[Segmenter | Classifier], config: ShiftConfig
    ) -> None:
        self.shift, self.rollout, self.targets, self.config = shift, rollout, list(targets), config
        for target in self.targets:
            target.network.requires_grad_(False)
        self.parameters = dict(shift.named_parameters())
        self.average = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=config.learning_rate, weight_decay=0.0)
        self.step = 0
        self.seconds = 0.0

    def train_step(self, batch: Sequence[Asked], *, progress: float) -> float:
        """One update, none where gradients are not finite; returns the loss of the target before it, which is to rise."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * min(1.0, max(0.05, (1 - progress) / 0.3))
        noise = self.noise(len(batch), step=self.step)
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for first in range(0, len(batch), self.rollout.at_once):
            chosen = slice(first, first + self.rollout.at_once)
            found, cost = self.losses(batch[chosen], noise[chosen], step=self.step)
            # Scaled, as half-precision weights lose small gradients.
            (LOSS_SCALE * (cost - found.clamp_max(KAPPA)).sum() / len(batch)).backward()
            total += float(found.detach().sum())
        for parameter in self.parameters.values():
            assert parameter.grad is not None, "every parameter moves the noise"
            parameter.grad /= LOSS_SCALE
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.step += 1
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.values()), [value.detach() for value in self.parameters.values()], 1 - decay)
        return total / len(batch)

    def noise(self, count: int, *, step: int) -> Tensor:
        """(count, *noise), the same at each call."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        return torch.randn(count, *self.rollout.noise, generator=generator)

    def losses(self, batch: Sequence[Asked], noise: Tensor, *, step: int, is_plain: bool = False) -> tuple[Tensor, Tensor]:
        """(B,) each: how hard the images are for the target, of which cross-fitted ones take turns, and what the shift costs.

        Args:
            is_plain: From the noise as it is.
        """
        label_maps = [one.label_map for one in batch]
        regions = [one.region for one in batch if one.region is not None] or None
        mean, log_std = self.shift(self.shift.shares(label_maps))
        start = noise.to(mean.device)
        pixels = self.rollout.pixels(start if is_plain else moved(start, mean, log_std), label_maps, regions)
        found = hardness.losses(self.targets[step % len(self.targets)], pixels, label_maps)
        return found, (self.config.beta * divergence(mean, log_std)).to(found.device)

    def use_average(self) -> None:
        """Put the moving average into the network, for good."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.average[name])
        self.shift.eval()


def fit(
    shift: NoiseShift, rollout: Rollout, targets: Sequence[Segmenter | Classifier], count: int, asked: Callable[[int], Asked],
    config: ShiftConfig, report: Report, *, folder: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Teach a shift where the images of these label maps are hard for the targets.

    Args:
        count, asked: How many label maps there are, and one of them by its place.

    Returns:
        steps, seconds, images_per_s; `divergence`: nats from plain noise, mean over the label maps (at most 64); `plain_loss` and
        `moved_loss`: of the targets, over PROBES batches that are made from the same noise without and with the shift.
    """

    def draw(step: int) -> list[Asked]:
        places = np.random.default_rng([config.seed, step]).integers(count, size=config.batch_size)
        return [asked(int(place)) for place in places]

    trainer = ShiftTrainer(shift, rollout, targets, config)
    metrics = run_steps(trainer, draw, config, report, folder=folder)
    del metrics["loss"]  # of the last steps alone, and since the last pause
    trainer.use_average()
    return metrics | _told(trainer, count, asked, draw)


@torch.no_grad()
def _told(
    trainer: ShiftTrainer, count: int, asked: Callable[[int], Asked], draw: Callable[[int], list[Asked]]
) -> dict[str, float]:  # fmt: skip
    label_maps = [asked(place).label_map for place in range(min(count, 64))]
    nats = divergence(*trainer.shift(trainer.shift.shares(label_maps)))
    found: dict[str, list[float]] = {"plain_loss": [], "moved_loss": []}
    for probe in range(PROBES):
        step = FIRST_PROBE + probe
        batch = draw(step)
        noise = trainer.noise(len(batch), step=step)
        for first in range(0, len(batch), trainer.rollout.at_once):
            chosen = slice(first, first + trainer.rollout.at_once)
            for name, is_plain in (("plain_loss", True), ("moved_loss", False)):
                found[name] += trainer.losses(batch[chosen], noise[chosen], step=step, is_plain=is_plain)[0].tolist()
    means = {name: round(float(np.mean(values)), 4) for name, values in found.items()}
    return means | {"divergence": round(float(nats.mean()), 2)}

