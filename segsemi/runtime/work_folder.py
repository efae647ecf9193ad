"""Work folders: a long stage keeps its state there until it succeeds, so that a killed run continues.

dvc removes a stage's outputs before it runs the stage, so the state lies in .work/, which is ignored by git and unknown to
dvc. A folder is named after a hash of code, params and inputs: a run with others never picks it up.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from segsemi.core.files import file_hash

PACKAGE = Path(__file__).parents[1]


@contextmanager
def work_folder(stage: str, params: Any, inputs: Iterable[Path] = ()) -> Iterator[Path]:
    """Create a folder for the state of one run of `stage`, locked within the block, removed when the block succeeds.

    It stays if another process waits for the same run. It also stays if the process that started this one is gone: a killed
    dvc records no outputs, and the next dvc removes them. The next run then repeats only the last step.

    Args:
        params: JSON-like values on which the result depends.
        inputs: files, or folders of files, on which it depends.
    """
    # DVC_ROOT is the real repository, also in the temporary copies in which dvc runs queued experiments
    root = Path(os.environ.get("DVC_ROOT", ".")) / ".work"
    folder = root / f"{stage}-{_fingerprint(stage, params, inputs)}"
    folder.mkdir(parents=True, exist_ok=True)
    starters = psutil.Process().parents()
    with _locked(folder):
        folder.mkdir(exist_ok=True)
        yield folder
        if not _waiting(folder) and psutil.Process().parents() == starters:
            done = folder.with_suffix(".done")  # a partial file would pass for a complete one
            shutil.rmtree(done, ignore_errors=True)
            folder.rename(done)
            shutil.rmtree(done)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        print(f"waiting for another process, which runs the same stage (it holds {lock.lock_file})", file=sys.stderr)
        marker = folder.with_name(f"{folder.name}.{os.getpid()}.waiting")
        marker.touch()
        try:
            held = lock.acquire()
        finally:
            marker.unlink(missing_ok=True)
    with held:
        yield


def _waiting(folder: Path) -> bool:
    """Return whether a process waits for `folder`; the marker of a killed process does not count."""
    markers = folder.parent.glob(f"{folder.name}.*.waiting")
    return any(psutil.pid_exists(int(marker.name.split(".")[-2])) for marker in markers)


def _fingerprint(stage: str, params: Any, inputs: Iterable[Path]) -> str:
    digest = hashlib.sha256(json.dumps([stage, params], sort_keys=True, default=str).encode())
    files = [file for path in inputs for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    for file in [*_own_code(), *files]:
        if file.is_file():
            digest.update(f"{file.name} {file_hash(file)}".encode())
    return digest.hexdigest()[:16]


def _own_code() -> list[Path]:
    """Return the files of all packages of segsemi that this process has imported: its stage's code dependencies in dvc.yaml."""
    names = {name.split(".")[1] for name in sys.modules if name.startswith("segsemi.")}
    files = {file for name in names for file in [PACKAGE / f"{name}.py", *(PACKAGE / name).rglob("*.py")]}
    main = getattr(sys.modules["__main__"], "__file__", None)
    return sorted(files | ({Path(main)} if main else set()))
