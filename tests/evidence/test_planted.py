import numpy as np

from saadi.alignment.settings import AlignmentConfig, TrainingPair
from saadi.evidence.planted import arms


def pairs(count: int) -> list[TrainingPair]:
    blank = np.zeros((8, 8), np.uint8)
    return [
        TrainingPair(blank, np.full((8, 8, 3), 1, np.uint8), np.full((8, 8, 3), 2, np.uint8), 1.0, False, str(index))
        for index in range(count)
    ]


def test_arms_are_the_method_and_its_controls():
    real = [np.full((8, 8, 3), 9, np.uint8) for _ in range(40)]
    found = {name: (made, settings) for name, made, settings in arms(pairs(40), real, AlignmentConfig(), seed=0)}
    method, _ = found["aligned"]
    assert len(method) == 80 and sum(pair.is_real for pair in method) == 40
    assert all(pair.chosen.max() == (9 if pair.is_real else 1) and pair.rejected.max() == 2 for pair in method)
    assert all(pair.chosen.max() == 2 and pair.rejected.max() == 1 for pair in found["swapped"][0])
    turned = sum(int(pair.chosen.max() == 2) for pair in found["shuffled"][0])
    assert 8 < turned < 32
    assert found["small_beta"][1].beta == 300.0 and found["small_beta"][1].sft_weight == 0.0
