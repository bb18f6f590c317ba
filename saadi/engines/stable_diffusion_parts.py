"""The networks of Stable Diffusion as diffusers and transformers load them, and what is kept of their answers."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    UNet2DConditionModel,
)
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from saadi.engines.pretrained import Pretrained
from saadi.engines.regions import Region
from saadi.errors import WeightsError
from saadi.records import Image

MAX_LATENTS = 4096
"""Latents that are kept: 64 kB each at 512 px, 270 MB in all."""
SAMPLERS = {"ddim": DDIMScheduler, "dpm_solver_2m": DPMSolverMultistepScheduler}
"""Both without noise of their own (DDIM with eta 0), so that an image follows from its first noise alone."""


@dataclass(frozen=True)
class Condition:
    """What the U-Net is given beside noisy latents; rows belong to images."""

    text: Tensor
    """(B, tokens, width) float32."""
    control: Tensor | None
    """(B, 3, H, W) float32 in [0, 1]: the label map in colours, for the ControlNet."""
    around: Tensor | None
    """(B, 5, h, w) float32: where to paint (1 = here), and the latents of the picture without that part."""

    def __len__(self) -> int:
        return len(self.text)

    def repeated(self, count: int) -> Condition:
        """All rows, again and again, until there are `count`."""
        times = count // len(self)
        if times == 1:
            return self
        control = self.control.repeat(times, 1, 1, 1) if self.control is not None else None
        around = self.around.repeat(times, 1, 1, 1) if self.around is not None else None
        return Condition(self.text.repeat(times, 1, 1), control, around)

    def with_text(self, text: Tensor) -> Condition:
        return replace(self, text=text)


class Parts:
    """Autoencoder, text encoder and noise schedule: frozen, float32, shared by every version of the U-Net."""

    def __init__(self, found: Pretrained, device: torch.device) -> None:
        self.found = found
        self.device = device
        self.vae: Any = frozen(read(AutoencoderKL, found, "vae")).to(device)
        self.schedule = dict(_schedule(DDPMScheduler, found).config)
        scheduler = DDPMScheduler.from_config(self.schedule)
        self.alphas: Tensor = scheduler.alphas_cumprod.to(device)
        """(num_train_timesteps,) share of the signal's variance at each timestep."""
        self.prediction: str = scheduler.config.prediction_type
        if self.prediction not in ("epsilon", "v_prediction"):
            raise WeightsError(f"{found.name} predicts {self.prediction!r}; epsilon and v_prediction are known")
        self.scale = 2 ** (len(self.vae.config.block_out_channels) - 1)
        """Pixels per latent."""
        self._latents: OrderedDict[bytes, Tensor] = OrderedDict()
        self._texts: dict[str, Tensor] = {}
        self._encoder: tuple[Any, Any] | None = None

    def sampler(self, name: str, steps: int) -> Any:
        """A fresh diffusers scheduler that takes estimates of the clean latents.

        Raises:
            WeightsError: No sampler of that name.
        """
        if name not in SAMPLERS:
            raise WeightsError(f"no sampler {name!r}; there are {', '.join(SAMPLERS)}")
        # Estimates of the clean latents serve every prediction type, and can be mixed with a source.
        changed: dict[str, Any] = {"prediction_type": "sample", "clip_sample": False, "thresholding": False}
        made = SAMPLERS[name].from_config(self.schedule, **changed)
        made.set_timesteps(steps, device=self.device)
        return made

    @torch.no_grad()
    def encode(self, images: Sequence[Image]) -> Tensor:
        """(B, 4, h, w) float32: means of the autoencoder's posterior, scaled; each image by itself and only once."""
        return torch.stack([self._kept(image) for image in images]).to(self.device)

    def _kept(self, image: Image) -> Tensor:
        key = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
        if key not in self._latents:
            pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1).unsqueeze(0).to(self.device) / 127.5 - 1
            latents = self.vae.encode(pixels).latent_dist.mode() * self.vae.config.scaling_factor
            self._latents[key] = latents[0].float().cpu()
            if len(self._latents) > MAX_LATENTS:
                self._latents.popitem(last=False)
        self._latents.move_to_end(key)
        return self._latents[key]

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image]:
        """(H, W, 3) uint8 each, one after the other: the same shape gives the same bits."""
        return [self._decoded(one.unsqueeze(0)) for one in latents.float()]

    def pixels(self, latents: Tensor) -> Tensor:
        """(B, 3, H, W) float32, about -1 to 1; gradients pass."""
        found: Tensor = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return found.float()

    def _decoded(self, latents: Tensor) -> Image:
        pixels = self.pixels(latents)[0]
        scaled = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return np.ascontiguousarray(scaled.permute(1, 2, 0).cpu().numpy())

    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> Tensor:
        """(B, tokens, width) float32 embeddings; each prompt is computed once."""
        for prompt in set(prompts) - self._texts.keys():
            tokenizer, encoder = self._text_encoder()
            # Some tokenizers know no limit of their own.
            length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
            ids = tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
            self._texts[prompt] = encoder(ids).last_hidden_state[0].float()
        return torch.stack([self._texts[prompt] for prompt in prompts]).to(self.device)

    def _text_encoder(self) -> tuple[Any, Any]:
        """On the CPU: a handful of short prompts is no work, and an accelerator's memory is dear."""
        if self._encoder is None:
            from transformers import CLIPTextModel, CLIPTokenizer
            from transformers.utils import logging

            logging.disable_progress_bar()
            tokenizer = CLIPTokenizer.from_pretrained(self.found.folder / "tokenizer", local_files_only=True)
            self._encoder = tokenizer, frozen(read(CLIPTextModel, self.found, "text_encoder"))
        return self._encoder

    def around(self, regions: Sequence[Region]) -> Tensor:
        """(B, 5, h, w) for the 9-channel U-Net: the mask, and the latents of the pictures with grey in its place.

        A latent belongs to the mask where any of its pixels does.
        """
        masks = np.stack([region.weight > 0 for region in regions])
        emptied = [np.where(mask[..., None], np.uint8(127), region.source) for mask, region in zip(masks, regions, strict=True)]
        free = self.shares([mask.astype(np.float32) for mask in masks], at_most_one=True)
        return torch.cat([free, self.encode(emptied)], dim=1)

    def shares(self, weights: Sequence[NDArray[np.float32]], *, at_most_one: bool = False) -> Tensor:
        """(B, 1, h, w): the largest value of each latent's pixels."""
        stacked = torch.from_numpy(np.stack(weights)).unsqueeze(1).to(self.device)
        return F.max_pool2d(stacked.clamp(0, 1) if at_most_one else stacked, self.scale)


def read(kind: Any, found: Pretrained, part: str) -> Any:
    """One network with its weights, float32.

    Raises:
        WeightsError: Damaged, or not what its configuration says.
    """
    try:
        # Only safetensors, only from this disk.
        return kind.from_pretrained(found.folder / part, variant=found.variants[part], use_safetensors=True,
                                    local_files_only=True, torch_dtype=torch.float32)  # fmt: skip
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise WeightsError(f"the {part} of {found.name} cannot be read ({type(error).__name__}); download it again") from error


def read_unet(found: Pretrained) -> Any:
    return read(UNet2DConditionModel, found, "unet")


def new_controlnet(unet: Any, config: dict[str, Any] | None = None) -> Any:
    """A ControlNet that starts as the U-Net's own first half and changes nothing (Zhang et al. 2023, section 3.1); with the
    configuration of another one, an empty one for its weights."""
    return ControlNetModel.from_unet(unet) if config is None else ControlNetModel.from_config(config)


def read_controlnet(folder: Any) -> Any:
    """The ControlNet of a folder.

    Raises:
        WeightsError: There is none, or not as safetensors.
    """
    try:
        return ControlNetModel.from_pretrained(folder, use_safetensors=True, local_files_only=True, torch_dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise WeightsError(f"{folder} holds no ControlNet as safetensors (config.json and diffusion_pytorch_model.safetensors "
                           "are needed); leave it out to start from the U-Net") from error  # fmt: skip


def frozen(module: Any) -> Any:
    return module.eval().requires_grad_(False)


def placed(module: Any, on: torch.device, dtype: torch.dtype) -> Any:
    """As `devices.placed`; diffusers' own `to` warns of float32 layers even where a network has none."""
    return nn.Module.to(nn.Module.to(module, on, dtype), memory_format=torch.channels_last)  # type: ignore[call-overload]


def _schedule(kind: Any, found: Pretrained) -> Any:
    try:
        return kind.from_pretrained(found.folder / "scheduler", local_files_only=True)
    except (OSError, ValueError) as error:
        raise WeightsError(f"the scheduler of {found.name} cannot be read; download it again") from error


def picture_of(label_maps: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(B, H, W) class indices to (B, H, W, 3) colours of PASCAL VOC: the bits of the index, spread over the channels.

    All 256 differ, whatever the project's own colours are.
    """
    index = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette[label_maps]
