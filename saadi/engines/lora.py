"""LoRA adapters by peft: attached, switched off for the reference, scaled, merged, saved as safetensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from saadi.engines import weights
from saadi.errors import WeightsError

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2")
"""Attention and the convolutions of the residual blocks: texture and faithfulness live in the latter."""
POLICY = "policy"
REFERENCE = "reference"


def attach(module: nn.Module, *, rank: int, parent: Path | None = None, parent_scale: float = 1.0, seed: int = 0) -> PeftModel:
    """Wrap a module with a fresh trainable adapter `policy`; its base weights are frozen.

    Args:
        rank: Of the policy where it has no parent; otherwise it keeps the parent's.
        parent: The previous round's adapter. The policy starts as its copy, and it stays as the second, frozen adapter
            `reference`.
    """
    state = weights.read(parent) if parent is not None else None
    rank = rank_of(state) if state is not None else rank
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wrapped = get_peft_model(module, config(rank), adapter_name=POLICY)
    if state is not None and parent is not None:
        wrapped.add_adapter(REFERENCE, config(rank))
        for name in (POLICY, REFERENCE):
            _fill(wrapped, state, name=name, file=parent, scale=parent_scale)
        wrapped.set_adapter(POLICY)
        for key, parameter in wrapped.named_parameters():
            parameter.requires_grad_(f".{POLICY}." in key)
    return cast(PeftModel, wrapped)


@contextmanager
def reference_mode(wrapped: PeftModel) -> Iterator[None]:
    """Inside, the module is the reference: adapters off, or the previous round's adapter on. Afterwards the policy is active
    again."""
    if REFERENCE in wrapped.peft_config:
        wrapped.set_adapter(REFERENCE)
        try:
            yield
        finally:
            wrapped.set_adapter(POLICY)
            for key, parameter in wrapped.named_parameters():
                parameter.requires_grad_(f".{POLICY}." in key)
    else:
        with wrapped.disable_adapter():
            yield


def state(wrapped: PeftModel) -> dict[str, Tensor]:
    """The policy's tensors under peft's own names, so that other programs can load them."""
    found = get_peft_model_state_dict(wrapped, adapter_name=POLICY)
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def scaled(tensors: dict[str, Tensor], scale: float, *, parent: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """An adapter with `scale` times of what it has learnt: its B matrices are multiplied, so any program reads it rightly.

    Args:
        parent: What it started from: the way back leads there, 0 = the parent, not to the base.
    """
    if parent is not None:
        return {name: torch.lerp(parent[name].to(tensor), tensor, scale) for name, tensor in tensors.items()}
    return {name: tensor * scale if "lora_B" in name else tensor for name, tensor in tensors.items()}


def fill(wrapped: PeftModel, tensors: dict[str, Tensor]) -> None:
    """Put an adapter's tensors, as `state` returns them, into the policy."""
    set_peft_model_state_dict(wrapped, tensors, adapter_name=POLICY)


def load(module: nn.Module, file: Path, *, scale: float = 1.0) -> PeftModel:
    """Wrap a module with a saved adapter.

    Raises:
        WeightsError: Damaged, or made for another model.
    """
    return wrap(module, weights.read(file), file=file, scale=scale)


def wrap(module: nn.Module, saved: dict[str, Tensor], *, file: Path, scale: float = 1.0) -> PeftModel:
    """Wrap a module with an adapter's tensors, as `state` gives them; `file` is named where they do not fit."""
    wrapped = get_peft_model(module, config(rank_of(saved)), adapter_name=POLICY)
    _fill(wrapped, saved, name=POLICY, file=file, scale=scale)
    return cast(PeftModel, wrapped)


def set_scale(wrapped: PeftModel, scale: float, *, name: str = POLICY) -> None:
    """Scale one adapter's contribution in every layer, convolutions included (diffusers' `set_adapters` leaves those at 1)."""
    for layer in wrapped.modules():
        if isinstance(layer, LoraLayer) and name in layer.scaling:
            layer.scaling[name] = scale * layer.lora_alpha[name] / layer.r[name]


def is_attached(module: nn.Module) -> bool:
    return any(isinstance(layer, LoraLayer) for layer in module.modules())


def target_weights(module: nn.Module) -> dict[str, Tensor]:
    """Layer name -> float32 copy on the CPU of the weights that an adapter changes; of a module without one."""
    return {name: layer.weight.detach().float().cpu().clone() for name, layer in module.named_modules()
            if any(name == target or name.endswith(f".{target}") for target in TARGETS)}  # fmt: skip


@torch.no_grad()
def lean_towards(module: nn.Module, start: Mapping[str, Tensor], weight: float) -> nn.Module:
    """Leave a share of `weight` of what distinguishes a module from `start`, as `target_weights` gives it for another one."""
    for name, layer in module.named_modules():
        if name in start:
            own = cast(nn.Linear, layer).weight
            own.data = torch.lerp(start[name].to(own.device), own.float(), weight)
    return module


def merged(wrapped: nn.Module, *, exact: Mapping[str, Tensor] | None = None) -> nn.Module:
    """The plain module with the active adapter folded into its weights; works on wrapped modules and on their bare inside.

    Args:
        exact: `target_weights` of the base, where the module holds them rounded to bfloat16: added to rounded weights, a small
            adapter would be rounded away. The changed layers are float32 then, to be cast once.
    """
    if exact:
        inside = wrapped.get_base_model() if isinstance(wrapped, PeftModel) else wrapped
        for name, layer in inside.named_modules():
            if isinstance(layer, LoraLayer):
                base = cast(nn.Linear, layer.get_base_layer())
                base.weight.data = exact[name].to(base.weight.device, copy=True)
    if isinstance(wrapped, PeftModel):
        return cast(nn.Module, wrapped.merge_and_unload())
    for name, layer in list(wrapped.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()
            parent = wrapped.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], layer.get_base_layer())
    return wrapped


def config(rank: int) -> LoraConfig:
    """What peft needs to know of every adapter here; scaling is 1 (alpha = rank)."""
    return LoraConfig(r=rank, lora_alpha=rank, target_modules=list(TARGETS), init_lora_weights=True)


def rank_of(saved: dict[str, Tensor]) -> int:
    for name, tensor in saved.items():
        if "lora_A" in name:
            return int(tensor.shape[0])
    raise WeightsError("this file holds no LoRA adapter; choose one that `align` has made")


def _fill(wrapped: PeftModel, saved: dict[str, Tensor], *, name: str, file: Path, scale: float) -> None:
    expected = get_peft_model_state_dict(wrapped, adapter_name=name)
    for key in sorted(expected.keys() | saved.keys()):
        if key not in saved or key not in expected or saved[key].shape != expected[key].shape:
            raise WeightsError(f"adapter {file.name[:12]} was made for another model: {key} does not fit")
    set_peft_model_state_dict(wrapped, {key: tensor.float() for key, tensor in saved.items()}, adapter_name=name)
    set_scale(wrapped, scale, name=name)
