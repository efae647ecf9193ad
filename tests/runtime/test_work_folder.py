"""Work folders: who finds which state, and what is left behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from segsemi.runtime.work_folder import work_folder


def test_whoever_waits_finds_the_work_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    found: list[str] = []

    def second() -> None:
        with work_folder("stage", {"a": 1}) as work:
            found.extend(path.name for path in work.iterdir())

    with work_folder("stage", {"a": 1}) as work:
        (work / "checkpoint.pt").write_text("all steps")
        thread = threading.Thread(target=second)
        thread.start()
        while not list(work.parent.glob("*.waiting")):
            time.sleep(0.01)
        assert not found
    thread.join(timeout=10)
    assert found == ["checkpoint.pt"]
    assert "waiting for another process, which runs the same stage" in capsys.readouterr().err
    assert [path.suffix for path in (tmp_path / ".work").iterdir()] == [".lock"]  # and nobody else finds it
    with work_folder("stage", {"a": 2}) as other:
        assert other != work and not list(other.iterdir())


def test_a_stop_while_the_folder_is_removed_leaves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    real = shutil.rmtree

    def stopped(path: Path, ignore_errors: bool = False) -> None:
        if Path(path).exists():
            (Path(path) / "a").unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", stopped)
    with pytest.raises(KeyboardInterrupt), work_folder("stage", {}) as work:
        (work / "a").touch()
        (work / "b").touch()
    monkeypatch.setattr(shutil, "rmtree", real)
    with work_folder("stage", {}) as work:
        assert not list(work.iterdir())
        (work / "a").touch()
    assert [path.suffix for path in (tmp_path / ".work").iterdir()] == [".lock"]


def test_three_that_wait_and_one_that_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    found: list[list[str]] = []

    def wait() -> None:
        with work_folder("stage", {}) as work:
            found.append([path.name for path in work.iterdir()])

    gone = subprocess.Popen(["true"])
    gone.wait()
    with work_folder("stage", {}) as work:
        (work / "checkpoint.pt").write_text("all steps")
        killed = work.with_name(f"{work.name}.{gone.pid}.waiting")
        killed.touch()
        threads = [threading.Thread(target=wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        while len(list(work.parent.glob("*.waiting"))) < 4:
            time.sleep(0.01)
    for thread in threads:
        thread.join(timeout=10)
    assert found == [["checkpoint.pt"]] * 3
    assert [path.suffix for path in (tmp_path / ".work").iterdir()] == [".lock"]  # nobody waits: all is removed


STAGE = """
import sys, time
from pathlib import Path
from segsemi.runtime.work_folder import work_folder
with work_folder("stage", {}) as work:
    print(work, *(path.name for path in work.iterdir()), flush=True)
    (work / "checkpoint.pt").touch()
    while sys.argv[1:] and not Path(sys.argv[1]).exists():
        time.sleep(0.01)
"""


def test_what_ends_after_its_dvc_was_killed_keeps_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That dvc recorded no outputs, and the next one removes them before it runs the stage again."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    go_on = tmp_path / "go_on"
    starter = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    dvc = subprocess.Popen([sys.executable, "-c", starter, STAGE, str(go_on)], stdout=subprocess.PIPE, text=True)
    assert dvc.stdout is not None
    work = Path(dvc.stdout.readline().strip())
    dvc.kill()
    dvc.wait()
    go_on.touch()
    dvc.stdout.read()  # ends where the stage does
    assert (work / "checkpoint.pt").exists()
    again = subprocess.run([sys.executable, "-c", STAGE], check=True, capture_output=True, text=True)
    assert again.stdout.split() == [str(work), "checkpoint.pt"]
    assert [path.suffix for path in (tmp_path / ".work").iterdir()] == [".lock"]
