"""One alignment step against the straightforward form: a second frozen U-Net, four separate forwards, nothing kept."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saadi import devices
from saadi.alignment.loss import dpo_logit, dpo_loss
from saadi.alignment.trainer import NUM_DRAWS, AlignmentConfig, PairTrainer, TrainingPair
from saadi.bench import median_seconds
from saadi.engines.compact import CompactEngine, default_architecture

NUM_CLASSES = 7
SIDE = 128
NUM_PAIRS = 16
BATCH = 8


def run() -> dict[str, Any]:
    """Median step time of both forms on the same pairs, times and noise, and the largest difference of their losses."""
    devices.use_all_threads()
    draw = np.random.default_rng(0)

    def image() -> Any:
        return draw.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)

    pairs = [TrainingPair(draw.integers(0, NUM_CLASSES, (SIDE, SIDE)).astype(np.uint8), image(), image(), weight=1.0,
    is_real=False, group=str(index))
             for index in range(NUM_PAIRS)]  # fmt: skip
    torch.manual_seed(0)
    engine = CompactEngine(default_architecture(num_classes=NUM_CLASSES, resolution=SIDE))
    frozen = CompactEngine(engine.architecture, copy.deepcopy(engine.denoiser.state_dict()))
    trainer = PairTrainer(engine, pairs, AlignmentConfig(batch_size=BATCH, sft_weight=0.0))
    batches = [[(trainer.train_ids[(start + offset) % len(trainer.train_ids)], (start // 2) % NUM_DRAWS) for offset in
    range(BATCH)]
               for start in range(0, 8 * NUM_DRAWS, 8)]  # fmt: skip
    # With B = 0 both forms give ln 2 whatever they compute; the comparison needs an adapter that does something.
    for name, parameter in trainer.parameters.items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=1e-3, generator=torch.Generator().manual_seed(0))
    differences = [
        abs(float(trainer.loss(keys)[0].detach()) - float(_plain_loss(trainer, frozen, keys).detach())) for keys in batches[:3]
    ]
    position = [0, 0]

    def next_batch(which: int) -> list[tuple[int, int]]:
        position[which] += 1
        return batches[position[which] % len(batches)]

    def ours() -> None:
        _update(trainer, trainer.loss(next_batch(0))[0])

    def plain() -> None:
        _update(trainer, _plain_loss(trainer, frozen, next_batch(1)))

    for keys in batches:  # one sweep fills the reference errors, as the first steps of a run do
        trainer.reference_errors(keys)
    fast, slow = median_seconds(ours, repeats=9), median_seconds(plain, repeats=5)
    print(f"alignment step of {BATCH} pairs at {SIDE} px: {fast:.3f} s = {slow / fast:.2f} x as fast as the "
          f"straightforward form ({slow:.3f} s); losses differ by at most {max(differences):.1e}")  # fmt: skip
    return {"side_px": SIDE, "batch_pairs": BATCH, "step_s": round(fast, 4), "straightforward_step_s": round(slow, 4),
            "ratio": round(slow / fast, 2), "largest_loss_difference": max(differences)}  # fmt: skip


def _plain_loss(trainer: PairTrainer, frozen: CompactEngine, keys: list[tuple[int, int]]) -> Tensor:
    ids = [pair for pair, _ in keys]
    times, noise = trainer._draws(keys)
    arms = [trainer.chosen[ids], trainer.rejected[ids]]
    policy = [trainer.engine.errors(arm, trainer.condition[ids], times, noise) for arm in arms]
    with torch.no_grad():
        reference = [frozen.errors(arm, trainer.condition[ids], times, noise) for arm in arms]
    return dpo_loss(dpo_logit(policy[0], policy[1], reference[0], reference[1], beta=trainer.beta), trainer.weight[ids])


def _update(trainer: PairTrainer, loss: Tensor) -> None:
    trainer.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    trainer.optimizer.step()
