"""Paint it like this one: one extractor for all classes, learnt together with the generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saadi.datasets import phantom
from saadi.engines import appearance, weights
from saadi.engines.appearance import NUM_VALUES, Reference, appearance_of, appearances, styles
from saadi.engines.compact import CompactEngine, Styled, with_styles
from saadi.engines.fitting import FitConfig, TrainingSet, draw_batch, fit
from saadi.errors import BadInputError
from saadi.jobs import silent
from saadi.records import Image, LabelMap
from tests import tiny

ORGAN, BAR = 1, 2
COLOURS = {ORGAN: [(40, 160, 40), (40, 60, 190), (200, 180, 40)], BAR: [(225, 225, 230), (30, 30, 40)]}


def scene(seed: int) -> tuple[Image, LabelMap, tuple[int, int]]:
    """An organ in one of three colours and a bar in one of two, on red tissue."""
    draw = np.random.default_rng(seed)
    label_map = np.zeros((16, 16), np.uint8)
    top, left = draw.integers(5, 8), draw.integers(1, 8)
    label_map[top : top + 7, left : left + 7] = ORGAN
    label_map[1:4] = BAR
    kinds = int(draw.integers(3)), int(draw.integers(2))
    image = np.full((16, 16, 3), (170, 70, 60), np.float64)
    image[label_map == ORGAN], image[label_map == BAR] = COLOURS[ORGAN][kinds[0]], COLOURS[BAR][kinds[1]]
    return (image + draw.normal(0, 5, image.shape)).clip(0, 255).astype(np.uint8), label_map, kinds


@pytest.fixture(scope="module")
def learnt() -> CompactEngine:
    """A tiny generator that was fitted with references, from weights without."""
    plain = tiny.engine()
    engine = CompactEngine(*with_styles(plain.architecture, plain.denoiser.state_dict()), device=tiny.CPU)
    made = [scene(seed) for seed in range(96)]
    data = TrainingSet([one[0] for one in made], [one[1] for one in made], engine=engine)
    fit(engine, data, FitConfig(num_steps=450, batch_size=16, learning_rate=3e-3, ema_decay=0.98, sample_every=0), silent)
    return engine


def reference(class_index: int, kind: int) -> Reference:
    """From an image that was not learnt from."""
    for seed in range(1000, 1200):
        image, label_map, kinds = scene(seed)
        if kinds[class_index - 1] == kind:
            return Reference(class_index, appearance_of(image, label_map, class_index))
    raise AssertionError("no such scene")


def mean_colour(images: list[Image], label_maps: list[LabelMap], class_index: int) -> np.ndarray:
    return np.mean([image[label_map == class_index].mean(0) for image, label_map in zip(images, label_maps, strict=True)], axis=0)


def nearest(colour: np.ndarray, class_index: int) -> int:
    return int(np.argmin([np.linalg.norm(colour - known) for known in COLOURS[class_index]]))


@pytest.mark.parametrize(("class_index", "kind"), [(ORGAN, 0), (ORGAN, 1), (ORGAN, 2), (BAR, 0), (BAR, 1)])
def test_swapping_the_reference_swaps_the_appearance_of_its_class(learnt: CompactEngine, class_index: int, kind: int):
    label_maps = [scene(seed)[1] for seed in range(2000, 2012)]
    images = learnt.generate(label_maps, list(range(12)), references=[reference(class_index, kind)], num_inference_steps=6)
    colours = [nearest(image[label_map == class_index].mean(0), class_index)
               for image, label_map in zip(images, label_maps, strict=True)]  # fmt: skip
    assert np.mean([found == kind for found in colours]) >= 0.9


def test_two_references_act_each_on_its_own_class(learnt: CompactEngine):
    label_maps = [scene(seed)[1] for seed in range(2000, 2008)]
    for organ, bar in ((1, 0), (2, 1)):
        images = learnt.generate(label_maps, list(range(8)), references=[reference(ORGAN, organ), reference(BAR, bar)])
        assert nearest(mean_colour(images, label_maps, ORGAN), ORGAN) == organ
        assert nearest(mean_colour(images, label_maps, BAR), BAR) == bar
        tissue = mean_colour(images, label_maps, 0)
        assert np.abs(tissue - (170, 70, 60)).max() < 40


def test_without_a_reference_looks_vary(learnt: CompactEngine):
    label_maps = [scene(2000)[1]] * 24
    images = learnt.generate(label_maps, list(range(24)))
    assert len({nearest(mean_colour([image], [label_maps[0]], ORGAN), ORGAN) for image in images}) >= 2


def test_a_new_ear_for_references_changes_nothing_before_it_has_learnt():
    plain = tiny.engine()
    engine = CompactEngine(*with_styles(plain.architecture, plain.denoiser.state_dict()), device=tiny.CPU)
    label_maps = [scene(1)[1]]
    same = engine.generate(label_maps, [3])[0]
    assert (same == plain.generate(label_maps, [3])[0]).all()
    assert (engine.generate(label_maps, [3], references=[reference(ORGAN, 1)])[0] == same).all()
    again = CompactEngine(engine.architecture, engine.denoiser.state_dict(), device=tiny.CPU)
    assert (again.generate(label_maps, [3])[0] == same).all()


def test_weights_with_references_are_saved_and_read(tmp_path, learnt: CompactEngine):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(weights.to_bytes(learnt.denoiser.state_dict()))
    read = CompactEngine.from_file(learnt.architecture, file, device=tiny.CPU)
    label_maps, told = [scene(5)[1]], [reference(BAR, 1)]
    assert (read.generate(label_maps, [1], references=told)[0] == learnt.generate(label_maps, [1], references=told)[0]).all()


def test_a_reference_is_no_image_that_is_copied(learnt: CompactEngine):
    """What is told is 22 numbers: of the reference's pixels nothing is left."""
    image, label_map, _ = scene(1000)
    told = Reference(ORGAN, appearance_of(image, label_map, ORGAN))
    assert told.appearance.shape == (NUM_VALUES,) and image[label_map == ORGAN].size / 3 > NUM_VALUES


# ---- the extractor


def test_looks_do_not_depend_on_the_size_of_the_crop():
    scene_of = phantom.render(1, patient=1, size_px=256)
    small = phantom.render(1, patient=1, size_px=256)
    import cv2

    half = cv2.resize(small.image, (160, 160), interpolation=cv2.INTER_AREA)
    half_map = cv2.resize(small.label_map, (160, 160), interpolation=cv2.INTER_NEAREST)
    whole, shrunk = appearances(scene_of.image, scene_of.label_map, range(7)), appearances(half, half_map, range(7))
    assert whole.keys() == shrunk.keys() and len(whole) >= 4
    for index, values in whole.items():
        assert np.abs(values - shrunk[index]).mean() < 0.25


def test_a_class_looks_more_like_itself_in_other_images_than_like_others():
    scenes = [phantom.render(number, patient=number, size_px=128) for number in range(12)]
    found = [appearances(one.image, one.label_map, (1, 3, 4)) for one in scenes]
    classes = {index: np.stack([one[index] for one in found if index in one]) for index in (1, 3, 4)}
    for index, rows in classes.items():
        own = np.linalg.norm(rows - rows.mean(0), axis=1).mean()
        others = [np.linalg.norm(rows - other.mean(0), axis=1).mean() for key, other in classes.items() if key != index]
        assert own < min(others)


def test_what_cannot_be_a_reference_is_refused_in_a_sentence():
    image, label_map, _ = scene(0)
    with pytest.raises(BadInputError, match="the reference shows 0 pixels of class 9 at 128 px, 30 needed"):
        appearance_of(image, label_map, 9)
    told = Reference(ORGAN, appearance_of(image, label_map, ORGAN))
    with pytest.raises(BadInputError, match="class 1 has two references; choose one"):
        styles([told, told], num_classes=3)
    with pytest.raises(BadInputError, match="class 7 is not in this project; it has classes 0 to 2"):
        styles([told._replace(class_index=7)], num_classes=3)
    with pytest.raises(BadInputError, match="have not learnt to paint like a reference"):
        tiny.engine().generate([label_map], [0], references=[told])


# ---- fitting


def test_some_looks_are_told_and_others_are_not():
    plain = tiny.engine()
    engine = CompactEngine(*with_styles(plain.architecture, plain.denoiser.state_dict()), device=tiny.CPU)
    made = [scene(seed) for seed in range(8)]
    data = TrainingSet([one[0] for one in made], [one[1] for one in made], engine=engine)
    config = FitConfig(num_steps=1, batch_size=256)
    batch = draw_batch(data, engine, config, step=0, odds=data.rarity(), class_weights=data.class_weights(5.0))
    assert batch.styles is not None and batch.styles.shape == (256, 3, NUM_VALUES + 1)
    told = batch.styles[..., -1]
    assert told[:, 1].mean() == pytest.approx(0.6, abs=0.1) and set(told.unique().tolist()) == {0.0, 1.0}
    assert (batch.styles[..., :-1][told == 0] == 0).all()
    assert draw_batch(TrainingSet([made[0][0]], [made[0][1]], engine=plain), plain, config, step=0, odds=torch.ones(1),
                      class_weights=torch.ones(256)).styles is None  # fmt: skip


def test_styles_lie_in_the_region_of_their_class_alone():
    plain = tiny.engine()
    engine = CompactEngine(*with_styles(plain.architecture, plain.denoiser.state_dict()), device=tiny.CPU)
    image, label_map, _ = scene(3)
    table = torch.from_numpy(styles([Reference(ORGAN, appearance_of(image, label_map, ORGAN))], num_classes=3))[None]
    hot = engine.encode_label_maps([label_map])
    laid = engine.denoiser.lay_out(Styled(hot, table))
    dim, area = engine.denoiser.style_dim, engine.denoiser.patch**2
    found = torch.nn.functional.pixel_shuffle(laid[:, -dim * area :], engine.denoiser.patch)[0]
    assert (found.abs().sum(0)[torch.from_numpy(label_map != ORGAN)] == 0).all()
    inside = found[:, torch.from_numpy(label_map == ORGAN)]
    assert inside.abs().sum() > 0 and torch.allclose(inside, inside[:, :1].expand_as(inside))
    assert appearance.SIDE == 128
