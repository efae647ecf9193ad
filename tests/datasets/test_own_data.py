"""The models of a run, shared with a colleague (docs/own-data.md)."""

import shutil
from pathlib import Path

import pytest
from conftest import RAW, Project

pytestmark = pytest.mark.pipeline


def test_a_colleague_pulls_and_need_not_train(finished: Project, tmp_path: Path) -> None:
    project = finished
    try:
        project.run("dvc", "remote", "add", "--local", "--default", "shared", str(tmp_path / "shared"))
        project.run("dvc", "push")
        project.run("git", "clone", "-q", str(project.folder), str(tmp_path / "clone"))
        colleague = Project(tmp_path / "clone")
        shutil.copytree(project.folder / RAW, colleague.folder / RAW)  # the data set is theirs
        colleague.run("dvc", "remote", "add", "--local", "--default", "shared", str(tmp_path / "shared"))
        colleague.run("dvc", "pull")
        for name in ("models/student_2/model.safetensors", "data/pseudo/student_2/summary.csv", "reports/index.html"):
            assert colleague.bytes_of(name) == project.bytes_of(name)
        assert colleague.repro() == []
        assert colleague.run("git", "status", "--porcelain") == ""
    finally:
        (project.folder / ".dvc/config.local").unlink(missing_ok=True)
