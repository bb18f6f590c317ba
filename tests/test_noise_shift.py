"""Start noise that is learnt to become hard images: what the target loses, the leash, resuming, and the search that uses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from saadi.config import Home
from saadi.downstream import hardness, scoring
from saadi.downstream.classifier import Classifier
from saadi.downstream.folds import CrossFitted
from saadi.engines import weights
from saadi.engines.base import Rollout
from saadi.engines.starting import NoiseShift, default_architecture
from saadi.errors import BadInputError, CancelledError, NotFoundError
from saadi.generation import plan
from saadi.jobs import silent
from saadi.mining import learning, noise_shift
from saadi.mining.noise_shift import Asked, ShiftConfig
from saadi.orders import GenerateOrder, MineOrder, order
from saadi.records import IGNORE, LabelMap, Project
from saadi.store import Store
from tests import tiny
from tests.test_mining import filled, generous, run, trained

__all__ = ["filled", "generous", "trained"]


# ---- how hard


def test_soft_losses_agree_with_counted_dice_where_the_target_is_sure():
    target, label_map = tiny.segmenter("unet"), np.zeros((32, 32), np.uint8)
    label_map[:, :8], label_map[:, 8:16], label_map[0] = 1, 2, IGNORE
    seen = torch.zeros(1, 3, 32, 32)
    seen[:, 1, :, :16], seen[:, 0, :, 16:] = 50.0, 50.0  # organ in the bar's place, too; the ignored row does not count
    target.network = Says(seen)
    [loss] = hardness.losses(target, torch.zeros(1, 3, 32, 32), [label_map])
    assert float(loss) == pytest.approx(1 - (2 * 8 / (16 + 8) + 0) / 2, abs=1e-4)
    target.network = Says(seen * 0)
    blank = np.zeros((32, 32), np.uint8)
    [empty] = hardness.losses(target, torch.zeros(1, 3, 32, 32), [blank])  # background alone is asked for, a third is given
    assert float(empty) == pytest.approx(1 - 2 * (1 / 3) / (1 / 3 + 1), abs=1e-4)


def test_of_a_classifier_it_is_the_probability_that_is_missing():
    target = Classifier({"model": "resnet", "num_classes": 3, "size_px": 32, "widths": [8, 8, 8, 8], "temperature": 2.0})
    pixels, asked = torch.randn(2, 3, 40, 40), [np.full((8, 8), index, np.uint8) for index in (1, 2)]
    pixels.requires_grad_(True)
    found = hardness.losses(target, pixels, asked)
    small = torch.nn.functional.interpolate(pixels, size=(32, 32), mode="bilinear", antialias=True)
    calibrated = (target.network(small) / 2.0).softmax(1)
    torch.testing.assert_close(found, 1 - torch.stack([calibrated[0, 1], calibrated[1, 2]]))
    found.sum().backward()
    assert pixels.grad is not None and float(pixels.grad.abs().sum()) > 0


def test_members_are_the_folds_of_a_selector_or_the_model_itself():
    one, two = tiny.segmenter("unet"), tiny.segmenter("unet", 1)
    assert hardness.members(CrossFitted([one, two], {})) == [one, two] and hardness.members(one) == [one]


class Says(torch.nn.Module):
    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.said = logits

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.said.expand(len(pixels), -1, -1, -1)


# ---- learning


class Brightness(torch.nn.Module):
    """Finds the organ where it is dark: what a miner has to find out."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        dark = -20 * pixels.mean(1, keepdim=True)
        return torch.cat([torch.zeros_like(dark), dark, torch.full_like(dark, -20.0)], dim=1)


def blurred(side: int = tiny.SIDE) -> Rollout:
    """An engine whose images are dark in the organ and bright elsewhere, and its noise in blocks of four."""

    def pixels(noise: torch.Tensor, label_maps: Sequence[LabelMap], regions: object) -> torch.Tensor:
        drawn = torch.from_numpy(np.stack(label_maps) == 0)[:, None].float() - 0.5
        return drawn + torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(noise, 4), scale_factor=4)

    return Rollout((3, side, side), pixels)


def learnt(
    folder: Path | None = None, report=silent, *, rollout: Rollout | None = None, **changes
) -> tuple[NoiseShift, dict]:  # fmt: skip
    target = tiny.segmenter("unet")
    target.network = Brightness()
    label_maps = [label_map for label_map in tiny.scenes(16)[1] if not (label_map == 2).any()]
    torch.manual_seed(0)
    made = NoiseShift(default_architecture(num_classes=3, noise=blurred().noise))
    config = replace(ShiftConfig(num_steps=60, learning_rate=1e-2), **changes)
    metrics = noise_shift.fit(made, rollout or blurred(), [target], len(label_maps), lambda place: Asked(label_maps[place]),
                              config, report, folder=folder)  # fmt: skip
    return made, metrics


def test_the_target_does_worse_on_what_is_learnt_and_a_leash_holds_it():
    _, free = learnt(beta=0.0)
    _, held = learnt(beta=0.02)
    _, tight = learnt(beta=10.0)
    assert free["moved_loss"] > free["plain_loss"] + 0.15 and free["plain_loss"] == held["plain_loss"] == tight["plain_loss"]
    assert abs(tight["moved_loss"] - tight["plain_loss"]) < 0.02
    assert free["divergence"] > held["divergence"] > tight["divergence"] and tight["divergence"] < 0.1


def test_interrupted_is_uninterrupted(tmp_path):
    whole, told = learnt(num_steps=12)

    def stop(step, total, message, **rest):
        if step == 5:
            raise CancelledError("stopped")

    with pytest.raises(CancelledError):
        learnt(tmp_path, stop, num_steps=12)
    resumed, told_again = learnt(tmp_path, num_steps=12)
    assert {name: told_again[name] for name in ("plain_loss", "moved_loss", "divergence", "steps")} == {
        name: told[name] for name in ("plain_loss", "moved_loss", "divergence", "steps")}  # fmt: skip
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, rtol=0, atol=0, msg=name)


def test_one_image_at_a_time_learns_the_same(tmp_path):
    whole, _ = learnt(num_steps=6)
    split, _ = learnt(num_steps=6, rollout=blurred()._replace(at_once=1))
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(split.state_dict()[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_gradients_that_are_not_finite_change_nothing():
    def broken(noise: torch.Tensor, label_maps: object, regions: object) -> torch.Tensor:
        return noise * float("inf")

    made, _ = learnt(num_steps=3, rollout=Rollout(blurred().noise, broken))
    torch.manual_seed(0)
    untouched = NoiseShift(default_architecture(num_classes=3, noise=blurred().noise))
    assert all(torch.equal(tensor, made.state_dict()[name]) for name, tensor in untouched.state_dict().items())


# ---- the search


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no number of steps is ordered."""
    monkeypatch.setattr(ShiftConfig, "num_steps", 2)


def test_a_learned_search_keeps_what_it_learnt_and_uses_it_again(
    store: Store, home: Home, trained: Project, generous: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(noise_shift, "KAPPA", 1.0)  # a barely trained selector fails beyond it, where nothing is to be learnt
    run(store, home, MineOrder, project_id=trained.id, count=2, candidates=2, turns=1, seed=7)
    plain = {sample.blob for sample in store.samples(trained.id)}
    found = run(store, home, MineOrder, project_id=trained.id, count=2, candidates=2, turns=1, seed=7, learned=True,
                learn_steps=3)  # fmt: skip
    [shift] = store.noise_shifts(trained.id)
    model, selector = (store.active_model(trained.id, kind) for kind in ("engine", "selector"))
    assert (shift.model_id, shift.adapter_id, shift.selector_id) == (model.id, None, selector.id) and shift.metrics["steps"] == 3
    made = [sample for sample in store.samples(trained.id) if sample.id in found.result["sample_ids"]]
    assert all(sample.settings["noise_shift_id"] == shift.id for sample in made)
    assert not plain & {sample.blob for sample in made}  # the same masks and seeds from elsewhere
    run(store, home, MineOrder, project_id=trained.id, count=2, candidates=2, turns=1, seed=8, learned=True)
    assert store.noise_shifts(trained.id) == [shift]
    run(store, home, MineOrder, project_id=trained.id, count=2, candidates=2, turns=1, seed=8, learned=True, learn_steps=1)
    assert len(store.noise_shifts(trained.id)) == 2
    again = run(store, home, GenerateOrder, project_id=trained.id, label_map_ids=[made[0].label_map_id], candidates=1,
                seed=made[0].seed, settings={"noise_shift_id": shift.id})  # fmt: skip
    assert again.result["sample_ids"] == [made[0].id]  # found again by its recipe


def test_after_a_pause_the_search_goes_on_from_the_noise_it_began_with(
    store: Store, home: Home, trained: Project, generous: None, monkeypatch: pytest.MonkeyPatch
):
    """The scorers are trained anew while a search waits, and another search learns a start of its own."""
    monkeypatch.setattr(noise_shift, "KAPPA", 1.0)
    learnt_for = []
    original = learning._learnt

    def counted(context, *rest):
        learnt_for.append(context.job.id)
        return original(context, *rest)

    monkeypatch.setattr(learning, "_learnt", counted)
    done = run(store, home, MineOrder, project_id=trained.id, count=2, candidates=2, turns=1, learned=True, learn_steps=1)
    selector = store.active_model(trained.id, "selector")
    again = tiny.segmenter("unet", 5)
    store.add_model(trained.id, kind="selector", architecture=again.architecture | {"folds": 1},
                    file=store.files.put(weights.to_bytes(again.network.state_dict())), metrics={}, actor="test")  # fmt: skip
    project, model = store.project(trained.id), store.active_model(trained.id, "engine")
    context = SimpleNamespace(store=store, job=store.job(done.id), params=store.job(done.id).params, dir=home.path)
    wanted = plan(store, project, model=model, adapter=None, settings={}, purpose="pool")
    scorers = scoring.load_scorers(store, project)
    assert scorers[0][0].id != selector.id
    resumed = learning.learnt_start(context, wanted, scorers, silent)
    [shift] = store.noise_shifts(trained.id)
    assert resumed.settings["noise_shift_id"] == shift.id and learnt_for == [done.id]  # nothing was learnt twice
    context.params = {**context.params, "learnt_id": None}  # it ended before the order was written
    monkeypatch.setattr(store, "set_job_params", lambda job, params: job)
    assert learning.learnt_start(context, wanted, scorers, silent).settings["noise_shift_id"] == shift.id
    other = run(store, home, MineOrder, project_id=trained.id, count=2, candidates=2, turns=1, learned=True)
    assert learnt_for == [done.id, other.id] and store.noise_shifts(trained.id)[-1].selector_id != selector.id


def test_a_start_for_real_surroundings_is_another_one(store: Store, home: Home, trained: Project, generous: None):
    for settings in ({}, {"surroundings": "real"}, {"surroundings": "real"}):
        run(store, home, MineOrder, project_id=trained.id, count=2, candidates=2, turns=1, learned=True, settings=settings)
    assert [shift.metrics["surroundings"] for shift in store.noise_shifts(trained.id)] == [None, "real"]


def test_bad_orders_are_refused_in_a_sentence(store: Store, trained: Project):
    with pytest.raises(BadInputError, match="add --learned, or leave them out"):
        order(MineOrder, project_id=trained.id, learn_steps=5).check(store)
    with pytest.raises(NotFoundError, match="no learnt start 9"):
        order(GenerateOrder, project_id=trained.id, settings={"noise_shift_id": 9}).check(store)
    selector, engine = store.active_model(trained.id, "selector"), store.active_model(trained.id, "engine")
    shift = store.add_noise_shift(trained.id, model_id=engine.id, adapter_id=None, selector_id=selector.id, architecture={},
                                  file=store.files.put(b"weights"), metrics={}, actor="test")  # fmt: skip
    store.add_model(trained.id, kind="engine", architecture=engine.architecture, file=store.files.put(b"others"), metrics={},
                    actor="test")  # fmt: skip
    with pytest.raises(BadInputError, match="learnt for another generator or version"):
        order(GenerateOrder, project_id=trained.id, settings={"noise_shift_id": shift.id}).check(store)
