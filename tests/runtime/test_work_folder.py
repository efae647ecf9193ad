"""Work folders: who finds which state, and what is left behind."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from segsemi.runtime.work_folder import work_folder

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


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of all work folders, of a repository in `tmp_path`."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path / ".work"


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", STAGE, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_all_who_wait_find_the_work_done_and_the_last_one_removes_it(tmp_path: Path, states: Path) -> None:
    """The marker of a process that was killed while it waited counts for nobody."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    first = start(tmp_path / "go_on")
    assert first.stdout is not None
    work = Path(first.stdout.readline().strip())
    work.with_name(f"{work.name}.{gone.pid}.waiting").touch()
    waiting = [start() for _ in range(3)]
    deadline = time.monotonic() + 100
    while len(list(work.parent.glob("*.waiting"))) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (tmp_path / "go_on").touch()
    first.communicate()
    for process in waiting:
        out, err = process.communicate()
        assert out.split() == [str(work), "checkpoint.pt"]
        assert "waiting for another process, which runs the same stage" in err
    assert {path.suffix for path in states.iterdir()} == {".lock", ".waiting"}  # that of the killed one


def test_a_stop_while_the_folder_is_removed_leaves_no_half_of_it(states: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(path: Path, ignore_errors: bool = False) -> None:
        if Path(path).exists():
            (Path(path) / "a").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), work_folder("stage", {}) as work:
        patch.setattr(shutil, "rmtree", stopped)
        (work / "a").touch()
        (work / "b").touch()
    with work_folder("stage", {}) as work, work_folder("stage", {"seed": 2}) as other:
        assert not list(work.iterdir()) and other != work
        (work / "a").touch()
    assert {path.suffix for path in states.iterdir()} == {".lock"}


def test_what_ends_after_its_dvc_was_killed_keeps_its_state(tmp_path: Path, states: Path) -> None:
    """That dvc recorded no outputs, and the next one removes them before it runs the stage again."""
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
    assert [path.suffix for path in states.iterdir()] == [".lock"]


STOPPED_TRAINING = """
import json, sys
from pathlib import Path
import stages.train_student
from segsemi.runtime.work_folder import work_folder

def goes_on():
    try:
        with work_folder("train-student_1", {}, [Path("input")]) as work:
            found = (work / "checkpoint.pt").exists()
            (work / "checkpoint.pt").touch()
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        return found

found = [goes_on()]
for path in sys.argv[1:]:
    with open(path, "a") as file:
        file.write("# edited")
    found.append(goes_on())
print(json.dumps(found))
"""


def test_a_stopped_training_goes_on_unless_code_or_files_that_it_uses_were_edited(tmp_path: Path) -> None:
    """In a copy of the code: an edit in a room that the stage does not import leaves the checkpoint where it is found."""
    for folder in ("segsemi", "stages"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "input").touch()
    edits = {
        "segsemi/reporting/page.py": True,
        "segsemi/losses.py": False,
        "segsemi/training/loop.py": False,
        "segsemi/core/seeds.py": False,
        "stages/report.py": True,
        "input": False,
    }
    command = [sys.executable, "-c", STOPPED_TRAINING, *edits]
    environment = {**os.environ, "DVC_ROOT": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    first, *later = json.loads(done.stdout)
    assert not first and dict(zip(edits, later, strict=True)) == edits
