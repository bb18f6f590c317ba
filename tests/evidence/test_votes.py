"""Simulated reviewers: votes add to scores, and the table of the design is reproduced by the program's own merge."""

from __future__ import annotations

import numpy as np
import pytest

from saadi.evidence import votes


def test_the_score_correlates_as_said_and_only_the_careless_one_leans_left():
    truth, scores, cast = zip(*(votes.simulate(seed) for seed in range(10)), strict=True)
    assert np.corrcoef(np.ravel(truth), np.ravel(scores))[0, 1] == pytest.approx(0.6, abs=0.05)
    left = {name: np.mean([vote.answer == "left" for part in cast for vote in part if vote.voter == name])
            for name in votes.REVIEWERS}  # fmt: skip
    assert left["careless"] > 0.6 and all(abs(left[name] - 0.5) < 0.05 for name in votes.REVIEWERS[:3])


def test_votes_add_to_scores_and_scores_to_votes():
    found = votes.run(num_seeds=6)["accuracy"]
    means = {int(count): {name: row["mean"] for name, row in rows.items()} for count, rows in found.items()}
    assert all(means[count]["scores only"] == means[60]["scores only"] for count in votes.NUM_VOTES)
    assert means[60]["scores only"] == pytest.approx(0.706, abs=0.03)
    for row in means.values():
        assert row["merged"] > row["scores only"] and row["merged"] > row["votes only"]
    merged = [means[count]["merged"] for count in votes.NUM_VOTES]
    assert merged == sorted(merged) and means[480]["merged"] > means[60]["merged"] + 0.04
    assert means[60]["votes only"] < means[60]["scores only"]  # few votes alone say less than the score
