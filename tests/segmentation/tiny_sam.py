"""A Segment Anything model of 60 k parameters with random weights: for wiring, not for masks that mean anything."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from saadi.segmentation import sam

SIDE, PATCH, CHANNELS = 64, 8, 16


def build(seed: int = 0) -> Any:
    """A `Sam` of two blocks, one with windows and one without, on inputs of 64 pixels."""
    torch.manual_seed(seed)
    classes, grid = sam.parts(), SIDE // PATCH
    made = classes.Sam(
        image_encoder=classes.ImageEncoderViT(
            depth=2, embed_dim=32, img_size=SIDE, patch_size=PATCH, num_heads=2, mlp_ratio=2, out_chans=CHANNELS, qkv_bias=True,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), use_rel_pos=True, window_size=3, global_attn_indexes=(1,)),
        prompt_encoder=classes.PromptEncoder(
            embed_dim=CHANNELS, image_embedding_size=(grid, grid), input_image_size=(SIDE, SIDE), mask_in_chans=8),
        mask_decoder=classes.MaskDecoder(
            transformer_dim=CHANNELS, num_multimask_outputs=3, iou_head_depth=3, iou_head_hidden_dim=16,
            transformer=classes.TwoWayTransformer(depth=2, embedding_dim=CHANNELS, num_heads=8, mlp_dim=32)),
    )  # fmt: skip
    for name, value in made.named_parameters():
        if name.endswith(("rel_pos_h", "rel_pos_w", "pos_embed")):  # zero at first, which would hide a mix-up
            torch.nn.init.normal_(value, std=0.5)
    return made.eval()


def save(path: Path, seed: int = 0) -> Path:
    """A checkpoint as Meta saves it."""
    torch.save(build(seed).state_dict(), path)
    return path
