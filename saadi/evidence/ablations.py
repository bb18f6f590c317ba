"""What each setting of an alignment is worth: the same pairs, one setting changed at a time, measured on masks of no pair."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from saadi import devices, quality
from saadi.alignment.gate import Gate, Reading, compare, reading_from_json, reading_to_json
from saadi.alignment.settings import AlignmentConfig, TrainingPair
from saadi.alignment.trainer import PairTrainer
from saadi.evidence.gains import Cell
from saadi.evidence.stages import Arrays
from saadi.preferences import MIN_MARGIN

Judged = Literal["scores", "votes"]
"""Who orders the candidates: the cross-fitted selectors, or, in the place of clinicians, a segmenter that has learnt the test
patients, which nothing else has seen."""
FRESH_MASKS = 48
FIRST_FRESH = 900_000
FIRST_SEED = 2**41


@dataclass(frozen=True)
class Variant:
    """The default with something changed."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    """Fields of `AlignmentConfig`; 'beta_per_value' instead of beta."""
    num_pairs: int | None = None
    """None = all."""
    real_share: float | None = None
    """Share of pairs whose winner is a real image; None = all that there are."""
    candidates: int | None = None
    margin: float = MIN_MARGIN
    flipped: float = 0.0
    """Share of pairs with winner and loser exchanged."""
    judged_by: Judged = "scores"


VARIANTS: tuple[Variant, ...] = (
    Variant("default"),
    Variant("beta x 0.1", {"beta_per_value": 0.03}),
    Variant("beta x 10", {"beta_per_value": 3.0}),
    Variant("learning rate 1e-4", {"learning_rate": 1e-4}),
    Variant("learning rate 3e-4", {"learning_rate": 3e-4}),
    Variant("learning rate 3e-3", {"learning_rate": 3e-3}),
    Variant("learning rate 1e-4, denoising term 0.2", {"learning_rate": 1e-4, "sft_weight": 0.2}),
    Variant("no real winners", real_share=0.0),
    Variant("half real winners", real_share=0.5),
    Variant("winners alone, real ones (SFT)", {"loss": "sft"}, real_share=1.0),
    Variant("winners alone (rejection as a loss)", {"loss": "sft", "sft_weight": 0.0}),
    Variant("no denoising term", {"sft_weight": 0.0}),
    Variant("denoising term 0.2", {"sft_weight": 0.2}),
    Variant("denoising term 1", {"sft_weight": 1.0}),
    Variant("denoising term 10", {"sft_weight": 10.0}),
    Variant("SDPO mu 0.5", {"sdpo_mu": 0.5}),
    Variant("SDPO mu 0.9", {"sdpo_mu": 0.9}),
    Variant("KTO, learning rate 1e-4, denoising term 0.2", {"loss": "kto", "learning_rate": 1e-4, "sft_weight": 0.2}),
    Variant("KTO, denoising term 0.2", {"loss": "kto", "sft_weight": 0.2}),
    Variant("MaPO, learning rate 1e-4, denoising term 0.2", {"loss": "mapo", "learning_rate": 1e-4, "sft_weight": 0.2}),
    Variant("MaPO", {"loss": "mapo"}),
    Variant("moving average 0.99", {"ema_decay": 0.99}),
    Variant("16 pairs", num_pairs=16),
    Variant("48 pairs", num_pairs=48),
    Variant("2 candidates", candidates=2),
    Variant("margin 0.2", margin=0.2),
    Variant("votes for scores", judged_by="votes"),
    Variant("10 % wrong", flipped=0.1),
    Variant("30 % wrong", flipped=0.3),
    Variant("plain DPO", {"beta_per_value": 0.03, "sft_weight": 0.0}, real_share=0.0),
)
"""The fourth learning rate was the default once. The last variant hacks the reward: no leash, no real image."""


def run_variant(cell: Cell, variant: Variant) -> dict[str, Any]:
    """Train one variant to its last step, and read it on fresh masks and seeds beside the base.

    Returns:
        gain, win_rate (judge, with 95 % intervals), distances, variety and winner ratio before and after, the gate's verdict with
        its reasons, and whether an alarm would have stopped it.
    """
    pairs = chosen_pairs(cell, variant)
    given = dict(variant.config)
    per_value = given.pop("beta_per_value", None)
    base = AlignmentConfig(num_steps=cell.settings.align_steps, learning_rate=cell.settings.learning_rate,
                           sft_weight=cell.settings.sft_weight, loss=cell.settings.loss, seed=cell.seed)  # fmt: skip
    config = replace(base, **given)
    if per_value is not None:
        config = replace(config, beta=per_value * 3 * cell.learners.side**2)

    def make() -> Arrays:
        engine, gate = cell.learners.engine(), _gate(cell)
        seeds = [FIRST_SEED + index for index in range(len(gate.label_maps))]
        before = gate.read(engine.generate(gate.label_maps, seeds))
        trainer = PairTrainer(engine, pairs, config, anchors=[(e.image, e.label_map) for e in cell.learners.real])
        alarm = ""
        for _ in range(config.num_steps):
            numbers = trainer.train_step()
            cell.learners.report(trainer.step, config.num_steps, variant.name)
            alarm = alarm or trainer.alarm() or ""
            if not np.isfinite(numbers["gradient_norm"]):
                break
        with trainer.averaged():
            engine.weights_changed()
            after = gate.read(engine.generate(gate.label_maps, seeds))
            held = trainer.measure_held_out()
        return {
            "readings": np.array([json.dumps(reading_to_json(one)) for one in (before, after)]),
            "winner_ratio": np.array(held["winner_ratio"]),
            "held_accuracy": np.array(held["held_accuracy"]),
            "alarm": np.array(alarm),
        }

    own = cell.learners
    upstream = {"pool": cell.rounds.pool_stage(0).key, "scorers": [own.scorer_stage(name).key for name in ("fold 0", "judge")],
                "test": own.test}  # fmt: skip
    if variant.judged_by == "votes":
        upstream["expert"] = own.scorer_stage("expert").key
    key = own.base | upstream | {"variant": asdict(variant), "config": asdict(config), "masks": FRESH_MASKS}
    stage = cell.stages.get("ablation", key, make)
    before, after = (reading_from_json(json.loads(str(text))) for text in stage["readings"])
    return _told(before, after, winner_ratio=float(stage["winner_ratio"])) | {
        "num_pairs": len(pairs),
        "held_accuracy": round(float(stage["held_accuracy"]), 4),
        "alarm": str(stage["alarm"]) or None,
        "minutes": round(stage.seconds / 60, 1),
    }


def chosen_pairs(cell: Cell, variant: Variant) -> list[TrainingPair]:
    """Best against worst of each mask, and real images against the worst, as the variant wants them."""
    masks, rows, scores = cell.rounds.pool(0)
    if variant.judged_by == "votes":
        flat = [image for row in rows for image in row]
        asked = [label_map for label_map, _ in masks for _ in rows[0]]
        scores = np.array([one.mean for one in cell.learners.scorer("expert").fidelity(flat, asked)]).reshape(scores.shape)
    if variant.candidates is not None:
        rows, scores = [row[: variant.candidates] for row in rows], scores[:, : variant.candidates]
    pairs = cell.rounds.pairs(masks, rows, scores, margin=variant.margin)
    draw = np.random.default_rng(cell.seed)
    if variant.real_share is not None:
        real, made = ([pair for pair in pairs if pair.is_real is wanted] for wanted in (True, False))
        pairs = _mixed(real, made, share=variant.real_share)
    pairs = [pairs[index] for index in draw.permutation(len(pairs))][: variant.num_pairs]
    wrong = set(draw.permutation(len(pairs))[: round(variant.flipped * len(pairs))].tolist())
    return [
        replace(pair, chosen=pair.rejected, rejected=pair.chosen, is_real=False) if index in wrong else pair
        for index, pair in enumerate(pairs)
    ]


def _mixed(real: Sequence[TrainingPair], made: Sequence[TrainingPair], *, share: float) -> list[TrainingPair]:
    """As many pairs as this share allows."""
    if share in (0.0, 1.0):
        return list(real if share else made)
    count = int(min(len(real) / share, len(made) / (1 - share)))
    return [*real[: round(share * count)], *made[: round((1 - share) * count)]]


def _gate(cell: Cell) -> Gate:
    own = cell.learners
    fresh = [label_map for label_map, _ in cell.rounds.masks(FRESH_MASKS, first=FIRST_FRESH)]
    return Gate(label_maps=fresh, selector=own.scorer("fold 0"), judge=own.scorer("judge"), num_classes=own.num_classes,
                real=[example.image for example in cell.case.test], training=[example.image for example in own.real])  # fmt: skip


def _told(before: Reading, after: Reading, *, winner_ratio: float) -> dict[str, Any]:
    verdict = compare(after, before, winner_ratio=winner_ratio)
    return {
        "gain": [round(value, 4) for value in verdict.dice_gain],
        "win_rate": [round(value, 4) for value in (verdict.win_rate, *verdict.win_rate_interval)],
        "selector_gain": [
            round(value, 4)
            for value in quality.paired_interval(np.subtract(after.selector_dice, before.selector_dice).tolist())
        ],
        "feature_distance": [round(one.feature_distance, 3) for one in (before, after)],
        "appearance_distance": [round(one.appearance_distance, 3) for one in (before, after)],
        "vendi": [round(one.vendi, 2) for one in (before, after)],
        "nearest": [round(one.nearest, 3) for one in (before, after)],
        "winner_ratio": round(winner_ratio, 4) if np.isfinite(winner_ratio) else None,
        "passes": verdict.passed,
        "reasons": list(verdict.reasons),
    }


def run(cells: Sequence[Cell], variants: Sequence[Variant] = VARIANTS, *, note: Callable[[str], None]) -> dict[str, Any]:
    """Every variant on every seed; numbers of a variant are lists, one entry per seed."""
    devices.use_all_threads()
    rows: dict[str, list[dict[str, Any]]] = {variant.name: [] for variant in variants}
    for cell in cells:
        for variant in variants:
            found = run_variant(cell, variant)
            rows[variant.name].append(found)
            stopped = found["alarm"] or "; ".join(found["reasons"]) or "passes"
            note(f"{cell.case.name}, seed {cell.seed}: {variant.name}: gain {found['gain'][0]:+.4f}, "
                 f"wins {found['win_rate'][0]:.0%}, features {found['feature_distance'][1]:.2f} ({stopped})")  # fmt: skip
    return {"case": cells[0].case.name, "num_real": cells[0].num_real, "variants": rows}


COLUMNS = ("", "judge's Dice, gain", "wins", "features", "colour, texture", "variety", "winners' error", "the gate")
REASONS = {
    "judge prefers": "wins",
    "fidelity fell": "Dice",
    "in features": "features",
    "in colour": "colour, texture",
    "held-out winners": "winners' error",
    "variety": "variety",
    "covered": "coverage",
    "single training": "copies",
}
"""Words of the gate's reasons, and what they are called beside the numbers."""


def markdown(result: dict[str, Any]) -> list[str]:
    """A row per variant, its numbers the means over seeds; the interval of a gain where there is one seed."""
    found = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for name, rows in result["variants"].items():
        low, high = rows[0]["gain"][1:]
        told = [name, f"{_mean(rows, 'gain'):+.3f}" + (f" ({low:.3f} to {high:.3f})" if len(rows) == 1 else "")]
        told.append(f"{_mean(rows, 'win_rate'):.0%}")
        for measure in ("feature_distance", "appearance_distance", "vendi"):
            told.append(f"{_mean(rows, measure):.2f} to {_mean(rows, measure, 1):.2f}")
        ratios = [row["winner_ratio"] for row in rows]
        told.append("not a number" if None in ratios else f"{np.mean(ratios):.2f}")
        found.append("| " + " | ".join([*told, _judged(rows)]) + " |")
    return found


def _mean(rows: Sequence[dict[str, Any]], name: str, place: int = 0) -> float:
    return float(np.mean([row[name][place] for row in rows]))


def _judged(rows: Sequence[dict[str, Any]]) -> str:
    """How many seeds the gate lets through, and what it says of the others."""
    refused = sum(not row["passes"] for row in rows)
    verdict = "passes" if not refused else "refuses" if refused == len(rows) else f"refuses {refused} of {len(rows)}"
    reasons = {next((short for words, short in REASONS.items() if words in reason), reason)
               for row in rows for reason in row["reasons"]}  # fmt: skip
    alarms = {f"alarm: {row['alarm']}" for row in rows if row["alarm"]}
    return ": ".join([verdict, ", ".join(sorted(reasons) + sorted(alarms))]) if reasons or alarms else verdict
