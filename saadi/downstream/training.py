"""Train selector and judge on a project's real images; nothing synthetic is ever seen here."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.losses import MaskedDiceLoss
from numpy.typing import NDArray
from torch import Tensor, nn

from saadi import devices
from saadi.datasets.real import real_groups, real_pairs
from saadi.downstream import models
from saadi.downstream.calibration import MAX_PIXELS, Calibration, Logits, Targets, calibrate
from saadi.downstream.classifier import Classifier, class_of
from saadi.downstream.folds import CrossFitted, CrossFittedClassifiers, assign_folds
from saadi.downstream.metrics import agreement, f1_per_class
from saadi.downstream.segmenter import SIZE_PX, Prediction, Segmenter
from saadi.engines import checkpoints, weights
from saadi.errors import CancelledError
from saadi.jobs import JobContext, Outcome, Report
from saadi.records import IGNORE, Image, LabelMap, ModelKind, Project
from saadi.store import Store

CHECKPOINT_EVERY_S = 60.0
FOLD_SEEDS = 10_000_019
"""Between the seeds of two folds."""


@dataclass(frozen=True)
class ScorerConfig:
    """Settings of one training."""

    num_steps: int = 600
    batch_size: int = 16
    learning_rate: float = 2e-3
    """AdamW, cosine to zero."""
    seed: int = 0
    augments: bool = True
    """Mirror, rotate, zoom and recolour; False only to measure what that is worth."""


def train(
    images: Sequence[Image],
    label_maps: Sequence[LabelMap],
    *,
    architecture: dict[str, Any],
    config: ScorerConfig,
    report: Report,
    first_step: int = 0,
    total: int | None = None,
    name: str = "segmenter",
    folder: Path | None = None,
    start: dict[str, Tensor] | None = None,
) -> Segmenter:
    """Train one segmenter with cross-entropy + Dice on mirrored, shifted, recoloured images.

    Args:
        start: Weights to go on from; None = random ones by the seed.
        first_step, total: Where this training lies in a longer job, for its progress.
        folder: Where checkpoints go and are resumed from; None = none.
    """
    torch.manual_seed(config.seed)
    segmenter = Segmenter(architecture, start)
    pixels, targets = segmenter.encode(images), segmenter.encode_label_maps(label_maps)
    # Over the whole batch: a class that one image lacks would otherwise cost the full loss whatever the network does.
    dice_loss = MaskedDiceLoss(softmax=True, to_onehot_y=True, include_background=False, batch=True)
    odds = rarity(targets.cpu(), num_classes=architecture["num_classes"])

    def loss_of(generator: torch.Generator) -> Tensor:
        chosen = torch.multinomial(odds, config.batch_size, replacement=True, generator=generator)
        batch, wanted = pixels[chosen], targets[chosen]
        if config.augments:
            batch, wanted = _augment(batch, wanted, generator=generator)
        with devices.autocast(segmenter.device):
            logits = segmenter.network(batch)
        known = (wanted != IGNORE).unsqueeze(1)
        loss = F.cross_entropy(logits.float(), wanted, ignore_index=IGNORE)
        return loss + dice_loss(logits.float(), wanted.where(known[:, 0], torch.zeros_like(wanted)).unsqueeze(1), mask=known)

    _learn(segmenter.network, loss_of, config, report, data=_digest(pixels, targets), first_step=first_step, total=total,
           name=name, folder=folder)  # fmt: skip
    return segmenter


def train_classifier(
    images: Sequence[Image],
    label_maps: Sequence[LabelMap],
    *,
    architecture: dict[str, Any],
    config: ScorerConfig,
    report: Report,
    first_step: int = 0,
    total: int | None = None,
    name: str = "classifier",
    folder: Path | None = None,
    start: dict[str, Tensor] | None = None,
) -> Classifier:
    """Train one classifier with cross-entropy on mirrored, shifted, recoloured images; rare classes come more often.

    Args:
        label_maps: One class each; see `saadi.downstream.classifier.class_of`.
        first_step, total, folder, start: As in `train`.
    """
    torch.manual_seed(config.seed)
    made = Classifier(architecture, start)
    pixels, labels = made.encode(images), torch.tensor([class_of(label_map) for label_map in label_maps])
    odds = rarity(labels[:, None], num_classes=architecture["num_classes"])
    unused = torch.zeros(config.batch_size, made.size_px, made.size_px, dtype=torch.long, device=made.device)

    def loss_of(generator: torch.Generator) -> Tensor:
        chosen = torch.multinomial(odds, config.batch_size, replacement=True, generator=generator)
        batch = pixels[chosen]
        if config.augments:
            batch, _ = _augment(batch, unused, generator=generator)
        with devices.autocast(made.device):
            logits = made.network(batch)
        return F.cross_entropy(logits.float(), labels[chosen].to(made.device))

    _learn(made.network, loss_of, config, report, data=_digest(pixels, labels), first_step=first_step, total=total,
           name=name, folder=folder)  # fmt: skip
    return made


def _learn(
    network: nn.Module,
    loss_of: Callable[[torch.Generator], Tensor],
    config: ScorerConfig,
    report: Report,
    *,
    data: str,
    first_step: int,
    total: int | None,
    name: str,
    folder: Path | None,
) -> None:
    """Run the steps. A batch depends on seed and step only, so that a resumed training equals an uninterrupted one."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=1e-4)
    settings = asdict(config) | {"data": data}  # a checkpoint of other images is not continued
    done = _restore(network, optimizer, settings, folder) if folder is not None else 0
    saved = time.monotonic()
    network.train()
    for step in range(done + 1, config.num_steps + 1):
        loss = loss_of(torch.Generator().manual_seed(config.seed * 1_000_003 + step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - 1) / config.num_steps))
        optimizer.step()
        metrics = {f"{name} loss": float(loss.detach())} if step % 10 == 0 else None
        try:
            report(first_step + step, total or config.num_steps, f"training the {name}", metrics=metrics)
        except CancelledError:
            if folder is not None:
                _save(network, optimizer, settings, folder, step=step)
            raise
        if folder is not None and (step == config.num_steps or time.monotonic() - saved > CHECKPOINT_EVERY_S):
            _save(network, optimizer, settings, folder, step=step)
            saved = time.monotonic()
    network.eval()


def _digest(*tensors: Tensor) -> str:
    return hashlib.sha256(b"".join(tensor.cpu().numpy().tobytes() for tensor in tensors)).hexdigest()


def _save(network: nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any], folder: Path, *, step: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints.save(
        folder,
        parameters=dict(network.named_parameters()),
        optimizer=optimizer,
        config=settings,
        state={"step": step},
        tensors=dict(network.named_buffers()),
    )


def _restore(network: nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any], folder: Path) -> int:
    """Continue from a checkpoint; returns the steps done."""
    parameters = dict(network.named_parameters())
    found = checkpoints.restore(folder, parameters=parameters, optimizer=optimizer, config=settings)
    if found is None:
        return 0
    state, buffers = found
    for name, buffer in network.named_buffers():
        buffer.copy_(buffers[name])
    return int(state["step"])


def rarity(targets: Tensor, *, num_classes: int, cap: float = 4.0) -> Tensor:
    """(N,) odds of drawing an image: one that holds a class of share s comes 1 / sqrt(s) times as often, at most `cap` times.

    Without this a class in 12 % of the images and 0.1 % of the pixels was not learnt at all (Dice 0.07 after 500 steps).
    """
    has = torch.stack([(targets == index).flatten(1).any(1) for index in range(num_classes)], 1).float()
    return (has / has.mean(0).clamp_min(1e-3)).amax(1).sqrt().clamp(1.0, cap)


def _augment(batch: Tensor, targets: Tensor, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror, rotate up to 15 degrees, zoom, and recolour: segmenters must not depend on one patient's light."""
    count = len(batch)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) * (high - low) + low

    angle, zoom = uniform(-0.26, 0.26, count), uniform(0.85, 1.2, count)
    flip = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.stack(
        [
            torch.stack([angle.cos() * flip / zoom, -angle.sin() / zoom, uniform(-0.15, 0.15, count)], 1),
            torch.stack([angle.sin() * flip / zoom, angle.cos() / zoom, uniform(-0.15, 0.15, count)], 1),
        ],
        1,
    ).to(batch.device)
    grid = F.affine_grid(theta, [count, 1, *batch.shape[2:]], align_corners=False)
    batch = F.grid_sample(batch, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    targets = (
        F.grid_sample(targets.unsqueeze(1).float(), grid, mode="nearest", padding_mode="reflection", align_corners=False)[:, 0]
        .round()
        .long()
    )
    gain = uniform(0.75, 1.25, count, 3, 1, 1) * uniform(0.8, 1.2, count, 1, 1, 1)
    batch = (batch + 1) * gain.to(batch.device) - 1 + uniform(-0.1, 0.1, count, 1, 1, 1).to(batch.device)
    noise = torch.randn(batch.shape, generator=generator).to(batch.device) * uniform(0, 0.06, count, 1, 1, 1).to(batch.device)
    return (batch + noise).clamp(-1, 1).contiguous(memory_format=torch.channels_last), targets


def evaluate(segmenter: Segmenter, images: Sequence[Image], label_maps: Sequence[LabelMap], project: Project) -> dict[str, Any]:
    """Mean Dice per class over real images (only images that hold or predict the class), and over all classes; and the confidence
    that nineteen of twenty of these images reach."""
    per_class: dict[str, list[float]] = {}
    predictions: list[Prediction] = []
    for image in images:
        predictions += segmenter.predict([image])
    for prediction, label_map in zip(predictions, label_maps, strict=True):
        for index, found in agreement(prediction.label_map, label_map, num_classes=len(project.classes)).items():
            per_class.setdefault(project.classes[index].name, []).append(found.dice)
    low = float(np.quantile([found.confidence for found in predictions], 0.05)) if predictions else None
    means = {name: round(float(np.mean(values)), 4) for name, values in per_class.items()}
    foreground = [value for name, value in means.items() if name != project.classes[0].name]
    return {
        "dice": round(float(np.mean(foreground)), 4) if foreground else None,
        "dice_per_class": means,
        "num_images": len(images),
        "low_confidence": None if low is None else round(low, 4),
    }


def calibrated(segmenter: Segmenter, images: Sequence[Image], label_maps: Sequence[LabelMap]) -> Calibration | None:
    """Set a segmenter's temperature by held-out images; None without any."""
    logits: list[Logits] = []
    targets: list[Targets] = []
    every = max(1, len(images) * segmenter.size_px**2 // MAX_PIXELS)  # thinned as they come, so that they fit into memory
    for image, target in zip(images, segmenter.encode_label_maps(label_maps) if images else (), strict=True):
        found = segmenter.logits([image])[0].flatten(1).T[::every].cpu().numpy()
        wanted = target.flatten()[::every].cpu().numpy()
        logits.append(found[wanted != IGNORE])
        targets.append(wanted[wanted != IGNORE])
    made = calibrate(np.concatenate(logits), np.concatenate(targets)) if images else None
    segmenter.temperature = made.temperature if made else 1.0
    return made


def evaluate_classifier(
    classifier: Classifier, images: Sequence[Image], label_maps: Sequence[LabelMap], project: Project
) -> dict[str, Any]:
    """Accuracy, F1 of each class that the images show, its mean (macro F1), and the confidence that nineteen of twenty reach."""
    if not images:
        return {"accuracy": None, "macro_f1": None, "f1_per_class": {}, "num_images": 0, "low_confidence": None}
    rows = np.concatenate([classifier.probabilities([image]) for image in images])  # one by one: frames may be large
    labels = [class_of(label_map) for label_map in label_maps]
    found = f1_per_class(rows.argmax(1).tolist(), labels)
    return {
        "accuracy": round(float((rows.argmax(1) == np.array(labels)).mean()), 4),
        "macro_f1": round(float(np.mean(list(found.values()))), 4),
        "f1_per_class": {project.classes[index].name: round(value, 4) for index, value in found.items()},
        "num_images": len(images),
        "low_confidence": round(float(np.quantile(rows.max(1), 0.05)), 4),
    }


def calibrated_classifier(
    classifier: Classifier, images: Sequence[Image], label_maps: Sequence[LabelMap]
) -> Calibration | None:
    """Set a classifier's temperature by images that it has not seen; None without any."""
    made = None
    if images:
        logits = np.concatenate([classifier.logits([image]).numpy() for image in images])
        made = calibrate(logits, np.array([class_of(label_map) for label_map in label_maps], np.int64))
    classifier.temperature = made.temperature if made else 1.0
    return made


def mean_of(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Evaluations of several selectors on the same images, averaged: what one of them reaches."""
    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return round(float(np.mean(known)), 4) if known else None

    found = dict(parts[0])
    for key, first in parts[0].items():
        if isinstance(first, dict):
            names = list(dict.fromkeys(name for part in parts for name in part[key]))
            found[key] = {name: mean([part[key].get(name) for part in parts]) for name in names}
        elif key != "num_images":
            found[key] = mean([part[key] for part in parts])
    return found


def steps_of(kind: ModelKind, *, steps: int, folds: int) -> int:
    """Steps of one network: a selector that sees (k - 1) / k of the images takes that share of them, as many looks at each image.
    With two folds the whole job costs what one selector and the judge cost."""
    return math.ceil(steps * (folds - 1) / folds) if kind == "selector" and folds > 1 else steps


def run_job(context: JobContext) -> Outcome:
    """Job `train_scorer`: cross-fitted selectors and a judge, two architectures, own seeds, evaluated on the validation split."""
    devices.use_all_threads()
    store, order = context.store, context.params
    project = store.project(order["project_id"])
    num_classes = len(project.classes)
    images, label_maps = real_pairs(store, project, "train", side=SIZE_PX)
    groups = real_groups(store, project, "train")
    held_images, held_maps = real_pairs(store, project, "val")
    is_classifier = project.task == "classification"
    held = _held(label_maps, num_classes)
    fold_of = assign_folds(groups, held, num_folds=order.get("folds", 1))
    if is_classifier and misses_a_class(groups, held, fold_of):
        fold_of = dict.fromkeys(fold_of, 0)
    folds = max(fold_of.values()) + 1
    lengths = {kind: steps_of(kind, steps=order["steps"], folds=folds) for kind in ("selector", "judge")}
    total, done = folds * lengths["selector"] + lengths["judge"], 0

    def trained(
        kind: ModelKind, fold: int | None, seed: int, name: str
    ) -> tuple[Segmenter | Classifier, Calibration | None, dict[str, Any]]:
        nonlocal done
        chosen = [index for index, group in enumerate(groups) if fold is None or fold_of[group] != fold]
        learn = train_classifier if is_classifier else train
        model = learn(
            [images[index] for index in chosen],
            [label_maps[index] for index in chosen],
            architecture=models.default_architecture(project.task, kind, num_classes=num_classes),  # type: ignore[arg-type]
            config=ScorerConfig(num_steps=lengths[kind], batch_size=order["batch_size"], seed=seed),
            report=context.report,
            first_step=done,
            total=total,
            name=name,
            folder=context.dir / name.replace(" ", "-"),
        )
        done += lengths[kind]
        if isinstance(model, Segmenter):
            return model, calibrated(model, held_images, held_maps), evaluate(model, held_images, held_maps, project)
        # An image is one number for its temperature, where it is 16,384 pixels for a segmenter's: the unseen fold helps.
        unseen = [index for index, group in enumerate(groups) if fold is not None and fold_of[group] == fold]
        made = calibrated_classifier(model, [*held_images, *(images[index] for index in unseen)],
                                     [*held_maps, *(label_maps[index] for index in unseen)])  # fmt: skip
        return model, made, evaluate_classifier(model, held_images, held_maps, project)

    seed = order["seed"] * 2
    if folds == 1:
        parts = [trained("selector", None, seed, "selector")]
    else:
        parts = [trained("selector", fold, seed + fold * FOLD_SEEDS, f"selector {fold + 1}") for fold in range(folds)]
    state = _state_of([part[0] for part in parts], fold_of if folds > 1 else {})
    judge, judged, judge_numbers = trained("judge", None, seed + 1, "judge")
    common = {"num_training_images": len(images), "steps": order["steps"]}
    made: list[tuple[ModelKind, dict[str, Any], str, dict[str, Any]]] = []
    own: dict[str, Any] = {"temperature": parts[0][0].temperature}
    if folds > 1:
        own = {"folds": folds, "temperatures": [part[0].temperature for part in parts], "fold_of": fold_of}
    sizes = [sum(fold_of[group] == fold for group in groups) for fold in range(folds)]
    for kind, architecture, tensors, numbers in (
        ("selector", own, state, {"val": mean_of([part[2] for part in parts]), "folds": sizes,
                                             "calibration": [_calibration(part[1]) for part in parts]}),
        ("judge", {"temperature": judge.temperature}, judge.network.state_dict(),
         {"val": judge_numbers, "calibration": [_calibration(judged)]}),
    ):  # fmt: skip
        file = store.files.put(weights.to_bytes(tensors, dtype=torch.float16))
        base = models.default_architecture(project.task, kind, num_classes=num_classes)  # type: ignore[arg-type]
        made.append((kind, base | architecture, file, common | numbers))  # type: ignore[arg-type]

    def publish(store: Store) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for kind, architecture, file, metrics in made:
            model = store.add_model(
                project.id, kind=kind, architecture=architecture, file=file, metrics=metrics, actor=context.job.created_by
            )
            result |= {f"{kind}_id": model.id, f"{kind}_metrics": metrics}
        return result

    what = "selector" if folds == 1 else f"{folds} selectors"
    return Outcome(f"{what} and judge trained on {len(images)} real images", publish)


def _state_of(folds: Sequence[Segmenter | Classifier], fold_of: dict[str, int]) -> dict[str, Tensor]:
    """All weights of the selectors, for one file."""
    if segmenters := [one for one in folds if isinstance(one, Segmenter)]:
        return CrossFitted(segmenters, fold_of).state()
    return CrossFittedClassifiers([one for one in folds if isinstance(one, Classifier)], fold_of).state()


def misses_a_class(groups: Sequence[str], held: NDArray[np.bool_], fold_of: dict[str, int]) -> bool:
    """Whether a selector would never see some class, because all patients who show it are in the fold that it must not see: its
    word on that class would be worth nothing."""
    folds = np.array([fold_of[group] for group in groups])
    shown = held.any(0)
    return any((shown & ~held[folds != fold].any(0)).any() for fold in np.unique(folds)) if len(set(folds)) > 1 else False


def _held(label_maps: Sequence[LabelMap], num_classes: int) -> NDArray[np.bool_]:
    """(N, num_classes) which classes each label map holds."""
    return np.array([np.isin(np.arange(num_classes), label_map) for label_map in label_maps])


def _calibration(made: Calibration | None) -> dict[str, float] | None:
    return {name: round(value, 4) for name, value in asdict(made).items()} if made else None
