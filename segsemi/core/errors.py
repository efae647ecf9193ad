"""UserError, the exception for errors that the user can fix; stages print it without a traceback."""

import errno
import os
import sys
import traceback
from collections.abc import Callable


class UserError(Exception):
    """An error that the user can fix; its text says what was expected, what was found, where, and what to do."""


def run_stage(main: Callable[[], None], *, parallel: bool = False) -> None:
    """Run a stage's main function. An error that the user can fix becomes one line on stderr and exit code 1; a stop 130.

    `parallel`: the stage may run in several processes that torchrun started.
    With SEGSEMI_TRACEBACK set in the environment the traceback is shown as well.
    """
    try:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not parallel:  # set by torchrun
            raise UserError("this stage runs in one process; start it with python, not with torchrun")
        main()
    except KeyboardInterrupt:
        print("stopped; `dvc repro` goes on from here", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        message = explain(error)
        if message is None or os.environ.get("SEGSEMI_TRACEBACK"):
            traceback.print_exc()
        else:
            print(f"error: {message}", file=sys.stderr)
        error.__traceback__ = None  # its frames keep loader processes, for whose end the exit would wait for ever
        sys.exit(1)


def explain(error: Exception) -> str | None:
    """Return the message for an error that the user can fix; None for any other error."""
    if isinstance(error, UserError):
        # A loader's worker sends its traceback as the message; the error itself is its end.
        return str(error).rsplit("UserError: ", 1)[-1].strip()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full (writing {error.filename or 'a file'}); free some space and run again: what is done is kept"
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"{error.filename}: the name is too long for a file; shorten it"
    if isinstance(error, OSError) and error.filename and type(error) in _FILE_ERRORS:
        return f"{error.filename}{_FILE_ERRORS[type(error)]}"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}; the system refused it"
    no_memory = "out of memory" in str(error) or "can't allocate memory" in str(error)  # torch on a GPU, and on a CPU
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and no_memory):
        reason = (str(error).splitlines() or ["no reason given"])[0]
        return (
            f"out of memory ({reason}); in training raise accumulate, or lower batch sizes or "
            "augment.crop_size; in pseudo labels lower pseudo_label.scales; in evaluation set evaluate.window; "
            "machine.cache_mb is the memory for decoded images"
        )
    return None


_FILE_ERRORS: dict[type[OSError], str] = {
    FileNotFoundError: " not found; run `dvc repro`, which writes what is missing, or check the path",
    PermissionError: ": no permission; change its owner or mode",
    FileExistsError: ": a file is where a folder is to be; name another one, or move the file",
    NotADirectoryError: ": a file is where a folder is to be; name another one, or move the file",
    IsADirectoryError: " is a folder; name a file",
}
