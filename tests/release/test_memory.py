"""What a generator remembers: one that was fitted too long to few images is told by its errors, one that was not is not."""

from __future__ import annotations

import pytest
import torch

from saadi.engines import lora, weights
from saadi.engines.compact import CompactEngine
from saadi.records import LabelClass, Model, Project, Split
from saadi.release import memory
from saadi.store import Store
from tests import tiny

CLASSES = tuple(LabelClass(index, f"class {index}", "#000000") for index in range(3))
NUM_TRAINED, NUM_HELD_OUT = 10, 24


@pytest.fixture
def scenes(store: Store) -> Project:
    project = store.create_project("scenes", task="segmentation", classes=CLASSES, resolution=tiny.SIDE, actor="ann")
    for number in range(NUM_TRAINED + NUM_HELD_OUT):
        image, label_map = tiny.scene(number)
        split: Split = "train" if number < NUM_TRAINED else "val"
        store.add_image(project.id, blob=store.blobs.put_image(image), size=(tiny.SIDE, tiny.SIDE), group_id=str(number),
                        split=split, label=None, source_name=f"{number}.png",
                        label_map_blob=store.blobs.put_label_map(label_map), actor="ann")  # fmt: skip
    return project


def overfitted(engine: CompactEngine, steps: int = 250) -> None:
    """On the training scenes alone."""
    images, label_maps = tiny.scenes(NUM_TRAINED)
    clean, condition = engine.encode_images(images), engine.encode_label_maps(label_maps)
    trained = [parameter for parameter in engine.denoiser.parameters() if parameter.requires_grad]
    optimizer, generator = torch.optim.Adam(trained, lr=5e-3), torch.Generator().manual_seed(0)
    engine.denoiser.train()
    for _ in range(steps):
        times = engine.sample_times(len(clean), generator=generator)
        loss = engine.errors(clean, condition, times, torch.randn(clean.shape, generator=generator)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def kept(store: Store, project: Project, engine: CompactEngine) -> Model:
    file = store.files.put(weights.to_bytes(engine.denoiser.state_dict()))
    return store.add_model(project.id, kind="engine", architecture=engine.architecture, file=file, metrics={}, actor="ann")


def test_an_overfitted_generator_is_caught_and_an_unfitted_one_is_not(store: Store, scenes: Project) -> None:
    engine, told = tiny.engine(), list[str]()
    fresh = memory.membership(store, scenes, kept(store, scenes, engine), None, lambda step, total, words: told.append(words))
    overfitted(engine)
    found = memory.membership(store, scenes, kept(store, scenes, engine), None, lambda *progress: None)
    assert fresh is not None and found is not None and (found.num_members, found.num_others) == (NUM_TRAINED, NUM_HELD_OUT)
    assert fresh.low < 0.6 < found.low and found.auc > 0.9
    assert set(told) == {"measuring what the generator remembers"}


def test_what_an_adapter_remembers_is_asked_of_the_adapter(
    store: Store, scenes: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tiny.engine()
    model = kept(store, scenes, engine)
    wrapped = lora.attach(engine.denoiser, rank=8)
    overfitted(engine, steps=60)
    file = store.files.put(weights.to_bytes(lora.state(wrapped)))
    adapter = store.add_adapter(scenes.id, model_id=model.id, parent_id=None, file=file, scale=1.0, config={}, metrics={},
                                actor="ann")  # fmt: skip
    measured: list[float] = []
    monkeypatch.setattr(memory.Membership, "of", lambda members, others, **more: measured.append(float(members.mean())))
    for chosen in (None, adapter):
        memory.membership(store, scenes, model, chosen, lambda *progress: None)
    assert measured[1] < 0.9 * measured[0]


def test_without_others_nothing_is_asked(store: Store) -> None:
    project = store.create_project("alone", task="segmentation", classes=CLASSES, resolution=tiny.SIDE, actor="ann")
    assert memory.membership(store, project, kept(store, project, tiny.engine()), None, lambda *progress: None) is None
