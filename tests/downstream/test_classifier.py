"""Classifiers offer what segmenters do, so that pairs, gates and evidence serve both tasks."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from saadi.downstream import classifier, models, training
from saadi.downstream.classifier import Classifier, class_of
from saadi.downstream.segmenter import Segmenter
from saadi.engines import weights
from saadi.errors import BadInputError, WeightsError
from saadi.jobs import silent
from tests import tiny

KINDS = {"selector": {"widths": [8, 8, 16, 16]}, "judge": {"growth_rate": 4, "blocks": [1, 1, 1, 1]}}


def architecture(kind: str, *, num_classes: int = 3) -> dict:
    return classifier.default_architecture(kind, num_classes=num_classes) | KINDS[kind] | {"size_px": 32}


def coloured(count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Red, green and blue noise: class 0, 1, 2 in turn."""
    draw = np.random.default_rng(0)
    images, maps = [], []
    for index in range(count):
        image = draw.integers(0, 90, (24, 24, 3))
        image[..., index % 3] += 120
        images.append(image.astype(np.uint8))
        maps.append(np.full((24, 24), index % 3, np.uint8))
    return images, maps


@pytest.mark.parametrize("kind", ["selector", "judge"])
def test_what_it_learns_is_the_class_and_its_probability(kind: str, tmp_path):
    images, maps = coloured(24)
    config = training.ScorerConfig(num_steps=30, batch_size=8, learning_rate=5e-3)
    made = training.train_classifier(images, maps, architecture=architecture(kind), config=config, report=silent)
    fresh, asked = coloured(9)
    found = made.fidelity(fresh, asked)
    assert np.mean([one.mean for one in found]) > 0.5
    for one, label_map in zip(found, asked, strict=True):
        assert one.per_class == {int(label_map[0, 0]): one.mean}
    assert np.allclose(made.probabilities(fresh).sum(1), 1)
    seen = made.predict(fresh)
    assert all(one.label_map.shape == (24, 24) and one.label_map.min() == one.label_map.max() for one in seen)
    file = tmp_path / "weights.safetensors"
    file.write_bytes(weights.to_bytes(made.network.state_dict()))
    again = models.from_file(made.architecture, file)
    assert np.allclose(again.features(fresh), made.features(fresh)) and made.features(fresh).shape[0] == 9


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    images, maps = coloured(8)
    config = training.ScorerConfig(num_steps=4, batch_size=4)
    whole = training.train_classifier(images, maps, architecture=architecture("selector"), config=config, report=silent)

    def stop(step, total, message, *, metrics=None, images=None):
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", -1.0)
    architecture_ = architecture("selector")
    learn = partial(training.train_classifier, images, maps, architecture=architecture_, config=config, folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        learn(report=stop)
    resumed = learn(report=silent)
    for name, tensor in whole.network.state_dict().items():
        torch.testing.assert_close(resumed.network.state_dict()[name], tensor, rtol=0, atol=0)


def test_several_classes_in_one_label_map_are_no_class():
    assert class_of(np.full((4, 4), 2, np.uint8)) == 2
    with pytest.raises(BadInputError, match=r"one class for the whole image is expected, this label map holds \[0, 1\]"):
        class_of(np.array([[0, 1]], np.uint8))


def test_the_architecture_says_which_kind_it_is():
    assert isinstance(models.load(architecture("judge")), Classifier)
    assert isinstance(models.load(tiny.segmenter("unet").architecture), Segmenter)
    with pytest.raises(WeightsError, match="another architecture"):
        models.load(architecture("judge"), Classifier(architecture("selector")).network.state_dict())


def test_a_temperature_changes_how_sure_it_is_not_what_it_says():
    images, _ = coloured(6)
    torch.manual_seed(0)
    plain = Classifier(architecture("selector"))
    cool = Classifier(plain.architecture | {"temperature": 5.0}, plain.network.state_dict())
    assert (plain.probabilities(images).argmax(1) == cool.probabilities(images).argmax(1)).all()
    assert (cool.probabilities(images).max(1) < plain.probabilities(images).max(1)).all()
