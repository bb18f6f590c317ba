"""What makes a generator's images more varied without showing anybody: how often the label map is hidden while it is fitted, and
how strongly it leads while images are made.

Each generator is asked for images of its own training label maps, as a set to share is made of (`saadi.release.surrogates`), and
measured by how many real images it reaches (retrieval score), variety (Vendi), coverage and density of unseen patients' images,
agreement with the masks (an own segmenter), and how many images are too near to a training patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from saadi import quality
from saadi.downstream.training import ScorerConfig, train
from saadi.engines.fitting import FitConfig
from saadi.errors import TooFewError
from saadi.evidence.cases import Case
from saadi.evidence.disclosure import FIRST_SEED, MIN_PATIENTS, World, fitted, span
from saadi.evidence.settings import Models
from saadi.jobs import Report, silent

DROPOUTS = (0.0, 0.1, 0.3)
"""Shares of images whose label map is hidden in fitting; the program's own is 0.1."""
GUIDANCES = (1.0, 0.7, 1.5)
"""1 asks the network once and does not use what hiding taught it."""
MEASURES = {"dice": "Dice with the mask", "irs": "training images reached", "vendi": "Vendi",
            "coverage": "coverage of the unseen", "density": "density", "near": "too near"}  # fmt: skip


def run(case: Case, *, seeds: int, fit_steps: int, scorer_steps: int, dropouts: Sequence[float] = DROPOUTS, count: int = 120,
        report: Report = silent) -> dict[str, Any]:  # fmt: skip
    """All rows.

    Args:
        count: Images of each generator at each guidance.

    Raises:
        TooFewError: Fewer than MIN_PATIENTS test patients.
    """
    names = sorted({example.group for example in case.test})
    if len(names) < MIN_PATIENTS:
        raise TooFewError(f"{len(names)} test patients, {MIN_PATIENTS} needed to say how near strangers come; import more, or "
                          "raise --test-share")  # fmt: skip
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        world = World.of(case.train, list(case.test), seed=seed, report=report)
        segmenter = train([e.image for e in case.test], [e.label_map for e in case.test],
                          architecture=Models.of(case, side=case.train[0].image.shape[0], width=0.5).selector,
                          config=ScorerConfig(num_steps=scorer_steps, seed=seed), report=report)  # fmt: skip
        unseen = quality.appearance([example.image for example in case.test])
        masks = [case.train[place].label_map for place in np.random.default_rng(seed).permutation(len(case.train))]
        masks = [masks[number % len(masks)] for number in range(count)]
        for dropout in dropouts:
            config = FitConfig(num_steps=fit_steps, sample_every=0, seed=seed, condition_dropout=dropout)
            engine = fitted(case, list(case.train), config, report)
            for guidance in GUIDANCES if dropout else GUIDANCES[:1]:
                images = engine.generate(masks, [FIRST_SEED + number for number in range(count)], guidance_scale=guidance)
                found = world.audit(images)
                assert found.retrieval is not None, "there are images"
                made = quality.standardised(quality.appearance(images), unseen)
                seen = quality.standardised(unseen, unseen)
                rows.append({
                    "seed": seed, "dropout": dropout, "guidance": guidance,
                    "dice": round(float(np.mean([one.mean for one in segmenter.fidelity(images, masks)])), 4),
                    "irs": round(found.retrieval.score, 4), "vendi": round(quality.vendi_score(made), 3),
                    "coverage": quality.coverage(made, seen), "density": quality.density(made, seen),
                    "near": round(len(found.flags) / count, 4)})  # fmt: skip
    return {"num_training": len(case.train), "num_test_patients": len(names), "seeds": seeds, "count": count, "rows": rows}


def markdown(result: dict[str, Any]) -> list[str]:
    """One line for each generator and guidance; means, and ranges over the seeds."""
    lines = [f"{result['count']} images of training masks each, {result['seeds']} seeds", "",
             f"| mask hidden | guidance | {' | '.join(MEASURES.values())} |", f"|---|---|{'---|' * len(MEASURES)}"]  # fmt: skip
    for dropout, guidance in dict.fromkeys((row["dropout"], row["guidance"]) for row in result["rows"]):
        own = [row for row in result["rows"] if (row["dropout"], row["guidance"]) == (dropout, guidance)]
        cells = [span([row[name] for row in own if row[name] is not None], "{:.3f}") for name in MEASURES]
        lines.append(f"| {dropout:.0%} | {guidance:g} | {' | '.join(cells)} |")
    return lines
