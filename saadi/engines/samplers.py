"""ODE samplers on the path x_t = (1 - t) x + t eps, written on the estimate of the clean image."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

from torch import Tensor

from saadi.engines.base import StepCallback

Clean = Callable[[Tensor, float], Tensor]
"""(noisy (B, C, H, W), time) -> estimate of the clean image."""


class Sampler(Protocol):
    def __call__(self, clean: Clean, noise: Tensor, *, steps: int, shift: float, on_step: StepCallback) -> Tensor: ...


def time_grid(steps: int, *, shift: float = 1.0) -> list[float]:
    """steps + 1 times from 1 (pure noise) to 0; shift 1 spaces them evenly, more spends them at high noise (Esser et al.
    2024, eq. 23)."""
    even = [1 - index / steps for index in range(steps)]
    return [shift * time / (1 + (shift - 1) * time) for time in even] + [0.0]


def euler(clean: Clean, noise: Tensor, *, steps: int, shift: float, on_step: StepCallback) -> Tensor:
    """First order: follow the velocity (x_t - x) / t of each step."""
    grid = time_grid(steps, shift=shift)
    noisy = noise
    for index, (time, following) in enumerate(pairwise(grid), start=1):
        estimate = clean(noisy, time)
        noisy = estimate + (noisy - estimate) * (following / time)
        on_step(index, steps)
    return noisy


def dpm_solver_2m(clean: Clean, noise: Tensor, *, steps: int, shift: float, on_step: StepCallback) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2) with alpha = 1 - t, sigma = t; first and last step are first order."""
    grid = time_grid(steps, shift=shift)
    noisy, previous, last_h = noise, None, 0.0
    for index, (time, following) in enumerate(pairwise(grid), start=1):
        estimate = clean(noisy, time)
        if following == 0.0:
            noisy = estimate
        else:
            h = _log_snr(following) - _log_snr(time)
            blended = estimate
            if previous is not None and math.isfinite(last_h):
                blended = estimate + (estimate - previous) * (h / (2 * last_h))
            noisy = (following / time) * noisy - (1 - following) * math.expm1(-h) * blended
            last_h, previous = h, estimate
        on_step(index, steps)
    return noisy


def _log_snr(time: float) -> float:
    return math.inf if time <= 0 else math.log(max(1 - time, 1e-12) / time)


SAMPLERS: dict[str, Sampler] = {"euler": euler, "dpm_solver_2m": dpm_solver_2m}
