"""Preference losses as pure functions of per-image errors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

KTO_SHARE = 0.2
"""beta of KTO against DPO's: 1,000 against 5,000 in the published runs at the same latents."""
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


def sdpo_scale(chosen_residual: Tensor, rejected_residual: Tensor, *, mu: float) -> Tensor:
    """(B,) factor in 0..1 by which Diffusion-SDPO (arXiv:2511.03317) damps the gradient of the rejected arm.

    To first order the chosen image's error then does not grow: clamp((1 - mu) |g_w|^2 / (g_l . g_w), 0, 1) where the two
    residuals point the same way, else 1.

    Args:
        chosen_residual: (B, ...) float32, prediction minus target on the chosen image; the rejected one likewise.
        mu: Share of the winner's descent that is kept, 0..1; 0.9 in the paper, 0.5 in our trials.
    """
    with torch.no_grad():
        chosen, rejected = chosen_residual.flatten(1).float(), rejected_residual.flatten(1).float()
        along = (chosen * rejected).sum(1)
        scale = (1 - mu) * chosen.square().sum(1) / along.clamp_min(1e-12)
        return torch.where(along > 0, scale.clamp(0, 1), torch.ones_like(scale))


def damped(error: Tensor, scale: Tensor) -> Tensor:
    """The same values with their gradient multiplied by `scale`, which carries none itself."""
    held = error.detach()
    return held + scale * (error - held)


def kto_loss(
    policy: Tensor, reference: Tensor, is_liked: Tensor, weight: Tensor, *, beta: float, level: Tensor | None = None
) -> Tensor:
    """Diffusion-KTO (arXiv:2404.04465) on single images: 1 - sigmoid(+-beta (g - k)), 1/2 while the policy equals the reference.

    g is how much smaller the policy's error is than the reference's; k, the batch's mean of it, at least 0 and without gradient,
    stands for the divergence from the reference.

    Args:
        policy, reference: (B,) float32 denoising errors at the same time and noise.
        is_liked: (B,) bool.
        weight: (B,) float32.
        level: Mean of g over the batch that these images are a part of; None = they are all of it.
    """
    gain = reference - policy
    level = (gain.detach().mean() if level is None else level).clamp_min(0)
    sign = torch.where(is_liked, 1.0, -1.0)
    return (weight * (1 - torch.sigmoid(sign * beta * (gain - level)))).sum() / weight.sum()


def mapo_loss(
    chosen: Tensor, rejected: Tensor, weight: Tensor, *, beta: float = 0.1, curve: float = 0.5, scale: float = 1000.0
) -> Tensor:
    """MaPO (arXiv:2406.06424): the winner's error, and its margin over the loser's; needs no reference.

    L_w - beta log sigmoid(scale (s(L_w) - s(L_l))) with the falling s(L) = c L / (exp(c L) - 1).

    Args:
        chosen, rejected: (B,) float32 denoising errors of the policy.
        scale: T of the paper, the number of noise levels.
    """
    margin = scale * (_falling(chosen, curve) - _falling(rejected, curve))
    return ((chosen - beta * F.logsigmoid(margin)) * weight).sum() / weight.sum()


def _falling(error: Tensor, curve: float) -> Tensor:
    scaled = (curve * error).clamp_min(1e-6)
    return scaled / torch.expm1(scaled)


def sft_loss(chosen: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean denoising error of the winners: rejection sampling as a loss."""
    return (chosen * weight).sum() / weight.sum()
