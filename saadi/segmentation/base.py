"""What a smart click asks for and what it gets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saadi.errors import BadInputError

Mask = NDArray[np.bool_]
Box = tuple[float, float, float, float]
Click = tuple[float, float, bool]
"""(x, y, is on the object)."""
MIN_BOX_PX = 3
MAX_CLICKS = 64


@dataclass(frozen=True)
class Prompt:
    """Clicks and a box on one image, in pixels of the original; the centre of the first pixel is (0.5, 0.5)."""

    clicks: tuple[Click, ...] = ()
    """In the order in which they were made."""
    box: Box | None = None
    """(x0, y0, x1, y1) around the object; exclusive at the far end."""

    @property
    def positive(self) -> list[tuple[float, float]]:
        """Points on the object."""
        return [(x, y) for x, y, is_on in self.clicks if is_on]

    @property
    def negative(self) -> list[tuple[float, float]]:
        """Points beside it."""
        return [(x, y) for x, y, is_on in self.clicks if not is_on]


@dataclass(frozen=True)
class Answer:
    """A mask and who made it."""

    mask: Mask
    """(H, W) bool at the size of the image."""
    score: float | None
    """The method's own guess of its IoU, 0-1; None where it makes none (GrabCut)."""
    method: str
    """'SAM (vit_b)' or 'GrabCut'."""
    why: str = ""
    """Why not SAM, as a sentence for the page; empty when SAM answered."""


def checked(prompt: Prompt, *, size: tuple[int, int]) -> Prompt:
    """Return the prompt with its box in order and cut to the image of (height, width).

    Raises:
        BadInputError: Nothing to go by, too many clicks, a click outside the image, or a box without area.
    """
    height, width = size
    if not prompt.positive and prompt.box is None:
        raise BadInputError("a smart click needs one click on the object or a box around it; click the object first")
    if len(prompt.clicks) > MAX_CLICKS:
        raise BadInputError(f"{len(prompt.clicks)} clicks, {MAX_CLICKS} is the limit; use the result and go on with the brush")
    if any(not (0 <= x < width and 0 <= y < height) for x, y, _ in prompt.clicks):
        raise BadInputError(f"a click lies outside the image of {width} x {height} pixels; click on the image")
    if prompt.box is None:
        return prompt
    (x0, x1), (y0, y1) = sorted(prompt.box[::2]), sorted(prompt.box[1::2])
    box = (max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1))
    if box[2] - box[0] < MIN_BOX_PX or box[3] - box[1] < MIN_BOX_PX:
        raise BadInputError(f"the box is smaller than {MIN_BOX_PX} pixels inside the image; drag it around the whole object")
    return Prompt(prompt.clicks, box)
