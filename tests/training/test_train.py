"""What the training stages make of params: recipes, images, networks, and the work folder in which a stopped run goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from small_training import ARCHITECTURE, chosen, scene_rows

from segsemi.core.classes import write_label_png
from segsemi.core.config import Params, load_params
from segsemi.core.errors import UserError
from segsemi.core.paths import CLASSES, SPLIT, VAL, model_files, model_folder, pseudo_folder
from segsemi.core.recipe import student_recipe, supervised_recipe
from segsemi.data.manifest import write_rows
from segsemi.datasets import scenes
from segsemi.datasets.split import write_split
from segsemi.models.build import build_model
from segsemi.models.saving import load_description, save_model
from segsemi.training.loop import History
from segsemi.training.train import train_model


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two labelled images, one with a corrected label and two with pseudo labels, and a teacher; in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    folder = Path("raw")
    rows = scene_rows(folder, 5, 2, 48, 64)
    scenes.CLASSES.save(CLASSES)
    names = [row.id for row in rows if row.subset == "train"]
    label = np.zeros((48, 64), np.uint8)
    write_label_png(Path("corrected.png"), label, scenes.CLASSES)
    corrected = {names[2]: Path("corrected.png")}
    write_split(chosen(rows, ids=names[:2], corrected=corrected, seed=0), SPLIT, corrected)
    for name in names[3:]:
        write_label_png(pseudo_folder("student_1") / f"{name}.png", label, scenes.CLASSES)
    teacher = build_model(ARCHITECTURE, scenes.CLASSES, encoder_weights="none", seed=5)
    save_model(teacher, model_folder("teacher"), {"steps_in_all": 5, "images_in_all": 40, "encoder_weights": "none"})
    return folder


def params_with(**student: object) -> Params:
    values = load_params(ROOT / "params.yaml").model_dump()
    values["model"]["encoder_weights"] = "none"
    values["student"] |= {"loss": "sce", "bn": "fixed", "saug": "both", "saug_ops": 2, "saug_replace": False}
    values["student"] |= {"saug_without": ["hsv"], "batch_labelled": 2, "batch_pseudo": 1, "steps": 6, **student}
    values["machine"] |= {"workers": 0, "precision": "bf16", "cache_mb": 100, "device": "cpu"}
    return Params.model_validate(values)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """What `train` is called with, and what the names of work folders are made of."""
    found = SimpleNamespace(folders=[])

    @contextmanager
    def work_folder(stage: str, params: Any, inputs: Any = ()) -> Iterator[Path]:
        found.folders.append((stage, params, list(inputs)))
        (tmp_path / "work").mkdir(exist_ok=True)
        yield tmp_path / "work"

    def train(model: Any, recipe: Any, batches: Any, val: Any, runtime: Any, work: Path) -> History:
        found.__dict__.update(model=model, recipe=recipe, batches=batches, val=val, runtime=runtime)
        return History([{"step": 6, "loss": 0.5, "lr": 0.1}], [{"layer": "a", "mean_shift": 2.0}])

    monkeypatch.setattr("segsemi.runtime.distributed.work_folder", work_folder)
    monkeypatch.setattr("segsemi.training.train.train", train)
    return found


def test_a_recipe_has_the_params_of_its_section() -> None:
    params = params_with(saug_share=0.25, batch_labelled=4, batch_pseudo=8)
    recipe = student_recipe("student_1", params.student, params.augment, 3)
    assert (recipe.name, recipe.seed, recipe.augment) == ("student_1", 3, params.augment)
    for key, value in params.student.model_dump().items():
        if key in type(recipe).model_fields:
            assert getattr(recipe, key) == value, key
    assert [(part.name, part.pseudo, part.strong, part.parallel, part.images) for part in recipe.parts] == [
        ("labelled", False, False, False, 3),
        ("strong labelled", False, True, True, 1),
        ("pseudo", True, False, False, 6),
        ("strong pseudo", True, True, True, 2),
    ]
    teacher = supervised_recipe("teacher", params.teacher, params.augment, 3)
    assert (teacher.loss, teacher.bn, teacher.lr) == ("ce", "trainable", params.teacher.lr)
    assert [(part.pseudo, part.strong, part.images) for part in teacher.parts] == [(False, False, 8)]


def test_student_learns_from_labels_corrections_and_pseudo_labels_with_its_teachers_weights(
    raw: Path, seen: SimpleNamespace
) -> None:
    params = params_with()
    recipe = student_recipe("student_1", params.student, params.augment, 3)
    train_model(recipe, None, "teacher", raw, params.machine)
    names = [f"train_000{index}" for index in range(5)]
    labelled, pseudo = seen.batches.samples[False], seen.batches.samples[True]
    assert [sample.id for sample in labelled] == names[:3]
    assert labelled[2].label == SPLIT / "corrected" / f"{names[2]}.png"
    assert [sample.label for sample in pseudo] == [pseudo_folder("student_1") / f"{name}.png" for name in names[3:]]
    teacher = build_model(ARCHITECTURE, scenes.CLASSES, encoder_weights="none", seed=5)
    for ours, expected in zip(seen.model.parameters(), teacher.parameters(), strict=True):
        assert ours.equal(expected)
    ((stage, settings, inputs),) = seen.folders
    assert stage == "train-student_1" and settings[0]["seed"] == 3 and settings[0]["loss"] == "sce"
    assert {*model_files("teacher"), pseudo_folder("student_1"), SPLIT / "corrected.csv"} <= set(inputs)
    assert (seen.runtime.precision, seen.runtime.cache_mb, len(seen.val)) == ("bf16", 100, 2)
    own = {"steps": 6, "images": 18, "steps_in_all": 11, "images_in_all": 58, "keep": "last"}
    own["encoder_weights"] = "none"  # its teacher's
    assert load_description(model_folder("student_1"))["training"] == own
    assert (model_folder("student_1") / "curve.csv").read_text().splitlines()[1].startswith("6,0.5")
    assert (model_folder("student_1") / "bn.csv").read_text().splitlines() == ["layer,mean_shift", "a,2.0"]


def test_student_may_predict_its_targets_itself(raw: Path, seen: SimpleNamespace) -> None:
    params = params_with(targets="ema", ema=0.9)
    train_model(student_recipe("student_1", params.student, params.augment, 3), None, "teacher", raw, params.machine)
    assert seen.recipe.targets == "ema" and [sample.label for sample in seen.batches.samples[True]] == [None] * 2
    assert pseudo_folder("student_1") not in seen.folders[0][2] and set(model_files("teacher")) <= set(
        seen.folders[0][2]
    )


def test_student_may_have_a_network_of_its_own_and_no_pseudo_labels(raw: Path, seen: SimpleNamespace) -> None:
    params = params_with(batch_pseudo=0)
    other = params.model.model_copy(update={"decoder": "FPN"})
    recipe = student_recipe("student_1", params.student, params.augment, 3)
    train_model(recipe, other, "teacher", raw, params.machine)
    assert seen.model.architecture.decoder == "FPN" and not any(part.pseudo for part in seen.recipe.parts)
    assert (
        load_description(model_folder("student_1"))["training"]["steps_in_all"] == 6
    )  # it owes nothing to the teacher


def test_teacher_learns_labels_and_corrections_and_its_seed_draws_its_weights(raw: Path, seen: SimpleNamespace) -> None:
    params, heads = params_with(), []
    for seed in (3, 4):
        recipe = supervised_recipe("teacher", params.teacher, params.augment, seed)
        train_model(recipe, params.model, None, raw, params.machine)
        heads.append([value.clone() for value in seen.model.parameters()])
    assert any(not a.equal(b) for a, b in zip(*heads, strict=True))
    assert len(seen.batches.samples[False]) == 3 and not seen.batches.samples[True]
    assert SPLIT / "corrected.csv" in seen.folders[0][2] and seen.folders[0][1] != seen.folders[1][1]


def test_best_checkpoint_needs_validation_images(raw: Path, seen: SimpleNamespace) -> None:
    params = params_with()
    write_rows(VAL, [])
    teacher = params.teacher.model_copy(update={"keep": "best"})
    with pytest.raises(UserError, match="keep: best needs validation images"):
        train_model(supervised_recipe("teacher", teacher, params.augment, 0), params.model, None, raw, params.machine)
