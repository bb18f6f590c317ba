"""diffusers' residual block without the passes that change nothing: it divides every output by a factor of 1."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class ResidualBlock(ResnetBlock2D):
    """Same parameters and, bit for bit, the same values as `ResnetBlock2D` in the form that `UNet2DModel` uses."""

    recompute_in: Callable[[], AbstractContextManager[None]] | None = None
    """Keep no activations for the backward pass, but compute them anew, inside this context; None = keep them."""

    def forward(self, input_tensor: Tensor, temb: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """input_tensor: (N, C, H, W); temb: (N, E) embedding of time and augmentation."""
        if self.recompute_in is None or not torch.is_grad_enabled():
            return self._forward(input_tensor, temb)
        # The backward pass comes after the forward's context has been left: what was computed in it is computed in it again.
        contexts = (nullcontext(), self.recompute_in())
        return cast(Tensor, checkpoint(self._forward, input_tensor, temb, use_reentrant=False, context_fn=lambda: contexts))

    def _forward(self, input_tensor: Tensor, temb: Tensor) -> Tensor:
        hidden = self.conv1(self.nonlinearity(self.norm1(input_tensor)))
        # In place: a convolution keeps its input for the backward pass, not its output.
        hidden = _added(hidden, self.time_emb_proj(self.nonlinearity(temb))[:, :, None, None])
        hidden = self.conv2(self.dropout(self.nonlinearity(self.norm2(hidden))))
        return _added(hidden, self.conv_shortcut(input_tensor) if self.conv_shortcut is not None else input_tensor)


def replace_residual_blocks(module: nn.Module) -> None:
    """Turn every `ResnetBlock2D` of the plain form into a `ResidualBlock`; parameters and their names stay."""
    for block in module.modules():
        if type(block) is ResnetBlock2D and _is_plain(block):
            block.__class__ = ResidualBlock


def _is_plain(block: ResnetBlock2D) -> bool:
    return bool(
        block.upsample is None
        and block.downsample is None
        and block.time_embedding_norm == "default"
        and block.time_emb_proj is not None
        and not block.skip_time_act
        and block.output_scale_factor == 1.0
    )


def _added(made: Tensor, other: Tensor) -> Tensor:
    return made.add_(other) if made.dtype == other.dtype else made + other
