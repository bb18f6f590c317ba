"""Fitting a tiny mask generator and drawing with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from saadi.engines import weights
from saadi.errors import BadInputError, CancelledError, TooFewError
from saadi.jobs import silent
from saadi.mask_generator import fitting
from saadi.mask_generator.anatomy import overlap
from saadi.mask_generator.model import MaskGenerator
from saadi.records import LabelMap
from tests import tiny

SIDE = 64
ARCHITECTURE = {"kind": "masks", "num_classes": 3, "grid": 32, "patch": 4, "widths": [16, 32], "shift": 3.0}


def anatomy_like(seed: int) -> LabelMap:
    """The organ of `tiny.scene`, and in every second one a bar as broad as chance has it."""
    label_map, draw = tiny.scene(seed, side=SIDE)[1], np.random.default_rng(seed)
    label_map[label_map == 2] = 0
    if seed % 2:
        top = int(draw.integers(2, 14))
        label_map[top : top + int(draw.integers(5, 13))] = 2
    return label_map


REAL = [anatomy_like(seed) for seed in range(40)]


def fitted(config: fitting.MaskFitConfig, *, real: list[LabelMap] = REAL, **rest: Any) -> MaskGenerator:
    return fitting.fit(real, num_classes=3, side=SIDE, config=config, report=rest.pop("report", silent),
                       architecture=ARCHITECTURE, **rest)[0]  # fmt: skip


@pytest.fixture(scope="module")
def generator() -> MaskGenerator:
    return fitted(fitting.MaskFitConfig(num_steps=300))


def test_new_masks_keep_to_the_anatomy_and_are_no_copies(generator: MaskGenerator):
    made = generator.suggest(24, seed=0, side=SIDE)
    assert generator.anatomy is not None
    for one in made:
        assert one.label_map.shape == (SIDE, SIDE) and generator.anatomy.faults(one.label_map) == []
        assert max(overlap(one.label_map, real) for real in REAL) < 0.98
    between = [overlap(a.label_map, b.label_map) for place, a in enumerate(made) for b in made[:place]]
    among_real = [overlap(a, b) for place, a in enumerate(REAL) for b in REAL[:place]]
    assert np.mean(between) <= np.mean(among_real) + 0.02


def test_a_seed_is_a_mask_whatever_is_drawn_beside_it(generator: MaskGenerator):
    together, alone = generator.suggest(3, seed=5, side=SIDE), generator.suggest(1, seed=6, side=SIDE)
    np.testing.assert_array_equal(together[1].label_map, alone[0].label_map)
    assert not np.array_equal(together[0].label_map, together[1].label_map)


def test_a_stronger_variation_leads_farther_away(generator: MaskGenerator):
    start = REAL[1]
    near, far = (
        [overlap(one.label_map, start) for one in generator.suggest(12, seed=0, side=SIDE, start=start, strength=strength)]
        for strength in (0.2, 0.9)
    )
    assert np.mean(near) > np.mean(far) + 0.05 and np.mean(near) > 0.6


def test_nothing_drawn_anew_is_the_mask_itself(generator: MaskGenerator):
    [same] = generator.suggest(1, seed=0, side=SIDE, start=REAL[2], strength=0.0)
    assert overlap(same.label_map, REAL[2]) > 0.9 and same.base == -1


def test_a_class_that_is_asked_for_occurs(generator: MaskGenerator):
    assert all((one.label_map == 2).any() for one in generator.suggest(8, seed=3, side=SIDE, classes=[2]))


def test_other_sizes_are_drawn_as_well(generator: MaskGenerator):
    assert generator.suggest(1, seed=0, side=200)[0].label_map.shape == (200, 200)


def test_stored_weights_draw_the_same(generator: MaskGenerator, tmp_path: Path):
    file = tmp_path / "masks.safetensors"
    file.write_bytes(weights.to_bytes(generator.denoiser.state_dict()))
    again = MaskGenerator.from_file(generator.architecture, file, real=REAL)
    np.testing.assert_array_equal(again.suggest(1, seed=9, side=SIDE)[0].label_map,
                                  generator.suggest(1, seed=9, side=SIDE)[0].label_map)  # fmt: skip


def test_an_interrupted_fit_equals_an_uninterrupted_one(tmp_path: Path):
    config = fitting.MaskFitConfig(num_steps=8, batch_size=4)
    whole = fitted(config)

    def stop(step: int, total: int, message: str, **_: object) -> None:
        if step == 3:
            raise CancelledError

    with pytest.raises(CancelledError):
        fitted(config, folder=tmp_path, report=stop)
    resumed = fitted(config, folder=tmp_path)
    for name, value in whole.denoiser.state_dict().items():
        torch.testing.assert_close(resumed.denoiser.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"strength": 1.5}, "a strength lies between 0 and 1, got 1.5"),
        ({"classes": [9]}, "no real mask holds class 9"),
        ({"start": np.zeros((SIDE, SIDE), np.uint8)}, "the mask to vary is empty"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(generator: MaskGenerator, asked: dict, words: str):
    with pytest.raises(BadInputError, match=words):
        generator.suggest(1, seed=0, side=SIDE, **asked)


def test_when_nothing_passes_the_commonest_reason_is_told(generator: MaskGenerator):
    start = REAL[0]  # without a bar
    with pytest.raises(BadInputError, match=r"none of 12 masks drawn passes .* \(mostly: class 2 is missing\)"):
        generator.suggest(1, seed=0, side=SIDE, start=start, strength=0.1, classes=[2])


def test_what_somebody_drew_against_the_rules_may_be_varied(generator: MaskGenerator):
    start = np.zeros((SIDE, SIDE), np.uint8)
    start[4:50, 4:60] = 1
    assert generator.anatomy is not None and generator.anatomy.faults(start) == ["class 1 is too large"]
    [varied] = generator.suggest(1, seed=0, side=SIDE, start=start, strength=0.3)
    assert overlap(varied.label_map, start) > 0.4


def test_too_few_or_empty_masks_are_refused():
    empty = [np.zeros((SIDE, SIDE), np.uint8)] * 9
    with pytest.raises(TooFewError, match=r"2 training masks that hold a class, 5 needed .* 3 more"):
        fitted(fitting.MaskFitConfig(num_steps=1), real=[*REAL[:2], *empty])


def test_label_maps_with_a_rare_class_come_more_often():
    common, rare = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    common[:4], rare[:4], rare[6] = 1, 1, 2
    odds = fitting._odds([common] * 15 + [rare], num_classes=3)
    assert odds.sum() == pytest.approx(1) and odds[-1] / odds[0] == pytest.approx(4)  # the root of one in sixteen
    bank = fitting.Bank([common] * 15 + [rare], num_classes=3, grid=16, seed=0, size=200)
    share = (bank.wishes[:, 4] > 0).float().mean()  # says whether class 2 occurs
    assert 0.12 < float(share) < 0.32
