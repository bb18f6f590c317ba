from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from diffusers.models.resnet import ResnetBlock2D

from saadi import devices
from saadi.engines import lora, weights
from saadi.engines.attention import RowAttention
from saadi.engines.base import Negative
from saadi.engines.compact import SAMPLING_BATCH
from saadi.engines.residual import ResidualBlock
from saadi.errors import BadInputError, CancelledError, WeightsError
from tests import tiny


def test_image_of_a_seed_does_not_depend_on_its_batch():
    made = tiny.engine()
    _, label_maps = tiny.scenes(SAMPLING_BATCH + 2)
    together = made.generate(label_maps, list(range(len(label_maps))))
    for index in (0, SAMPLING_BATCH, SAMPLING_BATCH + 1):
        alone = made.generate([label_maps[index]], [index])
        np.testing.assert_array_equal(alone[0], together[index])


def test_images_follow_the_seed_and_the_label_map():
    made = tiny.engine()
    (first, second), other = tiny.scenes(2)[1], [np.zeros((16, 16), np.uint8)]
    assert not np.array_equal(made.generate([first], [1])[0], made.generate([first], [2])[0])
    assert not np.array_equal(made.generate([first], [1])[0], made.generate(other, [1])[0])
    assert made.generate([second], [1])[0].shape == (16, 16, 3)


def test_label_maps_of_other_sizes_are_scaled():
    made = tiny.engine()
    large = np.kron(tiny.scene(1)[1], np.ones((3, 3), np.uint8))
    np.testing.assert_array_equal(made.generate([large], [0])[0], made.generate([tiny.scene(1)[1]], [0])[0])


def test_ignored_pixels_condition_on_nothing():
    label_map = np.full((16, 16), 255, np.uint8)
    assert tiny.engine().encode_label_maps([label_map]).sum() == 0


def adapter_file(path: Path, *, strength: float = 0.3) -> Path:
    policy = lora.attach(tiny.engine().denoiser, rank=2)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, strength, generator=torch.Generator().manual_seed(0))
    path.write_bytes(weights.to_bytes(lora.state(policy)))
    return path


def test_a_negative_adapter_changes_the_unconditional_half_of_guidance_alone(tmp_path: Path):
    file, made, label_map = adapter_file(tmp_path / "negative"), tiny.engine(), tiny.scene(1)[1]

    def image(weight: float | None, **more) -> np.ndarray:
        negative = None if weight is None else Negative(file, weight=weight)
        return made.generate([label_map], [5], guidance_scale=2.0, negative=negative, **more)[0]

    np.testing.assert_array_equal(image(0.0), image(None))
    half, whole = image(0.5), image(1.0)
    assert not np.array_equal(half, image(None)) and not np.array_equal(whole, half)
    np.testing.assert_array_equal(image(None), tiny.engine().generate([label_map], [5], guidance_scale=2.0)[0])
    # Guidance that leads away from the version itself changes nothing, whatever the strength.
    np.testing.assert_array_equal(image(1.0, adapter=file), image(None, adapter=file))
    for scale in (1.0, None):
        with pytest.raises(BadInputError, match="guidance is off at 1; choose a guidance scale above 1, or leave the adapter"):
            made.generate([label_map], [5], guidance_scale=scale, negative=Negative(file))


def test_the_weight_goes_from_one_half_of_guidance_to_the_negative_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "fast_dtype", lambda on: torch.float32)
    first, second = adapter_file(tmp_path / "a"), adapter_file(tmp_path / "b", strength=0.1)
    made = tiny.engine()
    plain, ours = (made._merged(file, 1.0).state_dict() for file in (first, second))
    for weight in (0.25, 1.0):
        found = made._module_for_sampling(first, 1.0, Negative(second, weight=weight)).state_dict()
        for name, tensor in found.items():
            torch.testing.assert_close(tensor, torch.lerp(plain[name], ours[name], weight))


def test_sampling_stops_when_the_callback_raises():
    steps = []

    def stop(step: int, total: int) -> None:
        steps.append((step, total))
        if step == 2:
            raise CancelledError("cancelled")

    with pytest.raises(CancelledError):
        tiny.engine().generate([tiny.scene(0)[1]], [0], on_step=stop)
    assert steps == [(1, 3), (2, 3)]


def test_seeds_and_label_maps_must_match():
    with pytest.raises(BadInputError, match="one seed per label map"):
        tiny.engine().generate([tiny.scene(0)[1]], [0, 1])


def test_guidance_changes_the_image_and_one_means_none():
    made, label_map = tiny.engine(), tiny.scene(3)[1]
    plain = made.generate([label_map], [5])[0]
    np.testing.assert_array_equal(plain, made.generate([label_map], [5], guidance_scale=1.0)[0])
    assert not np.array_equal(plain, made.generate([label_map], [5], guidance_scale=3.0)[0])


@pytest.mark.parametrize("prediction", ["x0", "velocity", "preconditioned"])
def test_error_weights_turn_every_target_into_one_scale(prediction):
    made = tiny.engine(prediction=prediction)
    images, label_maps = tiny.scenes(4)
    noise = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    errors = made.errors(
        made.encode_images(images), made.encode_label_maps(label_maps), torch.tensor([0.1, 0.4, 0.7, 0.95]), noise
    )
    assert errors.shape == (4,) and torch.isfinite(errors).all() and (errors < 150).all()


def test_weights_survive_a_file(tmp_path):
    made = tiny.engine(seed=3)
    file = tmp_path / "weights.safetensors"
    file.write_bytes(weights.to_bytes(made.denoiser.state_dict()))
    again = type(made).from_file(made.architecture, file, device=tiny.CPU)
    label_map = tiny.scene(0)[1]
    np.testing.assert_array_equal(made.generate([label_map], [1])[0], again.generate([label_map], [1])[0])


def test_weights_of_another_architecture_name_the_first_difference(tmp_path):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(weights.to_bytes(tiny.engine(num_classes=4).denoiser.state_dict()))
    with pytest.raises(WeightsError, match=r"another architecture: unet\.conv_in\.weight"):
        type(tiny.engine()).from_file(tiny.architecture(), file)


@pytest.mark.parametrize("damage", ["cut", "pickle", "header", "nan"])
def test_damaged_weights_are_refused(tmp_path, damage):
    state = tiny.engine().denoiser.state_dict()
    if damage == "nan":
        state["extras.weight"] = state["extras.weight"] * float("nan")
    data = weights.to_bytes(state)
    data = {"cut": data[:-100], "pickle": b"\x80\x04" + data, "header": b"\xff" * 8 + data, "nan": data}[damage]
    file = tmp_path / "weights.safetensors"
    file.write_bytes(data)
    with pytest.raises(WeightsError):
        weights.read(file)


def test_adapter_off_is_the_base_bit_for_bit_and_merged_equals_attached(tmp_path):
    made, label_map = tiny.engine(), tiny.scene(2)[1]
    base = made.generate([label_map], [4])[0]
    wrapped = lora.attach(made.denoiser, rank=2)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    file = tmp_path / "adapter.safetensors"
    file.write_bytes(weights.to_bytes(lora.state(wrapped)))
    fresh = tiny.engine()
    np.testing.assert_array_equal(fresh.generate([label_map], [4])[0], base)
    changed = fresh.generate([label_map], [4], adapter=file)[0]
    assert not np.array_equal(changed, base)
    made.weights_changed()
    np.testing.assert_array_equal(made.generate([label_map], [4])[0], changed)
    np.testing.assert_array_equal(fresh.generate([label_map], [4])[0], base)
    np.testing.assert_array_equal(fresh.generate([label_map], [4], adapter=file, adapter_scale=0.0)[0], base)


def test_adapter_for_another_model_is_refused(tmp_path):
    file = tmp_path / "adapter.safetensors"
    other = lora.attach(tiny.engine(num_classes=3).denoiser, rank=2)
    state = {
        name: tensor[..., :1] if "conv" in name and "lora_A" in name else tensor for name, tensor in lora.state(other).items()
    }
    file.write_bytes(weights.to_bytes(state))
    with pytest.raises(WeightsError, match="made for another model"):
        tiny.engine().generate([tiny.scene(0)[1]], [0], adapter=file)


def test_lean_residual_blocks_give_the_values_and_gradients_of_diffusers():
    found = []
    for is_lean in (True, False):
        made = tiny.engine()
        blocks = [module for module in made.denoiser.modules() if isinstance(module, ResidualBlock)]
        assert blocks
        if not is_lean:
            for block in blocks:
                block.__class__ = ResnetBlock2D
        images, label_maps = tiny.scenes(2)
        clean = made.encode_images(images)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        loss = made.errors(clean, made.encode_label_maps(label_maps), torch.full((2,), 0.5), noise).mean()
        loss.backward()
        found.append((loss.detach(), [parameter.grad for parameter in made.denoiser.parameters() if parameter.grad is not None]))
    assert torch.equal(found[0][0], found[1][0]) and len(found[0][1]) == len(found[1][1])
    for lean, plain in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(lean, plain, rtol=1e-4, atol=1e-6)


def test_row_attention_gives_the_values_and_gradients_of_diffusers():
    found = []
    for processor in (RowAttention(), AttnProcessor()):
        made = tiny.engine()
        layers = [module for module in made.denoiser.modules() if isinstance(module, Attention)]
        assert layers
        for layer in layers:
            layer.set_processor(processor)
        images, label_maps = tiny.scenes(2)
        clean = made.encode_images(images)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        with torch.autocast("cpu", enabled=False):
            estimate = made.denoiser(clean, torch.full((2,), 0.5), made.encode_label_maps(label_maps), made._extras(2))
        (estimate * noise).sum().backward()
        found.append((estimate.detach(), [parameter.grad for parameter in made.denoiser.parameters()]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-5)
    for row, plain in zip(found[0][1], found[1][1], strict=True):
        assert (row is None) == (plain is None)
        if row is not None:
            torch.testing.assert_close(row, plain, rtol=1e-3, atol=1e-5)


def test_a_condition_laid_out_before_or_given_once_for_two_arms_changes_nothing():
    made = tiny.engine()
    images, label_maps = tiny.scenes(2)
    clean, condition = made.encode_images([*images, *images[::-1]]), made.encode_label_maps(label_maps)
    times, noise = torch.tensor([0.2, 0.9, 0.2, 0.9]), torch.ones_like(clean)
    with torch.no_grad():
        full = made.errors(clean, torch.cat([condition] * 2), times, noise)
        assert torch.equal(made.errors(clean, condition, times, noise), full)
        with devices.autocast(made.device):
            laid_out = made.denoiser.lay_out(condition)
        assert torch.equal(made.errors(clean, laid_out, times, noise), full)
