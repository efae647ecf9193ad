"""The real dvc runs the real stages on tiny images: what comes out, alone, side by side and in two processes."""

import json
import re
import sys
import time
from typing import Any

import numpy as np
import pytest
from conftest import RAW, Project, ran_stages, run_stages
from PIL import Image
from ruamel.yaml import YAML

from segsemi.data.manifest import read_rows

pytestmark = pytest.mark.pipeline

MODELS = ("teacher", "student_1", "student_2")


def locked(project: Project, experiment: str = "") -> dict[str, dict[str, str]]:
    """Return the hash of each output of each stage: of dvc.lock, or of an experiment's."""
    text = project.bytes_of("dvc.lock").decode()
    if experiment:
        (ref,) = project.run("git", "for-each-ref", f"refs/exps/**/{experiment}", "--format=%(refname)").split()
        text = project.run("git", "show", f"{ref}:dvc.lock")
    stages = YAML(typ="safe").load(text)["stages"]
    return {name: {out["path"]: out["md5"] for out in stage["outs"]} for name, stage in stages.items()}


def cached(project: Project, name: str) -> Any:
    """Return what a JSON file in dvc's cache says."""
    return json.loads(project.bytes_of(f".dvc/cache/files/md5/{name[:2]}/{name[2:]}"))


def test_every_stage_writes_what_the_contract_says(finished: Project) -> None:
    metrics = json.loads(finished.bytes_of("reports/metrics.json"))
    assert metrics.pop("final") == {"model": "student_2", "miou": metrics["student_2"]["miou"]}
    assert tuple(metrics) == MODELS
    assert all(0 < value["miou"] < 100 for value in metrics.values())
    assert "pseudo_label_miou" in metrics["student_1"]
    unlabelled = read_rows(finished.folder / "data/split/unlabelled.csv")
    assert len(unlabelled) == 6 and len({(row.height, row.width) for row in unlabelled}) == 2
    for row in unlabelled:
        with Image.open(finished.folder / f"data/pseudo/student_1/{row.id}.png") as png:
            assert png.mode == "P" and png.size == (row.width, row.height)
            assert np.asarray(png).max() < 11
    summary = finished.bytes_of("data/pseudo/student_1/summary.csv").decode().splitlines()
    assert len(summary) == 7 and summary[0].startswith("id,confidence,sky,")
    written = ["index.html", "table.md", "saug.png", "per_class.csv", "curves.csv", "validation.csv", "confusion.csv"]
    assert all(finished.bytes_of(f"reports/{name}") for name in written)
    layers = finished.bytes_of("models/student_1/bn.csv").splitlines()
    assert len(layers) > 40 and not (finished.folder / "models/teacher/bn.csv").exists()
    page = finished.bytes_of("reports/index.html").decode()
    assert "Batch norm statistics" in page and "checkpoints: <b>the last</b>" in page and "code: <b>git " in page
    assert finished.run("git", "status", "--porcelain") == ""
    assert finished.repro() == []


def test_hidden_labels_and_loader_workers_change_no_model(finished: Project) -> None:
    """All that comes before the first student is made again, with wrong hidden labels; their only trace is the quality."""
    for line in finished.bytes_of("data/split/hidden.csv").decode().splitlines()[1:]:
        label = finished.folder / RAW / line.split(",")[1]
        with Image.open(label) as image:
            wrong = (10 - np.minimum(np.asarray(image), 10)).astype(np.uint8)
        Image.fromarray(wrong).save(label)
    finished.set_params({"machine": {"workers": 2}})
    before = locked(finished)
    run_stages(finished, "train_student@student_1", "pseudo_quality@student_1")
    after = locked(finished)
    same = {"train_teacher", "pseudo_label@student_1", "train_student@student_1"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert after["pseudo_quality@student_1"] != before["pseudo_quality@student_1"]


def test_the_report_says_what_online_methods_learnt(finished: Project) -> None:
    """A comparison method, and students that predict their own targets: nobody learnt the stored pseudo labels."""
    students = {"targets": "ema", "ema": 0.9, "strong": "colour"}
    finished.set_params({"student": students, "baselines": {"unimatch": "student_1"}})
    before = finished.bytes_of("reports/saug.png")
    run_stages(finished, "report")
    page = finished.bytes_of("reports/index.html").decode()
    losses = ("cross entropy on labels", "cross entropy on labels + scl on predictions")
    losses += ("cross entropy on labels + ce on predictions",)
    assert re.findall("<h3>Training loss: (.*?)</h3>", page) == list(losses)
    assert "from which student_2 learnt" not in page and "Collapse" not in page and "against unimatch" in page
    metrics = json.loads(finished.bytes_of("reports/metrics.json"))
    assert list(metrics) == ["final", *MODELS, "unimatch"] and "pseudo_label_miou" not in metrics["student_1"]
    assert finished.bytes_of("reports/saug.png") != before


def test_two_queue_workers_leave_each_other_alone(finished: Project) -> None:
    """In two temporary copies, one of them with another network: the student is the committed one, as if it were alone."""
    student = "train_student@student_1"
    network = ("student_model.decoder=FPN", "student_model.output_stride=32", "student.init=pretrained")
    queued = {"same": (), "other": network}  # the copies have no data: data.root is that of the repository
    for name, changes in queued.items():
        options = [word for change in changes for word in ("-S", change)]
        finished.run("dvc", "exp", "run", "--queue", "--name", name, *options, "--single-item", "--force", student)
    finished.run("dvc", "queue", "start", "--jobs", "2")
    deadline = time.monotonic() + 300
    while any(word in (status := finished.run("dvc", "queue", "status")) for word in ("Queued", "Running")):
        assert time.monotonic() < deadline, status
        time.sleep(5)
    assert status.count("Success") == 2, "\n".join(finished.run("dvc", "queue", "logs", name) for name in queued)
    assert locked(finished, "same")[student] == locked(finished)[student]
    folder = cached(finished, locked(finished, "other")[student]["models/student_1"])
    (description,) = [file["md5"] for file in folder if file["relpath"] == "model.json"]
    assert cached(finished, description)["architecture"]["decoder"] == "FPN"


def test_two_processes_by_launch(finished: Project) -> None:
    """Pseudo labels are equal to the byte; a training ends with its files in place."""
    finished.set_params({"student": {"batch_labelled": 4, "batch_pseudo": 4}})  # batch norm: two of a kind per process
    pseudo_label, before = "pseudo_label@student_1", locked(finished)
    launch = f"{sys.executable} -m torch.distributed.run --standalone --nproc_per_node 2"
    stages = ("--force", "--single-item", pseudo_label, "train_student@student_1")
    output = finished.run("dvc", "repro", *stages, LAUNCH=launch)
    assert re.findall(r"(pseudo labels for |)student_1: 0/", output) == ["pseudo labels for ", ""]  # one process speaks
    assert locked(finished)[pseudo_label] == before[pseudo_label]
    description = json.loads(finished.bytes_of("models/student_1/model.json"))
    assert description["training"]["steps_in_all"] == 5
    assert len(finished.bytes_of("models/student_1/curve.csv").splitlines()) == 2  # of one validation


def test_dvc_compares_an_experiment_of_one_round_fewer_with_the_commit(finished: Project) -> None:
    output = finished.run("dvc", "exp", "run", "-S", "~rounds.student_2")
    assert set(ran_stages(output)) == {"check_params", "split", "report"}
    assert list(json.loads(finished.bytes_of("reports/metrics.json"))) == ["final", "teacher", "student_1"]
    difference = finished.run("dvc", "metrics", "diff", "--all", "HEAD")
    assert "student_2.miou" in difference and "teacher.miou" in difference
    assert len(difference.splitlines()) < 20  # one line per number
    shorter = (
        "--only-changed",
        "--drop",
        ".*/|models$|Created|(?!final).*(miou|dice|racy|ece)",
    )  # as README has it
    shown = finished.run("dvc", "exp", "show", *shorter, "--csv").splitlines()[0].split(",")
    assert {"rounds.student_2", "final.miou", "final.model"} <= set(shown) and "student.momentum" not in shown
    assert len(shown) < 12, shown
    finished.run("dvc", "plots", "diff", "HEAD", "workspace", "-o", "plots")
    drawn = finished.bytes_of("plots/index.html").decode()
    assert all(f"<p>reports/{name}" in drawn for name in ("examples", "pseudo_labels", "saug.png"))
    assert all(part in drawn for part in ("validation during training", "IoU of each class", "workspace", "HEAD"))
