"""Layers whose weights stay as they are: cast once, and laid out once in the blocks that oneDNN computes on.

torch lays the weights of a bfloat16 convolution out anew in every call; at 8 x 8 sites that takes as long as the convolution.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saadi import devices


class Frozen:
    """A convolution's or linear layer's weights in the dtype that autocast would give them, without their gradients."""

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        self.versions = _versions(layer)
        self.device = layer.weight.device
        dtype = devices.fast_dtype(self.device)
        self.weight = layer.weight.detach().to(dtype)
        self.bias = layer.bias.detach().to(dtype) if layer.bias is not None else None

    def is_stale(self, layer: nn.Conv2d | nn.Linear) -> bool:
        return self.versions != _versions(layer) or self.device != layer.weight.device


def _versions(layer: nn.Conv2d | nn.Linear) -> tuple[int, int]:
    return layer.weight._version, layer.bias._version if layer.bias is not None else 0


class FrozenLinear(Frozen):
    """y = x W^T + b."""

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class FrozenConv(Frozen):
    """A convolution with fixed weights; gradients reach its input only."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer)
        self.stride = cast("tuple[int, int]", layer.stride)
        self.padding = cast("tuple[int, int]", layer.padding)
        self.dilation = cast("tuple[int, int]", layer.dilation)
        self.groups = layer.groups
        self._packed: Tensor | None = None
        self._packed_backward: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return cast(Tensor, _InputOnly.apply(x, self))
        return self.forward(x)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution without any bookkeeping for gradients."""
        if not _can_pack(x, self.weight):
            return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        if self._packed is None:
            self._packed = _pack(self.weight, self.stride, self.padding, self.dilation, self.groups, x)
        return _convolve(x, self._packed, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def backward(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """Gradient of the input, (N, C_in, H, W) = `shape`, from that of the output. The input itself plays no part in it."""
        if not (_can_pack(gradient, self.weight) and self._is_plain()):
            x = torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=torch.channels_last)
            return cast(Tensor, torch.ops.aten.convolution_backward(gradient, x, self.weight, None, self.stride, self.padding,
                        self.dilation, False, (0, 0), self.groups, (True, False, False))[0])  # fmt: skip
        # With stride 1 it is a convolution too, by the mirrored kernel with inputs and outputs exchanged.
        size = self.weight.shape[2]
        padding = (size - 1 - self.padding[0], size - 1 - self.padding[1])
        if self._packed_backward is None:
            mirrored = self.weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)
            self._packed_backward = _pack(mirrored, (1, 1), padding, (1, 1), 1, gradient)
        return _convolve(gradient, self._packed_backward, None, (1, 1), padding, (1, 1), 1)

    def _is_plain(self) -> bool:
        height, width = self.weight.shape[2:]
        return self.stride == self.dilation == (1, 1) and self.groups == 1 and height == width


def freeze_convolutions(module: nn.Module) -> None:
    """Let a module that is no longer trained lay out the weights of its convolutions only once."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.forward = FrozenConv(layer)  # type: ignore[assignment, method-assign]


class _InputOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, conv: FrozenConv) -> Tensor:
        ctx.conv, ctx.shape = conv, x.shape  # type: ignore[attr-defined]
        return conv.forward(x.to(conv.weight.dtype))

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        conv: FrozenConv = ctx.conv  # type: ignore[attr-defined]
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        return conv.backward(gradient, ctx.shape), None  # type: ignore[attr-defined]


def _can_pack(x: Tensor, weight: Tensor) -> bool:
    return bool(x.device.type == "cpu" and x.dtype == weight.dtype and torch.backends.mkldnn.is_available()
                and torch.backends.mkldnn.enabled and weight.dim() == 4)  # fmt: skip


def _pack(weight: Tensor, stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], groups: int,
          x: Tensor) -> Tensor:  # fmt: skip
    """oneDNN's own layout for inputs of this size; other sizes are right as well."""
    with torch.no_grad():
        return cast(Tensor, torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, dilation, groups,
                                                                          list(x.shape)))  # fmt: skip


def _convolve(x: Tensor, packed: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int],
              dilation: tuple[int, int], groups: int) -> Tensor:  # fmt: skip
    return cast(Tensor, torch.ops.mkldnn._convolution_pointwise(x, packed, bias, padding, stride, dilation, groups, "none", [],
                                                                ""))  # fmt: skip
