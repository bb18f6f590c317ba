"""Fit the weights of the smart click's evidence (assets/smart_click.json): boxes on phantom scenes, no patient's image.

python scripts/fit_smart_click.py     half a minute on one core; two logistic regressions
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from saadi import config
from saadi.bench import clicks
from saadi.segmentation import cues, grabcut

PIXELS_PER_OBJECT = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=90)
    options = parser.parse_args()
    cases = list(clicks.phantom_cases(options.scenes, seed=1, first_patient=0, num_patients=30))
    windows = [cues.look(case.image, case.box) for case in cases]
    truths = [_truth(case, window) for case, window in zip(cases, windows, strict=True)]
    once = [cues.first(window) for window in windows]
    rng = np.random.default_rng(0)
    first = _fit(once, truths, rng)
    estimates = [_estimate(window, rows, first) for window, rows in zip(windows, once, strict=True)]
    # The later rounds share one regression: fitted on the second, then on second and third together.
    rounds = [[cues.again(*three) for three in zip(windows, estimates, once, strict=True)]]
    for _ in range(2):
        again = _fit([rows for part in rounds for rows in part], truths * len(rounds), rng)
        estimates = [_estimate(window, rows, again) for window, rows in zip(windows, rounds[0], strict=True)]
        rounds = [rounds[0], [cues.again(*three) for three in zip(windows, estimates, once, strict=True)]]
    stored = {"first": _named(first, cues.FIRST), "again": _named(again, (*cues.AGAIN, *cues.FIRST))}
    (config.assets_dir() / "smart_click.json").write_text(json.dumps(stored, indent=1) + "\n")


def _truth(case: clicks.Case, window: cues.Window) -> np.ndarray:
    import cv2

    x0, y0, x1, y1 = window.origin
    h, w = window.inside.shape
    return (cv2.resize(case.mask[y0:y1, x0:x1].astype(np.float32), (w, h), interpolation=cv2.INTER_AREA) > 0.5)[window.inside]


def _fit(rows: list[np.ndarray], truths: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    chosen = [rng.choice(len(row), min(PIXELS_PER_OBJECT, len(row)), replace=False) for row in rows]
    inputs = np.vstack([row[pick] for row, pick in zip(rows, chosen, strict=True)])
    scale = StandardScaler().fit(inputs)
    found = LogisticRegression(max_iter=500, C=0.1).fit(
        scale.transform(inputs), np.concatenate([truth[pick] for truth, pick in zip(truths, chosen, strict=True)]))
    weights = found.coef_[0] / scale.scale_
    return np.concatenate([found.intercept_ - weights @ scale.mean_, weights]).astype(np.float32)


def _estimate(window: cues.Window, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    estimate = np.zeros(window.inside.shape, np.float32)
    estimate[window.inside] = grabcut.probability(weights[0] + rows @ weights[1:])
    return estimate


def _named(weights: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in zip(("constant", *names), weights, strict=True)}


if __name__ == "__main__":
    main()
