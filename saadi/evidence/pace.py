"""How long a measurement takes here, before it has begun. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from saadi.records import Job

FIT_S, SCORER_S, JUDGE_S, ARM_S, ALIGN_S = 0.28, 0.20, 0.35, 0.20, 0.95
"""Seconds per step at 128 px on two cores."""
IMAGE_S = 0.08
CANDIDATES = 4
"""Images from which the best is taken, as `saadi.evidence.settings.Settings` has it."""
ROUND_S = 75.0
"""A round's pool, and what the gate adds to its alignment."""
FIXED_ARMS, ARMS_PER_SHARE = 2, 2
"""Real images with and without augmentation; base and rejection, beside one per round."""


def estimated_minutes(order: Mapping[str, Any], done: Sequence[Job]) -> float:
    """Minutes that an order takes, by the newest measurements of this machine where there are any.

    Args:
        order: Values of an `EvidenceOrder`.
        done: Measurements that ended, newest first; their results say what each arm cost.
    """
    factors = [ratio for job in done[:3] if (ratio := _ratio(job)) is not None]
    return round(_minutes(order) * (median(factors) if factors else 1.0), 1)


def _minutes(order: Mapping[str, Any]) -> float:
    arms = FIXED_ARMS + len(order["shares"]) * (ARMS_PER_SHARE + order["rounds"])
    models = order["fit_steps"] * FIT_S + order["scorer_steps"] * (2 * SCORER_S + JUDGE_S)
    made = (order["num_real"] or 0) * max(order["shares"]) * (1 + CANDIDATES + order["rounds"])
    rounds = order["rounds"] * (order["align_steps"] * ALIGN_S + ROUND_S)
    return float(order["seeds"] * (arms * order["downstream_steps"] * ARM_S + models + rounds + made * IMAGE_S) / 60)


def _ratio(job: Job) -> float | None:
    """What a measurement took against what would have been foretold; None where it found stages of an earlier one."""
    seconds = job.result.get("seconds_computed")
    return seconds / 60 / _minutes(job.params) if seconds and not job.result.get("seconds_reused") else None
