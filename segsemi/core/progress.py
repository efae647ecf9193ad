"""Progress of long work: a bar in a terminal, a line every 30 seconds in a log."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

LOG: dict[str, Any] = {  # every 30 s a line
    "mininterval": 30.0,
    "maxinterval": 30.0,
    "bar_format": "{desc}: {n_fmt}/{total_fmt} {unit}, {rate_fmt}, {elapsed} gone, {remaining} left{postfix}\n",
}


def progress_bar(
    iterable: Iterable[Any] | None = None, *, desc: str, unit: str, silent: bool = False, **options: Any
) -> tqdm:
    """Return `tqdm(...)`, as a bar if stderr is a terminal, else as whole lines; show nothing if `silent`."""
    log: dict[str, Any] = {} if sys.stderr.isatty() else LOG
    return tqdm(iterable, desc=desc, unit=unit, disable=silent, **log, **options)
