"""Which engine a model belongs to: built by the name in its architecture, imported when the first one comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from saadi import devices
from saadi.engines.base import TrainableEngine
from saadi.errors import WeightsError

MAX_KEPT = 2
"""Engines in memory, of which one may be large."""
_kept: dict[tuple[str, str], TrainableEngine] = {}
"""By architecture and file, the one used last at the end."""


def engine_from_file(architecture: dict[str, Any], file: Path) -> TrainableEngine:
    """The engine of a model.

    Raises:
        WeightsError: No such engine, or its weights are damaged, missing or of another architecture.
    """
    name = architecture.get("engine", "compact")
    if name == "compact":
        from saadi.engines.compact import CompactEngine

        return CompactEngine.from_file(architecture, file)
    if name == "stable-diffusion":  # its text encoder takes seconds to import
        from saadi.engines.stable_diffusion import StableDiffusionEngine

        return StableDiffusionEngine.from_file(architecture, file)
    raise WeightsError(f"this model was made by the engine {name!r}; this release has compact and stable-diffusion")


def kept_engine(architecture: dict[str, Any], file: Path) -> TrainableEngine:
    """The engine of a model, kept in memory for the next call; for sampling, as nobody may train what others use."""
    key = (json.dumps(architecture, sort_keys=True), str(file))
    found = _kept.pop(key, None)
    if found is None:
        _make_room(is_large=_is_large(architecture))
        found = engine_from_file(architecture, file)
    _kept[key] = found  # the newest is the last
    return found


def _make_room(*, is_large: bool) -> None:
    """Forget what is kept longest; of large engines all, before the next one comes: two would fill an accelerator."""
    gone = [key for key, engine in _kept.items() if is_large and _is_large(engine.architecture)]
    gone += [key for key in _kept if key not in gone][: max(0, len(_kept) - len(gone) - MAX_KEPT + 1)]
    for key in gone:
        del _kept[key]
    if gone:
        devices.release_memory()


def _is_large(architecture: dict[str, Any]) -> bool:
    return architecture.get("engine") == "stable-diffusion"


def forget_engines() -> None:
    """Give the memory of kept engines back; call before large weights are trained."""
    _kept.clear()


@contextmanager
def full_memory_told(way_out: str) -> Iterator[None]:
    """As `devices.memory_told`; where an accelerator is full, the kept engines are forgotten, so that the next job finds more."""
    with devices.memory_told(way_out):
        try:
            yield
        except torch.cuda.OutOfMemoryError:
            forget_engines()
            raise
