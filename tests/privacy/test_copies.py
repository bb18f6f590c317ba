"""Copies of training images, turned, cropped, brightened and recompressed ones too; what a whole release says about patients."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from saadi.datasets.phantom import render
from saadi.privacy import verifier
from saadi.privacy.audit import Audit, People, audit
from saadi.privacy.copies import FALSE_FLAGS, Traces, Yardstick, orientations, similarities
from saadi.records import Image

NUM_PATIENTS, PER_PATIENT, NUM_STRANGERS = 50, 2, 60
SIDE = 64
CHANGES = ("exact", "flipped", "brightened", "jpeg", "cropped")


def frames(first_patient: int, count: int, *, per_patient: int = 1) -> list[Image]:
    return [render(1000 * patient + number, patient=patient, size_px=SIDE).image
            for patient in range(first_patient, first_patient + count) for number in range(per_patient)]  # fmt: skip


def changed(image: Image, how: str, draw: np.random.Generator) -> Image:
    if how == "flipped":
        return np.ascontiguousarray(orientations(image)[int(draw.integers(1, 8))])
    if how == "brightened":
        return np.clip(image.astype(np.float64) * draw.choice([0.75, 1.3]) + draw.uniform(-15, 15), 0, 255).astype(np.uint8)
    if how == "jpeg":
        coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
        return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    if how == "cropped":
        side = int(SIDE * draw.uniform(0.9, 0.95))
        top, left = draw.integers(SIDE - side + 1, size=2)
        return np.asarray(cv2.resize(image[top : top + side, left : left + side], (SIDE, SIDE)), np.uint8)
    return image


class World:
    """A training set, strangers, and a verifier fitted to the former."""

    def __init__(self) -> None:
        self.training = frames(0, NUM_PATIENTS, per_patient=PER_PATIENT)
        self.patients = tuple(f"p{place // PER_PATIENT:03d}" for place in range(len(self.training)))
        self.verifier, self.told = verifier.fit(self.training, self.patients, steps=120)
        self.strangers, self.unseen = frames(200, NUM_STRANGERS), frames(400, 100)
        self.trained = People(self.traces(self.training), self.patients)
        self.held_out = People(self.traces(self.strangers), tuple(f"s{place:03d}" for place in range(NUM_STRANGERS)))

    def traces(self, images: list[Image]) -> Traces:
        return Traces.of(images, embeddings=self.verifier.embed(images))

    def released(self, share: float) -> Traces:
        """Fresh draws of the true renderer, some of them replaced by changed training images."""
        draw, count = np.random.default_rng(1), round(share * len(self.unseen))
        copies = [changed(self.training[place], CHANGES[number % len(CHANGES)], draw)
                  for number, place in enumerate(draw.choice(len(self.training), size=count, replace=False))]
        return self.traces(copies + self.unseen[count:])

    def audit(self, share: float) -> Audit:
        return audit(self.released(share), self.trained, self.held_out)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.mark.parametrize(("how", "share"), [(how, 0.95 if how == "exact" else 0.9) for how in CHANGES])
@pytest.mark.parametrize("sees_patients", [True, False])
def test_planted_copies_are_found(world: World, how: str, share: float, sees_patients: bool) -> None:
    """With the verifier, and by pixels and hashes alone, as every export looks."""
    draw = np.random.default_rng(0)
    copies = world.traces([changed(image, how, draw) for image in world.training])
    strangers = similarities(world.held_out.traces, world.trained.traces)
    found = similarities(copies, world.trained.traces)
    names = [name for name in found if sees_patients or name != "verifier"]
    stick = Yardstick.of({name: strangers[name] for name in names}, by_held_out=True)
    assert stick is not None
    flagged = stick.flags({name: found[name] for name in names})
    assert flagged.mean() >= share
    own = stick.scores({name: found[name] for name in names})[flagged].argmax(1)
    patients = np.asarray(world.patients)
    assert (patients[own] == patients[flagged]).mean() > 0.9  # and it is told of whom


def test_of_unseen_patients_few_are_flagged(world: World) -> None:
    found = audit(world.traces(world.unseen), world.trained, world.held_out)
    assert len(found.flags) <= 0.05 * len(world.unseen) and found.false_flags is not None
    assert found.false_flags <= 0.12  # by limits of half as many strangers
    assert found.num_strangers == NUM_STRANGERS and found.flags_expected == FALSE_FLAGS


def test_fresh_draws_pass_and_the_more_is_copied_the_more_is_found(world: World) -> None:
    found = [world.audit(share) for share in (0.0, 0.1, 0.5, 1.0)]
    assert found[0].verdict == "nothing found" and not found[0].reasons
    assert [len(one.flags) for one in found] == sorted(len(one.flags) for one in found)
    excesses = [one.nearest.excess for one in found if one.nearest is not None]
    assert excesses == sorted(excesses) and len(excesses) == 4 and excesses[0] < 0.15 and excesses[-1] > 0.9
    assert found[2].verdict == found[3].verdict == "fails" and "nearer to a training image" in found[3].reasons[0]
    assert found[3].retrieval is not None and found[3].in_numbers()["copies"]["num_flagged"] >= 95


def test_isolation_needs_a_third_group_and_tells_how_many_are_missing(world: World) -> None:
    assert world.audit(0.0).calibration_missing == 10 * NUM_PATIENTS - (NUM_STRANGERS - NUM_PATIENTS)
    third = frames(1000, 10 * NUM_PATIENTS)
    people = People(world.traces(third), tuple(map(str, range(len(third)))))
    copied = audit(world.released(1.0), world.trained, world.held_out, calibration=people).isolation
    fresh = audit(world.released(0.0), world.trained, world.held_out, calibration=people).isolation
    assert copied is not None and fresh is not None
    assert copied.of_trained > 0.7 and copied.verdict == "fails" and copied.low > 0.5
    assert abs(fresh.of_trained - fresh.by_chance) < 0.1 and fresh.low < 0.05


def test_without_strangers_training_patients_are_measured_against_each_other(world: World) -> None:
    found = audit(world.released(0.5), world.trained, None)
    assert found.nearest is None and found.isolation is None and len(found.flags) >= 40 and found.verdict == "fails"
    clean = audit(world.released(0.0), world.trained, None)
    assert clean.verdict == "nothing concluded" and any("nothing was learnt from" in words for words in clean.open_questions)
    few = People(world.trained.traces.take([0, 1, 2]), ("a", "a", "b"))
    blind = audit(world.released(0.5), few, None)
    assert blind.flags == () and blind.flag_limit is None and "copies could not be looked for" in blind.open_questions[-1]


def test_few_patients_conclude_nothing_but_copies_are_told(world: World) -> None:
    few = People(world.trained.traces.take(range(40)), world.patients[:40])
    clean = audit(world.traces(world.unseen), few, world.held_out)
    assert clean.num_training_patients == 20 and clean.verdict == "nothing concluded"
    assert audit(world.traces(world.training[:40]), few, world.held_out).verdict == "fails"


def test_a_patient_with_many_images_counts_no_more(world: World) -> None:
    many = world.trained.evenly(1)
    assert many.num_patients == NUM_PATIENTS == len(many.patients) and world.trained.typical() == PER_PATIENT
    table = np.arange(6.0)[None]
    assert People(many.traces.take(range(6)), ("b", "a", "a", "b", "c", "a")).by_patient(table).tolist() == [[5.0, 3.0, 4.0]]


def test_the_verifier_is_the_same_for_the_same_seed_and_sees_patients(world: World) -> None:
    again, told = verifier.fit(world.training[:20], world.patients[:20], steps=3, seed=5)
    once, _ = verifier.fit(world.training[:20], world.patients[:20], steps=3, seed=5)
    assert np.array_equal(again.embed(world.unseen[:3]), once.embed(world.unseen[:3])) and told["num_patients"] == 10
    vectors = world.verifier.embed(frames(0, 20, per_patient=4))
    alike = vectors @ vectors.T
    same = np.kron(np.eye(20), np.ones((4, 4))).astype(bool) & ~np.eye(80, dtype=bool)
    other = ~same & ~np.eye(80, dtype=bool)
    assert np.mean(alike[same][:, None] > np.random.default_rng(0).choice(alike[other], 200)[None]) > 0.85
    with pytest.raises(ValueError, match="4 patients or more"):
        verifier.fit(world.training[:4], world.patients[:4])


def test_partners_lie_far_apart_in_time() -> None:
    assert verifier.partners(["a", "a", "b", "a", "a"]) == [4, 4, 2, 0, 0]
