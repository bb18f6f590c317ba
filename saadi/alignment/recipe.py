"""Learn from pairs, as a LoRA adapter, which images downstream models and reviewers prefer (SAADi, arXiv:2509.18796).

The loss is Diffusion-DPO (arXiv:2311.12908) with real-image winners and a denoising term on them; a gate on fixed label maps
and seeds judges every checkpoint, and the best one that passes is kept, not the last.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import structlog
from peft import PeftModel
from torch import Tensor

from saadi.alignment.crew import ALONE, Crew
from saadi.alignment.gate import (
    Gate,
    Reading,
    Verdict,
    compare,
    metrics_of,
    reading_from_json,
    reading_to_json,
)
from saadi.alignment.limits import ACCURACY_GAP, MIN_HELD_FOR_GAP
from saadi.alignment.settings import AlignmentConfig, TrainingPair, TrainingSingle
from saadi.alignment.trainer import PairTrainer
from saadi.engines import checkpoints, lora, weights
from saadi.engines.base import Negative, StepCallback, TrainableEngine, no_callback
from saadi.errors import AlignmentStoppedError, CancelledError
from saadi.jobs import Report
from saadi.records import Image, LabelMap

SCALES = (0.75, 0.5, 0.25)
"""Strengths of the line search along what was learnt."""
STRIP = 6
"""Images in the before/after strip."""
LIVE = ("loss", "winner_error", "loser_error", "gradient_norm", "gradient_ratio")
"""Of the trainer's numbers, those that become curves."""
log = structlog.get_logger()


@dataclass(frozen=True)
class Aligned:
    """What an alignment found: the adapter of the best checkpoint that passed the gate."""

    state: dict[str, Tensor]
    step: int
    reading: Reading
    reference: Reading
    verdict: Verdict
    before: list[Image]
    after: list[Image]
    history: list[dict[str, Any]]
    """One row per checkpoint, passed or not."""
    scale: float = 1.0
    """Strength of what was learnt, found by the line search; the state has it in it already."""

    def is_better_than(self, other: Aligned | None) -> bool:
        """It passed, and nothing else did or gained as much."""
        return self.verdict.passed and (other is None or self.verdict.dice_gain[0] > other.verdict.dice_gain[0])


Promising = tuple[dict[str, Tensor], int]
"""State and step of the checkpoint that gained most, though it did not pass."""


class Drawing(Protocol):
    """How the gate's images are made, always on the same label maps and seeds."""

    def before(self, on_step: StepCallback) -> list[Image]:
        """By the version in use; called before an adapter is attached."""

    def after(self, policy: PeftModel, on_step: StepCallback) -> list[Image]:
        """By what has been learnt so far."""


class Drawn:
    """The plain way: a candidate takes the place of the version in use."""

    def __init__(
        self, engine: TrainableEngine, gate: Gate, seeds: Sequence[int], *, parent: Path | None, parent_scale: float
    ) -> None:
        self.engine, self.label_maps, self.seeds = engine, gate.label_maps, seeds
        self.parent, self.parent_scale = parent, parent_scale
        self.regions = gate.regions(engine) if engine.needs_picture else None

    def before(self, on_step: StepCallback) -> list[Image]:
        return self.engine.generate(self.label_maps, self.seeds, regions=self.regions, adapter=self.parent,
                                    adapter_scale=self.parent_scale, on_step=on_step)  # fmt: skip

    def after(self, policy: PeftModel, on_step: StepCallback) -> list[Image]:
        self.engine.weights_changed()
        return self.engine.generate(self.label_maps, self.seeds, regions=self.regions, on_step=on_step)


class InGuidance:
    """For a negative adapter: the version in use makes the images, what has been learnt only leads guidance away."""

    def __init__(
        self, engine: TrainableEngine, gate: Gate, seeds: Sequence[int], *, guidance_scale: float, parent: Path | None,
        parent_scale: float, folder: Path,
    ) -> None:
        """
        Args:
            engine: Another one than the one that is trained.
            folder: What has been learnt is kept there while it is tested.
        """
        self.engine, self.seeds, self.file = engine, list(seeds), folder / "negative.safetensors"
        self.label_maps, self.regions = gate.label_maps, gate.regions(engine)
        self.guidance_scale, self.parent, self.parent_scale = guidance_scale, parent, parent_scale

    def before(self, on_step: StepCallback) -> list[Image]:
        return self._made(None, on_step)

    def after(self, policy: PeftModel, on_step: StepCallback) -> list[Image]:
        return self.by(lora.state(policy), on_step)

    def by(self, state: dict[str, Tensor], on_step: StepCallback = no_callback) -> list[Image]:
        """By an adapter's tensors."""
        self.file.write_bytes(weights.to_bytes(state))
        self.engine.weights_changed()  # the file has the same name each time
        return self._made(Negative(self.file, scale=self.parent_scale), on_step)

    def _made(self, negative: Negative | None, on_step: StepCallback) -> list[Image]:
        return self.engine.generate(self.label_maps, self.seeds, regions=self.regions, guidance_scale=self.guidance_scale,
                                    adapter=self.parent, adapter_scale=self.parent_scale, negative=negative,
                                    on_step=on_step)  # fmt: skip


def align(
    engine: TrainableEngine,
    pairs: Sequence[TrainingPair],
    gate: Gate,
    config: AlignmentConfig,
    report: Report,
    *,
    seeds: Sequence[int],
    parent: Path | None = None,
    parent_scale: float = 1.0,
    anchors: Sequence[tuple[Image, LabelMap]] = (),
    singles: Sequence[TrainingSingle] = (),
    folder: Path | None = None,
    keep: Callable[[dict[str, Tensor]], str] | None = None,
    show: Callable[[Image], str] | None = None,
    crew: Crew = ALONE,
    drawing: Drawing | None = None,
) -> Aligned:
    """Train an adapter on pairs and return its best checkpoint.

    Args:
        seeds: One per gate label map; the same before and after.
        parent: The adapter in use, if any: the policy starts from it and is compared with it.
        anchors: Real images with label maps; see `PairTrainer`.
        singles: Images that are liked or not by themselves.
        folder, keep: For resuming: where the checkpoint lies, and how to store an adapter's tensors (returns their hash).
        show: Stores a picture and returns its name, for the same masks and seeds side by side as they change.
        crew: Further processes that compute the steps with this one.
        drawing: How the gate's images are made; None = a candidate in the place of the version in use.

    Raises:
        AlignmentStoppedError: No checkpoint passed the gate; says what the last one failed on.
        CancelledError: From `report`; the checkpoint holds the state reached, so a continued run equals an uninterrupted one.
    """
    began = time.monotonic()
    # The reference's images on the gate's label maps: what every checkpoint is compared with.
    drawing = drawing or Drawn(engine, gate, seeds, parent=parent, parent_scale=parent_scale)
    before = drawing.before(
        lambda step, total: report(0, config.num_steps, f"drawing the old model's images ({step} of {total})")
    )
    reference = gate.read(before)
    trainer = PairTrainer(engine, pairs, config, parent=parent, parent_scale=parent_scale, anchors=anchors, singles=singles,
                          measured_on=_fingerprint(gate.label_maps, before), crew=crew)  # fmt: skip
    at_start = _curves(reference) | {"held_pairs": float(len(trainer.held_ids)), "start_s": time.monotonic() - began}
    report(0, config.num_steps, "learning from the pairs", metrics=at_start, images=_shown(before, show))
    run = _Run(trainer, reference)
    if folder is not None and (saved := trainer.restore(folder)) is not None:
        run.restore(saved, before)
    elif folder is not None and (folder / checkpoints.NAME).exists():
        report(0, config.num_steps, "the masks it is tested on have changed since; learning begins anew")
    test = _Test(trainer, gate, run.reference, before, drawing, report, show, run.history)
    try:
        while (run.is_due or trainer.step < config.num_steps) and not run.stopped:
            if not run.is_due and not run.learns(report):
                break  # without a checkpoint: these weights are of no use to anybody
            if run.is_due:
                run.tests(test)
                run.save(folder, keep)
    except CancelledError:
        run.save(folder, keep)
        raise
    best = run.best
    if (alarm := trainer.alarm()) and not run.stopped:
        log.warning("alignment_stopped", step=trainer.step, reason=alarm)
        report(trainer.step, config.num_steps, alarm, metrics={"not_a_number": 1.0})
    if config.scale_search == "always" or (config.scale_search == "rescue" and best is None):
        best = _best_strength(test, best, run.promising, parent=weights.read(parent) if parent else None,
                              train_accuracy=run.accuracy)  # fmt: skip
    if best is None:
        reasons = "; ".join(run.history[-1]["reasons"]) if run.history else "no checkpoint was reached"
        raise AlignmentStoppedError(
            f"no checkpoint was better than the old model, which stays in use ({reasons}); "
            "collect more pairs or votes, or lower the learning rate"
        )
    return replace(best, before=before, history=run.history)


class _Run:
    """How far an alignment is: its steps and tests, and what of them a checkpoint keeps."""

    def __init__(self, trainer: PairTrainer, reference: Reading) -> None:
        self.trainer, self.reference = trainer, reference
        self.history: list[dict[str, Any]] = []
        self.best: Aligned | None = None
        self.promising: Promising | None = None
        self.stopped: str | None = None
        self.is_due = False
        """The step that was just taken has to be tested; a stop may fall between both."""
        self._accuracies: list[float] = []

    @property
    def accuracy(self) -> float:
        """Mean over the last steps."""
        return float(np.mean(self._accuracies or [0.0]))

    def restore(self, saved: dict[str, Any], before: list[Image]) -> None:
        """What `save` wrote; checkpoints of earlier releases lack some of it."""
        self.promising = _promising_from(saved.get("promising"))
        self.history, self.reference = saved["history"], reading_from_json(saved["reference"])
        self.best = _best_from(saved["best"], self.reference, before, self.history)
        self._accuracies, self.stopped, self.is_due = saved["accuracies"], saved["stopped"], saved.get("due", False)

    def save(self, folder: Path | None, keep: Callable[[dict[str, Tensor]], str] | None) -> None:
        """Write a checkpoint, where there is a place for it."""
        if folder is None or keep is None:
            return
        self.trainer.save(folder, {
            "history": self.history,
            "reference": reading_to_json(self.reference),
            "best": _best_to(self.best, keep),
            "promising": {"file": keep(self.promising[0]), "step": self.promising[1]} if self.promising else None,
            "accuracies": self._accuracies,
            "stopped": self.stopped,
            "due": self.is_due,
        })  # fmt: skip

    def learns(self, report: Report) -> bool:
        """One step; False where its gradient is not a number."""
        trainer, config, began = self.trainer, self.trainer.config, time.monotonic()
        numbers = trainer.train_step()
        if not np.isfinite(numbers["gradient_norm"]):
            return False
        self._accuracies = [*self._accuracies[-49:], numbers["accuracy"]]
        at_end = trainer.step >= config.num_steps
        self.is_due = trainer.step % config.gate_every == 0 or at_end or trainer.alarm() is not None
        live = {name: numbers[name] for name in LIVE if name in numbers}
        live |= {"accuracy": self.accuracy, "step_s": time.monotonic() - began}
        report(trainer.step, config.num_steps, "learning from the pairs", metrics=live)
        return True

    def tests(self, test: _Test) -> None:
        """New images on the fixed label maps and seeds, measured against the reference."""
        with self.trainer.averaged():
            found, row = test.run(self.accuracy)
        self.is_due = False
        self.history.append(row)
        if found.is_better_than(self.best):
            self.best = found
        elif (gain := found.verdict.dice_gain[0]) > 0 and all(gain >= other["dice_gain"] for other in self.history[:-1]):
            self.promising = (found.state, found.step)
        if stopped := self.trainer.alarm() or _accuracy_gap(self.trainer, row):
            log.warning("alignment_stopped", step=self.trainer.step, reason=stopped)
            self.stopped = row["stopped"] = stopped


def _best_strength(
    test: _Test, best: Aligned | None, promising: Promising | None, *, parent: dict[str, Tensor] | None, train_accuracy: float
) -> Aligned | None:
    """Line search along what was learnt: the best of weaker versions of the best checkpoint, or of the most promising one.

    Args:
        best: At full strength; None = none passed.
        parent: The adapter that was started from: where the way back leads to.
    """
    source = (best.state, best.step) if best else promising
    if source is None:
        return best
    # Its numbers belong to no step of the curves.
    quiet = replace(test, report=lambda step, total, message, **more: test.report(step, total, message), show=None)
    for scale in SCALES:
        tensors = lora.scaled(source[0], scale, parent=parent)
        lora.fill(test.trainer.policy, tensors)
        found, row = quiet.run(train_accuracy)
        test.history.append(row | {"step": source[1], "scale": scale})
        if found.is_better_than(best):
            best = replace(found, state=tensors, step=source[1], scale=scale)
    return best


def _fingerprint(label_maps: Sequence[LabelMap], images: Sequence[Image]) -> str:
    """Changes with the gate's masks and with the reference that draws on them."""
    digest = hashlib.sha256()
    for array in (*label_maps, *images):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Test:
    """Measures what has been learnt so far on fixed label maps and seeds."""

    trainer: PairTrainer
    gate: Gate
    reference: Reading
    before: list[Image]
    drawing: Drawing
    report: Report
    show: Callable[[Image], str] | None
    history: list[dict[str, Any]]

    def run(self, train_accuracy: float) -> tuple[Aligned, dict[str, Any]]:
        """The policy as it is now, and its row for the history."""
        began, trainer, steps = time.monotonic(), self.trainer, self.trainer.config.num_steps
        images = self.drawing.after(trainer.policy, lambda step, total: self.report(
            trainer.step, steps, f"checking step {trainer.step} on fixed masks ({step} of {total})"))  # fmt: skip
        held = trainer.measure_held_out()
        present = self.gate.read(images)
        verdict = compare(present, self.reference, winner_ratio=held["winner_ratio"], task=self.gate.task)
        row = {
            "step": trainer.step,
            "train_accuracy": round(train_accuracy, 4),
            "held_accuracy": round(held["held_accuracy"], 4),
            **metrics_of(present, self.reference, verdict, task=self.gate.task),
        }
        live = {
            "win_rate": verdict.win_rate,
            "held_accuracy": held["held_accuracy"],
            "accuracy_gap": train_accuracy - held["held_accuracy"],
            "winner_ratio": held["winner_ratio"],
            "check_s": time.monotonic() - began,
        }
        self.report(trainer.step, steps, f"checked step {trainer.step}: {'better' if verdict.passed else 'not accepted'}",
                    metrics=_curves(present) | live, images=_shown(images, self.show))  # fmt: skip
        state = lora.state(trainer.policy)
        return Aligned(state, trainer.step, present, self.reference, verdict, self.before, images, self.history), row


def _curves(reading: Reading) -> dict[str, float]:
    """What of a reading is drawn over the steps; the present version's own values stand at step 0."""
    return {
        "dice": float(np.mean(reading.dice)),
        "feature_distance": reading.feature_distance,
        "appearance_distance": reading.appearance_distance,
        "vendi": reading.vendi,
        "nearest": reading.nearest,
    }


def _shown(images: Sequence[Image], show: Callable[[Image], str] | None) -> dict[str, str] | None:
    return {f"image {index}": show(image) for index, image in enumerate(images[:STRIP], start=1)} if show else None


def _accuracy_gap(trainer: PairTrainer, row: dict[str, Any]) -> str | None:
    if len(trainer.held_ids) >= MIN_HELD_FOR_GAP and row["train_accuracy"] - row["held_accuracy"] > ACCURACY_GAP:
        return "the adapter learns the training pairs by heart (accuracy gap above 0.15)"
    return None


def _best_to(best: Aligned | None, keep: Callable[[dict[str, Tensor]], str]) -> dict[str, Any] | None:
    if best is None:
        return None
    return {
        "file": keep(best.state),
        "step": best.step,
        "reading": reading_to_json(best.reading),
        "verdict": asdict(best.verdict),
    }


def _promising_from(data: dict[str, Any] | None) -> Promising | None:
    return (weights.read(Path(data["file"])), data["step"]) if data else None


def _best_from(
    data: dict[str, Any] | None, reference: Reading, before: list[Image], history: list[dict[str, Any]]
) -> Aligned | None:
    if data is None:
        return None
    raw = data["verdict"]
    verdict = Verdict(
        **(
            raw
            | {
                "reasons": tuple(raw["reasons"]),
                "win_rate_interval": tuple(raw["win_rate_interval"]),
                "dice_gain": tuple(raw["dice_gain"]),
            }
        )
    )
    return Aligned(
        weights.read(Path(data["file"])),
        data["step"],
        reading_from_json(data["reading"]),
        reference,
        verdict,
        before,
        [],
        history,
    )
