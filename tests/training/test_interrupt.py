"""Stops, kills and full disks: nothing is lost, and what goes on equals what was never stopped, to the byte."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import Project

SLOWLY = """
import runpy, sys
import segsemi.evaluate, segsemi.training.loop
segsemi.training.loop.CHECKPOINT_SECONDS = segsemi.evaluate.STATE_SECONDS = -1.0  # after every step and image
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def run_killed(project: Project, stage: str, *arguments: str, kills: int) -> None:
    """Run a stage and `kill -9` it at a random moment, several times, then let it finish."""
    command = [sys.executable, "-c", SLOWLY, f"stages.{stage}", *arguments]
    chance = random.Random(stage)
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(project.folder)}
    subprocess.run(command, cwd=project.folder, env=environment, check=True, capture_output=True)
    whole = time.monotonic() - started
    for _ in range(kills):
        process = subprocess.Popen(
            command, cwd=project.folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(whole * chance.uniform(0.4, 1.0))
        process.kill()
        process.wait()
    subprocess.run(command, cwd=project.folder, env=environment, check=True, capture_output=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("stage", "arguments", "out"),
    [
        ("train_student", ("--teacher", "teacher", "--student", "student_1"), "models/student_1"),
        ("pseudo_label", ("--teacher", "teacher", "--student", "student_1"), "data/pseudo/student_1"),
        ("evaluate", ("--model", "student_1"), "data/evaluated/student_1"),
    ],
)
def test_kill_at_any_moment_changes_no_byte(
    finished: tuple[Project, list[str]], stage: str, arguments: tuple[str, ...], out: str
) -> None:
    project, _ = finished
    before = contents(project.folder / out)
    for path in (project.folder / out).rglob("*"):  # dvc's links into its cache
        if path.is_file():
            path.unlink()
    run_killed(project, stage, *arguments, kills=2)
    assert contents(project.folder / out) == before
    assert not [path for path in (project.folder / ".work").iterdir() if path.suffix != ".lock"]


@pytest.mark.pipeline
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_writes_a_checkpoint_and_ends_in_seconds(
    finished: tuple[Project, list[str]], number: signal.Signals
) -> None:
    project, _ = finished
    before = contents(project.folder / "models/teacher")
    project.set_params({"teacher": {"steps": 100000}})
    try:
        command = [sys.executable, "-m", "stages.train_teacher"]
        process = subprocess.Popen(command, cwd=project.folder, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in iter(process.stderr.readline, ""):  # the bar: training runs
            if "step/s" in line or "s/step" in line:
                break
        else:
            pytest.fail("the training ended by itself")
        started = time.monotonic()
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(timeout=30) == 130 and time.monotonic() - started < 10
        assert "stopped; `dvc repro` goes on from here" in rest and "Traceback" not in rest
        (checkpoint,) = (project.folder / ".work").glob("train-teacher-*/checkpoint.pt")
        assert 0 < torch.load(checkpoint, weights_only=True)["step"] < 100000
    finally:
        project.run("git", "checkout", "-q", "params.yaml")
        for path in (project.folder / ".work").glob("train-teacher-*/*"):
            path.unlink()
        for path in (project.folder / ".work").glob("train-teacher-*"):
            path.rmdir() if path.is_dir() else None
    assert contents(project.folder / "models/teacher") == before
