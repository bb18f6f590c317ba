"""What is learnt from one draw of real images: the generator, selectors dealt by patient, and the judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saadi.downstream import models
from saadi.downstream.calibration import calibrate
from saadi.downstream.classifier import Classifier, class_of
from saadi.downstream.models import DownstreamModel
from saadi.downstream.segmenter import Segmenter
from saadi.downstream.training import ScorerConfig, misses_a_class, train, train_classifier
from saadi.downstream.usefulness import ranks, usefulness
from saadi.engines import few_shot, shipped
from saadi.engines.compact import CompactEngine
from saadi.engines.fitting import FitConfig, TrainingSet, borrow_shipped, fit
from saadi.errors import TooFewError
from saadi.evidence.cases import Case, Example, choose_real, digest
from saadi.evidence.settings import Models, Settings
from saadi.evidence.stages import Arrays, Stage, Stages
from saadi.jobs import Report, silent
from saadi.poses import displaced
from saadi.records import IGNORE, Image, LabelMap

STAGES_VERSION = 2
"""A new number when a stage computes something else under the same settings, so that none of an earlier release is taken."""
DOUBT = 0.2
"""Where the selector gives the asked class less than this, a pixel of a synthetic image says nothing (recipe 'sure')."""
MIN_TO_CALIBRATE = 8
CEILING_STEPS = 4
"""Times the steps of a fit: the more images, the longer there is something to learn."""
VOTERS_STEPS = 4
"""Times the steps of a selector: those who vote learn from several times as many images."""
ROUGH_STREAM = 77
"""Of the random numbers that displace label maps."""


@dataclass
class Learners:
    """All that a number of real images and a seed decide; every stage is computed when it is asked for."""

    case: Case
    num_real: int
    seed: int
    settings: Settings
    models: Models
    stages: Stages
    report: Report = silent
    """Called in every step of every stage, with the stage's own numbers of steps."""

    def __post_init__(self) -> None:
        scarce = [self.case.class_names.index(name) for name in self.settings.scarce]
        self.real = choose_real(self.case.train, self.num_real, seed=self.seed, scarce=scarce)
        self.num_classes = len(self.case.class_names)
        self.side = self.real[0].image.shape[0]
        self._folds = self._deal()
        self.num_folds = max(self._folds) + 1
        if self.settings.voters:
            self.others()  # refused before anything is computed
        self.test = digest(self.case.test)
        start = shipped.manifest()["engine"]["sha256"] if self.models.starts_from == "shipped" else None
        self.base = {"made_by": STAGES_VERSION, "case": self.case.name, "seed": self.seed, "real": digest(self.real),
                     "models": asdict(self.models), "start": start}  # fmt: skip

    def generator(self, *, of_all: bool = False, few: bool = False) -> Stage:
        """The shipped generator, fitted to the real images of this cell.

        Args:
            of_all: To all training images of the data set and their true label maps instead, with CEILING_STEPS times the steps;
                so it always is where a class is scarce on purpose.
            few: As `fit --few` does, which ends early, within the same number of steps.
        """
        if few:
            return self._few_shot_generator()
        knows_more = bool(self.settings.scarce)
        of_all, seed = of_all or knows_more, 0 if knows_more else self.seed  # one for all cells: their images do not matter to it
        steps = self.settings.fit_steps * (CEILING_STEPS if of_all else 1)
        settings = self.base | {"steps": steps}
        if of_all:
            settings = {name: value for name, value in settings.items() if name != "real"} | {"all": digest(self.case.train)}
            settings["seed"] = seed
        elif self.settings.rough:
            settings |= {"rough": self.settings.rough}

        def make() -> Arrays:
            torch.manual_seed(seed)
            engine = CompactEngine(self.models.generator)
            if self.models.starts_from == "shipped":
                borrow_shipped(engine)
            seen = self.case.train if of_all else self.real
            label_maps = [e.label_map for e in seen] if of_all else self.label_maps_to_fit()
            data = TrainingSet([e.image for e in seen], label_maps, engine=engine)
            fit(engine, data, FitConfig(num_steps=steps, sample_every=0, seed=seed), self.report,
                folder=self.stages.workspace("generator", settings))  # fmt: skip
            return to_arrays(engine.denoiser.state_dict())

        return self.stages.get("generator", settings, make)

    def _few_shot_generator(self) -> Stage:
        config = few_shot.config(num_steps=self.settings.fit_steps, seed=self.seed)
        settings = self.base | {"few": asdict(config)} | ({"rough": self.settings.rough} if self.settings.rough else {})

        def make() -> Arrays:
            torch.manual_seed(self.seed)
            engine = CompactEngine(self.models.generator)
            if self.models.starts_from == "shipped":
                borrow_shipped(engine)
            told = few_shot.fit_few(engine, [e.image for e in self.real], self.label_maps_to_fit(), [e.group for e in self.real],
                                    config, self.report, folder=self.stages.workspace("generator", settings))  # fmt: skip
            return to_arrays(engine.denoiser.state_dict()) | {f"_{name}": np.array(np.nan if value is None else value)
                                                                for name, value in told.items()}  # fmt: skip

        return self.stages.get("generator", settings, make)

    def label_maps_to_fit(self) -> list[LabelMap]:
        """Those of the real images, some of them displaced where labels are rough."""
        draw = np.random.default_rng([self.seed, ROUGH_STREAM])
        chosen = set(draw.permutation(len(self.real))[: round(self.settings.rough * len(self.real))].tolist())
        return [displaced(e.label_map, draw) if i in chosen else e.label_map for i, e in enumerate(self.real)]

    def engine(self, *, of_all: bool = False, few: bool = False) -> CompactEngine:
        return CompactEngine(self.models.generator, to_tensors(without_notes(self.generator(of_all=of_all, few=few).arrays)))

    def scorer(self, name: str) -> DownstreamModel:
        """'judge': all real images (where a class is scarce on purpose all training images, as the generator); 'fold 0', 'fold
        1': selectors that have not seen that fold's images. In the place of clinicians 'voters', trained on all other training
        images, or 'expert' (of ablations, without arms), on test patients."""
        stage, architecture = self.scorer_stage(name), self._architecture(name)
        if self.case.task == "classification":
            architecture = architecture | {"temperature": float(stage["_temperature"])}
        return models.load(architecture, to_tensors(without_notes(stage.arrays)))

    def _architecture(self, name: str) -> dict[str, Any]:
        return self.models.judge if name == "judge" else self.models.selector

    def scorer_stage(self, name: str) -> Stage:
        knows_more = name == "judge" and bool(self.settings.scarce)
        steps = self.settings.scorer_steps * (VOTERS_STEPS if name == "voters" or knows_more else 1)
        settings = self.base | {"name": name, "steps": steps}
        seed = 0 if knows_more else self.seed
        if knows_more:
            settings |= {"real": digest(self.case.train), "seed": seed}
        settings |= {"test": self.test} if name == "expert" else {"folds": self.num_folds} if name.startswith("fold") else {}
        settings |= {"others": digest(self.others())} if name == "voters" else {}

        def make() -> Arrays:
            fold = int(name.removeprefix("fold ")) if name.startswith("fold") else None
            apart = {"voters": self.others, "expert": lambda: list(self.case.test)}
            if knows_more:
                apart["judge"] = lambda: list(self.case.train)
            seen = apart[name]() if name in apart else [e for i, e in enumerate(self.real)
                                                        if self.fold(i) != fold or self.num_folds == 1]  # fmt: skip
            config = ScorerConfig(num_steps=steps, seed=seed * 10 + len(name))
            model = self.train(seen, architecture=self._architecture(name), config=config,
                               folder=self.stages.workspace("scorer", settings))  # fmt: skip
            arrays = to_arrays(model.network.state_dict())
            if isinstance(model, Classifier):  # calibrated on what it has not seen; of the judge only the order counts
                rest = self.real if name == "voters" else [e for i, e in enumerate(self.real) if self.fold(i) == fold]
                arrays["_temperature"] = np.array(temperature_of(model, rest))
            return arrays

        return self.stages.get("scorer", settings, make)

    def others(self) -> list[Example]:
        """Training images that are not among the real ones of this cell: what those who vote have learnt.

        Raises:
            TooFewError: There are fewer than these, or they lack a class.
        """
        mine = {id(example) for example in self.real}
        found = [example for example in self.case.train if id(example) not in mine]
        if len(found) < len(self.real):
            raise TooFewError(f"{len(found)} training images are left for those who vote, {len(self.real)} needed: as many as "
                              "the rest learns from; choose fewer real images, or leave --voters out")  # fmt: skip
        known, asked = ({int(index) for e in part for index in np.unique(e.label_map)} - {IGNORE} for part in (found, self.real))
        if missing := sorted(asked - known):
            raise TooFewError(f"no training image that is left for those who vote shows {self.case.class_names[missing[0]]}; "
                              "choose fewer real images, or leave --voters out")  # fmt: skip
        return found

    def selectors(self) -> list[str]:
        """Names; number N scores what fold N has not seen."""
        return [f"fold {fold}" for fold in range(self.num_folds)]

    def ordered_by(self) -> list[str]:
        """Names of those that order candidates."""
        return ["voters"] if self.settings.voters else self.selectors()

    def order(self) -> dict[str, Any]:
        """What the order of candidates depends on."""
        found: dict[str, Any] = {"scorers": self.keys_of(self.ordered_by())}
        return found if self.settings.prefer == "fidelity" else found | {"prefer": self.settings.prefer}

    def keys_of(self, names: Sequence[str]) -> list[str]:
        return [self.scorer_stage(name).key for name in names]

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

    def scores(self, images: Sequence[Image], masks: Sequence[tuple[LabelMap, int]]) -> NDArray[np.float64]:
        """Mean Dice over the asked classes (or the probability of the asked class), by the selector that has not seen the mask's
        image, or by those who vote; or the rank of their usefulness to that selector."""
        found, names = np.zeros(len(images)), self.ordered_by()
        for number, name in enumerate(names):
            chosen = [index for index, (_, source) in enumerate(masks) if len(names) == 1 or self.fold(source) == number]
            if not chosen:
                continue
            given, asked = [images[index] for index in chosen], [masks[index][0] for index in chosen]
            if self.settings.prefer == "fidelity":
                found[chosen] = [one.mean for one in self.scorer(name).fidelity(given, asked)]
            else:
                found[chosen] = ranks(self._usefulness(name, number, given, asked))
        return found

    def _usefulness(
        self, name: str, number: int, images: Sequence[Image], asked: Sequence[LabelMap]
    ) -> NDArray[np.float64]:
        """To a selector, for the real images that it has not seen; where it has seen all, for all of them."""
        unseen = [e for i, e in enumerate(self.real) if name == "voters" or self.num_folds == 1 or self.fold(i) == number]
        return usefulness(self.scorer(name), images, asked, real=[e.image for e in unseen],
                          real_label_maps=[e.label_map for e in unseen])  # fmt: skip

    def without_doubt(
        self, images: NDArray[np.uint8], masks: Sequence[tuple[LabelMap, int]]
    ) -> NDArray[np.uint8]:
        """Label maps, IGNORE where the selector that has not seen the mask's image gives the asked class less than DOUBT.

        Args:
            images: (N, side, side, 3), one per mask.

        Returns:
            (N, side, side).
        """
        found = np.stack([label_map for label_map, _ in masks])
        for fold, name in enumerate(self.selectors()):
            selector = self.scorer(name)
            assert isinstance(selector, Segmenter)
            chosen = [index for index, (_, source) in enumerate(masks) if self.fold(source) == fold]
            for index, seen in zip(chosen, selector.probabilities([images[index] for index in chosen]), strict=True):
                asked = torch.from_numpy(masks[index][0].astype(np.int64))[None].to(seen.device)
                sure = seen.gather(0, asked.clamp(max=self.num_classes - 1))[0] >= DOUBT
                found[index][~sure.cpu().numpy()] = IGNORE
        return found


def temperature_of(model: Classifier, examples: Sequence[Example]) -> float:
    """By images that the model has not seen; 1 where they are too few to tell."""
    if len(examples) < MIN_TO_CALIBRATE:
        return 1.0
    labels = np.array([class_of(example.label_map) for example in examples])
    found = calibrate(model.logits([example.image for example in examples]).numpy(), labels)
    return found.temperature if found else 1.0


def to_arrays(state: dict[str, torch.Tensor]) -> Arrays:
    return {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}


def to_tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}


def without_notes(arrays: Arrays) -> Arrays:
    """Weights alone: what is said about them has names that begin with '_'."""
    return {name: value for name, value in arrays.items() if not name.startswith("_")}
