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
from numpy.typing import NDArray

from saadi import devices
from saadi.alignment.gate import Gate, Verdict, compare
from saadi.alignment.recipe import align
from saadi.alignment.trainer import AlignmentConfig, PairTrainer, TrainingPair
from saadi.downstream import models
from saadi.downstream.calibration import calibrate
from saadi.downstream.classifier import Classifier, class_of
from saadi.downstream.models import DownstreamModel
from saadi.downstream.segmenter import Segmenter
from saadi.downstream.training import ScorerConfig, misses_a_class, train, train_classifier
from saadi.engines import lora, shipped, weights
from saadi.engines.compact import CompactEngine
from saadi.engines.compact import default_architecture as engine_architecture
from saadi.engines.fitting import FitConfig, TrainingSet, borrow_shipped, fit
from saadi.errors import AlignmentStoppedError, TooFewError
from saadi.evidence.cases import Case, Example, choose_real, digest, is_rendered
from saadi.evidence.measures import measure, told
from saadi.evidence.stages import Arrays, Stage, Stages
from saadi.jobs import Report, silent
from saadi.preferences import MIN_MARGIN
from saadi.records import IGNORE, Image, LabelMap

log = structlog.get_logger()
GATE_MASKS = 32
FIRST_GATE = 500_000
"""Numbers of the gate's moved masks: beyond those of all pools."""
STAGES_VERSION = 2
"""A new number when a stage computes something else under the same settings, so that none of an earlier release is taken."""
DOUBT = 0.2
"""Where the selector gives the asked class less than this, a pixel of a synthetic image says nothing (recipe 'sure')."""
MIN_TO_CALIBRATE = 8
ROUGH_STREAM = 77
"""Of the random numbers that displace label maps."""


Recipe = Literal["mixed", "first", "sure"]
"""'mixed': real and synthetic images in the same batches. 'first': half of the steps on synthetic images alone, then half on real
ones alone. 'sure': as mixed, without those synthetic pixels in which the selector sees another class than the asked one."""
Masks = Literal["moved", "warped"]
"""'moved': mirrored, turned, scaled and shifted. 'warped': and bent, so that no outline is one of a real image."""


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
    sdpo_mu: float | None = None
    """As in `AlignmentConfig`."""
    gated: bool = True
    """Keep the best checkpoint that passes the gate; False = the last one whatever the gate says: what its limits cost."""
    folds: int = 2
    """Selectors, each trained without the patients that it scores."""
    rough: float = 0.0
    """Share of the generator's training images whose label maps are displaced, as quick or badly synchronised labels are.
    Everything else learns from the true ones: a planted fault that alignment should heal."""
    masks: Masks = "moved"
    """Where label maps of synthetic images come from: the real ones, changed."""


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
    def of(cls, case: Case, *, side: int, width: float = 1.0) -> Self:
        """The program's own architectures, none of which looks closer than the images are.

        Args:
            side: Of the images, in pixels.
            width: Channels of the downstream networks, as a share of the program's own: smaller ones learn in less time.
        """
        num_classes = len(case.class_names)
        selector, judge = (
            _sized(models.default_architecture(case.task, kind, num_classes=num_classes), side=side, width=width)
            for kind in ("selector", "judge")
        )
        # The shipped generator has seen thousands of rendered scenes.
        starts_from: Literal["shipped", "random"] = "random" if is_rendered(case) else "shipped"
        return cls(engine_architecture(num_classes=num_classes, resolution=side), selector, judge, starts_from)


def _sized(architecture: dict[str, Any], *, side: int, width: float) -> dict[str, Any]:
    """With fewer or more channels, in eights so that norms can group them."""
    def scaled(channels: int) -> int:
        return max(8, round(channels * width / 8) * 8)

    found = architecture | {"size_px": min(side, architecture["size_px"])}
    found |= {name: [scaled(one) for one in architecture[name]] for name in ("channels", "widths") if name in architecture}
    return found | {name: scaled(architecture[name]) for name in ("init_filters",) if name in architecture}


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
        self._folds = self._deal()
        self.num_folds = max(self._folds) + 1
        self.test = digest(self.case.test)
        start = shipped.manifest()["engine"]["sha256"] if self.models.starts_from == "shipped" else None
        self.base = {"made_by": STAGES_VERSION, "case": self.case.name, "seed": self.seed, "real": digest(self.real),
                     "models": asdict(self.models), "start": start}  # fmt: skip

    # ---- models

    def generator(self) -> Stage:
        """The shipped generator, fitted to the real images of this cell."""
        settings = self.base | {"steps": self.settings.fit_steps}
        settings |= {"rough": self.settings.rough} if self.settings.rough else {}

        def make() -> Arrays:
            torch.manual_seed(self.seed)
            engine = CompactEngine(self.models.generator)
            if self.models.starts_from == "shipped":
                borrow_shipped(engine)
            data = TrainingSet([e.image for e in self.real], self.label_maps_to_fit(), engine=engine)
            fit(engine, data, FitConfig(num_steps=self.settings.fit_steps, sample_every=0, seed=self.seed), self.report,
                folder=self.stages.workspace("generator", settings))  # fmt: skip
            return _to_arrays(engine.denoiser.state_dict())

        return self.stages.get("generator", settings, make)

    def label_maps_to_fit(self) -> list[LabelMap]:
        """Those of the real images, some of them displaced where labels are rough."""
        draw = np.random.default_rng([self.seed, ROUGH_STREAM])
        chosen = set(draw.permutation(len(self.real))[: round(self.settings.rough * len(self.real))].tolist())
        return [displaced(e.label_map, draw) if i in chosen else e.label_map for i, e in enumerate(self.real)]

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
        settings = self.base | {"name": name, "steps": self.settings.scorer_steps}
        settings |= {"test": self.test} if name == "expert" else {"folds": self.num_folds} if name.startswith("fold") else {}

        def make() -> Arrays:
            fold = int(name.removeprefix("fold ")) if name.startswith("fold") else None
            seen = list(self.case.test) if name == "expert" else [
                e for i, e in enumerate(self.real) if self.fold(i) != fold or self.num_folds == 1
            ]
            config = ScorerConfig(num_steps=self.settings.scorer_steps, seed=self.seed * 10 + len(name))
            model = self.train(seen, architecture=self._architecture(name), config=config,
                               folder=self.stages.workspace("scorer", settings))  # fmt: skip
            arrays = _to_arrays(model.network.state_dict())
            if isinstance(model, Classifier):  # calibrated on what the fold has not seen; of the judge only the order counts
                rest = [e for index, e in enumerate(self.real) if self.fold(index) == fold]
                arrays["_temperature"] = np.array(temperature_of(model, rest))
            return arrays

        return self.stages.get("scorer", settings, make)

    def _fold_keys(self) -> list[str]:
        return [self._scorer_stage(f"fold {fold}").key for fold in range(self.num_folds)]

    def scorer_key(self, name: str) -> str:
        return self._scorer_stage(name).key

    def pool_key(self, version: int) -> str:
        return self._pool_stage(version).key

    def train(self, examples: Sequence[Example], *, architecture: dict[str, Any], config: ScorerConfig, folder: Path,
              start: dict[str, torch.Tensor] | None = None) -> DownstreamModel:  # fmt: skip
        """A downstream model of the case's task."""
        learn = train_classifier if self.case.task == "classification" else train
        return learn([e.image for e in examples], [e.label_map for e in examples], architecture=architecture, config=config,
                     report=self.report, start=start, folder=folder)  # fmt: skip

    def fold(self, index: int) -> int:
        """Patients, not images, are dealt out."""
        return self._folds[index]

    def _deal(self) -> list[int]:
        """Per real image its fold. Of a classification all are 0, and one selector sees all of them, where some fold would never
        see a class: its word on that class would be worth nothing."""
        groups, folds = sorted({example.group for example in self.real}), self.settings.folds
        found = [groups.index(e.group) % folds if len(groups) >= folds else i % folds for i, e in enumerate(self.real)]
        if self.case.task == "classification":
            held = np.array([np.isin(np.arange(self.num_classes), example.label_map) for example in self.real])
            names = [str(fold) for fold in found]
            if misses_a_class(names, held, {name: int(name) for name in names}):
                return [0] * len(found)
        return found

    # ---- masks and images

    def masks(self, count: int, *, first: int) -> list[tuple[LabelMap, int]]:
        """Moved versions of the real label maps, each with the index of the real image that it comes from."""
        found = []
        for number in range(first, first + count):
            draw = np.random.default_rng([self.seed, number])
            index = number % len(self.real)
            label_map = moved(self.real[index].label_map, draw)
            found.append((warped(label_map, draw) if self.settings.masks == "warped" else label_map, index))
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
        for fold in range(self.num_folds):
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

        wanted = {"masks": settings.pool_masks, "shape": settings.masks, "k": settings.candidates, "scorers": self._fold_keys()}
        return self.stages.get("pool", self._upstream(version) | wanted, make)

    def round(self, version: int) -> Stage:
        """Alignment number `version`: pairs of the version before, an adapter that starts from its adapter."""
        config = AlignmentConfig(num_steps=self.settings.align_steps, learning_rate=self.settings.learning_rate, seed=self.seed,
                                 sdpo_mu=self.settings.sdpo_mu)  # fmt: skip

        if version > 1 and "refused" in (before := self.round(version - 1)).arrays:
            nothing = {"refused": np.array("the round before brought nothing")}
            return self.stages.get("round", {"after": before.key}, lambda: nothing)

        settings = {"pool": self._pool_stage(version - 1).key, "judge": self._scorer_stage("judge").key, "gate": GATE_MASKS,
                    "shape": self.settings.masks}  # fmt: skip
        wanted = self.base | settings | {"align": asdict(config)} | ({} if self.settings.gated else {"gated": False})

        def make() -> Arrays:
            masks, rows, dice = self.pool(version - 1)
            pairs = self.pairs(masks, rows, dice)
            fresh = [label_map for label_map, _ in self.gate_masks(version)]
            real = [example.image for example in self.real]
            gate = Gate(label_maps=fresh, selector=self.scorer("fold 0"), judge=self.scorer("judge"),
                        num_classes=self.num_classes, real=real, training=real)  # fmt: skip
            learn = self._aligned if self.settings.gated else self._ungated
            try:
                state, verdict, step = learn(pairs, gate, config, version, self.stages.workspace("round", wanted))
            except (AlignmentStoppedError, TooFewError) as error:
                log.warning("round_refused", version=version, reason=str(error))
                return {"refused": np.array(str(error))}
            return _to_arrays(state) | {
                "_win_rate": np.array(verdict.win_rate),
                "_gain": np.array(verdict.dice_gain),
                "_step": np.array(step),
                "_num_pairs": np.array(len(pairs)),
                "_reasons": np.array("; ".join(verdict.reasons)),
            }

        return self.stages.get("round", wanted, make)

    def _aligned(
        self, pairs: list[TrainingPair], gate: Gate, config: AlignmentConfig, version: int, folder: Path
    ) -> tuple[dict[str, torch.Tensor], Verdict, int]:
        """As the program does it: adapter, verdict and step of the best checkpoint that passed."""
        found = align(self.engine(), pairs, gate, config, self.report, seeds=_gate_seeds(gate),
                      parent=self._adapter_file(version - 1), folder=folder, keep=partial(_kept, folder),
                      anchors=[(e.image, e.label_map) for e in self.real])  # fmt: skip
        return found.state, found.verdict, found.step

    def _ungated(
        self, pairs: list[TrainingPair], gate: Gate, config: AlignmentConfig, version: int, folder: Path
    ) -> tuple[dict[str, torch.Tensor], Verdict, int]:
        """The last step and what the gate says of it; an alarm of the trainer stops it as ever."""
        engine, parent, seeds = self.engine(), self._adapter_file(version - 1), _gate_seeds(gate)
        before = gate.read(engine.generate(gate.label_maps, seeds, adapter=parent))
        trainer = PairTrainer(engine, pairs, config, parent=parent, anchors=[(e.image, e.label_map) for e in self.real])
        while trainer.step < config.num_steps and not trainer.alarm():
            if not np.isfinite(trainer.train_step()["gradient_norm"]):
                raise AlignmentStoppedError("the gradient is not a number any more")
            self.report(trainer.step, config.num_steps, "learning from the pairs")
        engine.weights_changed()
        after = gate.read(engine.generate(gate.label_maps, seeds))
        verdict = compare(after, before, winner_ratio=trainer.measure_held_out()["winner_ratio"], task=self.case.task)
        return lora.state(trainer.policy), verdict, trainer.step

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
        return self.stages.get("synthetic", self._source(arm) | {"count": count, "shape": self.settings.masks}, make), label_maps

    def _source(self, arm: Arm) -> dict[str, Any]:
        """What each of an arm's synthetic images depends on."""
        if not arm.is_best_of_many:
            return self._upstream(arm.version) | {"k": 1}
        return self._upstream(arm.version) | {"k": self.settings.candidates, "scorers": self._fold_keys()}

    def _extra(self, arm: Arm, count: int) -> list[Example]:
        """The synthetic part of an arm's training set."""
        images, label_maps = self.synthetic(arm)
        if arm.recipe == "sure":
            label_maps = self.without_doubt(images, label_maps)
        return [Example(*pair, "") for pair in zip(images[:count], label_maps[:count], strict=True)]

    def without_doubt(self, images: NDArray[np.uint8], label_maps: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Label maps, IGNORE where the selector that has not seen the mask's image gives the asked class less than DOUBT.

        Args:
            images: (N, side, side, 3), one per mask of `masks(N, first=0)`.
            label_maps: (N, side, side), theirs.
        """
        found = label_maps.copy()
        for fold in range(self.num_folds):
            selector = self.scorer(f"fold {fold}")
            assert isinstance(selector, Segmenter)
            chosen = [index for index in range(len(images)) if self.fold(index % len(self.real)) == fold]
            for index, seen in zip(chosen, selector.probabilities([images[index] for index in chosen]), strict=True):
                asked = torch.from_numpy(label_maps[index].astype(np.int64))[None].to(seen.device)
                sure = seen.gather(0, asked.clamp(max=self.num_classes - 1))[0] >= DOUBT
                found[index][~sure.cpu().numpy()] = IGNORE
        return found

    def arm(self, arm: Arm) -> Stage:
        """Train one downstream model and measure it on the test patients.

        Returns:
            dice, iou, hd95: (N, num_classes) per test image, NaN where the class is in neither mask; group: (N,). In
            classification: probabilities (N, num_classes), label (N,) and group.
        """
        count = math.ceil(arm.share * self.num_real)
        source = self._source(arm) | {"shape": self.settings.masks} if count else {}
        if arm.recipe == "sure":
            source |= {"judged by": self._fold_keys(), "doubt": DOUBT}
        settings = self.base | {"arm": asdict(arm), "steps": self.settings.downstream_steps, "source": source, "test": self.test}

        def make() -> Arrays:
            more = self._extra(arm, count) if count else []
            folder = self.stages.workspace("arm", settings)
            steps, learn = self.settings.downstream_steps, partial(self.train, architecture=self.models.selector)
            config = ScorerConfig(num_steps=steps, seed=1000 + self.seed, augments=arm.kind != "plain")
            if arm.recipe != "first":
                model = learn([*self.real, *more], config=config, folder=folder)
            else:
                first = learn(more, config=replace(config, num_steps=steps // 2), folder=folder / "first").network.state_dict()
                model = learn(self.real, config=replace(config, num_steps=steps - steps // 2), start=first,
                              folder=folder / "then")  # fmt: skip
            return measure(model, self.case.test, num_classes=self.num_classes)

        return self.stages.get("arm", settings, make)

    def seconds(self, arm: Arm) -> float:
        """What this arm costs from the real images to the trained segmenter, all that it stands on included."""
        total = self.arm(arm).seconds
        if not arm.share:
            return total
        total += self.generator().seconds + self._synthetic(arm)[0].seconds
        if arm.is_best_of_many or arm.version or arm.recipe == "sure":
            total += sum(self._scorer_stage(f"fold {fold}").seconds for fold in range(self.num_folds))
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


def moved(label_map: LabelMap, draw: np.random.Generator) -> LabelMap:
    """Mirrored, turned by up to 15 degrees, scaled by up to 15 % and shifted by up to 10 %; the border reflects."""
    side = label_map.shape[0]
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), draw.uniform(-15, 15), draw.uniform(0.87, 1.15))
    matrix[:, 2] += draw.uniform(-0.1, 0.1, 2) * side
    if draw.random() < 0.5:
        label_map = np.ascontiguousarray(label_map[:, ::-1])
    turned = cv2.warpAffine(label_map, matrix, (side, side), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(turned, dtype=np.uint8)


def displaced(label_map: LabelMap, draw: np.random.Generator) -> LabelMap:
    """Shifted by 15 to 25 % of the side in a random direction; the border is repeated."""
    side = label_map.shape[0]
    angle, length = draw.uniform(0, 2 * math.pi), draw.uniform(0.15, 0.25) * side
    matrix = np.array([[1, 0, length * math.cos(angle)], [0, 1, length * math.sin(angle)]])
    shifted = cv2.warpAffine(label_map, matrix, (side, side), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(shifted, dtype=np.uint8)


def warped(label_map: LabelMap, draw: np.random.Generator) -> LabelMap:
    """Bent by a smooth random field of up to 8 % of the side (elastic deformation, Simard et al. 2003)."""
    side = label_map.shape[0]
    field = np.stack([cv2.GaussianBlur(draw.uniform(-1, 1, (side, side)), (0, 0), side / 8) for _ in range(2)])
    field *= 0.08 * side / max(float(np.abs(field).max()), 1e-9)
    rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    to_column, to_row = (columns + field[0]).astype(np.float32), (rows + field[1]).astype(np.float32)
    bent = cv2.remap(label_map, to_column, to_row, interpolation=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(bent, dtype=np.uint8)


def temperature_of(model: Classifier, examples: Sequence[Example]) -> float:
    """By images that the model has not seen; 1 where they are too few to tell."""
    if len(examples) < MIN_TO_CALIBRATE:
        return 1.0
    labels = np.array([class_of(example.label_map) for example in examples])
    found = calibrate(model.logits([example.image for example in examples]).numpy(), labels)
    return found.temperature if found else 1.0


def run_cell(cell: Cell, *, note: Callable[[str], None]) -> dict[str, Stage]:
    """Compute all arms of a cell; returns their stages by name."""
    devices.use_all_threads()
    found: dict[str, Stage] = {}
    for arm in cell.arms():
        stage = found[str(arm)] = cell.arm(arm)
        name = "F1" if cell.case.task == "classification" else "Dice"
        note(f"{cell.case.name}, {cell.num_real} real images, seed {cell.seed}: {arm}: {name} {told(cell.case.task, stage):.4f}")
    return found


def _gate_seeds(gate: Gate) -> list[int]:
    return [2**40 + index for index in range(len(gate.label_maps))]


def _kept(folder: Path, state: dict[str, torch.Tensor]) -> str:
    """Keep an adapter beside the checkpoint that names it."""
    data = weights.to_bytes(state)
    path = folder / f"{hashlib.sha256(data).hexdigest()[:20]}.safetensors"
    path.write_bytes(data)
    return str(path)


def _to_arrays(state: dict[str, torch.Tensor]) -> Arrays:
    return {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}


def _to_tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}


def _only_adapter(arrays: Arrays) -> Arrays:
    return {name: value for name, value in arrays.items() if not name.startswith("_")}
