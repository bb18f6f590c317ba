"""GroupNorm whose backward pass is quick in channels_last on CPUs.

torch 2.13 reduces channels_last bfloat16 group by group in its backward kernel: 34 ms for (16, 64, 64, 64) in 16 groups on one
core, against 13 ms for the same formula written as whole-tensor operations. Forward, and every other device, stay torch's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MIN_PIXELS = 256


class GroupNorm(nn.GroupNorm):
    """Drop-in for `torch.nn.GroupNorm`: same parameters, same forward values."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) or (N, C, L), any float dtype."""
        needs_gradient = torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad)
        if not (needs_gradient and input.device.type == "cpu" and self.affine and _is_large_channels_last(input)):
            return super().forward(input)
        result: Tensor = _ChannelsLast.apply(input, self.weight, self.bias, self.num_groups, self.eps)
        return result


def replace_group_norms(module: nn.Module) -> None:
    """Put `GroupNorm` in the place of every `torch.nn.GroupNorm`; parameters and their names stay."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.GroupNorm:
                made = GroupNorm(child.num_groups, child.num_channels, child.eps, child.affine)
                made.load_state_dict(child.state_dict())
                setattr(parent, name, made)


def _is_large_channels_last(tensor: Tensor) -> bool:
    # On pictures of 8 x 8 torch's one kernel is quicker than the ten operations here.
    is_large = tensor.dim() == 4 and tensor.shape[2] * tensor.shape[3] >= MIN_PIXELS
    return is_large and tensor.is_contiguous(memory_format=torch.channels_last)


class _ChannelsLast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float) -> Tensor:
        count, channels, height, width = input.shape
        normed, mean, rstd = torch.native_group_norm(input, weight, bias, count, channels, height * width, num_groups, eps)
        ctx.save_for_backward(input, weight, mean, rstd)
        return normed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """y = (x - m) r w + b per group of n values, so dx = r w dy + x s + o, with s and o constant in each group."""
        input, weight, mean, rstd = ctx.saved_tensors
        count, channels, height, width = input.shape
        groups = mean.shape[1]
        size = channels // groups
        x, dy = _rows(input), _rows(gradients[0].contiguous(memory_format=torch.channels_last))
        mean, rstd, weight = mean.float(), rstd.float(), weight.float()
        sum_dy, sum_dy_x = _sum_of_rows(dy, width), _sum_of_rows(dy * x, width)
        in_group = (count, groups, size)
        of_dy, of_dy_x = (sum_dy * weight).view(in_group).sum(2), (sum_dy_x * weight).view(in_group).sum(2)
        slope = (of_dy * mean - of_dy_x) * rstd**3 / (height * width * size)
        offset = -slope * mean - of_dy * rstd / (height * width * size)

        def per_channel(values: Tensor) -> Tensor:
            return values.repeat_interleave(size, 1)

        scale = per_channel(rstd) * weight
        dx = torch.addcmul(
            per_channel(offset)[:, None].to(dy.dtype), dy, scale[:, None].to(dy.dtype)
        ).addcmul_(x, per_channel(slope)[:, None].to(dy.dtype))  # fmt: skip
        d_weight = ((sum_dy_x - per_channel(mean) * sum_dy) * per_channel(rstd)).sum(0) if ctx.needs_input_grad[1] else None
        d_bias = sum_dy.sum(0) if ctx.needs_input_grad[2] else None
        return dx.view(count, height, width, channels).permute(0, 3, 1, 2), d_weight, d_bias, None, None


def _rows(tensor: Tensor) -> Tensor:
    """(N, C, H, W) in channels_last as (N, H W, C), without a copy."""
    return tensor.permute(0, 2, 3, 1).flatten(1, 2)


def _sum_of_rows(rows: Tensor, width: int) -> Tensor:
    """(N, H W, C) to (N, C) float32. In two stages: sum(dtype=float32) at once would first copy everything to float32."""
    return rows.unflatten(1, (-1, width)).sum(2).sum(1, dtype=torch.float32)
