"""The named reference: diffusers' UNet2DModel with the label map joined to its input, and DDIM."""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch import Tensor

from saadi import devices
from saadi.engines.compact import CompactEngine
from saadi.engines.fitting import FitConfig, TrainingSet, draw_batch

WIDTHS = (64, 96, 128, 160)
"""With diffusers' default block types and two blocks a level this has 10.3 M parameters; the compact engine has 10.9 M."""


def peer_network(num_classes: int, *, side: int) -> UNet2DModel:
    """UNet2DModel at its defaults (two blocks a level, attention in three of four levels, SiLU, group norm)."""
    torch.manual_seed(0)
    return UNet2DModel(sample_size=side, in_channels=3 + num_classes, out_channels=3, block_out_channels=WIDTHS).eval()


@torch.no_grad()
def peer_sample(network: UNet2DModel, condition: Tensor, *, steps: int, seed: int = 0) -> Tensor:
    """DDIM as in diffusers' DDIMPipeline, with the label map joined to the noisy image.

    Args:
        condition: (B, num_classes, H, W) one-hot; its dtype and layout are those of the network.
    """
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(steps)
    image = torch.randn(len(condition), 3, *condition.shape[2:], generator=torch.Generator().manual_seed(seed))
    image = image.to(condition.device)
    for timestep in scheduler.timesteps:
        stacked = torch.cat([image.to(condition.dtype), condition], 1)
        predicted = network(stacked, timestep).sample
        image = scheduler.step(predicted.float(), int(timestep), image).prev_sample
    return image.clamp(-1, 1)


def peer_fit(network: UNet2DModel, data: TrainingSet, engine: CompactEngine, config: FitConfig) -> int:
    """Noise prediction as in diffusers' unconditional training example, on the same batches, for `config.minutes`, in bfloat16
    autocast and channels_last.

    Returns:
        How many images it has seen.
    """
    network = devices.placed(network, engine.device)
    scheduler, optimizer = DDPMScheduler(), torch.optim.AdamW(network.parameters(), lr=config.learning_rate, fused=True)
    average = EMAModel(network.parameters(), decay=config.ema_decay, use_ema_warmup=True, power=0.75)
    odds, class_weights = data.rarity(), data.class_weights(1.0)
    end, step = time.monotonic() + config.minutes * 60, 0
    network.train()
    while time.monotonic() < end:
        batch = draw_batch(data, engine, config, step=step, odds=odds, class_weights=class_weights)
        times = torch.randint(1000, (len(batch.clean),), generator=torch.Generator().manual_seed(step)).to(engine.device)
        stacked = torch.cat([scheduler.add_noise(batch.clean, batch.noise, times), batch.condition], 1)
        with devices.autocast(engine.device):
            predicted = network(stacked.contiguous(memory_format=torch.channels_last), times).sample
        loss = F.mse_loss(predicted.float(), batch.noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        progress = 1 - (end - time.monotonic()) / (config.minutes * 60)
        for group in optimizer.param_groups:  # the schedule of our own fit
            group["lr"] = config.learning_rate * min(1.0, (step + 1) / 100) * min(1.0, max(0.02, (1 - progress) / 0.3))
        optimizer.step()
        average.step(network.parameters())
        step += 1
    average.copy_to(network.parameters())
    return step * config.batch_size
