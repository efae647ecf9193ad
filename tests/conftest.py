"""A tiny copy of the project in which the real dvc runs, and images for a small training."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from ruamel.yaml import YAML
from small_training import Data, small_data

from segsemi.datasets import scenes

ROOT = Path(__file__).parents[1]
RAW = "data/raw/tiny"
TINY: dict[str, dict[str, object]] = {
    "data": {"name": "camvid", "root": RAW},  # files that a test can change, as a user can
    "split": {"fraction": 0.5},
    "augment": {"crop_size": 48},
    "teacher": {"steps": 3, "batch_size": 2, "val_every": 0},
    "student": {"steps": 2, "batch_labelled": 2, "batch_pseudo": 2, "val_every": 2},
    "pseudo_label": {"scales": [0.5, 1.0]},
    "evaluate": {"examples": 2},
}


class Project:
    """A clone of the working tree in a folder of its own, with a git commit, and `dvc` to run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *command: str, check: bool = True, **variables: str) -> str:
        environment = {
            **os.environ,
            **variables,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "GIT_AUTHOR_NAME": "t",
            "GIT_AUTHOR_EMAIL": "t@example.org",
            "GIT_COMMITTER_NAME": "t",
            "GIT_COMMITTER_EMAIL": "t@example.org",
        }
        done = subprocess.run(
            command, cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def repro(self) -> list[str]:
        """`dvc repro`; the names of the stages that ran."""
        return ran_stages(self.run("dvc", "repro"))

    def set_params(self, changes: dict[str, dict[str, object]]) -> None:
        yaml = YAML()
        path = self.folder / "params.yaml"
        params = yaml.load(path)
        for section, values in changes.items():
            params[section].update(values)
        yaml.dump(params, path)

    def bytes_of(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", "state", "--allow-empty")


def ran_stages(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)


def copy_project(folder: Path) -> Project:
    """The tracked and the new files of the working tree, without lock file and reports, as a new repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, listed):
        source = ROOT / name
        if source.is_file() and name != "dvc.lock" and not name.startswith("reports/"):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    project = Project(folder)
    project.run("git", "init", "-q")
    scenes.write(folder / RAW, train=12, val=3, height=48, width=64, seed=1)
    for path in (folder / RAW).rglob("000[2-4].png"):  # a data set may mix sizes; 0002 is in val too
        with Image.open(path) as image:
            resized = image.resize((70, 41), Image.Resampling.NEAREST)
        resized.save(path)
    project.set_params(TINY)
    project.commit()
    return project


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, list[str]]:
    """A project in which the whole tiny pipeline has run once, and the stages that ran. Tests leave it finished."""
    project = copy_project(tmp_path_factory.mktemp("project"))
    stages = project.repro()
    project.commit()
    return project, stages


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """2 labelled and 2 pseudo-labelled images of 64x64; not to be changed."""
    return small_data(tmp_path_factory.mktemp("raw"))
