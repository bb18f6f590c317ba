"""The shipped mask generator: two hundred drawings against rendered label maps (methods.md, section 2, acceptance 2)."""

from __future__ import annotations

from contextlib import suppress
from itertools import combinations

import numpy as np
import pytest

from saadi.datasets import phantom
from saadi.engines import shipped
from saadi.errors import BadInputError
from saadi.mask_generator.anatomy import Anatomy, overlap, part_shares
from saadi.mask_generator.model import MaskGenerator
from saadi.masks import fit_to
from saadi.records import LabelMap

NUM_DRAWS, NUM_REAL, SIDE = 200, 64, 128
PEN = 1.05
"""A pen's width, by which ranges are widened."""
COMPARED = 60
"""Of either, for the mean overlap of two."""


@pytest.fixture(scope="module")
def real() -> list[LabelMap]:
    scenes = (phantom.render(700_000 + number, patient=300 + number // 4) for number in range(NUM_REAL))
    return [fit_to(scene.label_map, size=(SIDE, SIDE)) for scene in scenes]


@pytest.fixture(scope="module")
def made(real: list[LabelMap]) -> MaskGenerator:
    """As the demo has it: shipped weights, anatomy and poses of its own label maps."""
    entry = shipped.manifest()["masks"]
    anatomy = Anatomy.of(real, num_classes=entry["architecture"]["num_classes"])
    return MaskGenerator.from_file(entry["architecture"] | {"anatomy": anatomy.as_json()}, shipped.file("masks"), real=real)


@pytest.fixture(scope="module")
def drawn(made: MaskGenerator) -> list[LabelMap]:
    found = []
    for seed in range(NUM_DRAWS):
        with suppress(BadInputError):  # nothing that passes the anatomy in so many tries, which it says
            found += made.suggest(1, seed=seed, side=SIDE)
    assert len(found) >= 0.98 * NUM_DRAWS and np.mean([one.tries for one in found]) < 2.5
    return [one.label_map for one in found]


def test_sizes_and_parts_are_those_of_real_masks(made: MaskGenerator, real: list[LabelMap], drawn: list[LabelMap]):
    for index in range(1, made.num_classes):
        known = [(label_map == index).mean() for label_map in real if (label_map == index).any()]
        low, high = np.percentile(known, [1, 99])
        areas = np.array([(label_map == index).mean() for label_map in drawn if (label_map == index).any()])
        assert len(areas) and ((areas >= low / PEN) & (areas <= high * PEN)).all(), (index, low, high, areas)
        assert np.percentile(known, 10) < np.median(areas) < np.percentile(known, 90), index
        most = max(len(part_shares(label_map, index)) for label_map in real)
        assert max(len(part_shares(label_map, index)) for label_map in drawn) <= most, index
        # No class is forgotten: it comes at least half as often as in real masks.
        assert len(areas) / len(drawn) >= 0.5 * len(known) / len(real), index


def test_they_are_no_copies_and_as_different_from_each_other_as_real_ones(real: list[LabelMap], drawn: list[LabelMap]):
    nearest = np.array([max(overlap(label_map, other) for other in real) for label_map in drawn[:COMPARED]])
    assert (nearest < 0.98).mean() >= 0.95

    def mean_overlap(label_maps: list[LabelMap]) -> float:
        return float(np.mean([overlap(*pair) for pair in combinations(label_maps[:COMPARED], 2)]))

    assert mean_overlap(drawn) <= mean_overlap(real)


def test_the_same_seed_gives_the_same_mask(made: MaskGenerator):
    once, again = (made.suggest(1, seed=5, side=SIDE)[0] for _ in range(2))
    np.testing.assert_array_equal(once.label_map, again.label_map)
    assert (once.seed, once.base, once.tries) == (again.seed, again.base, again.tries)
