"""Images per second of the compact engine against diffusers' UNet2DModel + DDIM, at its defaults and tuned."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from saadi import devices
from saadi.bench import median_seconds
from saadi.bench.peers import peer_network, peer_sample
from saadi.engines import shipped
from saadi.engines.compact import CompactEngine, default_architecture

NUM_CLASSES = 7
SIDE = 128
POOL = 16
TUNED_STEPS = 20
DEFAULT_STEPS = 50
TIMED_STEPS = 4


def run() -> dict[str, Any]:
    """Ratios at 128 px, seven classes, like parameter counts; random weights (speed does not depend on them)."""
    devices.use_all_threads()
    # The sampler that ships: its steps decide the speed.
    architecture = shipped.manifest()["engine"]["architecture"]
    sampler = architecture["sampler"]
    engine = CompactEngine(default_architecture(num_classes=NUM_CLASSES, resolution=SIDE) | {"sampler": sampler})
    label_maps = [np.random.default_rng(seed).integers(0, NUM_CLASSES, (SIDE, SIDE)).astype(np.uint8) for seed in range(POOL)]
    four = median_seconds(lambda: engine.generate(label_maps[:4], range(4)), repeats=5)
    whole = CompactEngine.from_file(architecture, shipped.file("engine"))
    shipped_four = median_seconds(lambda: whole.generate(label_maps[:4], range(4)), repeats=5)
    ours = POOL / median_seconds(lambda: engine.generate(label_maps, range(POOL)), repeats=3)
    network = peer_network(NUM_CLASSES, side=SIDE).to(engine.device)
    condition = engine.encode_label_maps(label_maps[:4])

    def peer_rate(label_maps: Tensor, *, steps: int, repeats: int) -> float:
        # Each step costs the same: a few are timed for all, else this takes minutes.
        seconds = median_seconds(lambda: peer_sample(network, label_maps, steps=TIMED_STEPS), repeats=repeats)
        return len(label_maps) / (seconds * steps / TIMED_STEPS)

    default = peer_rate(condition, steps=DEFAULT_STEPS, repeats=1)
    dtype = devices.fast_dtype(engine.device)
    network = devices.placed(network, engine.device, dtype=dtype)
    fast = engine.encode_label_maps(label_maps[:8]).to(dtype, memory_format=torch.channels_last)
    tuned = peer_rate(fast, steps=TUNED_STEPS, repeats=3)
    sizes = {"ours": _millions(engine.denoiser), "peer": _millions(network)}
    print(f"four candidates: {four:.2f} s at {SIDE} px, {shipped_four:.2f} s at {whole.resolution} px (shipped weights); "
          f"compact {ours:.1f} images/s = {ours / default:.0f} x diffusers "
          f"at its defaults ({default:.2f}), {ours / tuned:.1f} x tuned ({tuned:.2f})")  # fmt: skip
    return {
        "side_px": SIDE, "four_candidates_s": round(four, 3),
        "shipped_side_px": whole.resolution, "shipped_four_candidates_s": round(shipped_four, 3),
        "compact_images_per_s": round(ours, 2),
        "compact_steps": engine.architecture["sampler"]["num_inference_steps"], "million_parameters": sizes,
        "diffusers_default_images_per_s": round(default, 3), "diffusers_default_steps": DEFAULT_STEPS,
        "diffusers_tuned_images_per_s": round(tuned, 3), "diffusers_tuned_steps": TUNED_STEPS,
        "ratio_default": round(ours / default, 1), "ratio_tuned": round(ours / tuned, 2),
    }  # fmt: skip


def _millions(module: torch.nn.Module) -> float:
    return round(sum(parameter.numel() for parameter in module.parameters()) / 1e6, 2)
