"""Settings of an alignment, and what it learns from: pairs and single images with their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from saadi.errors import TooFewError
from saadi.orders.recipe import LARGE_STEPS, STRONG_TERM, LossName
from saadi.records import Image, LabelMap

MAX_VALUES_AT_ONCE = 4 * 3 * 256 * 256
"""Pairs are computed together up to this many values of their winning images: 16 at 128 px, 4 at 256 px. The activations of one
part are all that memory has to hold; parts half as large again would take a tenth more time (docs/design.md)."""
ScaleSearch = Literal["never", "rescue", "always"]


@dataclass(frozen=True)
class AlignmentConfig:
    """Settings of one alignment; the defaults are those of docs/design.md."""

    num_steps: int = 150
    batch_size: int = 8
    """Pairs per batch; what does not fit into one forward is computed in parts, with the same gradient (`pairs_at_once`)."""
    accumulation: int = 1
    """Batches per step: their gradients are added up, for larger steps in the same memory."""
    learning_rate: float = LARGE_STEPS
    """Large steps, which the denoising term holds on real images; without it they destroy (`saadi.orders.recipe`)."""
    lora_rank: int = 8
    beta: float | None = None
    """None = 0.3 x values per image."""
    sft_weight: float = STRONG_TERM
    """Weight of the plain denoising loss on real winners, or on anchors in a step without one: keeps the model on real images."""
    gate_every: int = 50
    held_out_share: float = 0.2
    """Share of label maps whose pairs are only measured, never trained on."""
    seed: int = 0
    loss: LossName = "dpo"
    """'kto' takes winners as liked and losers as disliked; 'sft' learns from the winners alone (rejection sampling)."""
    singles_weight: float = 1.0
    """Weight of the KTO loss on single images; as beta there is a fifth, they pull a fifth as hard as pairs."""
    sdpo_mu: float | None = None
    """Damp the losers' gradient so that the winners' errors do not grow to first order (`loss.sdpo_scale`); None = do not."""
    ema_decay: float | None = None
    """Test and keep a moving average of the adapter instead of its last step; None = do not. 0.99 suits 150 steps."""
    scale_search: ScaleSearch = "rescue"
    """Line search along what was learnt, at the end: 'rescue' = weaker versions of the best checkpoint only where none passed at
    full strength, 'always' also where one did."""
    checkpointing: bool = False
    """One pair at a time, its activations computed anew in the backward pass: the least memory, twice the time on CPUs."""


@dataclass(frozen=True)
class TrainingPair:
    """A pair with its pixels."""

    label_map: LabelMap
    chosen: Image
    rejected: Image
    weight: float
    is_real: bool
    """The chosen image is a real one."""
    group: str
    """Pairs of one group (label map) fall on the same side of the held-out split."""


@dataclass(frozen=True)
class TrainingSingle:
    """An image that is liked or not by itself, with its pixels."""

    label_map: LabelMap
    image: Image
    is_liked: bool
    weight: float
    group: str
    """As of a pair: where its label map is held out, it is not trained on."""


def need_pairs(pairs: Sequence[TrainingPair], singles: Sequence[TrainingSingle]) -> None:
    """Raises: TooFewError: there are no pairs; says what is missing."""
    if pairs:
        return
    if singles and not any(single.is_liked for single in singles):
        raise TooFewError(
            f"{len(singles)} disliked images and nothing that is liked: a model that only learns what to avoid is ruined; "
            "approve some real images or give thumbs up, and vote on pairs"
        )
    raise TooFewError("no pairs to learn from; generate and score candidates, or vote on pairs")


def pairs_at_once(batch_size: int, values: int, *, num_processes: int = 1, is_sparing: bool = False) -> int:
    """How many pairs are computed in one forward: a divisor of the batch, as kernels round by shape and errors are compared with
    those of the reference.

    Args:
        values: Of one image or its latents.
        num_processes: Among which the batch is shared out.
        is_sparing: One pair at a time, whatever its size.
    """
    most = 1 if is_sparing else min(-(-batch_size // num_processes), max(1, MAX_VALUES_AT_ONCE // values))
    return max(size for size in range(1, most + 1) if batch_size % size == 0)


def split_pairs(pairs: Sequence[TrainingPair], *, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices to train on and to hold out, whole label maps on one side; at least one group on each side."""
    groups = sorted({pair.group for pair in pairs})
    order = np.random.default_rng(seed).permutation(len(groups))
    held = {groups[index] for index in order[: max(1, round(share * len(groups)))]} if len(groups) > 1 else set()
    train_ids = [index for index, pair in enumerate(pairs) if pair.group not in held]
    return train_ids, [index for index, pair in enumerate(pairs) if pair.group in held] or train_ids
