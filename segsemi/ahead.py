"""Work that is done in threads ahead of its use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 4  # results that wait for their use, at most


def ahead(pool: Executor, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`map(function, items)`, in order, with the next AHEAD results under way in `pool`; unlike Executor.map not all."""
    rest = iter(items)
    waiting: deque[Future[R]] = deque(pool.submit(function, item) for item in islice(rest, AHEAD))
    while waiting:
        result = waiting.popleft().result()
        for item in islice(rest, 1):
            waiting.append(pool.submit(function, item))
        yield result
