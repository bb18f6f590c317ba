"""What every engine offers, so that one generation, one fitting and one alignment recipe serve them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from saadi.engines.appearance import Reference
from saadi.engines.regions import Region
from saadi.engines.starting import NoiseShift
from saadi.errors import BadInputError
from saadi.records import Image, LabelMap

SAMPLING_BATCH = 4
"""Every sampling batch is padded to this size: convolution kernels choose their summation order by shape, so only a fixed
shape makes the image of a seed independent of its company, bit for bit."""
Condition: TypeAlias = Any
"""What an engine makes of label maps. Recipes only hand it back to the same engine; most engines take a tensor."""

StepCallback = Callable[[int, int], None]
"""Called as (step, total) after each network evaluation; may raise CancelledError."""


def no_callback(step: int, total: int) -> None:
    """A `StepCallback` that does nothing."""


Look = Callable[[], list[Image]]
"""Decodes what the network believes by now: its estimate of the clean image, one per image of the batch being made."""
PreviewCallback = Callable[[Look], None]
"""Called after each network evaluation; nothing is decoded unless it calls what it is given."""


@dataclass(frozen=True)
class Negative:
    """An adapter that has learnt what is not wanted, for the unconditional half of guidance (Diffusion-NPO, arXiv:2505.11245)."""

    adapter: Path
    scale: float = 1.0
    """Strength that it was made with, as `adapter_scale`."""
    weight: float = 1.0
    """0 to 1: weights of that half, from those of the other half (plain guidance) to the adapter's."""

    def need_guidance(self, guidance_scale: float) -> None:
        """Raises: BadInputError: there is no guidance for it to work in."""
        if guidance_scale <= 1:
            raise BadInputError("a negative adapter works in the unconditional half of guidance, and guidance is off at "
                                f"{guidance_scale:g}; choose a guidance scale above 1, or leave the adapter out")  # fmt: skip


class Rollout(NamedTuple):
    """Sampling in a few steps as something to differentiate by its start noise; the weights get no gradient."""

    noise: tuple[int, int, int]
    """Channels, height and width of the start noise."""
    pixels: Callable[[Tensor, Sequence[LabelMap], Sequence[Region] | None], Tensor]
    """(B, *noise), B label maps and regions as in `Engine.generate` -> (B, 3, H, W) in [-1, 1]."""
    at_once: int = SAMPLING_BATCH
    """Images that memory is meant for."""


class Engine(Protocol):
    """Makes images from label maps. Picklable by its architecture and weights file; holds no store."""

    name: str
    needs_picture: bool
    """It only paints into pictures: `generate` needs regions, `encode_label_maps` the images."""
    resolution: int
    """Side in pixels of the images it makes."""
    architecture: dict[str, Any]

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
        """One image per label map and seed.

        Args:
            label_maps: (H, W) uint8 each; other sizes than the engine's are scaled to it (nearest neighbour).
            seeds: One per image; the image of a seed does not depend on what else is in the batch.
            num_inference_steps: None = the number stored with the weights.
            guidance_scale: 1 = no guidance; None = the one stored with the weights, where there is none 1.
            adapter: A LoRA file, or None for the base weights.
            negative: What guidance leads away from; None = plain guidance.
            on_preview: Called after each network evaluation, before `on_step`; the last look is the final image.
            regions: One per label map: only these parts are made, each into its own source. None = whole images.
            references: What classes are to look like, in all images; for weights that have learnt to.
            start: Moves the start noise of each seed; None = as it is drawn.

        Returns:
            (resolution, resolution, 3) uint8 RGB each.
        """


class TrainableEngine(Engine, Protocol):
    """Also gives what fitting and alignment need: its denoiser, its noising and its conditioning."""

    device: torch.device

    @property
    def denoiser(self) -> nn.Module:
        """LoRA attaches to it; float32, but for large frozen weights on an accelerator."""

    def weights_changed(self) -> None:
        """Forget copies made for sampling; call after the denoiser was trained."""

    def recompute_activations(self, inside: Callable[[], AbstractContextManager[None]]) -> None:
        """Gradient checkpointing from now on: activations are not kept for the backward pass but computed anew, in `inside`."""

    def rollout(self, *, steps: int, adapter: Path | None = None, adapter_scale: float = 1.0) -> Rollout:
        """Sampling without guidance; the backward pass computes activations anew, so that never those of two steps are kept."""

    def encode_images(self, images: Sequence[Image]) -> Tensor:
        """(B, C, h, w) float32: what is noised; for pixel engines the image in [-1, 1]."""

    def encode_label_maps(self, label_maps: Sequence[LabelMap], images: Sequence[Image] | None = None) -> Condition:
        """What `errors` takes as its condition, B rows; for the compact engine (B, num_classes, h, w) float32 one-hot.

        Args:
            images: The pictures that the label maps belong to; only engines that need a picture look at them, and only outside
                `named_region`.
        """

    def errors(self, clean: Tensor, condition: Condition, times: Tensor, noise: Tensor) -> Tensor:
        """(B,) float32: weighted mean squared error of the denoiser, per image.

        Args:
            clean: As from `encode_images`.
            condition: As from `encode_label_maps`; with B / k rows they are repeated k times.
            times: (B,) in (0, 1), 1 = pure noise.
            noise: Same shape as `clean`, standard normal.
        """

    def errors_and_residuals(
        self, clean: Tensor, condition: Condition, times: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`errors`, and what the denoiser is off by: (B, C, h, w) float32 whose mean square per image is the error."""

    def sample_times(self, count: int, *, generator: torch.Generator) -> Tensor:
        """(count,) float32 in (0, 1), drawn as in fitting."""
