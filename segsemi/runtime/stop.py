"""A clean stop: Ctrl-C and SIGTERM wait for the end of a step, so that its result can be saved."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Within the block SIGINT and SIGTERM are only noted; the function it gives says whether one has come.

    A second one acts at once, as KeyboardInterrupt; among several processes no second SIGTERM does, since each may get its own
    and torchrun's. Outside the main thread, where signals never arrive, nothing is done.
    """
    noted: list[int] = []
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1  # set by torchrun

    def note(number: int, _: FrameType | None) -> None:
        if noted and not (several and number == signal.SIGTERM):
            raise KeyboardInterrupt
        noted.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(noted)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
