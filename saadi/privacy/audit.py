"""What a set of synthetic images says about the patients that its generator has learnt from: all measures of one audit.

Copies (`saadi.privacy.copies`), nearness to training patients against held-out ones, isolation at weight 1 / (10 N) where enough
strangers are there to set limits on (`saadi.privacy.isolation`), variety (`saadi.privacy.retrieval`). Each measure is an attack
that was tried: one that finds nothing proves nothing, and the words of the verdict say no more. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from saadi.privacy.copies import CHUNK, FALSE_FLAGS, Traces, Yardstick, of_others, similarities
from saadi.privacy.isolation import MAX_EXCESS, MIN_PATIENTS, Isolation, Nearest, calibration_needed
from saadi.privacy.membership import Membership
from saadi.privacy.retrieval import Retrieval

MIN_HELD_OUT = 8
"""Held-out patients from which on nearness to them says something."""
MAX_PER_PATIENT = 16
"""Images of a patient that count as that patient; who shows more of himself would be nearer to everything."""
MAX_COMPANION = 0.5
"""Upper end of the excess of nearness from which on too little is known."""
MIN_PLANTED_FOUND = 0.9
"""Share of planted copies that an audit must find to say that there are none."""
UNKNOWN = "own-"
"""Begins the name that an image gets whose patient nobody named."""
AGAIN = "export again, which leaves them out"
Look = Callable[[int, int], None]

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
        """Just so many images of each patient, spread over all of theirs, and nobody who has fewer."""
        enough = [places for places in self._of_each().values() if len(places) >= per_patient]
        kept = sorted(place for places in enough for place in _spread(places, per_patient))
        return People(self.traces.take(kept), tuple(self.patients[place] for place in kept))

    def usual(self) -> int:
        """Number of images that all but a tenth of the patients have."""
        return int(np.quantile([len(places) for places in self._of_each().values()], 0.1, method="lower"))

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
    """Share of items up to which flags may be chance, where none is a copy."""
    false_flags: float | None
    """Share of a stranger's images that the limit from the other half of them flags, on average over strangers."""
    num_strangers: int
    nearest: Nearest | None
    isolation: Isolation | None
    people_missing: int
    """Patients whom nothing was learnt from that isolation would have needed beyond those that are there."""
    retrieval: Retrieval | None
    membership: Membership | None
    nearness: dict[str, list[float]]
    """Quantiles 0, 5, 25, 50, 75, 95, 100 % of how near the nearest training image is: of 'items' and of 'strangers'."""
    planted_found: float | None
    """Share of planted copies that were found in the same run."""
    num_clear: int
    """Flagged items that are as near as nine of ten planted copies, and nearer than any stranger."""
    num_unknown: int
    """'Patients' who are single images of which nobody said whose they are."""
    num_shared: int
    """Images of strangers (held-out patients, or training patients to each other) that show a training image of somebody else."""

    @property
    def finds_copies(self) -> bool:
        """Whether there is a limit, and copies that were planted in the same run lie beyond it."""
        return self.flag_limit is not None and (self.planted_found is None or self.planted_found >= MIN_PLANTED_FOUND)

    @property
    def reasons(self) -> list[str]:
        """Why it fails, in words; none where no attack has found anything."""
        found = []
        if self.num_clear:
            found.append(f"{self.num_clear} of {self.num_items} images are as near to a training image as copies that were "
                         "planted in the same run")  # fmt: skip
        if self.flags and self._low_share_of_flags() > self.flags_expected:
            found.append(f"{len(self.flags)} of {self.num_items} images are nearer to a training image than strangers come, "
                         f"up to {self.flags_expected:.0%} may be by chance")  # fmt: skip
        if self.nearest is not None and self.nearest.excess_interval[0] > 0 and self.nearest.excess > MAX_EXCESS:
            found.append(f"{self.nearest.share:.0%} of the images lie nearest to a training patient, {self.nearest.expected:.0%} "
                         "would where nothing is remembered and no layout is taken over")  # fmt: skip
        if self.isolation is not None and self.isolation.low > 0 and self.isolation.high >= MAX_EXCESS:
            found.append(f"{self.isolation.of_trained:.0%} of the images single out one training patient, "
                         f"{self.isolation.of_held_out:.0%} one of as many strangers")  # fmt: skip
        return found

    @property
    def open_questions(self) -> list[str]:
        """What could not be measured or ruled out, and what it would take; with one of these nothing is concluded."""
        found = []
        if self.num_training_patients < MIN_PATIENTS:
            found.append(f"{self.num_training_patients} training patients; from {MIN_PATIENTS} on something can be concluded")
        if self.num_unknown:
            found.append(f"of {self.num_unknown} images nobody said whose they are, so frames of one patient may count as "
                         "several; import with a column or pattern that says it")  # fmt: skip
        if self.num_shared:
            found.append(f"{self.num_shared} images of some patients show the same picture as a training image of others, so "
                         "patients are not told apart; import these as one patient's")  # fmt: skip
        if self.flags and not self.reasons:
            found.append(f"{len(self.flags)} images are nearer to a training image than strangers come; {AGAIN}")
        if self.flag_limit is None:
            found.append("too few patients to say how near strangers come, so copies could not be looked for")
        if self.flag_limit is not None and not self.finds_copies:
            found.append(f"of copies that were planted to see whether copies are found here {self.planted_found:.0%} were")
        if self.nearest is None:
            found.append(f"{self.num_held_out_patients} patients whom nothing was learnt from; {MIN_HELD_OUT} are needed to "
                         "compare with")  # fmt: skip
        elif self.nearest.excess_interval[1] > MAX_COMPANION:
            found.append("there are too few images or patients to rule out that many images lie nearest to training patients "
                         f"(up to {self.nearest.high:.0%} of them; {self.nearest.expected:.0%} expected)")  # fmt: skip
        if self.isolation is not None and self.isolation.verdict != "passes":
            found.append("the interval of singling out is too wide to rule out an excess of "
                         f"{MAX_EXCESS:.0%} ({self.isolation.high:.0%} is possible)")  # fmt: skip
        return found

    @property
    def verdict(self) -> Verdict:
        """'nothing found' needs that every question but that of isolation was asked, for which hospitals have too few people."""
        if self.reasons:
            return "fails"
        return "nothing concluded" if self.open_questions else "nothing found"

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
                       "false_flags": self.false_flags, "num_strangers": self.num_strangers,
                       "planted_found": self.planted_found, "num_clear": self.num_clear,
                       "num_shared": self.num_shared},
            "nearest": asdict(nearest) | {"excess": nearest.excess} if nearest else None,
            "isolation": asdict(self.isolation) | {"verdict": self.isolation.verdict} if self.isolation else None,
            "people_missing": self.people_missing,
            "membership": asdict(self.membership) if self.membership else None,
            "retrieval": asdict(self.retrieval) | {"score": self.retrieval.score, "is_saturated": self.retrieval.is_saturated}
            if self.retrieval else None,
            "nearness": self.nearness,
        }  # fmt: skip


@dataclass(frozen=True)
class Watch:
    """Says of images whether they come nearer to a training image than strangers do, batch after batch."""

    trained: People
    stick: Yardstick

    @classmethod
    def of(cls, trained: People, held_out: People | None, *, planted: Traces,
           look: Look = lambda step, total: None) -> Watch | None:  # fmt: skip
        """None where there are too few patients to say how near strangers come, or fewer than MIN_PLANTED_FOUND of the planted
        copies are nearer; `look` is told how far it is and may raise."""
        stick = _strangers(trained, held_out, _Work(look, len((held_out or trained).patients))).stick
        if stick is None:
            return None
        made = cls(trained, stick)
        return made if made.look(planted)[0].mean() >= MIN_PLANTED_FOUND else None

    def look(self, items: Traces) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """(N,) whether each is too near, and the place of the training image that is nearest to it."""
        found = _nearest(items, self.trained, self.stick, _Work())
        return np.asarray(found.score > self.stick.limit), found.place


def audit(
    items: Traces, trained: People, held_out: People | None, *, calibration: People | None = None,
    membership: Membership | None = None, planted: Traces | None = None, seed: int = 0, look: Look = lambda step, total: None,
) -> Audit:  # fmt: skip
    """Try every attack that the data allow.

    Args:
        items: The synthetic images of a release.
        trained: The patients that the generator, or an adapter of it, has learnt from.
        held_out: Patients that neither it nor the verifier has learnt from; None = there are none.
        calibration: More such people, from elsewhere.
        planted: Copies of training images, to see whether copies are found here at all.
        look: Told how far it is; may raise to stop.
    """
    work = _Work(look, len(items) * 2 + (len(held_out.patients) if held_out else len(trained.patients)))
    stick, strangers, false_flags, num_shared = _strangers(trained, held_out, work)
    found = _nearest(items, trained, stick, work)
    flags: tuple[Flag, ...] = ()
    quantiles, planted_found, num_clear = {}, None, 0
    if stick is not None:
        flags = tuple(sorted((Flag(int(item), int(found.place[item]), float(found.score[item]))
                              for item in np.flatnonzero(found.score > stick.limit)), key=lambda flag: -flag.score))  # fmt: skip
        for name, values in (("items", found.score), ("strangers", stick.scores(strangers))):
            quantiles[name] = [round(float(value), 3) for value in np.quantile(values, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])]
        if planted is not None:
            of_planted = _nearest(planted, trained, stick, _Work()).score
            planted_found = float((of_planted > stick.limit).mean())
            clear = max(float(np.quantile(of_planted, 0.1)), quantiles["strangers"][-1])
            # Who finds few of the planted ones tells no copy from what is merely near.
            num_clear = sum(flag.score > clear for flag in flags) if planted_found >= MIN_PLANTED_FOUND else 0
    nearest, isolation, missing = _against(items, trained, held_out, calibration, seed, work)
    expected = _expected(stick, held_out if stick is not None and stick.by_held_out and held_out is not None else trained)
    return Audit(
        num_items=len(items), num_training_patients=trained.num_patients,
        num_held_out_patients=held_out.num_patients if held_out else 0, flags=flags, flag_limit=stick.limit if stick else None,
        flags_expected=expected, false_flags=false_flags,
        num_strangers=stick.num_strangers if stick else 0, nearest=nearest, isolation=isolation, people_missing=missing,
        retrieval=Retrieval.of(found.place, num_real=len(trained.traces)), membership=membership, nearness=quantiles,
        planted_found=planted_found, num_clear=num_clear, num_unknown=_num_unknown(trained, held_out, calibration),
        num_shared=num_shared)


def _num_unknown(*groups: People | None) -> int:
    return sum(patient.startswith(UNKNOWN) for people in groups if people is not None for patient in set(people.patients))


class _Work:
    """How far an audit is, in images that were compared."""

    def __init__(self, look: Look = lambda step, total: None, total: int = 0) -> None:
        self.look, self.total, self.done = look, total, 0

    def chunks(self, count: int) -> Iterator[range]:
        for first in range(0, count, CHUNK):
            self.look(min(self.done, self.total), self.total)
            yield range(first, min(first + CHUNK, count))
            self.done += CHUNK


class _Near(NamedTuple):
    """Of each item the training image that is nearest to it, and how near: its score, without a yardstick its correlation."""

    place: NDArray[np.int64]
    score: NDArray[np.float64]


def _nearest(items: Traces, trained: People, stick: Yardstick | None, work: _Work) -> _Near:
    places, scores = [], []
    for chunk in work.chunks(len(items)):
        fits = similarities(items.take(chunk), trained.traces)
        table = fits["pixels"] if stick is None else stick.scores({name: fits[name] for name in stick.centres})
        places.append(table.argmax(1))
        scores.append(table.max(1))
    return _Near(np.concatenate(places), np.concatenate(scores).astype(np.float64))


class _Strangers(NamedTuple):
    """How near strangers come to the training images."""

    stick: Yardstick | None
    nearest: dict[str, NDArray[np.floating]]
    """By measure, of each of their images that shows no training image itself."""
    false_flags: float | None
    num_shared: int
    """Images of theirs that do."""


def _strangers(trained: People, held_out: People | None, work: _Work) -> _Strangers:
    """Strangers are held-out patients, else training patients to each other. These the verifier has learnt to tell apart, so it
    does not count there."""
    by_held_out = held_out is not None and held_out.num_patients >= MIN_HELD_OUT
    people = held_out if held_out is not None and by_held_out else trained
    if people.num_patients < MIN_HELD_OUT:
        return _Strangers(None, {}, None, 0)
    found, patients, num_shared = of_others(_closest(people, trained, work), people.patients)
    if not by_held_out:
        found.pop("verifier", None)
    stick = Yardstick.of_nearest(found, patients, by_held_out=by_held_out)
    return _Strangers(stick, found, _false_flags(found, patients), num_shared)


def _closest(people: People, trained: People, work: _Work) -> dict[str, NDArray[np.float32]]:
    """(N,) by measure: of each image the largest similarity to a training image of somebody else."""
    mine, theirs = np.asarray(people.patients), np.asarray(trained.patients)
    parts: dict[str, list[NDArray[np.float32]]] = {}
    for chunk in work.chunks(len(people.traces)):
        own = mine[chunk.start : chunk.stop, None] == theirs[None]
        for name, table in similarities(people.traces.take(chunk), trained.traces).items():
            parts.setdefault(name, []).append(np.where(own, np.float32(-1), table).max(1))
    return {name: np.concatenate(found) for name, found in parts.items()}


def _false_flags(strangers: dict[str, NDArray[np.floating]], patients: Sequence[str]) -> float | None:
    """Share of a patient's images that the limit from the other half of the patients flags, on average."""
    whose = np.asarray(patients)
    is_first = np.isin(whose, sorted(set(patients))[::2])
    shares = []
    for chosen in (is_first, ~is_first):
        half = {name: values[chosen] for name, values in strangers.items()}
        stick = Yardstick.of_nearest(half, list(whose[chosen]), by_held_out=True)
        if stick is None:
            return None
        beyond = stick.scores({name: values[~chosen] for name, values in strangers.items()}) > stick.limit
        shares += [float(beyond[whose[~chosen] == patient].mean()) for patient in np.unique(whose[~chosen])]
    return float(np.mean(shares))


def _expected(stick: Yardstick | None, strangers: People) -> float:
    """Share of sound images that may be flagged: the limit is an estimate, so the rate beyond it is a beta variable (Vovk 2012);
    images of one patient count as one."""
    if stick is None:
        return FALSE_FLAGS
    num = strangers.num_patients
    beyond = max(1, int(FALSE_FLAGS * (num + 1) + 1e-9))
    return float(beta.ppf(0.975, beyond, num + 1 - beyond))


def _against(
    items: Traces, trained: People, held_out: People | None, calibration: People | None, seed: int, work: _Work
) -> tuple[Nearest | None, Isolation | None, int]:
    """Nearness and isolation, and how many people isolation lacks. Pixels and hashes alone: the verifier has learnt from one of
    the groups that are compared. Of as many images of each patient."""
    num = trained.num_patients
    needed = num + calibration_needed(num)
    there = (held_out.num_patients if held_out else 0) + (calibration.num_patients if calibration else 0)
    if held_out is None or held_out.num_patients < MIN_HELD_OUT:
        return None, None, max(0, needed - there)
    groups = [trained, held_out, *([calibration] if calibration else [])]
    each = min(MAX_PER_PATIENT, *(group.usual() for group in groups))
    even = [group.evenly(each) for group in groups]
    close, patients, _ = of_others(_closest(even[1], even[0], _Work()), even[1].patients)
    close.pop("verifier", None)
    stick = Yardstick.of_nearest(close, patients, by_held_out=True)
    if stick is None:
        return None, None, max(0, needed - there)
    tables: list[list[NDArray[np.float64]]] = [[] for _ in even]
    for chunk in work.chunks(len(items)):
        some = items.take(chunk)
        for kept, group in zip(tables, even, strict=True):
            fits = similarities(some, group.traces)
            kept.append(group.by_patient(stick.scores({name: fits[name] for name in stick.centres})))
    mine, others, *more = (np.concatenate(kept) for kept in tables)
    nearest = Nearest.of(mine, others, seed=seed)
    people = np.concatenate([others[:, np.random.default_rng(seed).permutation(others.shape[1])], *more], axis=1)
    num = mine.shape[1]
    lacking = max(0, num + calibration_needed(num) - people.shape[1])
    return nearest, None if lacking else Isolation.of(mine, people[:, :num], people[:, num:], seed=seed), lacking
