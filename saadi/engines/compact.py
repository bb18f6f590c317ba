"""Engine `compact`: a small pixel-space diffusion network that fits and samples on two CPU cores."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from saadi import devices
from saadi.engines import attention, lora, norms, residual, samplers, weights
from saadi.engines.appearance import NUM_VALUES, Reference, styles
from saadi.engines.base import SAMPLING_BATCH, Negative, PreviewCallback, Rollout, StepCallback, no_callback
from saadi.engines.frozen import freeze_convolutions
from saadi.engines.regions import Region, pasted
from saadi.engines.residual import ResidualBlock
from saadi.engines.starting import NoiseShift
from saadi.errors import BadInputError, WeightsError
from saadi.masks import fit_image_to, fit_to
from saadi.records import Image, LabelMap

NUM_EXTRAS = 6
"""Augmentation label: mirrored, shift x, shift y, log zoom, log2(resolution / 256), spare. Zero when sampling, so nothing
leaks."""
DATA_STD = 0.5
"""Standard deviation of images in [-1, 1]; sets the preconditioning below."""
TIME_FLOOR = 0.06
"""Smallest noise level trained on; below it the loss weight 1/t^2 only amplifies rounding (docs/design.md)."""

STYLE_DIM = 8
"""Values that a reference becomes in the region of its class."""
STYLE_WIDTH = 64

Prediction = Literal["x0", "velocity", "preconditioned"]


class Styled(NamedTuple):
    """One-hot label maps with what each class is to look like."""

    label_maps: Tensor
    """(B, num_classes, H, W), zeros = unconditional."""
    styles: Tensor
    """(B, num_classes, NUM_VALUES + 1), as `saadi.engines.appearance.styles` gives them."""


class _Unet(UNet2DModel):
    @property
    def dtype(self) -> torch.dtype:
        """diffusers walks through all parameters for this, twice in each call."""
        return self.conv_in.weight.dtype


class CompactDenoiser(nn.Module):
    """diffusers' U-Net behind a space-to-depth stem, conditioned by the one-hot label map joined to its input.

    Patch 4 carries 48 noise values per site, which velocity prediction cannot pass through width 64; it predicts the clean image.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        patch: int = 4,
        widths: Sequence[int] = (64, 128, 192, 192),
        blocks_per_level: int = 1,
        prediction: Prediction = "x0",
        dropout: float = 0.0,
        style_dim: int = 0,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.style_dim = style_dim
        self.style = style_network(style_dim) if style_dim else None
        self.prediction = prediction
        levels = len(widths)
        self.unet = _Unet(
            in_channels=(3 + num_classes + style_dim) * patch**2,
            out_channels=3 * patch**2,
            block_out_channels=tuple(widths),
            layers_per_block=blocks_per_level,
            norm_num_groups=min(16, widths[0] // 4),
            dropout=dropout,
            attention_head_dim=min(32, widths[-1]),
            class_embed_type="identity",
            down_block_types=("DownBlock2D",) * (levels - 1) + ("AttnDownBlock2D",),
            up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (levels - 1),
        )
        attention.replace_processors(self.unet)
        norms.replace_group_norms(self.unet)
        residual.replace_residual_blocks(self.unet)
        self.extras = nn.Linear(NUM_EXTRAS, widths[0] * 4, bias=False)
        nn.init.zeros_(self.extras.weight)

    def forward(self, noisy: Tensor, times: Tensor, condition: Tensor | Styled, extras: Tensor) -> Tensor:
        """The clean image that the network sees behind the noise.

        Args:
            noisy: (B, 3, H, W), (1 - t) x + t eps.
            times: (B,) in (0, 1].
            condition: (B, num_classes, H, W) one-hot, zeros = unconditional; the same with styles; or what `lay_out` makes of it.
                With B / k rows they are repeated k times.
            extras: (B, NUM_EXTRAS) augmentation label.

        Returns:
            (B, 3, H, W) float32 estimate of x; noise levels and the final blend stay float32 when the weights are bfloat16.
        """
        dtype = self._dtype()
        embedded = self.extras(extras.to(self.extras.weight.dtype))
        if self.prediction == "x0":
            patches = self._joined(noisy.to(dtype), condition)
            raw = self.unet(patches, times * 1000.0, class_labels=embedded).sample
            return F.pixel_shuffle(raw, self.patch).float()
        skip, scale_in, scale_out = self._preconditioning(times)
        patches = self._joined((noisy * scale_in).to(dtype), condition)
        raw = F.pixel_shuffle(self.unet(patches, times * 1000.0, class_labels=embedded).sample, self.patch)
        return noisy * skip + raw.float() * scale_out

    def lay_out(self, condition: Tensor | Styled) -> Tensor:
        """One-hot label maps (B, num_classes, H, W) in patches, as the stem reads them: worth keeping for several calls.

        Where the network knows styles, each class's region carries what its reference became, or zeros without one.
        """
        label_maps = condition.label_maps if isinstance(condition, Styled) else condition
        patches = F.pixel_unshuffle(label_maps.to(self._dtype()), self.patch)
        if self.style is not None:
            patches = torch.cat([patches, self._style_map(patches, condition)], dim=1)
        return patches.contiguous(memory_format=torch.channels_last)

    def _style_map(self, patches: Tensor, condition: Tensor | Styled) -> Tensor:
        """(B, style_dim patch^2, H / patch, W / patch)."""
        count, _, height, width = patches.shape
        if not isinstance(condition, Styled):
            return patches.new_zeros(count, self.style_dim * self.patch**2, height, width)
        assert self.style is not None
        table = condition.styles.to(self.extras.weight.dtype)
        vectors = self.style(table[..., :-1]) * table[..., -1:]
        regions = patches.unflatten(1, (-1, self.patch**2)).to(vectors.dtype)
        return torch.einsum("bcphw,bcd->bdphw", regions, vectors).flatten(1, 2).to(patches.dtype)

    def _dtype(self) -> torch.dtype:
        """What the stem computes in: cast before the pictures are rearranged, they are half as large."""
        on = self.extras.weight.device.type
        return torch.get_autocast_dtype(on) if torch.is_autocast_enabled(on) else self.extras.weight.dtype

    def _joined(self, noisy: Tensor, condition: Tensor | Styled) -> Tensor:
        """(B, (3 + num_classes + style_dim) patch^2, H / patch, W / patch) in channels_last."""
        pixels = F.pixel_unshuffle(noisy, self.patch)
        if isinstance(condition, Styled) or condition.shape[2:] != pixels.shape[2:]:
            condition = self.lay_out(condition)
        count, channels, height, width = pixels.shape
        joined = torch.empty(count, channels + condition.shape[1], height, width, dtype=noisy.dtype, device=noisy.device,
                             memory_format=torch.channels_last)  # fmt: skip
        joined[:, :channels] = pixels
        joined[:, channels:].unflatten(0, (-1, len(condition))).copy_(condition)
        return joined

    def _preconditioning(self, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Skip, input and output scales, (B, 1, 1, 1) each (Karras et al. 2022, table 1, rewritten for (1 - t) x + t eps)."""
        t = times.view(-1, 1, 1, 1).float()
        variance = (1 - t) ** 2 * DATA_STD**2 + t**2
        if self.prediction == "velocity":  # x = x_t - t v
            return torch.ones_like(t), torch.ones_like(t), -t
        return (1 - t) * DATA_STD**2 / variance, variance.rsqrt(), t * DATA_STD * variance.rsqrt()

    def loss_weight(self, times: Tensor) -> Tensor:
        """(B,) factor that turns the error of the clean image into that of the velocity, or into unit variance."""
        t = times.float()
        if self.prediction == "preconditioned":
            return ((1 - t) ** 2 * DATA_STD**2 + t**2) / (t * DATA_STD) ** 2
        return 1 / t.clamp_min(TIME_FLOOR) ** 2


class CompactEngine:
    """Fits and samples on two CPU cores; 11 M parameters, pixel space, no downloads.

    Needs: label maps of the project's classes. Makes: square RGB images at `resolution`. Licence: Apache-2.0, own weights
    fitted to rendered phantom scenes; no patient image has been seen by the shipped ones.
    """

    name = "compact"
    needs_picture = False

    def __init__(
        self, architecture: dict[str, Any], state: dict[str, Tensor] | None = None, *, device: torch.device | None = None
    ) -> None:
        self.architecture = dict(architecture)
        self.resolution: int = architecture["resolution"]
        self.num_classes: int = architecture["num_classes"]
        # More pixels average the same noise away, so large images need more of it: shift 2 at 128 px, 4 at 256 px.
        self.shift = max(1.0, self.resolution / 64)
        self.device = device or devices.device()
        self._denoiser = CompactDenoiser(
            num_classes=self.num_classes,
            patch=architecture["patch"],
            widths=architecture["widths"],
            blocks_per_level=architecture.get("blocks_per_level", 1),
            prediction=architecture["prediction"],
            dropout=architecture.get("dropout", 0.0),
            style_dim=architecture.get("style_dim", 0),
        )
        if state is not None:
            weights.load_state(self._denoiser, state)
        devices.placed(self._denoiser, self.device).eval()
        self._sampling: dict[bool, tuple[tuple[Path | None, float, Negative | None], nn.Module]] = {}
        """The module last used, and False: the one of a negative adapter."""

    @classmethod
    def from_file(cls, architecture: dict[str, Any], file: Path, *, device: torch.device | None = None) -> CompactEngine:
        """Raises: WeightsError: the file is damaged or belongs to another architecture."""
        return cls(architecture, weights.read(file), device=device)

    @property
    def denoiser(self) -> CompactDenoiser:
        return self._denoiser

    def weights_changed(self) -> None:
        """Forget the copies made for sampling; call after the denoiser was trained."""
        self._sampling.clear()

    def generate(
        self,
        label_maps: Sequence[LabelMap],
        seeds: Sequence[int],
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        adapter: Path | None = None,
        adapter_scale: float = 1.0,
        negative: Negative | None = None,
        on_step: StepCallback = no_callback,
        on_preview: PreviewCallback | None = None,
        regions: Sequence[Region] | None = None,
        references: Sequence[Reference] = (),
        start: NoiseShift | None = None,
    ) -> list[Image]:
        """See `Engine.generate`."""
        if references and not self._denoiser.style_dim:
            raise BadInputError("these weights have not learnt to paint like a reference; fit with --references first, or leave "
                                "the reference out")  # fmt: skip
        if len(label_maps) != len(seeds):
            raise BadInputError(f"one seed per label map is needed; got {len(seeds)} seeds for {len(label_maps)} label maps")
        if regions is not None and len(regions) != len(seeds):
            raise BadInputError(f"one region per label map is needed; got {len(regions)} regions for {len(seeds)} label maps")
        sampler = self.architecture.get("sampler", {"name": "euler", "num_inference_steps": 10})
        steps = num_inference_steps or sampler["num_inference_steps"]
        guidance = guidance_scale or sampler.get("guidance_scale", 1.0)
        if negative is not None:
            negative.need_guidance(guidance)
        module = self._module_for_sampling(adapter, adapter_scale)
        free = self._module_for_sampling(adapter, adapter_scale, negative) if negative is not None else module
        total = -(-len(seeds) // SAMPLING_BATCH) * steps
        images: list[Image] = []
        for first in range(0, len(seeds), SAMPLING_BATCH):
            chosen = slice(first, first + SAMPLING_BATCH)
            done = first // SAMPLING_BATCH * steps
            batch = self._sample(
                module,
                free,
                label_maps[chosen],
                seeds[chosen],
                name=sampler["name"],
                steps=steps,
                guidance=guidance,
                on_step=_offset(on_step, done, total),
                on_preview=on_preview,
                regions=regions[chosen] if regions is not None else None,
                references=references,
                start=start,
            )
            images += batch
        return images

    @torch.no_grad()
    def _sample(
        self,
        module: nn.Module,
        unconditional: nn.Module,
        label_maps: Sequence[LabelMap],
        seeds: Sequence[int],
        *,
        name: str,
        steps: int,
        guidance: float,
        on_step: StepCallback,
        on_preview: PreviewCallback | None,
        regions: Sequence[Region] | None,
        references: Sequence[Reference] = (),
        start: NoiseShift | None = None,
    ) -> list[Image]:
        count = len(seeds)
        missing = SAMPLING_BATCH - count
        padded = [*label_maps, *[label_maps[0]] * missing]
        asked: Tensor | Styled = self.encode_label_maps(padded)
        if references:
            table = torch.from_numpy(styles(references, num_classes=self.num_classes)).to(self.device)
            asked = Styled(cast(Tensor, asked), table.expand(count + missing, -1, -1))
        # The same in each step, so it is laid out once.
        condition = cast(CompactDenoiser, module).lay_out(asked)
        all_seeds = [*seeds, *[0] * missing]
        noise = torch.stack([self._noise(seed) for seed in all_seeds])
        noise = (noise if start is None else start.moved(noise, padded, all_seeds)).to(self.device)
        extras = self._extras(len(noise))
        keep = self._keeping(regions, missing, steps) if regions is not None else None
        estimate, call = noise, 0

        def clean(noisy: Tensor, time: float) -> Tensor:
            nonlocal estimate, call
            times = torch.full((len(noisy),), time, device=self.device)
            found: Tensor = module(noisy, times, condition, extras)
            if guidance != 1.0:
                free = unconditional(noisy, times, torch.zeros_like(condition), extras)
                found = free + guidance * (found - free)
            found = found.clamp(-1.0, 1.0)
            if keep is not None:
                # Every sampler moves x_t towards this estimate along x_t = (1 - t) x + t eps, so where it is the source, x_t is
                # the source at the noise level of each step, with one and the same noise (RePaint, Lugmayr et al. 2022, eq. 8).
                found = torch.lerp(keep[0], found, keep[1][min(call, len(keep[1]) - 1)])
            call += 1
            if on_preview is not None:
                estimate = found
            return found

        def decoded(pixels: Tensor) -> list[Image]:
            images = self.decode(pixels[:count])
            return images if regions is None else [pasted(image, part) for image, part in zip(images, regions, strict=True)]

        def stepped(step: int, total: int) -> None:
            assert on_preview is not None, "chosen below"
            on_preview(lambda: decoded(estimate))
            on_step(step, total)

        # Without a preview nothing is kept from step to step, and sampling is what it was.
        after = on_step if on_preview is None else stepped
        return decoded(samplers.SAMPLERS[name](clean, noise, steps=steps, shift=self.shift, on_step=after))

    def rollout(self, *, steps: int, adapter: Path | None = None, adapter_scale: float = 1.0) -> Rollout:
        """See `TrainableEngine.rollout`; first order, whatever samples the images."""
        module = cast(CompactDenoiser, self._module_for_sampling(adapter, adapter_scale))

        def pixels(noise: Tensor, label_maps: Sequence[LabelMap], regions: Sequence[Region] | None) -> Tensor:
            condition, extras = module.lay_out(self.encode_label_maps(label_maps)), self._extras(len(noise))
            keep = self._keeping(regions, 0, 1) if regions is not None else None

            def clean(noisy: Tensor, time: float) -> Tensor:
                times = torch.full((len(noisy),), time, device=self.device)
                found: Tensor = checkpoint(module, noisy, times, condition, extras, use_reentrant=False).clamp(-1.0, 1.0)
                return found if keep is None else torch.lerp(keep[0], found, keep[1][0])

            return samplers.euler(clean, noise.to(self.device), steps=steps, shift=self.shift, on_step=no_callback)

        return Rollout((3, self.resolution, self.resolution), pixels)

    def _keeping(self, regions: Sequence[Region], missing: int, steps: int) -> tuple[Tensor, Tensor]:
        """Sources (B, 3, H, W) and shares of the new picture (steps, B, 1, H, W) of a padded batch; without guides one row."""
        padded = [*regions, *[regions[0]] * missing]
        side = (self.resolution, self.resolution)
        for region in regions:
            if region.source.shape[:2] != side or region.weight.shape != side:
                raise BadInputError(f"source {region.source.shape[:2]} and region {region.weight.shape} must both be {side}; "
                                    "scale them to the engine's size first")  # fmt: skip
        steps = steps if any(region.guide for region in padded) else 1
        weight = torch.from_numpy(np.stack([region.weights(steps) for region in padded], axis=1)).unsqueeze(2)
        return self.encode_images([region.source for region in padded]), weight.to(self.device)

    def _noise(self, seed: int) -> Tensor:
        # Drawn on the CPU: the same seed gives the same noise on every device.
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(3, self.resolution, self.resolution, generator=generator)

    def _extras(self, count: int) -> Tensor:
        extras = torch.zeros(count, NUM_EXTRAS, device=self.device)
        extras[:, 4] = float(np.log2(self.resolution / 256))
        return extras

    def _module_for_sampling(self, adapter: Path | None, scale: float, negative: Negative | None = None) -> nn.Module:
        """A copy in the fast dtype with the adapter merged; autocast would cast all weights again in each step.

        Args:
            negative: For the unconditional half of guidance; with weight 0 it is the other half's module.
        """
        if negative is not None and negative.weight == 0:
            negative = None
        key = (adapter, scale, negative)
        kept = self._sampling.get(negative is None)
        if kept is not None and kept[0] == key:
            return kept[1]
        if (adapter is not None or negative is not None) and lora.is_attached(self._denoiser):
            raise WeightsError("an adapter is attached to this engine already; load a fresh one to use another")
        module = self._merged(adapter, scale)
        if negative is not None:
            start = lora.target_weights(module)
            module = lora.lean_towards(self._merged(negative.adapter, negative.scale), start, negative.weight)
        module = devices.placed(module, self.device, dtype=devices.fast_dtype(self.device)).eval().requires_grad_(False)
        freeze_convolutions(module)
        self._sampling[negative is None] = (key, module)
        return module

    def _merged(self, adapter: Path | None, scale: float) -> nn.Module:
        """A float32 copy with an adapter merged: that of the file, or the one that is attached."""
        module: nn.Module = copy.deepcopy(self._denoiser)
        if lora.is_attached(module):
            module = lora.merged(module)
        return module if adapter is None else lora.merged(lora.load(module, adapter, scale=scale))

    def recompute_activations(self, inside: Callable[[], AbstractContextManager[None]]) -> None:
        """See `TrainableEngine.recompute_activations`; per residual block."""
        for block in self._denoiser.modules():
            if isinstance(block, ResidualBlock):
                block.recompute_in = inside

    def encode_images(self, images: Sequence[Image]) -> Tensor:
        """See `TrainableEngine.encode_images`; other sizes are scaled to the engine's (area)."""
        side = self.resolution
        scaled = [fit_image_to(image, side=side) for image in images]
        stacked = torch.from_numpy(np.stack(scaled)).permute(0, 3, 1, 2)
        return (stacked.float() / 127.5 - 1).to(self.device)

    def encode_label_maps(self, label_maps: Sequence[LabelMap], images: Sequence[Image] | None = None) -> Tensor:
        """See `TrainableEngine.encode_label_maps`; 'ignore' pixels and classes out of range become all zeros, which is
        unconditional."""
        side = self.resolution
        scaled = [fit_to(label_map, size=(side, side)) for label_map in label_maps]
        return one_hot(torch.from_numpy(np.stack(scaled)).to(self.device), num_classes=self.num_classes)

    def decode(self, clean: Tensor) -> list[Image]:
        """(B, 3, H, W) in [-1, 1] to uint8 RGB arrays."""
        pixels = ((clean.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return [array for array in pixels.permute(0, 2, 3, 1).cpu().numpy()]

    def errors(
        self,
        clean: Tensor,
        condition: Tensor | Styled,
        times: Tensor,
        noise: Tensor,
        *,
        extras: Tensor | None = None,
        pixel_weight: Tensor | None = None,
    ) -> Tensor:
        """See `TrainableEngine.errors`.

        Args:
            extras: (B, NUM_EXTRAS) augmentation label; None = unaugmented.
            pixel_weight: (B, 1, H, W) with mean 1; None = all pixels alike.
        """
        squared = self._residuals(clean, condition, times, noise, extras) ** 2
        if pixel_weight is not None:
            squared = squared * pixel_weight
        return squared.mean((1, 2, 3)) * self._denoiser.loss_weight(times)

    def errors_and_residuals(self, clean: Tensor, condition: Tensor, times: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """See `TrainableEngine.errors_and_residuals`."""
        residuals = self._residuals(clean, condition, times, noise, None)
        weight = self._denoiser.loss_weight(times)
        return (residuals**2).mean((1, 2, 3)) * weight, residuals * weight.sqrt().view(-1, 1, 1, 1)

    def _residuals(
        self, clean: Tensor, condition: Tensor | Styled, times: Tensor, noise: Tensor, extras: Tensor | None
    ) -> Tensor:
        t = times.view(-1, 1, 1, 1)
        noisy = (1 - t) * clean + t * noise
        with devices.autocast(self.device):
            estimate = self._denoiser(noisy, times, condition, self._extras(len(clean)) if extras is None else extras)
        return estimate.float() - clean

    def sample_times(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Logit-normal (mean log of the shift, std 1; Esser et al. 2024, section 5.3.2), kept above the floor."""
        times = torch.sigmoid(torch.randn(count, generator=generator) + math.log(self.shift))
        return times.clamp(TIME_FLOOR, 0.999).to(self.device)


def style_network(style_dim: int) -> nn.Module:
    """From what the frozen encoder sees to what the generator is told, one network for all classes."""
    return nn.Sequential(nn.Linear(NUM_VALUES, STYLE_WIDTH), nn.SiLU(), nn.Linear(STYLE_WIDTH, style_dim), nn.Tanh())


def with_styles(architecture: dict[str, Any], state: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The same generator with an ear for references: until it has learnt to, it makes the same images without one."""
    patch, dim = architecture["patch"], STYLE_DIM
    wanted = architecture | {"style_dim": dim}
    stem = state["unet.conv_in.weight"]
    more = stem.new_zeros(stem.shape[0], dim * patch**2, *stem.shape[2:])
    named = {f"style.{name}": tensor for name, tensor in style_network(dim).state_dict().items()}
    return wanted, state | {"unet.conv_in.weight": torch.cat([stem, more], dim=1)} | named


def one_hot(label_maps: Tensor, *, num_classes: int) -> Tensor:
    """(B, H, W) uint8 to (B, num_classes, H, W) float32; values of no class become all zeros."""
    classes = torch.arange(num_classes, dtype=torch.uint8, device=label_maps.device).view(-1, 1, 1)
    return (label_maps.unsqueeze(1) == classes).float()


def _offset(on_step: StepCallback, done: int, total: int) -> StepCallback:
    """Report the steps of one batch as steps of the whole order."""
    return lambda step, _: on_step(done + step, total)


def default_architecture(*, num_classes: int, resolution: int) -> dict[str, Any]:
    """The measured default: patch 4, widths 64-128-192-192, attention at the lowest level, 10 Euler steps."""
    return {
        "engine": "compact",
        "num_classes": num_classes,
        "resolution": resolution,
        "patch": 4,
        "widths": [64, 128, 192, 192],
        "blocks_per_level": 1,
        "prediction": "x0",
        "sampler": {"name": "euler", "num_inference_steps": 10},
    }
