"""Weights come and go as safetensors only: header cap, finite values, matching names and shapes."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from saadi.config import MAX_WEIGHTS_HEADER_BYTES
from saadi.errors import WeightsError


def read(file: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Raises:
        WeightsError: Not safetensors, damaged, an oversized header, or values that are not finite.
    """
    data = file.read_bytes()
    if len(data) < 8 or struct.unpack("<Q", data[:8])[0] > min(len(data) - 8, MAX_WEIGHTS_HEADER_BYTES):
        raise WeightsError(
            f"{file.name} is not a safetensors file or its header is damaged; only safetensors weights are accepted"
        )
    try:
        state = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"{file.name} is damaged ({error}); fetch it again") from error
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
            raise WeightsError(f"{file.name} holds values that are not finite in {name}; it cannot be used")
    return state


def to_bytes(state: dict[str, Tensor], *, dtype: torch.dtype | None = None, metadata: dict[str, object] | None = None) -> bytes:
    """Safetensors bytes, keys in sorted order; `dtype` converts floating tensors."""
    tensors = {
        name: (tensor.detach().to(dtype) if dtype and tensor.is_floating_point() else tensor.detach()).cpu().contiguous()
        for name, tensor in sorted(state.items())
    }
    return save(tensors, metadata={"saadi": json.dumps(metadata, sort_keys=True)} if metadata else None)


def load_state(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Load weights into a float32 module.

    Raises:
        WeightsError: Names or shapes differ; the first difference is named.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise WeightsError(
                f"these weights belong to another architecture: {name} is {found.get(name, 'missing')}, "
                f"expected {expected.get(name, 'nothing')}"
            )
    module.load_state_dict({name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()})
