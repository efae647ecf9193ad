"""Work folders: where a long stage keeps its state until it succeeds, so that a killed run goes on where it stopped.

dvc removes a stage's outputs before it runs the stage, so the state lies in .work/, which is ignored by git and unknown to
dvc. A folder is named after a hash of code, params and inputs: a run with others never picks it up.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psutil

from segsemi.core.files import file_hash


def repository() -> Path:
    """The root of the repository: the real one, also in the temporary copies in which dvc runs queued experiments."""
    return Path(os.environ.get("DVC_ROOT", "."))


@contextmanager
def work_folder(stage: str, params: Any, inputs: Iterable[Path] = ()) -> Iterator[Path]:
    """A folder for the state of one run of `stage`, locked while in use and removed when the block succeeds.

    It stays if another process waits for the same run by then, or if what started this one is gone: a dvc that was killed
    records no outputs, and the next one removes them. The next run finds all the work done, and repeats only the last step.

    Args:
        params: JSON-like values on which the result depends.
        inputs: files, or folders of files, on which it depends.
    """
    folder = repository() / ".work" / f"{stage}-{_fingerprint(stage, params, inputs)}"
    folder.mkdir(parents=True, exist_ok=True)
    starters = psutil.Process().parents()
    with locked(folder.with_suffix(".lock"), lambda process: _waiting(folder, process)):
        folder.mkdir(exist_ok=True)
        yield folder
        if not _waiters(folder) and psutil.Process().parents() == starters:
            gone = folder.with_suffix(".done")  # half of it, after a stop, would be taken for all
            shutil.rmtree(gone, ignore_errors=True)
            folder.rename(gone)
            shutil.rmtree(gone)


@contextmanager
def locked(path: Path, taken: Callable[[str], AbstractContextManager[None]]) -> Iterator[None]:
    """Within the block the file `path` is locked, and holds this process's number.

    Args:
        taken: called with the number of another process that has the lock; within what it gives, this one waits.
    """
    with path.open("a+") as file:  # never deleted: whoever waits for it would then hold another file's lock
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            with taken(file.read().strip()):
                fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def _waiting(folder: Path, process: str) -> Iterator[None]:
    """Within the block a file beside `folder` says that this thread of this process waits for it, and for which one."""
    print(f"waiting for process {process}, which runs the same stage", file=sys.stderr, flush=True)
    marker = folder.with_name(f"{folder.name}.{os.getpid()}-{threading.get_ident()}.waiting")
    marker.touch()
    try:
        yield
    finally:
        marker.unlink(missing_ok=True)


def _waiters(folder: Path) -> list[int]:
    """The processes that wait for `folder`; the mark of one that was killed meanwhile is removed."""
    alive = []
    for marker in folder.parent.glob(f"{folder.name}.*.waiting"):
        process = int(marker.name.split(".")[-2].split("-")[0])
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            marker.unlink(missing_ok=True)
            continue
        except PermissionError:
            pass  # another user's: alive
        alive.append(process)
    return alive


def _fingerprint(stage: str, params: Any, inputs: Iterable[Path]) -> str:
    digest = hashlib.sha256(json.dumps([stage, params], sort_keys=True, default=str).encode())
    code = sorted(Path(__file__).parents[1].rglob("*.py"))
    files = [file for path in inputs for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    for file in [*code, *files]:
        if file.is_file():
            digest.update(f"{file.name} {file_hash(file)}".encode())
    return digest.hexdigest()[:16]
