"""Adapt a generator to 5 to 50 images within minutes, and stop before it learns them by heart.

After MedDiff-FT (arXiv:2507.00377): the loss is weighted towards what the label map names, outlines are mixed so that none is
learnt to the pixel, images are mirrored, shifted and zoomed. What is not published there: a part of the patients is held out, and
the fit ends when their loss has clearly turned; a state whose images under new masks lie as near to training images as copies do
is not kept. Kept is the last of the others, or the base.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import structlog
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from saadi import quality
from saadi.datasets.real import real_groups
from saadi.engines import lora
from saadi.engines.compact import CompactEngine, one_hot
from saadi.engines.fitting import FitConfig, Trainer, TrainingSet, draw_batch, mask_weights, published, run_steps
from saadi.errors import TooFewError
from saadi.jobs import JobContext, Outcome, Report, checkpointed
from saadi.plausibility import RealImages
from saadi.poses import moved
from saadi.records import Image, LabelMap, Model

MIN_IMAGES = 5
MAX_HELD = 32
MINUTES = 6.0
HELD_SHARE = 0.2
"""Of the patients, at least one; with one patient alone, of the images."""
CHECK_EVERY = 50
TOLERANCE = 0.1
"""A state is taken while its held-out loss is at most so much above the lowest so far: segmenters learn more from images of later
states, long after that loss has begun to rise (docs/evidence, "Few images")."""
PATIENCE = 4
"""Checks without a state that is taken after which the fit ends."""
NUM_LOOKS = 16
"""Images made at each check to see whether they are copies."""
MAX_COPIES = 0.125
TIMES = (0.15, 0.35, 0.55, 0.8)
"""Noise levels at which held-out images are measured, each with noise of its own."""
LOOK_SEED = 2**42
WATCH, NOTHING = "watch.safetensors", "nothing"
log = structlog.get_logger()


def config(*, num_steps: int | None, minutes: float = MINUTES, seed: int = 0, rank: int | None = None) -> FitConfig:
    """More augmentation and a shorter average than a fit to hundreds of images.

    Args:
        rank: Of a LoRA adapter, which takes larger steps; None = all weights.
    """
    return FitConfig(num_steps=num_steps, minutes=minutes, learning_rate=4e-4 if rank is None else 1e-3,
                     ema_decay=0.99, augment_probability=0.6, mask_weight=0.5, mix_probability=0.5, seed=seed)  # fmt: skip


def hold_out(groups: Sequence[str], *, seed: int) -> list[int]:
    """Images of a fifth of the patients, at least one; of the images where all are of one patient.

    Raises:
        TooFewError: Fewer than MIN_IMAGES.
    """
    if len(groups) < MIN_IMAGES:
        has = f"{len(groups)} image{'' if len(groups) == 1 else 's'}"
        raise TooFewError(f"{has} with a label map, {MIN_IMAGES} needed to adapt a generator and still see whether it learns "
                          f"them by heart; import or draw {MIN_IMAGES - len(groups)} more")  # fmt: skip
    draw = np.random.default_rng(seed)
    wanted = min(MAX_HELD, max(1, round(HELD_SHARE * len(groups))))
    size = Counter(groups)
    if len(size) == 1:
        return sorted(draw.permutation(len(groups))[:wanted].tolist())
    chosen: set[str] = set()
    for index in draw.permutation(len(size)):
        patient = sorted(size)[int(index)]
        if sum(size[one] for one in chosen) + size[patient] <= wanted:
            chosen.add(patient)
    chosen = chosen or {min(sorted(size), key=lambda patient: size[patient])}  # all have more than a fifth: the smallest
    return [index for index, group in enumerate(groups) if group in chosen][:MAX_HELD]


class Check(NamedTuple):
    """What was measured of one state."""

    loss: float
    """Of the held-out images."""
    copies: float | None
    """Share of images made that are nearer to one that is learnt from than copies are; None = too few patients to say."""


@dataclass
class Watch:
    """What is known of each state of a fit by images that it does not learn from."""

    engine: CompactEngine
    images: Sequence[Image]
    """That are learnt from; those of `held` are not."""
    label_maps: Sequence[LabelMap]
    held: tuple[Sequence[Image], Sequence[LabelMap]]
    groups: Sequence[str]
    folder: Path | None = None
    checks: dict[int, Check] = field(default_factory=dict)
    """By step; 0 = the base."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """The last state that was taken; empty = the base."""
    best_step: int = 0

    def __post_init__(self) -> None:
        on = self.engine.device
        clean = self.engine.encode_images(self.held[0])
        label_maps = torch.stack([one for one in self._indices(self.held[1])])
        self._clean, self._condition = clean, one_hot(label_maps, num_classes=self.engine.num_classes).to(on)
        self._weight = mask_weights(label_maps).unsqueeze(1).to(on)
        generator = torch.Generator().manual_seed(0)
        self._noise = [torch.randn(clean.shape, generator=generator).to(on) for _ in TIMES]
        draw = np.random.default_rng(0)
        self._asked = [moved(self.label_maps[index % len(self.label_maps)], draw) for index in range(NUM_LOOKS)]
        looks = np.stack([quality.look(image) for image in self.images])
        self._stick = RealImages.of({quality.LOOK: looks}, [{} for _ in self.images], patients=list(self.groups),
                                    is_training=[True] * len(self.images))  # fmt: skip
        self._restore()

    def _indices(self, label_maps: Sequence[LabelMap]) -> Iterator[Tensor]:
        for hot in self.engine.encode_label_maps(label_maps).cpu():
            yield torch.where(hot.sum(0) > 0, hot.argmax(0), 255).to(torch.uint8)

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Mean over the held-out images, weighted towards what their label maps name."""
        self.engine.denoiser.eval()
        found = []
        for time, noise in zip(TIMES, self._noise, strict=True):
            times = torch.full((len(self._clean),), time, device=self.engine.device)
            found.append(self.engine.errors(self._clean, self._condition, times, noise, pixel_weight=self._weight).mean())
        return float(torch.stack(found).mean())

    def copies(self) -> float | None:
        """Share of images made under moved label maps that lie as near to a training image as copies do; None where too few
        patients are there to say what near is."""
        if self._stick is None:
            return None
        made = self.engine.generate(self._asked, [LOOK_SEED + index for index in range(len(self._asked))])
        looks = np.stack([quality.look(image) for image in made])
        found = self._stick.judge({quality.LOOK: looks}, [{} for _ in made])
        return float(np.mean([one.verdict == "copy" for one in found]))

    def start(self) -> None:
        """Measure the base, before the first step."""
        if 0 not in self.checks:
            self.checks[0] = Check(self.held_out_loss(), self.copies())
            self._keep()

    def look(self, trainer: Trainer) -> bool:
        """Measure the moving average; True = it is time to end."""
        with _average_in(trainer):
            found = Check(self.held_out_loss(), self.copies())
        self.checks[trainer.step] = found  # a fit that goes on after it was stopped may meet a step again
        is_taken = self._is_allowed(found) and found.loss <= (1 + TOLERANCE) * self.lowest and found.loss < self.checks[0].loss
        if is_taken:
            self.best, self.best_step = {name: tensor.clone() for name, tensor in trainer.average.items()}, trainer.step
        log.info("few_shot_check", step=trainer.step, loss=round(found.loss, 5), copies=found.copies, is_taken=is_taken)
        self._keep()
        return sum(step > self.best_step for step in self.checks) >= PATIENCE

    def _is_allowed(self, check: Check) -> bool:
        """It paints few copies, or no more than the base."""
        return (check.copies or 0.0) <= max(MAX_COPIES, self.checks[0].copies or 0.0)

    @property
    def lowest(self) -> float:
        """Held-out loss of the states so far that paint no copies."""
        return min(check.loss for check in self.checks.values() if self._is_allowed(check))

    def _keep(self) -> None:
        if self.folder is None:
            return
        kept = {name: tensor.detach().cpu().contiguous() for name, tensor in self.best.items()}
        told = {"checks": json.dumps(list(self.checks.items())), "best_step": str(self.best_step)}
        with checkpointed(self.folder, WATCH) as path:
            save_file(kept or {NOTHING: torch.zeros(1)}, path, metadata=told)

    def _restore(self) -> None:
        if self.folder is None or not (path := self.folder / WATCH).exists():
            return
        with safe_open(path, framework="pt") as opened:
            told = opened.metadata()
        self.checks = {int(step): Check(*check) for step, check in json.loads(told["checks"])}
        self.best_step = int(told["best_step"])
        found = load_file(path)
        self.best = {} if NOTHING in found else {name: tensor.to(self.engine.device) for name, tensor in found.items()}


@contextmanager
def _average_in(trainer: Trainer) -> Iterator[None]:
    """Inside, the engine has the moving average."""
    own = {name: parameter.detach().clone() for name, parameter in trainer.parameters.items()}
    _fill(trainer, trainer.average)
    try:
        yield
    finally:
        _fill(trainer, own)


@torch.no_grad()
def _fill(trainer: Trainer, tensors: dict[str, Tensor]) -> None:
    for name, parameter in trainer.parameters.items():
        parameter.copy_(tensors[name])
    trainer.engine.weights_changed()


def fit_few(
    engine: CompactEngine,
    images: Sequence[Image],
    label_maps: Sequence[LabelMap],
    groups: Sequence[str],
    config: FitConfig,
    report: Report,
    *,
    folder: Path | None = None,
    rank: int | None = None,
) -> dict[str, Any]:
    """Adapt an engine in place.

    Args:
        groups: Patient of each image.
        rank: Of a LoRA adapter, which is merged at the end; None = all weights.

    Returns:
        What `run_steps` returns, and 'base_loss', 'held_out_loss', 'best_step' (0 = the base was better and stays), 'copies',
        'num_held_out' ('copies' is None where too few patients are there to say).

    Raises:
        TooFewError: Fewer than MIN_IMAGES.
    """
    held = set(hold_out(groups, seed=config.seed))
    learnt = [index for index in range(len(images)) if index not in held]
    data = TrainingSet([images[i] for i in learnt], [label_maps[i] for i in learnt], engine=engine)
    watch = Watch(engine, [images[i] for i in learnt], [label_maps[i] for i in learnt],
                  ([images[i] for i in sorted(held)], [label_maps[i] for i in sorted(held)]), [groups[i] for i in learnt],
                  folder)  # fmt: skip
    watch.start()
    if rank is not None:
        lora.attach(engine.denoiser, rank=rank, seed=config.seed)
    trainer = Trainer(engine, config)
    before = {name: parameter.detach().clone() for name, parameter in trainer.parameters.items()}
    odds, by_class = data.rarity(), data.class_weights(config.class_weight_cap)

    def draw(step: int) -> Any:
        return draw_batch(data, engine, config, step=step, odds=odds, class_weights=by_class)

    metrics = run_steps(trainer, draw, config, report, folder=folder,
                        ends=lambda step: step % CHECK_EVERY == 0 and watch.look(trainer))  # fmt: skip
    if trainer.step % CHECK_EVERY:
        watch.look(trainer)
    _fill(trainer, watch.best or before)
    if rank is not None:
        lora.merged(engine.denoiser)
        engine.denoiser.requires_grad_(True)
    engine.denoiser.eval()
    engine.weights_changed()
    best = watch.checks[watch.best_step]
    return metrics | {"base_loss": round(watch.checks[0].loss, 5), "held_out_loss": round(best.loss, 5),
                      "best_step": watch.best_step, "num_held_out": len(held),
                      "copies": None if best.copies is None else round(best.copies, 4)}  # fmt: skip


def run_job(
    context: JobContext, engine: CompactEngine, images: Sequence[Image], label_maps: Sequence[LabelMap], *, parent: Model | None
) -> Outcome:
    """The rest of the job `fit` where few images are to be enough."""
    store, order = context.store, context.params
    project = store.project(order["project_id"])
    groups = real_groups(store, project, "train")
    settings = config(num_steps=order["steps"], minutes=order["minutes"] or MINUTES, seed=order["seed"], rank=order["lora_rank"])
    settings = replace(settings, **{name: order[name] for name in ("batch_size", "learning_rate") if order[name] is not None})
    metrics = fit_few(engine, images, label_maps, groups, settings, context.report, folder=context.dir, rank=order["lora_rank"])
    metrics |= {"num_images": len(images)}
    blind = "; too few patients to see whether images are copies" if metrics["copies"] is None else ""
    if not metrics["best_step"]:
        told = f"no state was better on the {metrics['num_held_out']} images held out than the base"
        in_use = store.active_model(project.id, "engine")
        if in_use is None:  # the shipped weights, so that the project has a generator
            return published(context, engine, metrics, parent=None, message=f"{told}, which is used as it is{blind}")
        return Outcome(f"{told}; the generator in use stays{blind}", lambda store: {"model_id": in_use.id, **metrics})
    share = 1 - metrics["held_out_loss"] / metrics["base_loss"]
    return published(context, engine, metrics, parent=parent,
                     message=f"adapted to {len(images)} images; error on {metrics['num_held_out']} held out {share:.0%} lower, "
                             f"state of step {metrics['best_step']} of {metrics['steps']}{blind}")  # fmt: skip
