import numpy as np
import pytest
import torch

from saadi.downstream import training
from saadi.downstream.segmenter import default_architecture
from saadi.downstream.training import ScorerConfig, train
from saadi.errors import CancelledError
from saadi.jobs import silent
from tests import tiny


@pytest.mark.parametrize("model", ["unet", "segresnet"])
def test_prediction_has_the_image_size_and_features_one_row_per_image(model):
    images, _ = tiny.scenes(3, side=40)
    made = tiny.segmenter(model)
    found = made.predict(images)
    assert [item.label_map.shape for item in found] == [(40, 40)] * 3
    assert all(1 / 3 <= item.confidence <= 1 for item in found)
    assert made.features(images).shape[0] == 3 and np.isfinite(made.features(images)).all()


@pytest.mark.parametrize("model", ["unet", "segresnet"])
def test_predictions_and_features_of_one_pass_are_those_of_two(model):
    images, _ = tiny.scenes(5, side=40)
    made = tiny.segmenter(model)
    found, features = made.predict_with_features(images)
    assert np.array_equal(features, made.features(images)) and features.shape[0] == 5
    for one, other in zip(found, made.predict(images), strict=True):
        assert np.array_equal(one.label_map, other.label_map) and one.confidence == other.confidence


def test_selector_and_judge_are_different_families():
    assert default_architecture("selector", num_classes=2)["model"] != default_architecture("judge", num_classes=2)["model"]


@pytest.mark.parametrize("model", ["unet", "segresnet"])
def test_training_finds_the_organ_in_unseen_scenes(model):
    images, label_maps = tiny.scenes(24, side=32)
    architecture = tiny.segmenter(model).architecture
    config = ScorerConfig(num_steps=60, batch_size=8, learning_rate=1e-2)
    made = train(images, label_maps, architecture=architecture, config=config, report=silent)
    image, label_map = tiny.scene(99, side=32)
    organ = made.predict([image])[0].label_map == 1
    assert 2 * (organ & (label_map == 1)).sum() / (organ.sum() + (label_map == 1).sum()) > 0.7


@pytest.mark.parametrize(("model", "end", "left"), [
    ("unet", CancelledError, [5, 6]),  # a stop is kept at once
    ("segresnet", KeyboardInterrupt, [4, 5, 6]),  # a kill goes back to the last checkpoint
])  # fmt: skip
def test_interrupted_training_equals_uninterrupted(model, end, left, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    images, label_maps = tiny.scenes(8, side=32)
    wanted = {"architecture": tiny.segmenter(model).architecture, "config": ScorerConfig(num_steps=6, batch_size=4)}

    def stop_at_four(step, total, message, *, metrics=None, images=None):
        if step == 4:
            raise end("ended")

    whole = train(images, label_maps, report=silent, **wanted)
    with pytest.raises(end):
        train(images, label_maps, report=stop_at_four, folder=tmp_path, **wanted)
    steps: list[int] = []
    resumed = train(images, label_maps, report=lambda step, *rest, **more: steps.append(step), folder=tmp_path, **wanted)
    assert steps == left
    for name, tensor in whole.network.state_dict().items():
        torch.testing.assert_close(resumed.network.state_dict()[name], tensor, rtol=0, atol=0, msg=name)


def test_unknown_pixels_are_not_learnt():
    images, label_maps = tiny.scenes(8, side=32)
    blind = [np.full_like(label_map, 255) for label_map in label_maps]
    seen: list[float] = []

    def note(step, total, message, *, metrics=None, images=None):
        seen.extend((metrics or {}).values())

    train(
        images,
        [*label_maps[:4], *blind[4:]],
        architecture=tiny.segmenter("unet").architecture,
        config=ScorerConfig(num_steps=20, batch_size=8),
        report=note,
    )
    assert seen and np.isfinite(seen).all()


def test_images_of_different_sizes_keep_their_own():
    found = tiny.segmenter("unet").predict([tiny.scene(0, side=40)[0], tiny.scene(1, side=24)[0]])
    assert [item.label_map.shape for item in found] == [(40, 40), (24, 24)]
