"""The real dvc on a tiny configuration: what runs, what does not, and what comes out."""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import RAW, Project, copy_project, ran_stages
from PIL import Image
from ruamel.yaml import YAML

from segsemi.core.files import file_hash
from segsemi.data.manifest import read_rows

pytestmark = pytest.mark.pipeline

ROUND = ("pseudo_label", "pseudo_quality", "train_student", "evaluate")
STUDENTS = ("student_1", "student_2")


def stages_of(*students: str) -> set[str]:
    return {f"{stage}@{student}" for student in students for stage in ROUND}


def models(project: Project) -> dict[str, bytes]:
    names = ("teacher", *STUDENTS)
    return {name: project.bytes_of(f"models/{name}/model.safetensors") for name in names}


def test_first_run_runs_every_stage_and_writes_what_the_contract_says(finished: tuple[Project, list[str]]) -> None:
    project, stages = finished
    first = {"check_params", "prepare", "split", "show_saug", "train_teacher", "evaluate_teacher", "report"}
    assert set(stages) == first | stages_of(*STUDENTS)
    metrics = json.loads(project.bytes_of("reports/metrics.json"))
    assert list(metrics) == ["teacher", *STUDENTS]
    assert all(0 < value["miou"] < 100 for value in metrics.values())
    assert "pseudo_label_miou" in metrics["student_1"]
    unlabelled = read_rows(project.folder / "data/split/unlabelled.csv")
    assert len(unlabelled) == 6 and len({(row.height, row.width) for row in unlabelled}) == 2
    for row in unlabelled:
        with Image.open(project.folder / f"data/pseudo/student_1/{row.id}.png") as png:
            assert png.mode == "P" and png.size == (row.width, row.height)
            assert np.asarray(png).max() < 11
    summary = (project.folder / "data/pseudo/student_1/summary.csv").read_text().splitlines()
    assert len(summary) == 7 and summary[0].startswith("id,confidence,sky,")
    for name in (
        "index.html",
        "table.md",
        "saug.png",
        "per_class.csv",
        "curves.csv",
        "validation.csv",
        "confusion.csv",
    ):
        assert (project.folder / "reports" / name).stat().st_size > 0
    layers = project.bytes_of("models/student_1/bn.csv").splitlines()
    assert len(layers) > 40 and not (project.folder / "models/teacher/bn.csv").exists()
    page = project.bytes_of("reports/index.html").decode()
    assert "Batch norm statistics" in page and "checkpoints: <b>the last</b>" in page and "code: <b>git " in page
    assert project.run("git", "status", "--porcelain") == ""


def test_second_run_runs_nothing(finished: tuple[Project, list[str]]) -> None:
    assert finished[0].repro() == []


def test_a_second_clone_with_loader_workers_gets_the_same_hashes(
    finished: tuple[Project, list[str]], tmp_path: Path
) -> None:
    project, _ = finished
    other = copy_project(tmp_path / "clone")
    other.set_params({"machine": {"workers": 4}})
    ran = ran_stages(other.run("dvc", "repro", "train_student@student_1"))
    ours, theirs = (YAML(typ="safe").load(one.folder / "dvc.lock")["stages"] for one in (project, other))
    assert "train_student@student_1" in ran and len(ran) == 6
    for stage in set(ran) - {"check_params"}:
        assert theirs[stage]["outs"] == ours[stage]["outs"], stage


def test_workers_rerun_nothing(finished: tuple[Project, list[str]]) -> None:
    project, _ = finished
    project.set_params({"machine": {"workers": 2}})
    assert project.repro() == ["check_params"]
    restore(project)


def test_two_queue_workers_leave_each_other_alone(finished: tuple[Project, list[str]]) -> None:
    """Two students at the same moment in two temporary copies: each as if it had been alone."""
    project, _ = finished
    rates = {"slow": "0.02", "fast": "0.03"}
    for name, rate in rates.items():
        changes = ("-S", f"student.lr={rate}", "-S", f"data.root={project.folder / RAW}")  # copies have no data
        project.run("dvc", "exp", "run", "--queue", "--name", name, *changes, "train_student@student_1")
    project.run("dvc", "queue", "start", "--jobs", "2")
    deadline = time.monotonic() + 300
    while any(word in project.run("dvc", "queue", "status") for word in ("Queued", "Running")):
        assert time.monotonic() < deadline, project.run("dvc", "queue", "status")
        time.sleep(1)
    status = project.run("dvc", "queue", "status")
    assert status.count("Success") == 2, "\n".join(project.run("dvc", "queue", "logs", name) for name in rates)
    refs = project.run("git", "for-each-ref", "refs/exps", "--format=%(refname)").split()
    made = {}
    for name in rates:
        (ref,) = [ref for ref in refs if ref.endswith(f"/{name}")]
        lock = YAML(typ="safe").load(project.run("git", "show", f"{ref}:dvc.lock"))
        folder = lock["stages"]["train_student@student_1"]["outs"][0]["md5"]  # of the list of its files
        listed = json.loads(project.bytes_of(f".dvc/cache/files/md5/{folder[:2]}/{folder[2:]}"))
        made[name] = {file["relpath"]: file["md5"] for file in listed}["model.safetensors"]
    project.set_params({"student": {"lr": float(rates["slow"])}})
    project.run("python", "-m", "stages.train_student", "--teacher", "teacher", "--student", "student_1")
    assert file_hash(project.folder / "models/student_1/model.safetensors") == made["slow"] != made["fast"]
    restore(project)


def loss_of(project: Project) -> float:
    rows = csv.DictReader(project.bytes_of("models/student_1/curve.csv").decode().splitlines())
    return float(next(rows)["loss"])


def test_two_processes_by_launch(finished: tuple[Project, list[str]]) -> None:
    """Pseudo labels are equal to the byte, so dvc.lock is too; a student's training ends with its files in place."""
    project, _ = finished
    lock = project.bytes_of("dvc.lock")
    launched = project.folder / "launched.txt"
    script = project.folder / "launch.sh"
    script.write_text(
        f'#!/bin/sh\necho "$2" >> {launched}\n'
        f'exec {sys.executable} -m torch.distributed.run --standalone --nproc_per_node 2 "$@"\n'
    )
    launch = f"sh {script}"
    printed = project.run("dvc", "repro", "-fs", "pseudo_label@student_1", LAUNCH=launch, OMP_NUM_THREADS="1")
    assert "torch.distributed.run" not in project.bytes_of("dvc.lock").decode()
    assert printed.count("pseudo labels for student_1: 0/") == 1  # one process speaks
    assert project.bytes_of("dvc.lock") == lock
    before = loss_of(project)
    project.run("dvc", "repro", "-fs", "train_student@student_1", LAUNCH=launch, OMP_NUM_THREADS="1")
    assert project.bytes_of("models/student_1/model.safetensors")
    assert loss_of(project) == pytest.approx(
        before, rel=0.05
    )  # of two steps; the first one's is equal, see test_processes
    project.run("dvc", "repro", "-fs", "train_teacher", LAUNCH=launch, OMP_NUM_THREADS="1")
    project.set_params({"baselines": {"supervised": "student_1"}})
    project.run("dvc", "repro", "-s", "count_steps@supervised")
    printed = project.run("dvc", "repro", "-s", "train_supervised@supervised", LAUNCH=launch, OMP_NUM_THREADS="1")
    assert printed.count("supervised: 0/") == 1
    for name, steps in (("teacher", 3), ("supervised", 5)):
        description = json.loads(project.bytes_of(f"models/{name}/model.json"))
        assert description["training"]["steps_in_all"] == steps
        last = project.bytes_of(f"models/{name}/curve.csv").decode().splitlines()[-1]
        assert last.startswith(f"{steps},")
        assert project.bytes_of(f"models/{name}/model.safetensors")
    stages = ["pseudo_label", "train_student", "train_teacher", "train_supervised"]
    assert launched.read_text().split() == [f"stages.{stage}" for stage in stages]
    launched.unlink()
    script.unlink()
    restore(project)


def test_student_params_rerun_only_students_and_what_follows(finished: tuple[Project, list[str]]) -> None:
    project, _ = finished
    before = models(project)
    output = project.run("dvc", "exp", "run", "-S", "student.lr=0.1")
    expected = stages_of(*STUDENTS) - {"pseudo_label@student_1", "pseudo_quality@student_1"}
    assert set(ran_stages(output)) - {"check_params"} == expected | {"report"}
    assert models(project)["student_1"] != before["student_1"] and models(project)["teacher"] == before["teacher"]
    difference = project.run("dvc", "metrics", "diff", "--all", "HEAD")
    assert "student_2.miou" in difference and "teacher.miou" in difference
    assert "student.lr" in project.run("dvc", "params", "diff", "HEAD")
    assert len(difference.splitlines()) < 20  # a line a number
    shorter = ("--only-changed", "--drop", "(segsemi|stages|models|data)/")  # as README has it
    shown = project.run("dvc", "exp", "show", *shorter, "--csv").splitlines()[0].split(",")
    assert {"student.lr", "student_2.miou"} <= set(shown) and "student.momentum" not in shown
    assert len(shown) < 30, shown
    assert not [name for name in shown if name.startswith(("segsemi/", "stages/", "models/", "data/"))], shown
    project.run("dvc", "plots", "diff", "HEAD", "workspace", "-o", "plots")
    drawn = project.bytes_of("plots/index.html").decode()
    assert all(part in drawn for part in ("validation during training", "IoU of each class", "workspace", "HEAD"))
    restore(project)


def test_scales_of_pseudo_labelling_leave_the_teacher_alone(finished: tuple[Project, list[str]]) -> None:
    project, _ = finished
    project.set_params({"pseudo_label": {"scales": [1.0]}})
    ran = ran_stages(project.run("dvc", "repro", "train_student@student_1"))
    assert set(ran) == {"check_params", "pseudo_label@student_1", "train_student@student_1"}
    restore(project)


def test_one_round_more_one_fewer_and_the_baseline_rerun_nothing_else(finished: tuple[Project, list[str]]) -> None:
    project, _ = finished
    output = project.run(
        *("dvc", "exp", "run", "-S", "+rounds.student_3=student_2", "-S", "+baselines.supervised=student_3")
    )
    baseline = {"count_steps@supervised", "train_supervised@supervised", "evaluate_baseline@supervised"}
    assert set(ran_stages(output)) - {"check_params"} == stages_of("student_3") | baseline | {"report"}
    table = project.bytes_of("reports/table.md").decode()
    steps = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in table.splitlines()[2:]}
    assert steps == {"teacher": "3", "supervised": "9", "student_1": "5", "student_2": "7", "student_3": "9"}
    project.set_params({"rounds": {"student_4": "student_3"}})  # the baseline's number of steps stays the same
    output = project.run("dvc", "repro", "train_supervised@supervised")
    assert set(ran_stages(output)) == {"check_params", "count_steps@supervised"}
    restore(project)

    output = project.run("dvc", "exp", "run", "-S", "~rounds.student_2")
    assert set(ran_stages(output)) - {"check_params"} == {"report"}
    assert list(json.loads(project.bytes_of("reports/metrics.json"))) == ["teacher", "student_1"]
    restore(project)


def test_corrupted_hidden_labels_change_no_model(finished: tuple[Project, list[str]]) -> None:
    project, _ = finished
    before = models(project)
    quality = project.bytes_of("data/evaluated/student_1_pseudo_labels.json")
    for line in (project.folder / "data/split/hidden.csv").read_text().splitlines()[1:]:
        label = project.folder / RAW / line.split(",")[1]
        with Image.open(label) as image:
            wrong = (10 - np.minimum(np.asarray(image), 10)).astype(np.uint8)
        Image.fromarray(wrong).save(label)
    measured = {"pseudo_quality@student_1", "pseudo_quality@student_2"}
    assert set(project.repro()) == {"prepare", "split", "report"} | measured
    assert project.bytes_of("data/evaluated/student_1_pseudo_labels.json") != quality
    for student, teacher in (("student_1", "teacher"), ("student_2", "student_1")):  # not only cached: made again
        command = ("--teacher", teacher, "--student", student)
        for stage in ("pseudo_label", "train_student"):
            project.run("python", "-m", f"stages.{stage}", *command)
    project.run("python", "-m", "stages.train_teacher")
    assert models(project) == before


def test_student_may_be_another_network(finished: tuple[Project, list[str]]) -> None:
    project, _ = finished
    project.set_params({"student": {"init": "pretrained"}, "student_model": {"decoder": "FPN", "output_stride": 32}})
    project.run("dvc", "repro", "evaluate@student_1")
    description = json.loads(project.bytes_of("models/student_1/model.json"))
    assert description["architecture"]["decoder"] == "FPN"
    restore(project)


def test_all_labels_and_no_round_is_plain_supervised_training(finished: tuple[Project, list[str]]) -> None:
    project, _ = finished
    output = project.run(
        *("dvc", "exp", "run", "-S", "split.fraction=1", "-S", "~rounds.student_1", "-S", "~rounds.student_2")
    )
    expected = {"check_params", "split", "show_saug", "train_teacher", "evaluate_teacher", "report"}
    assert set(ran_stages(output)) <= expected and "train_teacher" in ran_stages(output)
    assert list(json.loads(project.bytes_of("reports/metrics.json"))) == ["teacher"]
    restore(project)


def test_wrong_params_stop_the_first_stage_with_one_clear_line(finished: tuple[Project, list[str]]) -> None:
    """As dvc passes it on; test_bad_input.py has all the cases."""
    project, _ = finished
    for change, message in (
        ({"student": {"sagu": "none"}}, "student.sagu: unknown key; did you mean saug?"),
        ({"data": {"root": "data/raw/nowhere"}}, "data/raw/nowhere"),
    ):
        project.set_params(change)
        output = project.run("dvc", "repro", check=False)
        assert message in output and "Traceback" not in output
        project.run("git", "checkout", "-q", "params.yaml")
    restore(project)


def restore(project: Project) -> None:
    """Back to the committed state; dvc takes the outputs from its cache."""
    project.run("git", "checkout", "-q", ".")
    project.run("dvc", "checkout")
    assert set(project.repro()) <= {
        "check_params",
        "report",
    }  # the folder of a dropped round stays and changes report's deps
