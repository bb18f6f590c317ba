"""How well the quality check tells spoilt images and copies from real images of patients that it does not know.

After the acceptance list of methods.md, section 2: blur, noise, the wrong hue of an organ, an empty image, a missing organ, and
exact copies, against held-out real images. Each is spoilt as little as a person would still call it spoilt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from saadi import quality
from saadi.errors import TooFewError
from saadi.evidence.cases import Case, Example, choose_real
from saadi.plausibility import MIN_PATIENTS, MIN_TRAINING, ClassLooks, Plausibility, RealImages, class_looks
from saadi.quality import Features
from saadi.records import IGNORE, Image, LabelMap

NUM_DRAWS = 2000
MAX_IMAGES = 256
"""Held-out images that are looked at."""


def blurred(image: Image, label_map: LabelMap) -> Image:
    return cv2.GaussianBlur(image, (0, 0), 2.5 * image.shape[0] / 128)


def noisy(image: Image, label_map: LabelMap) -> Image:
    noise = np.random.default_rng(int(image.sum())).normal(0, 25, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)


def wrong_hue(image: Image, label_map: LabelMap) -> Image:
    """The hue of the largest class but the background is another one."""
    where = label_map == _largest(label_map)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 0][where] = (hsv[..., 0][where].astype(int) + 60) % 180
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def emptied(image: Image, label_map: LabelMap) -> Image:
    return np.full_like(image, image.reshape(-1, 3).mean(0).astype(np.uint8))


def without_largest(image: Image, label_map: LabelMap) -> Image:
    """What lies around the largest class grows over it."""
    gone = cv2.dilate((label_map == _largest(label_map)).astype(np.uint8), np.ones((3, 3), np.uint8))
    return cv2.inpaint(image, gone, 5, cv2.INPAINT_TELEA)


def _largest(label_map: LabelMap) -> int:
    counts = np.bincount(label_map.ravel(), minlength=256)
    counts[[0, IGNORE]] = 0
    return int(counts.argmax())


CORRUPTIONS: dict[str, Callable[[Image, LabelMap], Image]] = {
    "blurred": blurred, "noisy": noisy, "wrong hue of the largest class": wrong_hue, "empty": emptied,
    "largest class painted over": without_largest,
}  # fmt: skip


def looks(pairs: Sequence[tuple[Image, LabelMap]]) -> tuple[dict[str, Features], list[ClassLooks]]:
    """What the check looks at, without a selector: colours and layout, and the looks of each class."""
    return {quality.LOOK: np.stack([quality.look(image) for image, _ in pairs])}, [class_looks(*pair) for pair in pairs]


def run(case: Case) -> dict[str, Any]:
    """AUC (with a 95 % interval over patients) and share refused for each way to spoil held-out images; of sound ones the share
    that passes; and milliseconds an image.

    Raises:
        TooFewError: Too few training images or patients to say what real images look like.
    """
    known_examples = list(case.train)
    known = [(example.image, example.label_map) for example in known_examples]
    stick = RealImages.of(*looks(known), patients=[e.group for e in case.train], is_training=[True] * len(known))
    if stick is None:
        patients = len({example.group for example in case.train})
        raise TooFewError(f"{len(known)} training images of {patients} patients are too few to say what real ones look like; "
                          f"{MIN_TRAINING} of {MIN_PATIENTS} are needed, import more")  # fmt: skip
    held = choose_real(case.test, min(MAX_IMAGES, len(case.test)), seed=0)  # of all patients
    sound_pairs = [(example.image, example.label_map) for example in held]
    began = time.monotonic()
    features = looks(sound_pairs)
    looked = time.monotonic()
    sound = stick.judge(*features)
    judged = time.monotonic()
    found: dict[str, Any] = {
        "num_training": len(known), "num_held_out": len(held), "patients": len({example.group for example in held}),
        "passes": _share(sound, "plausible"), "ms_to_look": round(1000 * (looked - began) / len(held), 2),
        "ms_to_judge": round(1000 * (judged - looked) / len(held), 3), "spoilt": {},
    }  # fmt: skip
    for name, spoil in CORRUPTIONS.items():
        where = [index for index, example in enumerate(held) if _largest(example.label_map)]
        if not where:
            raise TooFewError("no held-out image shows a class under whose mask it could be spoilt; import labelled images of "
                              "other patients")  # fmt: skip
        spoilt = stick.judge(*looks([(spoil(*sound_pairs[index]), sound_pairs[index][1]) for index in where]))
        of = [held[i] for i in where]
        told = _told([one.strangeness for one in spoilt], of, [sound[i].strangeness for i in where], of, is_paired=True)
        found["spoilt"][name] = told | {"refused": round(1 - _share(spoilt, "plausible"), 4)}
    taken = choose_real(known_examples, min(MAX_IMAGES, len(known)), seed=0)
    copies = stick.judge(*looks([(example.image, example.label_map) for example in taken]))
    told = _told([-one.nearness for one in copies], taken, [-one.nearness for one in sound], held, is_paired=False)
    found["spoilt"]["exact copies"] = told | {"refused": _share(copies, "copy")}
    return found


def _share(found: Sequence[Plausibility], verdict: str) -> float:
    return round(float(np.mean([one.verdict == verdict for one in found])), 4)


def _told(
    spoilt: Sequence[float], of_spoilt: Sequence[Example], sound: Sequence[float], of_sound: Sequence[Example], *, is_paired: bool
) -> dict[str, Any]:  # fmt: skip
    """AUC and its interval: patients are drawn again, with all of their images; of paired ones the same on both sides."""
    first, second = np.array(spoilt), np.array(sound)
    one, other = _Patients(of_spoilt), _Patients(of_sound)
    draw = np.random.default_rng(0)
    drawn = []
    for _ in range(NUM_DRAWS if min(one.count, other.count) > 1 else 0):
        chosen = one.rows(draw)
        drawn.append(auc(first[chosen], second[chosen if is_paired else other.rows(draw)]))
    interval = [round(float(value), 4) for value in np.percentile(drawn, [2.5, 97.5])] if drawn else [None, None]
    return {"auc": [round(auc(first, second), 4), *interval]}


class _Patients:
    def __init__(self, examples: Sequence[Example]) -> None:
        names, self._of = np.unique([example.group for example in examples], return_inverse=True)
        self.count = len(names)

    def rows(self, draw: np.random.Generator) -> NDArray[np.int64]:
        """Images of patients drawn with replacement."""
        return np.concatenate([np.flatnonzero(self._of == name) for name in draw.integers(self.count, size=self.count)])


def auc(higher: NDArray[np.float64], lower: NDArray[np.float64]) -> float:
    """Chance that one of the first is higher than one of the second, ties half."""
    ordered = np.sort(lower)
    below, upto = np.searchsorted(ordered, higher, "left"), np.searchsorted(ordered, higher, "right")
    return float(((below + upto) / 2).mean() / len(lower))


def markdown(result: dict[str, Any]) -> list[str]:
    """The table of `run`."""
    lines = [f"{result['num_held_out']} held-out real images, {result['passes']:.0%} pass", "",
             "| | AUC (95 %) | refused |", "|---|---|---|"]  # fmt: skip
    for name, one in result["spoilt"].items():
        mean, low, high = one["auc"]
        ranged = f"{mean:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None else "")
        lines.append(f"| {name} | {ranged} | {one['refused']:.0%} |")
    return lines
