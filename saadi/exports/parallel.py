"""Work on one image after the other, on all cores: decoding, packing and hashing let other threads run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from saadi.config import num_threads

AHEAD = 4
"""Results for each thread that may wait to be taken, so that memory does not grow with the number of images."""
Given = TypeVar("Given")
Made = TypeVar("Made")


@contextmanager
def in_order(work: Callable[[Given], Made], given: Iterable[Given]) -> Iterator[Iterator[Made]]:
    """Give the results of `work` in the order of what is given; an error is raised where its result would come.

    Once left, also by an error, no thread works any more: what it wrote may then be deleted. `work` must not touch the database,
    whose connection belongs to one thread.
    """
    threads = num_threads()
    with ThreadPoolExecutor(threads, thread_name_prefix="export") as pool:
        results = _results(pool, work, given, ahead=AHEAD * threads)
        try:
            yield results
        finally:
            pool.shutdown(cancel_futures=True)


def _results(
    pool: ThreadPoolExecutor, work: Callable[[Given], Made], given: Iterable[Given], *, ahead: int
) -> Iterator[Made]:
    waiting: deque[Future[Made]] = deque()
    for one in given:
        waiting.append(pool.submit(work, one))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
