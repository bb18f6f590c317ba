"""Engine `stable-diffusion` on a tiny random model with all its real parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from saadi import devices
from saadi.alignment.settings import AlignmentConfig, TrainingPair
from saadi.alignment.trainer import PairTrainer
from saadi.engines import lora, weights
from saadi.engines.adapted import lean_forward
from saadi.engines.base import SAMPLING_BATCH, Negative
from saadi.engines.loading import engine_from_file
from saadi.engines.regions import Guide, Region, named_region
from saadi.engines.stable_diffusion import LORA, StableDiffusionEngine, blended
from saadi.engines.stable_diffusion_parts import picture_of
from saadi.engines.starting import NoiseShift, default_architecture
from saadi.errors import BadInputError, CancelledError, WeightsError
from saadi.orders.recipe import WEAK_TERM
from tests import tiny, tiny_diffusion

SIDE = tiny_diffusion.SIDE
MODES = ("inpainting", "controlnet")


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder per mode; nobody writes to it."""
    return {mode: tiny_diffusion.folder(tmp_path_factory.mktemp(mode) / "base", mode=mode) for mode in MODES}


def made(bases: dict[str, Path], mode: str = "inpainting", **changes: object) -> StableDiffusionEngine:
    return tiny_diffusion.engine(bases[mode], mode=mode, **changes)


def scenes(count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return tiny.scenes(count, side=SIDE)


def regions(engine: StableDiffusionEngine, images: list, label_maps: list) -> list[Region] | None:
    if not engine.needs_picture:
        return None
    return [named_region(label_map, image, side=SIDE) for label_map, image in zip(label_maps, images, strict=True)]


def adapter_of(engine: StableDiffusionEngine, file: Path, *, strength: float = 0.3, seed: int = 0) -> Path:
    """An adapter that changes something; the engine carries it from now on."""
    torch.manual_seed(seed)
    policy = lora.attach(engine.denoiser, rank=2)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, strength)
    file.write_bytes(weights.to_bytes(lora.state(policy)))
    return file


@pytest.mark.parametrize("mode", MODES)
def test_image_of_a_seed_does_not_depend_on_its_batch(bases, mode):
    engine, (images, label_maps) = made(bases, mode), scenes(SAMPLING_BATCH + 2)
    parts = regions(engine, images, label_maps)
    together = engine.generate(label_maps, list(range(len(label_maps))), regions=parts)
    for index in (0, 1, SAMPLING_BATCH, SAMPLING_BATCH + 1):
        alone = engine.generate([label_maps[index]], [index], regions=[parts[index]] if parts else None)
        np.testing.assert_array_equal(alone[0], together[index])
    assert len({image.tobytes() for image in together}) == len(together)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_read_from_a_file_makes_the_same_images(bases, mode, tmp_path):
    engine, ([image], [label_map]) = made(bases, mode), scenes(1)
    state = {LORA + name: tensor for name, tensor in weights.read(adapter_of(engine, tmp_path / "a")).items()}
    file = tmp_path / "fit.safetensors"
    file.write_bytes(weights.to_bytes(state))
    again = engine_from_file(engine.architecture, file)
    part = regions(engine, [image], [label_map])
    np.testing.assert_array_equal(again.generate([label_map], [3], regions=part)[0], engine.generate([label_map], [3],
                                  regions=part)[0])  # fmt: skip
    plain = made(bases, mode).generate([label_map], [3], regions=part)[0]
    assert not np.array_equal(plain, engine.generate([label_map], [3], regions=part)[0])


def test_outside_what_is_painted_every_pixel_is_the_source(bases):
    engine, (images, label_maps) = made(bases), scenes(4)
    parts = regions(engine, images, label_maps)
    for image, part in zip(engine.generate(label_maps, [1, 2, 3, 4], regions=parts), parts, strict=True):
        outside = part.weight == 0
        assert 0 < outside.sum() < outside.size
        np.testing.assert_array_equal(image[outside], part.source[outside])
        assert (image[part.weight == 1] != part.source[part.weight == 1]).any(axis=-1).mean() > 0.9


def test_every_value_of_a_source_survives_where_nothing_is_named(bases):
    source = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    background = np.zeros((SIDE, SIDE), np.uint8)
    [image] = made(bases).generate([background], [0], regions=[named_region(background, source, side=SIDE)])
    np.testing.assert_array_equal(image, source)


def test_a_seam_fades_from_new_to_old():
    old, new = np.zeros((1, 3, 3), np.uint8), np.full((1, 3, 3), 200, np.uint8)
    region = Region(old, np.array([[1, 0.5, 0]], np.float32))
    assert blended(new, region)[0, :, 0].tolist() == [200, 100, 0]


@pytest.mark.parametrize("mode", MODES)
def test_a_part_of_a_picture_is_made_in_both_modes(bases, mode):
    engine, ([image], [label_map]) = made(bases, mode), scenes(1)
    weight = np.zeros((SIDE, SIDE), np.float32)
    weight[8:20, 8:20] = 1
    [out] = engine.generate([label_map], [0], regions=[Region(image, weight)])
    np.testing.assert_array_equal(out[weight == 0], image[weight == 0])
    assert (out[weight == 1] != image[weight == 1]).mean() > 0.5


@pytest.mark.parametrize("mode", MODES)
def test_a_guide_gives_the_surroundings_back_in_both_modes(bases, mode):
    engine, ([image], [label_map]) = made(bases, mode), scenes(1)
    weight = np.zeros((SIDE, SIDE), np.float32)
    weight[8:20, 8:20] = 1
    [plain] = engine.generate([label_map], [0], regions=[Region(image, weight)])
    [guided] = engine.generate([label_map], [0], regions=[Region(image, weight, Guide(8))])
    np.testing.assert_array_equal(guided[weight == 0], image[weight == 0])
    assert (guided[weight == 1] != plain[weight == 1]).any()


def test_without_a_picture_inpainting_says_what_is_missing(bases):
    engine, (_, label_maps) = made(bases), scenes(1)
    with pytest.raises(BadInputError, match="paints into a picture, and there is none under this label map; draw over an image"):
        engine.generate(label_maps, [0])
    with pytest.raises(BadInputError, match="paints into a picture"):
        engine.encode_label_maps(label_maps)
    with pytest.raises(BadInputError, match=r"source \(8, 8\) and region"):
        engine.generate(label_maps, [0], regions=[Region(np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), np.float32))])
    with pytest.raises(BadInputError, match="one seed per label map"):
        engine.generate(label_maps, [0, 1])


def test_whole_scenes_follow_the_label_map(bases, tmp_path):
    """A fresh ControlNet changes nothing (its last layers are zero); a trained one does."""
    engine, (_, (first, second)) = made(bases, "controlnet", prompt="a photo"), scenes(2)
    np.testing.assert_array_equal(engine.generate([first], [1])[0], engine.generate([second], [1])[0])
    with torch.no_grad():
        for parameter in engine.controlnet.parameters():
            parameter.add_(0.05)
    engine.weights_changed()
    assert not np.array_equal(engine.generate([first], [1])[0], engine.generate([second], [1])[0])


def test_colours_of_all_classes_differ_and_background_is_black():
    colors = picture_of(np.arange(256, dtype=np.uint8).reshape(1, 1, 256))[0, 0]
    assert len({tuple(color) for color in colors.tolist()}) == 256
    assert colors[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]  # PASCAL VOC


def test_the_prompt_names_what_is_asked_for(bases):
    engine = made(bases)
    assert engine.prompt(np.array([0, 2, 1, 255])) == "a photo of organ, bar" and engine.prompt(np.array([0])) == "a photo of"
    [image], label_map = tiny.scenes(1, side=SIDE)[0], np.zeros((SIDE, SIDE), np.uint8)
    label_map[4:8, 4:8] = 1
    label_map[20:24, 20:24] = 2
    only = Region(image, (label_map == 2).astype(np.float32))
    condition = engine._condition([label_map], [only])
    torch.testing.assert_close(condition.text, engine.parts.text(["a photo of bar"]))


def test_guidance_one_means_none_and_none_means_that_of_the_weights(bases):
    engine, (images, label_maps) = made(bases), scenes(1)
    part = regions(engine, images, label_maps)

    def image(scale: float | None) -> np.ndarray:
        return engine.generate(label_maps, [5], regions=part, guidance_scale=scale)[0]

    np.testing.assert_array_equal(image(None), image(2.0))
    assert not np.array_equal(image(1.0), image(2.0)) and not np.array_equal(image(2.0), image(8.0))


@pytest.mark.parametrize("sampler", ["ddim", "dpm_solver_2m"])
def test_previews_come_at_each_step_and_the_last_is_the_image(bases, sampler):
    engine, (images, label_maps) = made(bases, sampler={"name": sampler, "num_inference_steps": 4}), scenes(2)
    seen, steps = [], []
    found = engine.generate(label_maps, [1, 2], regions=regions(engine, images, label_maps), on_preview=lambda look: seen.append(
        look()), on_step=lambda step, total: steps.append((step, total)))  # fmt: skip
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)] and len(seen) == 4
    np.testing.assert_array_equal(seen[-1], found)
    assert not np.array_equal(seen[0], seen[-1])


def test_sampling_stops_when_the_callback_raises(bases):
    engine, (_, label_maps) = made(bases, "controlnet"), scenes(1)
    steps = []

    def stop(step: int, total: int) -> None:
        steps.append((step, total))
        if step == 2:
            raise CancelledError("cancelled")

    with pytest.raises(CancelledError):
        engine.generate(label_maps, [0], on_step=stop)
    assert steps == [(1, 3), (2, 3)]


def test_an_unknown_sampler_is_named(bases):
    with pytest.raises(WeightsError, match="no sampler 'magic'; there are ddim, dpm_solver_2m"):
        made(bases, "controlnet").parts.sampler("magic", 3)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_error_is_that_of_the_schedulers_own_noising_and_target(tmp_path, prediction):
    from diffusers import DDPMScheduler

    base = tiny_diffusion.folder(tmp_path / "b", mode="controlnet", prediction=prediction)
    engine = tiny_diffusion.engine(base, mode="controlnet")
    images, label_maps = scenes(3)
    clean, condition = engine.encode_images(images), engine.encode_label_maps(label_maps)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([0.0101, 0.5, 0.9999])
    scheduler = DDPMScheduler.from_pretrained(tmp_path / "b" / "scheduler")
    timesteps = torch.tensor([10, 500, 999])
    assert engine.timesteps(times).tolist() == timesteps.tolist()
    target = noise if prediction == "epsilon" else scheduler.get_velocity(clean, noise, timesteps)
    with torch.no_grad():
        found = engine.errors(clean, condition, times, noise)
        noisy = scheduler.add_noise(clean, noise, timesteps)
        predicted = engine.denoiser(noisy, timesteps, encoder_hidden_states=condition.text).sample  # a fresh ControlNet adds 0
    expected = ((predicted - target) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0.01)  # bfloat16 on CPUs that have it
    # The estimate of the clean latents undoes the noising exactly where the prediction is right.
    signal, level = engine._levels(timesteps)
    estimate = signal * noisy - level * target if prediction == "v_prediction" else (noisy - level * target) / signal
    torch.testing.assert_close(estimate, clean, rtol=1e-3, atol=1e-4)


def test_only_what_is_painted_counts_and_residuals_square_to_the_errors(bases):
    engine, (images, label_maps) = made(bases), scenes(3)
    clean, condition = engine.encode_images(images), engine.encode_label_maps(label_maps, images)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        errors, residuals = engine.errors_and_residuals(clean, condition, torch.full((3,), 0.5), noise)
        torch.testing.assert_close(errors, engine.errors(clean, condition, torch.full((3,), 0.5), noise))
    torch.testing.assert_close((residuals**2).mean((1, 2, 3)), errors)
    outside = (condition.around[:, :1] == 0).expand_as(residuals)
    assert outside.any() and (residuals[outside] == 0).all() and torch.isfinite(errors).all()


def test_a_label_map_that_names_nothing_has_no_error(bases):
    engine, ([image], _) = made(bases), scenes(1)
    clean, condition = engine.encode_images([image]), engine.encode_label_maps([np.zeros((SIDE, SIDE), np.uint8)], [image])
    assert float(engine.errors(clean, condition, torch.tensor([0.5]), torch.randn(clean.shape))) == 0.0


def test_latents_are_means_that_are_kept(bases):
    engine, (images, _) = made(bases), scenes(2)
    first = engine.encode_images(images)
    again = engine.encode_images([images[1], images[0]])
    torch.testing.assert_close(again.flip(0), first, rtol=0, atol=0)
    pixels = torch.from_numpy(images[0]).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        mean = engine.parts.vae.encode(pixels).latent_dist.mean * engine.parts.vae.config.scaling_factor
    torch.testing.assert_close(first[:1], mean)


def pairs(count: int = 8) -> list[TrainingPair]:
    found = []
    for seed in range(count):
        image, label_map = tiny.scene(seed, side=SIDE)
        other = np.where((label_map > 0)[..., None], 255 - image, image)  # the same picture around it
        found.append(TrainingPair(label_map, image, other, weight=1.0, is_real=seed % 2 == 0, group=str(seed // 2)))
    return found


CONFIG = AlignmentConfig(num_steps=3, batch_size=2, lora_rank=2, learning_rate=1e-3, sft_weight=0.0)


@pytest.mark.parametrize("mode", MODES)
def test_alignment_starts_at_ln_2_and_leaves_the_base_alone(bases, mode):
    engine = made(bases, mode)
    base = {name: tensor.clone() for name, tensor in engine.denoiser.state_dict().items()}
    trainer = PairTrainer(engine, pairs(), CONFIG, anchors=[tiny.scene(1, side=SIDE)])
    assert trainer.beta == pytest.approx(0.3 * 4 * 4 * 4)  # 0.3 x number of latent values
    assert trainer.train_step()["loss"] == pytest.approx(np.log(2), abs=1e-6)
    trainer.train_step()
    assert any(bool(parameter.any()) for name, parameter in trainer.parameters.items() if "lora_B" in name)
    adapted = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trainer.parameters}
    assert adapted == {"to_q", "to_k", "to_v", "0", "conv1", "conv2"}
    for name, tensor in engine.denoiser.state_dict().items():
        if (plain := name.replace(".base_layer", "")) in base:
            torch.testing.assert_close(tensor, base[plain], rtol=0, atol=0)


def test_alignment_learns_to_prefer_the_winners(bases):
    config = AlignmentConfig(batch_size=4, lora_rank=4, learning_rate=3e-3, beta=2000.0, sft_weight=WEAK_TERM)  # the engine's own
    trainer = PairTrainer(made(bases), pairs(), config)
    numbers = [trainer.train_step() for _ in range(40)]
    assert np.mean([one["accuracy"] for one in numbers[-20:]]) > 0.65


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_the_same_when_activations_are_computed_twice(bases, mode, monkeypatch):
    """With checkpointing the policy runs again in the backward pass, when the reference must not be the active one."""
    # As on a CPU without bfloat16, in which the quicker path of adapted layers rounds otherwise.
    monkeypatch.setattr(devices, "fast_dtype", lambda on: torch.float32)
    found = []
    kinds = (False, {}), (True, {}), (False, {"saves_memory": True})
    for checkpointing, changes in kinds:
        engine = made(bases, mode, **changes)
        trainer = PairTrainer(engine, pairs(), replace(CONFIG, checkpointing=checkpointing))
        assert trainer.engine.denoiser.is_gradient_checkpointing is (len(found) > 0)
        with torch.no_grad():
            for name, parameter in trainer.parameters.items():
                if "lora_B" in name:
                    parameter.fill_(0.05)
        loss, _ = trainer.loss([(0, 0), (1, 1)])
        loss.backward()
        found.append({name: parameter.grad.clone() for name, parameter in trainer.parameters.items()})
    plain, checkpointed, by_weights = found
    assert by_weights.keys() == plain.keys() == checkpointed.keys()
    assert any(float(gradient.abs().max()) > 0 for gradient in plain.values())
    scale = max(float(gradient.abs().max()) for gradient in plain.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-3, atol=1e-4 * scale, msg=name)
        torch.testing.assert_close(by_weights[name], checkpointed[name], rtol=0, atol=0, msg=name)


def test_checkpointing_changes_no_gradient_at_all(bases):
    found = []
    for saves_memory in (False, True):
        engine, (images, label_maps) = made(bases, saves_memory=saves_memory), scenes(2)
        policy = lora.attach(engine.denoiser, rank=2)
        inputs = engine.encode_images(images), engine.encode_label_maps(label_maps, images), torch.full((2,), 0.5)
        engine.errors(*inputs, torch.ones(2, 4, 4, 4)).sum().backward()
        found.append({name: parameter.grad for name, parameter in policy.named_parameters() if parameter.requires_grad})
    assert any(bool(gradient.any()) for gradient in found[0].values())
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=0, msg=name)


def test_adapted_layers_compute_what_peft_computes(bases, tmp_path):
    engine, (images, label_maps) = made(bases), scenes(2)
    policy = lora.attach(engine.denoiser, rank=2)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    condition = engine.encode_label_maps(label_maps, images)
    inputs = (engine.encode_images(images), condition, torch.full((2,), 0.5), torch.ones(2, 4, 4, 4))
    with torch.no_grad():
        plain = engine.errors(*inputs)
        with lean_forward(policy):
            torch.testing.assert_close(engine.errors(*inputs), plain, rtol=1e-2, atol=1e-3)


def test_a_small_adapter_is_not_rounded_away_where_weights_are_held_in_bfloat16(bases, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "fast_dtype", lambda on: torch.bfloat16)
    [image], [label_map] = scenes(1)
    file = adapter_of(made(bases), tmp_path / "small", strength=2e-4)
    whole = made(bases)
    monkeypatch.setattr(StableDiffusionEngine, "_held_dtype", lambda self: torch.bfloat16)
    rounded, carrying = made(bases), made(bases)
    lora.fill(lora.attach(carrying.denoiser, rank=2), weights.read(file))
    assert next(rounded.denoiser.parameters()).dtype == torch.bfloat16 == whole._sampling_dtype()
    expected = whole._for_sampling(file, 1.0).unet.state_dict()
    plain = whole._for_sampling(None, 1.0).unet.state_dict()
    assert any(not torch.equal(tensor, plain[name]) for name, tensor in expected.items())
    for engine, adapter in ((rounded, file), (carrying, None)):
        found = engine._for_sampling(adapter, 1.0).unet.state_dict()
        assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items()) and found.keys() == expected.keys()
    part = regions(whole, [image], [label_map])
    np.testing.assert_array_equal(rounded.generate([label_map], [0], regions=part, adapter=file)[0],
                                  whole.generate([label_map], [0], regions=part, adapter=file)[0])  # fmt: skip


def test_an_adapter_of_half_strength_lies_between_none_and_all_of_it(bases, tmp_path):
    file, engine, (images, label_maps) = adapter_of(made(bases), tmp_path / "a.safetensors"), made(bases), scenes(1)
    part = regions(engine, images, label_maps)

    def image(**adapter: object) -> np.ndarray:
        return engine.generate(label_maps, [1], regions=part, **adapter)[0]

    none, half, whole = image(), image(adapter=file, adapter_scale=0.5), image(adapter=file)
    np.testing.assert_array_equal(none, image(adapter=file, adapter_scale=0.0))
    assert not np.array_equal(none, half) and not np.array_equal(half, whole)
    np.testing.assert_array_equal(none, image())  # switched off again


def test_a_negative_adapter_changes_the_unconditional_half_of_guidance_alone(bases, tmp_path):
    file, engine, (images, label_maps) = adapter_of(made(bases), tmp_path / "n"), made(bases), scenes(1)
    part = regions(engine, images, label_maps)

    def image(weight: float | None, guidance: float = 3.0, **more: object) -> np.ndarray:
        negative = None if weight is None else Negative(file, weight=weight)
        return engine.generate(label_maps, [1], regions=part, guidance_scale=guidance, negative=negative, **more)[0]

    plain, half, whole = image(None), image(0.5), image(1.0)
    np.testing.assert_array_equal(image(0.0), plain)
    assert not np.array_equal(half, plain) and not np.array_equal(whole, half)
    np.testing.assert_array_equal(image(None), plain)
    np.testing.assert_array_equal(image(1.0, adapter=file), image(None, adapter=file))
    with pytest.raises(BadInputError, match="guidance is off at 1; choose a guidance scale above 1"):
        image(1.0, guidance=1.0)


def test_a_small_negative_adapter_is_not_rounded_away_where_weights_are_held_in_bfloat16(bases, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "fast_dtype", lambda on: torch.bfloat16)
    file = adapter_of(made(bases), tmp_path / "small", strength=2e-4)
    whole = made(bases)
    monkeypatch.setattr(StableDiffusionEngine, "_held_dtype", lambda self: torch.bfloat16)
    rounded = made(bases)
    for weight in (0.5, 1.0):
        expected, found = (
            engine._for_guidance(engine._for_sampling(None, 1.0), None, 1.0, Negative(file, weight=weight)).unet.state_dict()
            for engine in (whole, rounded)
        )
        assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    plain = whole._for_sampling(file, 1.0).unet.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in plain.items())


def test_an_adapter_or_weights_of_another_base_are_refused(bases, tmp_path):
    other = tiny.engine()
    file = tmp_path / "other.safetensors"
    file.write_bytes(weights.to_bytes(lora.state(lora.attach(other.denoiser, rank=2))))
    with pytest.raises(WeightsError, match="was made for another model"):
        made(bases, "controlnet").generate(scenes(1)[1], [0], adapter=file)
    with pytest.raises(WeightsError, match="these weights belong to another engine"):
        StableDiffusionEngine.from_file(made(bases).architecture, file, device=tiny.CPU)
    changed = tiny_diffusion.folder(tmp_path / "base", seed=1)
    with pytest.raises(WeightsError, match="are not those that this generator was fitted on"):
        tiny_diffusion.engine(changed, base_sha256=made(bases).architecture["base_sha256"])
    with pytest.raises(WeightsError, match="made by the engine 'dream'; this release has compact and stable-diffusion"):
        engine_from_file({"engine": "dream"}, file)


def test_a_side_that_cannot_be_halved_names_one_that_can(bases):
    with pytest.raises(BadInputError, match=r"multiple of 16 px, this project's is 40; make a project with --resolution (32|48)"):
        made(bases, resolution=40)


@pytest.mark.parametrize("mode", MODES)
def test_a_rollout_passes_gradients_to_the_noise_and_a_shift_moves_the_start(bases, mode):
    engine, (images, label_maps) = made(bases, mode), scenes(SAMPLING_BATCH)
    parts, rollout = regions(engine, images, label_maps), engine.rollout(steps=2)
    noise = torch.stack([torch.randn(*rollout.noise, generator=torch.Generator().manual_seed(seed)) for seed in range(4)])
    noise.requires_grad_(True)
    pixels = rollout.pixels(noise, label_maps, parts)
    made_of_seed = engine.generate(label_maps, range(4), regions=parts, num_inference_steps=2, guidance_scale=1.0)
    seen = ((pixels.detach().permute(0, 2, 3, 1) + 1) * 127.5).round().numpy()
    assert np.abs(seen - np.stack(made_of_seed)).max() <= 1
    pixels.square().mean().backward()
    assert float(noise.grad.abs().sum()) > 0 and all(one.grad is None for one in engine.denoiser.parameters())
    torch.manual_seed(0)
    shift = NoiseShift(default_architecture(num_classes=3, noise=rollout.noise))
    torch.nn.init.normal_(shift.layers[-1].weight, std=1.0)
    started = engine.generate(label_maps, range(4), regions=parts, num_inference_steps=2, guidance_scale=1.0, start=shift)
    assert all(not np.array_equal(one, other) for one, other in zip(made_of_seed, started, strict=True))
    if parts is not None:
        with pytest.raises(BadInputError, match="paints into a picture"):
            rollout.pixels(noise.detach(), label_maps, None)
