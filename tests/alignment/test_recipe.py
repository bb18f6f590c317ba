"""The loop around trainer and gate: which checkpoint is published, and when a run stops."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from saadi.alignment.gate import Reading
from saadi.alignment.recipe import Aligned, InGuidance, align
from saadi.alignment.settings import AlignmentConfig, TrainingPair
from saadi.engines import weights
from saadi.engines.base import Negative
from saadi.errors import AlignmentStoppedError, CancelledError
from saadi.jobs import Report, silent
from saadi.records import Task
from tests import tiny

OLD = Reading(dice=(0.5,) * 8, selector_dice=(0.5,) * 8, feature_distance=1.0, appearance_distance=1.0, vendi=5.0, nearest=2.0,
    feature_left_out=(1.0,) * 8, appearance_left_out=(1.0,) * 8)  # fmt: skip
CONFIG = AlignmentConfig(num_steps=6, gate_every=2, batch_size=4, lora_rank=2, learning_rate=1e-3)


@dataclass
class FixedGate:
    """Gives the reference, then one reading per checkpoint."""

    readings: list[Reading]
    task: Task = "segmentation"

    def __post_init__(self) -> None:
        self.label_maps = [tiny.scene(seed)[1] for seed in range(8)]

    def read(self, images):
        assert len(images) == 8
        return self.readings.pop(0)


def pairs() -> list[TrainingPair]:
    made = []
    for seed in range(8):
        (image, label_map), (other, _) = tiny.scene(seed), tiny.scene(seed + 100)
        made.append(TrainingPair(label_map, image, other, weight=1.0, is_real=True, group=str(seed // 2)))
    return made


def dice(value: float) -> Reading:
    return replace(OLD, dice=(value,) * 8)


def run(readings: list[Reading], report: Report = silent, **options: Any) -> Aligned:
    return align(tiny.engine(), pairs(), FixedGate(readings), CONFIG, report, seeds=range(8), **options)


@pytest.mark.parametrize(("readings", "step"), [
    ([OLD, dice(0.7), dice(0.4), dice(0.4)], 2),
    ([OLD, dice(0.6), dice(0.8), dice(0.7)], 4),
    ([OLD, dice(0.9), replace(dice(0.95), feature_distance=3.0), dice(0.4)], 2),
])  # fmt: skip
def test_the_best_checkpoint_that_passed_is_published_not_the_last(readings: list[Reading], step: int) -> None:
    found = run(list(readings))
    assert found.step == step and len(found.history) == 3
    # The same run cut off at that step has the same adapter.
    gate = FixedGate([OLD, *[dice(0.6 + 0.1 * index) for index in range(step // 2)]])
    cut = align(tiny.engine(), pairs(), gate, replace(CONFIG, num_steps=step), silent, seeds=range(8))
    for name, tensor in found.state.items():
        torch.testing.assert_close(tensor, cut.state[name], rtol=0, atol=0)


def test_without_a_passing_checkpoint_the_old_model_stays() -> None:
    with pytest.raises(AlignmentStoppedError, match=r"which stays in use .*prefers the new images in only 0%"):
        run([OLD, dice(0.4), dice(0.4), dice(0.4)])


def test_an_interrupted_run_publishes_what_the_uninterrupted_one_does(tmp_path: Path) -> None:
    readings = [OLD, dice(0.8), dice(0.7), dice(0.6)]
    whole = run(list(readings))

    def keep(state: dict[str, torch.Tensor]) -> str:
        (tmp_path / "best.safetensors").write_bytes(weights.to_bytes(state))
        return str(tmp_path / "best.safetensors")

    def stop_at_five(step, total, message, *, metrics=None, images=None):
        if step >= 5:
            raise CancelledError("killed")

    with pytest.raises(CancelledError):
        align(tiny.engine(), pairs(), FixedGate(list(readings)), CONFIG, stop_at_five, seeds=range(8), folder=tmp_path, keep=keep)
    resumed = align(
        tiny.engine(), pairs(), FixedGate([OLD, dice(0.6)]), CONFIG, silent, seeds=range(8), folder=tmp_path, keep=keep
    )
    assert resumed.step == whole.step == 2 and [row["step"] for row in resumed.history] == [2, 4, 6]
    for name, tensor in whole.state.items():
        torch.testing.assert_close(resumed.state[name], tensor, rtol=0, atol=0)


def test_the_published_adapter_draws_the_images_that_were_judged(tmp_path: Path) -> None:
    found = run([OLD, dice(0.7), dice(0.4), dice(0.4)])
    file = tmp_path / "adapter.safetensors"
    file.write_bytes(weights.to_bytes(found.state))
    maps = [tiny.scene(seed)[1] for seed in range(8)]
    again = tiny.engine().generate(maps, range(8), adapter=file)
    assert all((one == other).all() for one, other in zip(again, found.after, strict=True))


@pytest.mark.parametrize(("stop_at", "checks_done"), [(3, 1), (4, 1), (5, 2)])
def test_a_run_stopped_at_any_step_goes_on_to_the_same_adapter(tmp_path: Path, stop_at: int, checks_done: int) -> None:
    """Step 4 is stopped between the step and its test, which the continued run then makes up for."""
    readings = [OLD, dice(0.6), dice(0.7), dice(0.8)]
    whole = run(list(readings))

    def keep(state: dict[str, torch.Tensor]) -> str:
        (tmp_path / "best.safetensors").write_bytes(weights.to_bytes(state))
        return str(tmp_path / "best.safetensors")

    def stop(step, total, message, *, metrics=None, images=None):
        if metrics and "loss" in metrics and step == stop_at:
            raise CancelledError("stopped by somebody")

    with pytest.raises(CancelledError):
        run(readings[: 1 + checks_done], stop, folder=tmp_path, keep=keep)
    steps: list[int] = []

    def note(step, total, message, *, metrics=None, images=None):
        if metrics and "loss" in metrics:
            steps.append(step)

    resumed = run([OLD, *readings[1 + checks_done :]], note, folder=tmp_path, keep=keep)
    assert steps == list(range(stop_at + 1, 7))  # no step twice, none left out
    assert resumed.step == whole.step == 6 and [row["step"] for row in resumed.history] == [2, 4, 6]
    for name, tensor in whole.state.items():
        torch.testing.assert_close(resumed.state[name], tensor, rtol=0, atol=0)


def test_curves_begin_at_the_present_version_and_pictures_show_the_same_masks(tmp_path: Path) -> None:
    curves: dict[str, list[tuple[int, float]]] = {}
    pictures: dict[int, set[str]] = {}

    def note(step, total, message, *, metrics=None, images=None):
        for name, value in (metrics or {}).items():
            curves.setdefault(name, []).append((step, value))
        if images:
            pictures[step] = set(images)

    run([OLD, dice(0.7), dice(0.6), dice(0.6)], note, show=lambda image: f"{image.sum()}")
    assert [(step, round(value, 3)) for step, value in curves["dice"]] == [(0, 0.5), (2, 0.7), (4, 0.6), (6, 0.6)]
    assert [step for step, _ in curves["winner_error"]] == [1, 2, 3, 4, 5, 6]
    assert curves["winner_error"][0][1] == pytest.approx(1.0, abs=1e-5)  # step 1 is measured before anything was learned
    assert curves["loser_error"][0][1] == pytest.approx(1.0, abs=1e-5)
    assert curves["accuracy_gap"][0][1] == pytest.approx(curves["accuracy"][1][1] - curves["held_accuracy"][0][1])
    assert set(pictures) == {0, 2, 4, 6} and pictures[0] == pictures[6] == {f"image {number}" for number in range(1, 7)}


FAR = replace(dice(0.9), feature_distance=3.0)


def test_a_weaker_version_is_tried_where_none_passed_at_full_strength(tmp_path: Path) -> None:
    """Half the strength passes, a quarter passes with less gain; what is published is what was judged."""
    found = run([OLD, FAR, FAR, replace(FAR, dice=(0.8,) * 8), FAR, dice(0.7), dice(0.6)])
    assert found.scale == 0.5 and [row.get("scale") for row in found.history] == [None] * 3 + [0.75, 0.5, 0.25]
    assert {row["step"] for row in found.history[3:]} == {found.step} and found.verdict.dice_gain[0] == pytest.approx(0.2)
    file = tmp_path / "adapter.safetensors"
    file.write_bytes(weights.to_bytes(found.state))
    again = tiny.engine().generate([tiny.scene(seed)[1] for seed in range(8)], range(8), adapter=file)
    assert all((one == other).all() for one, other in zip(again, found.after, strict=True))


def test_in_a_second_round_the_way_back_leads_to_the_first_one(tmp_path: Path) -> None:
    parent = tmp_path / "parent.safetensors"
    parent.write_bytes(weights.to_bytes(run([OLD, dice(0.7), dice(0.4), dice(0.4)]).state))
    readings = [OLD, FAR, FAR, FAR, FAR, FAR, dice(0.7)]
    found = run(readings, parent=parent)
    assert found.scale == 0.25
    full = run([OLD, dice(0.6), dice(0.7), dice(0.9)], parent=parent)
    before = weights.read(parent)
    for name, tensor in found.state.items():
        torch.testing.assert_close(tensor, before[name] + 0.25 * (full.state[name] - before[name]), rtol=1e-4, atol=1e-6)


def test_a_negative_adapter_is_judged_by_what_guidance_makes_with_it(tmp_path: Path) -> None:
    """Better than plain guidance of the same scale, drawn by the version in use."""
    gate, other = FixedGate([OLD, dice(0.7), dice(0.8), dice(0.6)]), tiny.engine()
    gate.regions = lambda engine: None
    drawing = InGuidance(other, gate, range(8), guidance_scale=2.0, parent=None, parent_scale=1.0, folder=tmp_path)
    found = align(tiny.engine(), pairs(), gate, CONFIG, silent, seeds=range(8), drawing=drawing)
    assert found.step == 4
    file = tmp_path / "adapter.safetensors"
    file.write_bytes(weights.to_bytes(found.state))
    maps = [tiny.scene(seed)[1] for seed in range(8)]
    plain = tiny.engine().generate(maps, range(8), guidance_scale=2.0)
    led = tiny.engine().generate(maps, range(8), guidance_scale=2.0, negative=Negative(file))
    for before, after, expected, changed in zip(found.before, found.after, plain, led, strict=True):
        assert (before == expected).all() and (after == changed).all() and (before != after).any()
    assert all((one == other).all() for one, other in zip(drawing.by(found.state), led, strict=True))


def test_nothing_weaker_is_tried_without_a_gain_or_on_request() -> None:
    with pytest.raises(AlignmentStoppedError):
        run([OLD, dice(0.4), dice(0.4), dice(0.4)])  # a fourth reading would be asked for
    with pytest.raises(AlignmentStoppedError):
        never = replace(CONFIG, scale_search="never")
        align(tiny.engine(), pairs(), FixedGate([OLD, FAR, FAR, FAR]), never, silent, seeds=range(8))


def test_a_stronger_checkpoint_can_be_weakened_on_request() -> None:
    config = replace(CONFIG, scale_search="always")
    readings = [OLD, dice(0.6), dice(0.7), dice(0.6), dice(0.65), dice(0.8), dice(0.6)]
    found = align(tiny.engine(), pairs(), FixedGate(readings), config, silent, seeds=range(8))
    assert found.step == 4 and found.scale == 0.5
    assert run([OLD, dice(0.6), dice(0.7), dice(0.6)]).scale == 1.0
