"""Frozen layers compute what torch's own do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from saadi import devices
from saadi.engines.frozen import FrozenConv, FrozenLinear, freeze_convolutions


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "fast_dtype", lambda on: torch.float32)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 10, 3, padding=1),
        nn.Conv2d(6, 10, 3, stride=2, padding=1),
        nn.Conv2d(6, 10, 1),
        nn.Conv2d(6, 10, 3),
        nn.Conv2d(6, 6, 3, padding=1, groups=2, bias=False),
        nn.Conv2d(6, 10, 3, padding=2, dilation=2),
    ],
    ids=["same", "stride", "pointwise", "valid", "groups", "dilated"],
)
def test_a_frozen_convolution_gives_the_values_and_input_gradients_of_torch(layer: nn.Conv2d) -> None:
    x = torch.randn(2, 6, 12, 9, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)
    plain_x, frozen_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    plain, frozen = layer(plain_x), FrozenConv(layer)(frozen_x)
    torch.testing.assert_close(frozen, plain, rtol=1e-5, atol=1e-6)
    weights = torch.randn(plain.shape, generator=torch.Generator().manual_seed(1))
    (plain * weights).sum().backward()
    (frozen * weights).sum().backward()
    torch.testing.assert_close(frozen_x.grad, plain_x.grad, rtol=1e-4, atol=1e-6)


def test_a_packed_convolution_takes_pictures_of_other_sizes_and_batches() -> None:
    layer = nn.Conv2d(4, 8, 3, padding=1)
    frozen = FrozenConv(layer)
    with torch.no_grad():
        for shape in ((2, 4, 8, 8), (5, 4, 31, 7), (1, 4, 64, 64)):
            x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
            torch.testing.assert_close(frozen(x), layer(x), rtol=1e-5, atol=1e-6)


def test_a_changed_layer_makes_its_copy_stale() -> None:
    layer = nn.Linear(3, 3)
    frozen = FrozenLinear(layer)
    assert not frozen.is_stale(layer)
    with torch.no_grad():
        layer.weight.mul_(2)
    assert frozen.is_stale(layer)


def test_freezing_convolutions_leaves_the_values_of_a_module() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 3, 1)).requires_grad_(False)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    before = module(x)
    freeze_convolutions(module)
    torch.testing.assert_close(module(x), before, rtol=1e-5, atol=1e-6)
    assert all(isinstance(layer.forward, FrozenConv) for layer in module if isinstance(layer, nn.Conv2d))


@pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported(), reason="no bfloat16")
def test_packed_weights_give_the_values_of_torch_bit_for_bit_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "fast_dtype", lambda on: torch.bfloat16)
    for channels, side in ((64, 32), (192, 4), (10, 7)):
        layer = nn.Conv2d(channels, 48, 3, padding=1).bfloat16()
        x = torch.randn(3, channels, side, side, generator=torch.Generator().manual_seed(4)).bfloat16()
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            assert torch.equal(FrozenConv(layer)(x), layer(x))
