"""Downstream models of either task, by architecture: what selectors, judges and evaluators have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from saadi.downstream import classifier, segmenter
from saadi.downstream.metrics import Fidelity
from saadi.downstream.segmenter import Prediction
from saadi.engines import weights
from saadi.records import Image, LabelMap, Task


class DownstreamModel(Protocol):
    """Looks at images; trained on real ones."""

    architecture: dict[str, Any]
    network: nn.Module

    def predict(self, images: Sequence[Image]) -> list[Prediction]:
        """What it sees, as label maps of the images' sizes."""

    def fidelity(self, images: Sequence[Image], asked: Sequence[LabelMap]) -> list[Fidelity]:
        """How far it sees what was asked for, per image."""

    def features(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """(N, D) feature space for distances."""


def load(architecture: dict[str, Any], state: dict[str, Tensor] | None = None) -> DownstreamModel:
    """The model of an architecture; random weights without a state."""
    kind = classifier.Classifier if architecture["model"] in classifier.CLASSIFIERS else segmenter.Segmenter
    return kind(architecture, state)


def from_file(architecture: dict[str, Any], file: Path) -> DownstreamModel:
    """Raises: WeightsError: The file is damaged, or of another architecture."""
    return load(architecture, weights.read(file))


def default_architecture(task: Task, kind: Literal["selector", "judge"], *, num_classes: int) -> dict[str, Any]:
    """The measured default of a task."""
    module = classifier if task == "classification" else segmenter
    return module.default_architecture(kind, num_classes=num_classes)
