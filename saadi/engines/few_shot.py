"""Adapt a generator to 5 to 50 images within minutes, and stop before it learns them by heart.

After MedDiff-FT (arXiv:2507.00377): the loss is weighted towards what the label map names, outlines are mixed so that none is
learnt to the pixel, images are mirrored, shifted and zoomed. What is not published there: a part of the patients is held out, and
the fit ends when their loss has clearly turned; a state whose images under new masks lie as near to training images as copies do
is not kept. Kept is the last of the others, or the base.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import structlog
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from saadi import quality
from saadi.datasets.real import real_groups
from saadi.engines import lora
from saadi.engines.base import SAMPLING_BATCH, TrainableEngine
from saadi.engines.compact import CompactEngine
from saadi.engines.fitting import FitConfig, Trainer, TrainingSet, draw_batch, mask_weights, published, run_steps
from saadi.errors import TooFewError
from saadi.jobs import JobContext, Outcome, Report, checkpointed
from saadi.masks import fit_to
from saadi.plausibility import RealImages
from saadi.poses import moved
from saadi.records import IGNORE, Image, LabelMap, Model

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


class _Held(NamedTuple):
    """Held-out images that are measured together."""

    clean: Tensor
    condition: Any
    weight: Tensor | None
    """(B, 1, h, w) towards what the label maps name; None = the engine weighs by what it paints."""
    noise: list[Tensor]
    """Of each of TIMES."""


class Watched(Protocol):
    """What a watch needs of a trainer: `saadi.engines.fitting.Trainer`, or that of Stable Diffusion, which keeps no average."""

    engine: Any
    parameters: dict[str, nn.Parameter]
    step: int


@dataclass
class Watch:
    """What is known of each state of a fit by images that it does not learn from; for every engine."""

    engine: TrainableEngine
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
        engine, generator = self.engine, torch.Generator().manual_seed(0)
        self._held = []
        for first in range(0, len(self.held[0]), SAMPLING_BATCH):  # large engines hold no more at a time
            images, label_maps = (part[first : first + SAMPLING_BATCH] for part in self.held)
            clean = engine.encode_images(images)
            noise = [torch.randn(clean.shape, generator=generator).to(clean.device) for _ in TIMES]
            weight = None if engine.needs_picture else self._weight(label_maps, clean)
            self._held.append(_Held(clean, engine.encode_label_maps(label_maps, images), weight, noise))
        draw = np.random.default_rng(0)
        self._asked = [moved(self.label_maps[index % len(self.label_maps)], draw) for index in range(NUM_LOOKS)]
        looks = np.stack([quality.look(image) for image in self.images])
        self._stick = RealImages.of({quality.LOOK: looks}, [{} for _ in self.images], patients=list(self.groups),
                                    is_training=[True] * len(self.images))  # fmt: skip
        self._restore()

    def _weight(self, label_maps: Sequence[LabelMap], like: Tensor) -> Tensor:
        """`mask_weights` in the grid of what is noised."""
        side = (self.engine.resolution, self.engine.resolution)
        scaled = torch.from_numpy(np.stack([fit_to(label_map, size=side) for label_map in label_maps]))
        scaled[scaled >= self.engine.architecture["num_classes"]] = IGNORE
        return F.adaptive_avg_pool2d(mask_weights(scaled).unsqueeze(1), (like.shape[2], like.shape[3])).to(like.device)

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Mean over the held-out images, weighted towards what their label maps name."""
        self.engine.denoiser.eval()
        found = []
        for held in self._held:
            extra = {} if held.weight is None else {"pixel_weight": held.weight}
            for time, noise in zip(TIMES, held.noise, strict=True):
                times = torch.full((len(held.clean),), time, device=held.clean.device)
                found.append(self.engine.errors(held.clean, held.condition, times, noise, **extra))
        return float(torch.cat(found).mean())

    def copies(self) -> float | None:
        """Share of images made under moved label maps that lie as near to a training image as copies do; None where too few
        patients are there to say what near is, and of parts that are painted into the training images themselves."""
        if self._stick is None or self.engine.needs_picture:
            return None
        made = self.engine.generate(self._asked, [LOOK_SEED + index for index in range(len(self._asked))])
        looks = np.stack([quality.look(image) for image in made])
        found = self._stick.judge({quality.LOOK: looks}, [{} for _ in made])
        return float(np.mean([one.verdict == "copy" for one in found]))

    def start(self) -> None:
        """Measure the base, before the first step."""
        if 0 not in self.checks:
            self.checks[0] = Check(self.held_out_loss(), self.copies())
            self.engine.weights_changed()  # a copy for sampling is as large as the network
            self._keep()

    def ends(self, trainer: Watched) -> Callable[[int], bool]:
        """Asked after each step."""
        return lambda step: step % CHECK_EVERY == 0 and self.look(trainer)

    def settle(self, trainer: Watched, before: dict[str, Tensor]) -> dict[str, Any]:
        """Put the state that was taken last into the engine, or what it was before; how it went.

        Returns:
            'base_loss', 'held_out_loss', 'best_step' (0 = the base was better and stays), 'copies' (None where they cannot be
            seen), 'num_held_out'.
        """
        if trainer.step not in self.checks:
            self.look(trainer)
        _fill(trainer, self.best or before)
        taken = self.checks[self.best_step]
        return {"base_loss": round(self.checks[0].loss, 5), "held_out_loss": round(taken.loss, 5), "best_step": self.best_step,
                "copies": None if taken.copies is None else round(taken.copies, 4), "num_held_out": len(self.held[0])}

    def look(self, trainer: Watched) -> bool:
        """Measure the moving average, where there is one; True = it is time to end."""
        with _average_in(trainer):
            found = Check(self.held_out_loss(), self.copies())
        # A fit that goes on from a checkpoint older than this watch meets steps again: until it has caught up nothing that was
        # measured ahead counts, and the state that was taken there stays.
        self.checks = {step: check for step, check in self.checks.items() if step < trainer.step or step == self.best_step}
        self.checks[trainer.step] = found
        is_taken = (trainer.step >= self.best_step and self._is_allowed(found) and found.loss < self.checks[0].loss
                    and found.loss <= (1 + TOLERANCE) * self.lowest)  # fmt: skip
        if is_taken:
            self.best, self.best_step = kept(getattr(trainer, "average", None) or trainer.parameters), trainer.step
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
        self.best = {} if NOTHING in found else found


def kept(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy in ordinary memory: a whole U-Net twice is more than a small GPU holds."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def watch_over(
    engine: TrainableEngine, images: Sequence[Image], label_maps: Sequence[LabelMap], groups: Sequence[str], *, seed: int,
    folder: Path | None,
) -> tuple[Watch, list[int]]:  # fmt: skip
    """Hold patients out; the watch, and the places of the images that are learnt from.

    Raises:
        TooFewError: Fewer than MIN_IMAGES.
    """
    held = hold_out(groups, seed=seed)
    learnt = [index for index in range(len(images)) if index not in held]
    return Watch(engine, [images[i] for i in learnt], [label_maps[i] for i in learnt],
                 ([images[i] for i in held], [label_maps[i] for i in held]), [groups[i] for i in learnt], folder), learnt


@contextmanager
def _average_in(trainer: Watched) -> Iterator[None]:
    """Inside, the engine has the moving average, where there is one."""
    average: dict[str, Tensor] | None = getattr(trainer, "average", None)
    if average is None:
        trainer.engine.weights_changed()
        try:
            yield
        finally:
            trainer.engine.weights_changed()
        return
    own = {name: parameter.detach().clone() for name, parameter in trainer.parameters.items()}
    _fill(trainer, average)
    try:
        yield
    finally:
        _fill(trainer, own)


@torch.no_grad()
def _fill(trainer: Watched, tensors: dict[str, Tensor]) -> None:
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
        What `run_steps` and `Watch.settle` return.

    Raises:
        TooFewError: Fewer than MIN_IMAGES.
    """
    watch, learnt = watch_over(engine, images, label_maps, groups, seed=config.seed, folder=folder)
    data = TrainingSet([images[i] for i in learnt], [label_maps[i] for i in learnt], engine=engine)
    watch.start()
    if rank is not None:
        lora.attach(engine.denoiser, rank=rank, seed=config.seed)
    trainer = Trainer(engine, config)
    before = kept(trainer.parameters)
    odds, by_class = data.rarity(), data.class_weights(config.class_weight_cap)

    def draw(step: int) -> Any:
        return draw_batch(data, engine, config, step=step, odds=odds, class_weights=by_class)

    metrics = run_steps(trainer, draw, config, report, folder=folder, ends=watch.ends(trainer))
    told = watch.settle(trainer, before)
    if rank is not None:
        lora.merged(engine.denoiser)
        engine.denoiser.requires_grad_(True)
    engine.denoiser.eval()
    engine.weights_changed()
    return metrics | told


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
    if not metrics["best_step"]:
        in_use = store.active_model(project.id, "engine")
        if in_use is None:  # the shipped weights, so that the project has a generator
            return published(context, engine, metrics, parent=None, message=f"{words(metrics)}, which is used as it is")
        return Outcome(f"{words(metrics)}; the generator in use stays", lambda store: {"model_id": in_use.id, **metrics})
    return published(context, engine, metrics, parent=parent, message=words(metrics))


def words(metrics: Mapping[str, Any]) -> str:
    """How a fit to few images went, in a sentence without its end."""
    blind = " (copies could not be looked for)" if metrics["copies"] is None else ""
    if not metrics["best_step"]:
        return f"no state was better on the {metrics['num_held_out']} images held out than the base{blind}"
    share = 1 - metrics["held_out_loss"] / metrics["base_loss"]
    return (f"adapted to {metrics['num_images']} images; error on {metrics['num_held_out']} held out {share:.0%} lower, state of "
            f"step {metrics['best_step']} of {metrics['steps']}{blind}")  # fmt: skip
