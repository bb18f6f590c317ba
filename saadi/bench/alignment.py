"""One alignment step against the straightforward form (a second frozen U-Net, four separate forwards, nothing kept), and against
that of diffusers' research script train_diffusion_dpo.py (one U-Net, both arms in one forward, once more without the adapter).

Both are given our precision and layout; the straightforward form is measured in torch's default precision as well."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from diffusers import UNet2DModel
from diffusers.models.resnet import ResnetBlock2D
from peft import PeftModel, set_peft_model_state_dict
from torch import Tensor

from saadi import devices
from saadi.alignment.loss import dpo_logit, dpo_loss
from saadi.alignment.settings import AlignmentConfig, TrainingPair
from saadi.alignment.trainer import NUM_DRAWS, PairTrainer
from saadi.bench import median_seconds, paired_medians
from saadi.engines import lora, norms, residual
from saadi.engines.compact import CompactEngine, default_architecture

NUM_CLASSES = 7
SIDE = 128
NUM_PAIRS = 16
BATCH = 8
RUN_STEPS, RUN_PAIRS = 150, 128
COMPARISON_BETA = 500.0
"""Small enough that the random adapter gives losses of order one: with the default every loss is 0 or in the hundreds."""


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
    stock = [_stock_engine(engine) for _ in range(2)]
    trainer = PairTrainer(engine, pairs, AlignmentConfig(batch_size=BATCH, sft_weight=0.0))
    batches = [[(trainer.train_ids[(start + offset) % len(trainer.train_ids)], (start // 2) % NUM_DRAWS) for offset in
    range(BATCH)]
               for start in range(0, 8 * NUM_DRAWS, 8)]  # fmt: skip
    plain_policy = lora.attach(stock[0].denoiser, rank=trainer.config.lora_rank)
    plain_optimizer = torch.optim.AdamW([p for p in plain_policy.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.0)
    # With B = 0 both forms give ln 2 whatever they compute; the comparison needs an adapter that does something.
    for name, parameter in trainer.parameters.items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=1e-2, generator=torch.Generator().manual_seed(0))
    set_peft_model_state_dict(plain_policy, lora.state(trainer.policy), adapter_name=lora.POLICY)
    trainer.beta = COMPARISON_BETA
    others = (lambda keys: _plain_loss(trainer, stock, keys), lambda keys: _script_loss(trainer, stock[0], plain_policy, keys))
    differences = [abs(float(trainer.loss(keys)[0].detach()) - float(other(keys).detach()))
                   for keys in batches[:3] for other in others]  # fmt: skip
    position = [0, 0]

    def next_batch(which: int) -> list[tuple[int, int]]:
        position[which] += 1
        return batches[position[which] % len(batches)]

    def ours() -> None:
        trainer.optimizer.zero_grad(set_to_none=True)
        trainer.add_gradient(next_batch(0))
        trainer.optimizer.step()

    def plain() -> None:
        plain_optimizer.zero_grad(set_to_none=True)
        _plain_loss(trainer, stock, next_batch(1)).backward()
        plain_optimizer.step()

    def full() -> None:
        with _in_float32():
            plain()

    def script() -> None:
        plain_optimizer.zero_grad(set_to_none=True)
        _script_loss(trainer, stock[0], plain_policy, next_batch(1)).backward()
        plain_optimizer.step()

    for keys in batches:  # one sweep fills the reference errors, as the first steps of a run do
        trainer.reference_errors(keys)
    misses = _missing_share(trainer)
    reference_s = median_seconds(lambda: _uncached(trainer, batches[0]), repeats=7)
    fast, slow = paired_medians(ours, plain, repeats=7)
    beside, scripted = paired_medians(ours, script, repeats=7)
    quick, exact = paired_medians(ours, full, repeats=5)
    whole = fast + misses * reference_s
    print(f"alignment step of {BATCH} pairs at {SIDE} px, once its reference errors are kept: {fast:.3f} s = {slow / fast:.2f} x "
          f"as fast as the straightforward form ({slow:.3f} s; in float32 {exact:.3f} s, {exact / quick:.2f} x) and "
          f"{scripted / beside:.2f} x as fast as the research script's ({scripted:.3f} s); over {RUN_STEPS} steps of {RUN_PAIRS} "
          f"pairs {slow / whole:.2f} x, {exact / whole:.2f} x and {scripted / (beside + misses * reference_s):.2f} x; "
          f"losses differ by at most {max(differences):.1e}")  # fmt: skip
    return {"side_px": SIDE, "batch_pairs": BATCH, "step_s": round(fast, 4), "straightforward_step_s": round(slow, 4),
            "reference_forward_s": round(reference_s, 4), "share_of_keys_seen_first": round(misses, 3),
            "ratio_over_a_run": round(slow / whole, 2), "script_step_s": round(scripted, 4),
            "ratio_to_script": round(scripted / beside, 2),
            "ratio_to_script_over_a_run": round(scripted / (beside + misses * reference_s), 2),
            "float32_straightforward_step_s": round(exact, 4), "ratio_to_float32": round(exact / quick, 2),
            "ratio_to_float32_over_a_run": round(exact / whole, 2),
            "ratio": round(slow / fast, 2), "largest_loss_difference": max(differences)}  # fmt: skip


@contextmanager
def _in_float32() -> Iterator[None]:
    """Without bfloat16, as peft and diffusers compute unless they are told otherwise."""
    with patch.object(devices, "fast_dtype", lambda on: torch.float32):
        yield


def _missing_share(trainer: PairTrainer) -> float:
    """Share of (pair, draw) keys that a run meets for the first time, by the trainer's own way of drawing them."""
    seen: set[tuple[int, int]] = set()
    for step in range(RUN_STEPS):
        generator = torch.Generator().manual_seed(step)
        pairs = torch.randint(RUN_PAIRS, (BATCH,), generator=generator).tolist()
        seen |= set(zip(pairs, torch.randint(NUM_DRAWS, (BATCH,), generator=generator).tolist(), strict=True))
    return len(seen) / (RUN_STEPS * BATCH)


def _uncached(trainer: PairTrainer, keys: list[tuple[int, int]]) -> None:
    for key in keys:
        trainer._reference.pop(key, None)
    trainer.reference_errors(keys)


def _stock_engine(engine: CompactEngine) -> CompactEngine:
    """The same weights in diffusers' own U-Net class and residual blocks, with torch's own GroupNorm. Our attention stays:
    diffusers' rounds otherwise, and the losses are to be compared."""
    made = CompactEngine(engine.architecture, copy.deepcopy(engine.denoiser.state_dict()))
    made.denoiser.unet.__class__ = UNet2DModel
    for parent in list(made.denoiser.modules()):
        if isinstance(parent, residual.ResidualBlock):
            parent.__class__ = ResnetBlock2D
        for name, child in list(parent.named_children()):
            if isinstance(child, norms.GroupNorm):
                plain = torch.nn.GroupNorm(child.num_groups, child.num_channels, child.eps)
                plain.load_state_dict(child.state_dict())
                plain.to(child.weight.device)
                setattr(parent, name, plain)
    return made


def _script_loss(trainer: PairTrainer, stock: CompactEngine, policy: PeftModel, keys: list[tuple[int, int]]) -> Tensor:
    """As diffusers' research script computes it, in peft's own forward."""
    ids = [pair for pair, _ in keys]
    times, noise = trainer._draws(keys)
    chosen = [trainer.pairs[index] for index in ids]
    condition = stock.encode_label_maps([pair.label_map for pair in chosen]).repeat(2, 1, 1, 1)
    arms = stock.encode_images([*(pair.chosen for pair in chosen), *(pair.rejected for pair in chosen)])
    both = (arms, condition, times.repeat(2), noise.repeat(2, 1, 1, 1))
    won, lost = stock.errors(*both).chunk(2)
    with torch.no_grad(), policy.disable_adapter():
        kept = stock.errors(*both).chunk(2)
    return dpo_loss(dpo_logit(won, lost, *kept, beta=trainer.beta), trainer.weight[ids])


def _plain_loss(trainer: PairTrainer, stock: list[CompactEngine], keys: list[tuple[int, int]]) -> Tensor:
    """`stock` = policy with peft's own forward, and a frozen second copy; each arm in a forward of its own."""
    ids = [pair for pair, _ in keys]
    times, noise = trainer._draws(keys)
    chosen = [trainer.pairs[index] for index in ids]
    condition = stock[0].encode_label_maps([pair.label_map for pair in chosen])
    arms = [stock[0].encode_images([pair.chosen for pair in chosen]), stock[0].encode_images([pair.rejected for pair in chosen])]
    policy = [stock[0].errors(arm, condition, times, noise) for arm in arms]
    with torch.no_grad():
        reference = [stock[1].errors(arm, condition, times, noise) for arm in arms]
    return dpo_loss(dpo_logit(policy[0], policy[1], reference[0], reference[1], beta=trainer.beta), trainer.weight[ids])
