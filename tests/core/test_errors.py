"""Which errors become one line, and which one."""

import pytest
import torch

from segsemi.core.errors import UserError, explain, run_stage

NO_FOLDER = "a/b: a file is where a folder is to be; name another one, or move the file"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("what to do"), "what to do"),
        (UserError("Caught UserError in a worker\nTraceback:\n  ...\nUserError: what to do\n"), "what to do"),
        (FileNotFoundError(2, "none", "a/b"), "a/b not found; run `dvc repro`, which writes what is missing, or check"),
        (PermissionError(13, "denied", "a/b"), "a/b: no permission; change its owner or mode"),
        (OSError(28, "no space", "a/b"), "the disk is full (writing a/b); free some space and run again"),
        (FileExistsError(17, "there", "a/b"), NO_FOLDER),
        (NotADirectoryError(20, "no", "a/b"), NO_FOLDER),
        (IsADirectoryError(21, "is", "a/b"), "a/b is a folder; name a file"),
        (OSError(30, "Read-only file system", "a/b"), "a/b: Read-only file system; the system refused it"),
        (MemoryError(), "out of memory (no reason given); in training raise accumulate"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out of memory (CUDA out of memory. Tried); in training"),
        (
            RuntimeError("MPS backend out of memory (of 4.53 GB)"),
            "out of memory (MPS backend out of memory (of 4.53 GB)",
        ),
        (RuntimeError("a fault of ours"), None),
        (ValueError("out of memory"), None),
    ],
    ids=str,
)
def test_error_is_explained_in_one_line(error: Exception, message: str | None) -> None:
    found = explain(error)
    assert found is None if message is None else (found or "").startswith(message) and "\n" not in (found or "")


def test_stage_that_lacks_memory_ends_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        run_stage(lambda: print(torch.empty(2**60)))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: out of memory (")
