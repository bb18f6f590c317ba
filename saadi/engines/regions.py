"""Parts of a picture that are made anew, and how their edge moves while they are made. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from saadi.masks import feathered, fit_image_to, fit_to
from saadi.records import IGNORE, Image, LabelMap

SEAM_PX = 8
"""Width of the seam around what is painted into a picture, as `saadi.inpainting.DILATE_PX`."""
RIM_PX = 2
"""Width over which the reach of a guide fades."""


@dataclass(frozen=True)
class Guide:
    """A region that begins wider than it ends: what is made may first settle with its surroundings, then those come back.

    The dynamic guiding mask of MedDiff-FT (arXiv:2507.00377), whose law is not published: here the reach falls evenly to nothing.
    Outside, the source is given back at the noise level of each step.
    """

    reach_px: int
    """How much farther than the region it reaches in the first step, in pixels of the made image; 0 = the region all along."""
    until: float = 0.6
    """Share of the steps (0-1) after which the region is exact; the last step always is."""

    def reach_at(self, step: int, num_steps: int) -> float:
        """In pixels, in a step of 0 .. num_steps - 1; never rises, 0 in the last one."""
        if step >= num_steps - 1:
            return 0.0
        return self.reach_px * max(0.0, 1 - step / max(1.0, self.until * num_steps))


@dataclass(frozen=True)
class Region:
    """What is made anew of a picture; all else stays."""

    source: Image
    """(resolution, resolution, 3) uint8."""
    weight: NDArray[np.float32]
    """(resolution, resolution), share of the new picture, 0-1: where it is 0 the source is kept, bit for bit."""
    guide: Guide | None = None
    """None = the same region in every step."""

    def weights(self, num_steps: int) -> NDArray[np.float32]:
        """(num_steps, resolution, resolution) share of the new picture in each step; the last one is `weight`."""
        if self.guide is None or self.guide.reach_px == 0:
            return np.broadcast_to(self.weight, (num_steps, *self.weight.shape))
        outside = (self.weight <= 0).astype(np.uint8)
        away = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) if not outside.all() else np.inf
        reach = np.array([self.guide.reach_at(step, num_steps) for step in range(num_steps)], np.float32)[:, None, None]
        wider = np.clip((reach + RIM_PX - away) / RIM_PX, 0, 1) * (reach > 0)
        return np.maximum(self.weight, wider).astype(np.float32)


def named_region(label_map: LabelMap, picture: Image, *, side: int, shown: LabelMap | None = None) -> Region:
    """All that a label map names, to be painted into a picture; background and unknown pixels (255) stay, but for the seam.

    The same rule in fitting, sampling and alignment, so that a model is asked for what it has learnt.

    Args:
        shown: What the picture shows, where the label map may say otherwise: what was erased is painted over, too. None = nothing
            but what the label map names.
    """
    fitted = fit_to(label_map, size=(side, side))
    is_painted = fitted != 0
    if shown is not None:
        is_painted |= fit_to(shown, size=(side, side)) != fitted
    return Region(fit_image_to(picture, side=side), feathered(is_painted & (fitted != IGNORE), width_px=SEAM_PX))


def pasted(image: Image, region: Region) -> Image:
    """The image with everything outside the region taken from the source, bit for bit: float arithmetic promises none."""
    return np.where(region.weight[..., None] > 0, image, region.source)
