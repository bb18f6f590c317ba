"""The quick GroupNorm gives torch's values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from saadi.engines import norms
from saadi.engines.norms import GroupNorm, replace_group_norms


def pair(groups: int, channels: int) -> tuple[nn.GroupNorm, GroupNorm]:
    torch.manual_seed(0)
    plain, quick = nn.GroupNorm(groups, channels), GroupNorm(groups, channels)
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    quick.load_state_dict(plain.state_dict())
    return plain, quick


@pytest.mark.parametrize(("groups", "channels"), [(4, 16), (8, 8), (1, 12), (2, 6)])
def test_gradients_by_finite_differences(groups: int, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _, quick = pair(groups, channels)
    quick.double()
    images = torch.randn(2, channels, 4, 4, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    monkeypatch.setattr(norms, "MIN_PIXELS", 1)
    assert torch.autograd.gradcheck(
        lambda x, w, b: torch.func.functional_call(quick, {"weight": w, "bias": b}, (x,)),
        (images, quick.weight.detach().requires_grad_(), quick.bias.detach().requires_grad_()),
        atol=1e-5,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_those_of_torch(dtype: torch.dtype) -> None:
    plain, quick = pair(16, 64)
    found = []
    for norm in (plain, quick):
        torch.manual_seed(1)
        images = (torch.randn(4, 64, 32, 32) * 2 + 1).to(dtype).to(memory_format=torch.channels_last).requires_grad_()
        normed = norm(images)
        normed.backward(torch.randn(normed.shape).to(dtype))
        assert images.grad is not None and images.grad.is_contiguous(memory_format=torch.channels_last)
        found.append((normed.detach(), images.grad, norm.weight.grad, norm.bias.grad))
        assert ("_ChannelsLast" in type(normed.grad_fn).__name__) == (norm is quick)
    assert torch.equal(found[0][0], found[1][0])
    # bfloat16 keeps 8 bits; its sums over 1,024 pixels are as exact as torch's own within that.
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(found[1][1], found[0][1], **tolerance)
    for ours, theirs in zip(found[1][2:], found[0][2:], strict=True):
        assert (ours - theirs).norm() <= (1e-4 if dtype == torch.float32 else 1e-2) * theirs.norm()


def test_replacing_keeps_names_and_values() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8))
    nn.init.normal_(module[1].weight)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    replace_group_norms(module)
    assert isinstance(module[1], GroupNorm)
    assert module.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
