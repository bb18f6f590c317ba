"""Segment Anything (Kirillov et al., ICCV 2023) from the user's own checkpoint; runs in the process of `helper.py` only.

Every size of the network is read from the checkpoint's tensors, so that Meta's three files, MedSAM and small models of one's
own load alike.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from saadi import devices
from saadi.engines import weights
from saadi.errors import WeightsError
from saadi.records import Image
from saadi.segmentation.base import Mask, Prompt

NAMES = {(768, 12): "vit_b", (1024, 24): "vit_l", (1280, 32): "vit_h"}
"""By width and depth of the image encoder."""
PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
DECODER_HEADS = 8
"""The only size that no tensor tells; the same in all published models."""
ADVICE = "set SAADI_SAM_CHECKPOINT to Meta's file sam_vit_b_01ec64.pth, sam_vit_l_0b3195.pth or sam_vit_h_4b8939.pth"
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Embedding:
    """An image as SAM sees it."""

    features: torch.Tensor
    """(1, C, g, g)."""
    size: tuple[int, int]
    """(height, width) of the image."""
    scale: float
    """Pixels of the network's input per pixel of the image."""


@dataclass(frozen=True)
class Prediction:
    """One mask, and what helps the next one."""

    mask: Mask
    score: float
    logits: torch.Tensor
    """(1, 1, 4 g, 4 g): fed back with the next click."""


class Predictor:
    """A loaded model on its device. `embed` costs seconds on a CPU, `predict` a tenth of one."""

    def __init__(self, model: Any, name: str, on: torch.device) -> None:
        self.model = model.to(on).eval()
        self.name = name
        self.on = on
        self.side: int = model.image_encoder.img_size

    @torch.inference_mode()
    def embed(self, image: Image) -> Embedding:
        """(H, W, 3) uint8 RGB: the longest side to that of the network, normalised, padded at right and bottom."""
        height, width = image.shape[:2]
        scale = self.side / max(height, width)
        to = (max(1, round(width * scale)), max(1, round(height * scale)))
        resized = cv2.resize(image, to, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        pixels = torch.from_numpy(resized).to(self.on).permute(2, 0, 1).float()
        mean, std = (torch.tensor(values, device=self.on).view(-1, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
        padded = F.pad((pixels - mean) / std, (0, self.side - to[0], 0, self.side - to[1]))
        with devices.autocast(self.on):
            features = self.model.image_encoder(padded[None])
        return Embedding(features.float(), (height, width), scale)

    @torch.inference_mode()
    def predict(self, embedding: Embedding, prompt: Prompt, *, before: torch.Tensor | None = None) -> Prediction:
        """Of one click three masks are possible (part, organ, all): the one that SAM trusts most is given.

        Args:
            before: `logits` of the same prompt without its last click.
        """
        points = None
        if prompt.clicks:  # SAM counts from the middle of the first pixel, we from its corner
            at = torch.tensor([[(x, y) for x, y, _ in prompt.clicks]], device=self.on) * embedding.scale - 0.5
            points = at.float(), torch.tensor([[int(is_on) for _, _, is_on in prompt.clicks]], device=self.on)
        boxes = None if prompt.box is None else torch.tensor([prompt.box], device=self.on).float() * embedding.scale - 0.5
        sparse, dense = self.model.prompt_encoder(points=points, boxes=boxes, masks=before)
        logits, scores = self.model.mask_decoder(
            image_embeddings=embedding.features,
            image_pe=self.model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=len(prompt.clicks) == 1 and boxes is None and before is None,
        )
        best = int(scores[0].argmax())
        chosen = logits[:, best : best + 1]
        return Prediction(self._at_full_size(chosen, embedding), float(scores[0, best].clamp(0, 1)), chosen)

    def _at_full_size(self, logits: torch.Tensor, embedding: Embedding) -> Mask:
        height, width = embedding.size
        at_input = F.interpolate(logits, (self.side, self.side), mode="bilinear", align_corners=False)
        used = at_input[..., : max(1, round(height * embedding.scale)), : max(1, round(width * embedding.scale))]
        whole = F.interpolate(used, (height, width), mode="bilinear", align_corners=False)
        return np.asarray((whole[0, 0] > 0).cpu().numpy(), dtype=bool)


def load(path: Path, on: torch.device) -> Predictor:
    """Read a checkpoint (.pth with tensors only, or .safetensors).

    Raises:
        WeightsError: Missing, damaged, or no SAM; one sentence.
    """
    state = _read(path)
    try:
        model = _build(state)
        model.load_state_dict(state, assign=True)
    except (KeyError, IndexError, RuntimeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path.name} holds weights of another model, a Segment Anything checkpoint was expected; {ADVICE}") \
            from error
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise WeightsError(f"{path.name} holds values that are no numbers, so it is damaged; download it again")
    encoder = model.image_encoder
    width, depth = encoder.patch_embed.proj.out_channels, len(encoder.blocks)
    return Predictor(model.float(), NAMES.get((width, depth), f"{depth} blocks of {width}"), on)


def _read(path: Path) -> State:
    if not path.is_file():
        raise WeightsError(f"the checkpoint {path.name} does not exist; {ADVICE}")
    try:
        if path.suffix == ".safetensors":
            stored: Any = weights.read(path)
        else:
            stored = torch.load(path, map_location="cpu", weights_only=True)  # tensors only: no code of the file is run
    except WeightsError:
        raise
    except Exception as error:  # truncated zip, wrong magic, forbidden pickle: torch raises a dozen kinds
        raise WeightsError(f"{path.name} cannot be read as weights ({type(error).__name__}), so it is damaged or no checkpoint; "
                           "download it again") from error
    for key in ("model", "state_dict"):  # as some fine-tuning programs save it
        stored = stored.get(key, stored) if isinstance(stored, dict) else stored
    if not isinstance(stored, dict) or not stored or not all(isinstance(value, torch.Tensor) for value in stored.values()):
        raise WeightsError(f"{path.name} holds no tensors by name, a Segment Anything checkpoint was expected; {ADVICE}")
    return {name.removeprefix("module.").removeprefix("sam."): value for name, value in stored.items()}


def _build(state: State) -> Any:
    """An empty `Sam` of the sizes that the tensors have."""
    classes = parts()
    encoder, decoder = "image_encoder.", "mask_decoder."
    width, _, patch, _ = state[f"{encoder}patch_embed.proj.weight"].shape
    grid = state[f"{encoder}pos_embed"].shape[1]
    depth = _count(state, f"{encoder}blocks.")
    rows = [state[f"{encoder}blocks.{block}.attn.rel_pos_h"].shape for block in range(depth)]
    windows = [(row[0] + 1) // 2 for row in rows]
    channels = state[f"{encoder}neck.0.weight"].shape[0]
    iou_hidden = state[f"{decoder}iou_prediction_head.layers.0.weight"].shape[0]
    with torch.device("meta"):  # nothing is allocated twice: the checkpoint's tensors become the parameters
        sam = classes.Sam(
            image_encoder=classes.ImageEncoderViT(
                depth=depth, embed_dim=width, img_size=grid * patch, patch_size=patch, num_heads=width // rows[0][1],
                mlp_ratio=state[f"{encoder}blocks.0.mlp.lin1.weight"].shape[0] / width, out_chans=channels, qkv_bias=True,
                norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), use_rel_pos=True, window_size=min(windows),
                global_attn_indexes=tuple(block for block, window in enumerate(windows) if window == grid),
            ),
            prompt_encoder=classes.PromptEncoder(
                embed_dim=channels, image_embedding_size=(grid, grid), input_image_size=(grid * patch, grid * patch),
                mask_in_chans=state["prompt_encoder.mask_downscaling.3.weight"].shape[0],
            ),
            mask_decoder=classes.MaskDecoder(
                transformer_dim=channels, num_multimask_outputs=state[f"{decoder}mask_tokens.weight"].shape[0] - 1,
                iou_head_depth=_count(state, f"{decoder}iou_prediction_head.layers."), iou_head_hidden_dim=iou_hidden,
                transformer=classes.TwoWayTransformer(
                    depth=_count(state, f"{decoder}transformer.layers."), embedding_dim=channels, num_heads=DECODER_HEADS,
                    mlp_dim=state[f"{decoder}transformer.layers.0.mlp.lin1.weight"].shape[0],
                ),
            ),
        )  # fmt: skip
    # These two are not in a checkpoint; preprocessing is ours.
    sam.pixel_mean, sam.pixel_std = (torch.tensor(values).view(-1, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    return sam


def _count(state: State, prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})


def parts() -> Any:
    """The network's classes. The package's own `__init__` is not run: it imports torchvision, which must not be installed."""
    if "segment_anything" not in sys.modules:
        spec = importlib.util.find_spec("segment_anything")
        if spec is None:
            raise WeightsError("the package segment-anything is not installed; run `make app` again")
        sys.modules["segment_anything"] = importlib.util.module_from_spec(spec)
    return importlib.import_module("segment_anything.modeling")
