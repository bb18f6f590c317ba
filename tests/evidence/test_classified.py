import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from saadi.evidence import classified
from saadi.evidence.intervals import resampled


def arm(seed: int, *, skill: float, patients: int = 5) -> dict:
    draw = np.random.default_rng(seed)
    labels = np.arange(60) % 3
    odds = draw.dirichlet(np.ones(3), 60) + skill * np.eye(3)[labels]
    return {"probabilities": odds / odds.sum(1, keepdims=True), "label": labels,
            "group": np.array([f"p{i % patients}" for i in range(60)])}  # fmt: skip


def test_numbers_are_those_of_scikit_learn():
    made = arm(0, skill=0.3)
    said = made["probabilities"].argmax(1)
    assert classified.macro_f1(made["probabilities"], made["label"]) == pytest.approx(
        f1_score(made["label"], said, average="macro")
    )
    assert classified.macro_auroc(made["probabilities"], made["label"]) == pytest.approx(
        roc_auc_score(made["label"], made["probabilities"], multi_class="ovr")
    )
    assert classified.accuracy(made["probabilities"], made["label"]) == (said == made["label"]).mean()


def test_a_gain_is_paired_and_has_an_interval():
    good, bad = [arm(seed, skill=0.6) for seed in range(3)], [arm(seed, skill=0.1) for seed in range(3)]
    mean, low, high = classified.gain_with_interval(good, bad, classified.macro_f1)
    assert 0 < low < mean < high
    assert mean == pytest.approx(np.mean([
        classified.macro_f1(a["probabilities"], a["label"]) - classified.macro_f1(b["probabilities"], b["label"])
        for a, b in zip(good, bad, strict=True)]))  # fmt: skip
    assert classified.gain_with_interval(good, good, classified.accuracy) == (0.0, 0.0, 0.0)


def test_a_repeated_image_counts_twice():
    made, times = arm(3, skill=0.2), np.random.default_rng(0).integers(0, 3, 60)
    again = {name: np.repeat(values, times, axis=0) for name, values in made.items()}
    for statistic in (*classified.STATISTICS.values(), classified.f1_of(1)):
        whole = statistic(again["probabilities"], again["label"], np.ones(times.sum(), np.int64))
        assert statistic(made["probabilities"], made["label"], times) == pytest.approx(whole)


def test_of_a_single_patient_the_images_are_drawn():
    seen: list[np.ndarray] = []

    def statistic(position: int, times: np.ndarray) -> float:
        seen.append(times)
        return float(times.mean())

    resampled([np.array(["one"] * 8)], statistic, num_draws=3)
    assert len(seen) == 4 and (seen[-1] == 1).all() and all(times.sum() == 8 and times.max() > 1 for times in seen[:-1])
    seen.clear()
    resampled([np.array(["a", "a", "b", "b"])], statistic, num_draws=20)
    assert all(times.tolist() in ([2, 2, 0, 0], [0, 0, 2, 2], [1, 1, 1, 1]) for times in seen)
