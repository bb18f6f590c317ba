"""Fit Stable Diffusion to a project's own images: a LoRA adapter or the whole U-Net, and in mode 'controlnet' a ControlNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saadi import devices
from saadi.datasets.real import real_groups, real_pairs
from saadi.engines import checkpoints, few_shot, lora, weights
from saadi.engines import stable_diffusion_parts as parts
from saadi.engines.fitting import CHECKPOINT_EVERY_S, DEFAULT_MINUTES, class_weights, mixed, rarity, run_steps
from saadi.engines.regions import named_region
from saadi.engines.stable_diffusion import CONTROLNET, LORA, UNET, StableDiffusionEngine
from saadi.engines.stable_diffusion_parts import Condition
from saadi.errors import WeightsError
from saadi.jobs import JobContext, Outcome, Report
from saadi.masks import fit_image_to, fit_to
from saadi.orders import PROMPT, FitOrder
from saadi.records import IGNORE, Image, LabelMap, Model
from saadi.store import Store

LORA_RATE, CONTROLNET_RATE, UNET_RATE = 1e-4, 1e-5, 3e-6
"""Peak learning rates: diffusers' LoRA script, the ControlNet paper's, MedDiff-FT's of the whole U-Net (arXiv:2507.00377)."""
SAMPLER = {"name": "dpm_solver_2m", "num_inference_steps": 25, "guidance_scale": 5.0}
"""20 steps are 'almost converged' (Lu et al. 2022); guidance at the lower end of what is usual with Stable Diffusion 1.5."""
STRIP_STEPS = 8
MIX_FEW = 0.5
"""Chance of mixed outlines with few images, as in the compact engine."""
WHOLE_CHECKPOINT_EVERY_S = 900.0
"""A whole U-Net with its optimiser is 10 GB, a ControlNet 4 GB."""


@dataclass(frozen=True)
class FitConfig:
    """Settings of one fit."""

    num_steps: int | None
    """None = run for `minutes` and decay the learning rate by time."""
    minutes: float = DEFAULT_MINUTES
    batch_size: int = 4
    learning_rate: float | None = None
    """None = LORA_RATE, CONTROLNET_RATE and UNET_RATE; 100 steps of warm-up, linear decay over the last 30 %."""
    lora_rank: int | None = 16
    """None = the whole U-Net is trained."""
    text_dropout: float = 0.1
    """Share of images whose prompt is left out, so that guidance works."""
    mix_probability: float = 0.0
    """Chance that an image's label map is mixed from slightly shifted ones, so that no outline is learnt to the pixel."""
    one_class: float = 0.5
    """Inpainting: share of images of which only one class is painted, so that parts can be asked for, too."""
    class_weight_cap: float = 5.0
    """ControlNet: as in the compact engine; thin structures are lost without (methods: weighted Dice 0 for them)."""
    seed: int = 0
    sample_every: int = 200
    """Steps between pictures for the live strip; 0 = none."""
    base_sha256: str = ""
    """Of the weights it started from: a checkpoint belongs to them."""


class TrainingSet:
    """Images and label maps at the engine's side, uint8; their latents are kept by the engine as they come."""

    def __init__(self, images: Sequence[Image], label_maps: Sequence[LabelMap], *, engine: StableDiffusionEngine) -> None:
        side = engine.resolution
        self.images = [fit_image_to(image, side=side) for image in images]
        self.label_maps = [fit_to(label_map, size=(side, side)) for label_map in label_maps]
        self.num_classes = engine.num_classes
        self.stacked = torch.from_numpy(np.stack(self.label_maps))

    def __len__(self) -> int:
        return len(self.images)


@dataclass
class Batch:
    clean: Tensor
    condition: Condition
    times: Tensor
    noise: Tensor
    pixel_weight: Tensor | None


def draw_batch(
    data: TrainingSet, engine: StableDiffusionEngine, config: FitConfig, *, step: int, odds: Tensor, by_class: Tensor
) -> Batch:
    """The batch of a step depends on seed and step only, so that a resumed fit equals an uninterrupted one."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    chosen = torch.multinomial(odds, config.batch_size, replacement=True, generator=generator).tolist()
    mirrored = (torch.rand(config.batch_size, generator=generator) < 0.5).tolist()
    images = [_turned(data.images[index], is_mirrored) for index, is_mirrored in zip(chosen, mirrored, strict=True)]
    label_maps = [_turned(data.label_maps[index], is_mirrored) for index, is_mirrored in zip(chosen, mirrored, strict=True)]
    if config.mix_probability:
        label_maps = list(mixed(torch.from_numpy(np.stack(label_maps)), config.mix_probability, num_classes=data.num_classes,
                                generator=generator).numpy())  # fmt: skip
    if engine.needs_picture:
        label_maps = [_one_class(label_map, config.one_class, generator) for label_map in label_maps]
    clean = engine.encode_images(images)
    condition = engine.encode_label_maps(label_maps, images)
    dropped = (torch.rand(len(images), generator=generator) < config.text_dropout).to(clean.device).view(-1, 1, 1)
    condition = condition.with_text(torch.where(dropped, engine.parts.text([""] * len(images)), condition.text))
    return Batch(
        clean=clean,
        condition=condition,
        times=engine.sample_times(len(images), generator=generator),
        noise=torch.randn(clean.shape, generator=generator).to(clean.device),
        pixel_weight=None if engine.needs_picture else _pixel_weight(label_maps, by_class, clean),
    )


def _turned(pixels: np.ndarray, is_mirrored: bool) -> np.ndarray:
    return np.ascontiguousarray(pixels[:, ::-1]) if is_mirrored else pixels


def _one_class(label_map: LabelMap, share: float, generator: torch.Generator) -> LabelMap:
    """Sometimes all classes but one become unknown, which is neither painted nor named."""
    draw, pick = torch.rand(2, generator=generator).tolist()
    present = [index for index in np.unique(label_map).tolist() if index not in (0, IGNORE)]
    if len(present) < 2 or draw >= share:
        return label_map
    kept = present[int(pick * len(present))]
    return np.where((label_map == kept) | (label_map == 0), label_map, np.uint8(IGNORE))


def _pixel_weight(label_maps: Sequence[LabelMap], by_class: Tensor, like: Tensor) -> Tensor:
    """(B, 1, h, w), mean 1 over the data set: rare classes weigh more."""
    weight = by_class[torch.from_numpy(np.stack(label_maps)).int()].unsqueeze(1)
    return F.adaptive_avg_pool2d(weight, (like.shape[2], like.shape[3])).to(like.device)


class Trainer:
    """State of a fit: what is trained, its optimiser, and the step reached."""

    def __init__(self, engine: StableDiffusionEngine, config: FitConfig, *, start: dict[str, Tensor] | None = None) -> None:
        """
        Args:
            start: Adapter tensors of an earlier fit to go on from, as `lora.state` gives them; its rank counts.
        """
        self.engine = engine
        self.config = config
        rank = lora.rank_of(start) if start else config.lora_rank
        self.adapter = lora.attach(engine.denoiser, rank=rank, seed=config.seed) if rank is not None else None
        if self.adapter is not None and start:
            lora.fill(self.adapter, start)
        groups = [self._trained_unet()]
        if engine.controlnet is not None:
            groups.append((CONTROLNET, _thawed(engine.controlnet), CONTROLNET_RATE))
        self.parameters = {kind + name: parameter for kind, found, _ in groups for name, parameter in found.items()}
        self.optimizer = torch.optim.AdamW(
            [{"params": list(found.values()), "lr": config.learning_rate or rate} for _, found, rate in groups],
            weight_decay=0.0, fused=True)  # fmt: skip
        self._rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.step = 0
        self.seconds = 0.0

    def _trained_unet(self) -> tuple[str, dict[str, nn.Parameter], float]:
        if self.adapter is None:
            return UNET, _thawed(self.engine.denoiser), UNET_RATE
        return LORA, {name: tensor for name, tensor in self.adapter.named_parameters() if tensor.requires_grad}, LORA_RATE

    def train_step(self, batch: Batch, *, progress: float) -> float:
        """One update; returns the loss. `progress` in 0..1 sets the learning rate's decay."""
        decay = min(1.0, (self.step + 1) / 100) * min(1.0, max(0.02, (1 - progress) / 0.3))
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * decay
        loss = self.engine.errors(
            batch.clean, batch.condition, batch.times, batch.noise, pixel_weight=batch.pixel_weight
        ).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())

    def state(self) -> dict[str, Tensor]:
        """What was learnt, as `StableDiffusionEngine` takes it: the adapter exactly, whole networks in half precision."""
        found: dict[str, Tensor] = {}
        if self.adapter is not None:
            found |= {LORA + name: tensor for name, tensor in lora.state(self.adapter).items()}
        else:
            found |= _halved(self.engine.denoiser, UNET)
        return found | (_halved(self.engine.controlnet, CONTROLNET) if self.engine.controlnet is not None else {})

    def save(self, folder: Path) -> None:
        """Write a checkpoint; a torn one can never be read."""
        state = {"step": self.step, "seconds": self.seconds}
        checkpoints.save(folder, parameters=self.parameters, optimizer=self.optimizer, config=asdict(self.config), state=state)

    def restore(self, folder: Path) -> bool:
        """Continue from a checkpoint of the same configuration, if there is one."""
        found = checkpoints.restore(folder, parameters=self.parameters, optimizer=self.optimizer, config=asdict(self.config))
        if found is None:
            return False
        self.step, self.seconds = found[0]["step"], found[0]["seconds"]
        return True


def _thawed(network: nn.Module) -> dict[str, nn.Parameter]:
    return dict(network.requires_grad_(True).named_parameters())


def _halved(network: nn.Module, kind: str) -> dict[str, Tensor]:
    return {kind + name: tensor.detach().half() if tensor.is_floating_point() else tensor.detach()
            for name, tensor in network.state_dict().items()}  # fmt: skip


def fit(
    trainer: Trainer,
    data: TrainingSet,
    report: Report,
    *,
    folder: Path | None = None,
    put_image: Any = None,
    ends: Callable[[int], bool] | None = None,
) -> dict[str, Any]:
    """Fit an engine in place.

    Args:
        folder: Where checkpoints go and are resumed from; None = none.
        put_image: Stores a picture of the live strip and returns its name; None = no strip.
        ends: Asked after each step: is it enough already?

    Returns:
        As `run_steps`.
    """
    engine, config = trainer.engine, trainer.config
    odds = rarity(data.stacked, data.num_classes)
    # Inpainting weighs pixels by what is painted alone.
    by_class = torch.ones(256) if engine.needs_picture else class_weights(data.stacked, config.class_weight_cap)
    strip, pictures = data.label_maps[:4], data.images[:4]
    regions = [named_region(label_map, image, side=engine.resolution) for label_map, image in zip(strip, pictures, strict=True)]

    def shown(step: int) -> dict[str, str]:
        engine.weights_changed()
        made = engine.generate(strip, list(range(len(strip))), num_inference_steps=STRIP_STEPS,
                               regions=regions if engine.needs_picture else None)  # fmt: skip
        engine.weights_changed()  # the copy is as large as the network
        return {f"sample {index}": put_image(image) for index, image in enumerate(made)}

    metrics = run_steps(
        trainer,
        lambda step: draw_batch(data, engine, config, step=step, odds=odds, by_class=by_class),
        config,
        report,
        folder=folder,
        pictures=shown if put_image else None,
        ends=ends,
        checkpoint_every_s=CHECKPOINT_EVERY_S if all(name.startswith(LORA) for name in trainer.parameters)
        else WHOLE_CHECKPOINT_EVERY_S,
    )
    engine.weights_changed()
    return metrics


def run_job(context: JobContext) -> Outcome:
    """Job `fit` with the engine `stable-diffusion`; publishes only what was trained, the base is named by its hash."""
    store, order = context.store, FitOrder(**context.params)
    project = store.project(order.project_id)
    context.report(0, order.steps or 1, "reading the weights")
    found = order.weights_on_disk(store)
    architecture: dict[str, Any] = {
        "engine": StableDiffusionEngine.name,
        "mode": order.mode,
        "base": found.name,
        "base_sha256": found.fingerprint(),
        "resolution": project.resolution,
        "num_classes": len(project.classes),
        "class_names": list(project.class_names),
        "prompt": order.prompt or PROMPT,
        "sampler": SAMPLER,
        "saves_memory": order.saves_memory,
    }
    # A ControlNet or a rank of one's own would be lost on the way from another fit.
    starts_anew = order.from_scratch or order.controlnet is not None
    parent = None if starts_anew else _parent(store, project.id, architecture, full=order.full, rank=order.lora_rank)
    state = weights.read(store.files.path(parent.file)) if parent is not None else {}
    if parent is not None and order.prompt is None:
        architecture["prompt"] = parent.architecture["prompt"]
    if parent is not None and "controlnet" in parent.architecture:
        architecture["controlnet"] = parent.architecture["controlnet"]
    elif order.controlnet is not None:
        architecture["controlnet"], state = _from_folder(order.controlnet)
    start = {name.removeprefix(LORA): tensor for name, tensor in state.items() if name.startswith(LORA)}
    rest = {name: tensor for name, tensor in state.items() if not name.startswith(LORA)}
    engine = StableDiffusionEngine(architecture, rest, fits="unet" if order.full else "adapter")
    images, label_maps = real_pairs(store, project, "train", side=engine.resolution)
    config = FitConfig(
        num_steps=order.steps,
        minutes=order.minutes or DEFAULT_MINUTES,
        batch_size=order.batch_size or FitConfig.batch_size,
        learning_rate=order.learning_rate,
        lora_rank=None if order.full else order.lora_rank or FitConfig.lora_rank,
        seed=order.seed,
        base_sha256=architecture["base_sha256"],
        mix_probability=MIX_FEW if order.few else 0.0,
    )
    with devices.memory_told("fit with --saves-memory, with a smaller --batch-size, or without --full"):
        if order.few:
            trainer, metrics = _fit_few(engine, images, label_maps, real_groups(store, project, "train"), config, context, start)
        else:
            trainer = Trainer(engine, config, start=start)
            metrics = fit(trainer, TrainingSet(images, label_maps, engine=engine), context.report, folder=context.dir,
                          put_image=store.blobs.put_image)  # fmt: skip
    metrics |= {"num_images": len(images)}
    if order.few and not metrics["best_step"] and parent is not None:
        return Outcome(f"{few_shot.words(metrics)}; the generator in use stays", lambda store: {"model_id": parent.id, **metrics})
    file = store.files.put(weights.to_bytes(trainer.state()))

    def publish(store: Store) -> dict[str, Any]:
        model = store.add_model(
            project.id,
            kind="engine",
            architecture=architecture,
            file=file,
            metrics=metrics,
            actor=context.job.created_by,
            parent_id=parent.id if parent else None,
            job_id=context.job.id,
        )
        return {"model_id": model.id, **metrics}

    told = f"fitted on {len(images)} images, {metrics['steps']} steps"
    if order.few:
        told = few_shot.words(metrics) + ("" if metrics["best_step"] else ", which is used as it is")
    return Outcome(told, publish)


def _fit_few(
    engine: StableDiffusionEngine, images: Sequence[Image], label_maps: Sequence[LabelMap], groups: Sequence[str],
    config: FitConfig, context: JobContext, start: dict[str, Tensor],
) -> tuple[Trainer, dict[str, Any]]:  # fmt: skip
    """As `few_shot.fit_few`, of what is trained here; the base is what the fit starts from."""
    watch, learnt = few_shot.watch_over(engine, images, label_maps, groups, seed=config.seed, folder=context.dir)
    data = TrainingSet([images[i] for i in learnt], [label_maps[i] for i in learnt], engine=engine)
    trainer = Trainer(engine, config, start=start)
    before = few_shot.kept(trainer.parameters)
    watch.start()
    metrics = fit(trainer, data, context.report, folder=context.dir, put_image=context.store.blobs.put_image,
                  ends=watch.ends(trainer))  # fmt: skip
    return trainer, metrics | watch.settle(trainer, before)


def _parent(
    store: Store, project_id: int, architecture: dict[str, Any], *, full: bool, rank: int | None
) -> Model | None:
    """The generator in use, where this fit can go on from it: same base, mode and classes, the same kind of training and, where
    one is asked for, the same rank."""
    model = store.active_model(project_id, "engine")
    same = ("engine", "mode", "base_sha256", "num_classes", "resolution")
    if model is None or any(model.architecture.get(key) != architecture[key] for key in same):
        return None
    state = weights.read(store.files.path(model.file))
    if any(name.startswith(UNET) for name in state) != full:
        return None
    return model if full or rank in (None, lora.rank_of(state)) else None


def _from_folder(folder: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of a ControlNet on disk."""
    network = parts.read_controlnet(folder)
    if network.config.conditioning_channels != 3:
        raise WeightsError(f"{folder} takes {network.config.conditioning_channels} channels; label maps come as pictures of 3")
    config = {key: value for key, value in network.config.items() if not key.startswith("_")}
    return config, {CONTROLNET + name: tensor for name, tensor in network.state_dict().items()}
