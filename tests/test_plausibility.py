"""What looks unlike real images, or like a certain one, is found; what is neither passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest

from saadi import quality
from saadi.datasets.phantom import render
from saadi.plausibility import CLASS_LOOK_VALUES, Plausibility, RealImages, Space, class_looks
from saadi.records import IGNORE, Image, LabelMap

Pair = tuple[Image, LabelMap]
GALLBLADDER = 2


def scenes(first_patient: int, count: int) -> list[Pair]:
    """Four frames each of patients that follow one another."""
    rendered = [render(number, patient=first_patient + number // 4, size_px=128) for number in range(count)]
    return [(scene.image, scene.label_map) for scene in rendered]


def looks(pairs: Sequence[Pair]) -> tuple[dict[str, np.ndarray], list[dict[int, np.ndarray]]]:
    return {quality.LOOK: np.stack([quality.look(image) for image, _ in pairs])}, [class_looks(*pair) for pair in pairs]


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


def auc(higher: Sequence[float], lower: Sequence[float]) -> float:
    first, second = np.array(higher)[:, None], np.array(lower)[None]
    return float((first > second).mean() + 0.5 * (first == second).mean())


def blurred(image: Image, label_map: LabelMap) -> Pair:
    return cv2.GaussianBlur(image, (0, 0), 2.5), label_map


def noisy(image: Image, label_map: LabelMap) -> Pair:
    noise = np.random.default_rng(int(image.sum())).normal(0, 25, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8), label_map


def wrong_hue(image: Image, label_map: LabelMap) -> Pair:
    """The hue of the largest class but the background is another one."""
    counts = np.bincount(label_map.ravel(), minlength=7)[1:]
    where = label_map == counts.argmax() + 1
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 0][where] = (hsv[..., 0][where].astype(int) + 60) % 180
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), label_map


def emptied(image: Image, label_map: LabelMap) -> Pair:
    return np.full_like(image, image.reshape(-1, 3).mean(0).astype(np.uint8)), label_map


def without_gallbladder(image: Image, label_map: LabelMap) -> Pair:
    gone = cv2.dilate((label_map == GALLBLADDER).astype(np.uint8), np.ones((3, 3), np.uint8))
    return cv2.inpaint(image, gone, 5, cv2.INPAINT_TELEA), label_map


@pytest.mark.parametrize("corrupted", [blurred, noisy, wrong_hue, emptied, without_gallbladder])
def test_planted_corruptions_stand_out_from_unseen_real_images(
    real: RealImages, others: list[Pair], corrupted: Callable[[Image, LabelMap], Pair]
) -> None:
    sound, spoilt = judged(real, others), judged(real, [corrupted(*pair) for pair in others])
    assert auc([one.strangeness for one in spoilt], [one.strangeness for one in sound]) > 0.9
    assert np.mean([one.verdict == "implausible" for one in spoilt]) > 0.75


def test_copies_of_training_images_are_found_on_the_near_side(
    real: RealImages, others: list[Pair], training: list[Pair]
) -> None:
    sound, copies = judged(real, others), judged(real, training[:64])
    assert auc([-one.nearness for one in copies], [-one.nearness for one in sound]) > 0.9
    assert {one.verdict for one in copies} == {"copy"} and [one.nearest for one in copies] == list(range(64))


def test_unseen_real_images_mostly_pass(real: RealImages, others: list[Pair]) -> None:
    assert np.mean([one.verdict == "plausible" for one in judged(real, others)]) > 0.8


def test_the_class_that_is_wrong_is_named(real: RealImages, others: list[Pair]) -> None:
    found = judged(real, [without_gallbladder(*pair) for pair in others if (pair[1] == GALLBLADDER).sum() > 200])
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
