"""Benchmarks: speed and memory as ratios against a named reference, measured in one run, median of several."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from saadi.errors import BadInputError

BENCHES: dict[str, str] = {
    "generation": "saadi.bench.generation",
    "fitting": "saadi.bench.fitting",
    "alignment": "saadi.bench.alignment",
    "memory": "saadi.bench.memory",
    "exports": "saadi.bench.exports",
    "audit": "saadi.bench.audit",
    "quality": "saadi.bench.quality",
    "clicks": "saadi.bench.clicks",
    "ui": "saadi.bench.page",
}


def main(names: Sequence[str] = (), out: Path | None = None) -> dict[str, Any]:
    """Run benchmarks (all of them when none is named), print their ratios and write them as JSON.

    Raises:
        BadInputError: an unknown name.
    """
    if unknown := sorted(set(names) - set(BENCHES)):
        raise BadInputError(f"no benchmark {unknown[0]!r}; there are: {', '.join(BENCHES)}")
    results: dict[str, Any] = {"machine": machine(), "command": "python -m saadi bench " + " ".join(names)}
    for name in names or BENCHES:
        results[name] = import_module(BENCHES[name]).run()
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=1) + "\n")
    return results


def machine() -> dict[str, Any]:
    """What the figures depend on, without names."""
    import torch

    from saadi import config, devices

    return {
        "processor": platform.machine(), "threads": config.num_threads(), "device": devices.device().type,
        "dtype": str(devices.fast_dtype(devices.device())), "torch": torch.__version__, "python": platform.python_version(),
    }  # fmt: skip


def median_seconds(work: Callable[[], object], *, repeats: int, warm_up: int = 1) -> float:
    """Median wall time of a call in seconds."""
    for _ in range(warm_up):
        work()
    return median(_seconds(work) for _ in range(repeats))


def paired_medians(
    first: Callable[[], object], second: Callable[[], object], *, repeats: int, block: int = 4
) -> tuple[float, float]:
    """Median wall times of two calls that take turns, so that a slow minute of the machine hits both.

    Args:
        block: Calls in a row before the other's turn; the first of each is not counted, since it finds the caches full of the
            other's data, which no real run does.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for work, kept in zip((first, second), times, strict=True):
            work()
            kept += [_seconds(work) for _ in range(block - 1)]
    return median(times[0]), median(times[1])


def _seconds(work: Callable[[], object]) -> float:
    import torch

    began = time.perf_counter()
    work()
    if torch.cuda.is_available():  # kernels are only queued until here
        torch.cuda.synchronize()
    return time.perf_counter() - began
