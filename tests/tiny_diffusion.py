"""A Stable Diffusion folder in miniature: every part real and randomly initialised, saved as diffusers saves it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from saadi.engines import pretrained
from saadi.engines.stable_diffusion import StableDiffusionEngine
from saadi.records import LabelClass, Project
from saadi.store import Store
from tests import tiny

SIDE = 32
CLASS_NAMES = ("tissue", "organ", "bar")
WORDS = ("a", "photo", "of", "organ", "bar", "tissue")
TOKENS = 12


def folder(path: Path, *, mode: str = "inpainting", prediction: str = "epsilon", seed: int = 0) -> Path:
    """Write unet, vae, text_encoder, tokenizer and scheduler; 100 k parameters in all."""
    torch.manual_seed(seed)
    UNet2DConditionModel(
        sample_size=4, in_channels=pretrained.IN_CHANNELS[mode], out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4,
    ).save_pretrained(path / "unet")  # fmt: skip
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4, norm_num_groups=4, sample_size=SIDE,
    ).save_pretrained(path / "vae")  # fmt: skip
    _tokenizer(path / "tokenizer")
    CLIPTextModel(CLIPTextConfig(
        vocab_size=400, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=TOKENS, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )).save_pretrained(path / "text_encoder")  # fmt: skip
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type=prediction,
    ).save_pretrained(path / "scheduler")  # fmt: skip
    (path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return path


def _tokenizer(path: Path) -> None:
    """Whole words, and letters for all else, as CLIP's byte pairs would be after very little training."""
    letters = [chr(code) for code in range(33, 127)]
    vocab = ["<|startoftext|>", "<|endoftext|>", *letters, *[letter + "</w>" for letter in letters]]
    merges = []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merges.append(f"{pieces[0]} {pieces[1]}")
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
            vocab.append(pieces[0])
    path.mkdir(parents=True)
    unique = {token: index for index, token in enumerate(dict.fromkeys(vocab))}
    (path / "vocab.json").write_text(json.dumps(unique))
    (path / "merges.txt").write_text("\n".join(["#version: 0.2", *dict.fromkeys(merges)]))
    CLIPTokenizer.from_pretrained(path, model_max_length=TOKENS).save_pretrained(path)


def architecture(base: Path, *, mode: str = "inpainting", **changes: Any) -> dict[str, Any]:
    return {
        "engine": "stable-diffusion", "mode": mode, "base": str(base), "resolution": SIDE, "num_classes": len(CLASS_NAMES),
        "base_sha256": pretrained.find(str(base), mode=mode).fingerprint(), "class_names": list(CLASS_NAMES),
        "prompt": "a photo of {classes}", "sampler": {"name": "ddim", "num_inference_steps": 3, "guidance_scale": 2.0}, **changes,
    }  # fmt: skip


def engine(base: Path, *, mode: str = "inpainting", **changes: Any) -> StableDiffusionEngine:
    torch.manual_seed(0)
    return StableDiffusionEngine(architecture(base, mode=mode, **changes), device=tiny.CPU)


def project(store: Store) -> Project:
    """24 invented scenes of six patients, larger than the project works at, without a generator."""
    classes = [LabelClass(index, name, f"#00000{index}") for index, name in enumerate(CLASS_NAMES)]
    made = store.create_project("sd", task="segmentation", classes=classes, resolution=SIDE, actor="test")
    for seed in range(24):
        image, label_map = tiny.scene(seed, side=2 * SIDE)
        split = "train" if seed < 12 else "val" if seed < 20 else "test"
        store.add_image(made.id, blob=store.blobs.put_image(image), size=(2 * SIDE, 2 * SIDE), group_id=f"p{seed % 6}",
                        split=split, source_name=str(seed), label_map_blob=store.blobs.put_label_map(label_map),
                        actor="test")  # fmt: skip
    return made
