"""Preference losses as pure functions of per-image errors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

BETA_PER_VALUE = 0.3
"""beta of a mean-reduced loss grows with the number of values d in an image: 0.305 d gives 5,000 at SD-1.5 latents
(5000 / 16384, docs/design.md). A smaller beta is not the cautious direction."""


def default_beta(num_values: int) -> float:
    """beta for images of `num_values` = channels x height x width values."""
    return BETA_PER_VALUE * num_values


def dpo_logit(
    policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, *, beta: float
) -> Tensor:
    """(B,) logit of Diffusion-DPO (arXiv:2311.12908, eq. 14; T folded into beta, factor 1/2 as in the authors' code).

    Args:
        policy_chosen: (B,) float32, denoising error of the policy on the chosen image; the others likewise. Chosen and rejected
            must have been noised with the same time and the same noise.
    """
    return -0.5 * beta * ((policy_chosen - policy_rejected) - (reference_chosen - reference_rejected))


def dpo_loss(logit: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of -log sigmoid(logit); ln 2 while the policy equals the reference."""
    return -(F.logsigmoid(logit) * weight).sum() / weight.sum()
