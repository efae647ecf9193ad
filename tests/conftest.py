"""Tiny copies of the project in which the real dvc runs, and images for a small training."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: test workers share the cores

import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from dvc.repo import Repo
from filelock import FileLock
from networkx import ancestors, topological_sort
from PIL import Image
from ruamel.yaml import YAML
from small_training import Data, small_data

from segsemi.datasets import scenes
from segsemi.models.torchvision_ops import import_torchvision

torch.set_num_threads(1)
import_torchvision()  # before test modules import timm or smp

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


@dataclass
class Project:
    """A copy of the working tree in a folder of its own, as a git repository; its stages start `python`."""

    folder: Path
    python: Path = Path(sys.executable)

    def run(self, *command: str, check: bool = True, **variables: str) -> str:
        """Run a command in the project and return what it prints; `python`, `dvc` and `git commit` work there."""
        path = (str(self.python.parent), str(Path(sys.executable).parent), os.environ["PATH"])
        git = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        environment = {**os.environ, **git, **variables, "PATH": os.pathsep.join(path)}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def repro(self, *arguments: str) -> list[str]:
        """Run `dvc repro` and return the names of the stages that ran."""
        return ran_stages(self.run("dvc", "repro", *arguments))

    def set_params(self, changes: dict[str, dict[str, object]]) -> None:
        yaml, path = YAML(), self.folder / "params.yaml"
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
    listed = Project(ROOT).run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in listed.split("\0"):
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


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], str | None]) -> tuple[Path, str]:
    """Return a folder that `make` filled, and what it returned; the test workers share both, so no test may change them."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # that of all workers
    folder, output = base / name, base / f"{name}.txt"
    with FileLock(base / f"{name}.lock"):
        if not output.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker in which it failed
            output.write_text(make(folder) or "")
    return folder, output.read_text()


def run_stages(project: Project, *targets: str) -> None:
    """Run the commands of dvc.yaml, all or those up to the `targets`, in this process, which has torch already, and commit.

    What dvc itself does with the stages is tested with its own processes (test_reruns.py, test_tutorial.py).
    """
    with pytest.MonkeyPatch.context() as patch, Repo(project.folder) as repo:
        patch.chdir(project.folder)
        patch.setenv("DVC_ROOT", str(project.folder))
        graph = repo.index.graph.reverse()  # from what is read to what is written
        ends = [stage for stage in graph if not targets or stage.name in targets]
        wanted = set(ends).union(*(ancestors(graph, stage) for stage in ends))
        for stage in topological_sort(graph.subgraph(wanted)):
            module, *arguments = stage.cmd.partition(" -m ")[2].split()
            patch.setattr(sys, "argv", [module, *arguments])
            for out in stage.outs:
                out.remove(ignore_remove=True)
            importlib.import_module(module).main()
        repo.commit(force=True)


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the whole tiny pipeline ran."""

    def make(folder: Path) -> None:
        run_stages(project := copy_project(folder))
        project.commit()

    return made_once(tmp_path_factory, "first_run", make)[0]


@pytest.fixture
def finished(first_run: Path, tmp_path: Path) -> Project:
    """The test's own copy of the project in which the whole tiny pipeline ran."""
    return Project(shutil.copytree(first_run, tmp_path / "project", symlinks=True))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """2 labelled and 2 pseudo-labelled images of 64x64; not to be changed."""
    return small_data(tmp_path_factory.mktemp("raw"))
