"""The weights in `assets/phantom`: fitted to rendered scenes by `scripts/make_assets.py`, no patient data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from saadi.config import assets_dir


def manifest() -> dict[str, Any]:
    """Per model ('engine', 'selector', 'judge'): its file, architecture, hash and how it was made."""
    found: dict[str, Any] = json.loads((assets_dir() / "phantom" / "manifest.json").read_text())
    return found


def file(kind: str) -> Path:
    """Where a shipped model's safetensors file lies."""
    return assets_dir() / "phantom" / str(manifest()[kind]["file"])
