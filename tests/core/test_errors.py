"""Errors that the user can mend become one line."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import pytest
import torch

from segsemi.core.errors import UserError, explain
from segsemi.core.files import write_bytes


def test_full_disk_leaves_the_old_file_and_is_explained(tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("this user may not mount a small tmpfs")
    try:
        write_bytes(tmp_path / "file", b"old")
        with pytest.raises(OSError) as error:
            write_bytes(tmp_path / "file", bytes(10**6))
        assert error.value.errno == errno.ENOSPC
        assert "the disk is full" in (explain(error.value) or "") and "run again" in (explain(error.value) or "")
        assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_bytes() == b"old"
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_errors_that_the_user_can_mend_are_explained() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60)
    apples = RuntimeError("MPS backend out of memory (MPS allocated: 4.22 GB, max allowed: 4.53 GB)")
    for memory in (error.value, MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried"), apples):
        text = explain(memory) or ""
        assert text.startswith("out of memory (") and "raise accumulate" in text and "\n" not in text
    assert explain(PermissionError(13, "denied", "a/b")) == "no permission for a/b; change its owner or mode"
    made, other = (explain(FileNotFoundError(2, "none", name)) for name in ("data/split/val.csv", "a/b"))
    assert made == "data/split/val.csv not found; run `dvc repro`, which writes what is missing"
    assert other == "a/b not found; check the path"
    for kind, number in ((FileExistsError, errno.EEXIST), (NotADirectoryError, errno.ENOTDIR)):
        assert (explain(kind(number, "there", "a/b")) or "").startswith("a/b: a file is where a folder is to be")
    assert explain(IsADirectoryError(errno.EISDIR, "is", "a/b")) == "a/b is a folder; name a file"
    assert explain(UserError("what to do")) == "what to do"
    nccl = torch.distributed.DistBackendError(
        "NCCL error in: ProcessGroupNCCL.cpp:77, invalid usage\nLast error:\nDuplicate GPU detected : rank 0 and rank 1\n"
        "Exception raised from broadcastUniqueNCCLID at ProcessGroupNCCL.cpp:1\nframe #0: c10"
    )
    text = explain(nccl) or ""
    assert "Last error: Duplicate GPU detected : rank 0 and rank 1); NCCL_DEBUG=INFO" in text and "frame" not in text
    ended = RuntimeError("[pair.cc:534] Connection closed by peer [127.0.0.1]:1")
    assert explain(ended) == "another process of this stage has ended; its own message says why"
    assert explain(RuntimeError("a fault of ours")) is None and explain(ValueError("another")) is None
