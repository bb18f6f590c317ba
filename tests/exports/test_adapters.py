"""An exported adapter, read by peft's and diffusers' own loaders, changes the base weights as it does here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionInpaintPipeline,
    UNet2DConditionModel,
)
from peft import PeftModel
from transformers import CLIPTextModel, CLIPTokenizer

from saadi import devices
from saadi.engines import lora, weights
from saadi.engines.loading import engine_from_file
from saadi.engines.regions import named_region
from saadi.engines.stable_diffusion import CONTROLNET, LORA, UNET
from saadi.engines.stable_diffusion_parts import picture_of
from saadi.errors import BadInputError
from saadi.exports.adapters import export_adapter, public_name
from saadi.records import Adapter, Project
from saadi.store import Store
from tests import tiny, tiny_diffusion
from tests.test_cli import answer, run  # noqa: F401

SIDE = tiny_diffusion.SIDE


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    modes = ("inpainting", "controlnet")
    return {mode: tiny_diffusion.folder(tmp_path_factory.mktemp(mode) / "base", mode=mode) for mode in modes}


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU without bfloat16: other programs compute in float32."""
    monkeypatch.setattr(devices, "fast_dtype", lambda on: torch.float32)


def random_lora(module: torch.nn.Module, *, rank: int, seed: int) -> dict[str, torch.Tensor]:
    policy = lora.attach(module, rank=rank, seed=seed)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(seed))
    return lora.state(policy)


def stored(store: Store, project: Project, architecture: dict[str, Any], state: dict[str, torch.Tensor],
           adapter: dict[str, torch.Tensor], *, scale: float = 0.5) -> Adapter:  # fmt: skip
    file = store.files.put(weights.to_bytes(state))
    model = store.add_model(project.id, kind="engine", architecture=architecture, file=file, metrics={}, actor="test")
    return store.add_adapter(project.id, model_id=model.id, parent_id=None, file=store.files.put(weights.to_bytes(adapter)),
                             scale=scale, config={}, metrics={}, actor="test")  # fmt: skip


def fitted_by_lora(store: Store, project: Project, base: Path, mode: str) -> Adapter:
    fit, own = (random_lora(tiny_diffusion.engine(base, mode=mode).denoiser, rank=rank, seed=rank) for rank in (2, 3))
    state = {LORA + name: tensor for name, tensor in fit.items()}
    if mode == "controlnet":
        controlnet = tiny_diffusion.engine(base, mode=mode).controlnet
        with torch.no_grad():
            for parameter in controlnet.parameters():
                parameter.add_(0.05)
        # Values that half precision holds exactly, so that nothing is lost on the way.
        state |= {CONTROLNET + name: tensor.half().float() for name, tensor in controlnet.state_dict().items()}
    return stored(store, project, tiny_diffusion.architecture(base, mode=mode), state, own)


def ours(store: Store, adapter: Adapter) -> Any:
    """Our U-Net with fit and adapter."""
    model = store.model(adapter.model_id)
    engine = engine_from_file(model.architecture, store.files.path(model.file))
    return lora.merged(lora.load(engine.denoiser, store.files.path(adapter.file), scale=adapter.scale))


def answer_of(unet: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, unet.config.in_channels, 4, 4, generator=generator)
    with torch.no_grad():
        return unet(noisy, torch.tensor([100, 700]), torch.randn(2, 12, 16, generator=generator)).sample


def components(base: Path) -> dict[str, Any]:
    kinds = {"vae": AutoencoderKL, "text_encoder": CLIPTextModel, "tokenizer": CLIPTokenizer, "unet": UNet2DConditionModel,
             "scheduler": DDIMScheduler}  # fmt: skip
    found = {part: kind.from_pretrained(base / part) for part, kind in kinds.items()}
    return found | {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def test_peft_and_diffusers_load_fit_and_adapter_as_one(store: Store, project: Project, bases, tmp_path: Path):
    adapter = fitted_by_lora(store, project, bases["inpainting"], "inpainting")
    expected = answer_of(ours(store, adapter))
    files = export_adapter(store, adapter, format="peft", out_dir=tmp_path / "peft", actor="ann")
    assert files == ["README.md", "adapter_config.json", "adapter_model.safetensors", "saadi.json"]
    unet = UNet2DConditionModel.from_pretrained(bases["inpainting"] / "unet")
    plain = answer_of(unet)
    torch.testing.assert_close(answer_of(PeftModel.from_pretrained(unet, tmp_path / "peft")), expected, rtol=1e-3, atol=1e-4)
    assert float((plain - expected).abs().max()) > 0.05

    files = export_adapter(store, adapter, format="diffusers", out_dir=tmp_path / "diffusers", actor="ann")
    assert files == ["README.md", "pytorch_lora_weights.safetensors", "saadi.json"]
    pipeline = StableDiffusionInpaintPipeline(**components(bases["inpainting"]))
    pipeline.load_lora_weights(tmp_path / "diffusers")
    torch.testing.assert_close(answer_of(pipeline.unet), expected, rtol=1e-3, atol=1e-4)
    unet = UNet2DConditionModel.from_pretrained(bases["inpainting"] / "unet")
    unet.load_lora_adapter(str(tmp_path / "diffusers"), prefix="unet", weight_name="pytorch_lora_weights.safetensors")
    torch.testing.assert_close(answer_of(unet), expected, rtol=1e-3, atol=1e-4)
    assert [row.action for row in store.audit_rows(limit=2)] == ["adapter.export", "adapter.export"]


def test_diffusers_own_pipeline_makes_our_images(store: Store, project: Project, bases, tmp_path: Path):
    """ControlNet, LoRA, prompt, guidance and sampler: another program, the same noise, the same picture."""
    adapter = fitted_by_lora(store, project, bases["controlnet"], "controlnet")
    assert "controlnet/config.json" in export_adapter(store, adapter, format="diffusers", out_dir=tmp_path / "d", actor="ann")
    model = store.model(adapter.model_id)
    engine = engine_from_file(model.architecture, store.files.path(model.file))
    _, [label_map] = tiny.scenes(1, side=SIDE)
    [own] = engine.generate([label_map], [7], num_inference_steps=4, guidance_scale=3.0, adapter=store.files.path(adapter.file),
                            adapter_scale=adapter.scale)  # fmt: skip
    controlnet = ControlNetModel.from_pretrained(tmp_path / "d", subfolder="controlnet").float()
    pipeline = StableDiffusionControlNetPipeline(**components(bases["controlnet"]), controlnet=controlnet)
    pipeline.load_lora_weights(tmp_path / "d")
    pipeline.set_progress_bar_config(disable=True)
    control = torch.from_numpy(picture_of(label_map[None])).permute(0, 3, 1, 2).float() / 255
    theirs = pipeline(engine.prompt(label_map), image=control, latents=engine._noise(7)[None], num_inference_steps=4,
                      guidance_scale=3.0, output_type="np").images[0]  # fmt: skip
    difference = np.abs(np.rint(theirs * 255) - own)
    assert difference.max() <= 2 and own.std() > 5
    facts = json.loads((tmp_path / "d" / "saadi.json").read_text())
    assert facts["base"] == "base" and facts["lora_rank"] == 5 and str(tmp_path) not in (tmp_path / "d" / "README.md").read_text()


def test_diffusers_inpainting_pipeline_makes_our_images(bases):
    """It draws the latents around the mask by chance where we take their mean, so it is given ours; and it takes the mask's
    nearest pixel for a latent where we take any: a mask of whole latents is the same for both."""
    engine, ([image], _) = tiny_diffusion.engine(bases["inpainting"]), tiny.scenes(1, side=SIDE)
    label_map = np.zeros((SIDE, SIDE), np.uint8)
    label_map[8:24, 8:16] = 1
    region = named_region(label_map, image, side=SIDE)
    whole = type(region)(image, (label_map == 1).astype(np.float32))
    [own] = engine.generate([label_map], [3], regions=[whole], guidance_scale=3.0, num_inference_steps=4)
    pipeline = StableDiffusionInpaintPipeline(**components(bases["inpainting"]))
    pipeline.set_progress_bar_config(disable=True)
    picture = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    mask = torch.from_numpy(whole.weight)[None, None]
    theirs = pipeline("a photo of organ", image=picture, mask_image=mask, latents=engine._noise(3)[None], num_inference_steps=4,
                      masked_image_latents=engine.parts.around([whole])[:, 1:], guidance_scale=3.0, strength=1.0, height=SIDE,
                      width=SIDE, output_type="np").images[0]  # fmt: skip
    inside = whole.weight == 1
    assert np.abs(np.rint(theirs * 255) - own)[inside].max() <= 2 and own[inside].std() > 5


def test_a_whole_unet_lies_beside_its_adapter(store: Store, project: Project, bases, tmp_path: Path):
    changed = {name: (tensor + 0.01).half().float() for name, tensor in
               tiny_diffusion.engine(bases["inpainting"]).denoiser.state_dict().items()}  # fmt: skip
    own = random_lora(tiny_diffusion.engine(bases["inpainting"]).denoiser, rank=2, seed=1)
    architecture = tiny_diffusion.architecture(bases["inpainting"])
    adapter = stored(store, project, architecture, {UNET + name: tensor for name, tensor in changed.items()}, own)
    files = export_adapter(store, adapter, format="diffusers", out_dir=tmp_path / "d", actor="ann")
    assert "unet/diffusion_pytorch_model.safetensors" in files
    assert "unet=UNet2DConditionModel.from_pretrained(FOLDER, subfolder='unet')" in (tmp_path / "d" / "README.md").read_text()
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "d", subfolder="unet").float()
    unet.load_lora_adapter(str(tmp_path / "d"), prefix="unet", weight_name="pytorch_lora_weights.safetensors")
    torch.testing.assert_close(answer_of(unet), answer_of(ours(store, adapter)), rtol=1e-3, atol=1e-4)


def test_the_compact_engines_adapter_is_loaded_by_peft(store: Store, project: Project, tmp_path: Path):
    base = tiny.engine()
    state = {name: tensor.clone() for name, tensor in base.denoiser.state_dict().items()}
    adapter = stored(store, project, base.architecture, state, random_lora(base.denoiser, rank=2, seed=0))
    export_adapter(store, adapter, format="peft", out_dir=tmp_path / "peft", actor="ann")

    def made(module: Any) -> torch.Tensor:
        noisy, hot = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 3, 16, 16)
        with torch.no_grad():
            return module(noisy, torch.tensor([0.5]), hot, torch.zeros(1, 6))

    theirs = PeftModel.from_pretrained(tiny.engine().denoiser, tmp_path / "peft")
    expected = made(lora.merged(lora.load(tiny.engine().denoiser, store.files.path(adapter.file), scale=adapter.scale)))
    torch.testing.assert_close(made(theirs), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(BadInputError, match="diffusers has no pipeline for; export it as peft"):
        export_adapter(store, adapter, format="diffusers", out_dir=tmp_path / "d", actor="ann")
    with pytest.raises(BadInputError, match="the folder 'peft' is not empty"):
        export_adapter(store, adapter, format="peft", out_dir=tmp_path / "peft", actor="ann")


def test_a_folder_of_this_computer_is_named_by_its_last_part():
    assert public_name("/data/anna/weights/sd15") == "sd15" and public_name("org/model") == "org/model"


@pytest.mark.parametrize(("base", "name"), [("~/sd15", "sd15"), ("./sd15", "sd15"), ("../sd15", "sd15"), ("~anna", "a folder"),
                                            ("weights/anna/sd15", "sd15"), ("a/..", "a folder"), ("sd15", "sd15")])  # fmt: skip
def test_what_is_no_id_of_the_hub_is_never_named_as_one(base: str, name: str):
    assert public_name(base) == name


def test_a_relative_folder_that_is_there_is_not_named_as_an_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "anna/sd15").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert public_name("anna/sd15") == "sd15"


def test_the_command_writes_the_folder(store: Store, project: Project, tmp_path: Path, answer, run):  # noqa: F811
    base = tiny.engine()
    state = {name: tensor.clone() for name, tensor in base.denoiser.state_dict().items()}
    adapter = stored(store, project, base.architecture, state, random_lora(base.denoiser, rank=2, seed=0))
    at = ("--home", store.home.path)
    told = answer("adapter-export", project.name, adapter.id, "--out", tmp_path / "out", *at)
    assert told["files"] == sorted(path.name for path in (tmp_path / "out").iterdir()) and told["format"] == "peft"
    status, _, err = run("adapter-export", project.name, 99, "--out", tmp_path / "x", *at)
    assert (status, "no adapter 99" in err) == (1, True)
    assert run("adapter-export", project.name, adapter.id, "--out", tmp_path / "x", "--format", "onnx", *at)[0] == 2
