"""Images one after the other, on several threads."""

from __future__ import annotations

import threading
import time

import pytest

from saadi.errors import CancelledError
from saadi.exports.parallel import AHEAD, in_order


@pytest.fixture(autouse=True)
def three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAADI_THREADS", "3")


def test_results_come_in_order_though_later_ones_are_ready_first() -> None:
    names: set[str] = set()

    def work(number: int) -> int:
        names.add(threading.current_thread().name)
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    with in_order(work, range(30)) as results:
        assert list(results) == [number * number for number in range(30)]
    assert len(names) > 1


def test_an_error_comes_where_its_result_would() -> None:
    def work(number: int) -> int:
        if number == 7:
            raise ValueError("seven")
        return number

    taken: list[int] = []
    with pytest.raises(ValueError, match="seven"), in_order(work, range(30)) as results:
        for one in results:
            taken.append(one)
    assert taken == [0, 1, 2, 3, 4, 5, 6]


def test_once_left_no_thread_works_any_more() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        time.sleep(0.01)
        done.append(number)
        return number

    with pytest.raises(CancelledError), in_order(work, range(1000)) as results:
        next(results)
        raise CancelledError("cancelled")
    ended = len(done)
    time.sleep(0.05)
    assert len(done) == ended < 30


def test_only_some_results_wait_to_be_taken() -> None:
    begun: list[int] = []
    with in_order(begun.append, range(1000)) as results:
        next(results)
        time.sleep(0.05)
        assert len(begun) <= 3 * AHEAD + 2
