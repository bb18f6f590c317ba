"""Segment Anything is loaded from any checkpoint of its kind and asked as its authors ask it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from saadi.errors import WeightsError
from saadi.segmentation import sam
from saadi.segmentation.base import Prompt
from tests.segmentation import tiny_sam

CPU = torch.device("cpu")
IMAGE = np.random.default_rng(3).integers(0, 255, (30, 50, 3), dtype=np.uint8)


@pytest.fixture
def predictor(tmp_path: Path) -> sam.Predictor:
    return sam.load(tiny_sam.save(tmp_path / "tiny.pth"), CPU)


def test_all_sizes_are_read_from_the_checkpoint(predictor: sam.Predictor, tmp_path: Path):
    image = torch.rand(1, 3, tiny_sam.SIDE, tiny_sam.SIDE)
    original = tiny_sam.build()
    with torch.no_grad():
        torch.testing.assert_close(predictor.model.image_encoder(image), original.image_encoder(image))
    assert predictor.side == tiny_sam.SIDE and [block.window_size for block in predictor.model.image_encoder.blocks] == [3, 0]
    save_file(original.state_dict(), tmp_path / "tiny.safetensors")
    other = sam.load(tmp_path / "tiny.safetensors", CPU)
    assert (other.predict(other.embed(IMAGE), Prompt(((20, 10, True),))).mask
            == predictor.predict(predictor.embed(IMAGE), Prompt(((20, 10, True),))).mask).all()


def test_the_answer_is_that_of_the_authors_own_forward_pass(predictor: sam.Predictor):
    """Same preprocessing, same points, same masks as `Sam.forward`."""
    import cv2

    prompt = Prompt(((20.5, 10.5, True), (40.5, 25.5, False)), (8, 4, 45, 28))
    found = predictor.predict(predictor.embed(IMAGE), prompt)
    scale = tiny_sam.SIDE / 50
    resized = cv2.resize(IMAGE, (64, round(30 * scale)), interpolation=cv2.INTER_LINEAR)
    with torch.no_grad():
        theirs = tiny_sam.build()([{
            "image": torch.from_numpy(resized).permute(2, 0, 1), "original_size": (30, 50),
            "point_coords": torch.tensor([[(20.5, 10.5), (40.5, 25.5)]]) * scale - 0.5, "point_labels": torch.tensor([[1, 0]]),
            "boxes": torch.tensor([[8.0, 4, 45, 28]]) * scale - 0.5,
        }], multimask_output=False)[0]  # fmt: skip
    # bfloat16 on processors that have it moves single pixels
    assert found.mask.shape == (30, 50) and (found.mask == theirs["masks"][0, 0].numpy()).mean() > 0.97
    torch.testing.assert_close(found.logits, theirs["low_res_logits"], rtol=0.1, atol=0.1)


def test_every_part_of_a_prompt_counts(predictor: sam.Predictor):
    embedding = predictor.embed(IMAGE)
    one = predictor.predict(embedding, Prompt(((20, 10, True),)))
    logits = [one.logits] + [predictor.predict(embedding, prompt, before=before).logits for prompt, before in (
        (Prompt(((20, 10, False),), (5, 5, 30, 25)), None),
        (Prompt(((20, 10, True),), (5, 5, 30, 25)), None),
        (Prompt((), (5, 5, 30, 25)), None),
        (Prompt(((20, 10, True), (40, 20, False))), None),
        (Prompt(((20, 10, True), (40, 20, False))), one.logits),
    )]
    for index, first in enumerate(logits):
        assert not any(torch.allclose(first, other) for other in logits[index + 1 :])


@pytest.mark.parametrize(("content", "words"), [
    (b"not a checkpoint", "cannot be read as weights"),
    (None, "does not exist"),
    ("cut", "cannot be read as weights"),
    ("other", "weights of another model"),
    ("shapes", "weights of another model"),
    ("nan", "no numbers"),
    ("code", "cannot be read as weights"),
])  # fmt: skip
def test_a_wrong_file_is_refused_in_one_sentence(tmp_path: Path, content: object, words: str):
    path = tmp_path / "sam.pth"
    state = tiny_sam.build().state_dict()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "cut":
        tiny_sam.save(path)
        path.write_bytes(path.read_bytes()[:20_000])
    elif content == "other":
        torch.save(torch.nn.Linear(3, 3).state_dict(), path)
    elif content == "shapes":
        torch.save(state | {"mask_decoder.iou_token.weight": torch.zeros(1, 7)}, path)
    elif content == "nan":
        torch.save(state | {"mask_decoder.iou_token.weight": torch.full((1, 16), torch.nan)}, path)
    elif content == "code":
        torch.save({"model": Path("/")}, path)  # a pickle that builds an object of its own
    with pytest.raises(WeightsError, match=words) as refused:
        sam.load(path, CPU)
    assert "\n" not in str(refused.value)
