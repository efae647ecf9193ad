"""Work that a thread does before or after its turn, so that files are read and written while the network computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
AHEAD = 2  # items that wait for their turn, at most


def ahead(reader: ThreadPoolExecutor, items: Iterable[T]) -> Iterator[T]:
    """The items in order, the next AHEAD of them on their way in `reader`, which has one thread: iterators know no second.

    An error of an item is raised in its turn.
    """
    iterator = iter(items)
    end = object()

    def fetch() -> T | object:
        return next(iterator, end)

    waiting: deque[Future[T | object]] = deque(reader.submit(fetch) for _ in range(AHEAD))
    try:
        while (item := waiting.popleft().result()) is not end:
            waiting.append(reader.submit(fetch))
            yield item  # type: ignore[misc]  # not `end`
    finally:
        for future in waiting:  # who stops early does not wait for what nobody takes
            future.cancel()


@contextmanager
def behind(worker: ThreadPoolExecutor) -> Iterator[Callable[..., None]]:
    """A function that has `worker` call another one, with its arguments, and waits only while more than AHEAD calls wait.

    All calls have ended where the context does. An error of one is raised in a later call, or there.
    """
    waiting: deque[Future[object]] = deque()

    def call(function: Callable[..., object], *args: object) -> None:
        waiting.append(worker.submit(function, *args))
        if len(waiting) > AHEAD:
            waiting.popleft().result()

    yield call
    for future in waiting:
        future.result()
