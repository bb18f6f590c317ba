"""Weights on this computer: what is missing or of the wrong kind is said in one sentence, with what to type."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from saadi.engines import pretrained
from saadi.errors import WeightsError
from tests import tiny, tiny_diffusion


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_diffusion.folder(tmp_path_factory.mktemp("sd") / "base")


@pytest.fixture
def base(good: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(good, tmp_path / "base"))


def test_a_folder_in_diffusers_layout_is_taken_as_it_is(good: Path) -> None:
    found = pretrained.find(str(good), mode="inpainting")
    assert (found.folder, found.side_multiple, set(found.variants.values())) == (good, 16, {None})
    assert len(found.fingerprint()) == 64


def test_the_fingerprint_follows_the_weights_and_not_the_place(good: Path, base: Path, tmp_path: Path) -> None:
    original = pretrained.find(str(good), mode="inpainting").fingerprint()
    assert pretrained.find(str(base), mode="inpainting").fingerprint() == original
    other = tiny_diffusion.folder(tmp_path / "other", seed=5)
    shutil.copy(other / "vae/diffusion_pytorch_model.safetensors", base / "vae/diffusion_pytorch_model.safetensors")
    assert pretrained.find(str(base), mode="inpainting").fingerprint() != original


def test_a_missing_folder_comes_with_the_command_that_fills_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as raised:
        pretrained.find(str(tmp_path / "sd inpainting"), mode="inpainting")
    assert str(raised.value) == (
        f'the folder {tmp_path}/sd inpainting does not exist; get the weights with: hf download '
        'stable-diffusion-v1-5/stable-diffusion-inpainting --include "*.json" --include "*.txt" --include "*/*.safetensors" '
        f'--exclude "safety_checker/*" --exclude "*.fp16.*" --exclude "*.non_ema.*" --local-dir "{tmp_path}/sd inpainting"')


def test_an_id_that_is_not_in_the_cache_is_never_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"org/model is neither a folder nor in the hub's cache; get it with: hf download "
                       r"org/model --include .*safetensors\"") as raised:  # fmt: skip
        pretrained.find("org/model", mode="controlnet")
    assert "--local-dir" not in str(raised.value)


def test_an_id_in_the_cache_is_found(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    snapshot = tmp_path / "models--org--tiny" / "snapshots" / ("0" * 40)
    shutil.copytree(good, snapshot)
    (tmp_path / "models--org--tiny" / "refs").mkdir()
    (tmp_path / "models--org--tiny" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert pretrained.find("org/tiny", mode="inpainting").folder.resolve() == snapshot.resolve()


def test_the_command_works_as_it_is_written(good: Path) -> None:
    """The patterns take what the engine reads, and neither safety checker nor single-file checkpoints."""
    from huggingface_hub.utils import filter_repo_objects

    words = pretrained.command("org/model", "inpainting").split()
    wanted = {kind: [words[index + 1].strip('"') for index, word in enumerate(words) if word == f"--{kind}"] for kind in
              ("include", "exclude")}  # fmt: skip
    own = {path.relative_to(good).as_posix() for path in good.rglob("*") if path.is_file()}
    extra = {"v1-5-pruned.safetensors", "safety_checker/model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
             "unet/diffusion_pytorch_model.bin", "README.md"}  # fmt: skip
    assert set(filter_repo_objects(own | extra, allow_patterns=wanted["include"], ignore_patterns=wanted["exclude"])) == own


@pytest.mark.parametrize("part", pretrained.PARTS)
def test_a_missing_part_is_named(base: Path, part: str) -> None:
    shutil.rmtree(base / part)
    with pytest.raises(WeightsError, match=rf"has no {part} \(unet, vae, text_encoder, tokenizer and scheduler are needed\): hf"):
        pretrained.find(str(base), mode="inpainting")


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x", "x" * 1000, "y/" + "x" * 998, "bad\0name", "./none"])
def test_a_name_that_can_be_no_folder_is_told_in_one_sentence(name: str) -> None:
    with pytest.raises(WeightsError) as raised:
        pretrained.find(name, mode="inpainting")
    assert "hf download" in str(raised.value) and "\n" not in str(raised.value)


def test_a_folder_that_cannot_be_read_is_told_in_one_sentence(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:  # root, as which tests may run, may read everything
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(WeightsError, match=r"cannot be read \(Permission denied\); check the name and who may read"):
        pretrained.find(str(base), mode="inpainting")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("content", ["[]", "{}", "3", "{"])
def test_a_configuration_that_is_none_is_told_in_one_sentence(base: Path, part: str, content: str) -> None:
    (base / part / "config.json").write_text(content)
    with pytest.raises(WeightsError):
        pretrained.find(str(base), mode="inpainting")
    if part == "unet":
        (base / part / "config.json").write_text('{"in_channels": [9]}')
        with pytest.raises(WeightsError, match="another kind of model"):
            pretrained.find(str(base), mode="inpainting")


def test_pickles_are_refused_and_never_read(base: Path) -> None:
    weights = base / "unet/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(WeightsError, match="unet only as a pickle, which can run code when it is read; get safetensors with: hf"):
        pretrained.find(str(base), mode="inpainting")
    weights.with_suffix(".bin").unlink()
    with pytest.raises(WeightsError, match="has no weights of its unet; get them with: hf"):
        pretrained.find(str(base), mode="inpainting")


def test_half_precision_files_serve_where_there_are_no_others(base: Path) -> None:
    for part, stem in pretrained.WEIGHTS.items():
        file = base / part / f"{stem}.safetensors"
        file.rename(file.with_name(f"{stem}.fp16.safetensors"))
    assert set(pretrained.find(str(base), mode="inpainting").variants.values()) == {"fp16"}
    tiny_diffusion.engine(base)


def test_weights_as_they_were_published_years_ago_are_read(base: Path) -> None:
    """Text encoder of transformers 4, attention of diffusers 0.6, and the scheduler of Stable Diffusion 1.5."""
    [image], prompt = tiny.scenes(1, side=tiny_diffusion.SIDE)[0], ["a photo of organ"]
    now = tiny_diffusion.engine(base)
    file = base / "text_encoder/model.safetensors"
    state = {f"text_model.{name}": tensor for name, tensor in load_file(file).items()}
    state["text_model.embeddings.position_ids"] = torch.arange(tiny_diffusion.TOKENS)[None]
    save_file(state, file, metadata={"format": "pt"})
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    file, renamed = base / "vae/diffusion_pytorch_model.safetensors", {}
    for name, tensor in load_file(file).items():
        for new, before in old.items():
            name = name.replace(new, before) if ".attentions." in name else name
        renamed[name] = tensor
    assert any(".proj_attn." in name for name in renamed)
    save_file(renamed, file, metadata={"format": "pt"})
    (base / "scheduler/scheduler_config.json").write_text(json.dumps({
        "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
        "trained_betas": None, "clip_sample": False}))  # fmt: skip
    (base / "tokenizer/tokenizer_config.json").unlink()  # with it goes the limit of a prompt's length
    then = tiny_diffusion.engine(base)
    torch.testing.assert_close(then.parts.text(prompt), now.parts.text(prompt), rtol=0, atol=0)
    torch.testing.assert_close(then.encode_images([image]), now.encode_images([image]), rtol=0, atol=0)
    torch.testing.assert_close(then.parts.alphas, now.parts.alphas, rtol=0, atol=0)


def test_another_kind_of_model_is_named(good: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"is an inpainting model \(9 input channels\); mode controlnet needs 4, for example"):
        pretrained.find(str(good), mode="controlnet")
    plain = tiny_diffusion.folder(tmp_path / "plain", mode="controlnet")
    with pytest.raises(WeightsError, match=r"is a plain text-to-image model \(4 input channels\); mode inpainting needs 9"):
        pretrained.find(str(plain), mode="inpainting")
    config = json.loads((base / "text_encoder/config.json").read_text())
    (base / "text_encoder/config.json").write_text(json.dumps(config | {"hidden_size": 24}))
    with pytest.raises(WeightsError, match="gives 24 numbers a word, its U-Net expects 16; they belong to different models"):
        pretrained.find(str(base), mode="inpainting")
    (base / "text_encoder_2").mkdir()
    with pytest.raises(WeightsError, match="is Stable Diffusion XL; this engine takes Stable Diffusion 1 or 2"):
        pretrained.find(str(base), mode="inpainting")


def test_damaged_files_are_said_to_be(base: Path) -> None:
    file = base / "vae/diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(WeightsError, match=r"the vae of .* cannot be read .*; download it again"):
        tiny_diffusion.engine(base)
    (base / "unet/config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"unet/config.json is missing or damaged"):
        pretrained.find(str(base), mode="inpainting")


def test_a_single_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "v1-5.safetensors").write_bytes(b"x")
    with pytest.raises(WeightsError, match="is a single file; a folder in diffusers layout is needed"):
        pretrained.find(str(tmp_path / "v1-5.safetensors"), mode="controlnet")
