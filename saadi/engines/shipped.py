"""The weights in `assets/phantom`: fitted to rendered scenes by `scripts/make_assets.py`, no patient data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from saadi.config import assets_dir
from saadi.errors import WeightsError


def manifest() -> dict[str, Any]:
    """Per model ('engine', 'selector', 'judge'): its file, architecture, hash and how it was made.

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
