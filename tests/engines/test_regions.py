"""Making a part of an image anew, and looking at it while it is made."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saadi import masks
from saadi.engines.base import no_callback
from saadi.engines.regions import Guide, Region
from saadi.engines.samplers import SAMPLERS
from saadi.errors import BadInputError
from tests import tiny


def region(seed: int = 3, *, width_px: int = 1) -> Region:
    source, label_map = tiny.scene(seed)
    return Region(source, masks.feathered(label_map == 1, width_px=width_px))


def test_outside_the_region_every_pixel_is_the_source_and_inside_it_is_new():
    part, (_, label_map) = region(), tiny.scene(3)
    made = tiny.engine().generate([label_map], [7], regions=[part])[0]
    outside = part.weight == 0
    assert 0 < outside.sum() < outside.size
    np.testing.assert_array_equal(made[outside], part.source[outside])
    assert (made[part.weight == 1] != part.source[part.weight == 1]).any(axis=-1).mean() > 0.9


def test_every_value_of_a_source_survives():
    source = np.arange(16 * 16 * 3, dtype=np.uint32).reshape(16, 16, 3).astype(np.uint8)
    nothing = Region(source, np.zeros((16, 16), np.float32))
    np.testing.assert_array_equal(tiny.engine().generate([tiny.scene(0)[1]], [0], regions=[nothing])[0], source)


def test_a_part_follows_its_seed_and_not_its_company():
    engine, parts, label_map = tiny.engine(), [region(3), region(5)], tiny.scene(3)[1]
    together = engine.generate([label_map] * 2, [7, 8], regions=parts)
    np.testing.assert_array_equal(engine.generate([label_map], [8], regions=parts[1:])[0], together[1])
    assert not np.array_equal(engine.generate([label_map], [9], regions=parts[:1])[0], together[0])


def test_a_whole_region_is_the_whole_image():
    engine, (source, label_map) = tiny.engine(), tiny.scene(3)
    whole = Region(source, np.ones((16, 16), np.float32))
    np.testing.assert_array_equal(engine.generate([label_map], [7], regions=[whole])[0], engine.generate([label_map], [7])[0])


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_kept_meets_each_step_at_its_noise_level(name):
    # The exact path of the source is (1 - t) x + t eps with the same eps at all times; the network must see it there.
    source, noise, seen = torch.full((1, 3, 4, 4), 0.25), torch.randn(1, 3, 4, 4), []

    def clean(noisy: torch.Tensor, time: float) -> torch.Tensor:
        seen.append((time, noisy))
        return source

    SAMPLERS[name](clean, noise, steps=6, shift=3.0, on_step=no_callback)
    for time, noisy in seen:
        torch.testing.assert_close(noisy, (1 - time) * source + time * noise, atol=2e-5, rtol=1e-4)


def guided(reach_px: int, *, until: float = 0.6) -> Region:
    plain = region()
    return Region(plain.source, plain.weight, Guide(reach_px, until))


def test_a_guided_region_never_grows_and_ends_exact():
    part = guided(4)
    weights = part.weights(10)
    assert (np.diff(weights, axis=0) <= 0).all() and (weights >= part.weight).all()
    np.testing.assert_array_equal(weights[6:], np.broadcast_to(part.weight, (4, 16, 16)))
    assert (weights[0] > 0).sum() > (weights[3] > 0).sum() > (part.weight > 0).sum()


@pytest.mark.parametrize(("until", "num_steps"), [(1.0, 8), (0.0, 8), (0.6, 1), (1.0, 2)])
def test_the_last_step_is_exact_whatever_the_schedule(until, num_steps):
    part = guided(6, until=until)
    np.testing.assert_array_equal(part.weights(num_steps)[-1], part.weight)


def test_the_reach_of_a_guide_is_measured_from_the_edge():
    point = np.zeros((32, 32), np.float32)
    point[16, 16] = 1
    first = Region(np.zeros((32, 32, 3), np.uint8), point, Guide(5)).weights(10)[0]
    away = np.hypot(*(np.indices((32, 32)) - 16))
    assert (first[away <= 5] == 1).all() and (first[away >= 7.01] == 0).all()


def test_nothing_to_make_stays_the_source_under_a_guide():
    source = tiny.scene(3)[0]
    nothing = Region(source, np.zeros((16, 16), np.float32), Guide(4))
    assert (nothing.weights(4) == 0).all()
    np.testing.assert_array_equal(tiny.engine().generate([tiny.scene(0)[1]], [0], regions=[nothing])[0], source)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_guide_changes_what_is_made_inside_and_nothing_outside(name):
    engine = tiny.engine()
    engine.architecture["sampler"] = {"name": name, "num_inference_steps": 10}
    label_map, part = tiny.scene(3)[1], guided(3)
    made = engine.generate([label_map], [7], regions=[part])[0]
    outside = part.weight == 0
    np.testing.assert_array_equal(made[outside], part.source[outside])
    assert not np.array_equal(made, engine.generate([label_map], [7], regions=[region()])[0])
    np.testing.assert_array_equal(made, engine.generate([label_map] * 2, [8, 7], regions=[region(), part])[1])


def test_a_source_of_another_size_is_refused():
    large = Region(np.zeros((32, 32, 3), np.uint8), np.ones((32, 32), np.float32))
    with pytest.raises(BadInputError, match="scale them to the engine's size first"):
        tiny.engine().generate([tiny.scene(0)[1]], [0], regions=[large])
    with pytest.raises(BadInputError, match="one region per label map"):
        tiny.engine().generate([tiny.scene(0)[1]] * 2, [0, 1], regions=[region()])


@pytest.mark.parametrize("name", SAMPLERS)
def test_looks_end_at_the_image(name):
    engine = tiny.engine()
    engine.architecture["sampler"] = {"name": name, "num_inference_steps": 8}
    label_maps = tiny.scenes(2)[1]
    looks = []
    made = engine.generate(label_maps, [1, 2], on_preview=lambda look: looks.append(look()))
    assert len(looks) == 8 and all(len(look) == 2 and look[0].shape == (16, 16, 3) for look in looks)
    np.testing.assert_array_equal(looks[-1], made)
    away = [np.abs(np.asarray(look, float) - np.asarray(made, float)).mean() for look in looks]
    assert away[0] > away[4] > away[-1] == 0


def test_looks_at_a_part_keep_the_source_at_every_step():
    part, (_, label_map) = region(), tiny.scene(3)
    looks = []
    tiny.engine().generate([label_map], [7], regions=[part], on_preview=lambda look: looks.append(look()[0]))
    for look in looks:
        np.testing.assert_array_equal(look[part.weight == 0], part.source[part.weight == 0])


def test_nothing_is_decoded_for_nobody(monkeypatch):
    engine, decoded = tiny.engine(), []
    decode = engine.decode
    monkeypatch.setattr(engine, "decode", lambda pixels: decoded.append(1) or decode(pixels))
    engine.generate([tiny.scene(0)[1]], [0], on_preview=lambda look: None)
    assert len(decoded) == 1  # the image itself
