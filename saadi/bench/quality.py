"""Does the speed cost quality? Compact engine and diffusers' UNet2DModel, fitted with the same time on the same scenes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import UNet2DModel

from saadi import devices, quality
from saadi.bench.peers import peer_fit, peer_network, peer_sample
from saadi.datasets import phantom
from saadi.downstream.metrics import agreement, mean_over_asked
from saadi.downstream.segmenter import Segmenter
from saadi.engines import shipped
from saadi.engines.compact import CompactEngine, default_architecture
from saadi.engines.fitting import FitConfig, TrainingSet, fit
from saadi.jobs import silent
from saadi.records import Image, LabelMap

SIDE = 128
NUM_SCENES, NUM_HELD = 256, 32
MINUTES = 3.0
FIRST_SEED, FIRST_PATIENT = 70_000, 400
"""Patients that neither the shipped scorers nor the demo project have seen."""
PEER_STEPS = 20
PEER = "diffusers tuned (bf16, channels_last)"
"""The stronger peer: in float32 it would see a third of the images in the same time."""


def run() -> dict[str, Any]:
    """Judge's Dice and feature distance on unseen masks, all from random weights with the same minutes of fitting."""
    devices.use_all_threads()
    scenes = [phantom.render(FIRST_SEED + i, patient=FIRST_PATIENT + i % 32, size_px=SIDE) for i in range(NUM_SCENES + NUM_HELD)]
    # Patients 400-427 are learnt from, 428-431 measured on.
    held = [scene for index, scene in enumerate(scenes) if index % 32 >= 28]
    learnt = [scene for index, scene in enumerate(scenes) if index % 32 < 28]
    judge = Segmenter.from_file(shipped.manifest()["judge"]["architecture"], shipped.file("judge"))
    torch.manual_seed(0)
    engine = CompactEngine(default_architecture(num_classes=len(phantom.CLASS_NAMES), resolution=SIDE))
    data = TrainingSet([scene.image for scene in learnt], [scene.label_map for scene in learnt], engine=engine)
    config = FitConfig(num_steps=None, minutes=MINUTES, sample_every=0)
    found: dict[str, Any] = {"minutes": MINUTES, "side_px": SIDE, "num_scenes": len(learnt), "num_masks": len(held)}
    fitted = fit(engine, data, config, silent)
    asked = [scene.label_map for scene in held]
    found["compact"] = _measured(engine.generate(asked, range(len(asked))), asked, held, judge) | {"images": fitted["steps"] * 16}
    network = peer_network(len(phantom.CLASS_NAMES), side=SIDE).to(engine.device)
    images = peer_fit(network, data, engine, config)
    found[PEER] = _measured(_peer_images(network, engine, asked), asked, held, judge) | {"images": images}
    for name in ("compact", PEER):
        print(f"{name}: {found[name]['images']} images in {MINUTES:g} min, judge Dice {found[name]['dice']:.3f}, "
              f"feature distance {found[name]['feature_distance']:.2f}")  # fmt: skip
    return found


def _peer_images(network: UNet2DModel, engine: CompactEngine, asked: list[LabelMap]) -> list[Image]:
    dtype = devices.fast_dtype(engine.device)
    network = devices.placed(network, engine.device, dtype=dtype).eval()
    made: list[Image] = []
    for first in range(0, len(asked), 4):
        condition = engine.encode_label_maps(asked[first : first + 4]).to(dtype, memory_format=torch.channels_last)
        made += engine.decode(peer_sample(network, condition, steps=PEER_STEPS, seed=first))
    return made


def _measured(images: list[Image], asked: list[LabelMap], held: list[phantom.Scene], judge: Segmenter) -> dict[str, Any]:
    predictions = judge.predict(images)
    dice = [
        mean_over_asked(agreement(prediction.label_map, wanted, num_classes=len(phantom.CLASS_NAMES)), wanted)
        for prediction, wanted in zip(predictions, asked, strict=True)
    ]
    raw = judge.features([scene.image for scene in held])
    distance = quality.kernel_distance(quality.standardised(judge.features(images), raw), quality.standardised(raw, raw))
    return {"dice": round(float(np.mean(dice)), 4), "feature_distance": round(distance, 4)}
