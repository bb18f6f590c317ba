"""Stable Diffusion weights on this computer: found, checked, named by their hash; never fetched, never unpickled. No torch."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from saadi.errors import BadInputError, WeightsError

Mode = Literal["inpainting", "controlnet"]
IN_CHANNELS: dict[Mode, int] = {"inpainting": 9, "controlnet": 4}
"""Inpainting takes noisy latents (4), the mask (1) and the latents of the masked picture (4)."""
EXAMPLES: dict[Mode, str] = {
    "inpainting": "stable-diffusion-v1-5/stable-diffusion-inpainting",
    "controlnet": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}
"""Public weights of each kind (CreativeML OpenRAIL-M); named in messages only."""
WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
"""Parts with weights, and how their files begin."""
PARTS = (*WEIGHTS, "tokenizer", "scheduler")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
CONTROLNET_FILE = re.compile(r"diffusion_pytorch_model(-\d+-of-\d+)?\.safetensors")


@dataclass(frozen=True)
class Pretrained:
    """A folder in diffusers layout that has been looked at and can be loaded."""

    name: str
    """As the user named it: a folder, or an id of the hub."""
    folder: Path
    variants: dict[str, str | None]
    """Part -> None, or 'fp16' where only half-precision files are there."""
    side_multiple: int
    """Images must have a side that this number divides: the autoencoder and then the U-Net halve it again and again."""

    def need_side(self, resolution: int) -> None:
        """Raises: BadInputError: these weights cannot make images of that side."""
        if resolution % self.side_multiple:
            nearest = max(self.side_multiple, round(resolution / self.side_multiple) * self.side_multiple)
            raise BadInputError(f"these weights make images whose side is a multiple of {self.side_multiple} px, this project's "
                                f"is {resolution}; make a project with --resolution {nearest} (512 suits them best)")

    def fingerprint(self) -> str:
        """SHA-256 over the weights of U-Net, autoencoder and text encoder: what was fitted belongs to these alone."""
        digest = hashlib.sha256()
        for part, variant in sorted(self.variants.items()):
            for file in _files(self.folder / part, variant):
                stat = file.stat()
                digest.update(f"{part}/{file.name}:{_sha256(str(file), stat.st_size, stat.st_mtime_ns)}\n".encode())
        return digest.hexdigest()


def find(name: str, *, mode: Mode) -> Pretrained:
    """The weights that a folder or the hub's cache holds.

    Args:
        name: A folder in diffusers layout, or an id such as 'stable-diffusion-v1-5/stable-diffusion-inpainting'.

    Raises:
        WeightsError: They are missing, not safetensors, or of another kind; one sentence with the command that gets them.
    """
    try:
        return _found(name, mode, _folder(name, mode))
    except OSError as error:
        raise WeightsError(f"the weights {_short(name)} cannot be read ({error.strerror or type(error).__name__}); check the "
                           "name and who may read the folder") from error  # fmt: skip


def _found(name: str, mode: Mode, folder: Path) -> Pretrained:
    if folder.is_file():
        raise WeightsError(f"{name} is a single file; a folder in diffusers layout is needed: {command(name, mode)}")
    if (folder / "text_encoder_2").is_dir():
        raise WeightsError(f"{name} is Stable Diffusion XL; this engine takes Stable Diffusion 1 or 2: {command(name, mode)}")
    for part in PARTS:
        if not (folder / part).is_dir():
            raise WeightsError(f"{name} has no {part} (unet, vae, text_encoder, tokenizer and scheduler are needed): "
                               f"{command(name, mode)}")  # fmt: skip
    unet, text = _config(folder, "unet"), _config(folder, "text_encoder")
    _check_kind(name, unet, text, mode)
    halvings = sum(_num_levels(config, part) - 1 for config, part in ((unet, "unet"), (_config(folder, "vae"), "vae")))
    return Pretrained(name, folder, {part: _variant(folder / part, name, mode) for part in WEIGHTS}, 2**halvings)


def full_name(name: str) -> str:
    """A folder's full path, because the worker runs elsewhere; what is no folder here, as an id of the hub, as it is."""
    folder = _existing(name)
    return name if folder is None else str(folder.resolve())


def is_hub_id(name: str) -> bool:
    """It has the form of an id, and there is no such folder here."""
    has_dots = any(part.startswith(".") for part in name.split("/"))  # './model' is a folder, here or elsewhere
    return HUB_ID.fullmatch(name) is not None and not has_dots and _existing(name) is None


def check_controlnet(name: str) -> None:
    """Look at a folder that holds a ControlNet, without reading its weights.

    Raises:
        WeightsError: It holds none as safetensors, or one that does not take pictures.
    """
    folder = _existing(name)
    if folder is None or not folder.is_dir():
        raise WeightsError(f"there is no folder {_short(name)}; name that of a ControlNet, or leave it out to start from the "
                           "U-Net")  # fmt: skip
    config = _config(folder, "")
    if not any(CONTROLNET_FILE.fullmatch(file) for file in _listed(folder)):
        raise WeightsError(f"{name} holds no ControlNet as safetensors (config.json and diffusion_pytorch_model.safetensors are "
                           "needed); leave it out to start from the U-Net")  # fmt: skip
    if (channels := config.get("conditioning_channels", 3)) != 3:
        raise WeightsError(f"{name} takes {channels} channels; label maps come as pictures of 3")


def command(name: str, mode: Mode) -> str:
    """What to type so that the weights are there under this name: into the hub's cache, or into the folder that was named."""
    is_id = is_hub_id(name)
    wanted = name if is_id else EXAMPLES[mode]
    # No safety checker, no second precision, no single-file checkpoints beside the folders.
    parts = [f"hf download {wanted}"]
    parts += [f'--include "{pattern}"' for pattern in ("*.json", "*.txt", "*/*.safetensors")]
    parts += [f'--exclude "{pattern}"' for pattern in ("safety_checker/*", "*.fp16.*", "*.non_ema.*")]
    return " ".join(parts if is_id else [*parts, f"--local-dir {_quoted(name)}"])


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name


def _short(name: str) -> str:
    return name if len(name) <= 120 else f"{name[:120]}..."


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise WeightsError(f"the folder {folder.name} cannot be read ({error.strerror}); check who may read it") from error


def _existing(name: str) -> Path | None:
    """The folder or file of this name, '~' being one's home; None where there is none or can be none."""
    path = os.path.expanduser(name)  # leaves '~nobody' as it is, where pathlib raises
    return Path(path) if os.path.exists(path) else None


def _folder(name: str, mode: Mode) -> Path:
    if (folder := _existing(name)) is not None:
        return folder
    if not is_hub_id(name):
        raise WeightsError(f"the folder {_short(name)} does not exist; get the weights with: {command(name, mode)}")
    from huggingface_hub import snapshot_download  # takes half a second to import
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise WeightsError(f"{name} is neither a folder nor in the hub's cache; get it with: {command(name, mode)}") from error


def _config(folder: Path, part: str) -> dict[str, Any]:
    try:
        found = json.loads((folder / part / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise WeightsError(f"{Path(part) / 'config.json'} is missing or damaged; download the folder again") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{Path(part) / 'config.json'} is no configuration; download the folder again")
    return found


def _num_levels(config: dict[str, Any], part: str) -> int:
    channels = config.get("block_out_channels")
    if not isinstance(channels, list) or not channels:
        raise WeightsError(f"{part}/config.json does not say its block_out_channels; download the folder again")
    return len(channels)


def _check_kind(name: str, unet: dict[str, Any], text: dict[str, Any], mode: Mode) -> None:
    channels = unet.get("in_channels")
    if channels != IN_CHANNELS[mode]:
        kind = "an inpainting model" if channels == 9 else "a plain text-to-image model" if channels == 4 else \
            "another kind of model"
        raise WeightsError(f"{name} is {kind} ({channels} input channels); mode {mode} needs {IN_CHANNELS[mode]}, "
                           f"for example {EXAMPLES[mode]}")  # fmt: skip
    if unet.get("addition_embed_type") or unet.get("cross_attention_dim") != text.get("hidden_size"):
        raise WeightsError(f"the text encoder of {name} gives {text.get('hidden_size')} numbers a word, its U-Net expects "
                           f"{unet.get('cross_attention_dim')}; they belong to different models, download the folder again")


def _variant(folder: Path, name: str, mode: Mode) -> str | None:
    for variant in (None, "fp16"):
        if _files(folder, variant):
            return variant
    if any(file.suffix in (".bin", ".ckpt", ".pt") for file in folder.iterdir()):
        raise WeightsError(f"{name} has its {folder.name} only as a pickle, which can run code when it is read; get safetensors "
                           f"with: {command(name, mode)}")  # fmt: skip
    raise WeightsError(f"{name} has no weights of its {folder.name}; get them with: {command(name, mode)}")


def _files(folder: Path, variant: str | None) -> list[Path]:
    """The weights of one part, also where they come in several files ('-00001-of-00002')."""
    middle = f".{variant}" if variant else ""
    pattern = re.compile(rf"{WEIGHTS[folder.name]}{re.escape(middle)}(-\d+-of-\d+)?\.safetensors")
    return sorted(file for file in folder.glob("*.safetensors") if pattern.fullmatch(file.name))


@lru_cache(maxsize=64)
def _sha256(file: str, size: int, changed_ns: int) -> str:
    """Several GB take seconds, so the hash is kept while the file stays as it is."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
