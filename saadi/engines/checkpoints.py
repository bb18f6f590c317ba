"""Checkpoints of a training: tensors and optimiser in one safetensors file, never torn, continued exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from saadi.jobs import checkpointed

NAME = "checkpoint.safetensors"
log = structlog.get_logger()


def save(
    folder: Path,
    *,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    config: dict[str, Any],
    state: dict[str, Any],
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write trainable parameters, their optimiser moments, further tensors, and JSON state."""
    everything = {f"parameter.{name}": parameter.detach() for name, parameter in parameters.items()}
    everything |= {f"tensor.{name}": tensor for name, tensor in (tensors or {}).items()}
    for name, parameter in parameters.items():
        everything |= {
            f"optimizer.{name}.{key}": torch.as_tensor(value) for key, value in optimizer.state.get(parameter, {}).items()
        }
    with checkpointed(folder, NAME) as path:
        save_file(
            {name: tensor.detach().contiguous().cpu().clone() for name, tensor in everything.items()},
            path,
            metadata={"state": json.dumps({"config": config, **state})},
        )


def restore(
    folder: Path, *, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, config: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Fill parameters and optimiser from a checkpoint.

    Returns:
        (state, further tensors) as given to `save`, or None when there is no checkpoint, or one of other settings or data (the
        training then starts again).
    """
    path = folder / NAME
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as opened:
        state: dict[str, Any] = json.loads(opened.metadata()["state"])
    if state.pop("config") != config:
        log.warning("checkpoint_of_other_settings", folder=folder.name)
        return None
    tensors = load_file(path)
    is_fused = any(group.get("fused") for group in optimizer.param_groups)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"parameter.{name}"])
            optimizer.state[parameter] = {}
            for key, value in ((key, value) for key, value in tensors.items() if key.startswith(f"optimizer.{name}.")):
                # Moments must keep the parameter's memory layout: the fused optimiser walks both in storage order.
                same = value.shape == parameter.shape
                moment = torch.empty_like(parameter).copy_(value) if same else value.to(parameter.device if is_fused else "cpu")
                optimizer.state[parameter][key.removeprefix(f"optimizer.{name}.")] = moment
    return state, {key.removeprefix("tensor."): value for key, value in tensors.items() if key.startswith("tensor.")}
