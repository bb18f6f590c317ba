"""What looks unlike real images, or like a certain one, is found; what is neither passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest

from saadi.datasets.phantom import render
from saadi.errors import TooFewError
from saadi.evidence import cases, plausible
from saadi.evidence.plausible import CORRUPTIONS, auc, looks
from saadi.plausibility import CLASS_LOOK_VALUES, Plausibility, RealImages, Space, class_looks
from saadi.records import IGNORE, Image, LabelMap

Pair = tuple[Image, LabelMap]
GALLBLADDER = 2


def scenes(first_patient: int, count: int) -> list[Pair]:
    """Four frames each of patients that follow one another."""
    rendered = [render(number, patient=first_patient + number // 4, size_px=128) for number in range(count)]
    return [(scene.image, scene.label_map) for scene in rendered]


@pytest.fixture(scope="module")
def training() -> list[Pair]:
    return scenes(0, 96)


@pytest.fixture(scope="module")
def real(training: list[Pair]) -> RealImages:
    (known, known_classes), (unseen, unseen_classes) = looks(training), looks(scenes(100, 64))
    features = {name: np.concatenate([known[name], unseen[name]]) for name in known}
    patients = [f"a{number // 4}" for number in range(96)] + [f"b{number // 4}" for number in range(64)]
    made = RealImages.of(features, known_classes + unseen_classes, patients=patients, is_training=[True] * 96 + [False] * 64)
    assert made is not None
    return made


@pytest.fixture(scope="module")
def others() -> list[Pair]:
    """Of patients that neither side of the yardstick has seen."""
    return scenes(200, 64)


def judged(real: RealImages, pairs: Sequence[Pair]) -> list[Plausibility]:
    return real.judge(*looks(pairs))


def without_gallbladder(image: Image, label_map: LabelMap) -> Image:
    gone = cv2.dilate((label_map == GALLBLADDER).astype(np.uint8), np.ones((3, 3), np.uint8))
    return cv2.inpaint(image, gone, 5, cv2.INPAINT_TELEA)


@pytest.mark.parametrize("corrupted", [*CORRUPTIONS.values(), without_gallbladder])
def test_planted_corruptions_stand_out_from_unseen_real_images(
    real: RealImages, others: list[Pair], corrupted: Callable[[Image, LabelMap], Image]
) -> None:
    sound, spoilt = judged(real, others), judged(real, [(corrupted(*pair), pair[1]) for pair in others])
    assert auc(np.array([one.strangeness for one in spoilt]), np.array([one.strangeness for one in sound])) > 0.9
    assert np.mean([one.verdict == "implausible" for one in spoilt]) > 0.75


def test_copies_of_training_images_are_found_on_the_near_side(
    real: RealImages, others: list[Pair], training: list[Pair]
) -> None:
    sound, copies = judged(real, others), judged(real, training[:64])
    assert auc(-np.array([one.nearness for one in copies]), -np.array([one.nearness for one in sound])) > 0.9
    assert {one.verdict for one in copies} == {"copy"} and [one.nearest for one in copies] == list(range(64))


def test_unseen_real_images_mostly_pass(real: RealImages, others: list[Pair]) -> None:
    assert np.mean([one.verdict == "plausible" for one in judged(real, others)]) > 0.8


def test_the_class_that_is_wrong_is_named(real: RealImages, others: list[Pair]) -> None:
    found = judged(real, [(without_gallbladder(*pair), pair[1]) for pair in others if (pair[1] == GALLBLADDER).sum() > 200])
    assert np.mean([one.reason == f"class {GALLBLADDER}" for one in found]) > 0.8


def test_looks_of_classes_by_hand() -> None:
    image = np.zeros((128, 128, 3), np.uint8)
    image[:64] = 255
    label_map = np.zeros((128, 128), np.uint8)
    label_map[:64], label_map[0, :5], label_map[100:] = 1, 2, IGNORE
    found = class_looks(image, label_map)
    assert set(found) == {0, 1} and len(found[1]) == CLASS_LOOK_VALUES  # five pixels tell nothing, unknown ones are no class
    np.testing.assert_allclose(found[1][:6], [255, 128, 128, 0, 0, 0], atol=0.5)  # white in OpenCV's Lab, without spread
    assert found[0][0] < 1


def test_ratios_by_hand() -> None:
    training = np.array([[0.0], [1], [2], [3], [10], [11], [12], [13], [14], [15]], np.float32)
    patients = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    space = Space.of(training, patients, np.ones(10, bool))
    assert space is not None
    scale = float(space.scale[0])
    means, nearest, which = space.ratios(np.array([[1.0]], np.float32))
    assert means[0] * space.typical == pytest.approx((0 + 1 + 1 + 2 + 9) / 5 / scale) and nearest[0] == 0 and which[0] == 1
    means, nearest, which = space.ratios(np.array([[1.0]], np.float32), np.array([0]))  # its own patient's do not count
    assert means[0] * space.typical == pytest.approx((9 + 10 + 11 + 12 + 13) / 5 / scale) and which[0] == 4
    assert nearest[0] * space.nearest == pytest.approx(9 / scale)


def test_one_neighbour_of_another_patient_is_enough() -> None:
    space = Space.of(np.arange(9, dtype=np.float32)[:, None], np.array([0] * 7 + [1, 2]), np.ones(9, bool))
    assert space is not None and np.isfinite([space.typical, space.far, space.nearest]).all()


@pytest.mark.parametrize(("count", "num_patients"), [(7, 7), (20, 2)])
def test_too_few_images_or_patients_are_no_yardstick(count: int, num_patients: int) -> None:
    patients = [str(number % num_patients) for number in range(count)]
    features = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    assert RealImages.of({"look": features}, [{}] * count, patients=patients, is_training=[True] * count) is None
    assert RealImages.of({"look": features}, [{}] * count, patients=patients, is_training=[False] * count) is None


def test_one_training_patient_is_no_yardstick_even_beside_others() -> None:
    features = np.random.default_rng(0).normal(size=(14, 3)).astype(np.float32)
    patients = ["a"] * 10 + ["b", "b", "c", "c"]
    is_training = [True] * 10 + [False] * 4
    assert RealImages.of({"look": features}, [{}] * 14, patients=patients, is_training=is_training) is None
    both = RealImages.of({"look": features}, [{}] * 14, patients=["a"] * 5 + ["d"] * 5 + patients[10:], is_training=is_training)
    assert both is not None
    rare = [{3: np.zeros(CLASS_LOOK_VALUES, np.float32)} if number < 5 else {} for number in range(14)]  # one patient has it
    made = RealImages.of({"look": features}, rare, patients=["a"] * 5 + ["d"] * 5 + patients[10:], is_training=is_training)
    assert made is not None and not made.classes


def test_many_images_are_judged_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    space = Space.of(draw.normal(size=(40, 4)).astype(np.float32), np.arange(40) % 8, np.ones(40, bool))
    assert space is not None
    asked = draw.normal(size=(50, 4)).astype(np.float32)
    whole = space.ratios(asked, np.arange(50) % 8)
    monkeypatch.setattr("saadi.plausibility.CHUNK", 7)
    for one, other in zip(whole, space.ratios(asked, np.arange(50) % 8), strict=True):
        np.testing.assert_allclose(one, other)
    assert all(len(part) == 0 for part in space.ratios(asked[:0]))


def test_the_measurement_tells_what_is_told_apart_and_what_an_image_costs() -> None:
    case = cases.rendered(side=64)
    small = cases.Case("phantom", case.class_names, case.train[:48], case.test[:24])
    found = plausible.run(small)
    assert set(found["spoilt"]) == {*CORRUPTIONS, "exact copies"} and found["spoilt"]["exact copies"]["auc"][0] == 1.0
    assert all(low <= mean <= high for mean, low, high in (one["auc"] for one in found["spoilt"].values()))
    assert found["spoilt"]["empty"] == {"auc": [1.0, 1.0, 1.0], "refused": 1.0} and found["ms_to_judge"] > 0
    assert "| exact copies | 1.000 (1.000 to 1.000) |" in "\n".join(plausible.markdown(found))
    with pytest.raises(TooFewError, match=r"4 training images of \d patients are too few"):
        plausible.run(cases.Case("phantom", case.class_names, case.train[:4], case.test[:4]))


def test_auc_by_hand() -> None:
    assert auc(np.array([2.0, 1.0]), np.array([1.0, 0.0])) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
