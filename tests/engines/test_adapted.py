"""Lean adapter layers compute what peft's own do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from saadi import devices
from saadi.engines import adapted, lora, weights
from saadi.engines.adapted import lean_forward
from tests import tiny


@pytest.mark.parametrize("min_merged_pixels", [1, 10**6])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_lean_layers_give_the_loss_and_gradients_of_peft(
    scale: float, min_merged_pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "fast_dtype", lambda on: torch.float32)
    monkeypatch.setattr(adapted, "MIN_MERGED_PIXELS", min_merged_pixels)
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
    with lean_forward(policy):
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
        with torch.no_grad(), lean_forward(policy):
            return float(made.errors(clean, condition, torch.full((1,), 0.5), torch.ones_like(clean)))

    before = error()
    with torch.no_grad():
        for name, parameter in made.denoiser.named_parameters():
            if "conv1.base_layer.weight" in name:
                parameter.mul_(2)
    assert error() != before


needs_bf16 = pytest.mark.skipif(devices.fast_dtype(torch.device("cpu")) != torch.bfloat16, reason="this CPU has no bfloat16")


@needs_bf16
@pytest.mark.parametrize("scale", [1.0, 0.7])
@pytest.mark.parametrize("with_parent", [False, True])
def test_lean_layers_give_the_values_of_peft_bit_for_bit_in_bfloat16(scale: float, with_parent: bool, tmp_path: Path) -> None:
    made, other = tiny.engine(), tiny.engine()
    generator = torch.Generator().manual_seed(1)

    def scatter(policy: PeftModel) -> None:
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3, generator=generator)

    parent = tmp_path / "parent.safetensors"
    first = lora.attach(other.denoiser, rank=2)
    scatter(first)
    parent.write_bytes(weights.to_bytes(lora.state(first)))
    policy = lora.attach(made.denoiser, rank=2, parent=parent if with_parent else None, parent_scale=scale)
    scatter(policy)
    lora.set_scale(policy, scale)
    images, label_maps = tiny.scenes(2)
    clean, condition = made.encode_images(images), made.encode_label_maps(label_maps)

    def error() -> torch.Tensor:
        with torch.no_grad():
            return made.errors(clean, condition, torch.tensor([0.3, 0.8]), torch.ones_like(clean))

    plain = error()
    with lora.reference_mode(policy):
        plain_reference = error()
    with lean_forward(policy):
        assert torch.equal(error(), plain)
        with lora.reference_mode(policy):
            assert torch.equal(error(), plain_reference)
    assert not torch.equal(plain, plain_reference)


def test_two_forwards_share_one_backward_pass_and_an_update_is_seen() -> None:
    made = tiny.engine()
    policy = lora.attach(made.denoiser, rank=2)
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-1, fused=True)
    images, label_maps = tiny.scenes(1)
    clean, condition = made.encode_images(images), made.encode_label_maps(label_maps)

    def error() -> torch.Tensor:
        with lean_forward(policy):
            return made.errors(clean, condition, torch.full((1,), 0.5), torch.ones_like(clean)).sum()

    first = error()
    (first + error()).backward()
    optimizer.step()
    assert float(error().detach()) != float(first.detach())


def test_the_reference_is_the_base_without_its_adapter() -> None:
    made = tiny.engine()
    images, label_maps = tiny.scenes(1)
    clean, condition = made.encode_images(images), made.encode_label_maps(label_maps)

    def error() -> torch.Tensor:
        with torch.no_grad():
            return made.errors(clean, condition, torch.full((1,), 0.5), torch.ones_like(clean))

    plain = error()
    policy = lora.attach(made.denoiser, rank=2)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(0))
    with lean_forward(policy):
        changed = error()
        with lora.reference_mode(policy):
            assert torch.equal(error(), plain)
        assert torch.equal(error(), changed) and not torch.equal(changed, plain)
