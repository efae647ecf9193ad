"""Kills and Ctrl-C in the middle of a stage: nothing is lost, and what goes on equals what was never stopped, to the byte."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import Project

pytestmark = pytest.mark.pipeline

KILLED = """
import os, runpy, signal, sys
from pathlib import Path

files_left, replace = int(sys.argv[1]), Path.replace
if sys.argv[2] == "stages.train_student":  # others do not import this: it would give them another work folder
    import segsemi.training.loop
    segsemi.training.loop.CHECKPOINT_SECONDS = -1.0  # after every step

def counted(self, target):  # every file is written beside its place, then renamed
    global files_left
    files_left -= 1
    if files_left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)

Path.replace = counted
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("stage", "out", "files"),
    [
        ("stages.train_student --teacher teacher --student student_1", "models/student_1", 1),
        ("stages.pseudo_label --teacher teacher --student student_1", "data/pseudo/student_1", 5),
    ],
    ids=["train_student", "pseudo_label"],
)
def test_kill_and_resume_change_no_byte(finished: Project, stage: str, out: str, files: int) -> None:
    """test_evaluate.py has the stage that evaluates."""
    before = contents(finished.folder / out)
    shutil.rmtree(finished.folder / out)
    command = [sys.executable, "-c", KILLED, str(files), *stage.split()]
    killed = subprocess.run(command, cwd=finished.folder, capture_output=True)
    assert killed.returncode == -signal.SIGKILL and not contents(finished.folder / out)
    assert [path for path in (finished.folder / ".work").iterdir() if path.suffix != ".lock"]
    finished.run("python", "-m", *stage.split())
    assert contents(finished.folder / out) == before
    assert not [path for path in (finished.folder / ".work").iterdir() if path.suffix != ".lock"]


def test_ctrl_c_writes_a_checkpoint_and_ends_in_seconds(finished: Project) -> None:
    finished.set_params({"teacher": {"steps": 100000}})
    command = [sys.executable, "-m", "stages.train_teacher"]
    process = subprocess.Popen(command, cwd=finished.folder, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in iter(process.stderr.readline, ""):  # the bar: training runs
        if "step/s" in line or "s/step" in line:
            break
    else:
        pytest.fail("the training ended by itself")
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(timeout=30) == 130 and time.monotonic() - started < 30
    assert "stopped; `dvc repro` goes on from here" in rest and "Traceback" not in rest
    (checkpoint,) = (finished.folder / ".work").glob("train-teacher-*/checkpoint.pt")
    assert 0 < torch.load(checkpoint, weights_only=True)["step"] < 100000
