from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from saadi.engines import lora, shipped, weights
from saadi.engines.compact import CompactEngine, default_architecture
from saadi.engines.fitting import FitConfig, Trainer, TrainingSet, borrow_shipped, class_weights, draw_batch, fit, sweep_samplers
from saadi.errors import CancelledError
from saadi.jobs import silent
from tests import tiny

CONFIG = FitConfig(num_steps=6, batch_size=4, sample_every=0)


def training_set(count: int = 8):
    made = tiny.engine()
    return made, TrainingSet(*tiny.scenes(count), engine=made)


def test_fitting_lowers_the_loss_on_fixed_noise():
    made, data = training_set(16)
    images, label_maps = tiny.scenes(16)
    clean, condition = made.encode_images(images), made.encode_label_maps(label_maps)
    times, noise = torch.full((16,), 0.6), torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))

    def error() -> float:
        with torch.no_grad():
            return float(made.errors(clean, condition, times, noise).mean())

    before = error()
    fit(made, data, FitConfig(num_steps=60, batch_size=8, learning_rate=2e-3, sample_every=0), silent)
    assert error() < 0.5 * before


def test_interrupted_fit_equals_uninterrupted(tmp_path):
    whole, data = training_set()
    fit(whole, data, CONFIG, silent)

    broken, data = training_set()
    trainer = Trainer(broken, CONFIG)
    odds, class_weights = data.rarity(), data.class_weights(CONFIG.class_weight_cap)
    for _ in range(3):
        batch = draw_batch(data, broken, CONFIG, step=trainer.step, odds=odds, class_weights=class_weights)
        trainer.train_step(batch, progress=trainer.step / 6)
    trainer.save(tmp_path)
    resumed, data = training_set()
    fit(resumed, data, CONFIG, silent, folder=tmp_path)
    for name, tensor in whole.denoiser.state_dict().items():
        torch.testing.assert_close(resumed.denoiser.state_dict()[name], tensor, msg=name)


def test_a_checkpoint_of_other_settings_is_not_continued(tmp_path):
    made, _ = training_set()
    trainer = Trainer(made, CONFIG)
    trainer.step = 3
    trainer.save(tmp_path)
    assert not Trainer(made, FitConfig(num_steps=7, batch_size=4, sample_every=0)).restore(tmp_path)
    assert trainer.restore(tmp_path) and trainer.step == 3


def test_stop_leaves_the_fit_at_once():
    made, data = training_set()

    def stop(step, total, message, *, metrics=None, images=None):
        if step == 2:
            raise CancelledError("cancelled")

    with pytest.raises(CancelledError):
        fit(made, data, CONFIG, stop)


def test_batches_move_image_and_label_map_together_and_say_so():
    made, data = training_set(32)
    config = FitConfig(num_steps=1, batch_size=64, augment_probability=1.0, condition_dropout=0.0)
    batch = draw_batch(data, made, config, step=0, odds=data.rarity(), class_weights=data.class_weights(5.0))
    green = batch.clean[:, 1] > batch.clean[:, 0]
    organ = batch.condition[:, 1] > 0.5
    assert (green & organ).sum() > 0.9 * organ.sum()
    assert batch.extras[:, 0].unique().tolist() == [0.0, 1.0] and batch.extras[:, 3].abs().max() > 0


def test_hidden_label_maps_come_as_often_as_asked():
    made, data = training_set()
    config = FitConfig(num_steps=1, batch_size=400, condition_dropout=0.25)
    batch = draw_batch(data, made, config, step=0, odds=data.rarity(), class_weights=data.class_weights(5.0))
    assert 0.18 < float((batch.condition.sum((1, 2, 3)) == 0).float().mean()) < 0.32


def test_rare_classes_weigh_more_but_not_beyond_the_cap():
    made = tiny.engine()
    label_map = np.zeros((16, 16), np.uint8)
    label_map[0, 0] = 1
    data = TrainingSet([np.zeros((16, 16, 3), np.uint8)], [label_map], engine=made)
    found = data.class_weights(5.0)
    assert found[1] / found[0] == pytest.approx(5.0)
    assert float(found[data.label_maps.long()].mean()) == pytest.approx(1.0, abs=1e-5)


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that is made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            self.num_bytes = max(self.num_bytes, found.numel() * found.element_size())
        return found


def test_weights_of_classes_never_hold_more_than_one_label_map_as_integers():
    label_maps = torch.randint(0, 4, (40, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    label_maps[3:5] = 255
    with Largest() as largest:
        found = class_weights(label_maps, 5.0)
    assert largest.num_bytes <= 8 * 32 * 32
    counts = torch.tensor([float((label_maps == index).sum()) for index in range(4)])
    raw = (counts / counts.max()).rsqrt()
    torch.testing.assert_close(found[:4], raw / ((raw * counts).sum() / counts.sum()))


def test_sweep_stores_a_setting_it_tried():
    made = tiny.engine()
    images, label_maps = tiny.scenes(8)
    found = sweep_samplers(made, label_maps, images, silent)
    assert made.architecture["sampler"] == {"name": found["sampler"], "num_inference_steps": found["num_inference_steps"]}
    assert len(found["sweep"]) == 10


def test_a_new_project_borrows_the_shipped_weights_but_not_their_classes():
    torch.manual_seed(0)
    made = CompactEngine(default_architecture(num_classes=2, resolution=32), device=tiny.CPU)
    fresh = made.denoiser.unet.conv_in.weight.detach().clone()
    assert borrow_shipped(made)
    borrowed = weights.read(shipped.file("engine"))
    torch.testing.assert_close(made.denoiser.unet.conv_in.weight[:, :48], borrowed["unet.conv_in.weight"][:, :48].float())
    torch.testing.assert_close(made.denoiser.unet.conv_in.weight[:, 48:], fresh[:, 48:])
    torch.testing.assert_close(made.denoiser.state_dict()["unet.conv_out.weight"], borrowed["unet.conv_out.weight"].float())
    assert not borrow_shipped(tiny.engine())


def test_with_an_adapter_attached_only_the_adapter_is_fitted():
    made, data = training_set()
    lora.attach(made.denoiser, rank=2)
    before = {name: tensor.clone() for name, tensor in made.denoiser.state_dict().items()}
    fit(made, data, CONFIG, silent)
    changed = {name for name, tensor in made.denoiser.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all("lora_" in name for name in changed)
