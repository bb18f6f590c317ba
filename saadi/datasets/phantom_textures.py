"""Tileable noise for the phantom: waves, folds, lobules, vessels, sampled at any size without aliasing.

The tiles are the same in every process (fixed seed); patients differ in where, how large and at which angle they are cut.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from scipy.spatial import cKDTree

TILE_PX = 512  # edge of a tile; one tile covers `period` frame widths
_MARGIN_PX = 3  # around every tile, copied from the opposite side, for bicubic sampling
_TILE_SEED = 20251
_CELLS_PER_EDGE = 12  # lobules along one edge of the "cells" tile


def purpose_rng(purpose: str, *keys: int) -> np.random.Generator:
    """Return a generator that belongs to one purpose, so that a draw added elsewhere does not change it."""
    return np.random.default_rng(np.random.SeedSequence([zlib.crc32(purpose.encode()), *keys]))


@dataclass(frozen=True)
class Grid:
    """Where the pixel centres lie.

    Attributes:
        x: (H, W) float32, to the right, in frame widths.
        y: (H, W) float32, downwards, in frame widths.
        step: Distance between neighbouring pixels in frame widths, > 0.
    """

    x: np.ndarray
    y: np.ndarray
    step: float

    @classmethod
    def of_image(cls, size_px: int) -> Grid:
        """Return the grid of a square image: (0, 0) is the top left corner, (1, 1) the bottom right one."""
        line = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px
        return cls(*np.meshgrid(line, line), step=1.0 / size_px)

    def moved(self, dx: float, dy: float) -> Grid:
        """Return the grid seen by something that has moved by (dx, dy) frame widths."""
        return replace(self, x=self.x - np.float32(dx), y=self.y - np.float32(dy))

    def mapped(self, matrix: np.ndarray) -> Grid:
        """Return the grid after a similarity transform, a (2, 3) float matrix."""
        m = matrix.astype(np.float32)
        x, y = m[0, 0] * self.x + m[0, 1] * self.y + m[0, 2], m[1, 0] * self.x + m[1, 1] * self.y + m[1, 2]
        return Grid(x, y, self.step * float(np.hypot(m[0, 0], m[1, 0])))


class Sampler:
    """Cuts textures for one owner: the same key gives the same texture in every frame and at every size."""

    def __init__(self, grid: Grid, owner: int) -> None:
        """Sample at `grid`; `owner` is the seed of the textures, >= 0."""
        self.grid = grid
        self._owner = owner

    def __call__(self, tile: str, key: str, *, period: float, warp: np.ndarray | None = None, stretch: float = 1.0) -> np.ndarray:
        """Return a texture, (H, W) float32: zero mean, unit variance for noise; 0..1 for cells and vessels.

        Args:
            tile: "waves", "rough", "fine", "cells", "tones" or "vessels".
            key: Name of the texture; fixes the cut-out. Keys that differ only after a ":" share it.
            period: Length that one tile covers, in frame widths.
            warp: (H, W) displacement in frame widths, or None.
            stretch: > 1 draws the texture out along one direction.
        """
        rng = purpose_rng(key.split(":")[0], self._owner)
        angle, ox, oy = rng.uniform(0, 2 * np.pi), *rng.uniform(0, 1, 2)
        x, y = (self.grid.x, self.grid.y) if warp is None else (self.grid.x + warp, self.grid.y - warp)
        c, s = np.float32(np.cos(angle) / period), np.float32(np.sin(angle) / period)
        u = (c * x - s * y) / np.float32(stretch) + np.float32(ox)
        v = s * x + c * y + np.float32(oy)
        level = int(np.clip(np.floor(np.log2(max(TILE_PX * self.grid.step / period, 1.0)) + 0.5), 0, 5))
        pixels = tile_pyramids()[tile][level]
        edge, first = np.float32(pixels.shape[0] - 2 * _MARGIN_PX), np.float32(_MARGIN_PX - 0.5)
        return cv2.remap(pixels, (u - np.floor(u)) * edge + first, (v - np.floor(v)) * edge + first, cv2.INTER_CUBIC)


@lru_cache(maxsize=1)
def tile_pyramids() -> dict[str, list[np.ndarray]]:
    """Return every tile with its halved copies, (n, n) float32 each plus a margin; made once per process in under a second."""
    tone, height = _cells(purpose_rng("cells", _TILE_SEED))
    tiles = {
        "waves": _noise(purpose_rng("waves", _TILE_SEED), low=2.0, high=7.0, slope=1.0),
        "rough": _noise(purpose_rng("rough", _TILE_SEED), low=3.0, high=90.0, slope=1.9),
        "fine": _noise(purpose_rng("fine", _TILE_SEED), low=24.0, high=70.0, slope=0.6),
        "cells": height,
        "tones": tone,
        "vessels": _vessels(purpose_rng("vessels", _TILE_SEED)),
    }
    return {name: _pyramid(tile) for name, tile in tiles.items()}


def _pyramid(tile: np.ndarray) -> list[np.ndarray]:
    levels = [tile]
    for _ in range(5):
        levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    # cv2.remap does not wrap reliably; a margin from the other side does.
    return [np.pad(level, _MARGIN_PX, mode="wrap") for level in levels]


def _blur_wrapped(tile: np.ndarray, sigma_px: float) -> np.ndarray:
    """Return a blurred copy that still tiles."""
    padded = np.pad(tile, 16, mode="wrap").astype(np.float32)
    return np.ascontiguousarray(cv2.GaussianBlur(padded, (0, 0), sigma_px)[16:-16, 16:-16])


def _noise(rng: np.random.Generator, *, low: float, high: float, slope: float) -> np.ndarray:
    """Return filtered noise; `low` and `high` bound the band in cycles per tile, amplitude falls as frequency ** -slope."""
    cycles = np.fft.fftfreq(TILE_PX, 1 / TILE_PX)
    radius = np.maximum(np.hypot(cycles[:, None], cycles[None, :]), 1e-6)
    gain = radius**-slope * np.exp(-((radius / high) ** 2)) * (1 - np.exp(-((radius / low) ** 4)))
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((TILE_PX, TILE_PX))) * gain).real
    return np.clip((noise - noise.mean()) / noise.std(), -3, 3).astype(np.float32)


def _cells(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return tone (one random value in 0..1 per cell) and height (0 in the furrows, 1 on top) of a Worley pattern."""
    corners = np.stack(np.meshgrid(np.arange(_CELLS_PER_EDGE), np.arange(_CELLS_PER_EDGE)), axis=-1).reshape(-1, 2)
    points = (corners + rng.uniform(0.08, 0.92, corners.shape)) / _CELLS_PER_EDGE
    line = (np.arange(TILE_PX) + 0.5) / TILE_PX
    pixels = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    distance, index = cKDTree(points, boxsize=1.0).query(pixels, k=2)
    furrow = np.clip((distance[:, 1] - distance[:, 0]) * _CELLS_PER_EDGE, 0, 1)
    height = np.sqrt(1 - (1 - furrow) ** 2).reshape(TILE_PX, TILE_PX).astype(np.float32)
    tone = rng.uniform(0, 1, len(points))[index[:, 0]].reshape(TILE_PX, TILE_PX).astype(np.float32)
    return _blur_wrapped(tone, 2.0), _blur_wrapped(height, 1.5)


def _vessels(rng: np.random.Generator) -> np.ndarray:
    """Return branching vessels, 0..1, drawn four times too large so that thin twigs come out faint."""
    edge_px = 2 * TILE_PX
    canvas = np.zeros((edge_px, edge_px), np.uint8)

    def draw(path: np.ndarray, width: float) -> None:
        for shift in np.stack(np.meshgrid((-1, 0, 1), (-1, 0, 1)), axis=-1).reshape(-1, 2):
            points = np.round((path + shift) * edge_px * 16).astype(np.int32)
            cv2.polylines(canvas, [points], False, int(110 + 145 * min(width / 5, 1)), max(1, round(width)), cv2.LINE_AA, shift=4)

    for _ in range(9):
        _grow_vessel(rng, draw, start=rng.uniform(0, 1, 2), angle=rng.uniform(0, 2 * np.pi), width=rng.uniform(4.5, 8), depth=0)
    small = cv2.resize(canvas, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)
    return _blur_wrapped(small.astype(np.float32) / 255, 0.8)


def _grow_vessel(
    rng: np.random.Generator,
    draw: Callable[[np.ndarray, float], None],
    *,
    start: np.ndarray,
    angle: float,
    width: float,
    depth: int,
) -> None:
    """Let one vessel wander on from `start` and send out thinner branches, three generations deep."""
    num_steps = int(rng.integers(16, 30))
    bend = rng.normal(0, 0.05)
    path = [start]
    for step in range(num_steps):
        angle += bend + rng.normal(0, 0.22)
        path.append(path[-1] + 0.016 * np.array([np.cos(angle), np.sin(angle)]))
        if depth < 3 and step > 1 and rng.random() < 0.13:
            side = rng.choice((-1, 1)) * rng.uniform(0.35, 0.9)
            _grow_vessel(rng, draw, start=path[-1], angle=angle + side, width=width * rng.uniform(0.5, 0.75), depth=depth + 1)
    for part in range(3):  # thinner towards its end
        draw(np.array(path[part * num_steps // 3 : (part + 1) * num_steps // 3 + 1]), width * (1 - 0.22 * part))
