"""How large an alignment's steps are where an order leaves that open: as large as is known to be held on real images.

Measured on 48 masks of no pair (docs/evidence): DPO at 1e-3 with a denoising term of 3 gains seven times as much as at 1e-4 and
keeps every distance to real images; with a term of 1 or less it loses variety and colour at that size. KTO and SFT gain at 1e-3
too, but leave the colours of real images, and stay at small steps; MaPO needs the strong term at any size. Stable Diffusion has
not been measured.
"""

from __future__ import annotations

from typing import Literal

LossName = Literal["dpo", "kto", "mapo", "sft"]
RECIPE = 2
"""A new number when alignments learn or are judged otherwise: results of an earlier one are no answer to the same order."""
LARGE_STEPS = 1e-3
SMALL_STEPS = 1e-4
STRONG_TERM = 3.0
WEAK_TERM = 0.2
"""Of the denoising loss; beside KTO, whose gradient is smaller than DPO's, a strong one would drown the pairs."""


def learning_rate_and_term(
    engine: str, loss: LossName, *, learning_rate: float | None, sft_weight: float | None, is_negative: bool = False
) -> tuple[float, float]:
    """Learning rate and weight of the denoising term of an alignment.

    Args:
        engine: Its name.
        learning_rate, sft_weight: As ordered; None = not chosen.
        is_negative: What is to be avoided is learnt: nothing holds that on real images.
    """
    if is_negative:
        sft_weight = 0.0
    elif sft_weight is None:
        sft_weight = STRONG_TERM if loss == "mapo" or (loss == "dpo" and engine == "compact") else WEAK_TERM
    if learning_rate is None:
        is_held = engine == "compact" and loss == "dpo" and sft_weight >= STRONG_TERM
        learning_rate = LARGE_STEPS if is_held else SMALL_STEPS
    return learning_rate, sft_weight
