"""Ablations: a variant changes what it says and nothing else; wrong pairs are wrong; nothing is computed twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from saadi.evidence import ablations
from saadi.evidence.ablations import VARIANTS, Variant, chosen_pairs
from saadi.evidence.gains import Cell
from saadi.evidence.stages import Stages
from tests.evidence.test_gains import CASE, MODELS, QUICK


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Cell:
    return Cell(CASE, 8, 0, replace(QUICK, pool_masks=16, candidates=4, rounds=1), MODELS, Stages(tmp_path_factory.mktemp("s")))


def keys(pairs) -> list[tuple[bytes, bytes, bool]]:
    return sorted((pair.chosen.tobytes(), pair.rejected.tobytes(), pair.is_real) for pair in pairs)


def test_variants_choose_pairs_as_they_say(cell: Cell):
    whole = chosen_pairs(cell, Variant("all", margin=0.0))
    real = {example.image.tobytes() for example in cell.learners.real}
    assert {pair.chosen.tobytes() in real for pair in whole if pair.is_real} == {True}
    assert keys(chosen_pairs(cell, Variant("real", margin=0.0, real_share=1.0))) == keys(p for p in whole if p.is_real)
    assert not any(pair.is_real for pair in chosen_pairs(cell, Variant("made", margin=0.0, real_share=0.0)))
    half = chosen_pairs(cell, Variant("half", margin=0.0, real_share=0.5))
    assert sum(pair.is_real for pair in half) * 2 == len(half) > 0
    assert len(chosen_pairs(cell, Variant("few", margin=0.0, num_pairs=5))) == 5
    flipped = chosen_pairs(cell, Variant("wrong", margin=0.0, flipped=0.25))
    exchanged = sum(
        (one.chosen == two.rejected).all() and (one.rejected == two.chosen).all()
        for one, two in zip(flipped, whole, strict=True)
    )
    assert exchanged == round(0.25 * len(whole))
    assert len(chosen_pairs(cell, Variant("strict", margin=2.0))) == sum(pair.is_real for pair in whole)


def test_votes_order_by_the_expert_and_two_candidates_are_two(cell: Cell):
    masks, rows, _ = cell.rounds.pool(0)
    flat, asked = [image for row in rows for image in row], [label_map for label_map, _ in masks for _ in rows[0]]
    judged = np.array([one.mean for one in cell.learners.scorer("expert").fidelity(flat, asked)]).reshape(len(rows), 4)
    made = [pair for pair in chosen_pairs(cell, Variant("votes", margin=0.0, judged_by="votes")) if not pair.is_real]
    best = {rows[index][int(judged[index].argmax())].tobytes() for index in range(len(rows))}
    assert {pair.chosen.tobytes() for pair in made} <= best
    allowed = {image.tobytes() for row in rows for image in row[:2]}
    assert {pair.rejected.tobytes() for pair in chosen_pairs(cell, Variant("two", margin=0.0, candidates=2))} <= allowed


def test_each_variant_is_measured_once_on_masks_of_no_pair(cell: Cell, monkeypatch: pytest.MonkeyPatch):
    wanted = [variant for variant in VARIANTS if variant.name in ("default", "KTO, denoising term 0.2", "plain DPO")]
    assert len(wanted) == 3
    result = ablations.run([cell], wanted, note=lambda text: None)
    assert list(result["variants"]) == [variant.name for variant in wanted]
    for (row,) in result["variants"].values():
        assert len(row["gain"]) == len(row["win_rate"]) == 3 and row["passes"] is (not row["reasons"])

    def never(*args, **more):
        raise AssertionError("trained again")

    monkeypatch.setattr(ablations, "PairTrainer", never)
    assert ablations.run([cell], wanted, note=lambda text: None) == result
    pool = {label_map.tobytes() for label_map, _ in cell.rounds.pool_masks(0)}
    fresh = [label_map for label_map, _ in cell.rounds.masks(ablations.FRESH_MASKS, first=ablations.FIRST_FRESH)]
    assert sum(label_map.tobytes() in pool for label_map in fresh) == 0


def test_names_are_unique_and_settings_exist():
    from saadi.alignment.settings import AlignmentConfig

    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS) >= 20
    for variant in VARIANTS:
        replace(AlignmentConfig(), **{name: value for name, value in variant.config.items() if name != "beta_per_value"})


def test_the_table_tells_the_mean_of_seeds_and_why_the_gate_refuses():
    row = {"gain": [0.02, 0.01, 0.03], "win_rate": [0.7, 0.6, 0.8], "feature_distance": [1.0, 0.5], "vendi": [5.0, 5.5],
           "appearance_distance": [2.0, 3.0], "winner_ratio": 1.04, "passes": True, "reasons": [], "alarm": None}  # fmt: skip
    red = row | {"gain": [0.04, 0.0, 0.1], "passes": False, "winner_ratio": None, "alarm": "the gradient grew",
                 "reasons": ["the images moved away from real ones in colour and texture (2.00 to 3.00)"]}  # fmt: skip
    lines = ablations.markdown({"variants": {"one": [row], "two": [row, red]}})[2:]
    assert lines[0] == "| one | +0.020 (0.010 to 0.030) | 70% | 1.00 to 0.50 | 2.00 to 3.00 | 5.00 to 5.50 | 1.04 | passes |"
    assert lines[1] == ("| two | +0.030 | 70% | 1.00 to 0.50 | 2.00 to 3.00 | 5.00 to 5.50 | not a number | "
                        "refuses 1 of 2: colour, texture, alarm: the gradient grew |")  # fmt: skip
