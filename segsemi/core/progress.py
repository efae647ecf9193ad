"""Progress of long work: a bar in a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

LOG_SECONDS = 30.0  # between two lines
LINE = "{desc}: {n_fmt}/{total_fmt} {unit}, {rate_fmt}, {elapsed} gone, {remaining} left{postfix}"


def progress_bar(
    iterable: Iterable[Any] | None = None, *, desc: str, unit: str, silent: bool = False, **options: Any
) -> tqdm:
    """Return `tqdm(...)` where stderr is a terminal, else one that prints whole lines; nothing is shown if `silent`."""
    kind, form = (tqdm, None) if sys.stderr.isatty() else (_Lines, LINE)
    return kind(iterable, desc=desc, unit=unit, disable=silent, mininterval=1.0, bar_format=form, **options)


class _Lines(tqdm):
    """Prints a line where tqdm would draw its bar anew, but the first, one every LOG_SECONDS, and the last."""

    printed: tuple[float, float] = (-LOG_SECONDS, -1)  # when, and at which count

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> None:
        if not self.disable and time.monotonic() - self.printed[0] >= LOG_SECONDS:
            self._print()

    def clear(self, nolock: bool = False) -> None:
        """Nothing to wipe away: a line stays."""

    def close(self) -> None:
        if not self.disable and self.n != self.printed[1]:
            self._print()
        self.disable = True

    def _print(self) -> None:
        self.printed = time.monotonic(), self.n
        print(str(self), file=self.fp, flush=True)
