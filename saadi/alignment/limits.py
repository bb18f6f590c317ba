"""The numbers at which an alignment is stopped or turned down; plain values, so that the page can name them without torch."""

from __future__ import annotations

MIN_WIN_RATE = 0.5
DISTANCE_SLACK = 0.02
"""A distance to real images may grow by this, about that between two halves of one set of 200 real images, plus chance."""
DISTANCE_GROWTH = 0.05
"""Or by this share of what it was, plus chance: what is far from real images to begin with is not worse for a twentieth more. A
share of 0.15 once let plain DPO with beta 300 pass, with colour and texture at 3.6 after 2.9."""
MAX_WINNER_RATIO = 1.25
"""Held-out winner error against the reference's (docs/design.md): its size is the alarm, not its sign."""
MIN_VENDI_RATIO = 0.9
MIN_COVERAGE_RATIO = 0.7
"""Share of real images that have a synthetic one near them, against the reference's; 32 masks tell it roughly only."""
MIN_COVERAGE_DROP = 0.05
MIN_VENDI_OF_ROUNDS = 0.8
"""Variety after all rounds of a series against the version before the first one: each round may lose a little, all of them not a
fifth."""
MAX_DISTANCE_OF_ROUNDS = 1.5
"""Each distance to real images after all rounds of a series against the version before the first one: a twentieth a round adds
up. On 32 masks one round has moved colour and texture by a third by chance alone."""
MIN_NEAREST_RATIO = 0.8
"""Median distance to the nearest training image against the reference's: below, the model has begun to copy."""
ACCURACY_GAP = 0.15
MIN_HELD_FOR_GAP = 24
"""With fewer held-out pairs the gap between train and held-out accuracy is noise."""
GRADIENT_ALARM = 5.0
"""Stop when the gradient norm stays above this multiple of its running median for `ALARM_STEPS` steps."""
ALARM_STEPS = 3


def in_force() -> dict[str, float]:
    """All limits by name: what a verdict depends on beside its readings."""
    return {name: value for name, value in globals().items() if name.isupper()}


def covers_less(now: float | None, before: float | None) -> bool:
    """Whether kinds of real images have been lost; False where that was not measured."""
    return now is not None and before is not None and now < MIN_COVERAGE_RATIO * before and before - now > MIN_COVERAGE_DROP
