"""What the training stages hand on: lists, params, seeds and the name of the folder in which a stopped run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segsemi.training.student
import segsemi.training.supervised
from conftest import ROOT
from segsemi.training.student import train_student
from segsemi.training.supervised import train_on_labels

import segsemi.training.loop
from segsemi.core.classes import write_label_png
from segsemi.core.config import Params, load_params
from segsemi.core.files import write_json
from segsemi.core.paths import CLASSES, SPLIT, model_files, model_folder, pseudo_folder
from segsemi.datasets import check_entries, scenes
from segsemi.datasets.camvid import find_camvid
from segsemi.datasets.scenes import CLASSES as SCENES
from segsemi.datasets.split import split_rows, write_split
from segsemi.models.build import Architecture, build_model
from segsemi.models.saving import load_description, save_model
from segsemi.training.loop import History

NETWORK = Architecture("DeepLabV3Plus", "tf_efficientnet_lite0", 16)


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two labelled images, one with a mended label and two with pseudo labels, a teacher; in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    folder = Path("raw")
    scenes.write(folder, train=5, val=2, height=48, width=64, seed=0)
    rows = check_entries(folder, find_camvid(folder).entries, SCENES, warn=lambda _: None)
    write_json(CLASSES, SCENES.to_dict())
    names = [row.id for row in rows if row.subset == "train"]
    label = np.zeros((48, 64), np.uint8)
    write_label_png(Path("mended.png"), label, SCENES)
    mended = {names[2]: Path("mended.png")}
    write_split(split_rows(rows, ids=names[:2], corrected=mended, seed=0), SPLIT, mended)
    for name in names[3:]:
        write_label_png(pseudo_folder("student_1") / f"{name}.png", label, SCENES)
    save_model(
        build_model(NETWORK, SCENES, encoder_weights="none", seed=5), model_folder("teacher"), {"steps_in_all": 5}
    )
    return folder


@pytest.fixture
def params() -> Params:
    values = load_params(ROOT / "params.yaml").model_dump()
    values["model"]["encoder_weights"] = "none"
    values["student"] |= {"loss": "sce", "bn": "fixed", "saug": "both", "saug_ops": 2, "saug_replace": False}
    values["student"] |= {"saug_without": ["hsv"], "batch_labelled": 2, "batch_pseudo": 1, "steps": 6}
    values["machine"] |= {"workers": 0, "precision": "bf16", "cache_mb": 100, "compile": True, "device": "cpu"}
    return Params.model_validate(values)


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, Any, list[Path]]]:
    """What the names of work folders are made of."""
    seen = []

    @contextmanager
    def work_folder(stage: str, params: Any, inputs: Any = ()) -> Iterator[Path]:
        seen.append((stage, params, list(inputs)))
        yield tmp_path / "work"

    monkeypatch.setattr("segsemi.runtime.distributed.work_folder", work_folder)
    return seen


def handed_on(monkeypatch: pytest.MonkeyPatch, module: Any) -> dict[str, Any]:
    """What `module` gives to train_and_save, by the names of its arguments."""
    seen: dict[str, Any] = {}

    def record(name: str, network: Any, groups: Any, params: Any, **options: Any) -> None:
        seen.update(name=name, network=network, groups=groups, params=params, **options)

    monkeypatch.setattr(module, "train_and_save", record)
    return seen


def train_the_student(raw: Path, params: Params, seed: int) -> None:
    options = {"params": params.student, "own_model": params.student_model, "augment": params.augment}
    train_student("student_1", "teacher", seed=seed, **options, root=raw, machine=params.machine)


def train_the_teacher(raw: Path, params: Params, seed: int) -> None:
    options = {"model": params.model, "augment": params.augment, "optim": params.teacher}
    train_on_labels("teacher", steps=7, seed=seed, **options, root=raw, machine=params.machine)


def test_student_learns_what_params_say(
    raw: Path, params: Params, folders: list[tuple[str, Any, list[Path]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = handed_on(monkeypatch, segsemi.training.student)
    train_the_student(raw, params, seed=3)
    assert (seen["pseudo_loss"], seen["bn"], seen["seed"], seen["steps"]) == ("sce", "fixed", 3, 6)
    assert seen["steps_before"] == 5
    labelled, pseudo = seen["groups"]
    names = [f"train_000{index}" for index in range(5)]
    assert [sample.id for sample in labelled.samples] == names[:3]
    assert labelled.samples[2].label == SPLIT / "corrected" / f"{names[2]}.png"
    assert [sample.label for sample in pseudo.samples] == [
        pseudo_folder("student_1") / f"{name}.png" for name in names[3:]
    ]
    for group in (labelled, pseudo):
        assert (group.strong_ops, group.replace, list(group.without)) == (2, False, ["hsv"])
    teacher = build_model(NETWORK, SCENES, encoder_weights="none", seed=5)
    for ours, expected in zip(seen["network"].parameters(), teacher.parameters(), strict=True):
        assert ours.equal(expected)
    (stage, settings, inputs), *_ = folders
    assert stage == "train-student_1" and settings[0] == 3 and settings[1]["loss"] == "sce"
    assert {*model_files("teacher"), pseudo_folder("student_1"), SPLIT / "corrected.csv"} <= set(inputs)


def test_teacher_learns_weak_and_mended_labels_and_its_seed_draws_its_weights(
    raw: Path, params: Params, folders: list[tuple[str, Any, list[Path]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = handed_on(monkeypatch, segsemi.training.supervised)
    heads = []
    for seed in (3, 4):
        train_the_teacher(raw, params, seed)
        heads.append([value.clone() for value in seen["network"].parameters()])
        assert seen["seed"] == folders[-1][1][0] == seed
    assert any(not a.equal(b) for a, b in zip(*heads, strict=True))
    (group,) = seen["groups"]
    assert group.strong_ops == 0 and not group.pseudo and len(group.samples) == 3
    assert group.samples[2].label.is_relative_to(SPLIT / "corrected")
    assert seen["steps"] == 7 and folders[0][1][-1] == 7 and SPLIT / "corrected.csv" in folders[0][2]


def test_the_machines_params_and_val_reach_the_loop(
    raw: Path, params: Params, folders: list[tuple[str, Any, list[Path]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def train(network: Any, batches: Any, optim: Any, **options: Any) -> History:
        seen.update(batches=batches, optim=optim, **options)
        return History([{"step": 6, "loss": 0.5, "lr": 0.1}], [])

    monkeypatch.setattr(segsemi.training.loop, "train", train)
    values = params.model_dump()
    values["student"] |= {"batch_labelled": 4, "batch_pseudo": 2, "accumulate": 2}
    values["machine"]["workers"] = 3
    train_the_student(raw, Params.model_validate(values), seed=3)
    assert (seen["precision"], seen["compiled"], seen["workers"], len(seen["val"])) == ("bf16", True, 3, 2)
    batches = seen["batches"]
    assert (batches.pieces, batches.seed, batches.stage) == (2, 3, "student_1")
    assert batches._cache_left == 33 * 2**20  # each of three loader processes has its own
    assert load_description(model_folder("student_1"))["training"] == {"steps_in_all": 11, "keep": "last"}
    assert (model_folder("student_1") / "curve.csv").read_text().splitlines()[1].startswith("6,0.5")
