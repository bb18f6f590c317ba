"""Which engine a model belongs to: built by the name in its architecture, imported when the first one comes."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from saadi.engines.base import TrainableEngine
from saadi.errors import WeightsError


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


@lru_cache(maxsize=2)
def _kept(architecture: str, file: str) -> TrainableEngine:
    return engine_from_file(json.loads(architecture), Path(file))


def kept_engine(architecture: dict[str, Any], file: Path) -> TrainableEngine:
    """The engine of a model, kept in memory for the next call; for sampling, as nobody may train what others use."""
    return _kept(json.dumps(architecture, sort_keys=True), str(file))


def forget_engines() -> None:
    """Give the memory of kept engines back; call before large weights are trained."""
    _kept.cache_clear()
