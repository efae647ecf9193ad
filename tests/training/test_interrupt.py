"""Stops, kills and full disks: nothing is lost, and what goes on equals what was never stopped, to the byte."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import Project

import segsemi.evaluate
from segsemi.core.errors import explain
from segsemi.core.files import write_bytes
from segsemi.datasets import check_entries, scenes
from segsemi.datasets.camvid import find_camvid
from segsemi.datasets.scenes import CLASSES as SCENES
from segsemi.evaluate import write_evaluation
from segsemi.models.build import Architecture, build_model
from segsemi.runtime.stop import stop_requested
from segsemi.runtime.work_folder import work_folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_a_second_one_acts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_requested() as stopping:
        assert not stopping()
        os.kill(os.getpid(), number)
        assert stopping()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_among_several_processes_a_second_sigterm_is_the_same_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gets its own and torchrun's."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with stop_requested() as stopping:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stopping()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


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
    assert f"waiting for process {os.getpid()}" in capsys.readouterr().err
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
        killed = work.with_name(f"{work.name}.{gone.pid}-1.waiting")
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


def test_evaluation_goes_on_with_the_next_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "raw"
    scenes.write(raw, train=1, val=6, height=48, width=64, seed=0)
    entries = [entry for entry in find_camvid(raw).entries if entry.subset == "val"]
    rows = check_entries(raw, entries, SCENES, warn=lambda _: None)
    model = build_model(
        Architecture("DeepLabV3Plus", "tf_efficientnet_lite0", 16), SCENES, encoder_weights="none", seed=0
    ).eval()
    options = {"scales": [1.0], "flip": False, "window": None, "examples": 3, "progress": "model"}

    def evaluate(out: str, work: str) -> None:
        write_evaluation(model, rows, raw, SCENES, tmp_path / out, work=tmp_path / work, **options)  # type: ignore[arg-type]

    evaluate("whole", "work_whole")
    monkeypatch.setattr(segsemi.evaluate, "STATE_SECONDS", -1.0)
    real = segsemi.evaluate.LabelledPairs.__getitem__
    read: list[int] = []
    stopped: list[int] = []

    def killed(self, index):  # type: ignore[no-untyped-def]
        read.append(index)
        if index == 3 and not stopped:
            stopped.append(index)
            raise KeyboardInterrupt
        return real(self, index)

    monkeypatch.setattr(segsemi.evaluate.LabelledPairs, "__getitem__", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate("resumed", "work")
    assert not (tmp_path / "resumed/metrics.json").exists()
    read.clear()
    evaluate("resumed", "work")
    assert min(read) == 3  # no earlier image is read again
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    assert len(files) == 8
    for name in files:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes(), name


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


SLOWLY = """
import runpy, sys
import segsemi.evaluate, segsemi.training.loop
segsemi.training.loop.CHECKPOINT_SECONDS = segsemi.evaluate.STATE_SECONDS = -1.0  # after every step and image
segsemi.training.loop.CHECKPOINT_SHARE = float("inf")
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
