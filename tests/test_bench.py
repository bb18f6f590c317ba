import time

import pytest

from saadi import bench
from saadi.errors import BadInputError


def test_unknown_benchmark_names_those_that_exist():
    with pytest.raises(BadInputError, match=r"no benchmark 'speed'; there are: generation, .*, quality, clicks, ui"):
        bench.main(["speed"])


def test_median_ignores_one_slow_run():
    times = iter([0.0, 0.0, 0.0, 0.2, 0.0])
    assert bench.median_seconds(lambda: time.sleep(next(times)), repeats=4, warm_up=1) < 0.1


def test_paired_calls_take_turns():
    order: list[str] = []
    bench.paired_medians(lambda: order.append("a"), lambda: order.append("b"), repeats=3, block=2)
    assert order == ["a", "a", "b", "b"] * 3
