"""Adapting to few images: what is held out, what is kept, when it ends, and that it goes on after a stop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from saadi.engines import few_shot, fitting, lora
from saadi.engines.few_shot import MAX_COPIES, MIN_IMAGES, PATIENCE, Watch, fit_few, hold_out
from saadi.engines.fitting import FitConfig, mask_weights
from saadi.errors import CancelledError, TooFewError
from saadi.jobs import silent
from tests import tiny

IMAGES, LABEL_MAPS = tiny.scenes(10)
GROUPS = [f"p{index // 2}" for index in range(10)]


def config(steps: int = 60, **changes) -> FitConfig:
    return FitConfig(num_steps=steps, batch_size=4, learning_rate=3e-3, ema_decay=0.9, mask_weight=0.5, mix_probability=0.5,
                     sample_every=0, **changes)  # fmt: skip


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_shot, "CHECK_EVERY", 10)
    monkeypatch.setattr(few_shot, "NUM_LOOKS", 4)


# ---- parts


def test_whole_patients_are_held_out():
    held = hold_out(GROUPS, seed=0)
    assert len(held) == 2 and len({GROUPS[index] for index in held}) == 1
    assert hold_out(GROUPS, seed=0) == held and {tuple(hold_out(GROUPS, seed=seed)) for seed in range(9)} != {tuple(held)}
    alone = hold_out(["p"] * 10, seed=0)
    assert len(alone) == 2  # one patient alone: some of the images
    assert [hold_out(["a"] * 9 + ["b"], seed=seed) for seed in range(4)] == [[9]] * 4  # never the patient with most images
    assert len(hold_out(["a"] * 5 + ["b"] * 5, seed=0)) == 5  # all have more than a fifth: one of them, whole
    assert len(hold_out([f"p{index}" for index in range(190)], seed=0)) == 32


@pytest.mark.parametrize(("count", "words"), [(1, "1 image with a label map, 5"), (4, "4 images with a label map, 5")])
def test_too_few_images_are_refused(count: int, words: str):
    with pytest.raises(TooFewError, match=words):
        hold_out(GROUPS[:count], seed=0)
    assert MIN_IMAGES == 5


def test_what_a_label_map_names_weighs_as_much_as_all_around_it():
    label_maps = torch.zeros(4, 10, 10, dtype=torch.uint8)
    label_maps[0, :1, :2] = 1  # 2 % of the image
    label_maps[1, :5] = 2
    label_maps[3] = 1
    found = mask_weights(label_maps)
    assert found.mean((1, 2)) == pytest.approx(np.ones(4), abs=1e-5)
    assert float(found[1].max()) == pytest.approx(1.0) and (found[2] == 1).all() and (found[3] == 1).all()
    assert found[0, 0, 0] / found[0, 9, 9] == pytest.approx(fitting.MAX_MASK_WEIGHT / (0.02 / (2 * 0.02 * 0.98)), rel=0.01)


def test_outlines_are_mixed_and_small_shifts_change_no_class_far_from_them():
    label_map = torch.zeros(16, 32, 32, dtype=torch.uint8)
    label_map[:, 8:24, 8:24] = 1
    label_map[:, 0, 0] = 255
    draw = torch.Generator().manual_seed(0)
    found = fitting.mixed(label_map, config().mix_probability, num_classes=3, generator=draw)
    changed = (found != label_map).flatten(1).any(1)
    assert 3 <= int(changed.sum()) <= 13  # about half
    assert (found[:, 10:22, 10:22] == 1).all() and (found[:, 2:6, 2:6] == 0).all() and (found[:, 0, 0] == 255).all()
    assert fitting.mixed(label_map, 0.0, num_classes=3, generator=draw) is label_map


# ---- the fit


def test_the_held_out_loss_falls_below_the_base_and_the_best_state_is_kept(often: None):
    engine = tiny.engine()
    told = fit_few(engine, IMAGES, LABEL_MAPS, GROUPS, config(), silent)
    assert told["held_out_loss"] < 0.9 * told["base_loss"] and told["best_step"] % 10 == 0 and told["num_held_out"] == 2
    held = hold_out(GROUPS, seed=0)
    learnt = [index for index in range(10) if index not in held]
    watch = Watch(engine, [IMAGES[i] for i in learnt], [LABEL_MAPS[i] for i in learnt],
                  ([IMAGES[i] for i in held], [LABEL_MAPS[i] for i in held]), [GROUPS[i] for i in learnt])  # fmt: skip
    assert watch.held_out_loss() == pytest.approx(told["held_out_loss"], rel=0.02)  # it is the engine's now


def test_it_ends_when_nothing_gets_better_and_the_base_stays(often: None, monkeypatch: pytest.MonkeyPatch):
    engine = tiny.engine()
    before = {name: tensor.clone() for name, tensor in engine.denoiser.state_dict().items()}
    losses = iter(range(1, 100))
    monkeypatch.setattr(Watch, "held_out_loss", lambda self: float(next(losses)))
    told = fit_few(engine, IMAGES, LABEL_MAPS, GROUPS, config(500), silent)
    assert told["steps"] == 10 * PATIENCE and told["best_step"] == 0 and told["held_out_loss"] == told["base_loss"] == 1.0
    assert all((before[name] == tensor).all() for name, tensor in engine.denoiser.state_dict().items())


def test_states_that_paint_copies_are_not_kept(often: None, monkeypatch: pytest.MonkeyPatch):
    losses, shares = iter([5.0, 4.0, 3.0, 2.0, *[9.0] * 20]), iter([0.0, 0.0, MAX_COPIES, 0.5, *[0.0] * 20])
    monkeypatch.setattr(Watch, "held_out_loss", lambda self: next(losses))
    monkeypatch.setattr(Watch, "copies", lambda self: next(shares))
    told = fit_few(tiny.engine(), IMAGES, LABEL_MAPS, GROUPS, config(500), silent)
    assert told["best_step"] == 20 and told["held_out_loss"] == 3.0 and told["copies"] == MAX_COPIES


def test_a_later_state_is_taken_while_its_loss_is_near_the_lowest(often: None, monkeypatch: pytest.MonkeyPatch):
    losses = iter([5.0, 4.0, 3.0, 3.2, 3.31, 3.29, *[3.4] * 20])
    monkeypatch.setattr(Watch, "held_out_loss", lambda self: next(losses))
    monkeypatch.setattr(Watch, "copies", lambda self: 0.0)
    told = fit_few(tiny.engine(), IMAGES, LABEL_MAPS, GROUPS, config(500), silent)
    assert told["best_step"] == 50 and told["held_out_loss"] == 3.29 and told["steps"] == 50 + 10 * PATIENCE


def test_a_watch_that_is_ahead_of_its_checkpoint_waits_until_the_fit_has_caught_up(
    often: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """The worker was killed: the watch knows steps up to 40, the last checkpoint of the trainer is gone."""
    first = {0: 5.0, 10: 4.0, 20: 3.0, 30: 2.9, 40: 3.5}
    known = iter(first.values())
    monkeypatch.setattr(Watch, "copies", lambda self: 0.0)
    monkeypatch.setattr(Watch, "held_out_loss", lambda self: next(known))

    def killed(step, total, message, **rest):
        if step == 41:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_few(tiny.engine(), IMAGES, LABEL_MAPS, GROUPS, config(500), killed, folder=tmp_path)
    again = iter([*list(first.values())[1:], 2.95, *[9.0] * 20])  # the base is known; the same steps, and those after them
    monkeypatch.setattr(Watch, "held_out_loss", lambda self: next(again))
    told = fit_few(tiny.engine(), IMAGES, LABEL_MAPS, GROUPS, config(500), silent, folder=tmp_path)
    assert (told["best_step"], told["held_out_loss"]) == (50, 2.95) and told["steps"] == 50 + 10 * PATIENCE


def test_an_engine_that_repeats_its_training_images_is_seen(monkeypatch: pytest.MonkeyPatch):
    images, label_maps = tiny.scenes(24, side=64)
    images = [np.clip(image.astype(int) + 4 * index, 0, 255).astype(np.uint8) for index, image in enumerate(images)]
    engine = tiny.engine(resolution=64)
    watch = Watch(engine, images, label_maps, (images[:2], label_maps[:2]), [f"p{index}" for index in range(24)])
    monkeypatch.setattr(engine, "generate", lambda asked, seeds: [images[index % 24] for index in range(len(asked))])
    assert watch.copies() == 1.0
    few = Watch(engine, images[:5], label_maps[:5], (images[5:6], label_maps[5:6]), [f"p{index}" for index in range(5)])
    assert few.copies() is None  # nobody can say what near is


def test_an_adapter_is_learnt_and_merged(often: None):
    engine = tiny.engine()
    names = set(engine.denoiser.state_dict())
    before = {name: tensor.clone() for name, tensor in engine.denoiser.state_dict().items()}
    told = fit_few(engine, IMAGES, LABEL_MAPS, GROUPS, config(), silent, rank=4)
    after = engine.denoiser.state_dict()
    assert set(after) == names and not lora.is_attached(engine.denoiser) and told["best_step"] > 0
    changed = {name for name in names if not torch.equal(before[name], after[name])}
    assert changed and all(any(target in name for target in lora.TARGETS) for name in changed)
    assert all(parameter.requires_grad for parameter in engine.denoiser.parameters())


def test_a_stopped_fit_goes_on_as_if_it_had_not_been(often: None, tmp_path: Path):
    whole = tiny.engine()
    told = fit_few(whole, IMAGES, LABEL_MAPS, GROUPS, config(40), silent)

    def stopping(step: int, total: int, message: str, **more) -> None:
        if step == 25:
            raise CancelledError("stopped")

    with pytest.raises(CancelledError):
        fit_few(tiny.engine(), IMAGES, LABEL_MAPS, GROUPS, config(40), stopping, folder=tmp_path)
    again = tiny.engine()
    resumed = fit_few(again, IMAGES, LABEL_MAPS, GROUPS, config(40), silent, folder=tmp_path)
    for name in ("base_loss", "held_out_loss", "best_step", "steps"):
        assert resumed[name] == told[name]
    for name, tensor in whole.denoiser.state_dict().items():
        assert torch.equal(tensor, again.denoiser.state_dict()[name])
