"""Engine `stable-diffusion`: public latent diffusion weights on a local GPU, inpainting or ControlNet."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from saadi import devices
from saadi.engines import lora, pretrained, weights
from saadi.engines import stable_diffusion_parts as parts
from saadi.engines.appearance import Reference
from saadi.engines.base import SAMPLING_BATCH, Negative, PreviewCallback, Rollout, StepCallback, no_callback
from saadi.engines.frozen import freeze_convolutions
from saadi.engines.regions import Region, named_region
from saadi.engines.stable_diffusion_parts import Condition
from saadi.engines.starting import NoiseShift
from saadi.errors import BadInputError, WeightsError
from saadi.masks import fit_image_to, fit_to
from saadi.records import Image, LabelMap

NEEDS_PICTURE = (
    "this generator paints into a picture, and there is none under this label map; draw over an image, or make a part of one anew"
)
LORA, UNET, CONTROLNET = "lora.", "unet.", "controlnet."
"""How tensor names begin in the weights file of a fit: an adapter merged into the U-Net, or whole networks."""


@dataclass(frozen=True)
class Networks:
    """What makes one estimate."""

    unet: Any
    controlnet: Any | None


class StableDiffusionEngine:
    """Stable Diffusion 1 or 2 from the user's disk, fitted to a project's images; made for a GPU with 8 GB or more.

    Needs: weights in diffusers layout (`pretrained.find`), label maps of the project's classes; in mode 'inpainting' also the
    picture to paint into. Makes: square RGB images at `resolution`, which 512 suits best. Licence of the public weights:
    CreativeML OpenRAIL-M. Sources: Rombach et al. 2022 (arXiv:2112.10752), Zhang et al. 2023 (ControlNet, arXiv:2302.05543);
    inpainting as in MedDiff-FT (arXiv:2507.00377) and SAADi's SSI (arXiv:2509.18796).

    Modes: 'inpainting' paints everything that the label map names into a picture, by the 9-channel U-Net; 'controlnet' makes
    whole scenes from the label map in colours. The classes are named in the prompt in both.
    """

    name = "stable-diffusion"

    def __init__(
        self,
        architecture: dict[str, Any],
        state: dict[str, Tensor] | None = None,
        *,
        device: torch.device | None = None,
        fits: Literal["adapter", "unet"] | None = None,
    ) -> None:
        """
        Args:
            state: What a fit has learnt (names begin with LORA, UNET or CONTROLNET); None = the base weights.
            fits: What is to be trained, beside a ControlNet; what is trained as a whole stays float32. None = neither.

        Raises:
            WeightsError: The base weights are missing or others than those that were fitted.
        """
        self.architecture = dict(architecture)
        self.mode: pretrained.Mode = architecture["mode"]
        self.needs_picture = self.mode == "inpainting"
        self.resolution: int = architecture["resolution"]
        self.num_classes: int = architecture["num_classes"]
        self.device = device or devices.device()
        found = pretrained.find(architecture["base"], mode=self.mode)
        found.need_side(self.resolution)
        if found.fingerprint() != architecture["base_sha256"]:
            raise WeightsError(f"the weights in {found.name} are not those that this generator was fitted on; put the former "
                               "ones back, or fit again")  # fmt: skip
        self.parts = parts.Parts(found, self.device)
        self._exact: dict[str, Tensor] = {}
        """What adapters are added to, where the network itself holds it rounded; 2.4 GB of ordinary memory with SD 1.5."""
        self._networks = self._built(parts.read_unet(found), state or {}, fits)
        self._sampling: tuple[tuple[Path | None, float], Networks] | None = None
        self._guiding: tuple[tuple[Path | None, float, Negative], Networks] | None = None

    @classmethod
    def from_file(cls, architecture: dict[str, Any], file: Path, *, device: torch.device | None = None) -> StableDiffusionEngine:
        """Raises: WeightsError: the file is damaged or belongs to another architecture."""
        return cls(architecture, weights.read(file), device=device)

    def _built(self, unet: Any, state: dict[str, Tensor], fits: str | None) -> Networks:
        """U-Net and ControlNet with what a fit has learnt, frozen; half precision on an accelerator, unless they are fitted."""
        by_kind = {kind: {name.removeprefix(kind): tensor for name, tensor in state.items() if name.startswith(kind)}
                   for kind in (LORA, UNET, CONTROLNET)}  # fmt: skip
        if sum(map(len, by_kind.values())) != len(state):
            raise WeightsError("these weights belong to another engine; choose a generator of this project")
        if by_kind[UNET]:
            weights.load_state(unet, by_kind[UNET])
        controlnet = None
        if self.mode == "controlnet":
            controlnet = parts.new_controlnet(unet, self.architecture.get("controlnet"))
            if by_kind[CONTROLNET]:
                weights.load_state(controlnet, by_kind[CONTROLNET])
        if by_kind[LORA]:
            unet = lora.merged(lora.wrap(unet, by_kind[LORA], file=Path("fit")))
        half = self._held_dtype()
        self._exact = lora.target_weights(unet) if half != torch.float32 and fits != "unet" else {}
        made = Networks(
            parts.placed(parts.frozen(unet), self.device, torch.float32 if fits == "unet" else half),
            controlnet and parts.placed(parts.frozen(controlnet), self.device, torch.float32 if fits else half),
        )
        if self.architecture.get("saves_memory"):
            _recompute(made)
        return made

    def _held_dtype(self) -> torch.dtype:
        """Of frozen weights."""
        return torch.float32 if self.device.type == "cpu" else devices.fast_dtype(self.device)

    @property
    def denoiser(self) -> nn.Module:
        """The U-Net; the ControlNet beside it stays as the fit has left it."""
        network: nn.Module = self._networks.unet
        return network

    @property
    def controlnet(self) -> nn.Module | None:
        return self._networks.controlnet

    def weights_changed(self) -> None:
        """Forget the copy made for sampling; call after the denoiser was trained."""
        self._sampling = self._guiding = None

    def recompute_activations(self, inside: Callable[[], AbstractContextManager[None]]) -> None:
        """See `TrainableEngine.recompute_activations`; diffusers' own way, for which `lean_forward` steps aside."""
        _recompute(self._networks)

    # Conditions.

    def encode_images(self, images: Sequence[Image]) -> Tensor:
        """See `TrainableEngine.encode_images`: (B, 4, h, w) latents, scaled to about unit variance."""
        return self.parts.encode([fit_image_to(image, side=self.resolution) for image in images])

    def encode_label_maps(self, label_maps: Sequence[LabelMap], images: Sequence[Image] | None = None) -> Condition:
        """See `TrainableEngine.encode_label_maps`; 'ignore' pixels are no class and are not painted."""
        if not self.needs_picture:
            return self._condition(label_maps, None)
        if images is None:
            raise BadInputError(NEEDS_PICTURE)
        return self._condition(label_maps, [named_region(label_map, image, side=self.resolution)
                                            for label_map, image in zip(label_maps, images, strict=True)])  # fmt: skip

    def _condition(self, label_maps: Sequence[LabelMap], regions: Sequence[Region] | None) -> Condition:
        side = self.resolution
        scaled = np.stack([fit_to(label_map, size=(side, side)) for label_map in label_maps])
        if self.needs_picture:
            assert regions is not None, "checked by the callers"
            painted = [label_map[region.weight > 0] for label_map, region in zip(scaled, regions, strict=True)]
            return Condition(self.parts.text([self.prompt(values) for values in painted]), None, self.parts.around(regions))
        colors = torch.from_numpy(parts.picture_of(scaled)).permute(0, 3, 1, 2).to(self.device).float() / 255
        return Condition(self.parts.text([self.prompt(values) for values in scaled]), colors, None)

    def prompt(self, values: np.ndarray) -> str:
        """The prompt for a region with these class indices; background is not named."""
        names = [self.architecture["class_names"][index] for index in np.unique(values).tolist() if 0 < index < self.num_classes]
        text: str = self.architecture["prompt"]
        return text.replace("{classes}", ", ".join(names)).strip(" ,")

    # Sampling.

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
        """See `Engine.generate`. Guidance leaves the prompt out, not the label map (as diffusers' ControlNet pipelines do)."""
        if references:
            raise BadInputError("Stable Diffusion paints like no reference; use the engine compact, or leave the reference out")
        if len(label_maps) != len(seeds):
            raise BadInputError(f"one seed per label map is needed; got {len(seeds)} seeds for {len(label_maps)} label maps")
        if regions is not None and len(regions) != len(seeds):
            raise BadInputError(f"one region per label map is needed; got {len(regions)} regions for {len(seeds)} label maps")
        if self.needs_picture and regions is None:
            raise BadInputError(NEEDS_PICTURE)
        sampler = self.architecture["sampler"]
        steps = num_inference_steps or sampler["num_inference_steps"]
        guidance = guidance_scale if guidance_scale is not None else sampler.get("guidance_scale", 1.0)
        if negative is not None:
            negative.need_guidance(guidance)
        networks = self._for_sampling(adapter, adapter_scale)
        unconditional = networks if negative is None else self._for_guidance(networks, adapter, adapter_scale, negative)
        total = -(-len(seeds) // SAMPLING_BATCH) * steps
        images: list[Image] = []
        for first in range(0, len(seeds), SAMPLING_BATCH):
            chosen = slice(first, first + SAMPLING_BATCH)
            batch = _Batch(label_maps[chosen], seeds[chosen], regions[chosen] if regions is not None else None)
            done = first // SAMPLING_BATCH * steps

            def stepped(step: int, _: int, done: int = done) -> None:
                on_step(done + step, total)

            images += self._sample(networks, unconditional, batch, sampler["name"], steps, guidance, stepped, on_preview, start)
        return images

    @torch.no_grad()
    def _sample(
        self, networks: Networks, unconditional: Networks, batch: _Batch, name: str, steps: int, guidance: float,
        on_step: StepCallback, on_preview: PreviewCallback | None, start: NoiseShift | None,
    ) -> list[Image]:
        count, padded = len(batch.seeds), batch.padded()
        if padded.regions is not None:
            self._check(padded.regions)
        condition = self._condition(padded.label_maps, padded.regions)
        free = condition.with_text(self.parts.text([""] * SAMPLING_BATCH)) if guidance != 1.0 else None
        sampler = self.parts.sampler(name, steps)
        keep = self._keeping(padded.regions, len(sampler.timesteps)) if padded.regions is not None else None
        noise = torch.stack([self._noise(seed) for seed in padded.seeds])
        noise = noise if start is None else start.moved(noise, padded.label_maps, padded.seeds)
        noisy = noise.to(self.device) * sampler.init_noise_sigma
        for step, timestep in enumerate(sampler.timesteps, start=1):
            timesteps = timestep.expand(SAMPLING_BATCH)
            clean = self._clean(networks, noisy, timesteps, condition)
            if free is not None:
                without = self._clean(unconditional, noisy, timesteps, free)
                clean = without + guidance * (clean - without)
            if keep is not None:  # as in compact: where the estimate is the source, the sampler keeps it at each noise level
                clean = torch.lerp(keep[0], clean, keep[1][min(step, len(keep[1])) - 1])
            noisy = sampler.step(clean, timestep, noisy).prev_sample
            if on_preview is not None:
                shown = clean if step < len(sampler.timesteps) else noisy
                on_preview(lambda shown=shown: self._decoded(shown[:count], batch.regions))  # type: ignore[misc]
            on_step(step, len(sampler.timesteps))
        return self._decoded(noisy[:count], batch.regions)

    def _keeping(self, regions: Sequence[Region], steps: int) -> tuple[Tensor, list[Tensor]] | None:
        """Sources in latents, and of each step the shares of the new picture; None where the network keeps the surroundings by
        itself, which the guide of a region would let go."""
        if self.needs_picture and not any(region.guide for region in regions):
            return None
        steps = steps if any(region.guide for region in regions) else 1  # one for all of them
        each = [region.weights(steps) for region in regions]
        return self.parts.encode([region.source for region in regions]), \
            [self.parts.shares([weights[step] for weights in each]) for step in range(steps)]

    def _check(self, regions: Sequence[Region]) -> None:
        side = (self.resolution, self.resolution)
        for region in regions:
            if region.source.shape[:2] != side or region.weight.shape != side:
                raise BadInputError(f"source {region.source.shape[:2]} and region {region.weight.shape} must both be {side}; "
                                    "scale them to the engine's size first")  # fmt: skip

    def _noise_shape(self) -> tuple[int, int, int]:
        side = self.resolution // self.parts.scale
        return int(self.parts.vae.config.latent_channels), side, side

    def _noise(self, seed: int) -> Tensor:
        # Drawn on the CPU: the same seed gives the same noise on every device.
        return torch.randn(*self._noise_shape(), generator=torch.Generator().manual_seed(seed))

    def rollout(self, *, steps: int, adapter: Path | None = None, adapter_scale: float = 1.0) -> Rollout:
        """See `TrainableEngine.rollout`; in inpainting every label map needs its region."""
        networks, name = self._for_sampling(adapter, adapter_scale), self.architecture["sampler"]["name"]

        def pixels(noise: Tensor, label_maps: Sequence[LabelMap], regions: Sequence[Region] | None) -> Tensor:
            if self.needs_picture and regions is None:
                raise BadInputError(NEEDS_PICTURE)
            if regions is not None:
                self._check(regions)
            condition, sampler = self._condition(label_maps, regions), self.parts.sampler(name, steps)
            keep = self._keeping(regions, 1) if regions is not None else None
            noisy = noise.to(self.device) * sampler.init_noise_sigma
            for timestep in sampler.timesteps:
                clean = checkpoint(self._clean, networks, noisy, timestep.expand(len(noise)), condition, use_reentrant=False)
                if keep is not None:
                    clean = torch.lerp(keep[0], clean, keep[1][0])
                noisy = sampler.step(clean, timestep, noisy).prev_sample
            made: Tensor = checkpoint(self.parts.pixels, noisy, use_reentrant=False).clamp(-1.0, 1.0)
            return made if regions is None else _blended_pixels(made, regions)

        return Rollout(self._noise_shape(), pixels, at_once=1)

    def _decoded(self, latents: Tensor, regions: Sequence[Region] | None) -> list[Image]:
        images = self.parts.decode(latents)
        return images if regions is None else [blended(image, part) for image, part in zip(images, regions, strict=True)]

    def _for_sampling(self, adapter: Path | None, scale: float) -> Networks:
        """The networks in the fast dtype with the adapter merged: a copy, unless nothing has to be changed."""
        key = (adapter, scale)
        if self._sampling is None or self._sampling[0] != key:
            unet = self._networks.unet
            if adapter is not None and lora.is_attached(unet):
                raise WeightsError("an adapter is attached to this engine already; load a fresh one to use another")
            self._sampling = None  # two copies at once may be more than a small GPU holds
            dtype = self._sampling_dtype()
            if adapter is not None or lora.is_attached(unet) or unet.dtype != dtype:
                unet = copy.deepcopy(unet)
                if lora.is_attached(unet):
                    unet = lora.merged(unet, exact=self._exact)
                if adapter is not None:
                    unet = lora.merged(lora.load(unet, adapter, scale=scale), exact=self._exact)
                unet = self._fast(unet, dtype)
            controlnet = self._networks.controlnet
            if controlnet is not None and controlnet.dtype != dtype:
                controlnet = self._fast(copy.deepcopy(controlnet), dtype)
            made = Networks(unet, controlnet)
            if lora.is_attached(self._networks.unet):
                return made  # while an adapter is trained its memory is needed, and the copy is stale after the next step
            self._sampling = (key, made)
        return self._sampling[1]

    def _for_guidance(self, networks: Networks, adapter: Path | None, scale: float, negative: Negative) -> Networks:
        """The networks of the unconditional half, with a negative adapter's U-Net; with weight 0 those of the other half."""
        if negative.weight == 0:
            return networks
        key = (adapter, scale, negative)
        if self._guiding is None or self._guiding[0] != key:
            if lora.is_attached(self._networks.unet):
                raise WeightsError("an adapter is attached to this engine already; load a fresh one to use another")
            self._guiding = None
            start = self._exact or lora.target_weights(self._networks.unet)
            if adapter is not None:
                start = lora.target_weights(self._merged(adapter, scale))
            unet = lora.lean_towards(self._merged(negative.adapter, negative.scale), start, negative.weight)
            self._guiding = (key, Networks(self._fast(unet, self._sampling_dtype()), networks.controlnet))
        return self._guiding[1]

    def _merged(self, adapter: Path, scale: float) -> nn.Module:
        """A copy of the U-Net with an adapter in its weights, which are not rounded yet."""
        return lora.merged(lora.load(copy.deepcopy(self._networks.unet), adapter, scale=scale), exact=self._exact)

    def _sampling_dtype(self) -> torch.dtype:
        """bfloat16 where it is fast; GPUs before Ampere sample in float16, as these weights are published in it."""
        fast = devices.fast_dtype(self.device)
        return torch.float16 if self.device.type == "cuda" and fast == torch.float32 else fast

    def _fast(self, network: Any, dtype: torch.dtype) -> Any:
        made = parts.frozen(parts.placed(network, self.device, dtype))
        if self.device.type == "cpu":
            freeze_convolutions(made)
        return made

    # The denoiser.

    def _predicted(self, networks: Networks, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """What the U-Net says, (B, 4, h, w) in its own terms (noise or velocity)."""
        dtype = networks.unet.dtype if not torch.is_autocast_enabled(self.device.type) else torch.float32
        text, pixels = condition.text.to(dtype), noisy.to(dtype)
        if condition.around is not None:
            pixels = torch.cat([pixels, condition.around.to(dtype)], dim=1)
        extra: dict[str, Any] = {}
        if networks.controlnet is not None:
            assert condition.control is not None, "every condition of this mode has it"
            down, middle = networks.controlnet(pixels, timesteps, encoder_hidden_states=text,
                                               controlnet_cond=condition.control.to(dtype), return_dict=False)  # fmt: skip
            extra = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        found: Tensor = networks.unet(pixels, timesteps, encoder_hidden_states=text, return_dict=False, **extra)[0]
        return found.float()

    def _clean(self, networks: Networks, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """The clean latents that the network sees behind the noise."""
        predicted = self._predicted(networks, noisy, timesteps, condition)
        signal, noise = self._levels(timesteps)
        if self.parts.prediction == "v_prediction":  # v = signal * eps - noise * x (Salimans and Ho 2022, section 4)
            return signal * noisy - noise * predicted
        return (noisy - noise * predicted) / signal

    def _levels(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, 1, 1) factors of latents and noise: x_t = sqrt(alpha) x + sqrt(1 - alpha) eps."""
        alphas = self.parts.alphas[timesteps].view(-1, 1, 1, 1)
        return alphas.sqrt(), (1 - alphas).sqrt()

    # Training.

    def errors(
        self, clean: Tensor, condition: Condition, times: Tensor, noise: Tensor, *, pixel_weight: Tensor | None = None
    ) -> Tensor:
        """See `TrainableEngine.errors`; in inpainting the mean is over what is painted, as all else is given.

        Args:
            pixel_weight: (B, 1, h, w) of latents, with mean 1; None = all alike.
        """
        residuals = self._residuals(clean, condition, times, noise)
        return (residuals**2 * self._weight(condition, residuals, pixel_weight)).mean((1, 2, 3))

    def errors_and_residuals(self, clean: Tensor, condition: Condition, times: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """See `TrainableEngine.errors_and_residuals`."""
        residuals = self._residuals(clean, condition, times, noise)
        weighted = residuals * self._weight(condition, residuals, None).sqrt()
        return (weighted**2).mean((1, 2, 3)), weighted

    def _residuals(self, clean: Tensor, condition: Condition, times: Tensor, noise: Tensor) -> Tensor:
        timesteps = self.timesteps(times)
        signal, level = self._levels(timesteps)
        noisy = signal * clean + level * noise
        target = signal * noise - level * clean if self.parts.prediction == "v_prediction" else noise
        with devices.autocast(self.device):
            predicted = self._predicted(self._networks, noisy, timesteps, condition.repeated(len(clean)))
        return predicted - target

    def _weight(self, condition: Condition, residuals: Tensor, pixel_weight: Tensor | None) -> Tensor:
        """(B, 1, h, w) with mean 1 per image; all 0 where nothing is painted."""
        weight = torch.ones_like(residuals[:, :1]) if pixel_weight is None else pixel_weight
        if condition.around is None:
            return weight
        weight = weight * condition.repeated(len(residuals)).around[:, :1]  # type: ignore[index]
        return weight / weight.mean((1, 2, 3), keepdim=True).clamp_min(1e-6)

    def timesteps(self, times: Tensor) -> Tensor:
        """(B,) int64: our times in (0, 1) as the schedule's timesteps 0 ... num_train_timesteps - 1."""
        count = len(self.parts.alphas)
        return (times * count).long().clamp(0, count - 1)

    def sample_times(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Uniform, as Stable Diffusion was trained."""
        return torch.rand(count, generator=generator).to(self.device)



def _recompute(networks: Networks) -> None:
    for network in filter(None, (networks.unet, networks.controlnet)):
        network.enable_gradient_checkpointing()


@dataclass(frozen=True)
class _Batch:
    """Up to SAMPLING_BATCH images that are made together."""

    label_maps: Sequence[LabelMap]
    seeds: Sequence[int]
    regions: Sequence[Region] | None

    def padded(self) -> _Batch:
        missing = SAMPLING_BATCH - len(self.seeds)
        return _Batch([*self.label_maps, *[self.label_maps[0]] * missing], [*self.seeds, *[0] * missing],
                      None if self.regions is None else [*self.regions, *[self.regions[0]] * missing])  # fmt: skip


def _blended_pixels(made: Tensor, regions: Sequence[Region]) -> Tensor:
    """`blended`, of (B, 3, H, W) in [-1, 1]."""
    sources = torch.from_numpy(np.stack([region.source for region in regions])).permute(0, 3, 1, 2).to(made.device).float()
    weight = torch.from_numpy(np.stack([region.weight for region in regions])).unsqueeze(1).to(made.device)
    return torch.lerp(sources / 127.5 - 1, made, weight)


def blended(image: Image, region: Region) -> Image:
    """The image in the region, fading into its source over the seam; outside every pixel is the source's, bit for bit."""
    weight = region.weight[..., None]
    mixed = np.rint(region.source + (image.astype(np.float32) - region.source) * weight).astype(np.uint8)
    return np.where(weight > 0, mixed, region.source)
