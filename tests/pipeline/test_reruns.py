"""The real dvc on stages that write fixed outputs: what reruns after which edit."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from conftest import RAW, ROOT, Project, copy_project, made_once, ran_stages
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides
from networkx import descendants

pytestmark = pytest.mark.pipeline

ROUND = ("pseudo_label", "pseudo_quality", "train_student", "evaluate")
ROUNDS = {f"{stage}@{student}" for stage in ROUND for student in ("student_1", "student_2")}
WITHOUT_ROUNDS = {"show_saug", "train_teacher", "evaluate_teacher", "report"}
STUDENTS = {"train_student@student_1", "train_student@student_2"}


def launcher(folder: Path, program: Path) -> str:
    """Return a LAUNCH that names each stage that it starts."""
    script = folder / "launch.sh"
    script.write_text(f'echo "launched $2"\nexec {program} "$@"\n')
    return f"sh {script}"


def launched(output: str) -> set[str]:
    return set(re.findall(r"launched stages\.(\w+)", output))


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("stub") / "python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/pipeline/stub.py "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture(scope="session")
def stubbed(stub: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a project in which every stage ran, most of them as stubs, and what dvc printed."""

    def make(folder: Path) -> str:
        project = Project(copy_project(folder).folder, stub)
        output = project.run("dvc", "repro", LAUNCH=launcher(stub.parent, stub))
        project.commit()
        return output

    return made_once(tmp_path_factory, "stubbed", make)


@pytest.fixture
def project(stubbed: tuple[Path, str], stub: Path, tmp_path: Path) -> Project:
    """The test's own copy."""
    return Project(shutil.copytree(stubbed[0], tmp_path / "project"), stub)


def stages_to_run(folder: Path, *, following: bool) -> set[str]:
    """Return the stages of which dvc sees a change and, if asked for, those that use what they write."""
    with Repo(folder) as repo:
        changed = {name.rpartition(":")[2] for name in repo.status()}
        users = repo.index.graph.reverse()
        starts = [stage for stage in users if stage.name in changed - {"check_params"}]  # which writes a constant
        after = {stage.name for start in starts for stage in descendants(users, start)}
    return changed | after if following else changed


@pytest.mark.parametrize(
    ("edited", "expected"),
    [
        ("segsemi/datasets", {"prepare", "split"}),
        ("segsemi/augment", {"show_saug", "train_teacher", *STUDENTS}),
        ("segsemi/losses.py", {"train_teacher", *STUDENTS}),
        ("segsemi/reporting", {"report"}),
        ("segsemi/commands", set()),
    ],
)
def test_an_edit_of_code_reruns_the_stages_that_use_it(project: Project, edited: str, expected: set[str]) -> None:
    path = project.folder / edited
    file = max(path.glob("*.py")) if path.is_dir() else path
    file.write_text(f"{file.read_text()}\n# edited\n")
    assert stages_to_run(project.folder, following=False) == expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["machine.workers=2"], set()),
        (["pseudo_label.scales=[1.0]"], ROUNDS | {"report"}),
        (["student.lr=0.1"], ROUNDS - {"pseudo_label@student_1", "pseudo_quality@student_1"} | {"report"}),
        (["split.fraction=1", "~rounds.student_1", "~rounds.student_2"], {"split", *WITHOUT_ROUNDS}),
    ],
)
def test_an_edit_of_params_reruns_the_stages_that_read_them_and_what_follows(
    project: Project, overrides: list[str], expected: set[str]
) -> None:
    apply_overrides(project.folder / "params.yaml", overrides)
    assert stages_to_run(project.folder, following=True) == {"check_params", *expected}


def test_one_round_more_and_the_baseline_rerun_nothing_else(project: Project, stub: Path, tmp_path: Path) -> None:
    changes = ["+rounds.student_3=student_2", "+baselines.supervised=student_3"]
    apply_overrides(project.folder / "params.yaml", changes)
    output = project.run("dvc", "repro", LAUNCH=launcher(tmp_path, stub))
    baseline = {"plan_baseline@supervised", "train_baseline@supervised", "evaluate_baseline@supervised"}
    third = {f"{stage}@student_3" for stage in ROUND}
    assert set(ran_stages(output)) == {"check_params", "split", *third, *baseline, "report"}
    assert launched(output) == {"pseudo_label", "train_student", "train_baseline"}
    recipe = json.loads(project.bytes_of("data/recipes/supervised.json"))
    assert recipe["steps"] == 15  # of 2 images: the teacher has 3, and each student 2 of 4 images
    project.set_params({"rounds": {"student_4": "student_3"}})  # the baseline's number of steps stays the same
    assert set(project.repro("train_baseline@supervised")) == {"check_params", "split", "plan_baseline@supervised"}


def test_the_first_run_runs_every_stage_and_launch_the_long_ones(stubbed: tuple[Path, str]) -> None:
    """LAUNCH leaves no trace."""
    folder, output = stubbed
    assert set(ran_stages(output)) == {"check_params", "prepare", "split", *WITHOUT_ROUNDS, *ROUNDS}
    assert launched(output) == {"train_teacher", "pseudo_label", "train_student"}
    assert "launch" not in (folder / "dvc.lock").read_text()


def test_a_colleague_pulls_a_run_and_its_data_and_nothing_reruns(project: Project, tmp_path: Path) -> None:
    project.run("dvc", "add", RAW)
    project.run("dvc", "remote", "add", "--default", "shared", str(tmp_path / "remote"))
    project.commit()
    project.run("dvc", "push")
    project.run("git", "clone", "-q", ".", str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone", project.python)
    clone.run("dvc", "pull")
    assert clone.repro() == [] and len(list((clone.folder / RAW / "train").iterdir())) == 12
    # in a copy of what git and dvc track, prepare finds the data
    output = clone.run("dvc", "exp", "run", "--temp", "-S", "data.skip_broken=true", "--single-item", "prepare")
    assert ran_stages(output) == ["prepare"] and "15 images" in output


def test_wrong_params_stop_the_first_stage_with_one_line(project: Project) -> None:
    """As dvc passes it on; test_bad_input.py has all the cases."""
    project.set_params({"student": {"sagu": "none"}})
    output = project.run("dvc", "repro", check=False)
    assert "student.sagu: unknown key; did you mean saug?" in output and "Traceback" not in output
