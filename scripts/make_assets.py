"""Make the shipped weights: render phantom patients 100-219, fit the generator, train the scorers, measure, pack.

    python scripts/make_assets.py render  --work build/assets
    python scripts/make_assets.py scorers --work build/assets
    python scripts/make_assets.py engine  --work build/assets --resolution 128 --minutes 60
    python scripts/make_assets.py engine  --work build/assets --resolution 256 --minutes 90 --start build/assets/engine-128
    python scripts/make_assets.py demo    --work build/assets --engine engine-256
    python scripts/make_assets.py pack    --work build/assets --engine engine-256
    python scripts/make_assets.py masks   --work build/assets --steps 2500

`demo` gives the demo's generator its weakness: an adapter fitted to frames whose gallbladder often lies beside its outline.
`masks` fits the mask generator and adds it to what `pack` has made.

Each stage keeps its output in --work; `engine` resumes from its checkpoint. The demo project uses patients 0-23, which no
stage sees.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
import torch

from saadi import config, devices
from saadi.datasets import phantom
from saadi.downstream.segmenter import Segmenter, default_architecture
from saadi.downstream.training import ScorerConfig, evaluate, train
from saadi.engines import lora, weights
from saadi.engines.compact import CompactEngine
from saadi.engines.compact import default_architecture as engine_architecture
from saadi.engines.fitting import FitConfig, TrainingSet, fit, sweep_samplers
from saadi.evidence.planted import displaced_scenes
from saadi.mask_generator import fitting as mask_fitting
from saadi.masks import fit_to
from saadi.records import Image, LabelClass, LabelMap, Project

FIRST_PATIENT, NUM_PATIENTS, NUM_TRAIN, NUM_HELD = 100, 120, 2400, 128
HELD_PATIENT = 300
NUM_ROUGH = 384
NUM_MASKS = 480
WEAKNESS = (
    "On purpose, this demo's generator paints the gallbladder badly: it learned from misplaced outlines. "
    "Generate, vote, press Align now: it gets better."
)
SEED = 50_000
CLASSES = tuple(
    LabelClass(i, name, color) for i, (name, color) in enumerate(zip(phantom.CLASS_NAMES, phantom.CLASS_COLORS, strict=True))
)
PROJECT = Project(0, "phantom", "segmentation", CLASSES, 256, "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["render", "scorers", "engine", "demo", "pack", "masks"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--start", type=Path, help="weights to start from, without suffix")
    parser.add_argument("--engine", default="engine-256")
    parser.add_argument("--steps", type=int, default=800, help="of each scorer, or of the mask generator")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    devices.use_all_threads()
    cv2.setNumThreads(1)
    stages = {"render": render, "scorers": scorers, "engine": engine, "demo": demo, "pack": pack, "masks": masks}
    stages[arguments.stage](arguments)


def render(arguments: argparse.Namespace) -> None:
    for name, count, first, patients in (("train", NUM_TRAIN, FIRST_PATIENT, NUM_PATIENTS), ("held", NUM_HELD, HELD_PATIENT, 16)):
        scenes = [phantom.render(SEED + first + index, patient=first + index % patients) for index in range(count)]
        np.savez(
            arguments.work / f"{name}.npz",
            images=np.stack([s.image for s in scenes]),
            label_maps=np.stack([s.label_map for s in scenes]),
        )


def load(work: Path, name: str) -> tuple[list[Image], list[LabelMap]]:
    arrays = np.load(work / f"{name}.npz")
    return list(arrays["images"]), list(arrays["label_maps"])


def progress(
    step: int, total: int, message: str, *, metrics: Mapping[str, float] | None = None, images: Mapping[str, str] | None = None
) -> None:
    if metrics is not None and step % 50 == 0:
        print(
            time.strftime("%H:%M:%S"), step, total, message, {key: round(value, 4) for key, value in metrics.items()}, flush=True
        )


def scorers(arguments: argparse.Namespace) -> None:
    images, label_maps = load(arguments.work, "train")
    held = load(arguments.work, "held")
    for seed, kind in enumerate(("selector", "judge"), start=1):
        if (arguments.work / f"{kind}.json").exists():
            continue
        architecture = default_architecture(kind, num_classes=len(CLASSES))  # type: ignore[arg-type]
        settings = ScorerConfig(num_steps=arguments.steps, seed=seed)
        made = train(images, label_maps, architecture=architecture, config=settings, report=progress, name=kind)
        save(arguments.work / kind, made.network.state_dict(), architecture,
             {"val": evaluate(made, *held, PROJECT), "num_training_images": len(images), "steps": arguments.steps})  # fmt: skip


def engine(arguments: argparse.Namespace) -> None:
    images, label_maps = load(arguments.work, "train")
    held_images, held_maps = load(arguments.work, "held")
    torch.manual_seed(0)
    state = weights.read(arguments.start.with_suffix(".safetensors")) if arguments.start else None
    made = CompactEngine(engine_architecture(num_classes=len(CLASSES), resolution=arguments.resolution), state)
    target = arguments.work / f"engine-{arguments.resolution}"
    folder = arguments.work / f"checkpoint-{arguments.resolution}"
    folder.mkdir(exist_ok=True)

    def picture(present: CompactEngine, step: int) -> dict[str, str]:
        sheet(target.with_suffix(".png"), present.generate(held_maps[:8], range(8)), held_images[:8])
        return {}

    settings = FitConfig(num_steps=None, minutes=arguments.minutes, learning_rate=arguments.learning_rate, sample_every=300)
    metrics = fit(made, TrainingSet(images, label_maps, engine=made), settings, progress, folder=folder, on_strip=picture)
    metrics |= sweep_samplers(made, held_maps[:32], held_images, progress)
    picture(made, 0)
    save(target, made.denoiser.state_dict(), made.architecture, metrics | {"num_images": len(images)})


def demo(arguments: argparse.Namespace) -> None:
    """Adapter that the demo folds into its generator: what roughly labelled frames do to a model."""
    entry = json.loads((arguments.work / f"{arguments.engine}.json").read_text())
    made = CompactEngine.from_file(entry["architecture"], arguments.work / f"{arguments.engine}.safetensors")
    patients = range(FIRST_PATIENT, FIRST_PATIENT + NUM_PATIENTS)
    scenes = displaced_scenes(NUM_ROUGH, first_seed=SEED + 20_000, patients=patients, size_px=made.resolution, seed=0)
    data = TrainingSet([scene.image for scene in scenes], [scene.label_map for scene in scenes], engine=made)
    policy = lora.attach(made.denoiser, rank=8)
    settings = FitConfig(num_steps=250, learning_rate=1e-3, batch_size=8, ema_decay=0.99, sample_every=0)
    metrics = fit(made, data, settings, progress) | {"num_images": len(scenes)}
    (arguments.work / "demo.safetensors").write_bytes(weights.to_bytes(lora.state(policy), dtype=torch.float16))
    (arguments.work / "demo.json").write_text(json.dumps({"metrics": metrics}, indent=1))


def masks(arguments: argparse.Namespace) -> None:
    """Mask generator of label maps that the demo project does not hold; the demo's own anatomy is learnt there."""
    label_maps = [phantom.render(SEED + 40_000 + index, patient=FIRST_PATIENT + index % NUM_PATIENTS).label_map
                  for index in range(NUM_MASKS)]  # fmt: skip
    settings = mask_fitting.MaskFitConfig(num_steps=arguments.steps)
    made, metrics = mask_fitting.fit(label_maps, num_classes=len(CLASSES), side=256, report=progress, config=settings,
                                     folder=arguments.work)  # fmt: skip
    data = weights.to_bytes(made.denoiser.state_dict(), dtype=torch.float16)
    target = config.assets_dir() / "phantom"
    (target / "masks.safetensors").write_bytes(data)
    manifest = json.loads((target / "manifest.json").read_text())
    manifest["masks"] = {
        "file": "masks.safetensors", "sha256": hashlib.sha256(data).hexdigest(),
        "architecture": {name: value for name, value in made.architecture.items() if name != "anatomy"},
        "metrics": {name: value for name, value in metrics.items() if name != "held"} | {"num_label_maps": len(label_maps)},
    }  # fmt: skip
    (target / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def save(target: Path, state: dict[str, torch.Tensor], architecture: dict[str, Any], metrics: dict[str, Any]) -> None:
    target.with_suffix(".safetensors").write_bytes(weights.to_bytes(state, dtype=torch.float16))
    target.with_suffix(".json").write_text(json.dumps({"architecture": architecture, "metrics": metrics}, indent=1))
    print(target.name, json.dumps(metrics)[:600], flush=True)


def pack(arguments: argparse.Namespace) -> None:
    target = config.assets_dir() / "phantom"
    target.mkdir(parents=True, exist_ok=True)
    manifest: dict[str, Any] = {
        "about": "Fitted to rendered phantom scenes by scripts/make_assets.py; no patient data. Apache-2.0."
    }
    for kind, name in (("engine", arguments.engine), ("selector", "selector"), ("judge", "judge")):
        data = (arguments.work / f"{name}.safetensors").read_bytes()
        (target / f"{kind}.safetensors").write_bytes(data)
        manifest[kind] = {"file": f"{kind}.safetensors", "sha256": hashlib.sha256(data).hexdigest(),
                          **json.loads((arguments.work / f"{name}.json").read_text())}  # fmt: skip
    data = (arguments.work / "demo.safetensors").read_bytes()
    (target / "demo.safetensors").write_bytes(data)
    manifest["demo"] = {"file": "demo.safetensors", "sha256": hashlib.sha256(data).hexdigest(), "note": WEAKNESS,
                        **json.loads((arguments.work / "demo.json").read_text())}  # fmt: skip
    _, held_maps = load(arguments.work, "held")
    for name, adapter in (("engine", None), ("demo", target / "demo.safetensors")):
        made = CompactEngine.from_file(manifest["engine"]["architecture"], target / "engine.safetensors")
        drawn = made.generate(held_maps, range(len(held_maps)), adapter=adapter)
        asked = [fit_to(label_map, size=(made.resolution, made.resolution)) for label_map in held_maps]
        for kind in ("selector", "judge"):
            segmenter = Segmenter.from_file(manifest[kind]["architecture"], target / f"{kind}.safetensors")
            seen = evaluate(segmenter, drawn, asked, PROJECT)
            manifest[name]["metrics"][f"{kind}_on_unseen_masks"] = seen
            print(kind, "on rendered:", manifest[kind]["metrics"]["val"]["dice"], f"on {name}'s:", seen["dice"], flush=True)
    (target / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def sheet(path: Path, generated: list[Image], rendered: list[Image]) -> None:
    """Rendered images in the odd rows, generated ones for the same label maps below them."""
    side = generated[0].shape[0]
    scaled = [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in rendered]
    rows = [np.concatenate(row, 1) for half in (0, 4) for row in (scaled[half : half + 4], generated[half : half + 4])]
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
