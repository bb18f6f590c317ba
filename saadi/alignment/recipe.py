"""Learn from pairs, as a LoRA adapter, which images downstream models and reviewers prefer (SAADi, arXiv:2509.18796).

The loss is Diffusion-DPO (arXiv:2311.12908) with real-image winners and a denoising term on them; a gate on fixed label maps
and seeds judges every checkpoint, and the best one that passes is kept, not the last.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import structlog
from peft import PeftModel
from torch import Tensor

from saadi import devices
from saadi.alignment import resume
from saadi.alignment.crew import ALONE, Crew, leading
from saadi.alignment.gate import (
    Gate,
    Reading,
    Verdict,
    class_changes,
    compare,
    metrics_of,
    reading_from_json,
    reading_to_json,
)
from saadi.alignment.limits import ACCURACY_GAP, MIN_HELD_FOR_GAP
from saadi.alignment.trainer import AlignmentConfig, PairTrainer, TrainingPair, TrainingSingle
from saadi.datasets.real import real_pairs
from saadi.downstream.scoring import selector_and_judge
from saadi.engines import checkpoints, lora, weights
from saadi.engines.base import Negative, StepCallback, TrainableEngine, no_callback
from saadi.engines.fitting import load_engine
from saadi.errors import AlignmentStoppedError, CancelledError, TooFewError
from saadi.jobs import JobContext, Outcome, Report
from saadi.masks import fit_image_to, fit_to, whole
from saadi.records import Adapter, Image, LabelMap, PairSet, Project, Task
from saadi.store import Store

GATE_FIRST_SEED = 2**40
"""Seeds of the gate's images: beyond those that people and pools can use."""
MEMORY_ADVICE = "align with --checkpointing, or with a smaller --batch-size"
SCALES = (0.75, 0.5, 0.25)
"""Strengths of the line search along what was learnt."""
STRIP = 6
"""Images in the before/after strip."""
LIVE = ("loss", "winner_error", "loser_error", "gradient_norm", "gradient_ratio")
"""Of the trainer's numbers, those that become curves."""
MIN_HELD = 8
"""Held-out real images below which training images take their place."""
MAX_REAL = 200
"""Real images used for distances."""
MAX_ANCHORS = 128
"""Real images held for the denoising term."""
TRIAL_PAIRS = 64
"""Gate images kept of both versions, from which the blind test of a reviewer takes twenty."""
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
    history: list[dict[str, Any]] = []
    best: Aligned | None = None
    saved = trainer.restore(folder) if folder is not None else None
    promising: Promising | None = None
    if saved is not None:
        promising = _promising_from(saved.get("promising"))
        history, reference = saved["history"], reading_from_json(saved["reference"])
        best = _best_from(saved["best"], reference, before, history)
    elif folder is not None and (folder / checkpoints.NAME).exists():
        report(0, config.num_steps, "the masks it is tested on have changed since; learning begins anew")
    test = _Test(trainer, gate, reference, before, drawing, report, show, history)
    accuracies: list[float] = saved["accuracies"] if saved else []
    stopped: str | None = saved["stopped"] if saved else None
    # A stop may fall between a step and the test that follows it.
    due: bool = saved.get("due", False) if saved else False

    def save() -> None:
        if folder is not None and keep is not None:
            state = {"history": history, "reference": reading_to_json(reference), "best": _best_to(best, keep),
                     "promising": {"file": keep(promising[0]), "step": promising[1]} if promising else None}  # fmt: skip
            trainer.save(folder, state | {"accuracies": accuracies, "stopped": stopped, "due": due})

    try:
        while (due or trainer.step < config.num_steps) and not stopped:
            if not due:
                clock = time.monotonic()
                numbers = trainer.train_step()
                if not np.isfinite(numbers["gradient_norm"]):
                    break  # without a checkpoint: these weights are of no use to anybody
                accuracies = [*accuracies[-49:], numbers["accuracy"]]
                at_end = trainer.step >= config.num_steps
                due = trainer.step % config.gate_every == 0 or at_end or trainer.alarm() is not None
                live = {name: numbers[name] for name in LIVE if name in numbers}
                live |= {"accuracy": float(np.mean(accuracies)), "step_s": time.monotonic() - clock}
                report(trainer.step, config.num_steps, "learning from the pairs", metrics=live)
                if not due:
                    continue
            # A checkpoint: new images on the fixed label maps and seeds, measured against the reference.
            with trainer.averaged():
                found, row = test.run(float(np.mean(accuracies)))
            due = False
            history.append(row)
            if found.is_better_than(best):
                best = found
            elif (gain := found.verdict.dice_gain[0]) > 0 and all(gain >= other["dice_gain"] for other in history[:-1]):
                promising = (found.state, found.step)
            if stopped := trainer.alarm() or _accuracy_gap(trainer, row):
                log.warning("alignment_stopped", step=trainer.step, reason=stopped)
                row["stopped"] = stopped
            save()
    except CancelledError:
        save()
        raise
    if (alarm := trainer.alarm()) and not stopped:
        log.warning("alignment_stopped", step=trainer.step, reason=alarm)
        report(trainer.step, config.num_steps, alarm, metrics={"not_a_number": 1.0})
    if config.scale_search == "always" or (config.scale_search == "rescue" and best is None):
        best = _best_strength(test, best, promising, parent=weights.read(parent) if parent else None,
                              train_accuracy=float(np.mean(accuracies or [0.0])))  # fmt: skip
    if best is None:
        reasons = "; ".join(history[-1]["reasons"]) if history else "no checkpoint was reached"
        raise AlignmentStoppedError(
            f"no checkpoint was better than the old model, which stays in use ({reasons}); "
            "collect more pairs or votes, or lower the learning rate"
        )
    return replace(best, before=before, history=history)


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


def training_pairs(store: Store, pair_set: PairSet, *, side: int) -> list[TrainingPair]:
    """Pairs with their pixels, from the blob store, scaled to the engine's side; a blob that several pairs share is held once."""
    groups = pair_groups(pair_set, store.project(pair_set.project_id).task)

    @cache
    def image(blob: str) -> Image:
        return fit_image_to(store.blobs.image(blob), side=side)

    @cache
    def label_map(blob: str) -> LabelMap:
        return fit_to(store.blobs.label_map(blob), size=(side, side))

    return [
        TrainingPair(
            label_map=label_map(pair.label_map_blob),
            chosen=image(pair.chosen_blob),
            rejected=image(pair.rejected_blob),
            weight=pair.weight,
            is_real=pair.source == "real",
            group=group,
        )
        for pair, group in zip(pair_set.pairs, groups, strict=True)
    ]


def pair_groups(pair_set: PairSet, task: Task) -> list[str]:
    """What falls on one side of the held-out split, per pair: the pairs of a label map; in classification, where all pairs of a
    class have the same one, those that share an image."""
    if task == "segmentation":
        return [pair.label_map_blob for pair in pair_set.pairs]
    leader: dict[str, str] = {}

    def find(blob: str) -> str:
        while (above := leader.setdefault(blob, blob)) != blob:
            blob = above
        return blob

    for pair in pair_set.pairs:
        leader[find(pair.chosen_blob)] = find(pair.rejected_blob)
    return [find(pair.chosen_blob) for pair in pair_set.pairs]


def training_singles(store: Store, pair_set: PairSet, *, side: int) -> list[TrainingSingle]:
    """Single images with their pixels, scaled to the engine's side."""
    task = store.project(pair_set.project_id).task
    return [
        TrainingSingle(
            label_map=fit_to(store.blobs.label_map(single.label_map_blob), size=(side, side)),
            image=fit_image_to(store.blobs.image(single.blob), side=side),
            is_liked=single.is_liked,
            weight=single.weight,
            group=single.blob if task == "classification" else single.label_map_blob,
        )
        for single in pair_set.singles
    ]


def anchors(store: Store, project: Project, *, side: int) -> list[tuple[Image, LabelMap]]:
    """Real training images with their label maps, at the engine's side, spread over the split."""
    return list(zip(*real_pairs(store, project, "train", limit=MAX_ANCHORS, side=side), strict=True))


def gate_label_maps(store: Store, project: Project, *, count: int, exclude: set[str]) -> list[tuple[str, bool]]:
    """Label maps that no pair uses: of the validation split, then unused ones of the training split, then mirrored ones.

    Returns:
        (blob, whether it is to be mirrored) each.

    Raises:
        TooFewError: The project has fewer than four label maps in all.
    """
    validation = [record.blob for record in store.label_maps(project.id, splits=["val"])]
    training = [record.blob for record in store.label_maps(project.id, splits=["train"])]
    unused = list(dict.fromkeys(blob for blob in [*validation, *training] if blob not in exclude))
    chosen = [(blob, False) for blob in unused[:count]]
    chosen += [(blob, True) for blob in dict.fromkeys([*unused, *training])][: count - len(chosen)]
    if len(chosen) < 4:
        raise TooFewError(f"{len(chosen)} label maps to check the new model on, 4 needed; import or draw {4 - len(chosen)} more")
    return chosen


def gate_classes(store: Store, project: Project, *, count: int) -> list[int]:
    """The classes on which a new version of a classification project is tested, on seeds of their own.

    Each class that real images show comes twice, then as often as the held-out real images (the training images, where there are
    few) show it, so that both sets are mixed alike when their distance is measured.

    Raises:
        TooFewError: No training image has a class.
    """
    shown = store.count_classes(project.id, splits=["train"])
    if not shown:
        raise TooFewError("no training image has a class to check the new model on; import images with their classes")
    held = store.count_classes(project.id, splits=["val"])
    like = held if sum(held.values()) >= MIN_HELD else shown
    shares = {project.class_names.index(name): like.get(name, 0) for name in shown if name in project.class_names}
    chosen = sorted(shares) * 2
    while len(chosen) < count:  # the highest averages, as seats are dealt out
        chosen.append(max(shares, key=lambda index: (shares[index] / (chosen.count(index) + 1), -index)))
    return chosen[: max(count, len(shares))]


def _turned(pixels: np.ndarray, is_mirrored: bool) -> np.ndarray:
    return np.ascontiguousarray(pixels[:, ::-1]) if is_mirrored else pixels


def _pictures(store: Store, project: Project, chosen: Sequence[tuple[str, bool]]) -> list[Image]:
    """The real images that label maps belong to, at the project's side."""
    blobs = {image.id: image.blob for image in store.images(project.id, splits=["train", "val"])}
    of = {record.blob: blobs[record.image_id] for record in store.label_maps(project.id, splits=["train", "val"])
          if record.image_id in blobs}  # fmt: skip
    return [_turned(fit_image_to(store.blobs.image(of[blob]), side=project.resolution), mirrored) for blob, mirrored in chosen]


def build_gate(store: Store, project: Project, *, count: int, exclude: set[str], with_pictures: bool = False) -> Gate:
    """The gate of a project: its selector and judge, unused label maps, held-out real images.

    Args:
        with_pictures: Also the real images of the label maps, for a generator that paints into pictures.
    """
    scorers = selector_and_judge(store, project)
    if scorers is None:
        raise TooFewError("this project has no selector and judge yet; run `train-scorer` first")
    side = project.resolution  # real images are compared at the size at which images are made
    training = real_pairs(store, project, "train", limit=MAX_REAL, side=side)[0]
    real = real_pairs(store, project, "val", limit=MAX_REAL, side=side)[0]
    scaled = {"training": training, "real": real if len(real) >= MIN_HELD else training}
    if project.task == "classification":
        label_maps = [whole(index, side=side) for index in gate_classes(store, project, count=count)]
        return Gate(label_maps=label_maps, selector=scorers[0], judge=scorers[1], num_classes=len(project.classes), **scaled)
    chosen = gate_label_maps(store, project, count=count, exclude=exclude)
    return Gate(
        label_maps=[_turned(store.blobs.label_map(blob), mirrored) for blob, mirrored in chosen],
        pictures=_pictures(store, project, chosen) if with_pictures else None,
        selector=scorers[0],
        judge=scorers[1],
        num_classes=len(project.classes),
        **scaled,
    )


@dataclass(frozen=True)
class _Learning:
    """What an order learns from, and how; the same in every process of a crew."""

    config: AlignmentConfig
    pairs: list[TrainingPair]
    singles: list[TrainingSingle]
    anchors: list[tuple[Image, LabelMap]]
    parent: Path | None
    parent_scale: float


def _learning(store: Store, order: dict[str, Any], engine: TrainableEngine) -> _Learning:
    project, pair_set = store.project(order["project_id"]), store.pair_set(order["pair_set_id"])
    parent = store.adapter(order["parent_id"]) if order["parent_id"] is not None else None
    found = _Learning(
        config=config_of(order),
        pairs=training_pairs(store, pair_set, side=engine.resolution),
        singles=training_singles(store, pair_set, side=engine.resolution),
        anchors=anchors(store, project, side=engine.resolution),
        parent=store.files.path(parent.file) if parent else None,
        parent_scale=parent.scale if parent else 1.0,
    )
    return found if order.get("negative") is None else _the_other_way_round(found)


def _the_other_way_round(learning: _Learning) -> _Learning:
    """Losers win, and nothing holds the model on real images: what is to be avoided is learnt (Diffusion-NPO)."""
    pairs = [replace(pair, chosen=pair.rejected, rejected=pair.chosen, is_real=False) for pair in learning.pairs]
    singles = [replace(single, is_liked=not single.is_liked) for single in learning.singles]
    return replace(learning, pairs=pairs, singles=singles, anchors=[], config=replace(learning.config, sft_weight=0.0))


def config_of(order: dict[str, Any]) -> AlignmentConfig:
    """The settings of an order, as they lie in its job; those of earlier versions lack some."""
    return AlignmentConfig(
        num_steps=order["steps"],
        batch_size=order["batch_size"],
        learning_rate=order["learning_rate"],
        beta=order["beta"],
        sft_weight=order["sft_weight"],
        gate_every=order["gate_every"],
        seed=order["seed"],
        loss=order.get("loss", "dpo"),
        sdpo_mu=order.get("sdpo_mu"),
        accumulation=order.get("accumulation", 1),
        ema_decay=order.get("ema_decay"),
        scale_search=order.get("scale_search", "rescue"),
        checkpointing=order.get("checkpointing", False),
    )


def trainer_of(store: Store, order: dict[str, Any], crew: Crew) -> PairTrainer:
    """The trainer of an order in a process that helps with it."""
    engine = load_engine(store, store.project(order["project_id"]), model_id=order["model_id"])
    learning = _learning(store, order, engine)
    return PairTrainer(engine, learning.pairs, learning.config, parent=learning.parent, parent_scale=learning.parent_scale,
                       anchors=learning.anchors, singles=learning.singles, crew=crew)  # fmt: skip


def run_job(context: JobContext) -> Outcome:
    """Job `align`: pairs to a candidate adapter, compared with the version in use."""
    devices.use_all_threads()
    store, order = context.store, context.params
    context.keeps_checkpoint = True  # "Continue" starts from it
    places = devices.accelerators(order.get("gpus", 1))
    resume.take_over(store, order.get("continues"), context.dir)
    project, pair_set = store.project(order["project_id"]), store.pair_set(order["pair_set_id"])
    parent = store.adapter(order["parent_id"]) if order["parent_id"] is not None else None
    engine = load_engine(store, project, model_id=order["model_id"])
    learnt = {pair.label_map_blob for pair in pair_set.pairs} | {single.label_map_blob for single in pair_set.singles}
    gate = build_gate(store, project, count=order["gate_masks"], exclude=learnt, with_pictures=engine.needs_picture)
    learning = _learning(store, order, engine)
    config = learning.config
    seeds = [GATE_FIRST_SEED + index for index in range(len(gate.label_maps))]

    label_maps = [store.blobs.put_label_map(label_map) for label_map in gate.label_maps[:TRIAL_PAIRS]]
    context.report(0, config.num_steps, "drawing the old model's images",
                   images={f"label map {index}": blob for index, blob in enumerate(label_maps[:STRIP], start=1)})  # fmt: skip

    def keep(state: dict[str, Tensor]) -> str:
        return str(store.files.path(store.files.put(weights.to_bytes(state))))

    drawing = None
    if order.get("negative") is not None:
        other = load_engine(store, project, model_id=order["model_id"])
        drawing = InGuidance(other, gate, seeds, guidance_scale=order["negative"], parent=learning.parent,
                             parent_scale=learning.parent_scale, folder=context.dir)  # fmt: skip
    command = [sys.executable, "-m", "saadi.alignment.crew_member", str(store.home.path), str(context.job.id)]
    try:
        with leading(command, places, context.dir) as crew, devices.memory_told(MEMORY_ADVICE):
            found = align(
                engine,
                learning.pairs,
                gate,
                config,
                context.report,
                seeds=seeds,
                anchors=learning.anchors,
                singles=learning.singles,
                folder=context.dir,
                parent=learning.parent,
                parent_scale=learning.parent_scale,
                keep=keep,
                show=store.blobs.put_image,
                crew=crew,
                drawing=drawing,
            )
    except AlignmentStoppedError:
        context.keeps_checkpoint = False  # it ran to its end; to go on would end the same way
        raise
    file = store.files.put(weights.to_bytes(found.state))
    # A resumed run has no pictures of its best checkpoint; they need an engine to which no adapter is attached.
    shown = gate.label_maps[:TRIAL_PAIRS]
    regions = gate.regions(engine)
    after = found.after or (drawing.by(found.state) if drawing else load_engine(
        store, project, model_id=order["model_id"]).generate(
        shown, seeds[: len(shown)], adapter=store.files.path(file), regions=regions[: len(shown)] if regions else None
    ))  # fmt: skip
    old = [store.blobs.put_image(image) for image in found.before[:TRIAL_PAIRS]]
    new = [store.blobs.put_image(image) for image in after[:TRIAL_PAIRS]]
    metrics = metrics_of(found.reading, found.reference, found.verdict, task=project.task) | {
        "step": found.step,
        "strength": found.scale,
        "classes": class_changes(found.reading, found.reference),
        "history": found.history,
        "num_pairs": len(pair_set.pairs),
        "num_singles": len(pair_set.singles),
        "pairs": pair_set.summary,
        "strip_before": old[:STRIP],
        "strip_after": new[:STRIP],
        "strip_label_maps": label_maps[:STRIP],
        "strip_trial_old": old,
        "strip_trial_new": new,
        "strip_trial_label_maps": label_maps,
    }
    settings = asdict(config) | {"pair_set": pair_set.sha256, "targets": list(lora.TARGETS)}
    if drawing is not None:
        settings["negative"] = drawing.guidance_scale

    def publish(store: Store) -> dict[str, Any]:
        adapter: Adapter = store.add_adapter(
            project.id,
            model_id=order["model_id"],
            parent_id=parent.id if parent else None,
            file=file,
            scale=parent.scale if parent else 1.0,
            config=settings,
            metrics=metrics,
            actor=context.job.created_by,
            job_id=context.job.id,
        )
        return {
            "adapter_id": adapter.id,
            "name": adapter.name,
            "win_rate": metrics["win_rate"],
            "dice_before": metrics["dice_before"],
            "dice_after": metrics["dice_after"],
            "verdict": metrics["verdict"],
        }

    return Outcome(
        f"a new version waits for acceptance: the judge prefers it in {found.verdict.win_rate:.0%} of the "
        f"{'test images' if project.task == 'classification' else 'masks'}", publish
    )  # fmt: skip
