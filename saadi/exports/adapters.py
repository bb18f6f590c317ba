"""An adapter as a folder that other programs load: peft's layout, or diffusers' for Stable Diffusion."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from safetensors.torch import save_file
from torch import Tensor

from saadi.engines import lora, pretrained, weights
from saadi.errors import BadInputError
from saadi.records import Adapter, Model
from saadi.store import Store
from saadi.store.releases import checked_reason

Format = Literal["peft", "diffusers"]
PEFT_PREFIX = "base_model.model."


def export_adapter(store: Store, adapter: Adapter, *, format: Format, out_dir: Path, actor: str,
                   despite_withdrawn: str | None = None) -> list[str]:
    """Write an adapter with all that it needs beside the public base weights.

    Where the generator itself is a LoRA fit of Stable Diffusion, fit and adapter become one adapter, so that base and this folder
    make our images. Networks that a fit has trained as a whole lie beside it, in half precision. The adapter's strength is
    multiplied in.

    Args:
        despite_withdrawn: Why a version goes out that may have learnt from a patient who has withdrawn; None = it does not.

    Returns:
        Files written, relative to the folder, sorted.

    Raises:
        BadInputError: The folder is not empty, the compact engine's adapter is asked for in diffusers' layout, or the version may
            have learnt from a patient who has withdrawn and nobody said why it goes despite that.
    """
    tied = adapter.id in store.standing_trace(adapter.project_id).adapters
    why = checked_reason(despite_withdrawn) if tied and despite_withdrawn is not None else None
    if tied and why is None:
        raise BadInputError(f"version {adapter.name} may have learnt from a patient who has withdrawn; align again without them, "
                            "or say why it goes out all the same (`--despite-withdrawn`)")  # fmt: skip
    model = store.model(adapter.model_id)
    is_diffusion = model.architecture.get("engine") == "stable-diffusion"
    if format == "diffusers" and not is_diffusion:
        raise BadInputError("this version belongs to the compact engine, which diffusers has no pipeline for; export it as peft")
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise BadInputError(f"the folder {out_dir.name!r} is not empty; choose a new one")
    out_dir.mkdir(parents=True, exist_ok=True)
    read = {name: tensor.float() for name, tensor in weights.read(store.files.path(adapter.file)).items()}
    state = lora.scaled(read, adapter.scale)
    if is_diffusion:
        state = _with_fit(store, model, state, out_dir)
    if format == "peft":
        lora.config(lora.rank_of(state)).save_pretrained(out_dir)
        save_file(state, out_dir / "adapter_model.safetensors", metadata={"format": "pt"})
    else:
        named = {name.removeprefix(PEFT_PREFIX): tensor for name, tensor in state.items()}
        StableDiffusionLoraLoaderMixin.save_lora_weights(out_dir, unet_lora_layers=named)
    _describe(adapter, model, format, lora.rank_of(state), out_dir)
    store.adapter_exported(adapter.id, format=format, actor=actor, despite_withdrawn=why)
    return sorted(file.relative_to(out_dir).as_posix() for file in out_dir.rglob("*") if file.is_file())


def summed(first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, Tensor]:
    """One adapter whose change is the sum of both: B1 A1 + B2 A2 = [B1 B2] [A1; A2], of their ranks' sum."""
    return {name: torch.cat([first[name].float(), second[name].float()], dim=0 if "lora_A" in name else 1).contiguous()
            for name in first}  # fmt: skip


def _with_fit(store: Store, model: Model, state: dict[str, Tensor], out_dir: Path) -> dict[str, Tensor]:
    from saadi.engines.stable_diffusion import CONTROLNET, LORA, UNET, StableDiffusionEngine
    from saadi.engines.stable_diffusion_parts import placed

    file = store.files.path(model.file)
    learnt = weights.read(file)
    fit = {name.removeprefix(LORA): tensor for name, tensor in learnt.items() if name.startswith(LORA)}
    kinds = {kind for kind in (UNET, CONTROLNET) if any(name.startswith(kind) for name in learnt)}
    if kinds:
        engine = StableDiffusionEngine.from_file(model.architecture, file, device=torch.device("cpu"))
        for kind, network in ((UNET, engine.denoiser), (CONTROLNET, engine.controlnet)):
            if kind in kinds:
                placed(network, torch.device("cpu"), torch.float16).save_pretrained(out_dir / kind.rstrip("."))
    return summed(fit, state) if fit else state


def _describe(adapter: Adapter, model: Model, format: Format, rank: int, out_dir: Path) -> None:
    """What a person and a program must know to use it; folders of this computer are named by their last part only."""
    architecture = model.architecture
    facts: dict[str, Any] = {
        "name": adapter.name,
        "adapter_sha256": adapter.file,
        "model_sha256": model.file,
        "engine": architecture.get("engine", "compact"),
        "format": format,
        "lora_rank": rank,
        "resolution": architecture["resolution"],
    }
    for key in ("mode", "base_sha256", "class_names", "prompt", "sampler"):
        if key in architecture:
            facts[key] = architecture[key]
    if "base" in architecture:
        facts["base"] = public_name(architecture["base"])
    facts["files_sha256"] = {file.relative_to(out_dir).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
                             for file in sorted(out_dir.rglob("*")) if file.is_file()}  # fmt: skip
    (out_dir / "saadi.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    (out_dir / "README.md").write_text(_words(facts, out_dir))


def public_name(base: str) -> str:
    """A hub id as it is; of a folder, its name, but for somebody's home."""
    if pretrained.is_hub_id(base):
        return base
    name = Path(base).name
    return name if name and not name.startswith(("~", ".")) else "a folder"


def _words(facts: dict[str, Any], out_dir: Path) -> str:
    base = facts.get("base", "the compact engine")
    lines = [f"# Adapter {facts['name']}", "", f"For {base}. Research use only; not a medical device.", ""]
    if facts["engine"] == "compact":
        lines += ["```python", "from peft import PeftModel", "PeftModel.from_pretrained(engine.denoiser, FOLDER)", "```"]
        return "\n".join(lines) + "\n"
    pipeline = {"inpainting": "StableDiffusionInpaintPipeline", "controlnet": "StableDiffusionControlNetPipeline"}[facts["mode"]]
    whole = [part for part in ("unet", "controlnet") if (out_dir / part).is_dir()]
    kinds = {"unet": "UNet2DConditionModel", "controlnet": "ControlNetModel"}
    given = "".join(f", {part}={kinds[part]}.from_pretrained(FOLDER, subfolder={part!r})" for part in whole)
    lines += ["```python", f"pipe = {pipeline}.from_pretrained({base!r}{given})"]
    lines += ["pipe.load_lora_weights(FOLDER)"] if facts["format"] == "diffusers" else \
        ["pipe.unet = PeftModel.from_pretrained(pipe.unet, FOLDER)"]
    lines += ["```", "", f"Prompt: `{facts['prompt']}`, with the names of the classes: {', '.join(facts['class_names'][1:])}."]
    if facts["mode"] == "controlnet":
        lines += ["The ControlNet takes the label map in the colours of PASCAL VOC, by class index."]
    return "\n".join(lines) + "\n"
