"""Cross-fitted selectors: the patients are dealt out to folds, and each selector has not seen those of its own fold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saadi.downstream.classifier import CLASSIFIERS, Classifier, fidelities_of, predictions_of
from saadi.downstream.metrics import Fidelity
from saadi.downstream.segmenter import Prediction, Segmenter, deepest_means, fidelity_of, prediction_of
from saadi.engines import weights
from saadi.records import Image, LabelMap

One = TypeVar("One", Segmenter, Classifier)


def assign_folds(groups: Sequence[str], held: NDArray[np.bool_], *, num_folds: int) -> dict[str, int]:
    """Deal patients out so that folds are alike in images and in images of each class; the same input gives the same folds.

    The patient with the most images comes first (equal ones by name), each goes where the folds stay most even.

    Args:
        groups: (N,) patient of each image.
        held: (N, num_classes) which classes each image shows.

    Returns:
        Patient -> fold in 0 .. min(num_folds, number of patients) - 1.
    """
    table = np.column_stack([np.ones(len(groups)), held]).astype(np.float64)
    names, place = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
    # Every column weighs the same however rare its class is: a fold without it could not learn it.
    sums = np.zeros((len(names), table.shape[1]))
    np.add.at(sums, place, table / np.maximum(table.sum(0), 1))
    of_group = dict(zip(names.tolist(), sums, strict=True))
    size = Counter(groups)
    loads = np.zeros((min(num_folds, len(names)), table.shape[1]))
    found: dict[str, int] = {}
    for name in sorted(of_group, key=lambda name: (-size[name], name)):
        costs = [float(((load + of_group[name]) ** 2 - load**2).sum()) for load in loads]
        # A fold must not stay empty, however rare the classes of the last patients are.
        empty = [index for index in range(len(loads)) if index not in found.values()]
        num_left = len(names) - len(found)
        allowed = empty if empty and num_left <= len(empty) else range(len(loads))
        found[name] = min(allowed, key=lambda index: (costs[index], index))
        loads[found[name]] += of_group[name]
    return found


class _Folds(Generic[One]):
    """The selectors of a project in one; one alone where there are no folds. Picklable by architecture and file."""

    def __init__(self, folds: Sequence[One], fold_of: Mapping[str, int]) -> None:
        """Args: fold_of: Patient -> the fold whose selector has not seen it; empty where there is one selector only."""
        self.folds: list[One] = list(folds)
        self.fold_of = dict(fold_of)

    def state(self) -> dict[str, Tensor]:
        """All weights, for one file."""
        if len(self.folds) == 1:
            return self.folds[0].network.state_dict()
        return {f"fold{index}.{name}": tensor for index, one in enumerate(self.folds)
                for name, tensor in one.network.state_dict().items()}  # fmt: skip

    def features(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """(N, D) float32 by the first selector, whoever may have seen what: vectors of two networks cannot be compared."""
        return self.folds[0].features(images)

    def _places(self, images: Sequence[Image], groups: Sequence[str | None] | None) -> list[int | None]:
        """The fold that looks at each image; None = all of them."""
        if len(self.folds) == 1:
            return [0] * len(images)
        return [self.fold_of.get(group) if group is not None else None for group in groups or [None] * len(images)]


class CrossFitted(_Folds[Segmenter]):
    """Cross-fitted segmenters."""

    @classmethod
    def from_file(cls, architecture: dict[str, Any], file: Path) -> CrossFitted:
        """A selector of any release: those without folds are one network that may have seen every training patient."""
        return cls([Segmenter(*both) for both in _parts(architecture, file)], architecture.get("fold_of", {}))

    def predict(self, images: Sequence[Image], groups: Sequence[str | None] | None = None) -> list[Prediction]:
        """What is seen in each image by the selector that has not seen its patient.

        Args:
            groups: The patient each image, or its mask, comes from. None (a drawing without a picture under it), or one that no
                selector has seen (a validation or test patient), is looked at by all of them: the mean of their probabilities.
        """
        places = self._places(images, groups)
        found: dict[int, Prediction] = {}
        for fold in sorted(set(places), key=str):
            chosen = [index for index, place in enumerate(places) if place == fold]
            part = [images[index] for index in chosen]
            found |= dict(zip(chosen, self._mean(part) if fold is None else self.folds[fold].predict(part), strict=True))
        return [found[index] for index in range(len(images))]

    def fidelity(self, images: Sequence[Image], asked: Sequence[LabelMap]) -> list[Fidelity]:
        """As `Segmenter.fidelity`, by the mean of all folds."""
        return fidelity_of(self.predict(images), asked, num_classes=self.folds[0].architecture["num_classes"])

    def predict_with_features(
        self, images: Sequence[Image], groups: Sequence[str | None] | None = None
    ) -> tuple[list[Prediction], NDArray[np.float32]]:
        """`predict` and `features`, in one pass where one network does both."""
        places = self._places(images, groups)
        if set(places) == {0}:
            return self.folds[0].predict_with_features(images)
        if None in places and len(set(places)) == 1:
            with deepest_means(self.folds[0].network) as caught:
                found = self._mean(images)
            return found, np.asarray(torch.cat(caught).numpy(), dtype=np.float32)
        return self.predict(images, groups), self.features(images)

    def _mean(self, images: Sequence[Image]) -> list[Prediction]:
        everything = zip(*(one.probabilities(images) for one in self.folds), strict=True)
        return [prediction_of(torch.stack(parts).mean(0)) for parts in everything]


class CrossFittedClassifiers(_Folds[Classifier]):
    """Cross-fitted classifiers. A synthetic image is made for a class, which is no patient's: all of them look at it."""

    @classmethod
    def from_file(cls, architecture: dict[str, Any], file: Path) -> CrossFittedClassifiers:
        return cls([Classifier(*both) for both in _parts(architecture, file)], architecture.get("fold_of", {}))

    def probabilities(self, images: Sequence[Image], groups: Sequence[str | None] | None = None) -> NDArray[np.float64]:
        """(N, num_classes) calibrated probabilities by the classifier that has not seen the patient.

        Args:
            groups: As in `CrossFitted.predict`.
        """
        places = self._places(images, groups)
        found = np.empty((len(images), self.folds[0].num_classes))
        for fold in sorted(set(places), key=str):
            chosen = [index for index, place in enumerate(places) if place == fold]
            looking = self.folds if fold is None else [self.folds[fold]]
            found[chosen] = np.mean([one.probabilities([images[index] for index in chosen]) for one in looking], axis=0)
        return found

    def predict(self, images: Sequence[Image], groups: Sequence[str | None] | None = None) -> list[Prediction]:
        """The likeliest class of each image, as a label map of its size."""
        return predictions_of(images, self.probabilities(images, groups))

    def fidelity(self, images: Sequence[Image], asked: Sequence[LabelMap]) -> list[Fidelity]:
        """The probability of the asked class, by the mean of all folds."""
        return fidelities_of(self.probabilities(images), asked)


def selector_from_file(architecture: dict[str, Any], file: Path) -> CrossFitted | CrossFittedClassifiers:
    """The selector of a project of either task."""
    kind = CrossFittedClassifiers if architecture["model"] in CLASSIFIERS else CrossFitted
    return kind.from_file(architecture, file)


def _parts(architecture: dict[str, Any], file: Path) -> list[tuple[dict[str, Any], dict[str, Tensor]]]:
    """Architecture and weights of each fold; one where there are no folds."""
    state, count = weights.read(file), architecture.get("folds", 1)
    if count == 1:
        return [(architecture, state)]
    parts: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for name, tensor in state.items():
        fold, _, own_name = name.partition(".")
        parts[int(fold.removeprefix("fold"))][own_name] = tensor
    settings = [architecture | {"temperature": temperature} for temperature in architecture["temperatures"]]
    return list(zip(settings, parts, strict=True))
