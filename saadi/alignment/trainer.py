"""Diffusion-DPO on LoRA: one shared forward for both arms, reference errors computed once and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor

from saadi.alignment.crew import ALONE, Crew
from saadi.alignment.limits import ALARM_STEPS, GRADIENT_ALARM
from saadi.alignment.loss import (
    KTO_SHARE,
    damped,
    default_beta,
    dpo_logit,
    dpo_loss,
    kto_loss,
    mapo_loss,
    sdpo_scale,
    sft_loss,
)
from saadi.alignment.settings import (
    AlignmentConfig,
    TrainingPair,
    TrainingSingle,
    need_pairs,
    pairs_at_once,
    split_pairs,
)
from saadi.engines import checkpoints, lora
from saadi.engines.adapted import lean_again, lean_forward
from saadi.engines.base import TrainableEngine
from saadi.records import Image, LabelMap

NUM_DRAWS = 8
"""Fixed (time, noise) draws per pair. Their reference errors are computed at first use and kept: in 150 steps x 8 of 120 pairs
43 % of all reference forwards fall away."""
ANCHORS_PER_STEP = 4
SINGLES_PER_STEP = 4
"""Half of them liked, half disliked, where there are both."""
SINGLES_STREAM = 2**40
"""Single images are drawn by numbers of their own, so that a run without them is what it would have been."""
Key = tuple[int, int]
"""Index of a pair (or single image) and number of its draw."""
Part = Sequence[int]
"""Places in a batch that are computed in one forward."""


@dataclass(frozen=True)
class _Whole:
    """What the loss of a part takes from the batch that it belongs to."""

    weight: Tensor
    """Sum of its pairs' weights."""
    num_real: Tensor
    """Winners that are real images."""
    level: Tensor | None
    """KTO's mean gain; None = that of the part, which is the whole batch."""


class PairTrainer:
    """Policy = the engine with an adapter; reference = the same weights with it switched off, or the previous adapter."""

    def __init__(
        self,
        engine: TrainableEngine,
        pairs: Sequence[TrainingPair],
        config: AlignmentConfig,
        *,
        parent: Path | None = None,
        parent_scale: float = 1.0,
        anchors: Sequence[tuple[Image, LabelMap]] = (),
        singles: Sequence[TrainingSingle] = (),
        measured_on: str = "",
        crew: Crew = ALONE,
    ) -> None:
        """
        Args:
            crew: Processes that compute each step together; all are given the same.
            singles: Images for the KTO loss, beside the pairs of 'dpo' and 'kto'; they alone train nothing.
            measured_on: Names what checkpoints are compared on; a checkpoint of another one is not continued.
            anchors: Real images with their label maps; the denoising loss takes some of them in a step whose winners are all
                synthetic, so that a synthetic winner is never the only attractor.

        Raises:
            TooFewError: There are no pairs.
        """
        need_pairs(pairs, singles)
        self.engine = engine
        self.config = config
        self.crew = crew
        self.policy: PeftModel = lora.attach(
            engine.denoiser, rank=config.lora_rank, parent=parent, parent_scale=parent_scale, seed=config.seed
        )
        self.parameters = {name: parameter for name, parameter in self.policy.named_parameters() if parameter.requires_grad}
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=config.learning_rate, weight_decay=0.0, fused=True)
        self.pairs = list(pairs)
        self.anchors = list(anchors)
        self._shape = engine.encode_images([pairs[0].chosen]).shape[1:]
        self.weight = torch.tensor([pair.weight for pair in pairs], device=engine.device)
        self.is_real = torch.tensor([pair.is_real for pair in pairs], device=engine.device)
        self.train_ids, self.held_ids = split_pairs(pairs, share=config.held_out_share, seed=config.seed)
        self.singles = list(singles)
        held = {pairs[index].group for index in self.held_ids} - {pairs[index].group for index in self.train_ids}
        takes_singles = config.loss in ("dpo", "kto")  # 'sft' learns from winners alone, 'mapo' has no reference
        self.single_ids = [index for index, single in enumerate(singles) if takes_singles and single.group not in held]
        self.beta = config.beta or default_beta(self._shape.numel())
        self.at_once = pairs_at_once(
            config.batch_size, self._shape.numel(), num_processes=crew.size, is_sparing=config.checkpointing
        )
        # A checkpoint belongs to these pairs and this parent: a retry after an accept or roll-back must not mix them.
        self.settings = asdict(config) | {
            "parent": parent.name if parent else None,
            "num_pairs": len(pairs),
            "measured_on": measured_on,
        }
        self.average = (
            {name: parameter.detach().clone() for name, parameter in self.parameters.items()} if config.ema_decay else None
        )
        if config.checkpointing:
            engine.recompute_activations(lambda: lean_again(self.policy))
        if singles:
            self.settings["num_singles"] = len(singles)
        self.step = 0
        self._reference: dict[Key, tuple[float, float]] = {}
        self._single_reference: dict[Key, float] = {}
        self._norms: list[float] = []
        self._alarms = 0

    def train_step(self) -> dict[str, float]:
        """One update on a batch that depends on seed and step only; returns loss, accuracy, errors (also as multiples of the
        reference's), gradient norm, and that norm as a multiple of its running median once there is one."""
        self.crew.hand_out(self.step, list(self.parameters.values()))
        found = self._gradient()
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0))
        self.optimizer.step()
        self.step += 1
        if self.average is not None and self.config.ema_decay:
            decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
            present = [parameter.detach() for parameter in self.parameters.values()]
            torch._foreach_lerp_(list(self.average.values()), present, 1 - decay)
        typical = self._watch(norm)
        numbers = {name: sum(one[name] for one in found) / len(found) for name in found[0]}
        return numbers | {"gradient_norm": norm} | ({"gradient_ratio": norm / typical} if typical else {})

    def follow(self) -> None:
        """Compute this process's share of every step that the leader begins; ends with the process."""
        while True:
            self.step = self.crew.receive(list(self.parameters.values()))
            self._gradient()

    def _gradient(self) -> list[dict[str, float]]:
        """Put the gradient of this step, summed over all processes, into the parameters; returns what each batch says."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        self.optimizer.zero_grad(set_to_none=True)
        found = [self._backward(generator, batch) for batch in range(self.config.accumulation)]
        if self.crew.size > 1:
            parameters = list(self.parameters.values())
            own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            summed = self.crew.summed(torch.cat([gradient.flatten() for gradient in own]))
            for parameter, piece in zip(parameters, summed.split([p.numel() for p in parameters]), strict=True):
                parameter.grad = torch.empty_like(parameter).copy_(piece.view(parameter.shape))
        return found

    def _backward(self, generator: torch.Generator, batch: int) -> dict[str, float]:
        """Add the gradient of one batch; returns what `loss` says of it, and the loss itself."""
        chosen = torch.randint(len(self.train_ids), (self.config.batch_size,), generator=generator)
        draws = torch.randint(NUM_DRAWS, (self.config.batch_size,), generator=generator)
        keys = [(self.train_ids[int(index)], int(draw)) for index, draw in zip(chosen, draws, strict=True)]
        share = 1 / self.config.accumulation
        numbers = self.add_gradient(keys, share=share)
        further = 0.0
        if self.config.sft_weight and self.anchors and not self.is_real[[pair for pair, _ in keys]].any():
            further += self.config.sft_weight * self._add_anchors(generator, share * self.config.sft_weight)
        if self.config.singles_weight and self.single_ids:
            weight = self.config.singles_weight
            further += weight * self._add_singles(self._single_keys(batch), share * weight)
        return numbers | {"loss": numbers["loss"] + float(self.crew.summed(torch.tensor(further)))}

    def add_gradient(self, keys: Sequence[Key], *, share: float = 1.0) -> dict[str, float]:
        """Add `share` times the gradient of `loss(keys)` to the parameters, `at_once` pairs after the other: the activations of a
        part are given back before those of the next one are made. Of several processes each adds its own part of the gradient.
        Returns what `loss` says, and the loss itself."""
        parts = _parts(len(keys), self.at_once)
        whole = self._whole(keys, parts)
        told = torch.zeros(6, len(keys))
        for part in self.crew.share(parts):
            loss, numbers = self._part([keys[index] for index in part], whole)
            told[0, part[0]] = _descended(loss, share)
            told[1:, list(part)] = numbers.cpu()
        told = self.crew.summed(told)
        return _numbers(told[1:]) | {"loss": float(told[0].sum())}

    def _add_anchors(self, generator: torch.Generator, share: float) -> float:
        """Add `share` times the gradient of the mean denoising error of a few real images, drawn anew each step; returns it, of
        several processes each its own part."""
        chosen = torch.randint(len(self.anchors), (ANCHORS_PER_STEP,), generator=generator).tolist()
        times = self.engine.sample_times(len(chosen), generator=generator)
        noise = torch.randn((len(chosen), *self._shape), generator=generator).to(self.engine.device)
        total = 0.0
        for part in self.crew.share(_parts(len(chosen), self._images_at_once(len(chosen)))):
            rows = list(part)
            images, label_maps = zip(*[self.anchors[chosen[index]] for index in rows], strict=True)
            clean, condition = self.engine.encode_images(images), self.engine.encode_label_maps(label_maps, images)
            with lean_forward(self.policy):
                errors = self.engine.errors(clean, condition, times[rows], noise[rows])
            total += _descended(errors.sum() / len(chosen), share)
        return total

    def _add_singles(self, keys: Sequence[Key], share: float) -> float:
        """Add `share` times the gradient of `singles_loss(keys)`; returns the loss, of several processes each its own part."""
        parts = _parts(len(keys), self._images_at_once(len(keys)))
        level = self._level(parts, lambda part: self._single_gain([keys[index] for index in part]))
        weights = [self.singles[index].weight for index, _ in keys]
        total = 0.0
        for part in self.crew.share(parts):
            loss = self.singles_loss([keys[index] for index in part], level=level)
            total += _descended(loss * (sum(weights[index] for index in part) / sum(weights)), share)
        return total

    def _single_gain(self, keys: Sequence[Key]) -> Tensor:
        return self._single_reference_errors(keys) - self.single_errors(keys)

    @torch.no_grad()
    def _level(self, parts: Sequence[Part], gain: Callable[[Part], Tensor]) -> Tensor | None:
        """The mean over a batch of how much smaller the policy's errors are than the reference's, before any gradient is made;
        None where the batch is one part, which finds it by itself.

        Args:
            gain: (n,) of a part.
        """
        if len(parts) == 1 and self.crew.size == 1:
            return None
        own = [gain(part) for part in self.crew.share(parts)]
        sums = torch.tensor([sum(float(gains.sum()) for gains in own), float(sum(gains.numel() for gains in own))])
        total, count = self.crew.summed(sums)
        return (total / count).to(self.engine.device)

    def _images_at_once(self, count: int) -> int:
        """How many of a few images are computed in one forward: as many as pairs have, shared out evenly."""
        return min(2 * self.at_once, -(-count // self.crew.size))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the policy is the moving average of its steps, where there is one."""
        if self.average is None:
            yield
            return
        present = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self._put(self.average)
        try:
            yield
        finally:
            self._put(present)

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    def loss(self, keys: Sequence[Key]) -> tuple[Tensor, dict[str, float]]:
        """The preference loss on (pair, draw) keys, plus the denoising loss on those winners that are real; in one forward."""
        loss, told = self._part(keys, self._whole(keys, [range(len(keys))]))
        return loss, _numbers(told.cpu())

    def _whole(self, keys: Sequence[Key], parts: Sequence[Part]) -> _Whole:
        def gain(part: Part) -> Tensor:
            chosen = [keys[index] for index in part]
            return (self.reference_errors(chosen) - self.errors(chosen)).flatten()

        ids = [pair for pair, _ in keys]
        level = self._level(parts, gain) if self.config.loss == "kto" else None  # no sum over pairs, as the others are
        return _Whole(self.weight[ids].sum(), self.is_real[ids].float().sum(), level)

    def _part(self, keys: Sequence[Key], whole: _Whole) -> tuple[Tensor, Tensor]:
        """What these pairs add to the loss of the whole batch; and, without gradients, (5, B): errors of the policy on chosen and
        rejected images, those of the reference, DPO's logits."""
        reference = self.reference_errors(keys)
        ids = [pair for pair, _ in keys]
        weight, real = self.weight[ids], self.is_real[ids].float()
        policy, logit, loss = self._preference(keys, reference, weight, whole.level)
        loss = loss * (weight.sum() / whole.weight)
        if self.config.sft_weight and real.any():
            loss = loss + self.config.sft_weight * (policy[0] * real).sum() / whole.num_real
        return loss, torch.cat([policy, reference, logit.unsqueeze(0)]).detach()

    def _preference(
        self, keys: Sequence[Key], reference: Tensor, weight: Tensor, level: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(2, B) errors of the policy, (B,) DPO's logit (by which accuracy is told under every loss), and the loss."""
        scale = None
        if self.config.sdpo_mu is None:
            policy = self.errors(keys)
        else:
            policy, residuals = self._errors_and_residuals(keys)
            scale = sdpo_scale(residuals[0], residuals[1], mu=self.config.sdpo_mu)
        chosen, rejected = policy[0], policy[1] if scale is None else damped(policy[1], scale)
        logit = dpo_logit(chosen, rejected, reference[0], reference[1], beta=self.beta)
        if self.config.loss == "kto":
            liked = torch.arange(2 * len(keys), device=weight.device) < len(keys)
            errors = torch.cat([chosen, rejected])
            return policy, logit, kto_loss(errors, reference.flatten(), liked, weight.repeat(2), beta=KTO_SHARE * self.beta,
                                           level=level)  # fmt: skip
        if self.config.loss == "mapo":
            return policy, logit, mapo_loss(chosen, rejected, weight)
        if self.config.loss == "sft":
            return policy, logit, sft_loss(chosen, weight)
        return policy, logit, dpo_loss(logit, weight)

    def _errors_and_residuals(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        """`errors`, and (2, B, C, h, w) what the policy is off by."""
        with lean_forward(self.policy):
            both, residuals = self.engine.errors_and_residuals(*self._both_arms(keys))
        return both.view(2, -1), residuals.view(2, len(keys), *residuals.shape[1:])

    def _both_arms(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Chosen and rejected images, label maps, times and noise; the same time and noise for both."""
        ids = [pair for pair, _ in keys]
        times, noise = self._draws(keys)
        chosen = [self.pairs[index].chosen for index in ids]  # around what is painted both arms show the same picture
        condition = self.engine.encode_label_maps([self.pairs[index].label_map for index in ids], chosen)
        arms = chosen + [self.pairs[index].rejected for index in ids]
        return self.engine.encode_images(arms), condition, torch.cat([times] * 2), torch.cat([noise] * 2)

    def errors(self, keys: Sequence[Key]) -> Tensor:
        """(2, B) errors of chosen and rejected images, both arms in one forward with the same time and noise."""
        with lean_forward(self.policy):
            return self.engine.errors(*self._both_arms(keys)).view(2, -1)

    def _single_keys(self, batch: int = 0) -> list[Key]:
        """(single, draw) of this step's batch, by seed, step and batch alone."""
        step = self.step * self.config.accumulation + batch
        generator = torch.Generator().manual_seed(SINGLES_STREAM + self.config.seed * 1_000_003 + step)
        kinds = [[index for index in self.single_ids if self.singles[index].is_liked is wanted] for wanted in (True, False)]
        kinds = [ids for ids in kinds if ids]
        picks = torch.rand(SINGLES_PER_STEP, generator=generator).tolist()
        draws = torch.randint(NUM_DRAWS, (SINGLES_PER_STEP,), generator=generator).tolist()
        chosen = [kinds[place % len(kinds)] for place in range(SINGLES_PER_STEP)]
        return [(ids[int(pick * len(ids))], draw) for ids, pick, draw in zip(chosen, picks, draws, strict=True)]

    def singles_loss(self, keys: Sequence[Key], *, level: Tensor | None = None) -> Tensor:
        """The KTO loss on (single, draw) keys; `level` as in `kto_loss`."""
        device = self.engine.device
        chosen = [self.singles[index] for index, _ in keys]
        reference = self._single_reference_errors(keys)
        liked = torch.tensor([single.is_liked for single in chosen], device=device)
        weight = torch.tensor([single.weight for single in chosen], device=device)
        return kto_loss(self.single_errors(keys), reference, liked, weight, beta=KTO_SHARE * self.beta, level=level)

    def single_errors(self, keys: Sequence[Key]) -> Tensor:
        """(B,) errors of the policy on single images; times and noise are those of no pair."""
        chosen = [self.singles[index] for index, _ in keys]
        times, noise = self._draws([(-1 - index, draw) for index, draw in keys])
        images = [single.image for single in chosen]
        condition = self.engine.encode_label_maps([single.label_map for single in chosen], images)
        with lean_forward(self.policy):
            return self.engine.errors(self.engine.encode_images(images), condition, times, noise)

    @torch.no_grad()
    def _single_reference_errors(self, keys: Sequence[Key]) -> Tensor:
        """(B,) errors of the reference, computed once for each key; in batches of the policy's shape, as those of pairs."""
        missing = sorted({key for key in keys if key not in self._single_reference})
        if missing:
            with lora.reference_mode(self.policy):
                found = self.single_errors(missing + [missing[0]] * (len(keys) - len(missing)))
            self._single_reference |= dict(zip(missing, found.tolist(), strict=False))
        return torch.tensor([self._single_reference[key] for key in keys], device=self.engine.device)

    @torch.no_grad()
    def reference_errors(self, keys: Sequence[Key]) -> Tensor:
        """(2, B) errors of the reference; computed for keys not seen yet, then remembered."""
        missing = sorted({key for key in keys if key not in self._reference})
        if missing:
            with lora.reference_mode(self.policy):
                # Evaluated in batches of the same shape as the policy's, so that both round alike and step 0 is exactly ln 2.
                padded = missing + [missing[0]] * (len(keys) - len(missing)) if len(missing) < len(keys) else missing
                found = self.errors(padded)
            for index, key in enumerate(missing):
                self._reference[key] = (float(found[0, index]), float(found[1, index]))
        return torch.tensor([self._reference[key] for key in keys], device=self.engine.device).T

    def _draws(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        times, noise = [], []
        for pair, draw in keys:
            generator = torch.Generator().manual_seed((self.config.seed * 100_003 + pair) * NUM_DRAWS + draw)
            times.append(self.engine.sample_times(1, generator=generator))
            noise.append(torch.randn(self._shape, generator=generator))
        return torch.cat(times), torch.stack(noise).to(self.engine.device)

    @torch.no_grad()
    def measure_held_out(self) -> dict[str, float]:
        """Accuracy and winner ratio (policy error / reference error on the chosen images) over all draws of held-out pairs."""
        keys = [(pair, draw) for pair in self.held_ids for draw in range(0, NUM_DRAWS, 2)]
        logits: list[Tensor] = []
        errors: list[tuple[float, float]] = []
        for part in _parts(len(keys), self.at_once):
            chunk = [keys[index] for index in part]
            policy, reference = self.errors(chunk), self.reference_errors(chunk)
            logits.append(dpo_logit(policy[0], policy[1], reference[0], reference[1], beta=self.beta))
            errors.append((float(policy[0].sum()), float(reference[0].sum())))
        winner = sum(error for error, _ in errors) / max(sum(error for _, error in errors), 1e-12)
        logit = torch.cat(logits)
        return {"held_accuracy": float(((logit > 0).float() + 0.5 * (logit == 0).float()).mean()), "winner_ratio": winner}

    def alarm(self) -> str | None:
        """Why the run must stop now, or None."""
        if self._norms and not np.isfinite(self._norms[-1]):
            return "the gradient is no longer a number"
        if self._alarms >= ALARM_STEPS:
            return f"the gradient stayed above {GRADIENT_ALARM:.0f} times its median"
        return None

    def _watch(self, norm: float) -> float | None:
        """Count alarms; returns the running median of the norms before this one."""
        typical = median(self._norms[-100:]) if len(self._norms) >= 20 else None
        self._alarms = self._alarms + 1 if typical is not None and norm > GRADIENT_ALARM * typical else 0
        self._norms.append(norm)
        return typical

    def save(self, folder: Path, extra: dict[str, Any]) -> None:
        """Write a checkpoint with everything that `restore` needs for an exact continuation."""
        checkpoints.save(
            folder,
            parameters=self.parameters,
            optimizer=self.optimizer,
            config=self.settings,
            state={"step": self.step, "norms": self._norms, "alarms": self._alarms, "extra": extra},
            tensors=self.average or {},
        )

    def restore(self, folder: Path) -> dict[str, Any] | None:
        """Continue from a checkpoint if there is one; returns what was saved beside it."""
        found = checkpoints.restore(folder, parameters=self.parameters, optimizer=self.optimizer, config=self.settings)
        if found is None:
            return None
        state, average = found
        if self.average is not None:
            for name, kept in self.average.items():  # in place: what was read lies on the CPU
                kept.copy_(average[name])
        self.step, self._norms, self._alarms = state["step"], state["norms"], state["alarms"]
        extra: dict[str, Any] = state["extra"]
        return extra


def _parts(count: int, size: int) -> list[Part]:
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


def _descended(loss: Tensor, share: float) -> float:
    """Add `share` times its gradient to the parameters, whereupon its activations are given back; returns the loss."""
    (loss * share if share != 1 else loss).backward()
    return float(loss.detach())


def _numbers(told: Tensor) -> dict[str, float]:
    """What is told of a batch: means over its pairs, errors also as multiples of the reference's; `told` as from `_part`."""
    chosen, rejected, reference_chosen, reference_rejected, logit = told
    return {
        "accuracy": float(((logit > 0).float() + 0.5 * (logit == 0).float()).mean()),
        "logit": float(logit.mean()),
        "chosen_error": float(chosen.mean()),
        "rejected_error": float(rejected.mean()),
        "winner_error": float(chosen.sum() / reference_chosen.sum().clamp_min(1e-12)),
        "loser_error": float(rejected.sum() / reference_rejected.sum().clamp_min(1e-12)),
    }
