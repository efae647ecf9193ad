"""The recipes of teacher, student and supervised baseline, from lists of images to a model in models/NAME (algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from segsemi.core.classes import Classes
from segsemi.core.config import (
    AugmentParams,
    MachineParams,
    ModelParams,
    OptimParams,
    Part,
    StudentParams,
    TeacherParams,
)
from segsemi.core.errors import UserError
from segsemi.core.files import write_csv
from segsemi.core.paths import (
    CLASSES,
    CORRECTED,
    LABELLED,
    SPLIT,
    UNLABELLED,
    VAL,
    model_files,
    model_folder,
    pseudo_folder,
)
from segsemi.core.recipe import Recipe
from segsemi.core.seeds import derive_seed
from segsemi.data.batches import StepBatches, labelled_samples, pseudo_samples
from segsemi.data.images import LabelledPairs
from segsemi.data.manifest import read_rows
from segsemi.models.build import SegmentationModel, architecture_of, build_model
from segsemi.models.saving import load_description, load_model, save_model
from segsemi.runtime.distributed import start_runtime
from segsemi.training.loop import train


def supervised_recipe(name: str, teacher: TeacherParams, augment: AugmentParams, seed: int) -> Recipe:
    """Cross entropy on weakly augmented labelled images: the teacher (line 1), and the supervised baseline."""
    labelled = Part("labelled", pseudo=False, strong=False, parallel=False, images=teacher.batch_size)
    return Recipe(name=name, seed=seed, augment=augment, parts=(labelled,), **_shared(teacher))


def student_recipe(name: str, student: StudentParams, augment: AugmentParams, seed: int) -> Recipe:
    """Labelled and pseudo-labelled images with SAUG, DSBN and SCL, as far as `student` asks for them (lines 3 to 12)."""
    return Recipe(
        name=name,
        seed=seed,
        augment=augment,
        parts=tuple(student.parts),
        bn=student.bn,
        loss=student.loss,
        saug_ops=student.saug_ops,
        saug_replace=student.saug_replace,
        saug_without=tuple(student.saug_without),
        **_shared(student),
    )


def _shared(params: OptimParams) -> dict:
    return params.model_dump(include=set(OptimParams.model_fields))


def train_supervised(recipe: Recipe, model: ModelParams, root: Path, machine: MachineParams) -> None:
    """Train a new model on the labelled images and write it to models/NAME.

    Args:
        root: where the paths of the lists start.

    Raises:
        UserError: see `build_model`, `StepBatches` and `train`.
    """
    _train_and_save(
        recipe,
        lambda classes: _new_network(recipe, model, classes),
        root,
        machine,
        depends_on=([model.model_dump()], []),
    )


def train_student(
    recipe: Recipe, teacher: str, student_model: ModelParams | None, root: Path, machine: MachineParams
) -> None:
    """Train a student of `teacher` on the labels and the teacher's pseudo labels, and write it to models/NAME.

    Args:
        student_model: the student's new network (student.init: pretrained); None: the teacher's network and weights.
        root: where the paths of the lists start.

    Raises:
        UserError: see `load_model`, `build_model`, `StepBatches` and `train`.
    """
    teacher_folder = model_folder(teacher)
    network = None if student_model is None else student_model.model_dump()
    _train_and_save(
        recipe,
        lambda classes: (
            load_model(teacher_folder) if student_model is None else _new_network(recipe, student_model, classes)
        ),
        root,
        machine,
        depends_on=([network], [UNLABELLED, pseudo_folder(recipe.name), *model_files(teacher)]),
        steps_before=load_description(teacher_folder)["training"]["steps_in_all"],
    )


def _new_network(recipe: Recipe, model: ModelParams, classes: Classes) -> SegmentationModel:
    return build_model(
        architecture_of(model, recipe.augment),
        classes,
        encoder_weights=model.encoder_weights,
        seed=derive_seed(recipe.seed, recipe.name, "weights"),
    )


def _train_and_save(
    recipe: Recipe,
    new_network: Callable[[Classes], SegmentationModel],
    root: Path,
    machine: MachineParams,
    *,
    depends_on: tuple[list[Any], list[Path]],
    steps_before: int = 0,
) -> None:
    """Train and write the model, curve.csv and, after DSBN, bn.csv to models/NAME.

    Args:
        depends_on: settings and files, beside the recipe and the labelled images, that decide what is learnt.
        steps_before: optimizer steps that went into its teachers.
    """
    classes, settings, inputs = Classes.load(CLASSES), *depends_on
    labelled = labelled_samples(read_rows(LABELLED), root, read_rows(CORRECTED), SPLIT)
    learns_pseudo = any(part.pseudo for part in recipe.parts)
    pseudo = pseudo_samples(read_rows(UNLABELLED), root, pseudo_folder(recipe.name)) if learns_pseudo else []
    inputs = [LABELLED, CORRECTED, VAL, CLASSES, *inputs]
    val = LabelledPairs(read_rows(VAL), root, classes)
    if recipe.keep == "best" and not val:
        raise UserError("keep: best needs validation images, and there are none; set keep: last")
    with (
        start_runtime(machine) as runtime,
        runtime.work_folder(f"train-{recipe.name}", [recipe.model_dump(), *settings], inputs) as work,
    ):
        model = new_network(classes)
        batches = StepBatches(recipe, labelled, pseudo, classes, runtime)
        history = train(model, recipe, batches, val, runtime, work)
        if runtime.first:
            folder = model_folder(recipe.name)
            write_csv(folder / "curve.csv", ["step", "loss", "lr", "val_miou"], history.curve)
            if history.bn:
                write_csv(folder / "bn.csv", list(history.bn[0]), history.bn)
            save_model(model, folder, {"steps_in_all": steps_before + recipe.steps, "keep": recipe.keep})
