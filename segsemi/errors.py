"""The one exception for what the user can mend; stages print it without a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """What was expected, what was found, where, and what to do: written for the person who runs the pipeline."""


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's main function; a UserError becomes one line on stderr and exit code 1.

    With SEGSEMI_TRACEBACK set in the environment the traceback is shown as well.
    """
    try:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # set by torchrun
            raise UserError("training in several processes is not supported yet; unset LAUNCH")
        main()
    except UserError as error:
        if os.environ.get("SEGSEMI_TRACEBACK"):
            raise
        # A loader's worker sends its traceback as the message; the error itself is its end.
        print(f"error: {str(error).rsplit('UserError: ', 1)[-1].strip()}", file=sys.stderr)
        sys.exit(1)
