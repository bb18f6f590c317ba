"""The weights in `assets/phantom`: fitted to rendered scenes by `scripts/make_assets.py`, no patient data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from saadi.config import assets_dir
from saadi.errors import WeightsError


def manifest() -> dict[str, Any]:
    """Per model ('engine', 'selector', 'judge'; 'demo' = an adapter of the engine): its file, architecture, hash, origin.

    Raises:
        WeightsError: The checkout has no `assets/phantom`.
    """
    try:
        found: dict[str, Any] = json.loads((assets_dir() / "phantom" / "manifest.json").read_text())
    except FileNotFoundError as error:
        raise WeightsError(f"the shipped weights are missing ({error.filename}); get the repository again, or run "
                           "scripts/make_assets.py") from error  # fmt: skip
    return found


def file(kind: str) -> Path:
    """Where a shipped model's safetensors file lies."""
    return assets_dir() / "phantom" / str(manifest()[kind]["file"])


def demo_generator() -> bytes:
    """Safetensors bytes of the demo's generator: the shipped one with the adapter that gives it its weakness folded in.

    In numpy, so that the page's process need not load torch for it.
    """
    state, adapter = load(file("engine").read_bytes()), load(file("demo").read_bytes())
    for name, down in adapter.items():
        if ".lora_A." in name:
            up = adapter[name.replace(".lora_A.", ".lora_B.")].astype(np.float32)
            change = np.tensordot(up.reshape(up.shape[:2]), down.astype(np.float32), 1)
            target = name.removeprefix("base_model.model.").replace(".lora_A.", ".")
            state[target] = (state[target].astype(np.float32) + change).astype(state[target].dtype)
    return save(dict(sorted(state.items())))
