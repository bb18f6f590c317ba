import hashlib

import pytest
import torch

from saadi.config import assets_dir
from saadi.demo import KINDS, ensure_demo, split_of
from saadi.engines import lora, shipped, weights
from saadi.engines.compact import CompactEngine
from saadi.store import Store
from tests import tiny


def test_demo_is_made_once_and_finished_when_it_was_interrupted(store: Store):
    first = ensure_demo(store, actor="test", num_images=3)
    assert len(store.images(first.id)) == 3 and all(store.active_model(first.id, kind) for kind in KINDS)
    again = ensure_demo(store, actor="test", num_images=5)
    assert again == first and len(store.images(first.id)) == 5 and len(store.models(first.id)) == 3
    assert {image.label for image in store.images(first.id)} <= {"preparation", "dissection", "clipping", "extraction"}


def test_patients_of_the_demo_stay_on_one_side():
    assert [split_of(patient) for patient in (0, 15, 16, 19, 20, 23)] == ["train", "train", "val", "val", "test", "test"]


def test_the_demo_says_that_its_generator_is_weak_and_differs_from_the_shipped_one(store: Store):
    project = ensure_demo(store, actor="test", num_images=1)
    model = store.active_model(project.id, "engine")
    assert model is not None and "On purpose" in model.metrics["note"]
    with_adapter = CompactEngine.from_file(shipped.manifest()["engine"]["architecture"], shipped.file("engine"), device=tiny.CPU)
    weak = CompactEngine.from_file(model.architecture, store.files.path(model.file), device=tiny.CPU)
    wrapped = lora.load(with_adapter.denoiser, shipped.file("demo"))
    expected = lora.merged(wrapped).state_dict()
    for name, tensor in weak.denoiser.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=2e-3, atol=2e-4, msg=name)  # stored as float16
    assert any(not torch.equal(tensor, weights.read(shipped.file("engine"))[name].float()) for name, tensor in expected.items())


@pytest.mark.parametrize("kind", [*KINDS, "demo"])
def test_shipped_weights_are_those_of_the_manifest_and_small(kind):
    data = shipped.file(kind).read_bytes()
    assert hashlib.sha256(data).hexdigest() == shipped.manifest()[kind]["sha256"]
    assert sum(file.stat().st_size for file in assets_dir().rglob("*")) < 40e6
