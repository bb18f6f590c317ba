"""Votes and scores to preference pairs: pure functions on records and numbers.

Merge (docs/design.md): Bradley-Terry per label map over human votes and weighted pseudo-votes of the selector. In simulation
60 votes lifted pair accuracy from 0.706 (scores only) to 0.735; votes only gave 0.617. A human overrules a score, but a
conflict waits for a second opinion before it trains: 30 % wrong pairs wiped out nearly the whole gain.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple, cast

import evalica

from saadi.records import Pair, Vote
from saadi.trust import Doubt, Trust, doubt, separating_class

MIN_MARGIN = 0.05
"""Dice between chosen and rejected; smaller differences are noise of the selector (docs/design.md)."""
MAX_PAIRS_PER_LABEL_MAP = 2
PSEUDO_VOTES = 1.0
"""Weight kappa of the score's virtual votes against one human vote."""
TEMPERATURE = 1.0
"""tau in p = sigmoid(tau * standardised score difference)."""
AUTOMATIC_WEIGHT = 0.5
"""Training weight of a pair that only the score decided; pairs with a human vote weigh 1."""
DOUBTED_WEIGHT = 0.25
"""Of a pair that the score alone decided where the selector is weak or unsure (`saadi.trust`)."""
RARE_SHARE = 0.25
"""At least this share of the pairs that the score decides tell the rarest classes apart, where there are such pairs: best against
worst by the mean over classes is nearly always decided by the large ones."""


DecisionSource = Literal["score", "vote", "agreed"]
LeftOutReason = Literal["conflict", "both_bad", "both_good", "cap", "undecided"]
OUTCOMES = {
    "left": evalica.Winner.X,
    "right": evalica.Winner.Y,
    "both_good": evalica.Winner.Draw,
    "both_bad": evalica.Winner.Draw,
}


class Candidate(NamedTuple):
    """A sample as the merge sees it."""

    sample_id: int
    blob: str
    score: float
    """Selector's Dice against the asked label map, 0..1."""
    confidence: float = 1.0
    """The selector's own, 0..1."""
    class_dice: tuple[float | None, ...] = ()
    """Selector's Dice by class index; None = neither asked for nor seen, empty = not read."""
    is_refused: bool = False
    """By the quality gate: it wins by votes only."""


@dataclass(frozen=True)
class Decision:
    """What votes and scores together say about two candidates of one label map."""

    chosen: Candidate
    rejected: Candidate
    source: DecisionSource
    margin: float
    """Probability that the chosen one is better (merged), minus 0.5, times 2; 0..1."""
    num_people: int = 0
    """Who voted for it."""
    num_against: int = 0
    is_ruled: bool = False
    """The lead had the last word."""
    doubt: Doubt | None = None
    """What speaks against the selector here; told, and counted where it decided alone."""


@dataclass(frozen=True)
class Merged:
    """The outcome for one label map."""

    decisions: tuple[Decision, ...]
    conflicts: tuple[tuple[int, int], ...]
    """Sample ids (winner by votes, loser by votes) where the score clearly disagrees and only one person has voted, or
    people disagree."""
    num_undecided: int
    over_cap: tuple[tuple[int, int], ...] = ()
    """Decisions beyond `MAX_PAIRS_PER_LABEL_MAP` (chosen, rejected), left out so that no label map rules the training."""


class LeftOut(NamedTuple):
    """Two candidates of one label map that make no pair."""

    first_id: int
    second_id: int
    reason: LeftOutReason


def strengths(
    candidates: Sequence[Candidate], votes: Iterable[Vote], weights: Mapping[str, float] | None = None
) -> dict[int, float]:
    """Merged log-strength per sample id of one label map (Bradley-Terry with pseudo-votes).

    Each ordered pair of candidates gets kappa virtual votes split p / (1 - p) by the standardised score difference; a human
    vote counts as much as its voter weighs; 'both good' and 'both bad' count as a tie.

    Args:
        weights: Voter -> weight of their votes (`agreement.weights`); 1 where nothing is said. A ruling weighs 1.
    """
    known = {candidate.sample_id for candidate in candidates}
    answers = tuple(
        (vote.left_id, vote.right_id, vote.answer, _weight(vote, weights or {}))
        for vote in as_they_count(votes)
        if vote.answer in OUTCOMES and {vote.left_id, vote.right_id} <= known
    )
    return dict(_strengths(tuple((candidate.sample_id, candidate.score) for candidate in candidates), answers))


@lru_cache(maxsize=16_384)
def _strengths(scored: tuple[tuple[int, float], ...], answers: tuple[tuple[int, int, str, float], ...]) -> dict[int, float]:
    # Kept, because a vote changes one label map, and the next pair is chosen among all: 500 fits took 0.6 s.
    mean = sum(score for _, score in scored) / max(1, len(scored))
    spread = math.sqrt(sum((score - mean) ** 2 for _, score in scored) / max(1, len(scored))) or 1.0
    if not answers:
        # Pseudo-votes alone are a Bradley-Terry model already: its maximum likelihood is what they were made of. Nearly all
        # label maps of a pool are like this, and a fit of each took 0.5 ms.
        return {sample_id: TEMPERATURE * score / spread for sample_id, score in scored}
    lefts: list[int] = []
    rights: list[int] = []
    winners: list[evalica.Winner] = []
    counts: list[float] = []
    for index, (first, first_score) in enumerate(scored):
        for second, second_score in scored[index + 1 :]:
            likely = _sigmoid(TEMPERATURE * (first_score - second_score) / spread)
            for winner, weight in ((evalica.Winner.X, likely), (evalica.Winner.Y, 1 - likely)):
                lefts.append(first)
                rights.append(second)
                winners.append(winner)
                counts.append(PSEUDO_VOTES * weight)
    for left, right, answer, weight in answers:
        lefts.append(left)
        rights.append(right)
        winners.append(OUTCOMES[answer])
        counts.append(weight)
    result = evalica.bradley_terry(lefts, rights, winners, weights=counts)
    return {int(cast(int, sample_id)): math.log(max(float(value), 1e-12)) for sample_id, value in result.scores.items()}


def as_they_count(votes: Iterable[Vote]) -> list[Vote]:
    """Votes as they count: where the lead has ruled on a pair, the newest ruling stands for everybody's votes on it.

    Args:
        votes: Oldest first.
    """
    votes = list(votes)
    rulings = {vote.pair: vote for vote in votes if vote.kind == "ruling"}
    return [vote for vote in votes if vote.pair not in rulings] + list(rulings.values()) if rulings else votes


def _weight(vote: Vote, weights: Mapping[str, float]) -> float:
    return 1.0 if vote.kind == "ruling" else weights.get(vote.voter, 1.0)


def merge(
    candidates: Sequence[Candidate],
    votes: Sequence[Vote],
    weights: Mapping[str, float] | None = None,
    *,
    trust: Trust | None = None,
) -> Merged:
    """Chosen and rejected candidates of one label map.

    Every pair that people voted on is decided by them, unless they contradict each other or the selector's clear opinion
    (margin of at least `MIN_MARGIN`) without a second opinion: that is a conflict and is held out, until a ruling of the lead
    settles it. Beside those, the best against the worst by merged strength, where the selector's margin is clear. 'Both bad'
    never makes a winner, except where a ruling names one; what the quality gate refuses wins no pair by score.

    Args:
        votes: Oldest first.
        weights: As in `strengths`.
        trust: What is known of the selector.
    """
    by_id = {candidate.sample_id: candidate for candidate in candidates}
    votes = as_they_count(votes)
    ruled = {vote.pair for vote in votes if vote.kind == "ruling"}
    banned = {sample_id for vote in votes if vote.answer == "both_bad" for sample_id in (vote.left_id, vote.right_id)}
    merged = strengths(candidates, votes, weights)
    decisions: list[Decision] = []
    conflicts: list[tuple[int, int]] = []
    voted = {vote.pair for vote in votes if vote.answer != "skip"}
    for (better, worse), (in_favour, against) in sorted(_tally(votes, by_id, weights or {}).items()):
        is_ruled = _ordered(better, worse) in ruled
        if better in banned and not is_ruled:
            continue
        gap = by_id[better].score - by_id[worse].score
        is_contradicted = bool(against) and sum(in_favour) <= 2 * sum(against)
        # Two careless reviewers are no second opinion.
        is_alone = len(in_favour) < 2 or sum(in_favour) < 1
        if not is_ruled and (is_contradicted or (gap <= -MIN_MARGIN and is_alone)):
            conflicts.append((better, worse))
            continue
        decisions.append(
            Decision(
                by_id[better],
                by_id[worse],
                "agreed" if gap >= MIN_MARGIN else "vote",
                _margin(merged, better, worse),
                num_people=len(in_favour),
                num_against=len(against),
                is_ruled=is_ruled,
                doubt=doubt(by_id[better], by_id[worse], trust or Trust()),
            )
        )
    decisions.sort(key=lambda item: (_pair_of(item) not in ruled, -item.margin, item.chosen.sample_id))
    automatic = _best_against_worst(candidates, merged, banned | _refused(candidates))
    undecided = 0
    if automatic is None:
        undecided = int(not decisions)
    elif _pair_of(automatic) not in voted:
        decisions.append(replace(automatic, doubt=doubt(automatic.chosen, automatic.rejected, trust or Trust())))
    kept, beyond = decisions[:MAX_PAIRS_PER_LABEL_MAP], decisions[MAX_PAIRS_PER_LABEL_MAP:]
    over_cap = tuple((item.chosen.sample_id, item.rejected.sample_id) for item in beyond)
    return Merged(tuple(kept), tuple(conflicts), undecided, over_cap)


def _refused(candidates: Sequence[Candidate]) -> set[int]:
    return {candidate.sample_id for candidate in candidates if candidate.is_refused}


def _best_against_worst(candidates: Sequence[Candidate], merged: Mapping[int, float], banned: set[int]) -> Decision | None:
    eligible = [candidate for candidate in candidates if candidate.sample_id not in banned]
    if not eligible or len(candidates) < 2:
        return None
    best = max(eligible, key=lambda candidate: (merged[candidate.sample_id], candidate.sample_id))
    worst = min(candidates, key=lambda candidate: (merged[candidate.sample_id], candidate.sample_id))
    if best.sample_id == worst.sample_id or best.score - worst.score < MIN_MARGIN:
        return None
    return Decision(best, worst, "score", _margin(merged, best.sample_id, worst.sample_id))


def left_out(candidates: Sequence[Candidate], votes: Sequence[Vote], merged: Merged) -> list[LeftOut]:
    """Comparisons of one label map that make no pair, each under one reason.

    Returns:
        conflict (vote against vote, or one vote against a clear score; waits for a second opinion), cap (two pairs of this label
        map are enough), both_bad (somebody calls an image of it bad), both_good (people see no difference), undecided (scores
        less than 0.05 Dice apart, and no vote; best and worst stand for the label map).
    """
    known = {candidate.sample_id for candidate in candidates}
    used = {_pair_of(item) for item in merged.decisions}
    found = [LeftOut(*pair, "conflict") for pair in merged.conflicts] + [LeftOut(*pair, "cap") for pair in merged.over_cap]
    told = used | {_ordered(item.first_id, item.second_id) for item in found}
    answers: dict[tuple[int, int], set[str]] = {}
    for vote in as_they_count(votes):
        if vote.answer != "skip" and {vote.left_id, vote.right_id} <= known:
            answers.setdefault(vote.pair, set()).add(vote.answer)
    bad = {sample_id for pair, given in answers.items() if "both_bad" in given for sample_id in pair}
    for pair, given in answers.items():
        if pair in told:
            continue
        if "both_bad" in given or (given & {"left", "right"} and bad & set(pair)):
            found.append(LeftOut(*pair, "both_bad"))
        elif not given & {"left", "right"}:
            found.append(LeftOut(*pair, "both_good"))
    if not found and merged.num_undecided and len(candidates) > 1:  # otherwise the mask's reason has been told
        ranked = sorted(candidates, key=lambda candidate: (candidate.score, candidate.sample_id))
        found.append(LeftOut(ranked[-1].sample_id, ranked[0].sample_id, "undecided"))
    return found


def is_rare(decision: Decision, rare: Collection[int]) -> bool:
    """Whether the score alone decided it and the two images differ most in one of these classes."""
    return decision.source == "score" and separating_class(decision.chosen, decision.rejected) in rare


def rare_decision(
    candidates: Sequence[Candidate],
    votes: Sequence[Vote],
    merged: Merged,
    rare: Collection[int],
    weights: Mapping[str, float] | None = None,
    *,
    trust: Trust | None = None,
) -> Decision | None:
    """The two candidates that differ most in a rare class, and there more than in any other; a further pair of its label map.

    The better one must not be worse as a whole, by score or by merged strength, nor be called bad; pairs on which people have
    voted are theirs to decide. None where no two fit or the label map has its two pairs.
    """
    if len(merged.decisions) >= MAX_PAIRS_PER_LABEL_MAP:
        return None
    votes = as_they_count(votes)
    closed = {vote.pair for vote in votes if vote.answer != "skip"} | {_pair_of(item) for item in merged.decisions}
    banned = {sample_id for vote in votes if vote.answer == "both_bad" for sample_id in vote.pair} | _refused(candidates)
    strength = strengths(candidates, votes, weights)
    found: list[tuple[float, int, Decision]] = []
    for better in candidates:
        for worse in candidates:
            index = separating_class(better, worse)
            if index is None or index not in rare or better.sample_id in banned:
                continue
            gap = (better.class_dice[index] or 0.0) - (worse.class_dice[index] or 0.0)
            is_better = better.score >= worse.score and strength[better.sample_id] >= strength[worse.sample_id]
            if gap < MIN_MARGIN or not is_better or _ordered(better.sample_id, worse.sample_id) in closed:
                continue
            margin = _margin(strength, better.sample_id, worse.sample_id)
            item = Decision(better, worse, "score", margin, doubt=doubt(better, worse, trust or Trust()))
            found.append((gap, -better.sample_id, item))
    return max(found, key=lambda item: item[:2])[2] if found else None


def with_rare_quota(
    outcomes: Mapping[str, Merged], options: Mapping[str, Decision], rare: Collection[int]
) -> dict[str, Merged]:
    """Outcomes by label map with further pairs, until `RARE_SHARE` of what the score decides tells rare classes apart.

    Nothing is taken away for it. Those that differ most in their rare class come first; equal ones in the order of label maps.

    Args:
        options: Label map -> as `rare_decision` gives it.
    """
    total = sum(item.source == "score" for merged in outcomes.values() for item in merged.decisions)
    num_rare = sum(is_rare(item, rare) for merged in outcomes.values() for item in merged.decisions)
    found = dict(outcomes)
    for blob in sorted(options, key=lambda blob: (-_class_gap(options[blob]), blob)):
        if num_rare >= RARE_SHARE * total:
            break
        merged = found[blob]
        found[blob] = replace(merged, decisions=(*merged.decisions, options[blob]), num_undecided=0)
        num_rare, total = num_rare + 1, total + 1
    return found


def _class_gap(decision: Decision) -> float:
    index = separating_class(decision.chosen, decision.rejected)
    assert index is not None, "chosen because they differ in it"
    return (decision.chosen.class_dice[index] or 0.0) - (decision.rejected.class_dice[index] or 0.0)


def _tally(
    votes: Sequence[Vote], known: Mapping[int, Candidate], weights: Mapping[str, float]
) -> dict[tuple[int, int], tuple[list[float], list[float]]]:
    """(better, worse) -> weights of the people for it and against it, ordered so that the heavier side is in front."""
    people: dict[tuple[int, int], dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for vote in votes:
        if vote.answer in ("left", "right") and vote.left_id in known and vote.right_id in known:
            winner = vote.left_id if vote.answer == "left" else vote.right_id
            people[vote.pair][winner][vote.voter] = _weight(vote, weights)
    tally: dict[tuple[int, int], tuple[list[float], list[float]]] = {}
    for (first, second), winners in people.items():
        for_first, for_second = list(winners[first].values()), list(winners[second].values())
        if sum(for_first) >= sum(for_second):
            tally[first, second] = (for_first, for_second)
        else:
            tally[second, first] = (for_second, for_first)
    return tally


def _ordered(first: int, second: int) -> tuple[int, int]:
    return (first, second) if first < second else (second, first)


def _pair_of(decision: Decision) -> tuple[int, int]:
    return _ordered(decision.chosen.sample_id, decision.rejected.sample_id)


def _margin(merged: Mapping[int, float], better: int, worse: int) -> float:
    return max(1e-6, 2 * _sigmoid(merged[better] - merged[worse]) - 1)


def training_weight(decision: Decision) -> float:
    """A pair with a human vote weighs 1; one that the score alone decided less, least where the selector is weak or unsure."""
    if decision.source != "score":
        return 1.0
    return DOUBTED_WEIGHT if decision.doubt else AUTOMATIC_WEIGHT


def to_pairs(decisions: Iterable[Decision], *, label_map_blob: str) -> list[Pair]:
    """Training pairs of one label map."""
    return [
        Pair(
            label_map_blob=label_map_blob,
            chosen_blob=item.chosen.blob,
            rejected_blob=item.rejected.blob,
            source=item.source,
            weight=training_weight(item),
            margin=round(item.margin, 6),
        )
        for item in decisions
    ]


def undecidedness(merged: Mapping[int, float], first: int, second: int) -> float:
    """0 = clear, 1 = even: how much a vote on this pair would tell."""
    return 1 - abs(2 * _sigmoid(merged[first] - merged[second]) - 1)


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
