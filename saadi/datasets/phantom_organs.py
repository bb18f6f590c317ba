"""Organs of the phantom: liver, gallbladder, fat, bleeding and what lies behind, each as a surface ready to be lit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saadi.datasets.phantom_light import Surface, blend, linear, smoothstep
from saadi.datasets.phantom_textures import Grid, Sampler, purpose_rng

Color = tuple[float, float, float]  # sRGB 0..255
Point = tuple[float, float]  # world coordinates, frame widths

_TISSUE_COLORS: tuple[Color, ...] = ((206, 122, 114), (192, 92, 92), (212, 146, 132), (182, 98, 108), (200, 114, 96))
_LIVER_COLORS: tuple[Color, ...] = ((106, 44, 38), (120, 54, 44), (88, 35, 37), (134, 72, 54), (108, 50, 54))
_GALLBLADDER_COLORS: tuple[Color, ...] = (
    (206, 198, 140),
    (196, 196, 180),
    (164, 184, 146),
    (232, 204, 188),
    (222, 204, 136),
    (176, 180, 198),
)
_FAT_COLORS: tuple[Color, ...] = ((236, 182, 92), (240, 200, 128), (230, 160, 76), (236, 192, 106))
_VESSEL_RED = linear(150, 28, 34)


@dataclass(frozen=True)
class Anatomy:
    """What stays the same in all frames of one patient. Lengths in frame widths, colours sRGB 0..255."""

    texture_seed: int
    tissue_color: Color
    liver_color: Color
    gallbladder_color: Color
    fat_color: Color
    vessel_density: float  # 0..1, vessels on the peritoneum
    fold_strength: float  # 0..1
    liver_edge: float  # height of the liver edge in the middle of the view
    liver_slope: float
    liver_lobes: float  # how far the edge swings
    liver_nodules: float  # 0 smooth .. 1 knobbly
    gallbladder_x: float
    gallbladder_length: float
    gallbladder_radius: float
    gallbladder_lean: float  # radians, > 0 to the right
    fatness: float  # 0 lean .. 1 obese
    fat_side: float  # -1 or 1: where the omentum climbs
    bowel_loops: tuple[tuple[float, float, float, float], ...]  # x, y, radius, height


@dataclass(frozen=True)
class State:
    """What the operation has done to the anatomy by this frame. Lengths in frame widths."""

    gallbladder_lift: float  # pulled up over the liver
    gallbladder_sway: float  # moved aside
    gallbladder_turn: float  # radians
    gallbladder_fill: float  # 1 full .. 0.75 deflated
    fat_cleared: float  # 0 untouched .. 1 dissected away from the neck
    raw_bed: float  # 0 intact .. 1 gallbladder bed laid open


def draw_anatomy(patient: int) -> Anatomy:
    """Return the anatomy that belongs to a patient number, >= 0."""
    rng = purpose_rng("anatomy", patient)

    def pick(colors: tuple[Color, ...], spread: float) -> Color:
        red, green, blue = (
            np.clip(np.array(colors[rng.integers(len(colors))]) + rng.normal(0, spread, 3), 20, 245).round(1).tolist()
        )
        return red, green, blue

    loops = tuple(
        (
            float(rng.uniform(-0.1, 1.1)),
            float(rng.uniform(0.35, 1.15)),
            float(rng.uniform(0.22, 0.42)),
            float(rng.uniform(0.08, 0.18)),
        )
        for _ in range(int(rng.integers(4, 8)))
    )
    return Anatomy(
        texture_seed=int(rng.integers(2**31)),
        tissue_color=pick(_TISSUE_COLORS, 8),
        liver_color=pick(_LIVER_COLORS, 7),
        gallbladder_color=pick(_GALLBLADDER_COLORS, 8),
        fat_color=pick(_FAT_COLORS, 7),
        vessel_density=float(rng.uniform(0.35, 1.0)),
        fold_strength=float(rng.uniform(0.2, 1.0)),
        liver_edge=float(rng.uniform(0.30, 0.42)),
        liver_slope=float(rng.uniform(-0.35, 0.35)),
        liver_lobes=float(rng.uniform(0.01, 0.05)),
        liver_nodules=float(rng.uniform(0, 1) ** 3),
        gallbladder_x=float(rng.uniform(0.36, 0.64)),
        gallbladder_length=float(rng.uniform(0.34, 0.48)),
        gallbladder_radius=float(rng.uniform(0.100, 0.150)),
        gallbladder_lean=float(rng.uniform(-0.6, 0.6)),
        fatness=float(rng.uniform(0.1, 1.0)),
        fat_side=float(rng.choice((-1, 1))),
        bowel_loops=loops,
    )


def liver_edge_at(anatomy: Anatomy, x: np.ndarray | float) -> np.ndarray | float:
    """Return y of the lower liver edge at world x."""
    phase = anatomy.texture_seed % 628 / 100
    swing = np.sin(7.0 * x + phase) + 0.55 * np.sin(15.0 * x + 2.3 * phase) + 0.25 * np.sin(31.0 * x + 4.1 * phase)
    return anatomy.liver_edge + anatomy.liver_slope * (x - 0.5) - 0.25 * (x - 0.5) ** 2 + anatomy.liver_lobes * swing


def gallbladder_axis(anatomy: Anatomy, state: State) -> tuple[np.ndarray, np.ndarray]:
    """Return centre line (n, 2) and radius (n,) of the gallbladder from fundus to cystic duct, world coordinates."""
    t = 1 - (1 - np.linspace(0, 1, 18)) ** 1.6  # denser towards the thin duct
    fill, length = state.gallbladder_fill, anatomy.gallbladder_length
    lean = anatomy.gallbladder_lean + state.gallbladder_turn
    down = np.array([np.sin(lean), np.cos(lean)])
    across = np.array([down[1], -down[0]])
    fundus_x = anatomy.gallbladder_x + state.gallbladder_sway
    fundus = np.array([fundus_x, float(liver_edge_at(anatomy, fundus_x)) + 0.03 - state.gallbladder_lift])
    bend = 0.16 * length * np.sin(np.pi * t) * np.sign(anatomy.fat_side)
    line = fundus + t[:, None] * length * 1.15 * down + bend[:, None] * across
    body = 0.24 + 0.76 * np.clip(1 - ((t - 0.12) / 0.62) ** 2, 0, 1) ** 0.8  # pear: wide fundus, narrow neck, thin duct
    radius = anatomy.gallbladder_radius * fill * body * np.where(t > 0.74, 0.85, 1.0)
    return line, radius


def gallbladder_grid(state: State, world: Grid) -> Grid:
    """Return the grid that moves along with the gallbladder, for its textures."""
    return world.moved(state.gallbladder_sway, -state.gallbladder_lift)


def _profile(inside: np.ndarray, width: float, height: float) -> np.ndarray:
    """Return a rounded edge: 0 at the outline, `height` from `width` inwards."""
    rest = 1 - np.clip(inside / np.float32(width), 0, 1)
    return np.float32(height) * np.sqrt(1 - rest * rest * np.float32(0.995))


def background(anatomy: Anatomy, world: Grid, texture: Sampler) -> tuple[Surface, np.ndarray]:
    """Return peritoneum and bowel, filling the view, and their depth (H, W): 0 near .. about 1 far."""
    waves = texture("waves", "tissue relief", period=1.3)
    warp = 0.02 * waves
    height, tone = 0.012 * waves, np.zeros_like(waves)
    for number, (x, y, radius, rise) in enumerate(anatomy.bowel_loops):
        dx, dy = world.x - np.float32(x) + warp * 2, (world.y - np.float32(y)) * np.float32(1.25) - warp
        loop = np.float32(rise) * np.sqrt(np.clip(1 - (dx * dx + dy * dy) / np.float32(radius**2), 0, 1))
        tone = np.where(loop > height, np.float32(0.5 * np.sin(2.4 * number + 1)), tone)
        height = np.maximum(height, loop)
    folds = 1 - np.abs(texture("rough", "tissue folds", period=1.1, warp=warp, stretch=1.8))
    height = height + np.float32(0.010 * anatomy.fold_strength) * folds
    bumps = texture("rough", "tissue grain", period=0.35)
    vessels = texture("vessels", "tissue vessels", period=0.95, warp=0.5 * warp) + 0.6 * texture(
        "vessels", "tissue twigs", period=0.55, warp=warp
    )
    vessels = np.clip(vessels * np.float32(0.9 * anatomy.vessel_density), 0, 0.85)
    base = linear(*anatomy.tissue_color)
    albedo = blend(base, base * np.array([1.15, 1.35, 1.30], np.float32), np.clip(0.30 * waves + tone, 0, 1))
    albedo = blend(albedo, base * np.array([0.80, 0.55, 0.58], np.float32), np.clip(-0.30 * waves - tone + 0.10 * bumps, 0, 1))
    albedo = blend(albedo, _VESSEL_RED, vessels)
    depth = np.clip(0.85 - 7.0 * height, 0, 1)
    relief = height + 0.0016 * bumps + 0.003 * vessels
    return Surface(np.ones_like(height), relief, albedo, gloss=0.75), depth


def liver(anatomy: Anatomy, state: State, world: Grid, texture: Sampler) -> Surface:
    """Return the liver, which hangs into the view from above."""
    edge = liver_edge_at(anatomy, world.x) + 0.006 * texture("waves", "liver edge", period=0.5)
    inside = ((edge - world.y) / np.float32(np.hypot(1, anatomy.liver_slope))).astype(np.float32)
    waves, grain = texture("waves", "liver waves", period=1.1), texture("rough", "liver grain", period=0.30)
    nodules = texture("cells", "liver nodules", period=0.9, warp=0.01 * waves)
    height = _profile(inside, 0.075, 0.055) + 0.017 * waves + 0.0017 * grain + np.float32(0.006 * anatomy.liver_nodules) * nodules
    base = linear(*anatomy.liver_color)
    mottling = np.clip(
        0.5 + 0.25 * texture("rough", "liver mottling", period=0.6) + 0.12 * texture("fine", "liver acini", period=1.6), 0, 1
    )
    albedo = blend(base * np.array([0.85, 0.80, 0.80], np.float32), base * np.array([1.15, 1.28, 1.22], np.float32), mottling)
    albedo = blend(
        albedo, base * np.array([1.35, 1.5, 1.45], np.float32), 0.6 * (1 - smoothstep(0.0, 0.03, inside))
    )  # thin pale margin
    if state.raw_bed > 0:
        line, radius = gallbladder_axis(anatomy, State(0, 0, 0, 1, 0, 0))
        ragged = tube(world, line[:9], radius[:9] * 0.9) + 0.012 * texture("rough", "bed outline", period=0.4)
        bed = np.float32(0.85 * state.raw_bed) * smoothstep(0.0, 0.02, ragged)
        char = smoothstep(0.2, 1.2, texture("rough", "bed char", period=0.25))
        albedo = blend(albedo, blend(linear(150, 52, 40), linear(96, 62, 34), char), bed)
        height = height + 0.006 * bed * texture("rough", "bed relief", period=0.22)
    return Surface(inside, height, albedo.astype(np.float32), gloss=1.0, shadow=0.72)


def tube(world: Grid, line: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return the signed distance to discs along a line, > 0 inside, with the joints smoothed over."""
    sharpness = np.float32(90.0)
    total = np.zeros_like(world.x)
    for (x, y), r in zip(line.astype(np.float32), radius.astype(np.float32), strict=True):
        total += np.exp(sharpness * np.clip(r - np.hypot(world.x - x, world.y - y), -0.5, 0.5))
    return np.log(total) / sharpness - np.float32(0.008)


def gallbladder(anatomy: Anatomy, state: State, world: Grid, texture: Sampler) -> Surface:
    """Return the gallbladder with its neck and duct; `texture` must move along with it."""
    line, radius = gallbladder_axis(anatomy, state)
    waves = texture("waves", "gallbladder waves", period=0.8)
    inside = tube(world, line, radius) + 0.002 * waves
    thick = float(radius.max()) * 1.05
    height = _profile(inside, thick, 0.66 * thick) + 0.0022 * waves + 0.0009 * texture("rough", "gallbladder grain", period=0.22)
    base = linear(*anatomy.gallbladder_color)
    albedo = blend(base, base * np.array([1.30, 1.22, 1.05], np.float32), np.clip(0.45 * waves, 0, 1))
    albedo = blend(albedo, base * np.array([0.80, 0.74, 0.62], np.float32), np.clip(-0.35 * waves, 0, 1))
    fatty = smoothstep(0.7, 1.9, texture("rough", "gallbladder fat", period=0.6)) * np.float32(0.65 * anatomy.fatness)
    albedo = blend(albedo, linear(*anatomy.fat_color), fatty)
    vessels = texture("vessels", "gallbladder vessels", period=0.50, warp=0.02 * waves) + 0.5 * texture(
        "vessels", "gallbladder twigs", period=0.36, warp=0.01 * waves
    )
    height = height + 0.0015 * vessels
    albedo = blend(albedo, linear(164, 58, 54), np.clip(0.75 * vessels, 0, 0.65))
    # Towards its bed the serosa turns into the flesh it hangs from.
    flushed = 0.40 * (1 - smoothstep(0.0, 0.035, inside)) + 0.25 * smoothstep(
        0.3, 1.6, texture("waves", "gallbladder flush", period=0.7)
    )
    albedo = blend(albedo, linear(*anatomy.tissue_color) * np.array([0.9, 0.75, 0.7], np.float32), flushed)
    return Surface(inside, height, albedo, gloss=1.05, shadow=0.62)


def fat(anatomy: Anatomy, state: State, world: Grid, texture: Sampler) -> Surface:
    """Return omentum below and fat around the neck of the gallbladder."""
    line, _ = gallbladder_axis(anatomy, State(0, 0, 0, 1, 0, 0))
    waves = texture("waves", "fat waves", period=0.8)
    warp = 0.010 * texture("waves", "fat warp", period=0.9)
    large = texture("cells", "fat lobes", period=1.7, warp=2.0 * warp)
    small = texture("cells", "fat lobules", period=0.75, warp=warp)
    shore = 0.93 - 0.17 * anatomy.fatness - 0.42 * anatomy.fat_side * (world.x - 0.5)
    neck = line[12] + np.array([0.05 * anatomy.fat_side, 0.03])
    size = (0.10 + 0.08 * anatomy.fatness) * (1 - 0.45 * state.fat_cleared)
    collar = np.float32(size) - np.hypot((world.x - np.float32(neck[0])) * 0.8, world.y - np.float32(neck[1]))
    inside = np.maximum((world.y - shore) * 0.9, collar) + 0.022 * waves + 0.028 * (large - 0.6) + 0.012 * (small - 0.6)
    inside = inside.astype(np.float32)
    height = (
        _profile(inside, 0.05, 0.040)
        + 0.026 * large
        + 0.0075 * small
        + 0.008 * waves
        + 0.0007 * texture("rough", "fat grain", period=0.25)
    )
    base = linear(*anatomy.fat_color)
    albedo = blend(
        base * np.array([0.95, 0.80, 0.62], np.float32),
        base * np.array([1.04, 1.12, 1.25], np.float32),
        texture("tones", "fat lobules", period=0.75, warp=warp),
    )
    furrow = np.clip(1.1 - 1.3 * small, 0, 1) * 0.28 + np.clip(1 - 1.4 * large, 0, 1) * 0.40
    albedo = blend(albedo, base * np.array([0.78, 0.40, 0.22], np.float32), np.clip(furrow, 0, 1))
    albedo = blend(
        albedo,
        base * np.array([0.80, 0.40, 0.30], np.float32),
        0.40 * smoothstep(0.4, 2.0, texture("rough", "fat membranes", period=0.9)),
    )
    albedo = blend(albedo, linear(168, 44, 32), np.clip(0.55 * texture("vessels", "fat vessels", period=0.8, warp=warp), 0, 0.6))
    return Surface(inside, height, albedo.astype(np.float32), gloss=0.7, shadow=0.62)


def blood(spot: Point, size: float, world: Grid, texture: Sampler) -> Surface:
    """Return a pool around `spot` with a trickle downwards; `size` is its radius in frame widths."""
    rough = texture("rough", "blood outline", period=0.9)
    drops = np.array([[0, 0], [0.9, 0.15], [-0.8, 0.3], [0.1, 0.9], [-0.5, 0.9], [0.3, 1.7], [0.34, 2.3]]) * size + np.array(spot)
    inside = tube(world, drops, np.array([1.0, 0.6, 0.7, 0.7, 0.4, 0.40, 0.3]) * size) + np.float32(0.20 * size) * rough
    height = _profile(inside, 0.35 * size, 0.09 * size) + 0.006 * texture("waves", "blood waves", period=0.45) + 0.0010 * rough
    albedo = blend(linear(158, 8, 12), linear(114, 3, 7), smoothstep(0.0, 0.8 * size, inside) * (0.7 + 0.2 * np.tanh(rough)))
    return Surface(inside, height, albedo, gloss=1.7, shadow=0.25)
