"""Draws label maps: which anatomy, in which pose, with which contour - three levels of chance, each on a seed."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saadi import devices, poses
from saadi.engines import samplers, weights
from saadi.errors import BadInputError
from saadi.mask_generator import distances
from saadi.mask_generator.anatomy import Anatomy, is_copy
from saadi.mask_generator.network import MaskDenoiser, wish
from saadi.masks import fit_to
from saadi.records import LabelMap

NUM_STEPS = 16
MAX_TRIES = 12
"""Drawings per label map that is asked for, before the one with the fewest faults is given up."""
AREA_JITTER = 0.35
"""Standard deviation of the logarithm of the size asked of each class, around that of the label map drawn from."""
STRENGTHS = (0.3, 0.75)
"""Range of contour strengths when none is asked for: how much of the pose is noise again (1 = all)."""


@dataclass(frozen=True)
class Suggestion:
    """A label map that no real image has, and where it comes from."""

    label_map: LabelMap
    seed: int
    base: int
    """Index of the label map that it was drawn from, among those the model holds; -1 = the one that was given."""
    strength: float
    tries: int
    """Drawings that it took, 1 or more."""


class MaskGenerator:
    """A fitted denoiser, the anatomy it keeps to, and the label maps it has learnt from.

    Needs: label maps of one project. Makes: label maps of its classes, at any size. Pose and contour are drawn anew each time; no
    image is looked at.
    """

    def __init__(
        self, architecture: dict[str, Any], state: dict[str, Tensor] | None = None, *, real: Sequence[LabelMap] = (),
        device: torch.device | None = None,
    ) -> None:  # fmt: skip
        self.architecture = dict(architecture)
        self.num_classes: int = architecture["num_classes"]
        self.grid: int = architecture["grid"]
        self.device = device or devices.device()
        self.denoiser = MaskDenoiser(num_classes=self.num_classes, patch=architecture["patch"], widths=architecture["widths"])
        if state is not None:
            weights.load_state(self.denoiser, state)
        devices.placed(self.denoiser, self.device).eval()
        self.anatomy = Anatomy.from_json(architecture["anatomy"]) if "anatomy" in architecture else None
        self.real = list(real)
        self._fast: MaskDenoiser | None = None

    @classmethod
    def from_file(cls, architecture: dict[str, Any], file: Path, *, real: Sequence[LabelMap]) -> MaskGenerator:
        """Raises: WeightsError: the file is damaged or belongs to another architecture."""
        return cls(architecture, weights.read(file), real=real)

    def suggest(
        self, count: int, *, seed: int, side: int, start: LabelMap | None = None, strength: float | None = None,
        classes: Iterable[int] = (),
    ) -> list[Suggestion]:  # fmt: skip
        """New label maps, each on a seed of its own: `seed`, `seed` + 1, ... Equal seeds give equal label maps.

        Args:
            side: Of the label maps in pixels.
            start: Vary this one; None = each from another real one.
            strength: 0-1, how much of its pose is drawn anew; None = by chance within `STRENGTHS`.
            classes: Must occur.

        Raises:
            BadInputError: Nothing to draw from, a class that no real label map holds, or nothing that passes the anatomy.
        """
        wanted = tuple(sorted(set(classes)))
        self._check(start, strength, wanted)
        return [self._one(seed + place, side, start, strength, wanted) for place in range(count)]

    def _check(self, start: LabelMap | None, strength: float | None, classes: Sequence[int]) -> None:
        assert self.anatomy is not None, "fitted"
        if strength is not None and not 0 <= strength <= 1:
            raise BadInputError(f"a strength lies between 0 and 1, got {strength:g}; 0 keeps the pose, 1 draws everything anew")
        if start is None and not self.real:
            raise BadInputError("there is no real mask to draw from; give one to vary")
        if unknown := [index for index in classes if index not in self.anatomy.areas]:
            raise BadInputError(f"no real mask holds class {unknown[0]}, so none can be drawn with it; draw it by hand first")
        if start is not None and not self.anatomy_of(start):
            raise BadInputError("the mask to vary is empty; draw something in it first, or ask for new masks")

    def anatomy_of(self, label_map: LabelMap) -> list[int]:
        """Classes that it holds, background left out."""
        assert self.anatomy is not None
        return [index for index in self.anatomy.areas if (label_map == index).any()]

    def _one(self, seed: int, side: int, start: LabelMap | None, strength: float | None, classes: Sequence[int]) -> Suggestion:
        assert self.anatomy is not None
        reasons: Counter[str] = Counter()
        accepted = set(self.anatomy.faults(start)) if start is not None else set()  # whoever drew it so wants it so
        for attempt in range(MAX_TRIES):
            draw = np.random.default_rng([seed, attempt])
            base = -1 if start is not None else self._base(draw, classes)
            original = start if start is not None else self.real[base]
            chosen = float(draw.uniform(*STRENGTHS)) if strength is None else strength
            drawn = self.anatomy.tidied(self._drawn(original, chosen, draw, side, moves=start is None))
            faults = [fault for fault in self.anatomy.faults(drawn) if fault not in accepted]
            faults += [f"class {index} is missing" for index in classes if not (drawn == index).any()]
            if not faults and chosen > 0 and is_copy(drawn, self.real if start is None else [start]):
                faults = ["it is a real mask again" if start is None else "it is the same mask again"]
            if not faults:
                return Suggestion(drawn, seed, base, chosen, attempt + 1)
            reasons.update(faults)
        commonest = reasons.most_common(1)[0][0]
        raise BadInputError(f"none of {MAX_TRIES} masks drawn passes what real masks have in common (mostly: {commonest}); try "
                            "another seed, another strength, or add real masks like the one you want")  # fmt: skip

    def _base(self, draw: np.random.Generator, classes: Sequence[int]) -> int:
        """Level one, which anatomy: a real label map that holds what is asked for, where there is one."""
        fitting = [index for index, real in enumerate(self.real) if all((real == wanted).any() for wanted in classes)]
        return int(draw.choice(fitting or len(self.real)))

    def _drawn(self, original: LabelMap, strength: float, draw: np.random.Generator, side: int, *, moves: bool) -> LabelMap:
        """Level two, the pose (of a real label map only), and level three, the contour, from noise of its own."""
        square = fit_to(original, size=(max(original.shape), max(original.shape)))
        posed = poses.warped(poses.moved(square, draw), draw) if moves else square
        known = distances.encode(posed, num_classes=self.num_classes, grid=self.grid)
        shares = [float((posed == index).mean() * np.exp(draw.normal(0, AREA_JITTER * strength)))
                  for index in range(1, self.num_classes)]  # fmt: skip
        noise = torch.Generator().manual_seed(int(draw.integers(2**62)))
        pictures = self._denoised(torch.from_numpy(known)[None], wish(shares), strength, noise) if strength > 0 else known
        return distances.decode(pictures, side=side, smooths=strength > 0)

    @torch.no_grad()
    def _denoised(self, known: Tensor, wanted: Sequence[float], strength: float, noise: torch.Generator) -> np.ndarray:
        """From the noise level `strength` down (SDEdit, Meng et al. 2022), with the sampler of the engines."""
        module = self._module()
        eps = torch.randn(known.shape, generator=noise)
        grid = samplers.time_grid(NUM_STEPS, shift=self.architecture["shift"])
        times = [strength, *(time for time in grid if time < strength)]
        noisy = ((1 - strength) * known + strength * eps).to(self.device)
        asked = torch.tensor([wanted], device=self.device)
        for time, following in pairwise(times):
            estimate = module(noisy, torch.full((1,), time, device=self.device), asked).clamp(-1, 1)
            noisy = estimate + (noisy - estimate) * (following / time)
        return noisy[0].cpu().numpy()

    def _module(self) -> MaskDenoiser:
        if self._fast is None:
            self._fast = devices.placed(copy.deepcopy(self.denoiser), self.device, dtype=devices.fast_dtype(self.device)).eval()
        return self._fast

    def weights_changed(self) -> None:
        """Forget the copy made for sampling; call after the denoiser was trained."""
        self._fast = None
