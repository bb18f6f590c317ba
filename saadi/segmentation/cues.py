"""What speaks for and against each pixel in a box: colours, texture and place, as columns of numbers.

The surroundings of the box are a sample of what the object is not; what looks unlike them, or cannot be reached from them
without crossing an edge, is likely the object (geodesic saliency: Wei et al., ECCV 2012, section 3). Once there is a first
estimate, its surest part is a sample of what the object is.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from saadi.records import Image
from saadi.segmentation.base import Box, Mask

LONG_SIDE_PX = 128
"""Of the crop in which pixels are judged; 160 px gave the same IoU in 1.5 times the time."""
MARGIN = 0.25
"""Surroundings that are looked at, as a share of the box's longer side; at least `MIN_MARGIN_PX`."""
MIN_MARGIN_PX = 10
OPEN_SIDE_PX = 4
"""A box that comes this near to the image's border is taken to reach it: beyond there is no background to see."""
NUM_SAMPLES = 256
PLACE_WEIGHT = 5.0
"""One box side counts as much as a colour distance of 50 levels."""
BROAD_PX = 3.0
"""Blur under which texture is judged."""
CORE = 0.6
"""Share of the estimated area that is taken for surely the object."""
REACH_ROUNDS = 4
STEP = 0.05
"""What a pixel of way costs beside its colour step (10 levels = 1)."""
GREY_CHROMA = 14.0
"""Lab chroma below which a pixel looks like metal rather than tissue."""
FIRST = ("unlike", "unlike_here", "unlike_fine", "reach_fine", "reach_broad", "reach_fine_share", "reach_broad_share",
         "unlike_share", "depth_x", "depth_y", "depth_xy", "off_middle", "depth")  # fmt: skip
AGAIN = ("like", "unlike_now", "like_here", "unlike_here_now", "odds_broad", "odds_here", "odds_fine", "before", "before_near",
         "before_wide", "foreign_metal", "foreign_tissue", "own_metal", "off_median", "off_median_share",
         "off_median_log")  # fmt: skip
"""Names of the columns; `AGAIN` is followed by those of `FIRST`."""


@dataclass(frozen=True)
class Window:
    """The crop around a box at working size, with what was measured once."""

    origin: tuple[int, int, int, int]
    """(x0, y0, x1, y1) of the crop in the image."""
    box: Box
    """In pixels of the crop at working size."""
    is_open: tuple[bool, bool, bool, bool]
    """Left, top, right, bottom: does the object go on beyond the image?"""
    fine: NDArray[np.float32]
    """(h, w, 3): Lab, lightness halved, highlights painted over."""
    colour: NDArray[np.float32]
    """(h, w, 7): fine and broad Lab and roughness, on one scale."""
    inside: Mask
    """(h, w)."""
    surroundings: NDArray[np.intp]
    """Flat indices of pixels that are surely not the object."""

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the crop per pixel of the image, in x and y."""
        x0, y0, x1, y1 = self.origin
        height, width = self.inside.shape
        return width / (x1 - x0), height / (y1 - y0)

    def at(self, point: tuple[float, float]) -> tuple[float, float]:
        """A point of the image in pixels of the crop."""
        return (point[0] - self.origin[0]) * self.scale[0], (point[1] - self.origin[1]) * self.scale[1]


def look(image: Image, box: Box) -> Window:
    """Cut out a box with its surroundings and measure colours there.

    Args:
        image: (H, W, 3) uint8 RGB.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box
    margin = max(MIN_MARGIN_PX, MARGIN * max(x1 - x0, y1 - y0))
    left, top = int(max(0, x0 - margin)), int(max(0, y0 - margin))
    right, bottom = int(min(width, np.ceil(x1 + margin))), int(min(height, np.ceil(y1 + margin)))
    crop = image[top:bottom, left:right]
    if (factor := LONG_SIDE_PX / max(crop.shape[:2])) < 1:
        crop = cv2.resize(crop, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    h, w = crop.shape[:2]
    scale_x, scale_y = w / (right - left), h / (bottom - top)
    small = ((x0 - left) * scale_x, (y0 - top) * scale_y, (x1 - left) * scale_x, (y1 - top) * scale_y)
    is_open = (x0 <= OPEN_SIDE_PX, y0 <= OPEN_SIDE_PX, x1 >= width - OPEN_SIDE_PX, y1 >= height - OPEN_SIDE_PX)
    depth = _depths((h, w), small, is_open).min(-1)
    surroundings = np.flatnonzero(depth < -1)  # one pixel of grace: boxes are drawn by hand
    if len(surroundings) < 20:  # the box is all there is: its rim must do
        surroundings = np.flatnonzero(_depths((h, w), small, (False,) * 4).min(-1) < 2)
    fine, colour = _colours(np.ascontiguousarray(crop))
    return Window((left, top, right, bottom), small, is_open, fine, colour, np.asarray(depth > 0), surroundings)


def first(window: Window) -> NDArray[np.float32]:
    """(n, len(FIRST)): cues of the pixels inside the box, by what they have not in common with the surroundings."""
    inside, colour = np.flatnonzero(window.inside), window.colour.reshape(-1, 7)
    place = _place(window)
    around = sample(window.surroundings)
    unlike = nearest(colour[around], colour[inside])
    unlike_here = nearest(np.hstack([colour, place])[around], np.hstack([colour, place])[inside])
    unlike_fine = nearest(colour[around, :3], colour[inside, :3])
    outside = ~window.inside if not window.inside.all() else _mark(window.surroundings, window.inside.shape)
    reach_fine = reach(window.colour[..., :3], outside).ravel()[inside]
    reach_broad = reach(window.colour[..., 3:6], outside).ravel()[inside]
    depths = _depths(window.inside.shape, window.box, window.is_open).reshape(-1, 4)[inside]
    x0, y0, x1, y1 = window.box
    depth_x = np.minimum(np.minimum(depths[:, 0], depths[:, 2]) / (x1 - x0), 0.5)
    depth_y = np.minimum(np.minimum(depths[:, 1], depths[:, 3]) / (y1 - y0), 0.5)
    return np.stack([
        unlike, unlike_here, unlike_fine, reach_fine, reach_broad, _share(reach_fine), _share(reach_broad), _share(unlike),
        depth_x, depth_y, depth_x * depth_y, np.hypot(1 - 2 * depth_x, 1 - 2 * depth_y), np.minimum(depth_x, depth_y),
    ], -1).astype(np.float32)  # fmt: skip


def again(window: Window, estimate: NDArray[np.float32], once: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, len(AGAIN) + len(FIRST)): cues in the light of a first estimate.

    Args:
        estimate: (h, w) probability of the object, 0 outside the box.
        once: What `first` gave.
    """
    inside, colour = np.flatnonzero(window.inside), window.colour.reshape(-1, 7)
    near = cv2.GaussianBlur(estimate, (0, 0), 1.5).ravel()
    by_trust = inside[np.argsort(-near[inside], kind="stable")]
    core = by_trust[: max(30, int(CORE * near[inside].sum()))]
    not_it = np.concatenate([window.surroundings, inside[near[inside] < 0.25]])
    joint = np.hstack([colour, _place(window) * 0.7])  # the object's place is known by now; looks count more
    it, other = sample(core), sample(not_it)
    like, unlike = nearest(colour[it], colour[inside]), nearest(colour[other], colour[inside])
    like_here, unlike_here = nearest(joint[it], joint[inside]), nearest(joint[other], joint[inside])
    like_fine, unlike_fine = nearest(colour[it, :3], colour[inside, :3]), nearest(colour[other, :3], colour[inside, :3])
    before = [_odds(blurred.ravel()[inside]) for blurred in
              (estimate, cv2.GaussianBlur(estimate, (0, 0), 2), cv2.GaussianBlur(estimate, (0, 0), 5))]
    # Metal is grey, tissue is not: of a grasper on an organ, one is foreign, whichever is wanted.
    lab = window.fine.reshape(-1, 3)
    metal = np.exp(-((np.hypot(lab[:, 1] - 128, lab[:, 2] - 128) / GREY_CHROMA) ** 2))
    share = float(metal[core].mean())
    median = np.median(lab[core], axis=0)
    spread = float(np.abs(lab[core] - median).mean()) + 1
    off = np.linalg.norm(lab[inside] - median, axis=1) / 10
    columns = [
        like, unlike, like_here, unlike_here, _ratio(like, unlike), _ratio(like_here, unlike_here),
        _ratio(like_fine, unlike_fine), *before, metal[inside] * (1 - share), (1 - metal[inside]) * share,
        metal[inside] * share, off, np.minimum(off, 4) * 10 / spread, np.log(off + 0.1),
    ]  # fmt: skip
    return np.hstack([np.stack(columns, -1), once]).astype(np.float32)


def _colours(crop: Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fine Lab, and everything by which looks are compared; small highlights say nothing about what they lie on."""
    hsv = cv2.cvtColor(crop, cv2.COLOR_RGB2HSV)
    bright = ((hsv[..., 2] > 200) & (hsv[..., 1] < 90)).astype(np.uint8)
    large = cv2.morphologyEx(bright, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7)))
    if (glints := bright & ~large).any():
        crop = cv2.inpaint(crop, cv2.dilate(glints, np.ones((3, 3), np.uint8)), 2, cv2.INPAINT_TELEA)
    lab = cv2.cvtColor(crop, cv2.COLOR_RGB2LAB)
    weights = np.array([0.5, 1, 1], np.float32)  # a lamp changes lightness most
    fine = cv2.medianBlur(lab, 5).astype(np.float32) * weights
    raw = lab.astype(np.float32) * weights
    broad = cv2.GaussianBlur(raw, (0, 0), BROAD_PX)
    variance = cv2.GaussianBlur(raw[..., 0] ** 2, (0, 0), BROAD_PX) - broad[..., 0] ** 2
    rough = np.sqrt(np.maximum(0, variance))
    return fine, np.concatenate([fine / 10, broad / 10, rough[..., None] / 4], -1).astype(np.float32)


def _depths(size: tuple[int, int], box: Box, is_open: tuple[bool, bool, bool, bool]) -> NDArray[np.float32]:
    """(h, w, 4): how far a pixel lies inside the box from each side; without end where the box is open."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32) + np.float32(0.5)
    depths = np.stack([x - box[0], y - box[1], box[2] - x, box[3] - y], -1)
    depths[..., list(is_open)] = 1e6
    return depths


def _place(window: Window) -> NDArray[np.float32]:
    y, x = np.mgrid[: window.inside.shape[0], : window.inside.shape[1]].astype(np.float32)
    x0, y0, x1, y1 = window.box
    side = max(8.0, float(np.sqrt((x1 - x0) * (y1 - y0))))
    return np.stack([x, y], -1).reshape(-1, 2) * np.float32(PLACE_WEIGHT / side)


def _mark(indices: NDArray[np.intp], shape: tuple[int, ...]) -> Mask:
    marked = np.zeros(shape, bool)
    marked.flat[indices] = True
    return marked


def sample(indices: NDArray[np.intp]) -> NDArray[np.intp]:
    """At most `NUM_SAMPLES` of them, evenly spread, the same every time."""
    if len(indices) <= NUM_SAMPLES:
        return indices
    return indices[np.linspace(0, len(indices) - 1, NUM_SAMPLES).astype(np.intp)]


def nearest(samples: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,): distance of each query to the nearest sample."""
    # |q - s|^2 = q^2 + (s^2 - 2 q s): the bracket is one matrix product, and q^2 need not wait for the minimum.
    bracket = np.hstack([queries, np.ones((len(queries), 1), np.float32)]) @ np.hstack(
        [-2 * samples, (samples**2).sum(1, keepdims=True)]).T
    return np.asarray(np.sqrt(np.maximum(0, bracket.min(1) + (queries**2).sum(1))), np.float32)


def reach(colour: NDArray[np.float32], start: Mask, *, without_noise: bool = False) -> NDArray[np.float32]:
    """(h, w): length of the shortest way from `start` by colour steps, plus a little for each pixel; by scans to and fro.

    Raster scans of a chamfer distance (Toivanen 1996): four rounds are exact but for the most winding ways.

    Args:
        without_noise: Steps count only as far as they exceed the median step, so that a long way over one surface stays short.
    """
    h, w = start.shape
    distance = np.where(start, 0, 1e6).astype(np.float32)
    down, across = (np.linalg.norm(np.diff(colour, axis=axis), axis=-1) for axis in (0, 1))
    floor = np.median(np.concatenate([down.ravel(), across.ravel()])) if without_noise else 0
    down, across = (np.maximum(0, steps - floor).astype(np.float32) + np.float32(STEP) for steps in (down, across))
    for _ in range(REACH_ROUNDS):
        for y in range(1, h):
            np.minimum(distance[y], distance[y - 1] + down[y - 1], out=distance[y])
        for x in range(1, w):
            np.minimum(distance[:, x], distance[:, x - 1] + across[:, x - 1], out=distance[:, x])
        for y in range(h - 2, -1, -1):
            np.minimum(distance[y], distance[y + 1] + down[y], out=distance[y])
        for x in range(w - 2, -1, -1):
            np.minimum(distance[:, x], distance[:, x + 1] + across[:, x], out=distance[:, x])
    return distance


def _share(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(values / (values.max() + 1e-6), np.float32)


def _ratio(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.log(one + 0.1) - np.log(other + 0.1), np.float32)


def _odds(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    kept = np.clip(probability, 0, 1)
    return np.asarray(np.log(kept + 1e-3) - np.log(1 - kept + 1e-3), np.float32)
