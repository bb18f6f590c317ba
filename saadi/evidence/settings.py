"""What a measurement of synthetic data is made of: its arms, their budgets, and the architectures that learn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from saadi.alignment.settings import AlignmentConfig
from saadi.downstream import models
from saadi.engines.compact import default_architecture as engine_architecture
from saadi.evidence.cases import Case, is_rendered
from saadi.orders.recipe import LossName

Recipe = Literal["mixed", "first", "sure"]
"""'mixed': real and synthetic images in the same batches. 'first': half of the steps on synthetic images alone, then half on real
ones alone. 'sure': as mixed, without those synthetic pixels in which the selector sees another class than the asked one."""
Prefer = Literal["fidelity", "usefulness"]
"""What candidates are ordered by: how well a selector finds the asked mask, or how much a training step on the image would help
that selector on real images it has not seen (`saadi.downstream.usefulness`)."""
Masks = Literal["moved", "warped"]
"""'moved': mirrored, turned, scaled and shifted. 'warped': and bent, so that no outline is one of a real image."""


@dataclass(frozen=True)
class Arm:
    """One way to train a segmenter."""

    kind: str
    """'plain' (real images, no augmentation), 'augmented' (real images), 'base' (and images of the base generator), 'ceiling'
    (and images of one that was fitted to all training images of the data set), 'rejection' (best of K of the base's),
    'aligned N' (of the generator after N rounds), 'curated N' (best of K of those), or one of
    `saadi.evidence.extra_arms.EXTRA_ARMS`."""
    share: float = 0.0
    """Synthetic images per real one."""
    recipe: Recipe = "mixed"

    @property
    def version(self) -> int:
        """Of the generator: 0 = base."""
        return int(self.kind.split()[1]) if self.kind.startswith(("aligned", "curated")) else 0

    def of_version(self, version: int) -> Arm:
        """The same arm with the generator after another number of rounds."""
        before = "rejection" if self.is_best_of_many else "base"
        return replace(self, kind=f"{self.kind.split()[0]} {version}" if version else before)

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
    ceiling: bool = False
    """Also an arm whose generator has seen all training images: what no preference learnt from fewer can be expected to beat."""
    extras: tuple[str, ...] = ()
    """Also these of `saadi.evidence.extra_arms.EXTRA_ARMS`."""
    curated: bool = False
    """Also arms that take the best of K images of the aligned generator."""
    learning_rate: float = AlignmentConfig.learning_rate
    """Of the alignment."""
    sft_weight: float = AlignmentConfig.sft_weight
    sdpo_mu: float | None = None
    loss: LossName = "dpo"
    """As in `AlignmentConfig`, like the weight of its denoising term."""
    real_winners_alone: bool = False
    """Learn only from pairs whose winner is the mask's own real image, not from what selectors prefer among synthetic ones."""
    gated: bool = True
    """Keep the best checkpoint that passes the gate; False = the last one whatever the gate says: what its limits cost."""
    voters: bool = False
    """Who orders candidates: False = the cross-fitted selectors, which know the real images of the cell alone; True = in the
    place of clinicians a segmenter that has learnt all other training images, as only a ceiling's generator has."""
    prefer: Prefer = "fidelity"
    folds: int = 2
    """Selectors, each trained without the patients that it scores."""
    rough: float = 0.0
    """Share of the generator's training images whose label maps are displaced, as quick or badly synchronised labels are.
    Everything else learns from the true ones: a planted fault that alignment should heal."""
    scarce: tuple[str, ...] = ()
    """Classes of a kind of object that `saadi.evidence.cases.SCARCE_SHOWN` real images of a cell show and no more, while the
    generator and the judge have learnt it from all training images: a planted weakness of everything else, which images made for
    it should mend."""
    draws: int = 1
    """Per arm: draws of synthetic masks and noise, each with another start of the segmenter. Drawing others moves an arm by as
    much as most changes do."""
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
    def of(cls, case: Case, *, side: int, width: float = 1.0, knows_more: bool = False) -> Self:
        """The program's own architectures, none of which looks closer than the images are.

        Args:
            side: Of the images, in pixels.
            width: Channels of the downstream networks, as a share of the program's own: smaller ones learn in less time.
            knows_more: The generator is meant to know what the real images of a cell do not show.
        """
        num_classes = len(case.class_names)
        selector, judge = (
            _sized(models.default_architecture(case.task, kind, num_classes=num_classes), side=side, width=width)
            for kind in ("selector", "judge")
        )
        # The shipped generator has seen thousands of rendered scenes.
        starts_from: Literal["shipped", "random"] = "random" if is_rendered(case) and not knows_more else "shipped"
        return cls(engine_architecture(num_classes=num_classes, resolution=side), selector, judge, starts_from)


def _sized(architecture: dict[str, Any], *, side: int, width: float) -> dict[str, Any]:
    """With fewer or more channels, in eights so that norms can group them."""
    def scaled(channels: int) -> int:
        return max(8, round(channels * width / 8) * 8)

    found = architecture | {"size_px": min(side, architecture["size_px"])}
    found |= {name: [scaled(one) for one in architecture[name]] for name in ("channels", "widths") if name in architecture}
    return found | {name: scaled(architecture[name]) for name in ("init_filters",) if name in architecture}
