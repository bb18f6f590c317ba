"""How much votes add to scores: simulated reviewers, merged by the program's own code.

40 masks of 4 images; the automatic score correlates 0.6 with the truth; four reviewers, one of them careless and leaning to the
left. Asked is how many pairs of images under one mask are ordered rightly by scores alone, by votes alone, and by both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from saadi import agreement
from saadi.preferences import Candidate, strengths
from saadi.records import Answer, Vote

NUM_MASKS, PER_MASK = 40, 4
CORRELATION = 0.6
"""Of the score with the truth."""
SHARPNESS = 2.0
"""A careful reviewer prefers the image that is better by d standard deviations with probability sigmoid(2 d)."""
CARELESS_SHARPNESS, CARELESS_LEFT = 0.3, 0.8
"""The careless one hardly looks, and leans to the left by 0.8 on the same scale."""
REVIEWERS = ("ann", "ben", "eve", "careless")
SHARED = 0.15
"""Share of votes on pairs that somebody else has judged already: reviewers must overlap to be weighed."""
NUM_VOTES = (60, 120, 240, 480)
METHODS = ("scores only", "votes only", "merged", "merged, reviewers weighed")


def run(*, num_seeds: int = 20) -> dict[str, Any]:
    """Pair accuracy by number of votes and method: mean over seeds, and its standard error."""
    found: dict[int, dict[str, list[float]]] = {count: {name: [] for name in METHODS} for count in NUM_VOTES}
    for seed in range(num_seeds):
        truth, scores, votes = simulate(seed)
        for count in NUM_VOTES:
            for name, value in accuracies(truth, scores, votes[:count]).items():
                found[count][name].append(value)
    return {
        "num_seeds": num_seeds,
        "accuracy": {
            str(count): {name: {"mean": round(float(np.mean(values)), 4),
                                "standard_error": round(float(np.std(values, ddof=1)) / math.sqrt(len(values)), 4)}
                         for name, values in rows.items()}
            for count, rows in found.items()
        },
    }  # fmt: skip


def simulate(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64], list[Vote]]:
    """(masks, images) true quality and scores, both standardised; and as many votes as are ever used, oldest first."""
    draw = np.random.default_rng(seed)
    truth = draw.normal(size=(NUM_MASKS, PER_MASK))
    scores = CORRELATION * truth + math.sqrt(1 - CORRELATION**2) * draw.normal(size=truth.shape)
    votes: list[Vote] = []
    judged: list[tuple[int, int, int]] = []
    while len(votes) < max(NUM_VOTES):
        if judged and draw.random() < SHARED:
            mask, left, right = judged[int(draw.integers(len(judged)))]
        else:
            mask = int(draw.integers(NUM_MASKS))
            left, right = (int(index) for index in draw.permutation(PER_MASK)[:2])
        if draw.random() < 0.5:
            left, right = right, left
        voter = REVIEWERS[int(draw.integers(len(REVIEWERS)))]
        gap = truth[mask, left] - truth[mask, right]
        lean = CARELESS_SHARPNESS * gap + CARELESS_LEFT if voter == "careless" else SHARPNESS * gap
        answer: Answer = "left" if draw.random() < 1 / (1 + math.exp(-lean)) else "right"
        assert answer in get_args(Answer)
        judged.append((mask, left, right))
        votes.append(_vote(len(votes), mask, left, right, answer, voter))
    return truth, scores, votes


def _vote(number: int, mask: int, left: int, right: int, answer: Answer, voter: str) -> Vote:
    return Vote(
        id=number, project_id=1, left_id=mask * PER_MASK + left, right_id=mask * PER_MASK + right, label_map_blob=str(mask),
        answer=answer, voter=voter, response_ms=None, supersedes=None, is_undo=False, created_at="")  # fmt: skip


def accuracies(truth: NDArray[np.float64], scores: NDArray[np.float64], votes: Sequence[Vote]) -> dict[str, float]:
    """Share of all pairs under one mask that each method orders as the truth does; a tie counts one half."""
    weights = agreement.weights(votes, [])
    right: dict[str, list[float]] = {name: [] for name in METHODS}
    for mask in range(NUM_MASKS):
        own = [vote for vote in votes if vote.label_map_blob == str(mask)]
        scored = [Candidate(mask * PER_MASK + index, "", float(scores[mask, index])) for index in range(PER_MASK)]
        level = [candidate._replace(score=0.0) for candidate in scored]
        by_method = {
            "scores only": strengths(scored, []),
            "votes only": strengths(level, own),
            "merged": strengths(scored, own),
            "merged, reviewers weighed": strengths(scored, own, weights),
        }
        for one, other in combinations(range(PER_MASK), 2):
            actual = truth[mask, one] - truth[mask, other]
            for name, found in by_method.items():
                believed = found[mask * PER_MASK + one] - found[mask * PER_MASK + other]
                is_tie = abs(believed) < 1e-9
                right[name].append(0.5 if is_tie else float(believed * actual > 0))
    return {name: float(np.mean(values)) for name, values in right.items()}
