"""Lean adapter layers compute what peft's own do."""

from __future__ import annotations

import pytest
import torch

from saadi import devices
from saadi.engines import lora
from tests import tiny


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_lean_layers_give_the_loss_and_gradients_of_peft(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "fast_dtype", lambda on: torch.float32)
    lora._FROZEN.clear()
    made = tiny.engine()
    policy = lora.attach(made.denoiser, rank=2)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    lora.set_scale(policy, scale)
    images, label_maps = tiny.scenes(2)
    clean, condition = made.encode_images(images), made.encode_label_maps(label_maps)
    noise = torch.randn(clean.shape, generator=generator)

    def measured() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        policy.zero_grad()
        loss = made.errors(clean, condition, torch.full((2,), 0.5), noise).mean()
        loss.backward()
        grads = {name: parameter.grad.clone() for name, parameter in policy.named_parameters() if parameter.grad is not None}
        return loss.detach(), grads

    plain_loss, plain = measured()
    with lora.lean_forward(policy):
        lean_loss, lean = measured()
    torch.testing.assert_close(lean_loss, plain_loss, rtol=1e-6, atol=1e-7)
    assert lean.keys() == plain.keys() and any(float(grad.abs().max()) > 0 for grad in lean.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(lean[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_lean_layers_follow_a_changed_base() -> None:
    made = tiny.engine()
    policy = lora.attach(made.denoiser, rank=2)
    images, label_maps = tiny.scenes(1)
    clean, condition = made.encode_images(images), made.encode_label_maps(label_maps)

    def error() -> float:
        with torch.no_grad(), lora.lean_forward(policy):
            return float(made.errors(clean, condition, torch.full((1,), 0.5), torch.ones_like(clean)))

    before = error()
    with torch.no_grad():
        for name, parameter in made.denoiser.named_parameters():
            if "conv1.base_layer.weight" in name:
                parameter.mul_(2)
    assert error() != before
