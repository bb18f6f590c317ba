"""Planted preference: a generator that paints the organ displaced half of the time must learn not to.

The truth is known, so the method can fail visibly: swapped pairs must make it worse, shuffled pairs must change nothing, a small
beta must be stopped by the gate.
"""

from __future__ import annotations

import math
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from saadi import devices, quality
from saadi.alignment.gate import Gate, Reading, compare, metrics_of
from saadi.alignment.recipe import Aligned, align
from saadi.alignment.settings import AlignmentConfig, TrainingPair
from saadi.alignment.trainer import PairTrainer
from saadi.datasets import phantom
from saadi.downstream.metrics import agreement, mean_over_asked
from saadi.downstream.segmenter import Segmenter
from saadi.engines import shipped, weights
from saadi.engines.compact import CompactEngine
from saadi.engines.fitting import FitConfig, TrainingSet, fit
from saadi.errors import AlignmentStoppedError
from saadi.jobs import Report, silent
from saadi.orders.recipe import SMALL_STEPS
from saadi.preferences import MIN_MARGIN
from saadi.records import Image, LabelMap

NUM_CLASSES = len(phantom.CLASS_NAMES)
GALLBLADDER = phantom.CLASS_NAMES.index("gallbladder")


def run(*, fit_steps: int = 300, align_steps: int = 150, num_scenes: int = 256, num_masks: int = 64, candidates: int = 4,
        resolution: int = 128, seed: int = 0, report: Report = silent) -> dict[str, Any]:  # fmt: skip
    """Spoil the shipped generator, then align it in five arms and measure each on unseen masks.

    Returns:
        base and one entry per arm (aligned, swapped, shuffled, small_beta): judge's Dice gain with interval, win rate, distances.
    """
    devices.use_all_threads()
    began = time.monotonic()
    engine, selector, judge = shipped_models(resolution=resolution)
    spoil(engine, fit_steps=fit_steps, num_scenes=num_scenes, seed=seed, report=report)
    state = {name: tensor.clone() for name, tensor in engine.denoiser.state_dict().items()}
    # The pool: K candidates per mask, best against worst by the selector; and the true image against the worst.
    pool = [
        phantom.render(20_000 + seed * 1000 + index, patient=400 + index % 40, size_px=engine.resolution)
        for index in range(num_scenes // candidates)
    ]
    pairs = best_against_worst(engine, selector, [scene.label_map for scene in pool], candidates=candidates, seed=seed)
    fresh = [
        phantom.render(30_000 + seed * 1000 + index, patient=500 + index % 40, size_px=engine.resolution)
        for index in range(2 * num_masks)
    ]
    gates = [Gate(label_maps=[s.label_map for s in part], selector=selector, judge=judge, num_classes=NUM_CLASSES,
                  real=[s.image for s in part], training=[s.image for s in pool]) for part in (fresh[:num_masks],
                  fresh[num_masks:])]  # fmt: skip
    seeds = list(range(2**41, 2**41 + num_masks))
    gate_seeds = list(range(2**40, 2**40 + num_masks))
    base_images = engine.generate(gates[1].label_maps, seeds)
    base = gates[1].read(base_images)
    settings = AlignmentConfig(num_steps=align_steps, gate_every=max(1, align_steps // 3), seed=seed)
    result: dict[str, Any] = {
        "base": reading_numbers(base) | organ_numbers(judge, base_images, gates[1].label_maps),
        "step_0_loss": step_0_loss(engine.architecture, state, pairs, settings), "ln_2": math.log(2), "num_pairs":
        len(pairs)}  # fmt: skip
    for name, arm_pairs, arm in arms(pairs, [scene.image for scene in pool], settings, seed=seed):
        result[name] = run_arm(
            engine.architecture, state, arm_pairs, arm, gates, base, (gate_seeds, seeds), judge,
            anchors=[(scene.image, scene.label_map) for scene in pool], report=report)  # fmt: skip
    return result | {"seconds": round(time.monotonic() - began), "seed": seed}


def shipped_models(*, resolution: int) -> tuple[CompactEngine, Segmenter, Segmenter]:
    """The shipped generator at a side of its own choice (it is fine-tuned at that side anyway), selector and judge."""
    entries = shipped.manifest()
    return (
        CompactEngine.from_file(entries["engine"]["architecture"] | {"resolution": resolution}, shipped.file("engine")),
        Segmenter.from_file(entries["selector"]["architecture"], shipped.file("selector")),
        Segmenter.from_file(entries["judge"]["architecture"], shipped.file("judge")),
    )


def spoil(engine: CompactEngine, *, fit_steps: int, num_scenes: int, seed: int, report: Report) -> None:
    """Fine-tune on scenes whose gallbladder is painted displaced in every second image, while the label map stays."""
    scenes = displaced_scenes(num_scenes, first_seed=10_000 + seed * 1000, patients=range(300, 360), size_px=engine.resolution,
                              seed=seed)  # fmt: skip
    data = TrainingSet([scene.image for scene in scenes], [scene.label_map for scene in scenes], engine=engine)
    fit(engine, data, FitConfig(num_steps=fit_steps, learning_rate=2e-4, sample_every=0, seed=seed), report)


def displaced_scenes(
    count: int, *, first_seed: int, patients: Sequence[int], size_px: int, seed: int
) -> list[phantom.Scene]:
    """Scenes of which every second one shows the gallbladder beside the place that its label map gives."""
    generator = random.Random(seed)
    far = round(size_px * 0.16)
    scenes = []
    for index in range(count):
        shift = (generator.choice([-far, far]), generator.randint(-far // 2, far // 2)) if index % 2 else (0, 0)
        patient = patients[index % len(patients)]
        scenes.append(phantom.render(first_seed + index, patient=patient, size_px=size_px, organ_shift_px=shift))
    return scenes


def best_against_worst(
    engine: CompactEngine, selector: Segmenter, label_maps: Sequence[LabelMap], *, candidates: int, seed: int
) -> list[TrainingPair]:
    """One pair per label map whose candidates differ clearly, by the selector's mean Dice."""
    pairs: list[TrainingPair] = []
    for group, label_map in enumerate(label_maps):
        images = engine.generate(
            [label_map] * candidates, [seed * 100_000 + group * candidates + offset for offset in range(candidates)]
        )
        scores = [
            mean_over_asked(agreement(found.label_map, label_map, num_classes=NUM_CLASSES), label_map)
            for found in selector.predict(images)
        ]
        best, worst = int(np.argmax(scores)), int(np.argmin(scores))
        if scores[best] - scores[worst] >= MIN_MARGIN:
            pairs.append(TrainingPair(label_map, images[best], images[worst], weight=1.0, is_real=False, group=str(group)))
    return pairs


def arms(
    pairs: list[TrainingPair], real: Sequence[Image], settings: AlignmentConfig, *, seed: int
) -> list[tuple[str, list[TrainingPair], AlignmentConfig]]:
    """The method (with real winners) and its controls."""
    generator = random.Random(seed)
    with_real = [*pairs, *[replace(pair, chosen=real[int(pair.group)], is_real=True) for pair in pairs]]
    swapped = [replace(pair, chosen=pair.rejected, rejected=pair.chosen) for pair in pairs]
    # Half of all: of 45 pairs, coins once turned 28, and the surplus was a preference for the worse.
    turned = set(generator.sample(range(len(pairs)), len(pairs) // 2))
    shuffled = [swapped[index] if index in turned else pair for index, pair in enumerate(pairs)]
    plain = replace(settings, sft_weight=0.0, learning_rate=SMALL_STEPS)  # without the term large steps destroy by themselves
    return [("aligned", with_real, settings), ("synthetic_winners_only", pairs, settings), ("swapped", swapped, plain),
            ("shuffled", shuffled, plain), ("small_beta", pairs, replace(plain, beta=300.0))]  # fmt: skip


def run_arm(
    architecture: dict[str, Any],
    state: dict[str, Any],
    pairs: list[TrainingPair],
    settings: AlignmentConfig,
    gates: Sequence[Gate],
    base: Reading,
    seeds: tuple[Sequence[int], Sequence[int]],
    judge: Segmenter,
    *,
    anchors: Sequence[tuple[Image, LabelMap]],
    report: Report,
) -> dict[str, Any]:
    """Align once; measure the last state on unseen masks (second gate, second seeds), and say what the gate would have kept."""
    engine = CompactEngine(architecture, state)
    stopped: str | None = None
    kept: Aligned | None = None
    try:
        kept = align(engine, pairs, gates[0], settings, report, seeds=seeds[0], anchors=anchors)
    except AlignmentStoppedError as error:
        stopped = str(error)
    found = _measured(engine, gates[1], base, seeds[1], judge) | {
        "gate_kept_step": kept.step if kept else None,
        "gate_stopped": stopped,
        "gate_refused_the_last_step": kept is None or kept.step < settings.num_steps,
        "num_pairs": len(pairs),
    }
    if kept is not None and kept.step < settings.num_steps:
        with tempfile.TemporaryDirectory() as folder:
            adapter = Path(folder) / "kept.safetensors"
            adapter.write_bytes(weights.to_bytes(kept.state))
            fresh = CompactEngine(architecture, state)
            found["kept_checkpoint"] = _measured(fresh, gates[1], base, seeds[1], judge, adapter=adapter)
    return found


def _measured(
    engine: CompactEngine,
    gate: Gate,
    base: Reading,
    seeds: Sequence[int],
    judge: Segmenter,
    *,
    adapter: Path | None = None,
) -> dict[str, Any]:
    """The present state on masks that neither training nor gate have seen."""
    engine.weights_changed()
    images = engine.generate(gate.label_maps, seeds, adapter=adapter)
    present = gate.read(images)
    change = np.asarray(present.feature_left_out) - np.asarray(base.feature_left_out)
    return (
        metrics_of(present, base, compare(present, base, winner_ratio=1.0))
        | organ_numbers(judge, images, gate.label_maps)
        | {"feature_distance_change": round(present.feature_distance - base.feature_distance, 4),
           "feature_distance_change_error": round(quality.jackknife_error(change), 4)}
    )  # fmt: skip


def step_0_loss(
    architecture: dict[str, Any], state: dict[str, Any], pairs: list[TrainingPair], settings: AlignmentConfig
) -> float:
    """Loss before the first update: ln 2 when policy and reference agree."""
    return PairTrainer(CompactEngine(architecture, state), pairs, replace(settings, sft_weight=0.0)).train_step()["loss"]


def organ_numbers(judge: Segmenter, images: Sequence[Image], label_maps: Sequence[LabelMap]) -> dict[str, float]:
    """Judge's mean Dice of the gallbladder, the displaced class, where it was asked for."""
    dice = [found[GALLBLADDER].dice for prediction, asked in zip(judge.predict(images), label_maps, strict=True)
            if GALLBLADDER in (found := agreement(prediction.label_map, asked, num_classes=NUM_CLASSES)) and (asked ==
            GALLBLADDER).any()]  # fmt: skip
    return {"gallbladder_dice": round(float(np.mean(dice)), 4)}


def reading_numbers(reading: Reading) -> dict[str, float]:
    return {"dice": round(float(np.mean(reading.dice)), 4), "selector_dice": round(float(np.mean(reading.selector_dice)), 4),
            "feature_distance": round(reading.feature_distance, 4), "appearance_distance": round(reading.appearance_distance,
            4)}  # fmt: skip


def default_out() -> Path:
    """Where the evidence is kept in a checkout."""
    return Path(__file__).resolve().parent.parent.parent / "docs" / "evidence" / "planted-preference.json"
