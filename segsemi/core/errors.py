"""The one exception for what the user can mend; stages print it without a traceback."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path


class UserError(Exception):
    """What was expected, what was found, where, and what to do: written for the person who runs the pipeline."""


def run_stage(main: Callable[[], None], *, parallel: bool = False) -> None:
    """Run a stage's main function; what the user can mend becomes one line on stderr and exit code 1, a stop 130.

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
    """What to tell the user of an error that is not a fault of the program; None of any other."""
    if isinstance(error, UserError):
        # A loader's worker sends its traceback as the message; the error itself is its end.
        return str(error).rsplit("UserError: ", 1)[-1].strip()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full (writing {error.filename or 'a file'}); free some space and run again: what is done is kept"
    if isinstance(error, PermissionError):
        return f"no permission for {error.filename}; change its owner or mode"
    if isinstance(error, (FileExistsError, NotADirectoryError)) and error.filename:
        return f"{error.filename}: a file is where a folder is to be; name another one, or move the file"
    if isinstance(error, IsADirectoryError):
        return f"{error.filename} is a folder; name a file"
    if isinstance(error, FileNotFoundError) and error.filename:
        name = str(error.filename)
        made = Path(name).parts[:1] in (("data",), ("models",), ("reports",))
        return f"{name} not found" + ("; run `dvc repro`, which writes what is missing" if made else "; check the path")
    if "Connection closed by peer" in str(error):
        return "another process of this stage has ended; its own message says why"
    if type(error).__name__ == "DistBackendError":
        reason = " ".join(str(error).partition("Exception raised from")[0].split())
        return f"the processes of this stage do not reach each other, or one has ended ({reason}); NCCL_DEBUG=INFO tells more"
    if "Bus error" in str(error) or "shared memory" in str(error):
        return (
            f"a loader process had no shared memory ({str(error).splitlines()[0]}); give more of it, in a container by "
            "--shm-size 8g, or set machine.workers to 0"
        )
    if _out_of_memory(error):
        reason = (str(error).splitlines() or ["no reason given"])[0]
        return (
            f"out of memory ({reason}); in training raise accumulate, or lower batch sizes or "
            "augment.crop_size; in pseudo labels lower pseudo_label.scales; in evaluation set evaluate.window; "
            "machine.cache_mb is the memory for decoded images"
        )
    return None


def _out_of_memory(error: Exception) -> bool:
    """torch's and Python's; by name and text, since the lowest layer does not import torch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    texts = (
        "can't allocate memory",
        "CUDA error: out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "MPS backend out of memory",
    )
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
