"""What a set of synthetic images says about the patients that its generator has learnt from: all measures of one audit.

Copies (`saadi.privacy.copies`), nearness to training patients against held-out ones, isolation at weight 1 / (10 N) where enough
strangers are there to set limits on (`saadi.privacy.isolation`), variety (`saadi.privacy.retrieval`). Each measure is an attack
that was tried: one that finds nothing proves nothing, and the words of the verdict say no more. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from saadi.privacy.copies import FALSE_FLAGS, Traces, Yardstick, similarities
from saadi.privacy.isolation import MAX_EXCESS, MIN_PATIENTS, WEIGHT_SHARE, Isolation, Nearest, calibration_needed
from saadi.privacy.membership import Membership
from saadi.privacy.retrieval import Retrieval

MIN_HELD_OUT = 8
"""Held-out patients from which on nearness to them says something."""
MAX_PER_PATIENT = 16
"""Images of a patient that count as that patient; who shows more of himself would be nearer to everything."""
MAX_MEMBERSHIP = 0.6
"""Area under the curve up to which errors hardly tell who was learnt from."""

Verdict = Literal["fails", "nothing found", "nothing concluded"]


@dataclass(frozen=True)
class People:
    """Real images of one group of patients."""

    traces: Traces
    patients: tuple[str, ...]
    """Of each image."""

    @property
    def num_patients(self) -> int:
        return len(set(self.patients))

    def evenly(self, per_patient: int) -> People:
        """At most so many images of each patient, spread over all of theirs."""
        kept = [place for places in self._of_each().values() for place in _spread(places, per_patient)]
        return People(self.traces.take(sorted(kept)), tuple(self.patients[place] for place in sorted(kept)))

    def typical(self) -> int:
        """Median number of images of a patient."""
        return int(np.median([len(places) for places in self._of_each().values()]))

    def by_patient(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        """(M, images) -> (M, patients) the greatest of each patient's, in the order of their names."""
        return np.stack([table[:, places].max(1) for _, places in sorted(self._of_each().items())], axis=1)

    def _of_each(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for place, patient in enumerate(self.patients):
            found.setdefault(patient, []).append(place)
        return found


def _spread(places: Sequence[int], count: int) -> list[int]:
    return [places[index * len(places) // count] for index in range(count)] if count < len(places) else list(places)


@dataclass(frozen=True)
class Flag:
    """An item that is nearer to a training image than strangers come."""

    item: int
    nearest: int
    """Place of that image among the training images."""
    score: float
    """In spreads of the strangers; the limit is in `Audit.flag_limit`."""


@dataclass(frozen=True)
class Audit:
    """What was found."""

    num_items: int
    num_training_patients: int
    num_held_out_patients: int
    flags: tuple[Flag, ...]
    flag_limit: float | None
    """None: too few strangers to say how near they come; then nothing is flagged."""
    flags_expected: float
    """Share of items that would be flagged where none is a copy."""
    false_flags: float | None
    """Share of the strangers that limits from the other half of them flag."""
    num_strangers: int
    nearest: Nearest | None
    isolation: Isolation | None
    calibration_missing: int
    """People of a third group that isolation would have needed beyond those that are there."""
    retrieval: Retrieval | None
    membership: Membership | None
    nearness: dict[str, list[float]]
    """Quantiles 0, 5, 25, 50, 75, 95, 100 % of how near the nearest training image is: of 'items' and of 'strangers'."""

    @property
    def reasons(self) -> list[str]:
        """Why it fails, in words; none where no attack has found anything."""
        found = []
        if self.flags and self._low_share_of_flags() > self.flags_expected:
            found.append(f"{len(self.flags)} of {self.num_items} images are nearer to a training image than strangers come, "
                         f"{self.flags_expected:.0%} would be by chance")  # fmt: skip
        if self.nearest is not None and self._counts(self.nearest):
            found.append(f"{self.nearest.share:.0%} of the images lie nearest to a training patient, {self.nearest.expected:.0%} "
                         "would where nothing is remembered")  # fmt: skip
        if self.isolation is not None and self.isolation.low > 0 and self.isolation.high >= MAX_EXCESS:
            found.append(f"{self.isolation.of_trained:.0%} of the images single out one training patient, "
                         f"{self.isolation.of_held_out:.0%} one of as many strangers")  # fmt: skip
        if self.membership is not None and self.membership.low > MAX_MEMBERSHIP:
            found.append(f"the generator's errors tell the images that it has learnt from in {self.membership.auc:.0%} of all "
                         "pairs with others, 50% would be by chance")  # fmt: skip
        return found

    @property
    def open_questions(self) -> list[str]:
        """What could not be measured, and what it would take."""
        found = []
        if self.num_training_patients < MIN_PATIENTS:
            found.append(f"{self.num_training_patients} training patients; from {MIN_PATIENTS} on something can be concluded")
        if self.nearest is None:
            found.append(f"{self.num_held_out_patients} patients whom nothing was learnt from; {MIN_HELD_OUT} are needed to "
                         "compare with")  # fmt: skip
        if self.isolation is None:
            found.append(f"singling out at weight 1 in {1 / WEIGHT_SHARE:.0f} N needs {self.calibration_missing} more patients "
                         "of a third group to set its limits on")  # fmt: skip
        elif self.isolation.verdict == "fails" and self.isolation.low <= 0:
            found.append("the interval of singling out is too wide to rule out an excess of "
                         f"{MAX_EXCESS:.0%} ({self.isolation.high:.0%} is possible)")  # fmt: skip
        if self.flag_limit is None:
            found.append("too few images of other patients to say how near strangers come, so copies could not be looked for")
        return found

    @property
    def verdict(self) -> Verdict:
        """'nothing found' needs enough patients and every measure but isolation, which hospitals have too few people for."""
        if self.reasons:
            return "fails"
        is_wide = self.isolation is not None and self.isolation.verdict != "passes"
        can_conclude = self.num_training_patients >= MIN_PATIENTS and self.nearest is not None and self.flag_limit is not None
        return "nothing found" if can_conclude and not is_wide else "nothing concluded"

    @staticmethod
    def _counts(nearest: Nearest) -> bool:
        return nearest.excess_interval[0] > 0 and nearest.excess > MAX_EXCESS

    def _low_share_of_flags(self) -> float:
        """Lower end of the share's interval (Clopper and Pearson 1934)."""
        count = len(self.flags)
        return float(beta.ppf(0.025, count, self.num_items - count + 1)) if count else 0.0

    def in_numbers(self) -> dict[str, Any]:
        """JSON."""
        nearest = self.nearest
        return {
            "verdict": self.verdict, "reasons": self.reasons, "open_questions": self.open_questions,
            "num_items": self.num_items, "num_training_patients": self.num_training_patients,
            "num_held_out_patients": self.num_held_out_patients,
            "copies": {"num_flagged": len(self.flags), "expected_share": self.flags_expected, "limit": self.flag_limit,
                       "false_flags": self.false_flags, "num_strangers": self.num_strangers},
            "nearest": asdict(nearest) | {"excess": nearest.excess} if nearest else None,
            "isolation": asdict(self.isolation) | {"verdict": self.isolation.verdict} if self.isolation else None,
            "calibration_missing": self.calibration_missing,
            "membership": asdict(self.membership) if self.membership else None,
            "retrieval": asdict(self.retrieval) | {"score": self.retrieval.score, "is_saturated": self.retrieval.is_saturated}
            if self.retrieval else None,
            "nearness": self.nearness,
        }  # fmt: skip


def audit(
    items: Traces, trained: People, held_out: People | None, *, calibration: People | None = None,
    membership: Membership | None = None, seed: int = 0,
) -> Audit:  # fmt: skip
    """Try every attack that the data allow.

    Args:
        items: The synthetic images of a release.
        trained: The patients that the generator, or an adapter of it, has learnt from.
        held_out: Patients that neither it nor the verifier has learnt from; None = there are none.
        calibration: A third group, to set the limits of predicates on; None = what is left of the held-out patients.
    """
    fits = similarities(items, trained.traces)
    stick, strangers, false_flags = _strangers(trained, held_out)
    scores = stick.scores(fits) if stick is not None else None
    flags: tuple[Flag, ...] = ()
    if stick is not None and scores is not None:
        found = [Flag(int(item), int(scores[item].argmax()), float(scores[item].max())) for item in
                 np.flatnonzero(scores.max(1) > stick.limit)]  # fmt: skip
        flags = tuple(sorted(found, key=lambda flag: -flag.score))
    quantiles = {}
    if stick is not None and scores is not None:
        for name, values in (("items", scores.max(1)), ("strangers", stick.scores(strangers).max(1))):
            quantiles[name] = [round(float(value), 3) for value in np.quantile(values, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])]
    nearest, isolation, missing = _against(items, trained, held_out, calibration, stick, seed)
    closest = fits["pixels"].argmax(1) if scores is None else scores.argmax(1)
    return Audit(
        len(items), trained.num_patients, held_out.num_patients if held_out else 0, flags, stick.limit if stick else None,
        FALSE_FLAGS if stick is None else max(FALSE_FLAGS, 1 / (stick.num_strangers + 1)), false_flags,
        stick.num_strangers if stick else 0, nearest, isolation, missing,
        Retrieval.of(closest, num_real=len(trained.traces)), membership, quantiles)  # fmt: skip


def _strangers(
    trained: People, held_out: People | None
) -> tuple[Yardstick | None, dict[str, NDArray[np.float32]], float | None]:
    """How near strangers come to the training images: held-out patients, else training patients against each other."""
    if held_out is not None and len(held_out.patients):
        fits = similarities(held_out.traces, trained.traces)
        if (stick := Yardstick.of(fits, by_held_out=True)) is not None:
            return stick, fits, _false_flags(fits, held_out.patients)
    fits = similarities(trained.traces, trained.traces)
    own = np.asarray(trained.patients)[:, None] == np.asarray(trained.patients)[None]
    if own.all(1).any() or trained.num_patients < MIN_HELD_OUT:
        return None, {}, None
    fits = {name: np.where(own, np.float32(-1), table) for name, table in fits.items()}
    return Yardstick.of(fits, by_held_out=False), fits, _false_flags(fits, trained.patients)


def _false_flags(strangers: dict[str, NDArray[np.float32]], patients: Sequence[str]) -> float | None:
    """Share of each half of the patients that the limit from the other half flags."""
    names = sorted(set(patients))
    is_first = np.isin(np.asarray(patients), names[::2])
    flagged = []
    for chosen in (is_first, ~is_first):
        stick = Yardstick.of({name: table[chosen] for name, table in strangers.items()}, by_held_out=True)
        if stick is None:
            return None
        flagged.append(stick.flags({name: table[~chosen] for name, table in strangers.items()}))
    return float(np.concatenate(flagged).mean())


def _against(
    items: Traces, trained: People, held_out: People | None, calibration: People | None, stick: Yardstick | None, seed: int
) -> tuple[Nearest | None, Isolation | None, int]:
    """Nearness and isolation, of as many images of each patient, and how many people isolation lacks."""
    num = trained.num_patients
    needed = num + calibration_needed(num)
    if held_out is None or stick is None or held_out.num_patients < MIN_HELD_OUT:
        return None, None, needed - (held_out.num_patients if held_out else 0) - (calibration.num_patients if calibration else 0)
    each = min(MAX_PER_PATIENT, max(1, min(trained.typical(), held_out.typical())))
    tables = {}
    for name, people in (("trained", trained), ("held_out", held_out), ("calibration", calibration)):
        if people is not None:
            even = people.evenly(each)
            tables[name] = even.by_patient(stick.scores(similarities(items, even.traces)))
    nearest = Nearest.of(tables["trained"], tables["held_out"], seed=seed)
    drawn = tables["held_out"][:, np.random.default_rng(seed).permutation(tables["held_out"].shape[1])]
    third = tables.get("calibration", drawn[:, num:])
    lacking = max(0, num - drawn.shape[1]) + max(0, calibration_needed(num) - third.shape[1])
    return nearest, None if lacking else Isolation.of(tables["trained"], drawn[:, :num], third, seed=seed), lacking
