"""Does synthetic data make a segmenter of real images better? Arms with equal training budgets on patients nobody has seen.

For each number of real images and each seed everything is learnt from those images alone: generator (from the shipped weights),
selectors, judge, alignment. Masks for synthetic images are moved, turned and scaled versions of the real ones.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import cv2
import numpy as np
import structlog
import torch
from monai.metrics import compute_hausdorff_distance
from numpy.typing import NDArray

from saadi import devices
from saadi.alignment.gate import Gate, metrics_of
from saadi.alignment.recipe import align
from saadi.alignment.trainer import AlignmentConfig, TrainingPair
from saadi.downstream.metrics import agreement, mean_over_asked
from saadi.downstream.segmenter import Segmenter, default_architecture
from saadi.downstream.training import ScorerConfig, train
from saadi.engines import weights
from saadi.engines.compact import CompactEngine
from saadi.engines.compact import default_architecture as engine_architecture
from saadi.engines.fitting import FitConfig, TrainingSet, borrow_shipped, fit
from saadi.errors import AlignmentStoppedError, TooFewError
from saadi.evidence.intervals import mean_with_interval
from saadi.evidence.stages import Arrays, Stage, Stages
from saadi.jobs import silent
from saadi.preferences import MIN_MARGIN
from saadi.records import IGNORE, Image, LabelMap

log = structlog.get_logger()
GATE_MASKS = 32
FOLDS = 2


@dataclass(frozen=True)
class Example:
    """A real image with its label map."""

    image: Image
    """(side, side, 3) uint8."""
    label_map: LabelMap
    """(side, side) uint8."""
    group: str
    """Patient, video or operation."""


@dataclass(frozen=True)
class Case:
    """A data set: training and test patients are disjoint."""

    name: str
    class_names: tuple[str, ...]
    train: tuple[Example, ...]
    test: tuple[Example, ...]

    def __post_init__(self) -> None:
        shared = {example.group for example in self.train} & {example.group for example in self.test}
        if shared:
            raise ValueError(f"{len(shared)} patients are in training and test, for example {min(shared)!r}")


@dataclass(frozen=True)
class Settings:
    """Budgets of one cell (number of real images, seed); equal for all its arms."""

    fit_steps: int = 600
    scorer_steps: int = 400
    downstream_steps: int = 600
    candidates: int = 4
    pool_masks: int = 64
    align_steps: int = 150
    rounds: int = 2
    shares: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Synthetic images per real one."""
    learning_rate: float = 1e-4
    """Of the alignment."""


@dataclass(frozen=True)
class Models:
    """Architectures, as `saadi.engines.compact` and `saadi.downstream.segmenter` take them."""

    generator: dict[str, Any]
    selector: dict[str, Any]
    """Also that of the segmenters that the arms train."""
    judge: dict[str, Any]
    starts_from: Literal["shipped", "random"] = "shipped"
    """Weights that the generator's fit starts from. The shipped ones have seen thousands of phantom scenes: on phantom data only
    'random' is honest."""

    @classmethod
    def default(cls, *, num_classes: int, side: int, starts_from: Literal["shipped", "random"] = "shipped") -> Self:
        selector, judge = (default_architecture(kind, num_classes=num_classes) for kind in ("selector", "judge"))
        return cls(engine_architecture(num_classes=num_classes, resolution=side), selector, judge, starts_from)


@dataclass
class Cell:
    """Everything for one number of real images and one seed, stage by stage."""

    case: Case
    num_real: int
    seed: int
    settings: Settings
    models: Models
    stages: Stages

    def __post_init__(self) -> None:
        self.real = choose_real(self.case.train, self.num_real, seed=self.seed)
        self.num_classes = len(self.case.class_names)
        self.side = self.real[0].image.shape[0]
        pixels = hashlib.sha256(b"".join(part.tobytes() for one in self.real for part in (one.image, one.label_map)))
        self.base = {"case": self.case.name, "seed": self.seed, "real": pixels.hexdigest(), "models": asdict(self.models)}

    # ---- models

    def generator(self) -> Stage:
        """The shipped generator, fitted to the real images of this cell."""

        def make() -> Arrays:
            torch.manual_seed(self.seed)
            engine = CompactEngine(self.models.generator)
            if self.models.starts_from == "shipped":
                borrow_shipped(engine)
            data = TrainingSet([e.image for e in self.real], [e.label_map for e in self.real], engine=engine)
            fit(engine, data, FitConfig(num_steps=self.settings.fit_steps, sample_every=0, seed=self.seed), silent)
            return _to_arrays(engine.denoiser.state_dict())

        return self.stages.get("generator", self.base | {"steps": self.settings.fit_steps}, make)

    def engine(self) -> CompactEngine:
        return CompactEngine(self.models.generator, _to_tensors(self.generator().arrays))

    def scorer(self, name: str) -> Segmenter:
        """'judge': all real images; 'fold 0', 'fold 1': selectors that have not seen the images of that fold."""
        architecture = self.models.judge if name == "judge" else self.models.selector

        def make() -> Arrays:
            seen = [e for index, e in enumerate(self.real) if name == "judge" or self.fold(index) != int(name.split()[1])]
            config = ScorerConfig(num_steps=self.settings.scorer_steps, seed=self.seed * 10 + len(name))
            return _to_arrays(
                train([e.image for e in seen], [e.label_map for e in seen], architecture=architecture, config=config,
                      report=silent).network.state_dict())  # fmt: skip

        stage = self.stages.get("scorer", self.base | {"name": name, "steps": self.settings.scorer_steps}, make)
        return Segmenter(architecture, _to_tensors(stage.arrays))

    def fold(self, index: int) -> int:
        """Patients, not images, are dealt out."""
        groups = sorted({example.group for example in self.real})
        return groups.index(self.real[index].group) % FOLDS if len(groups) >= FOLDS else index % FOLDS

    # ---- masks and images

    def masks(self, count: int, *, first: int) -> list[tuple[LabelMap, int]]:
        """Moved versions of the real label maps, each with the index of the real image that it comes from."""
        found = []
        for number in range(first, first + count):
            draw = np.random.default_rng([self.seed, number])
            index = number % len(self.real)
            found.append((moved(self.real[index].label_map, draw), index))
        return found

    def images(self, version: int, masks: Sequence[tuple[LabelMap, int]], seeds: Sequence[int]) -> list[Image]:
        """Images of the base generator (0) or of an aligned version (1, 2, ...)."""
        adapter = self._adapter_file(version)
        return self.engine().generate([label_map for label_map, _ in masks], seeds, adapter=adapter)

    def _adapter_file(self, version: int) -> Path | None:
        if version == 0:
            return None
        stage = self.round(version)
        if "refused" in stage.arrays:
            return self._adapter_file(version - 1)
        path = self.stages.folder / f"{stage.key}.safetensors"
        if not path.exists():
            path.write_bytes(weights.to_bytes(_to_tensors(_only_adapter(stage.arrays))))
        return path

    def dice(self, images: Sequence[Image], masks: Sequence[tuple[LabelMap, int]]) -> NDArray[np.float64]:
        """Mean Dice over the asked classes, by the selector that has not seen the mask's image."""
        found = np.zeros(len(images))
        for fold in range(FOLDS):
            chosen = [index for index, (_, source) in enumerate(masks) if self.fold(source) == fold]
            for index, prediction in zip(chosen, self.scorer(f"fold {fold}").predict([images[i] for i in chosen]), strict=True):
                asked = masks[index][0]
                found[index] = mean_over_asked(agreement(prediction.label_map, asked, num_classes=self.num_classes), asked)
        return found

    # ---- alignment

    def pool(self, version: int) -> tuple[list[tuple[LabelMap, int]], list[list[Image]], NDArray[np.float64]]:
        """Masks, K images of each, and their scores."""
        settings = self.settings
        originals = [(example.label_map, index) for index, example in enumerate(self.real)][: settings.pool_masks // 2]
        masks = originals + self.masks(settings.pool_masks - len(originals), first=10_000 * (version + 1))

        def make() -> Arrays:
            many = [mask for mask in masks for _ in range(settings.candidates)]
            made = self.images(version, many, [self.seed * 1_000_000 + version * 100_000 + i for i in range(len(many))])
            return {"images": np.stack(made), "dice": self.dice(made, many)}

        stage = self.stages.get("pool", self._upstream(version) | {"masks": settings.pool_masks, "k": settings.candidates}, make)
        k = settings.candidates
        rows = [list(stage["images"][first : first + k]) for first in range(0, len(stage["images"]), k)]
        return masks, rows, stage["dice"].reshape(len(masks), k)

    def round(self, version: int) -> Stage:
        """Alignment number `version`: pairs of the version before, an adapter that starts from its adapter."""
        config = AlignmentConfig(num_steps=self.settings.align_steps, learning_rate=self.settings.learning_rate, seed=self.seed)

        def make() -> Arrays:
            if version > 1 and "refused" in self.round(version - 1).arrays:
                return {"refused": np.array("the round before brought nothing")}
            masks, rows, dice = self.pool(version - 1)
            pairs = self.pairs(masks, rows, dice)
            fresh = [label_map for label_map, _ in self.masks(GATE_MASKS, first=5000 * version)]
            real = [example.image for example in self.real]
            gate = Gate(label_maps=fresh, selector=self.scorer("fold 0"), judge=self.scorer("judge"),
                        num_classes=self.num_classes, real=real, training=real)  # fmt: skip
            try:
                found = align(self.engine(), pairs, gate, config, silent, seeds=[2**40 + i for i in range(len(fresh))],
                              parent=self._adapter_file(version - 1),
                              anchors=[(e.image, e.label_map) for e in self.real])  # fmt: skip
            except (AlignmentStoppedError, TooFewError) as error:
                log.warning("round_refused", version=version, reason=str(error))
                return {"refused": np.array(str(error))}
            numbers = metrics_of(found.reading, found.reference, found.verdict)
            return _to_arrays(found.state) | {
                "_win_rate": np.array(numbers["win_rate"]),
                "_gain": np.array(found.verdict.dice_gain),
                "_step": np.array(found.step),
                "_num_pairs": np.array(len(pairs)),
            }

        return self.stages.get("round", self._upstream(version - 1) | {"align": asdict(config), "gate": GATE_MASKS}, make)

    def pairs(
        self, masks: Sequence[tuple[LabelMap, int]], rows: Sequence[Sequence[Image]], dice: NDArray[np.float64]
    ) -> list[TrainingPair]:
        """Best against worst where they clearly differ; and the real image against the worst where the mask is its own."""
        found = []
        for (label_map, source), images, scores in zip(masks, rows, dice, strict=True):
            best, worst = int(scores.argmax()), int(scores.argmin())
            own = label_map is self.real[source].label_map
            pair = TrainingPair(label_map, images[best], images[worst], weight=0.5, is_real=False, group=f"{source}")
            if scores[best] - scores[worst] >= MIN_MARGIN:
                found.append(pair)
            if own:
                found.append(replace(pair, chosen=self.real[source].image, weight=1.0, is_real=True))
        return found

    def _upstream(self, version: int) -> dict[str, Any]:
        """What the images of a version depend on."""
        if version == 0:
            return self.base | {"generator": self.generator().key, "scorer_steps": self.settings.scorer_steps}
        return {"round": self.round(version).key}

    # ---- arms

    def synthetic(self, kind: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """As many synthetic images as the largest share asks for: 'base', 'rejection' (best of K of base), 'aligned 1', ..."""
        count = math.ceil(max(self.settings.shares) * self.num_real)
        masks = self.masks(count, first=0)
        version = int(kind.split()[1]) if kind.startswith("aligned") else 0
        label_maps = np.stack([label_map for label_map, _ in masks])

        def make() -> Arrays:
            k = self.settings.candidates if kind == "rejection" else 1
            many = [mask for mask in masks for _ in range(k)]
            made = self.images(version, many, [2**32 + self.seed * 1_000_000 + i for i in range(len(many))])
            if k > 1:
                scores = self.dice(made, many).reshape(count, k)
                made = [made[row * k + int(scores[row].argmax())] for row in range(count)]
            return {"images": np.stack(made)}

        stage = self.stages.get("synthetic", self._upstream(version) | {"kind": kind.split()[0], "count": count}, make)
        return stage["images"], label_maps

    def arm(self, kind: str, share: float) -> Stage:
        """Train one segmenter and measure it on the test patients.

        Args:
            kind: 'plain' (real only, no augmentation), 'augmented' (real only), or a kind of `synthetic`.
            share: Synthetic images per real one; 0 for the first two.

        Returns:
            dice, iou, hd95: (N, num_classes) per test image, NaN where the class is in neither mask; group: (N,).
        """
        extra = [] if share == 0 else list(zip(*self.synthetic(kind), strict=True))[: math.ceil(share * self.num_real)]
        source = {} if share == 0 else self._upstream(int(kind.split()[1]) if kind.startswith("aligned") else 0)

        def make() -> Arrays:
            images = [example.image for example in self.real] + [image for image, _ in extra]
            label_maps = [example.label_map for example in self.real] + [label_map for _, label_map in extra]
            config = ScorerConfig(num_steps=self.settings.downstream_steps, seed=1000 + self.seed, augments=kind != "plain")
            network = train(images, label_maps, architecture=self.models.selector, config=config, report=silent)
            return measure(network, self.case.test, num_classes=self.num_classes)

        settings = self.base | {"kind": kind, "share": share, "steps": self.settings.downstream_steps, "source": source}
        return self.stages.get("arm", settings, make)

    def arms(self) -> list[tuple[str, float]]:
        kinds = ["base", "rejection", *(f"aligned {number}" for number in range(1, self.settings.rounds + 1))]
        return [("plain", 0.0), ("augmented", 0.0), *((kind, share) for share in self.settings.shares for kind in kinds)]


def choose_real(examples: Sequence[Example], count: int, *, seed: int) -> list[Example]:
    """Images for one cell, one patient after the other as long as there are others.

    Raises:
        TooFewError: The data set has fewer.
    """
    if count > len(examples):
        raise TooFewError(f"{count} real images wanted, the training patients have {len(examples)}; choose fewer")
    draw = np.random.default_rng(seed)
    by_group: dict[str, list[Example]] = {}
    for index in draw.permutation(len(examples)):
        by_group.setdefault(examples[index].group, []).append(examples[index])
    order = [group[turn] for turn in range(len(examples)) for group in by_group.values() if turn < len(group)]
    return order[:count]


def moved(label_map: LabelMap, draw: np.random.Generator) -> LabelMap:
    """Mirrored, turned by up to 15 degrees, scaled by up to 15 % and shifted by up to 10 %; the border reflects."""
    side = label_map.shape[0]
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), draw.uniform(-15, 15), draw.uniform(0.87, 1.15))
    matrix[:, 2] += draw.uniform(-0.1, 0.1, 2) * side
    if draw.random() < 0.5:
        label_map = np.ascontiguousarray(label_map[:, ::-1])
    turned = cv2.warpAffine(label_map, matrix, (side, side), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(turned, dtype=np.uint8)


def measure(network: Segmenter, examples: Sequence[Example], *, num_classes: int) -> Arrays:
    """Per test image and class: Dice, IoU and the 95 % Hausdorff distance in pixels; NaN where neither mask has the class."""
    shape = (len(examples), num_classes)
    found = {name: np.full(shape, np.nan) for name in ("dice", "iou", "hd95")}
    for row, (example, prediction) in enumerate(
        zip(examples, network.predict([example.image for example in examples]), strict=True)
    ):
        for index, values in agreement(prediction.label_map, example.label_map, num_classes=num_classes).items():
            found["dice"][row, index], found["iou"][row, index] = values.dice, values.iou
        found["hd95"][row] = _hd95(prediction.label_map, example.label_map, num_classes=num_classes)
    return found | {"group": np.array([example.group for example in examples])}


def _hd95(predicted: LabelMap, asked: LabelMap, *, num_classes: int) -> NDArray[np.float64]:
    """A class that only one of both has counts as far away as the picture's diagonal."""
    counted = asked != IGNORE
    hot = [np.stack([(labels == index) & counted for index in range(num_classes)]) for labels in (predicted, asked)]
    has = [part.reshape(num_classes, -1).any(1) for part in hot]
    values = np.full(num_classes, np.nan)
    values[has[0] ^ has[1]] = math.hypot(*asked.shape)
    both = has[0] & has[1]
    if both.any():
        one, other = (torch.from_numpy(part[both][None]).float() for part in hot)
        values[both] = compute_hausdorff_distance(one, other, include_background=True, percentile=95)[0].numpy()
    return values


def run_cell(cell: Cell, *, note: Callable[[str], None]) -> dict[str, Any]:
    """Compute all arms of a cell; returns their stages by (kind, share) as text."""
    devices.use_all_threads()
    found: dict[str, Any] = {}
    for kind, share in cell.arms():
        stage = cell.arm(kind, share)
        found[f"{kind} {share:g}"] = stage
        mean = float(np.nanmean(stage["dice"][:, 1:]))
        note(f"{cell.case.name}, {cell.num_real} real images, seed {cell.seed}: {kind} x {share:g}: Dice {mean:.4f}")
    return found


def _to_arrays(state: dict[str, torch.Tensor]) -> Arrays:
    return {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}


def _to_tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}


def _only_adapter(arrays: Arrays) -> Arrays:
    return {name: value for name, value in arrays.items() if not name.startswith("_")}


def summary(case: Case, cells: Sequence[dict[str, Stage]]) -> dict[str, Any]:
    """Per arm: Dice, IoU and HD95 with intervals, overall and per class; and the paired gains over the real images alone.

    Args:
        cells: Per seed the arms of one number of real images, by name.
    """
    foreground = list(range(1, len(case.class_names)))
    groups = [cell["plain 0"]["group"] for cell in cells]
    found: dict[str, Any] = {}
    for name in cells[0]:
        row: dict[str, Any] = {"seconds": round(float(np.mean([cell[name].seconds for cell in cells])), 1)}
        for measure_name in ("dice", "iou", "hd95"):
            values = [np.nanmean(cell[name][measure_name][:, foreground], axis=1) for cell in cells]
            row[measure_name] = _rounded(mean_with_interval(values, groups))
        row["dice_per_class"] = {
            case.class_names[index]: _rounded(mean_with_interval([cell[name]["dice"][:, index] for cell in cells], groups))
            for index in foreground
        }
        for other in ("plain 0", "augmented 0", "base " + name.split()[-1], "rejection " + name.split()[-1]):
            if other in cells[0] and other != name:
                differences = [cell[name]["dice"][:, foreground] - cell[other]["dice"][:, foreground] for cell in cells]
                change = [np.nanmean(part, axis=1) for part in differences]
                row[f"gain over {other}"] = _rounded(mean_with_interval(change, groups))
        found[name] = row
    return found


def _rounded(values: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(value) else round(value, 4) for value in values]
