"""Fit the compact engine to label maps and images: one recipe for the shipped weights and for a project's own images."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saadi import devices, quality
from saadi.datasets.real import real_pairs
from saadi.engines import checkpoints, lora, samplers, shipped, weights
from saadi.engines.appearance import Reference, appearances, styles
from saadi.engines.base import TrainableEngine
from saadi.engines.compact import NUM_EXTRAS, CompactEngine, Styled, default_architecture, one_hot, with_styles
from saadi.engines.loading import engine_from_file, forget_engines
from saadi.errors import CancelledError, WeightsError
from saadi.jobs import JobContext, Outcome, Report
from saadi.records import Image, LabelMap, Model, Project
from saadi.store import Store

CHECKPOINT_EVERY_S = 60.0
DEFAULT_MINUTES = 20.0


@dataclass(frozen=True)
class FitConfig:
    """Settings of one fit."""

    num_steps: int | None
    """None = run for `minutes` and decay the learning rate by time."""
    minutes: float = DEFAULT_MINUTES
    batch_size: int = 16
    learning_rate: float = 4e-4
    """Peak; 100 steps of warm-up, linear decay over the last 30 %."""
    ema_decay: float = 0.999
    augment_probability: float = 0.15
    """Chance of shift and zoom per image (Karras et al. 2022, non-leaking); mirroring is always 0.5."""
    max_shift: float = 0.12
    """Largest shift as a share of the side; zoom lies within 1 +- this."""
    condition_dropout: float = 0.1
    """Share of images whose label map is hidden, so that guidance works and images without masks can be learnt from."""
    class_weight_cap: float = 5.0
    """Pixels weigh 1 / sqrt(class frequency), at most this times the most common class (after CASDM, arXiv:2410.23962)."""
    mask_weight: float = 0.0
    """0 = pixels weigh by class alone; 1 = what a label map names weighs as much as all around it (ArSDM, arXiv:2309.01111)."""
    mix_probability: float = 0.0
    """Chance that an image's label map is mixed from slightly shifted ones, so that no outline is learnt to the pixel."""
    seed: int = 0
    sample_every: int = 200
    """Steps between pictures for the live strip; 0 = none."""


class TrainingSet:
    """Images and label maps of one size, held as uint8 in memory (a 256 px pair takes 0.26 MB)."""

    def __init__(self, images: Sequence[Image], label_maps: Sequence[LabelMap], *, engine: CompactEngine) -> None:
        """For an engine that knows references (`style_dim`) also what each class looks like in each image."""
        side = engine.resolution
        self.images = torch.empty(len(images), 3, side, side, dtype=torch.uint8)
        self.label_maps = torch.empty(len(images), side, side, dtype=torch.uint8)
        for index, (image, label_map) in enumerate(zip(images, label_maps, strict=True)):
            self.images[index] = ((engine.encode_images([image])[0].cpu() + 1) * 127.5).round().to(torch.uint8)
            hot = engine.encode_label_maps([label_map])[0].cpu()
            self.label_maps[index] = torch.where(hot.sum(0) > 0, hot.argmax(0), 255).to(torch.uint8)
        self.num_classes = engine.num_classes
        self.styles: Tensor | None = None
        if engine.denoiser.style_dim:
            own = [appearances(image, label_map, range(self.num_classes))
                   for image, label_map in zip(images, label_maps, strict=True)]  # fmt: skip
            tables = [styles([Reference(*one) for one in found.items()], num_classes=self.num_classes) for found in own]
            self.styles = torch.from_numpy(np.stack(tables))

    def __len__(self) -> int:
        return len(self.images)

    def class_weights(self, cap: float) -> Tensor:
        return class_weights(self.label_maps, cap)

    def rarity(self) -> Tensor:
        return rarity(self.label_maps, self.num_classes)


def class_weights(label_maps: Tensor, cap: float) -> Tensor:
    """(256,) weight per label value, mean 1 over all pixels; unused values get 1."""
    # One by one: bincount takes 8 bytes a pixel, 21 GB for 10,000 label maps of 512 px at once.
    counts = torch.zeros(256, dtype=torch.int64)
    for label_map in label_maps:
        counts += torch.bincount(label_map.flatten().long(), minlength=256)
    counts = counts.float()
    counts[255] = 0  # unknown pixels are no class
    present = counts > 0
    raw = torch.where(present, (counts.clamp_min(1) / counts.max()).rsqrt().clamp(max=cap), torch.ones(()))
    return raw / ((raw * counts).sum() / counts.sum())


def rarity(label_maps: Tensor, num_classes: int) -> Tensor:
    """(N,) sampling weight: images that hold rare classes come more often, at most 3 times."""
    has = torch.stack([(label_maps == index).flatten(1).any(1) for index in range(num_classes)], 1).float()
    return (has / has.mean(0).clamp_min(1e-3)).amax(1).sqrt().clamp(1.0, 3.0)


@dataclass
class Batch:
    clean: Tensor
    condition: Tensor
    styles: Tensor | None
    """What classes are to look like; None where the engine knows no references."""
    extras: Tensor
    pixel_weight: Tensor
    times: Tensor
    noise: Tensor


def draw_batch(
    data: TrainingSet, engine: CompactEngine, config: FitConfig, *, step: int, odds: Tensor, class_weights: Tensor
) -> Batch:
    """The batch of a step depends on seed and step only, so that a resumed fit equals an uninterrupted one."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    chosen = torch.multinomial(odds, config.batch_size, replacement=True, generator=generator)
    clean = data.images[chosen].float() / 127.5 - 1
    label_maps = data.label_maps[chosen]
    clean, label_maps, extras = _augment(clean, label_maps, config, generator=generator)
    extras[:, 4] = engine._extras(1)[0, 4].cpu()
    outlines = mixed(label_maps, config.mix_probability, num_classes=data.num_classes, generator=generator)
    hot = one_hot(outlines, num_classes=data.num_classes)
    kept = (torch.rand(len(hot), generator=generator) >= config.condition_dropout).view(-1, 1, 1, 1)
    pixel_weight = class_weights[label_maps.int()].unsqueeze(1)
    if config.mask_weight:
        pixel_weight = pixel_weight * (1 + config.mask_weight * (mask_weights(label_maps).unsqueeze(1) - 1))
    on = engine.device
    told = _told_styles(data.styles[chosen], generator=generator).to(on) if data.styles is not None else None
    return Batch(
        clean=clean.to(on),
        condition=(hot * kept).to(on),
        styles=told,
        extras=extras.to(on),
        pixel_weight=pixel_weight.to(on),
        times=engine.sample_times(len(clean), generator=generator),
        noise=torch.randn(clean.shape, generator=generator).to(on),
    )


STYLE_KEPT = 0.6
"""Chance that a class's own looks are told: without a reference the generator must know what to do, too."""
STYLE_NOISE = 0.15
"""Standard deviation added to what is told, so that no image is recognised by it."""


def _told_styles(tables: Tensor, *, generator: torch.Generator) -> Tensor:
    """(B, num_classes, NUM_VALUES + 1) with some classes left out and the others blurred."""
    kept = (torch.rand(tables.shape[:2], generator=generator) < STYLE_KEPT).float().unsqueeze(-1) * tables[..., -1:]
    blurred = tables[..., :-1] + STYLE_NOISE * torch.randn(tables[..., :-1].shape, generator=generator)
    return torch.cat([blurred * kept, kept], dim=-1)


MAX_MASK_WEIGHT = 8.0
MIXED = 3
"""Label maps that one is mixed from, itself among them."""
MAX_MIX_SHIFT = 0.03
"""Of the side, by which the others are shifted."""


def mask_weights(label_maps: Tensor) -> Tensor:
    """(B, H, W) weight per pixel, mean 1 in each image: 1 - r where a class is named and r elsewhere, r being the share of the
    image that is named (ArSDM, arXiv:2309.01111), so that small structures count as much as the rest. At most
    MAX_MASK_WEIGHT; 1 everywhere in an image that names nothing, or nothing else.

    Args:
        label_maps: (B, H, W) uint8; 0 and 255 name nothing.
    """
    named = ((label_maps != 0) & (label_maps != 255)).float()
    share = named.mean((1, 2), keepdim=True)
    raw = torch.where(named > 0, 1 - share, share)
    scaled = (raw / (2 * share * (1 - share)).clamp_min(1e-6)).clamp(max=MAX_MASK_WEIGHT)
    known = (share > 0) & (share < 1)
    return torch.where(known, scaled / scaled.mean((1, 2), keepdim=True).clamp_min(1e-6), torch.ones_like(scaled))


def mixed(label_maps: Tensor, probability: float, *, num_classes: int, generator: torch.Generator) -> Tensor:
    """Some of the label maps as weighted mixtures of themselves and slightly shifted ones; each pixel takes the class that weighs
    most, which for two classes is MedDiff-FT's threshold of 0.5."""
    if not probability:
        return label_maps
    count, side = len(label_maps), label_maps.shape[-1]
    chosen = torch.rand(count, generator=generator) < probability
    weights_of = -torch.rand(count, MIXED, generator=generator).clamp_min(1e-9).log()  # Dirichlet(1, ..., 1), unscaled
    reach = max(1, round(MAX_MIX_SHIFT * side))
    shifts = torch.randint(-reach, reach + 1, (count, MIXED, 2), generator=generator)
    out = label_maps.clone()
    for index in torch.nonzero(chosen).flatten().tolist():
        one = label_maps[index]
        votes = torch.zeros(num_classes, side, side)
        for place in range(MIXED):
            down, across = (0, 0) if place == 0 else (int(value) for value in shifts[index, place])
            votes += weights_of[index, place] * one_hot(_shifted(one, down, across)[None], num_classes=num_classes)[0]
        found = votes.argmax(0).to(torch.uint8)
        out[index] = torch.where(one == 255, one, found)
    return out


def _shifted(label_map: Tensor, down: int, across: int) -> Tensor:
    """Shifted by so many pixels; the border is repeated."""
    side = label_map.shape[-1]
    rows = (torch.arange(side) - down).clamp(0, side - 1)
    columns = (torch.arange(side) - across).clamp(0, side - 1)
    return label_map[rows][:, columns]


def _augment(
    clean: Tensor, label_maps: Tensor, config: FitConfig, *, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Mirror, shift and zoom image and label map together, and say so in the augmentation label."""
    count = len(clean)
    mirrored = torch.rand(count, generator=generator) < 0.5
    moved = (torch.rand(count, generator=generator) < config.augment_probability).float().unsqueeze(1)
    shift = (torch.rand(count, 2, generator=generator) * 2 - 1) * config.max_shift * moved
    log_zoom = (torch.rand(count, generator=generator) * 2 - 1) * config.max_shift * moved[:, 0]
    extras = torch.zeros(count, NUM_EXTRAS)
    extras[:, 0], extras[:, 1:3], extras[:, 3] = mirrored.float(), shift, log_zoom
    flip = 1.0 - 2.0 * mirrored.float()
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = flip / log_zoom.exp(), 1 / log_zoom.exp()
    theta[:, :, 2] = shift * 2
    grid = F.affine_grid(theta, [count, 1, *clean.shape[2:]], align_corners=False)
    # Reflection shows more of the same tissue; black borders would be learnt as anatomy.
    clean = F.grid_sample(clean, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    moved_maps = F.grid_sample(
        label_maps.unsqueeze(1).float(), grid, mode="nearest", padding_mode="reflection", align_corners=False
    )
    return clean, moved_maps[:, 0].round().to(torch.uint8), extras


class Averaged:
    """What a training with a moving average keeps in its checkpoint, and goes on from."""

    config: Any
    """A dataclass; a checkpoint of another one is no checkpoint."""
    parameters: dict[str, nn.Parameter]
    average: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    step: int
    seconds: float

    def save(self, folder: Path) -> None:
        """Write a checkpoint; a torn one can never be read."""
        checkpoints.save(
            folder,
            parameters=self.parameters,
            optimizer=self.optimizer,
            config=asdict(self.config),
            state={"step": self.step, "seconds": self.seconds},
            tensors=self.average,
        )

    def restore(self, folder: Path) -> bool:
        """Continue from a checkpoint of the same configuration, if there is one."""
        found = checkpoints.restore(folder, parameters=self.parameters, optimizer=self.optimizer, config=asdict(self.config))
        if found is None:
            return False
        state, average = found
        for name, tensor in average.items():
            self.average[name].copy_(tensor)
        self.step, self.seconds = state["step"], state["seconds"]
        return True


class Trainer(Averaged):
    """State of a fit: weights, their moving average, optimiser, and the step reached."""

    def __init__(self, engine: CompactEngine, config: FitConfig) -> None:
        self.engine = engine
        self.config = config
        # With an adapter attached only the adapter is trained.
        self.parameters = {name: parameter for name, parameter in engine.denoiser.named_parameters() if parameter.requires_grad}
        self.average = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True
        )
        self.step = 0
        self.seconds = 0.0

    def train_step(self, batch: Batch, *, progress: float) -> float:
        """One update; returns the loss. `progress` in 0..1 sets the learning rate's decay."""
        rate = self.config.learning_rate * min(1.0, (self.step + 1) / 100) * min(1.0, max(0.02, (1 - progress) / 0.3))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.engine.denoiser.train()
        condition = batch.condition if batch.styles is None else Styled(batch.condition, batch.styles)
        loss = self.engine.errors(
            batch.clean, condition, batch.times, batch.noise, extras=batch.extras, pixel_weight=batch.pixel_weight
        ).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(
            list(self.average.values()), [parameter.detach() for parameter in self.parameters.values()], 1 - decay
        )
        return float(loss.detach())

    def use_average(self) -> None:
        """Put the moving average into the engine, for good."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.average[name])
        self.engine.denoiser.eval()
        self.engine.weights_changed()

    def averaged_engine(self) -> CompactEngine:
        """A second engine with the moving average, for pictures while training goes on."""
        return CompactEngine(
            self.engine.architecture, {**self.engine.denoiser.state_dict(), **self.average}, device=self.engine.device
        )


def fit(
    engine: CompactEngine,
    data: TrainingSet,
    config: FitConfig,
    report: Report,
    *,
    folder: Path | None = None,
    on_strip: Callable[[CompactEngine, int], dict[str, str]] | None = None,
) -> dict[str, Any]:
    """Fit an engine in place; its weights are the moving average afterwards.

    Args:
        folder: Where checkpoints go and are resumed from; None = none.
        on_strip: Makes pictures of the present state: (engine, step) -> picture name -> blob; not called while an adapter is
            attached.

    Returns:
        steps, seconds, images_per_s, loss (mean of the last 50 steps).
    """
    trainer = Trainer(engine, config)
    odds, by_class = data.rarity(), data.class_weights(config.class_weight_cap)
    if lora.is_attached(engine.denoiser):
        on_strip = None  # a second engine for pictures could not take the adapter's tensors
    metrics = run_steps(
        trainer,
        lambda step: draw_batch(data, engine, config, step=step, odds=odds, class_weights=by_class),
        config,
        report,
        folder=folder,
        pictures=(lambda step: on_strip(trainer.averaged_engine(), step)) if on_strip else None,
    )
    trainer.use_average()
    return metrics


class Stepper(Protocol):
    """What trains an engine step by step and can be continued from its checkpoint."""

    step: int
    seconds: float
    """Spent in steps."""

    def train_step(self, batch: Any, *, progress: float) -> float: ...
    def save(self, folder: Path) -> None: ...
    def restore(self, folder: Path) -> bool: ...


class Budget(Protocol):
    """How long a fit goes on; see `FitConfig`."""

    @property
    def num_steps(self) -> int | None: ...
    @property
    def minutes(self) -> float: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def sample_every(self) -> int: ...


def run_steps(
    trainer: Stepper,
    draw: Callable[[int], Any],
    config: Budget,
    report: Report,
    *,
    folder: Path | None = None,
    pictures: Callable[[int], dict[str, str]] | None = None,
    ends: Callable[[int], bool] | None = None,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
) -> dict[str, Any]:
    """Train until the budget of steps or minutes is spent, with progress, pictures now and then, and checkpoints.

    Args:
        draw: The batch of a step.
        pictures: Of the present state: step -> picture name -> blob.
        ends: Asked after each step: is it enough already?

    Returns:
        steps, seconds, images_per_s, loss (mean of the last 50 steps).
    """
    if folder is not None:
        trainer.restore(folder)
    losses: list[float] = []
    saved = time.monotonic()
    while True:
        progress = trainer.step / config.num_steps if config.num_steps else trainer.seconds / (config.minutes * 60)
        if progress >= 1:
            break
        began = time.monotonic()
        loss = trainer.train_step(draw(trainer.step), progress=progress)
        trainer.seconds += time.monotonic() - began
        losses = [*losses[-49:], loss]
        total = config.num_steps or max(trainer.step + 1, round(trainer.step / max(progress, 1e-6)))
        rate = trainer.step * config.batch_size / trainer.seconds
        metrics = {"loss": float(np.mean(losses[-10:])), "images_per_s": rate} if trainer.step % 10 == 0 else None
        images = (
            pictures(trainer.step) if pictures and config.sample_every and trainer.step % config.sample_every == 0 else None
        )
        try:
            report(trainer.step, total, f"fitting, {rate:.0f} images/s", metrics=metrics, images=images)
        except CancelledError:
            if folder is not None:
                trainer.save(folder)
            raise
        if folder is not None and time.monotonic() - saved > checkpoint_every_s:
            trainer.save(folder)
            saved = time.monotonic()
        if ends is not None and ends(trainer.step):
            break
    return {
        "steps": trainer.step,
        "seconds": round(trainer.seconds, 1),
        "loss": round(float(np.mean(losses)) if losses else 0.0, 5),
        "images_per_s": round(trainer.step * config.batch_size / max(trainer.seconds, 1e-9), 1),
    }


def borrow_shipped(engine: CompactEngine) -> bool:
    """Start a new project's engine from the shipped weights: all but the input channels of classes it does not share.

    Tissue, light and noise are learnt already; what each class looks like is not. Returns False where the shapes differ.
    """
    borrowed, own = weights.read(shipped.file("engine")), engine.denoiser.state_dict()
    name, pixels = "unet.conv_in.weight", 3 * engine.denoiser.patch**2
    stem = own[name].clone()
    if borrowed[name].shape[0] != stem.shape[0]:
        return False
    # pixel_unshuffle keeps the order of channels: first those of the noisy image, then those of the one-hot label map.
    stem[:, :pixels] = borrowed[name][:, :pixels]
    borrowed[name] = stem
    if (
        any(borrowed[key].shape != tensor.shape for key, tensor in own.items() if key in borrowed)
        or borrowed.keys() != own.keys()
    ):
        return False
    weights.load_state(engine.denoiser, borrowed)
    engine.weights_changed()
    return True


SWEEP_STEPS = (6, 8, 10, 15, 20)
SWEEP_IMAGES = 32
MIN_FIT_FOR_SWEEP_S = 120.0
"""A shorter fit changes little, and the sweep (118 network steps for 32 images) would take longer than it."""
MAX_SWEEP_REAL = 200
MIN_SWEEP_REAL = 32


def sweep_samplers(
    engine: CompactEngine, label_maps: Sequence[LabelMap], real: Sequence[Image], report: Report
) -> dict[str, Any]:
    """Find sampler and number of steps for these weights, and store them in the engine's architecture.

    The cheapest setting whose appearance distance to real images is within 10 % (and a small slack) of the best one wins: in
    one trial swapping the sampler moved the distance more than any alignment did (docs/design.md).

    Returns:
        'sampler', 'num_inference_steps', and 'sweep': setting -> distance.
    """
    raw = quality.appearance(real)
    reference = quality.standardised(raw, raw)
    distances: dict[tuple[int, str], float] = {}
    settings = [(steps, name) for steps in SWEEP_STEPS for name in samplers.SAMPLERS]
    for position, (steps, name) in enumerate(settings):
        engine.architecture["sampler"] = {"name": name, "num_inference_steps": steps}
        images = engine.generate(label_maps, list(range(len(label_maps))))
        distances[steps, name] = quality.kernel_distance(quality.standardised(quality.appearance(images), raw), reference)
        report(position + 1, len(settings), f"trying samplers: {name}, {steps} steps")
    best = min(distances.values())
    steps, name = min(key for key, value in distances.items() if value <= best + 0.1 * abs(best) + 0.05)
    engine.architecture["sampler"] = {"name": name, "num_inference_steps": steps}
    return {
        "sampler": name,
        "num_inference_steps": steps,
        "sweep": {f"{key[1]}-{key[0]}": round(value, 4) for key, value in distances.items()},
    }


def load_engine(store: Store, project: Project, *, model_id: int | None = None) -> TrainableEngine:
    """The project's active generator (or another version of it), to be trained or measured."""
    model = store.model(model_id) if model_id is not None else store.active_model(project.id, "engine")
    if model is None:
        raise WeightsError(f"project {project.name} has no generator yet; run `fit` first")
    if model.architecture.get("engine") == "stable-diffusion":
        forget_engines()  # twice the same large weights would fill an accelerator
    return engine_from_file(model.architecture, store.files.path(model.file))


def run_job(context: JobContext) -> Outcome:
    """Job `fit`: fit or fine-tune an engine to a project's own training images."""
    devices.use_all_threads()
    if context.params.get("engine") == "stable-diffusion":
        from saadi.engines import stable_diffusion_fitting

        forget_engines()
        return stable_diffusion_fitting.run_job(context)
    store, order = context.store, context.params
    project = store.project(order["project_id"])
    parent = None if order["from_scratch"] else store.active_model(project.id, "engine")
    if parent is not None and (parent.architecture["num_classes"] != len(project.classes)
                               or parent.architecture.get("engine", "compact") != "compact"):  # fmt: skip
        parent = None
    if parent is not None:
        state = weights.read(store.files.path(parent.file))
        engine = CompactEngine(parent.architecture | {"resolution": project.resolution}, state)
    else:
        architecture = default_architecture(num_classes=len(project.classes), resolution=project.resolution)
        torch.manual_seed(order["seed"])
        engine = CompactEngine(architecture)
        if not order["from_scratch"]:
            borrow_shipped(engine)
    if order.get("references") and not engine.denoiser.style_dim:
        engine = CompactEngine(*with_styles(engine.architecture, engine.denoiser.state_dict()))
    images, label_maps = real_pairs(store, project, "train", side=engine.resolution)
    if order.get("few"):
        from saadi.engines import few_shot

        return few_shot.run_job(context, engine, images, label_maps, parent=parent)
    data = TrainingSet(images, label_maps, engine=engine)
    config = FitConfig(
        num_steps=order["steps"],
        minutes=order["minutes"] or DEFAULT_MINUTES,
        batch_size=order["batch_size"] or FitConfig.batch_size,
        learning_rate=order["learning_rate"] or FitConfig.learning_rate,
        seed=order["seed"],
    )
    strip = label_maps[:4]

    def pictures(present: CompactEngine, step: int) -> dict[str, str]:
        made = present.generate(strip, list(range(len(strip))), num_inference_steps=6)
        return {f"sample {index}": store.blobs.put_image(image) for index, image in enumerate(made)}

    def sweeping(step: int, total: int, message: str, *, metrics: Any = None, images: Any = None) -> None:
        context.report(fitted, fitted, f"{message} ({step} of {total})")

    metrics = fit(engine, data, config, context.report, folder=context.dir, on_strip=pictures)
    fitted = metrics["steps"]
    metrics |= {"num_images": len(images)}
    if metrics["seconds"] >= MIN_FIT_FOR_SWEEP_S:
        # Patients that the fit has not seen, where the project has them: memorised images would flatter every setting.
        held = real_pairs(store, project, "val", limit=MAX_SWEEP_REAL, side=engine.resolution)
        real, asked = held if len(held[0]) >= MIN_SWEEP_REAL else (images[:MAX_SWEEP_REAL], label_maps)
        metrics |= sweep_samplers(engine, asked[:SWEEP_IMAGES], real, sweeping)
    return published(context, engine, metrics, parent=parent, message=f"fitted on {len(images)} images, {metrics['steps']} steps")


def published(
    context: JobContext, engine: CompactEngine, metrics: dict[str, Any], *, parent: Model | None, message: str
) -> Outcome:
    """The engine as the project's next generator."""
    file = context.store.files.put(weights.to_bytes(engine.denoiser.state_dict(), dtype=torch.float16))

    def publish(store: Store) -> dict[str, Any]:
        model = store.add_model(
            context.params["project_id"],
            kind="engine",
            architecture=engine.architecture,
            file=file,
            metrics=metrics,
            actor=context.job.created_by,
            parent_id=parent.id if parent else None,
            job_id=context.job.id,
        )
        return {"model_id": model.id, **metrics}

    return Outcome(message, publish)
