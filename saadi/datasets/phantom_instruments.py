"""Instruments of the phantom: a shaft from the image border and one of seven tips, lit like metal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saadi.datasets.phantom_light import linear
from saadi.datasets.phantom_textures import Grid

TIP_SHAPES: tuple[str, ...] = ("grasper", "dissector", "hook", "scissors", "clipper", "bipolar", "suction")
SHAFT_STYLES: tuple[str, ...] = ("black", "steel", "white", "graphite")

_SHAFT_COLORS = {"black": (46, 47, 52), "steel": (168, 172, 178), "white": (222, 220, 212), "graphite": (92, 96, 104)}
_METALS = {"steel": (176, 180, 186), "dark": (58, 58, 62), "ivory": (214, 200, 168), "hole": (44, 34, 34)}


@dataclass(frozen=True)
class Instrument:
    """One instrument in image coordinates (frame widths).

    Attributes:
        shape: One of TIP_SHAPES.
        style: One of SHAFT_STYLES.
        joint: Where the shaft ends and the tip begins, (x, y).
        angle: Direction from shaft to tip in radians, 0 = right, pi/2 = down.
        radius: Of the shaft at the joint.
        opening: Angle of each jaw to the axis in radians.
        flip: 1 or -1, which side a hook or a curved jaw points to.
        brightness: 1 = metal at the distance of the organs, more = nearer.
    """

    shape: str
    style: str
    joint: tuple[float, float]
    angle: float
    radius: float
    opening: float
    flip: int
    brightness: float


@dataclass(frozen=True)
class _Rod:
    """A tapered round piece; lengths in shaft radii, s along the axis from the joint, t across."""

    s0: float
    t0: float
    r0: float
    s1: float
    t1: float
    r1: float
    metal: str = "steel"


@dataclass
class Paint:
    """An instrument drawn on the image grid: masks (H, W) 0..1 and colour (H, W, 3) linear."""

    cover: np.ndarray
    color: np.ndarray
    is_shaft: np.ndarray
    is_tip: np.ndarray


def tip_length(shape: str) -> float:
    """Return how far the working end reaches beyond the joint, in shaft radii."""
    return {"grasper": 4.6, "dissector": 4.6, "hook": 4.2, "scissors": 4.4, "clipper": 4.4, "bipolar": 4.4, "suction": 4.0}[shape]


def _jaw(
    instrument: Instrument, side: int, *, length: float, wide: float, narrow: float, curve: float = 0.0, metal: str = "steel"
) -> list[_Rod]:
    """Return one jaw as three rods that bend by `curve` radians each; side is 1 or -1."""
    heading, s, t, rods = side * instrument.opening, 1.0, side * 0.35, []
    for part in range(3):
        s1, t1 = s + length / 3 * np.cos(heading), t + length / 3 * np.sin(heading)
        rods.append(_Rod(s, t, wide + (narrow - wide) * part / 3, s1, t1, wide + (narrow - wide) * (part + 1) / 3, metal))
        s, t, heading = s1, t1, heading + curve
    return rods


def _rods(instrument: Instrument) -> list[_Rod]:
    """Return the pieces of the tip in painting order."""
    collar = [_Rod(-0.1, 0, 0.98, 0.5, 0, 0.94), _Rod(0.5, 0, 0.80, 1.3, 0, 0.62, "steel")]
    flip = instrument.flip
    match instrument.shape:
        case "grasper":
            jaws = [_jaw(instrument, side, length=3.4, wide=0.56, narrow=0.42) for side in (-1, 1)]
            slots = [_Rod(jaw[0].s1, jaw[0].t1, 0.2, jaw[2].s0, jaw[2].t0, 0.18, "hole") for jaw in jaws]
            return [*collar, *jaws[0], *jaws[1], *slots]
        case "dissector":
            return [
                *collar,
                *_jaw(instrument, -1, length=3.6, wide=0.52, narrow=0.16, curve=0.24 * flip),
                *_jaw(instrument, 1, length=3.6, wide=0.52, narrow=0.16, curve=0.24 * flip),
            ]
        case "scissors":
            return [
                *collar,
                *_jaw(instrument, 1, length=3.4, wide=0.60, narrow=0.10, curve=0.10 * flip),
                *_jaw(instrument, -1, length=3.4, wide=0.60, narrow=0.10, curve=0.10 * flip),
                _Rod(1.1, 0, 0.26, 1.15, 0, 0.26, "dark"),
            ]
        case "clipper":
            arms = [_Rod(0.9, side * 0.5, 0.46, 2.2, side * 0.85, 0.40) for side in (-1, 1)]
            ends = [_Rod(2.2, side * 0.85, 0.42, 4.1, side * 0.62, 0.34) for side in (-1, 1)]
            return [
                *collar,
                *arms,
                *ends,
                _Rod(2.4, 0.42, 0.12, 3.9, 0.25, 0.12, "ivory"),
                _Rod(2.4, -0.42, 0.12, 3.9, -0.25, 0.12, "ivory"),
            ]
        case "bipolar":
            jaws = [_jaw(instrument, side, length=3.1, wide=0.50, narrow=0.38) for side in (-1, 1)]
            return [_Rod(-0.1, 0, 0.96, 1.1, 0, 0.86, "dark"), *jaws[0], *jaws[1]]
        case "hook":
            return [
                _Rod(-0.1, 0, 0.94, 1.4, 0, 0.62, "ivory"),
                _Rod(1.3, 0, 0.34, 3.5, 0, 0.30),
                _Rod(3.5, 0, 0.32, 4.0, 0.45 * flip, 0.30),
                _Rod(4.0, 0.45 * flip, 0.30, 3.9, 1.5 * flip, 0.22),
            ]
        case _:
            holes = [_Rod(s, 0.25 * flip, 0.16, s + 0.12, 0.25 * flip, 0.16, "hole") for s in (2.0, 2.7, 3.4)]
            return [_Rod(-0.1, 0, 0.80, 4.0, 0, 0.74), *holes]


def _metal(across: np.ndarray, color: tuple[float, float, float], streak: float) -> np.ndarray:
    """Return the look of a round bar, (n, 3) linear; `across` runs from -1 to 1, the lamp mirrors at `streak`."""
    round_off = np.sqrt(np.clip(1 - across * across, 0, 1))
    base = linear(*color)
    sharp = np.exp(-(((across - np.float32(streak)) / 0.13) ** 2))
    broad = np.exp(-(((across - np.float32(streak)) / 0.42) ** 2))
    warm = np.clip(np.abs(across) - 0.55, 0, 1) * 0.5  # red light from the organs on both flanks
    shine = 0.30 + 0.9 * float(base.mean())
    body = base * (0.16 + 0.55 * round_off + 0.45 * broad)[..., None]
    return body + (shine * sharp)[..., None] + warm[..., None] * base.mean() * np.array([0.55, 0.16, 0.12], np.float32)


def paint_instrument(instrument: Instrument, view: Grid) -> Paint:
    """Return the instrument as seen on the image grid."""
    radius = np.float32(instrument.radius)
    dx, dy = (view.x - np.float32(instrument.joint[0])) / radius, (view.y - np.float32(instrument.joint[1])) / radius
    c, s = np.float32(np.cos(instrument.angle)), np.float32(np.sin(instrument.angle))
    along, across = c * dx + s * dy, c * dy - s * dx
    step = np.float32(view.step) / radius
    # The lamp is above the image centre: its streak lies on the side that looks there.
    to_center = c * (0.5 - instrument.joint[1]) - s * (0.5 - instrument.joint[0])
    streak = float(np.clip(1.6 * to_center, -0.45, 0.45))

    width = 1 + np.clip(-along, 0, 40) * np.float32(0.022)  # nearer to the lens towards the border
    inside = np.minimum(width - np.abs(across), -along)
    shaft = np.clip(inside / step + 0.5, 0, 1)
    color = _metal(np.clip(across / width, -1, 1), _SHAFT_COLORS[instrument.style], streak)
    ring = np.exp(-(((along + 1.3) / 0.22) ** 2)) + 0.6 * np.exp(-(((along + 6.5) / 0.16) ** 2))
    color = color * (1 - 0.6 * ring[..., None]) * (1 + 0.03 * np.clip(-along, 0, 14))[..., None]

    tip = np.zeros_like(shaft)
    near = _window(instrument, view.x.shape[0])
    for rod in _rods(instrument):
        cover, rod_color = _paint_rod(rod, along[near], across[near], step, streak)
        opacity = np.where(cover > 0, np.maximum(cover, np.maximum(tip, shaft)[near] <= 0), 0)
        color[near] += (rod_color - color[near]) * opacity[..., None]
        tip[near] = np.maximum(tip[near], cover)
    is_tip = tip > 0.5
    cover = np.maximum(shaft, tip)
    return Paint(cover, (color * np.float32(instrument.brightness)).astype(np.float32), (shaft > 0.5) & ~is_tip, is_tip)


def _window(instrument: Instrument, size_px: int) -> tuple[slice, slice]:
    """Return rows and columns that hold the whole tip."""
    reach = instrument.radius * (tip_length(instrument.shape) + 1.5)
    low = [int(np.clip(np.floor((center - reach) * size_px), 0, size_px)) for center in instrument.joint]
    high = [int(np.clip(np.ceil((center + reach) * size_px), 0, size_px)) for center in instrument.joint]
    return slice(low[1], high[1]), slice(low[0], high[0])


def _paint_rod(
    rod: _Rod, along: np.ndarray, across: np.ndarray, step: np.float32, streak: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return cover (H, W) and colour (H, W, 3) of one piece of a tip."""
    ds, dt = rod.s1 - rod.s0, rod.t1 - rod.t0
    length = float(np.hypot(ds, dt)) + 1e-6
    where = np.clip(((along - np.float32(rod.s0)) * ds + (across - np.float32(rod.t0)) * dt) / np.float32(length**2), 0, 1)
    off_s, off_t = along - (rod.s0 + ds * where), across - (rod.t0 + dt * where)
    thickness = rod.r0 + (rod.r1 - rod.r0) * where
    cover = np.clip((thickness - np.hypot(off_s, off_t)) / step + 0.5, 0, 1).astype(np.float32)
    sideways = (off_t * ds - off_s * dt) / (length * thickness)
    if rod.metal == "hole":
        return cover, np.broadcast_to(linear(*_METALS["hole"]), (*cover.shape, 3))
    return cover, _metal(np.clip(sideways, -1, 1).astype(np.float32), _METALS[rod.metal], streak)
