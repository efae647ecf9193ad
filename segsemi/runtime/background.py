"""Work that a thread does before or after its turn, so that files are read and written while the network computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice, repeat
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 2  # items that wait for their turn, at most
READERS = 4  # threads that read files: one is too slow for a GPU, or for many cores


def file_readers() -> ThreadPoolExecutor:
    """Threads for `mapped_ahead` to read files in."""
    return ThreadPoolExecutor(READERS)


def mapped_ahead(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], count: int = READERS
) -> Iterator[R]:
    """function(item) for all items, in order, the next `count` of them on their way in `pool`.

    An error of the function is raised in its turn.
    """
    iterator = iter(items)
    waiting: deque[Future[R]] = deque()
    try:
        waiting.extend(pool.submit(function, item) for item in islice(iterator, count))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(iterator, 1))
            yield result
    finally:
        for future in waiting:  # who stops early does not wait for what nobody takes
            future.cancel()


def ahead(reader: ThreadPoolExecutor, items: Iterable[T]) -> Iterator[T]:
    """The items in order, the next AHEAD of them on their way in `reader`, which has one thread: iterators know no second.

    An error of an item is raised in its turn.
    """
    iterator, end = iter(items), object()
    with closing(mapped_ahead(reader, lambda _: next(iterator, end), repeat(None), AHEAD)) as fetched:  # type: ignore[type-var]
        for item in fetched:
            if item is end:
                return
            yield item  # type: ignore[misc]  # not `end`


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
