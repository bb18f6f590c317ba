"""Images per second while the compact engine is fitted, against diffusers' UNet2DModel in float32 on the same batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from saadi import devices
from saadi.bench import median_seconds
from saadi.bench.peers import peer_network
from saadi.engines.compact import CompactEngine, default_architecture
from saadi.engines.fitting import FitConfig, Trainer, TrainingSet, draw_batch

NUM_CLASSES = 7
SIDE = 128
BATCH = 16


def run() -> dict[str, Any]:
    """Whole training steps at 128 px, batch 16: data, augmentation, forward, backward, optimiser, moving average."""
    devices.use_all_threads()
    engine = CompactEngine(default_architecture(num_classes=NUM_CLASSES, resolution=SIDE))
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8) for _ in range(32)]
    label_maps = [draw.integers(0, NUM_CLASSES, (SIDE, SIDE)).astype(np.uint8) for _ in range(32)]
    data, config = TrainingSet(images, label_maps, engine=engine), FitConfig(num_steps=100, batch_size=BATCH)
    trainer, odds, class_weights = Trainer(engine, config), data.rarity(), data.class_weights(5.0)

    def ours() -> None:
        trainer.train_step(
            draw_batch(data, engine, config, step=trainer.step, odds=odds, class_weights=class_weights), progress=0.0
        )

    network = peer_network(NUM_CLASSES, side=SIDE).to(engine.device).train()
    optimizer = torch.optim.AdamW(network.parameters())
    batch = draw_batch(data, engine, config, step=0, odds=odds, class_weights=class_weights)
    few = 4

    def peer() -> None:
        loss = network(torch.cat([batch.clean[:few], batch.condition[:few]], 1), 500).sample.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    rate, peer_rate = BATCH / median_seconds(ours, repeats=9, warm_up=2), few / median_seconds(peer, repeats=1, warm_up=0)
    print(f"fitting at {SIDE} px: {rate:.1f} images/s = {rate / peer_rate:.0f} x diffusers in float32 ({peer_rate:.2f})")
    return {"side_px": SIDE, "batch": BATCH, "compact_images_per_s": round(rate, 1), "diffusers_images_per_s":
    round(peer_rate, 2),
            "ratio": round(rate / peer_rate, 1)}  # fmt: skip
