"""Rounds of alignment inside a measurement: pools, pairs, adapters, and the images that each version makes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from saadi.alignment import limits
from saadi.alignment.gate import Gate, Verdict, compare
from saadi.alignment.recipe import align
from saadi.alignment.settings import AlignmentConfig, TrainingPair
from saadi.alignment.trainer import PairTrainer
from saadi.engines import lora, weights
from saadi.engines.compact import CompactEngine
from saadi.engines.starting import NoiseShift
from saadi.errors import AlignmentStoppedError, TooFewError
from saadi.evidence.learners import Learners, to_arrays, to_tensors, without_notes
from saadi.evidence.stages import Arrays, Stage
from saadi.poses import moved, warped
from saadi.preferences import MIN_MARGIN
from saadi.records import Image, LabelMap

log = structlog.get_logger()
GATE_MASKS = 32
FIRST_GATE = 500_000
"""Numbers of the gate's moved masks: beyond those of all pools."""
Masks = list[tuple[LabelMap, int]]
"""Label maps, each with the index of the real image that it comes from."""


@dataclass(frozen=True)
class Rounds:
    """Version 0 is the base generator, version N the one after N alignments."""

    learners: Learners

    def masks(self, count: int, *, first: int) -> Masks:
        """Moved (and bent) versions of the real label maps, by their numbers."""
        own, found = self.learners, []
        for number in range(first, first + count):
            draw = np.random.default_rng([own.seed, number])
            index = number % len(own.real)
            label_map = moved(own.real[index].label_map, draw)
            found.append((warped(label_map, draw) if own.settings.masks == "warped" else label_map, index))
        return found

    def images(
        self, version: int, masks: Masks, seeds: Sequence[int], *, engine: CompactEngine | None = None,
        start: NoiseShift | None = None,
    ) -> list[Image]:
        """One image per mask and seed.

        Args:
            engine: None = the one that was fitted to the real images.
        """
        return (engine or self.learners.engine()).generate(
            [label_map for label_map, _ in masks], seeds, adapter=self._adapter_file(version), start=start,
            on_step=lambda step, total: self.learners.report(step, total, "making images"))  # fmt: skip

    def in_use(self, version: int) -> int:
        """The version that makes the images after so many rounds: a refused round leaves the one before."""
        while version and "refused" in self.round(version).arrays:
            version -= 1
        return version

    def _adapter_file(self, version: int) -> Path | None:
        if (version := self.in_use(version)) == 0:
            return None
        stage = self.round(version)
        data = weights.to_bytes(to_tensors(without_notes(stage.arrays)))
        return self.learners.stages.file(f"{stage.key}.safetensors", data)

    def upstream(self, version: int) -> dict[str, Any]:
        """What the images of a version depend on."""
        if version == 0:
            return self.learners.base | {"generator": self.learners.generator().key}
        return {"round": self.round(version).key}

    # ---- pools and pairs

    def pool(self, version: int) -> tuple[Masks, list[list[Image]], NDArray[np.float64]]:
        """Masks, K images of each, and their scores."""
        stage, masks, k = self.pool_stage(version), self.pool_masks(version), self.learners.settings.candidates
        rows = [list(stage["images"][first : first + k]) for first in range(0, len(stage["images"]), k)]
        return masks, rows, stage["dice"].reshape(len(masks), k)

    def pool_masks(self, version: int) -> Masks:
        """Half of them real images' own, so that those can be winners."""
        count = self.learners.settings.pool_masks
        originals = [(example.label_map, index) for index, example in enumerate(self.learners.real)][: count // 2]
        return originals + self.masks(count - len(originals), first=10_000 * (version + 1))

    def pool_stage(self, version: int) -> Stage:
        own, masks = self.learners, self.pool_masks(version)
        settings, first_seed = own.settings, own.seed * 1_000_000 + version * 100_000

        def make() -> Arrays:
            many = [mask for mask in masks for _ in range(settings.candidates)]
            made = self.images(version, many, [first_seed + index for index in range(len(many))])
            return {"images": np.stack(made), "dice": own.scores(made, many)}

        wanted = {"masks": settings.pool_masks, "shape": settings.masks, "k": settings.candidates} | own.order()
        return own.stages.get("pool", self.upstream(version) | wanted, make)

    def pairs(
        self, masks: Masks, rows: Sequence[Sequence[Image]], scores: NDArray[np.float64], *, margin: float = MIN_MARGIN
    ) -> list[TrainingPair]:
        """Best against worst where they clearly differ; and the real image against the worst where the mask is its own."""
        found, real = [], self.learners.real
        for (label_map, source), images, of_mask in zip(masks, rows, scores, strict=True):
            best, worst = int(of_mask.argmax()), int(of_mask.argmin())
            pair = TrainingPair(label_map, images[best], images[worst], weight=0.5, is_real=False, group=f"{source}")
            if of_mask[best] - of_mask[worst] >= margin:
                found.append(pair)
            if label_map is real[source].label_map:
                found.append(replace(pair, chosen=real[source].image, weight=1.0, is_real=True))
        return found

    # ---- alignment

    def round(self, version: int) -> Stage:
        """Alignment number `version`: pairs of the version before, an adapter that starts from its adapter."""
        own, settings = self.learners, self.learners.settings
        config = AlignmentConfig(num_steps=settings.align_steps, learning_rate=settings.learning_rate, seed=own.seed,
                                 sft_weight=settings.sft_weight, sdpo_mu=settings.sdpo_mu, loss=settings.loss)  # fmt: skip
        if version > 1 and "refused" in (before := self.round(version - 1)).arrays:
            nothing = {"refused": np.array("the round before brought nothing")}
            return own.stages.get("round", {"after": before.key}, lambda: nothing)

        wanted = own.base | {"pool": self.pool_stage(version - 1).key, "judge": own.scorer_stage("judge").key,
                             "gate": GATE_MASKS, "shape": settings.masks, "align": asdict(config)}  # fmt: skip
        wanted |= {"limits": limits.in_force()} if settings.gated else {"gated": False}
        wanted |= {"winners": "real"} if settings.real_winners_alone else {}

        def make() -> Arrays:
            pairs = [pair for pair in self.pairs(*self.pool(version - 1)) if pair.is_real or not settings.real_winners_alone]
            fresh, real = [label_map for label_map, _ in self.gate_masks(version)], [example.image for example in own.real]
            gate = Gate(label_maps=fresh, selector=own.scorer("fold 0"), judge=own.scorer("judge"),
                        num_classes=own.num_classes, real=real, training=real)  # fmt: skip
            learn = self._aligned if settings.gated else self._ungated
            try:
                state, verdict, step = learn(pairs, gate, config, version, own.stages.workspace("round", wanted))
            except (AlignmentStoppedError, TooFewError) as error:
                log.warning("round_refused", version=version, reason=str(error))
                return {"refused": np.array(str(error))}
            return to_arrays(state) | {
                "_win_rate": np.array(verdict.win_rate),
                "_gain": np.array(verdict.dice_gain),
                "_step": np.array(step),
                "_num_pairs": np.array(len(pairs)),
                "_reasons": np.array("; ".join(verdict.reasons)),
            }

        return own.stages.get("round", wanted, make)

    def gate_masks(self, version: int) -> Masks:
        """Moved label maps that no pool has."""
        return self.masks(GATE_MASKS, first=FIRST_GATE + 1000 * version)

    def _aligned(
        self, pairs: list[TrainingPair], gate: Gate, config: AlignmentConfig, version: int, folder: Path
    ) -> tuple[dict[str, torch.Tensor], Verdict, int]:
        """As the program does it: adapter, verdict and step of the best checkpoint that passed."""
        own = self.learners
        found = align(own.engine(), pairs, gate, config, own.report, seeds=_gate_seeds(gate),
                      parent=self._adapter_file(version - 1), folder=folder, keep=partial(_kept, folder),
                      anchors=[(e.image, e.label_map) for e in own.real])  # fmt: skip
        return found.state, found.verdict, found.step

    def _ungated(
        self, pairs: list[TrainingPair], gate: Gate, config: AlignmentConfig, version: int, folder: Path
    ) -> tuple[dict[str, torch.Tensor], Verdict, int]:
        """The last step and what the gate says of it; an alarm of the trainer stops it as ever."""
        own = self.learners
        engine, parent, seeds = own.engine(), self._adapter_file(version - 1), _gate_seeds(gate)
        before = gate.read(engine.generate(gate.label_maps, seeds, adapter=parent))
        trainer = PairTrainer(engine, pairs, config, parent=parent, anchors=[(e.image, e.label_map) for e in own.real])
        while trainer.step < config.num_steps and not trainer.alarm():
            if not np.isfinite(trainer.train_step()["gradient_norm"]):
                raise AlignmentStoppedError("the gradient is not a number any more")
            own.report(trainer.step, config.num_steps, "learning from the pairs")
        engine.weights_changed()
        after = gate.read(engine.generate(gate.label_maps, seeds))
        verdict = compare(after, before, winner_ratio=trainer.measure_held_out()["winner_ratio"], task=own.case.task)
        return lora.state(trainer.policy), verdict, trainer.step

    def in_numbers(self) -> list[dict[str, Any]]:
        """Per round of alignment: what the gate measured, or why it kept the version before."""
        found = []
        for version in range(1, self.learners.settings.rounds + 1):
            arrays = self.round(version).arrays
            found.append({name.strip("_"): arrays[name].tolist() for name in arrays if name == "refused" or name.startswith("_")})
        return found


def _gate_seeds(gate: Gate) -> list[int]:
    return [2**40 + index for index in range(len(gate.label_maps))]


def _kept(folder: Path, state: dict[str, torch.Tensor]) -> str:
    """Keep an adapter beside the checkpoint that names it."""
    data = weights.to_bytes(state)
    path = folder / f"{hashlib.sha256(data).hexdigest()[:20]}.safetensors"
    path.write_bytes(data)
    return str(path)
