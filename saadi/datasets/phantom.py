"""Phantom laparoscopic cholecystectomy: rendered pictures with a perfect label map, and no patient behind them.

A patient number fixes anatomy, colours, lamp and lens; a seed fixes the frame: camera pose, phase, instruments, smoke,
bleeding. Everything drawn is in `Scene.parameters`. How it looks is made in `phantom_organs` (surfaces),
`phantom_instruments`, `phantom_light` (lamp, lens, sensor) and `phantom_textures` (noise).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from saadi.datasets import phantom_organs as organs
from saadi.datasets.phantom_instruments import SHAFT_STYLES, Instrument, paint_instrument, tip_length
from saadi.datasets.phantom_light import Canvas, add_smoke, blend, expose, record, smoothstep
from saadi.datasets.phantom_textures import Grid, Sampler, purpose_rng

CLASS_NAMES: tuple[str, ...] = ("tissue", "liver", "gallbladder", "fat", "shaft", "tip", "bleeding")
CLASS_COLORS: tuple[str, ...] = (
    "#000000",
    "#d55e00",
    "#009e73",
    "#f0e442",
    "#56b4e9",
    "#0072b2",
    "#cc79a7",
)  # Okabe and Ito 2008
PHASES: tuple[str, ...] = ("preparation", "dissection", "clipping", "extraction")

TISSUE, LIVER, GALLBLADDER, FAT, SHAFT, TIP, BLEEDING = range(7)

_PHASE_SHARES = (0.24, 0.36, 0.20, 0.20)
_BLEEDING_CHANCE = {"preparation": 0.03, "dissection": 0.16, "clipping": 0.12, "extraction": 0.18}
_SMOKE_CHANCE = {"preparation": 0.02, "dissection": 0.22, "clipping": 0.05, "extraction": 0.10}
_WORKING_TIPS = {
    "preparation": (("grasper", 0.7), ("dissector", 0.3)),
    "dissection": (("hook", 0.6), ("dissector", 0.2), ("bipolar", 0.2)),
    "clipping": (("clipper", 0.65), ("scissors", 0.35)),
    "extraction": (("grasper", 0.5), ("suction", 0.3), ("bipolar", 0.2)),
}


@dataclass(frozen=True)
class Scene:
    """One rendered frame.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        label_map: (H, W) uint8, index into CLASS_NAMES.
        patient_id: The group the frame belongs to, "phantom-007".
        phase: One of PHASES.
        is_bleeding: Whether blood is to be seen, that is, whether the label map has any.
        parameters: JSON-serialisable record of everything drawn.
    """

    image: np.ndarray
    label_map: np.ndarray
    patient_id: str
    phase: str
    is_bleeding: bool
    parameters: dict[str, object]


@dataclass(frozen=True)
class _Optics:
    """Lamp, lens and camera of one patient. Lengths in frame widths."""

    roll: float  # radians
    zoom: float  # > 1 shows more
    mirror: bool
    light_center: tuple[float, float]
    falloff: float
    depth_darkening: float
    gain: float
    white_balance: tuple[float, float, float]
    border_radius: float  # 0 = no round border
    wetness: float
    noise: float  # grey levels


@dataclass(frozen=True)
class _Frame:
    """What one seed draws for a patient. Lengths in frame widths."""

    phase: str
    state: organs.State
    roll: float  # radians, on top of the patient's
    zoom: float
    pan: tuple[float, float]
    instruments: tuple[Instrument, ...]
    blood_spot: tuple[float, float] | None  # world coordinates
    blood_size: float
    smoke: float  # density, 0..1
    blur: float
    motion: tuple[float, float]
    gain: float


def render(seed: int, *, patient: int = 0, size_px: int = 256, organ_shift_px: tuple[int, int] = (0, 0)) -> Scene:
    """Return one frame, bit for bit the same for the same arguments.

    Args:
        seed: Fixes the frame: camera pose, phase, instruments, smoke, bleeding, noise; >= 0.
        patient: Fixes anatomy, colours, lamp and lens; >= 0.
        size_px: Edge of the square picture, 64 to 512; the content is the same at every size.
        organ_shift_px: (dx, dy) by which the gallbladder is displaced in the image only, while the label map keeps it
            where it was: a planted label error. The rest of the image stays as it is, away from both places.

    Raises:
        ValueError: A negative seed or patient, or a size outside 64..512.
    """
    if seed < 0 or patient < 0:
        raise ValueError(f"seed is {seed}, patient is {patient}; both must be 0 or more")
    if not 64 <= size_px <= 512:
        raise ValueError(f"size_px is {size_px}; choose 64 to 512")
    anatomy, optics = organs.draw_anatomy(patient), _draw_optics(patient)
    frame = _draw_frame(seed, patient, anatomy, optics)
    view = Grid.of_image(size_px)
    shift = (organ_shift_px[0] / size_px, organ_shift_px[1] / size_px)
    lit, label_map = _paint_scene(view, anatomy, optics, frame, shift)
    image = _photograph(lit, view, optics, frame, purpose_rng("sensor", patient, seed))
    if optics.border_radius > 0:
        label_map[_opening(view, optics) < 0.5] = TISSUE
    parameters: dict[str, object] = {
        "seed": int(seed),
        "patient": int(patient),
        "size_px": int(size_px),
        "organ_shift_px": [int(v) for v in organ_shift_px],
        "anatomy": asdict(anatomy),
        "optics": asdict(optics),
        "frame": asdict(frame),
    }
    return Scene(image, label_map, f"phantom-{patient:03d}", frame.phase, bool((label_map == BLEEDING).any()), parameters)


def render_set(count: int, *, seed: int, num_patients: int, size_px: int = 256) -> Iterator[Scene]:
    """Yield `count` frames of patients 0 to `num_patients` - 1 in turn; item i does not depend on `count`.

    Args:
        count: Number of frames, >= 0.
        seed: Of the set, >= 0. Patients are the same in every set: split by `patient_id`, not by `seed`.
        num_patients: Number of groups, >= 1.
        size_px: Edge of the square pictures.
    """
    for index in range(count):
        frame_seed = int(purpose_rng("set", seed, index).integers(2**31))
        yield render(frame_seed, patient=index % num_patients, size_px=size_px)


def _draw_optics(patient: int) -> _Optics:
    rng = purpose_rng("optics", patient)
    return _Optics(
        roll=float(rng.uniform(-0.75, 0.75)),
        zoom=float(rng.uniform(0.88, 1.12)),
        mirror=bool(rng.random() < 0.5),
        light_center=(float(rng.uniform(0.40, 0.60)), float(rng.uniform(0.42, 0.60))),
        falloff=float(rng.uniform(1.4, 4.0)),
        depth_darkening=float(rng.uniform(0.5, 1.5)),
        gain=float(rng.uniform(0.72, 1.38)),
        white_balance=(float(rng.uniform(0.95, 1.08)), float(rng.uniform(0.84, 1.0)), float(rng.uniform(0.84, 1.15))),
        border_radius=float(rng.uniform(0.49, 0.60)) if rng.random() < 0.4 else 0.0,
        wetness=float(rng.uniform(0.5, 1.6)),
        noise=float(rng.uniform(1.0, 2.0)),
    )


def _draw_frame(seed: int, patient: int, anatomy: organs.Anatomy, optics: _Optics) -> _Frame:
    rng = purpose_rng("frame", patient, seed)
    phase = str(rng.choice(PHASES, p=_PHASE_SHARES))
    late = PHASES.index(phase) / 3
    state = organs.State(
        gallbladder_lift=float(rng.uniform(0.0, 0.07)),
        gallbladder_sway=float(
            rng.normal(0, 0.02) + (rng.choice((-1, 1)) * rng.uniform(0.08, 0.16) if phase == "extraction" else 0)
        ),
        gallbladder_turn=float(rng.normal(0, 0.10) + (rng.normal(0, 0.3) if phase == "extraction" else 0)),
        gallbladder_fill=float(rng.uniform(0.95, 1.05) - 0.16 * late),
        fat_cleared=float(np.clip(late + rng.normal(0, 0.1), 0, 1)),
        raw_bed={"preparation": 0.0, "dissection": 0.35, "clipping": 0.35, "extraction": 1.0}[phase],
    )
    roll, zoom = float(rng.normal(0, 0.05)), float(rng.uniform(0.94, 1.06))
    pan = (float(rng.normal(0, 0.03)), float(rng.normal(0, 0.03)))
    instruments = _draw_instruments(
        purpose_rng("instruments", patient, seed), phase, anatomy, state, _world_matrix(optics, roll, zoom, pan)
    )
    spot, size = _draw_bleeding(purpose_rng("bleeding", patient, seed), phase, anatomy, state)
    air = purpose_rng("air", patient, seed)
    return _Frame(
        phase,
        state,
        roll,
        zoom,
        pan,
        instruments,
        spot,
        size,
        smoke=float(air.uniform(0.10, 0.30)) if air.random() < _SMOKE_CHANCE[phase] else 0.0,
        blur=float(air.uniform(0.002, 0.005)) if air.random() < 0.06 else 0.0,
        motion=(float(air.normal(0, 0.008)), float(air.normal(0, 0.008))) if air.random() < 0.05 else (0.0, 0.0),
        gain=float(air.uniform(0.96, 1.04)),
    )


def _world_matrix(optics: _Optics, roll: float, zoom: float, pan: tuple[float, float]) -> np.ndarray:
    """Return the (2, 3) map from image to world coordinates."""
    angle, scale = optics.roll + roll, optics.zoom * zoom
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if optics.mirror:
        turn = turn @ np.diag([-1.0, 1.0])
    return np.column_stack([turn, 0.5 + np.array(pan) - turn @ [0.5, 0.5]])


def _draw_instruments(
    rng: np.random.Generator, phase: str, anatomy: organs.Anatomy, state: organs.State, to_world: np.ndarray
) -> tuple[Instrument, ...]:
    """Return up to three instruments that point at the gallbladder, the retracting grasper first."""
    line, _ = organs.gallbladder_axis(anatomy, state)
    on_image = np.linalg.solve(to_world[:, :2], (line - to_world[:, 2]).T).T
    num = int(rng.choice(4, p=(0.06, 0.44, 0.40, 0.10)))
    hand = 1 if purpose_rng("handedness", anatomy.texture_seed).random() < 0.5 else -1
    instruments = []
    for number in range(num):
        is_retractor = number == 1 or (number == 0 and num == 1 and rng.random() < 0.25)
        names, weights = zip(*_WORKING_TIPS[phase], strict=True)
        shape = "grasper" if is_retractor else str(rng.choice(names, p=weights)) if number == 0 else "suction"
        where = int(rng.integers(0, 4)) if is_retractor else int(rng.integers(7, 13))
        target = np.clip(on_image[where] + rng.normal(0, 0.03 if is_retractor else 0.06, 2), 0.2, 0.8)
        # Working hand from one lower side, retractor from the other, a third from below.
        side = np.pi if (hand > 0) == is_retractor else 0.0
        entry = side + rng.uniform(-0.55, 0.75) * (-1 if side else 1) if number < 2 else rng.uniform(0.3, 0.7) * np.pi
        start = np.array([0.5 + 0.85 * np.cos(entry), 0.5 + 0.85 * np.sin(entry)])
        radius = float(rng.uniform(0.036, 0.050))
        angle = float(np.arctan2(*(target - start)[::-1]))
        joint = target - tip_length(shape) * radius * 0.8 * np.array([np.cos(angle), np.sin(angle)])
        style = (
            "black"
            if shape in ("hook", "bipolar") and rng.random() < 0.7
            else str(rng.choice(SHAFT_STYLES, p=(0.45, 0.3, 0.1, 0.15)))
        )
        opening = float(rng.uniform(0.05, 0.15) if is_retractor or rng.random() < 0.4 else rng.uniform(0.25, 0.5))
        instruments.append(
            Instrument(
                shape,
                style,
                (float(joint[0]), float(joint[1])),
                angle,
                radius,
                opening,
                int(rng.choice((-1, 1))),
                float(rng.uniform(0.75, 1.15)),
            )
        )
    return tuple(instruments[::-1])


def _draw_bleeding(
    rng: np.random.Generator, phase: str, anatomy: organs.Anatomy, state: organs.State
) -> tuple[tuple[float, float] | None, float]:
    """Return where it bleeds (world coordinates, None in most frames) and how large the pool is."""
    happens, where = rng.random() < _BLEEDING_CHANCE[phase], int(rng.integers(3, 12))
    size, offset = float(rng.uniform(0.032, 0.066)), rng.normal(0, 1, 2)
    if not happens:
        return None, 0.0
    line, radius = organs.gallbladder_axis(anatomy, state)
    spot = line[where] + np.array([np.sign(offset[0]) * radius[where], 0.02 * offset[1]])
    return (float(spot[0]), float(spot[1])), size


def _paint_scene(
    view: Grid, anatomy: organs.Anatomy, optics: _Optics, frame: _Frame, shift: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lit scene, (H, W, 3) linear, and its label map; `shift` moves the painted gallbladder only."""
    matrix, owner = _world_matrix(optics, frame.roll, frame.zoom, frame.pan), anatomy.texture_seed
    world = view.mapped(matrix)
    texture = Sampler(world, owner)
    label_map = np.full(view.x.shape, TISSUE, np.uint8)
    ground, depth = organs.background(anatomy, world, texture)
    canvas = Canvas(ground, view.step)
    # Organs from back to front; what is pulled about takes its texture along.
    liver = organs.liver(anatomy, frame.state, world, texture)
    liver_mask = canvas.lay(liver)
    label_map[liver_mask] = LIVER
    body = organs.gallbladder_grid(frame.state, world)
    true_gallbladder = organs.gallbladder(anatomy, frame.state, world, Sampler(body, owner))
    label_map[true_gallbladder.inside > 0] = GALLBLADDER
    if shift == (0.0, 0.0):
        canvas.lay(true_gallbladder)
    else:
        moved = view.moved(*shift).mapped(matrix)
        canvas.lay(organs.gallbladder(anatomy, frame.state, moved, Sampler(organs.gallbladder_grid(frame.state, moved), owner)))
    fat = organs.fat(anatomy, frame.state, world, texture)
    label_map[canvas.lay(fat)] = FAT
    if frame.blood_spot is not None:
        label_map[canvas.lay(organs.blood(frame.blood_spot, frame.blood_size, world, texture))] = BLEEDING
    depth = depth * (1 - smoothstep(-0.01, 0.03, np.maximum(liver.inside, fat.inside)))
    # Instruments throw their shadow on the organs before anything is lit.
    paints = [paint_instrument(instrument, view) for instrument in frame.instruments]
    for paint in paints:
        canvas.cast_shadow(paint.cover, strength=0.5, reach=0.03, offset=(0.022, 0.030))
    wetness = (texture("waves", "wetness", period=0.6) + np.float32(0.2)) * np.float32(optics.wetness)
    lit = canvas.light(
        view,
        center=optics.light_center,
        falloff=optics.falloff,
        depth=depth * np.float32(optics.depth_darkening),
        wetness=wetness,
    )
    for paint in paints:
        lit = blend(lit, paint.color, paint.cover)
        label_map[paint.is_shaft], label_map[paint.is_tip] = SHAFT, TIP
    if frame.smoke > 0:
        lit = add_smoke(lit, frame.smoke, Sampler(view, int(frame.smoke * 1e6)))
    return lit, label_map


def _opening(view: Grid, optics: _Optics) -> np.ndarray:
    """Return the round opening of the endoscope, (H, W) 0..1."""
    distance = np.hypot(view.x - np.float32(0.5), view.y - np.float32(0.5))
    return np.clip((np.float32(optics.border_radius) - distance) / np.float32(max(0.008, view.step)) + 0.5, 0, 1)


def _photograph(lit: np.ndarray, view: Grid, optics: _Optics, frame: _Frame, rng: np.random.Generator) -> np.ndarray:
    """Return what the camera makes of the lit scene, (H, W, 3) uint8."""
    picture = expose(lit, gain=optics.gain * frame.gain, white_balance=optics.white_balance, step=view.step)
    border = _opening(view, optics) if optics.border_radius > 0 else None
    return record(picture, noise=optics.noise, blur=frame.blur, motion=frame.motion, border=border, step=view.step, rng=rng)
