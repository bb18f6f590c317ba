"""Which question a reviewer is asked next: pure functions on votes and numbers.

Each slot of a reviewer's session has a purpose. A golden-ratio sequence deals them out: every stretch of a sitting holds
nearly the right shares, and nobody can count along.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from saadi.records import Vote, VoteKind

Purpose = Literal["repeat", "shared", "random", "rare", "certain"]
SHARES: tuple[tuple[Purpose, float], ...] = (("repeat", 0.05), ("shared", 0.15), ("random", 0.05), ("rare", 0.25))
"""What is left, one half, goes to the least certain pairs, in front those on which the selector is weak. The shared pairs are
drawn by lot, too: 20 % are random in all."""
SHARED_SET = 0.2
"""Share of all pairs that every reviewer meets sooner or later, so that reviewers overlap."""
REPEAT_AFTER = 10
"""A pair comes back at the earliest after so many other votes: sooner, the first answer would be remembered."""
GOLDEN = 0.6180339887498949


class OpenPair(NamedTuple):
    """Two candidates of one label map that this reviewer has not compared; the smaller id first."""

    first_id: int
    second_id: int
    label_map_blob: str
    undecidedness: float
    """0 = clear, 1 = even."""
    is_rare: bool
    """Its label map holds the class that the fewest hold."""
    is_met: bool
    """Another reviewer was shown it as one of the shared set."""
    is_doubted: bool = False
    """The selector is weak or unsure just where the two differ: its opinion on them is worth little."""


@dataclass(frozen=True)
class Question:
    """A pair with its sides, and why it is asked."""

    left_id: int
    right_id: int
    kind: VoteKind


def choose(
    pairs: Sequence[OpenPair], repeatable: Sequence[Vote], *, voter: str, first_slot: int, count: int
) -> list[Question]:
    """Questions for the next `count` slots of a reviewer; fewer where pairs run out.

    The least certain pairs come from different label maps as long as there are some: a vote moves its whole label map. Sides
    are drawn by lot; a repeat has them swapped.

    Args:
        repeatable: Own votes that may be shown again, as `repeatable_votes` gives them.
        first_slot: Number of questions that this reviewer has been asked before.
    """
    taken: set[OpenPair] = set()
    by_doubt = _ByDoubt(pairs, voter)
    again = sorted(repeatable, key=lambda vote: _lot("repeat", voter, *vote.pair))
    used_label_maps: set[str] = set()
    questions: list[Question] = []
    for slot in range(first_slot, first_slot + count):
        wanted = purpose(voter, slot)
        if wanted == "repeat" and again:
            vote = again.pop(0)
            questions.append(Question(vote.right_id, vote.left_id, "repeat"))
            continue
        chosen = next(_in_order(wanted, by_doubt, taken, used_label_maps, voter=voter), None)
        if chosen is None:
            continue
        kind: VoteKind = "shared" if wanted == "shared" and is_in_shared_set(chosen.first_id, chosen.second_id) else "fresh"
        taken.add(chosen)
        used_label_maps.add(chosen.label_map_blob)
        sides = (chosen.first_id, chosen.second_id)
        left, right = sides if _lot("side", voter, *sides) < 0.5 else sides[::-1]
        questions.append(Question(left, right, kind))
    return questions


class _ByDoubt:
    """Pairs, in front those on which the selector is weak, then the least certain; the lot among equally uncertain ones is drawn
    once they are reached: of thousands few are."""

    def __init__(self, pairs: Sequence[OpenPair], voter: str) -> None:
        self.pairs = pairs
        self._voter = voter
        found: dict[tuple[bool, float], list[OpenPair]] = defaultdict(list)
        for pair in pairs:
            found[pair.is_doubted, round(pair.undecidedness, 2)].append(pair)
        self._levels = [found[level] for level in sorted(found, reverse=True)]
        self._num_sorted = 0

    def __iter__(self) -> Iterator[OpenPair]:
        for index, level in enumerate(self._levels):
            if index == self._num_sorted:
                level.sort(key=lambda pair: _lot(self._voter, pair.first_id, pair.second_id))
                self._num_sorted += 1
            yield from level


def _in_order(
    wanted: Purpose, by_doubt: _ByDoubt, taken: set[OpenPair], used: set[str], *, voter: str
) -> Iterator[OpenPair]:
    """Pairs that serve the purpose, best first, and behind them all others, least certain first."""
    def free() -> Iterator[OpenPair]:
        return (pair for pair in by_doubt if pair not in taken)

    if wanted == "shared":
        # The same order for everybody; in front what somebody else has met already.
        met = [pair for pair in by_doubt.pairs if pair not in taken and is_in_shared_set(pair.first_id, pair.second_id)]
        yield from sorted(met, key=lambda pair: (not pair.is_met, _lot("shared", pair.first_id, pair.second_id)))
    elif wanted == "random":
        yield from sorted(free(), key=lambda pair: _lot("random", voter, pair.first_id, pair.second_id))
    elif wanted == "rare":
        yield from (pair for pair in free() if pair.is_rare and pair.label_map_blob not in used)
        yield from (pair for pair in free() if pair.is_rare)
    yield from (pair for pair in free() if pair.label_map_blob not in used)
    yield from free()


def purpose(voter: str, slot: int) -> Purpose:
    """What a reviewer's question number `slot` is for."""
    place = (_lot("start", voter) + slot * GOLDEN) % 1
    for name, part in SHARES:
        if place < part:
            return name
        place -= part
    return "certain"


def is_in_shared_set(first_id: int, second_id: int) -> bool:
    """Whether every reviewer is to meet this pair; the same on every computer."""
    return _lot("shared", min(first_id, second_id), max(first_id, second_id)) < SHARED_SET


def checked_kind(kind: VoteKind, left_id: int, right_id: int) -> VoteKind:
    """What a browser may claim: a pair outside the shared set is a fresh one. Repeats and rulings are checked by the store."""
    return "fresh" if kind == "shared" and not is_in_shared_set(left_id, right_id) else kind


def repeatable_votes(own: Sequence[Vote], *, exclude: Iterable[tuple[int, int]]) -> list[Vote]:
    """Own blind votes with an answer that may be shown again: not among the last ten, never repeated before, not on the way.

    Args:
        own: All votes of one reviewer in force, repeats among them, oldest first.
        exclude: Pairs (smaller id first) that the browser holds already.
    """
    closed = {vote.pair for vote in own if vote.kind in ("repeat", "ruling")} | set(exclude)
    old = own[:-REPEAT_AFTER]
    return [vote for vote in old if vote.kind in ("fresh", "shared") and vote.answer != "skip" and vote.pair not in closed]


@lru_cache(maxsize=262_144)
def _lot(*parts: Hashable) -> float:
    """A number in [0, 1) that looks random and is always the same for the same parts."""
    digest = hashlib.blake2b(":".join(map(str, parts)).encode(), digest_size=7).digest()
    return int.from_bytes(digest) / 2**56
