"""Items that a thread makes ahead of their use, so that files are read while the network computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
AHEAD = 2  # items that wait for their use, at most


def ahead(reader: ThreadPoolExecutor, items: Iterable[T]) -> Iterator[T]:
    """The items in order, the next AHEAD of them on their way in `reader`, which has one thread: iterators know no second.

    An error of an item is raised in its turn.
    """
    iterator = iter(items)
    end = object()

    def fetch() -> T | object:
        return next(iterator, end)

    waiting: deque[Future[T | object]] = deque(reader.submit(fetch) for _ in range(AHEAD))
    while (item := waiting.popleft().result()) is not end:
        waiting.append(reader.submit(fetch))
        yield item  # type: ignore[misc]  # not `end`
