"""Light, lens and sensor of the phantom: from layers of surfaces to an 8-bit picture.

The only lamp sits at the camera, as in a laparoscope: what faces the lens is bright, what turns away is dark, and wet
ridges that face the lens clip to white.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from saadi.datasets.phantom_textures import Grid, Sampler

_GAMMA = 2.2
_CAMERA_HEIGHT = 0.75  # above the tissue, frame widths
_TONE_STEPS = 4096
_TONE_WHITE = 4.0  # linear brightness at the end of the tone curve


def linear(red: float, green: float, blue: float) -> np.ndarray:
    """Return a colour given as sRGB 0..255 as (3,) float32 linear 0..1."""
    return ((np.array([red, green, blue], np.float32) / 255) ** _GAMMA).astype(np.float32)


def blend(below: np.ndarray, above: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Return (H, W, 3): `above` where `amount` (H, W) is 1; either side may be a (3,) colour."""
    return below + (above - below) * amount[..., None]


def smoothstep(low: float, high: float, value: np.ndarray) -> np.ndarray:
    """Return 0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def soften(values: np.ndarray, radius: float, step: float) -> np.ndarray:
    """Return a blurred copy (two box filters); `radius` in frame widths."""
    width_px = max(1, round(radius / step)) | 1
    return cv2.blur(cv2.blur(values, (width_px, width_px)), (width_px, width_px))


@dataclass
class Surface:
    """One wet organ before it is lit.

    Attributes:
        inside: (H, W) signed distance to its outline in frame widths, > 0 inside.
        height: (H, W) height towards the camera in frame widths.
        albedo: (H, W, 3) linear reflectance, 0..1.
        gloss: Strength of the highlights, a number or (H, W).
        shadow: How dark a shadow it throws on what lies below, 0..1.
    """

    inside: np.ndarray
    height: np.ndarray
    albedo: np.ndarray
    gloss: np.ndarray | float = 1.0
    shadow: float = 0.6


class Canvas:
    """Layers of surfaces seen from the camera, each covering the former."""

    def __init__(self, ground: Surface, step: float) -> None:
        """Start from a surface that fills the view; `step` is the pixel distance in frame widths."""
        self.step = step
        self.albedo = ground.albedo
        self.slope_x, self.slope_y = _slopes(ground.height, step)
        self.gloss = np.broadcast_to(np.float32(ground.gloss), ground.inside.shape).copy()
        self.daylight = np.ones_like(ground.inside)

    def lay(self, surface: Surface) -> np.ndarray:
        """Put a surface on top and return its hard mask, (H, W) bool."""
        cover = np.clip(surface.inside / self.step + 0.5, 0, 1)
        self.cast_shadow(cover, strength=surface.shadow, reach=0.022)
        slope_x, slope_y = _slopes(surface.height, self.step)
        self.albedo = blend(self.albedo, surface.albedo, cover)
        self.slope_x += (slope_x - self.slope_x) * cover
        self.slope_y += (slope_y - self.slope_y) * cover
        self.gloss += (np.float32(surface.gloss) - self.gloss) * cover
        self.daylight += (1 - self.daylight) * cover
        return surface.inside > 0

    def cast_shadow(
        self, cover: np.ndarray, *, strength: float, reach: float, offset: tuple[float, float] = (0.0, 0.006)
    ) -> None:
        """Darken what lies around a cover (H, W) 0..1; `reach` and `offset` in frame widths."""
        moved = _move(cover, offset[0] / self.step, offset[1] / self.step)
        self.daylight = self.daylight * (1 - np.float32(strength) * soften(moved, reach, self.step))

    def light(
        self, view: Grid, *, center: tuple[float, float], falloff: float, depth: np.ndarray, wetness: np.ndarray
    ) -> np.ndarray:
        """Return the lit scene, (H, W, 3) linear.

        Args:
            view: Image coordinates.
            center: Where the lamp points, image coordinates.
            falloff: How fast the light fades towards the border.
            depth: (H, W), > 0 lies farther away and is darker.
            wetness: (H, W), about zero mean: where highlights are denser.
        """
        dx, dy = np.float32(center[0]) - view.x, np.float32(center[1]) - view.y
        squared = dx * dx + dy * dy
        to_camera = np.sqrt(squared + np.float32(_CAMERA_HEIGHT**2))
        facing = _facing(self.slope_x, self.slope_y, dx, dy, to_camera)
        # Light enters flesh and leaves it a little aside, so its shading is softer than its highlights.
        soft_x, soft_y = soften(self.slope_x, 0.010, self.step), soften(self.slope_y, 0.010, self.step)
        soft_facing = 0.65 * _facing(soft_x, soft_y, dx, dy, to_camera) + 0.35 * facing
        reach = self.daylight * np.exp(-depth) / (1 + np.float32(falloff) * squared)
        diffuse = (0.08 + 0.92 * soft_facing**1.5) * reach
        # Light that has wandered through flesh comes back red: the darker, the redder.
        dusk = 1 - np.sqrt(np.clip(diffuse, 0, 1))
        lit = self.albedo * diffuse[..., None] * (1 + dusk[..., None] * np.array([0.35, -0.12, -0.16], np.float32))
        sharpness = smoothstep(0.978, 1.0, facing + 0.004 * wetness)
        shine = self.gloss * reach * (0.055 * facing**10 + 1.7 * sharpness**8)
        return lit + shine[..., None] * np.array([1.0, 0.97, 0.96], np.float32)


def _move(picture: np.ndarray, dx_px: float, dy_px: float) -> np.ndarray:
    """Return a copy moved by a fraction of pixels; what comes in repeats the border."""
    shift = np.array([[1, 0, dx_px], [0, 1, dy_px]], np.float32)
    return cv2.warpAffine(picture, shift, (picture.shape[1], picture.shape[0]), borderMode=cv2.BORDER_REPLICATE)


def _facing(slope_x: np.ndarray, slope_y: np.ndarray, dx: np.ndarray, dy: np.ndarray, to_camera: np.ndarray) -> np.ndarray:
    """Return the cosine between surface normal and camera, 0..1."""
    steepness = np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    return np.clip((np.float32(_CAMERA_HEIGHT) - slope_x * dx - slope_y * dy) / (to_camera * steepness), 0, 1)


def _slopes(height: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    scale = 1 / (32 * step)
    return cv2.Scharr(height, cv2.CV_32F, 1, 0, scale=scale), cv2.Scharr(height, cv2.CV_32F, 0, 1, scale=scale)


def add_smoke(lit: np.ndarray, density: float, texture: Sampler) -> np.ndarray:
    """Return the scene behind surgical smoke; `density` 0..1."""
    cloud = 0.5 + 0.28 * texture("waves", "smoke", period=1.6) + 0.10 * texture("rough", "smoke wisps", period=1.4)
    return blend(lit, linear(188, 184, 186), np.clip(cloud, 0.1, 1) * np.float32(density))


def expose(lit: np.ndarray, *, gain: float, white_balance: tuple[float, float, float], step: float) -> np.ndarray:
    """Return (H, W, 3) float32 0..255 after bloom, white balance, tone curve and the camera's edge sharpening."""
    lit = lit * (np.array(white_balance, np.float32) * np.float32(gain))
    glare = np.clip(lit - 1.0, 0, 1.5)
    lit = lit + 0.35 * soften(glare, 0.012, step)
    index = np.clip(lit * (_TONE_STEPS / _TONE_WHITE), 0, _TONE_STEPS - 1).astype(np.uint16)
    picture = _tone_curve()[index]
    return picture + 0.20 * (picture - soften(picture, 0.006, step))


@lru_cache(maxsize=1)
def _tone_curve() -> np.ndarray:
    """Return sRGB 0..255 per linear step: straight up to 0.6, then a shoulder into white."""
    x = np.arange(_TONE_STEPS) * (_TONE_WHITE / _TONE_STEPS)
    shoulder = np.where(x < 0.6, x, 0.6 + 0.4 * (1 - np.exp(-(x - 0.6) / 0.4)))
    return (255 * shoulder ** (1 / _GAMMA)).astype(np.float32)


def record(
    picture: np.ndarray,
    *,
    noise: float,
    blur: float,
    motion: tuple[float, float],
    border: np.ndarray | None,
    step: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the picture as the sensor stores it, (H, W, 3) uint8.

    Args:
        picture: (H, W, 3) 0..255.
        noise: Standard deviation in grey levels.
        blur: Defocus, standard deviation in frame widths, 0 for none.
        motion: Camera movement during the exposure in frame widths, (0, 0) for none.
        border: (H, W) 0..1, the round opening of the endoscope, or None.
        step: Pixel distance in frame widths.
        rng: For the noise.
    """
    if blur > 0.2 * step:
        picture = cv2.GaussianBlur(picture, (0, 0), blur / step)
    if motion != (0.0, 0.0):
        picture = np.mean(
            [_move(picture, t * motion[0] / step, t * motion[1] / step) for t in (-0.5, -0.25, 0.0, 0.25, 0.5)], axis=0
        )
    if border is not None:
        picture = picture * border[..., None]
    grain = rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(noise)
    return np.clip(picture + grain + 0.5, 0, 255).astype(np.uint8)
