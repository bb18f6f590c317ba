"""Training a LoRA adapter quickly: adapted layers as one autograd node each, frozen layers with fixed weights.

peft's own forward casts x to float32 and back (autocast undoes it), multiplies the full-size result by the scale and adds out of
place; autocast casts all weights in every call; and the gradient of the input is computed twice, for base and adapter. Here the
values are the same, bit for bit, and the input's gradient is that of the sum: (W + s B A)^T g.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from saadi import devices
from saadi.engines.frozen import Frozen, FrozenConv, FrozenLinear

Arm = tuple[Tensor, Tensor, int]
"""Parameters A and B of one adapter, and where their copies in the dtype of the computation are found."""
MIN_MERGED_PIXELS = 256
"""Below, laying out the summed weight anew costs more than a second convolution to few channels."""


@contextmanager
def lean_forward(wrapped: PeftModel) -> Iterator[None]:
    """Inside, the module computes the same values with less work; its parameters and their gradients stay where they are.

    A module that checkpoints its activations is left alone: it computes them anew in the backward pass, outside of this context.
    """
    if any(getattr(layer, "gradient_checkpointing", False) for layer in wrapped.modules()):
        yield
        return
    plan = _PLANS.get(wrapped)
    if plan is None or plan.is_stale():
        plan = _PLANS[wrapped] = _Plan(wrapped)
    plan.cast_adapters()
    with plan.in_place():
        yield


def lean_again(wrapped: PeftModel) -> AbstractContextManager[None]:
    """The last `lean_forward` once more, for what is computed anew in its backward pass: the parameters are what they were."""
    return _PLANS[wrapped].in_place()


class _Plan:
    """What each layer of a wrapped module computes inside `lean_forward`."""

    def __init__(self, wrapped: PeftModel) -> None:
        self.forwards: list[tuple[nn.Module, Callable[[Tensor], Tensor]]] = []
        self._frozen: list[tuple[Any, Frozen]] = []
        self._parameters: list[Tensor] = []
        self._copies: list[Tensor] = []
        self._dtype = devices.fast_dtype(next(wrapped.parameters()).device)
        inside: set[nn.Module] = set()
        for layer in wrapped.modules():
            if isinstance(layer, LoraLayer):
                module = cast(nn.Module, layer)
                inside |= set(module.modules()) - {module}
                base = self._freeze(layer.get_base_layer())
                arms = {name: self._arm(layer, name) for name in layer.lora_A}
                self.forwards.append((module, _Adapted(layer, base, arms, self._copies)))
            elif isinstance(layer, nn.Conv2d | nn.Linear) and layer not in inside and not layer.weight.requires_grad:
                self.forwards.append((layer, self._freeze(layer)))

    def _freeze(self, layer: Any) -> FrozenConv | FrozenLinear:
        made = FrozenConv(layer) if isinstance(layer, nn.Conv2d) else FrozenLinear(layer)
        self._frozen.append((layer, made))
        return made

    def _arm(self, layer: Any, name: str) -> Arm:
        pair = (layer.lora_A[name].weight, layer.lora_B[name].weight)
        self._parameters += [parameter.detach() for parameter in pair]
        return (*pair, len(self._parameters) - 2)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        for layer, forward in self.forwards:
            layer.forward = forward
        try:
            yield
        finally:
            for layer, _ in self.forwards:
                del layer.forward

    def is_stale(self) -> bool:
        return any(made.is_stale(layer) for layer, made in self._frozen)

    def cast_adapters(self) -> None:
        """All at once; autocast would cast each tensor in each call, with an autograd node of its own.

        Into new tensors each time: a graph that still waits for its backward pass keeps those that it was computed with.
        """
        self._copies[:] = [torch.empty_like(parameter, dtype=self._dtype) for parameter in self._parameters]
        torch._foreach_copy_(self._copies, self._parameters)


_PLANS: WeakKeyDictionary[nn.Module, _Plan] = WeakKeyDictionary()


class _Adapted:
    """base(x) + s B(A(x)) for the adapters that are active at the time of the call."""

    def __init__(self, layer: Any, base: FrozenConv | FrozenLinear, arms: dict[str, Arm], copies: list[Tensor]) -> None:
        self.layer, self.base, self.arms, self.copies = layer, base, arms, copies

    def __call__(self, x: Tensor) -> Tensor:
        if self.layer.disable_adapters:
            return self.base(x.to(self.base.weight.dtype))
        (name,) = self.layer.active_adapters
        down, up, first = self.arms[name]
        a, b = self.copies[first], self.copies[first + 1]
        node = _ConvNode if isinstance(self.base, FrozenConv) else _LinearNode
        return cast(Tensor, node.apply(x.to(self.base.weight.dtype), down, up, a, b, self.base, self.layer.scaling[name]))


class _ConvNode(torch.autograd.Function):
    """A is a convolution like the base's to r channels, B one of 1 x 1 back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, down: Tensor, up: Tensor, a: Tensor, b: Tensor, base: FrozenConv, scale: float) -> Tensor:
        ctx.base, ctx.scale = base, scale
        hidden = F.conv2d(x, a, None, base.stride, base.padding)
        ctx.save_for_backward(x, hidden, a, b)
        return base.forward(x).add_(_scaled(F.conv2d(hidden, b), scale))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, a, b = ctx.saved_tensors
        base: FrozenConv = ctx.base
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        count, channels, height, width = gradient.shape
        rank, pixels = a.shape[0], height * width
        rows = gradient.permute(0, 2, 3, 1).reshape(count, pixels, channels)
        narrow = hidden.permute(0, 2, 3, 1).reshape(count, pixels, rank)
        # One product per image where images are large: a single long and thin one keeps most of the threads waiting.
        d_up = (torch.bmm(narrow.transpose(1, 2), rows).sum(0, dtype=torch.float32).t() if pixels >= 1024
                else (narrow.flatten(0, 1).t() @ rows.flatten(0, 1)).float().t())  # fmt: skip
        wide_b = b.view(channels, rank) if ctx.scale == 1 else b.view(channels, rank) * ctx.scale
        d_hidden = (rows.flatten(0, 1) @ wide_b).view(count, height, width, rank).permute(0, 3, 1, 2)
        needs_input = ctx.needs_input_grad[0]
        is_merged = needs_input and pixels >= MIN_MERGED_PIXELS
        of_x, d_down = _gradients(d_hidden, x, a, base, of_input=needs_input and not is_merged, of_weight=True)
        d_x = None
        if is_merged:
            d_x, _ = _gradients(gradient, x, _merged(base.weight, a, wide_b), base, of_input=True, of_weight=False)
        elif needs_input:
            d_x = base.backward(gradient, x.shape).add_(of_x)
        return d_x, d_down.float(), (d_up * ctx.scale).reshape(b.shape), None, None, None, None


class _LinearNode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, down: Tensor, up: Tensor, a: Tensor, b: Tensor, base: FrozenLinear, scale: float) -> Tensor:
        hidden = F.linear(x, a)
        ctx.save_for_backward(x, hidden, a, b)
        ctx.base, ctx.scale = base, scale
        return base(x).add_(_scaled(F.linear(hidden, b), scale))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, a, b = ctx.saved_tensors
        rows = gradients[0].flatten(0, -2)
        b = b * ctx.scale if ctx.scale != 1 else b
        d_up = (rows.t() @ hidden.flatten(0, -2)).float() * ctx.scale
        d_down = ((rows @ b).t() @ x.flatten(0, -2)).float()
        d_x = (rows @ torch.addmm(ctx.base.weight, b, a)).view(x.shape) if ctx.needs_input_grad[0] else None
        return d_x, d_down, d_up, None, None, None, None


def _scaled(made: Tensor, scale: float) -> Tensor:
    """Rounded once before the sum, as peft does it."""
    return made if scale == 1 else made.mul_(scale)


def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, like: FrozenConv, *, of_input: bool, of_weight: bool
) -> tuple[Tensor, Tensor]:
    found = torch.ops.aten.convolution_backward(gradient, x, weight, None, like.stride, like.padding, like.dilation, False,
                                                (0, 0), like.groups, (of_input, of_weight, False))  # fmt: skip
    return found[0], found[1]


def _merged(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """W + B A as a (C_out, C_in, k, k) kernel in channels_last."""
    out, channels, height, width = weight.shape
    kernel = torch.addmm(weight.permute(0, 2, 3, 1).reshape(out, -1), b, a.permute(0, 2, 3, 1).reshape(a.shape[0], -1))
    return kernel.view(out, height, width, channels).permute(0, 3, 1, 2)
