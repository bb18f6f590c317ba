"""Does synthetic data make a downstream model better? Arms with equal training budgets, measured on patients nobody has seen.

For each number of real images and each seed everything is learnt from those images alone: generator (from the shipped weights),
selectors, judge, alignment. Masks for synthetic images are moved, turned and scaled versions of the real ones.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
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
from saadi.downstream import models
from saadi.downstream.calibration import calibrate
from saadi.downstream.classifier import Classifier, class_of
from saadi.downstream.metrics import agreement
from saadi.downstream.models import DownstreamModel
from saadi.downstream.training import ScorerConfig, train, train_classifier
from saadi.engines import shipped, weights
from saadi.engines.compact import CompactEngine
from saadi.engines.compact import default_architecture as engine_architecture
from saadi.engines.fitting import FitConfig, TrainingSet, borrow_shipped, fit
from saadi.errors import AlignmentStoppedError, TooFewError
from saadi.evidence import classified
from saadi.evidence.intervals import mean_with_interval
from saadi.evidence.stages import Arrays, Stage, Stages
from saadi.jobs import Report, silent
from saadi.preferences import MIN_MARGIN
from saadi.records import IGNORE, Image, LabelMap, Task

log = structlog.get_logger()
GATE_MASKS = 32
FIRST_GATE = 500_000
"""Numbers of the gate's moved masks: beyond those of all pools."""
STAGES_VERSION = 2
"""A new number when a stage computes something else under the same settings, so that none of an earlier release is taken."""
FOLDS = 2
MIN_TO_CALIBRATE = 8


Recipe = Literal["mixed", "first"]
"""'mixed': real and synthetic images in the same batches. 'first': half of the steps on synthetic images alone, then half on real
ones alone."""


@dataclass(frozen=True)
class Arm:
    """One way to train a segmenter."""

    kind: str
    """'plain' (real images, no augmentation), 'augmented' (real images), 'base' (and images of the base generator), 'rejection'
    (best of K of those), 'aligned N' (of the generator after N rounds), 'curated N' (best of K of those)."""
    share: float = 0.0
    """Synthetic images per real one."""
    recipe: Recipe = "mixed"

    @property
    def version(self) -> int:
        """Of the generator: 0 = base."""
        return int(self.kind.split()[1]) if self.kind.startswith(("aligned", "curated")) else 0

    @property
    def is_best_of_many(self) -> bool:
        return self.kind.startswith(("rejection", "curated"))

    def __str__(self) -> str:
        return f"{self.kind} {self.share:g}" + ("" if self.recipe == "mixed" else f" {self.recipe}")


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
    task: Task = "segmentation"
    """In classification each label map holds the class of its image in all pixels."""

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
    recipes: tuple[Recipe, ...] = ("mixed",)
    """How arms with synthetic images train."""
    curated: bool = False
    """Also arms that take the best of K images of the aligned generator."""
    learning_rate: float = 1e-4
    """Of the alignment."""


@dataclass(frozen=True)
class Models:
    """Architectures, as `saadi.engines.compact` and `saadi.downstream.models` take them."""

    generator: dict[str, Any]
    selector: dict[str, Any]
    """Also that of the segmenters that the arms train."""
    judge: dict[str, Any]
    starts_from: Literal["shipped", "random"] = "shipped"
    """Weights that the generator's fit starts from. The shipped ones have seen thousands of phantom scenes: on phantom data only
    'random' is honest."""

    @classmethod
    def default(
        cls, *, num_classes: int, side: int, starts_from: Literal["shipped", "random"] = "shipped", task: Task = "segmentation"
    ) -> Self:
        selector, judge = (models.default_architecture(task, kind, num_classes=num_classes) for kind in ("selector", "judge"))
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
    report: Report = silent
    """Called in every step of every stage, with the stage's own numbers of steps."""

    def __post_init__(self) -> None:
        self.real = choose_real(self.case.train, self.num_real, seed=self.seed)
        self.num_classes = len(self.case.class_names)
        self.side = self.real[0].image.shape[0]
        self.test = _digest(self.case.test)
        start = shipped.manifest()["engine"]["sha256"] if self.models.starts_from == "shipped" else None
        self.base = {"made_by": STAGES_VERSION, "case": self.case.name, "seed": self.seed, "real": _digest(self.real),
                     "models": asdict(self.models), "start": start}  # fmt: skip

    # ---- models

    def generator(self) -> Stage:
        """The shipped generator, fitted to the real images of this cell."""

        def make() -> Arrays:
            torch.manual_seed(self.seed)
            engine = CompactEngine(self.models.generator)
            if self.models.starts_from == "shipped":
                borrow_shipped(engine)
            data = TrainingSet([e.image for e in self.real], [e.label_map for e in self.real], engine=engine)
            fit(engine, data, FitConfig(num_steps=self.settings.fit_steps, sample_every=0, seed=self.seed), self.report)
            return _to_arrays(engine.denoiser.state_dict())

        return self.stages.get("generator", self.base | {"steps": self.settings.fit_steps}, make)

    def engine(self) -> CompactEngine:
        return CompactEngine(self.models.generator, _to_tensors(self.generator().arrays))

    def scorer(self, name: str) -> DownstreamModel:
        """'judge': all real images; 'fold 0', 'fold 1': selectors that have not seen that fold's images; 'expert': stands for
        clinicians in simulations, trained on the test patients."""
        stage, architecture = self._scorer_stage(name), self._architecture(name)
        if self.case.task == "classification":
            architecture = architecture | {"temperature": float(stage["_temperature"])}
        return models.load(architecture, _to_tensors(_only_adapter(stage.arrays)))

    def _architecture(self, name: str) -> dict[str, Any]:
        return self.models.judge if name == "judge" else self.models.selector

    def _scorer_stage(self, name: str) -> Stage:
        def make() -> Arrays:
            fold = int(name[-1]) if name.startswith("fold") else None
            seen = list(self.case.test) if name == "expert" else [e for i, e in enumerate(self.real) if self.fold(i) != fold]
            config = ScorerConfig(num_steps=self.settings.scorer_steps, seed=self.seed * 10 + len(name))
            model = self.train(seen, architecture=self._architecture(name), config=config)
            arrays = _to_arrays(model.network.state_dict())
            if isinstance(model, Classifier):  # calibrated on what the fold has not seen; of the judge only the order counts
                rest = [e for index, e in enumerate(self.real) if self.fold(index) == fold]
                arrays["_temperature"] = np.array(temperature_of(model, rest))
            return arrays

        settings = self.base | {"name": name, "steps": self.settings.scorer_steps}
        return self.stages.get("scorer", settings | ({"test": self.test} if name == "expert" else {}), make)

    def scorer_key(self, name: str) -> str:
        return self._scorer_stage(name).key

    def pool_key(self, version: int) -> str:
        return self._pool_stage(version).key

    def train(self, examples: Sequence[Example], *, architecture: dict[str, Any], config: ScorerConfig,
              start: dict[str, torch.Tensor] | None = None) -> DownstreamModel:  # fmt: skip
        """A downstream model of the case's task."""
        learn = train_classifier if self.case.task == "classification" else train
        return learn([e.image for e in examples], [e.label_map for e in examples], architecture=architecture, config=config,
                     report=self.report, start=start)  # fmt: skip

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
        return self.engine().generate(
            [label_map for label_map, _ in masks], seeds, adapter=adapter,
            on_step=lambda step, total: self.report(step, total, "making images"))  # fmt: skip

    def _adapter_file(self, version: int) -> Path | None:
        if version == 0:
            return None
        stage = self.round(version)
        if "refused" in stage.arrays:
            return self._adapter_file(version - 1)
        return self.stages.file(f"{stage.key}.safetensors", weights.to_bytes(_to_tensors(_only_adapter(stage.arrays))))

    def dice(self, images: Sequence[Image], masks: Sequence[tuple[LabelMap, int]]) -> NDArray[np.float64]:
        """Mean Dice over the asked classes (or the probability of the asked class), by the selector that has not seen the mask's
        image."""
        found = np.zeros(len(images))
        for fold in range(FOLDS):
            chosen = [index for index, (_, source) in enumerate(masks) if self.fold(source) == fold]
            if chosen:
                scorer = self.scorer(f"fold {fold}")
                seen = scorer.fidelity([images[index] for index in chosen], [masks[index][0] for index in chosen])
                found[chosen] = [one.mean for one in seen]
        return found

    # ---- alignment

    def pool(self, version: int) -> tuple[list[tuple[LabelMap, int]], list[list[Image]], NDArray[np.float64]]:
        """Masks, K images of each, and their scores."""
        stage, masks, k = self._pool_stage(version), self.pool_masks(version), self.settings.candidates
        rows = [list(stage["images"][first : first + k]) for first in range(0, len(stage["images"]), k)]
        return masks, rows, stage["dice"].reshape(len(masks), k)

    def pool_masks(self, version: int) -> list[tuple[LabelMap, int]]:
        """Half of them real images' own, so that those can be winners."""
        originals = [(example.label_map, index) for index, example in enumerate(self.real)][: self.settings.pool_masks // 2]
        return originals + self.masks(self.settings.pool_masks - len(originals), first=10_000 * (version + 1))

    def _pool_stage(self, version: int) -> Stage:
        settings, masks = self.settings, self.pool_masks(version)

        def make() -> Arrays:
            many = [mask for mask in masks for _ in range(settings.candidates)]
            made = self.images(version, many, [self.seed * 1_000_000 + version * 100_000 + i for i in range(len(many))])
            return {"images": np.stack(made), "dice": self.dice(made, many)}

        scorers = [self._scorer_stage(f"fold {fold}").key for fold in range(FOLDS)]
        wanted = {"masks": settings.pool_masks, "k": settings.candidates, "scorers": scorers}
        return self.stages.get("pool", self._upstream(version) | wanted, make)

    def round(self, version: int) -> Stage:
        """Alignment number `version`: pairs of the version before, an adapter that starts from its adapter."""
        config = AlignmentConfig(num_steps=self.settings.align_steps, learning_rate=self.settings.learning_rate, seed=self.seed)

        if version > 1 and "refused" in (before := self.round(version - 1)).arrays:
            nothing = {"refused": np.array("the round before brought nothing")}
            return self.stages.get("round", {"after": before.key}, lambda: nothing)

        def make() -> Arrays:
            masks, rows, dice = self.pool(version - 1)
            pairs = self.pairs(masks, rows, dice)
            fresh = [label_map for label_map, _ in self.gate_masks(version)]
            real = [example.image for example in self.real]
            gate = Gate(label_maps=fresh, selector=self.scorer("fold 0"), judge=self.scorer("judge"),
                        num_classes=self.num_classes, real=real, training=real)  # fmt: skip
            try:
                found = align(self.engine(), pairs, gate, config, self.report, seeds=[2**40 + i for i in range(len(fresh))],
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

        settings = {"pool": self._pool_stage(version - 1).key, "judge": self._scorer_stage("judge").key, "gate": GATE_MASKS}
        return self.stages.get("round", self.base | settings | {"align": asdict(config)}, make)

    def gate_masks(self, version: int) -> list[tuple[LabelMap, int]]:
        """Moved label maps that no pool has."""
        return self.masks(GATE_MASKS, first=FIRST_GATE + 1000 * version)

    def pairs(
        self,
        masks: Sequence[tuple[LabelMap, int]],
        rows: Sequence[Sequence[Image]],
        dice: NDArray[np.float64],
        *,
        margin: float = MIN_MARGIN,
    ) -> list[TrainingPair]:
        """Best against worst where they clearly differ; and the real image against the worst where the mask is its own."""
        found = []
        for (label_map, source), images, scores in zip(masks, rows, dice, strict=True):
            best, worst = int(scores.argmax()), int(scores.argmin())
            own = label_map is self.real[source].label_map
            pair = TrainingPair(label_map, images[best], images[worst], weight=0.5, is_real=False, group=f"{source}")
            if scores[best] - scores[worst] >= margin:
                found.append(pair)
            if own:
                found.append(replace(pair, chosen=self.real[source].image, weight=1.0, is_real=True))
        return found

    def _upstream(self, version: int) -> dict[str, Any]:
        """What the images of a version depend on."""
        if version == 0:
            return self.base | {"generator": self.generator().key}
        return {"round": self.round(version).key}

    # ---- arms

    def synthetic(self, arm: Arm) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """As many synthetic images as the largest share asks for, and their label maps: the same ones for every kind."""
        stage, label_maps = self._synthetic(arm)
        return stage["images"], label_maps

    def _synthetic(self, arm: Arm) -> tuple[Stage, NDArray[np.uint8]]:
        count = math.ceil(max(self.settings.shares) * self.num_real)
        masks = self.masks(count, first=0)
        k = self.settings.candidates if arm.is_best_of_many else 1

        def make() -> Arrays:
            many = [mask for mask in masks for _ in range(k)]
            made = self.images(arm.version, many, [2**32 + self.seed * 1_000_000 + i for i in range(len(many))])
            if k > 1:
                scores = self.dice(made, many).reshape(count, k)
                made = [made[row * k + int(scores[row].argmax())] for row in range(count)]
            return {"images": np.stack(made)}

        label_maps = np.stack([label_map for label_map, _ in masks])
        return self.stages.get("synthetic", self._source(arm) | {"count": count}, make), label_maps

    def _source(self, arm: Arm) -> dict[str, Any]:
        """What each of an arm's synthetic images depends on."""
        if not arm.is_best_of_many:
            return self._upstream(arm.version) | {"k": 1}
        scorers = [self._scorer_stage(f"fold {fold}").key for fold in range(FOLDS)]
        return self._upstream(arm.version) | {"k": self.settings.candidates, "scorers": scorers}

    def arm(self, arm: Arm) -> Stage:
        """Train one downstream model and measure it on the test patients.

        Returns:
            dice, iou, hd95: (N, num_classes) per test image, NaN where the class is in neither mask; group: (N,). In
            classification: probabilities (N, num_classes), label (N,) and group.
        """
        count = math.ceil(arm.share * self.num_real)
        source = self._source(arm) if count else {}

        def make() -> Arrays:
            images, label_maps = self.synthetic(arm) if count else ((), ())
            more = [Example(*pair, "") for pair in zip(images[:count], label_maps[:count], strict=True)]
            steps, learn = self.settings.downstream_steps, partial(self.train, architecture=self.models.selector)
            config = ScorerConfig(num_steps=steps, seed=1000 + self.seed, augments=arm.kind != "plain")
            if arm.recipe == "mixed":
                model = learn([*self.real, *more], config=config)
            else:
                first = learn(more, config=replace(config, num_steps=steps // 2)).network.state_dict()
                model = learn(self.real, config=replace(config, num_steps=steps - steps // 2), start=first)
            return measure(model, self.case.test, num_classes=self.num_classes)

        settings = self.base | {"arm": asdict(arm), "steps": self.settings.downstream_steps, "source": source}
        return self.stages.get("arm", settings | {"test": self.test}, make)

    def seconds(self, arm: Arm) -> float:
        """What this arm costs from the real images to the trained segmenter, all that it stands on included."""
        total = self.arm(arm).seconds
        if not arm.share:
            return total
        total += self.generator().seconds + self._synthetic(arm)[0].seconds
        if arm.is_best_of_many or arm.version:
            total += sum(self._scorer_stage(f"fold {fold}").seconds for fold in range(FOLDS))
        if arm.version:
            total += self._scorer_stage("judge").seconds
            total += sum(self.round(version).seconds + self._pool_stage(version - 1).seconds
                         for version in range(1, arm.version + 1))  # fmt: skip
        return total

    def rounds_in_numbers(self) -> list[dict[str, Any]]:
        """Per round of alignment: what the gate measured, or why it kept the version before."""
        found = []
        for version in range(1, self.settings.rounds + 1):
            arrays = self.round(version).arrays
            found.append({name.strip("_"): arrays[name].tolist() for name in arrays if name == "refused" or name.startswith("_")})
        return found

    def arms(self) -> list[Arm]:
        rounds = range(1, self.settings.rounds + 1)
        kinds = ["base", "rejection", *(f"aligned {number}" for number in rounds)]
        kinds += [f"curated {number}" for number in rounds] if self.settings.curated else []
        how = [(share, recipe) for share in self.settings.shares for recipe in self.settings.recipes]
        return [Arm("plain"), Arm("augmented"), *(Arm(kind, *one) for one in how for kind in kinds)]


def _digest(examples: Sequence[Example]) -> str:
    """Of pixels, label maps and patients."""
    found = hashlib.sha256()
    for one in examples:
        for part in (one.image.tobytes(), one.label_map.tobytes(), one.group.encode()):
            found.update(hashlib.sha256(part).digest())
    return found.hexdigest()


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


def measure(model: DownstreamModel, examples: Sequence[Example], *, num_classes: int) -> Arrays:
    """Per test image and class: Dice, IoU and the 95 % Hausdorff distance in pixels; NaN where neither mask has the class.

    Of a classifier its probabilities and the true classes.
    """
    groups = np.array([example.group for example in examples])
    if isinstance(model, Classifier):
        labels = np.array([class_of(example.label_map) for example in examples])
        return {"probabilities": model.probabilities([e.image for e in examples]), "label": labels, "group": groups}
    shape = (len(examples), num_classes)
    found = {name: np.full(shape, np.nan) for name in ("dice", "iou", "hd95")}
    for row, (example, prediction) in enumerate(
        zip(examples, model.predict([example.image for example in examples]), strict=True)
    ):
        for index, values in agreement(prediction.label_map, example.label_map, num_classes=num_classes).items():
            found["dice"][row, index], found["iou"][row, index] = values.dice, values.iou
        found["hd95"][row] = _hd95(prediction.label_map, example.label_map, num_classes=num_classes)
    return found | {"group": groups}


def temperature_of(model: Classifier, examples: Sequence[Example]) -> float:
    """By images that the model has not seen; 1 where they are too few to tell."""
    if len(examples) < MIN_TO_CALIBRATE:
        return 1.0
    labels = np.array([class_of(example.label_map) for example in examples])
    found = calibrate(model.logits([example.image for example in examples]).numpy(), labels)
    return found.temperature if found else 1.0


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


def run_cell(cell: Cell, *, note: Callable[[str], None]) -> dict[str, Stage]:
    """Compute all arms of a cell; returns their stages by name."""
    devices.use_all_threads()
    found: dict[str, Stage] = {}
    for arm in cell.arms():
        stage = found[str(arm)] = cell.arm(arm)
        name = "F1" if cell.case.task == "classification" else "Dice"
        note(f"{cell.case.name}, {cell.num_real} real images, seed {cell.seed}: {arm}: {name} {told(cell, stage):.4f}")
    return found


def told(cell: Cell, stage: Stage) -> float:
    """One number of an arm: mean Dice over images and foreground classes, or mean F1 over classes."""
    if cell.case.task == "classification":
        return classified.macro_f1(stage["probabilities"], stage["label"])
    return float(np.nanmean(stage["dice"][:, 1:]))


def _to_arrays(state: dict[str, torch.Tensor]) -> Arrays:
    return {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}


def _to_tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}


def _only_adapter(arrays: Arrays) -> Arrays:
    return {name: value for name, value in arrays.items() if not name.startswith("_")}


def summary(
    cells: Sequence[tuple[Cell, dict[str, Stage]]], *, report: Callable[[str], None] = lambda message: None
) -> dict[str, Any]:
    """Per arm: Dice, IoU and HD95 with intervals, overall and per class, paired gains over other arms, and what it cost.

    Args:
        cells: Per seed a cell of one number of real images and its arms.
    """
    case, rows = cells[0][0].case, {}
    for arm in cells[0][0].arms():
        row: dict[str, Any] = {"minutes": round(float(np.mean([cell.seconds(arm) for cell, _ in cells])) / 60, 1)}
        if arm.version:  # a refused round leaves the version before in use, whose images these then are
            row["refused"] = sum("refused" in cell.round(arm.version).arrays for cell, _ in cells)
        report(f"computing ranges: {arm}")
        mine = [found[str(arm)].arrays for _, found in cells]
        others = {other: [found[str(other)].arrays for _, found in cells] for other in _compared_with(arm) if str(other) in rows}
        words = _told_of_classes if case.task == "classification" else _told_of_masks
        rows[str(arm)] = row | words(case, mine, others, [cell.seed for cell, _ in cells])
    return {"arms": rows, "rarest_class": rarest_class(case), "rounds": [cell.rounds_in_numbers() for cell, _ in cells]}


def _told_of_masks(
    case: Case, mine: Sequence[Arrays], others: dict[Arm, list[Arrays]], seeds: Sequence[int]
) -> dict[str, Any]:
    foreground, groups = list(range(1, len(case.class_names))), [arm["group"] for arm in mine]

    def over(name: str, arms: Sequence[Arrays], classes: list[int]) -> list[float | None]:
        return _rounded(mean_with_interval([np.nanmean(arm[name][:, classes], axis=1) for arm in arms], groups, seeds))

    row: dict[str, Any] = {name: over(name, mine, foreground) for name in ("dice", "iou", "hd95")}
    row["dice_per_class"] = {case.class_names[index]: over("dice", mine, [index]) for index in foreground}
    for other, theirs in others.items():
        changes = [{"dice": _change(one["dice"], two["dice"])} for one, two in zip(mine, theirs, strict=True)]
        row[f"gain over {other}"] = over("dice", changes, foreground)
        row[f"relative gain over {other}"] = _relative(row[f"gain over {other}"], over("dice", theirs, foreground))
        row[f"gain per class over {other}"] = {case.class_names[index]: over("dice", changes, [index]) for index in foreground}
    return row


def _change(one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.float64]:
    """Paired differences; where only one of both sees a class that is not there, the other one is right (1), not silent."""
    silent_one, silent_two = np.isnan(one), np.isnan(two)
    return np.where(silent_one & ~silent_two, 1.0, one) - np.where(silent_two & ~silent_one, 1.0, two)


def _told_of_classes(
    case: Case, mine: Sequence[Arrays], others: dict[Arm, list[Arrays]], seeds: Sequence[int]
) -> dict[str, Any]:
    names = list(enumerate(case.class_names))
    row: dict[str, Any] = {
        name: _rounded(classified.with_interval(mine, statistic, seeds)) for name, statistic in classified.STATISTICS.items()
    }
    row["f1_per_class"] = {
        name: _rounded(classified.with_interval(mine, classified.f1_of(index), seeds)) for index, name in names
    }
    for other, theirs in others.items():
        row[f"gain over {other}"] = _rounded(classified.gain_with_interval(mine, theirs, classified.macro_f1, seeds))
        row[f"relative gain over {other}"] = _relative(
            row[f"gain over {other}"], _rounded(classified.with_interval(theirs, classified.macro_f1, seeds))
        )
        row[f"gain per class over {other}"] = {
            name: _rounded(classified.gain_with_interval(mine, theirs, classified.f1_of(index), seeds)) for index, name in names
        }
    return row


def _relative(gain: Sequence[float | None], base: Sequence[float | None]) -> float | None:
    return round(gain[0] / base[0], 4) if gain[0] is not None and base[0] else None


def _compared_with(arm: Arm) -> list[Arm]:
    """The arms that a gain is told over: real images alone, and whatever is one step simpler."""
    others = [Arm("plain"), Arm("augmented")]
    if arm.share:
        others += [Arm(kind, arm.share, arm.recipe) for kind in ("base", "rejection")]
        others += [Arm(f"aligned {number}", arm.share, arm.recipe) for number in range(1, arm.version + 1)]
    return [other for other in others if other != arm]


def rarest_class(case: Case) -> str:
    """The class (other than the background of masks) in the fewest training images."""
    counts = [sum(bool((example.label_map == index).any()) for example in case.train) for index in range(len(case.class_names))]
    first = 0 if case.task == "classification" else 1
    return case.class_names[min(range(first, len(counts)), key=lambda index: counts[index])]


def _rounded(values: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(value) else round(value, 4) for value in values]
