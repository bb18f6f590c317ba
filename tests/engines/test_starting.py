"""Where sampling starts: what a learnt shift does to noise, and what passes through a rollout."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saadi.engines import weights
from saadi.engines.base import SAMPLING_BATCH
from saadi.engines.regions import named_region
from saadi.engines.starting import NoiseShift, default_architecture, divergence, moved, strengths
from saadi.errors import WeightsError
from saadi.mining.job import TURN_SEEDS
from tests import tiny


def shift(seed: int = 0, *, strength: float = 0.0, num_classes: int = 3) -> NoiseShift:
    torch.manual_seed(seed)
    made = NoiseShift(default_architecture(num_classes=num_classes, noise=(3, tiny.SIDE, tiny.SIDE)))
    if strength:
        torch.nn.init.normal_(made.layers[-1].weight, std=strength)
    return made.eval()


@pytest.mark.parametrize(("side", "grid"), [(256, 16), (128, 16), (64, 16), (72, 12), (16, 8), (8, 4)])
def test_blocks_divide_the_noise(side, grid):
    assert default_architecture(num_classes=2, noise=(4, side, side))["grid"] == grid


def test_an_untrained_shift_changes_nothing():
    noise, (_, label_maps) = torch.randn(2, 3, tiny.SIDE, tiny.SIDE), tiny.scenes(2)
    assert torch.equal(shift().moved(noise, label_maps, [3, 4]), noise)
    engine, seeds = tiny.engine(), [3, 4]
    for plain, started in zip(engine.generate(label_maps, seeds), engine.generate(label_maps, seeds, start=shift()), strict=True):
        np.testing.assert_array_equal(plain, started)


def test_block_means_get_the_mean_and_deviation_asked_for_and_nothing_else_changes():
    noise = torch.randn(500, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    mean, log_std = torch.full((1, 1, 4, 4), 2.0), torch.full((1, 1, 4, 4), np.log(0.5))
    started = moved(noise, mean, log_std)
    means = torch.nn.functional.avg_pool2d(started, 4)
    # Plain block means of 4 x 4 values have a deviation of 1/4: asked for are a mean of 2 of these, and half of one.
    assert float(means.mean()) == pytest.approx(2 / 4, abs=0.01) and float(means.std()) == pytest.approx(0.5 / 4, rel=0.05)

    def within(values: torch.Tensor) -> torch.Tensor:
        return values - torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(values, 4), scale_factor=4)

    torch.testing.assert_close(within(started), within(noise), atol=1e-5, rtol=0)


def test_seeds_in_a_row_cover_all_strengths():
    for first in (0, 7, 2**40):
        found = np.sort(strengths(range(first, first + 4)).numpy())
        assert found.min() > 0 and found.max() <= 1 and np.diff([0, *found, 1]).max() < 0.5
    assert float(strengths([0])) == 1.0
    turns = np.sort([float(strengths([5 + turn * TURN_SEEDS])) for turn in range(3)])
    assert np.diff(turns).min() > 0.1  # another try of a mask is another strength
    made, label_maps = shift(strength=0.5), [tiny.scene(1)[1]] * 2
    plain = torch.randn(1, 3, tiny.SIDE, tiny.SIDE).expand(2, -1, -1, -1)
    change = made.moved(plain, label_maps, [0, 1]) - plain
    mean, log_std = made(made.shares(label_maps[:1]))
    share = strengths([1])
    torch.testing.assert_close(change[0], (moved(plain[:1], mean, log_std) - plain[:1])[0])
    torch.testing.assert_close(change[1], (moved(plain[:1], share * mean, share * log_std) - plain[:1])[0])


def test_divergence_by_hand():
    mean, log_std = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    mean[1, 0, 0, 0], log_std[1, 0, 1, 1] = 2.0, np.log(2.0)
    # 2^2 / 2 for the shift; (4 - 1) / 2 - ln 2 for the deviation.
    torch.testing.assert_close(divergence(mean, log_std), torch.tensor([0.0, 2.0 + 1.5 - float(np.log(2.0))]))


def test_a_moved_image_does_not_depend_on_its_batch_and_comes_back_from_a_file(tmp_path):
    engine, made, (_, label_maps) = tiny.engine(), shift(strength=0.5), tiny.scenes(SAMPLING_BATCH + 1)
    together = engine.generate(label_maps, list(range(len(label_maps))), start=made)
    file = tmp_path / "shift.safetensors"
    file.write_bytes(weights.to_bytes(made.state_dict()))
    again = NoiseShift.from_file(made.architecture, file)
    for index in (0, SAMPLING_BATCH):
        np.testing.assert_array_equal(engine.generate([label_maps[index]], [index], start=again)[0], together[index])
    assert not np.array_equal(engine.generate([label_maps[0]], [0])[0], together[0])
    with pytest.raises(WeightsError):
        NoiseShift.from_file(default_architecture(num_classes=5, noise=(3, 16, 16)), file)


def test_a_rollout_is_what_is_sampled_and_passes_gradients_to_the_noise():
    engine, (images, label_maps) = tiny.engine(), tiny.scenes(SAMPLING_BATCH)
    rollout = engine.rollout(steps=3)
    noise = torch.stack([torch.randn(*rollout.noise, generator=torch.Generator().manual_seed(seed)) for seed in range(4)])
    noise.requires_grad_(True)
    pixels = rollout.pixels(noise, label_maps, None)
    for image, made in zip(engine.generate(label_maps, range(4)), engine.decode(pixels.detach()), strict=True):
        assert np.abs(image.astype(int) - made).max() <= 1  # generate runs in the fast dtype without gradients
    pixels.mean().backward()
    assert float(noise.grad.abs().sum()) > 0 and all(one.grad is None for one in engine.denoiser.parameters())
    parts = [named_region(label_map, image, side=tiny.SIDE) for label_map, image in zip(label_maps, images, strict=True)]
    painted = rollout.pixels(noise.detach(), label_maps, parts)
    outside = torch.from_numpy(np.stack([part.weight == 0 for part in parts]))[:, None].expand_as(painted)
    torch.testing.assert_close(painted[outside], engine.encode_images(images)[outside])
