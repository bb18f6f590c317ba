"""Does synthetic data make a downstream model better? Arms with equal training budgets, measured on patients nobody has seen.

For each number of real images and each seed everything is learnt from those images alone: generator (from the shipped weights),
selectors, judge, alignment. Masks for synthetic images are moved, turned and scaled versions of the real ones. Three exceptions
are asked for by name: a ceiling, whose generator has seen all training images, voters, who stand for clinicians, and a kind of
object that is scarce on purpose, which generator and judge know from all training images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saadi import devices
from saadi.downstream.training import ScorerConfig
from saadi.evidence.cases import Case, Example
from saadi.evidence.extra_arms import EXTRA_ARMS, OF_WEAKNESS, ExtraArms
from saadi.evidence.learners import DOUBT, Learners
from saadi.evidence.measures import measure, told
from saadi.evidence.rounds import Masks, Rounds
from saadi.evidence.settings import Arm, Models, Settings
from saadi.evidence.stages import Arrays, Stage, Stages

FIRST_OF_DRAW = 10_000_000
"""Each draw's masks have numbers of their own, beyond all others."""
SEEDS_OF_DRAW = 2**36


class Cell:
    """Everything for one number of real images and one seed, stage by stage."""

    def __init__(self, case: Case, num_real: int, seed: int, settings: Settings, models: Models, stages: Stages) -> None:
        self.case, self.num_real, self.seed, self.settings, self.models = case, num_real, seed, settings, models
        self.stages = stages
        self.learners = Learners(case, num_real, seed, settings, models, stages)
        self.rounds = Rounds(self.learners)
        self.extras = ExtraArms(self.learners, self.rounds)
        self.extras.check(settings.extras)
        self.extras.check_settings(settings.extras, settings)

    def synthetic(self, arm: Arm, *, draw: int = 0) -> tuple[Stage, Masks]:
        """As many synthetic images as the largest share asks for, and their masks: the same ones for every kind of arm.

        Args:
            draw: Other masks and other noise.
        """
        arm, count = self._in_use(arm), math.ceil(max(self.settings.shares) * self.num_real)
        masks = self.rounds.masks(count, first=draw * FIRST_OF_DRAW)
        if arm.kind in EXTRA_ARMS:
            own = partial(self.extras.make, arm.kind, count, first_mask=draw * FIRST_OF_DRAW, first_seed=self._first_seed(draw))
            wanted = self._source(arm, draw) | {"count": count, "shape": self.settings.masks}
            return self.stages.get("synthetic", wanted, own), masks
        k = self.settings.candidates if arm.is_best_of_many else 1

        def make() -> Arrays:
            many = [mask for mask in masks for _ in range(k)]
            first = self._first_seed(draw)
            engine = self.learners.engine(of_all=True) if arm.kind == "ceiling" else None
            made = self.rounds.images(arm.version, many, [first + index for index in range(len(many))], engine=engine)
            if k > 1:
                scores = self.learners.scores(made, many).reshape(count, k)
                made = [made[row * k + int(scores[row].argmax())] for row in range(count)]
            return {"images": np.stack(made)}

        wanted = self._source(arm, draw) | {"count": count, "shape": self.settings.masks}
        return self.stages.get("synthetic", wanted, make), masks

    def _first_seed(self, draw: int) -> int:
        return 2**32 + draw * SEEDS_OF_DRAW + self.seed * 1_000_000

    def _in_use(self, arm: Arm) -> Arm:
        """The arm whose images these are: after a refused round those of the version before."""
        version = self.rounds.in_use(arm.version)
        return arm if version == arm.version else arm.of_version(version)

    def _source(self, arm: Arm, draw: int) -> dict[str, Any]:
        """What each of an arm's synthetic images depends on."""
        upstream = {"generator of all": self.learners.generator(of_all=True).key} if arm.kind == "ceiling" else {}
        found = self.rounds.upstream(arm.version) | upstream | ({"draw": draw} if draw else {})
        if arm.kind in EXTRA_ARMS:
            return found | self.extras.upstream(arm.kind)
        if not arm.is_best_of_many:
            return found | {"k": 1}
        return found | {"k": self.settings.candidates} | self.learners.order()

    def _extra(self, arm: Arm, count: int, draw: int) -> list[Example]:
        """The synthetic part of an arm's training set."""
        stage, masks = self.synthetic(arm, draw=draw)
        images: NDArray[np.uint8] = stage["images"]
        label_maps = stage["label_maps"] if "label_maps" in stage.arrays else np.stack([label_map for label_map, _ in masks])
        if arm.recipe == "sure":
            label_maps = self.learners.without_doubt(images, masks)
        return [Example(*pair, "") for pair in zip(images[:count], label_maps[:count], strict=True)]

    def arm(self, arm: Arm, *, draw: int = 0) -> Stage:
        """Train one downstream model and measure it on the test patients.

        Args:
            draw: Another start of that model and, where it has synthetic images, other masks and noise.

        Returns:
            dice, iou, hd95: (N, num_classes) per test image, NaN where the class is in neither mask; group: (N,). In
            classification: probabilities (N, num_classes), label (N,) and group.
        """
        arm, learners, steps = self._in_use(arm), self.learners, self.settings.downstream_steps
        count = math.ceil(arm.share * self.num_real)
        source = self._source(arm, draw) | {"shape": self.settings.masks} if count else {"draw": draw} if draw else {}
        if arm.recipe == "sure":
            source |= {"judged by": learners.keys_of(learners.selectors()), "doubt": DOUBT}
        wanted = learners.base | {"arm": asdict(arm), "steps": steps, "source": source, "test": learners.test}

        def make() -> Arrays:
            more = self._extra(arm, count, draw) if count else []
            folder = self.stages.workspace("arm", wanted)
            learn = partial(learners.train, architecture=self.models.selector)
            config = ScorerConfig(num_steps=steps, seed=1000 + self.seed + 100_000 * draw, augments=arm.kind != "plain")
            if arm.recipe != "first":
                model = learn([*learners.real, *more], config=config, folder=folder)
            else:
                first = learn(more, config=replace(config, num_steps=steps // 2), folder=folder / "first").network.state_dict()
                model = learn(learners.real, config=replace(config, num_steps=steps - steps // 2), start=first,
                              folder=folder / "then")  # fmt: skip
            return measure(model, self.case.test, num_classes=learners.num_classes)

        return self.stages.get("arm", wanted, make)

    def seconds(self, arm: Arm) -> float:
        """What this arm costs from the real images to the trained segmenter, all that it stands on included but those who vote:
        they stand for people."""
        learners, total = self.learners, self.arm(arm).seconds
        if not arm.share:
            return total
        total += learners.generator(of_all=arm.kind == "ceiling", few=arm.kind == "few").seconds + self.synthetic(arm)[0].seconds
        scorers = {"fold 0", "judge"} if arm.version else {"judge"} if arm.kind in ("mined", "learned") else set()
        needs = (*OF_WEAKNESS, "refined", "unlike")
        if arm.recipe == "sure" or arm.kind in needs or ((arm.is_best_of_many or arm.version) and not self.settings.voters):
            scorers |= set(learners.selectors())
        total += sum(learners.scorer_stage(name).seconds for name in sorted(scorers))
        if arm.kind == "learned":
            total += self.extras.start_stage().seconds
        if arm.version:
            total += sum(self.rounds.round(version).seconds + self.rounds.pool_stage(version - 1).seconds
                         for version in range(1, arm.version + 1))  # fmt: skip
        return total

    def arms(self) -> list[Arm]:
        rounds = range(1, self.settings.rounds + 1)
        ceiling = ["ceiling"] if self.settings.ceiling else []
        extras = [kind for kind in EXTRA_ARMS if kind in self.settings.extras]
        kinds = ["base", *extras, *ceiling, "rejection", *(f"aligned {number}" for number in rounds)]
        kinds += [f"curated {number}" for number in rounds] if self.settings.curated else []
        how = [(share, recipe) for share in self.settings.shares for recipe in self.settings.recipes]
        return [Arm("plain"), Arm("augmented"), *(Arm(kind, *one) for one in how for kind in kinds)]


Measured = dict[str, list[Stage]]
"""Per arm, by name, its measurement in each draw."""


def run_cell(cell: Cell, *, note: Callable[[str], None]) -> Measured:
    """Compute all arms of a cell, draw by draw: what is there after the first is a whole measurement already."""
    devices.use_all_threads()
    found: Measured = {str(arm): [] for arm in cell.arms()}
    name = "F1" if cell.case.task == "classification" else "Dice"
    for draw in range(cell.settings.draws):
        for arm in cell.arms():
            stage = cell.arm(arm, draw=draw)
            found[str(arm)].append(stage)
            words = f"{arm}, draw {draw + 1} of {cell.settings.draws}" if cell.settings.draws > 1 else f"{arm}"
            note(f"{cell.case.name}, {cell.num_real} real images, seed {cell.seed}: {words}: {name} "
                 f"{told(cell.case.task, stage):.4f}")  # fmt: skip
    return found
