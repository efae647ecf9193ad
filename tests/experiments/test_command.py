"""`python -m segsemi experiment` from grid to table: with experiments that a stub writes, and once with the real dvc."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, Project
from dvc.utils.hydra import apply_overrides

from segsemi.commands.cli import main
from segsemi.experiments import run as runs

GRID = """# Two losses
columns: {"1/8": [split.fraction=0.125]}
rows:
  CE | all: {model: student_1, set: [student.loss=ce]}
  SCE: {model: student_1, set: [student.loss=sce]}
against: ["CE | all"]
"""
STAGE = """import json, sys
from pathlib import Path
from ruamel.yaml import YAML
params = YAML(typ="safe").load(Path("params.yaml"))
if params["student"]["loss"] == "sce" and not Path(sys.argv[1], "mended").exists():
    sys.exit("no SCE today")
Path("reports").mkdir(exist_ok=True)
Path("reports/metrics.json").write_text(json.dumps({"student_1": {"miou": 40.0 + params["seed"]}}))
Path("reports/validation.csv").write_text("model,step,val_miou\\nstudent_1,2,30.5\\n")
"""
PIPELINE = """stages:
  train:
    cmd: python stages/train.py {folder}
    deps: [stages]
    params: [seed, split, rounds, student.loss]
    metrics: [reports/metrics.json: {{cache: false}}]
    plots: [reports/validation.csv: {{cache: false}}]
"""
COMMAND = ["experiment", "mine.yaml", "--seeds", "0", "1"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A git repository with params, a grid and one stage, which fails for SCE until a file `mended` is there."""
    monkeypatch.chdir(tmp_path)
    for name in ("stages", "data"):
        Path(name).mkdir()
    Path("data/labelled.txt").touch()
    Path("mine.yaml").write_text(GRID)
    Path("stages/train.py").write_text(STAGE)
    Path("dvc.yaml").write_text(PIPELINE.format(folder=tmp_path))
    Path(".gitignore").write_text("/mended\n/.work/\n/reports/experiments/\n")
    shutil.copyfile(ROOT / "params.yaml", "params.yaml")
    found = Project(tmp_path)
    found.run("git", "init", "-q")
    found.commit()
    return found


@pytest.fixture
def ran(project: Project, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the experiments that were run, in place of dvc, by the stage of `project`."""
    names: list[str] = []

    def run(command: Sequence[str]) -> int:
        names.append(command[command.index("--name") + 1])
        before = Path("params.yaml").read_text()
        apply_overrides("params.yaml", list(command[command.index("-S") + 1 :: 2]))
        code = subprocess.run([sys.executable, "stages/train.py", "."]).returncode
        if code == 0:
            project.run("git", "add", "reports/metrics.json", "reports/validation.csv")
            commit = project.run("git", "commit-tree", "-m", "x", project.run("git", "write-tree").strip()).strip()
            project.run("git", "update-ref", f"refs/exps/00/{names[-1]}", commit)
            project.run("git", "rm", "-rqf", "--cached", "reports")
        Path("params.yaml").write_text(before)
        return code

    monkeypatch.setattr(runs, "_wait_for", run)
    monkeypatch.setattr(runs, "check_ready", lambda _: None)
    monkeypatch.setattr(runs, "queued_runs", set)
    monkeypatch.setattr("segsemi.experiments.table.dots", lambda *_: "<svg/>")  # slow; test_table.py has the figures
    return names


def table() -> pd.DataFrame:
    return pd.read_csv("reports/experiments/mine.csv")


def test_what_is_finished_is_not_run_again(ran: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(COMMAND) == 1  # two runs failed
    assert [name[:-13] for name in ran] == [f"mine-{row}-1_8-seed{s}" for s in (0, 1) for row in ("CE_all", "SCE")]
    assert table()[["row", "seeds", "miou"]].to_numpy().tolist() == [["CE | all", 2, 40.5]]
    out = capsys.readouterr().out
    assert "2 of 4 cells" in out and f"failed: {ran[1]}" in out and f"failed: {ran[0]}" not in out
    Path("mended").touch()
    assert main(COMMAND) == 0 and ran[4:] == [ran[1], ran[3]]
    assert table()["gain on CE | all"].tolist()[1:] == [0.0]
    text = Path("reports/experiments/mine.md").read_text()
    assert "# Two losses" in text and "40.50 ± 0.71" in text and r"| CE \| all " in text
    assert "40.50 ± 0.71" in Path("reports/experiments/tables.html").read_text()
    assert main(COMMAND) == 0 and main([*COMMAND, "--dry-run"]) == 0 and len(ran) == 6
    assert "0 runs to do" in capsys.readouterr().out


def test_a_table_never_mixes_code_or_params(ran: list[str]) -> None:
    command = [*COMMAND, "--rows", "CE | all", "--seeds", "0"]
    for runs_so_far, file in enumerate(("", "stages/train.py", "params.yaml")):
        if file:
            Path(file).write_text(Path(file).read_text().replace("momentum: 0.9", "momentum: 0.8") + "# more\n")
            assert main([*command, "--collect"]) == 1  # nothing is finished
        assert main(command) == 0 and len(ran) == runs_so_far + 1
        assert table()["seeds"].tolist() == [1]


def test_a_change_meanwhile_stops_the_rest(ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs._wait_for
    monkeypatch.setattr(runs, "_wait_for", lambda command: Path("stages/new.py").touch() or run(command))
    assert main(COMMAND) == 1 and len(ran) == 1


@pytest.mark.pipeline
def test_dvc_runs_and_queues_the_cells(project: Project) -> None:
    project.run("dvc", "init", "-q")
    project.commit()
    command = (sys.executable, "-m", "segsemi", *COMMAND[:3], "0")
    environment = {"PYTHONPATH": str(ROOT)}
    assert "1 of 2 cells" in project.run(*command, check=False, **environment)
    assert table()["miou"].tolist() == [40.0] and project.run("git", "status", "--porcelain") == ""
    project.run(*command, "--queue", **environment)
    assert ": queued" in project.run(*command, "--queue", **environment)  # not twice
    project.run("dvc", "queue", "start")
    for _ in range(60):
        if "Failed" in project.run("dvc", "queue", "status"):
            break
    output = project.run(*command, "--dry-run", **environment)
    assert "to do   seed 0  1/8  SCE" in output and "done    seed 0  1/8  CE | all: student_1 of mine-CE_all-" in output
    assert "1 of 2 cells" in project.run(*command, "--collect", **environment)
    Path("mended").touch()
    assert "2 of 2 cells" in project.run(*command, **environment)
