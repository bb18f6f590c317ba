"""The phantom renders reproducible, varied, rightly labelled pictures."""

import json

import numpy as np
import pytest

from saadi.datasets.phantom import CLASS_COLORS, CLASS_NAMES, PHASES, Scene, render, render_set


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return list(render_set(80, seed=5, num_patients=8, size_px=64))


def test_same_seed_gives_same_bytes() -> None:
    first, second = render(3, patient=2, size_px=64), render(3, patient=2, size_px=64)
    assert first.image.tobytes() == second.image.tobytes()
    assert first.label_map.tobytes() == second.label_map.tobytes()
    assert first.parameters == second.parameters


def test_different_seeds_give_different_frames() -> None:
    first, second = render(3, patient=2, size_px=64), render(4, patient=2, size_px=64)
    assert (first.image != second.image).mean() > 0.5
    assert (first.label_map != second.label_map).any()


def test_arrays_have_the_promised_shape_and_type() -> None:
    scene = render(0, size_px=96)
    assert (scene.image.shape, scene.image.dtype) == ((96, 96, 3), np.uint8)
    assert (scene.label_map.shape, scene.label_map.dtype) == ((96, 96), np.uint8)
    assert len(CLASS_COLORS) == len(CLASS_NAMES)


def test_every_class_occurs_and_no_other(scenes: list[Scene]) -> None:
    found = {int(value) for scene in scenes[:60] for value in np.unique(scene.label_map)}
    assert found == set(range(len(CLASS_NAMES)))


def test_class_shares_are_those_of_an_operation(scenes: list[Scene]) -> None:
    shares = np.bincount(np.concatenate([scene.label_map.ravel() for scene in scenes]), minlength=len(CLASS_NAMES)) / (
        80 * 64 * 64
    )
    share = dict(zip(CLASS_NAMES, shares, strict=True))
    assert 0.15 < share["liver"] < 0.35
    assert 0.04 < share["gallbladder"] < 0.14
    assert 0.05 < share["fat"] < 0.20
    assert 0.03 < share["shaft"] < 0.10
    assert 0.01 < share["tip"] < 0.04
    assert 0 < share["bleeding"] < 0.01


def test_bleeding_is_rare(scenes: list[Scene]) -> None:
    assert 0.03 < np.mean([scene.is_bleeding for scene in scenes]) < 0.25
    assert all(scene.is_bleeding == (scene.label_map == CLASS_NAMES.index("bleeding")).any() for scene in scenes)


def test_all_phases_occur(scenes: list[Scene]) -> None:
    assert {scene.phase for scene in scenes} == set(PHASES)


def test_patients_differ_more_than_frames_of_one_patient(scenes: list[Scene]) -> None:
    colors = np.array([scene.image.mean(axis=(0, 1)) for scene in scenes]).reshape(-1, 8, 3)  # (frame, patient, channel)
    between = colors.mean(axis=0).var(axis=0).sum()
    within = colors.var(axis=0).mean(axis=0).sum()
    assert between > 1.5 * within


def test_shifted_gallbladder_keeps_its_label_and_the_rest_of_the_image() -> None:
    plain, shifted = render(1, patient=3, size_px=128), render(1, patient=3, size_px=128, organ_shift_px=(10, -6))
    changed = (plain.image != shifted.image).any(axis=2)
    organ = plain.label_map == CLASS_NAMES.index("gallbladder")
    assert np.array_equal(plain.label_map, shifted.label_map)
    assert changed[organ].mean() > 0.5
    rows, columns = np.nonzero(organ)
    margin = 30
    changed[max(rows.min() - margin, 0) : rows.max() + margin, max(columns.min() - margin, 0) : columns.max() + margin] = False
    assert not changed.any()


def test_content_is_stable_across_sizes() -> None:
    for seed in range(5):
        small, large = render(seed, patient=seed, size_px=64), render(seed, patient=seed, size_px=128)
        assert (small.label_map == large.label_map[::2, ::2]).mean() > 0.90


def test_parameters_survive_json(scenes: list[Scene]) -> None:
    for scene in scenes[:10]:
        text = json.dumps(scene.parameters)
        assert json.loads(text)["patient"] == int(scene.patient_id.removeprefix("phantom-"))


def test_an_item_does_not_depend_on_the_count() -> None:
    short, long = list(render_set(2, seed=9, num_patients=3, size_px=64)), list(render_set(4, seed=9, num_patients=3, size_px=64))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(short, long, strict=False))
    assert [scene.patient_id for scene in long] == ["phantom-000", "phantom-001", "phantom-002", "phantom-000"]


@pytest.mark.parametrize(("seed", "size_px"), [(-1, 64), (0, 32)])
def test_impossible_requests_say_what_to_do(seed: int, size_px: int) -> None:
    with pytest.raises(ValueError, match=r"must be 0 or more|choose 64 to 512"):
        render(seed, size_px=size_px)
