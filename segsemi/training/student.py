"""Training a student on labels and pseudo labels: SAUG, DSBN and SCL together (paper, algorithm 1, lines 3 to 12)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segsemi.core.classes import Classes
from segsemi.core.config import AugmentParams, MachineParams, ModelParams, StudentParams
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
from segsemi.core.seeds import derive_seed
from segsemi.data.batches import Group, Sample, labelled_samples, pseudo_samples
from segsemi.data.manifest import read_rows
from segsemi.models.build import architecture_of, build_model
from segsemi.models.saving import load_description, load_model
from segsemi.runtime.distributed import start_processes
from segsemi.training.loop import train_and_save


def train_student(
    name: str,
    teacher: str,
    *,
    seed: int,
    params: StudentParams,
    own_model: ModelParams,
    augment: AugmentParams,
    root: Path,
    machine: MachineParams,
) -> None:
    """Train student `name` of `teacher` on the labels and the teacher's pseudo labels; write it to models/NAME.

    Args:
        root: where the paths of the lists start.
        own_model: the student's network where params.init is `pretrained`; with `teacher` it is the teacher's.

    Raises:
        UserError: see `load_model`, `build_model` and `train_and_save`.
    """
    classes = Classes.load(CLASSES)
    teacher_folder, pseudo = model_folder(teacher), pseudo_folder(name)
    labelled = labelled_samples(read_rows(LABELLED), root, read_rows(CORRECTED), SPLIT)
    groups = student_groups(params, labelled, pseudo_samples(read_rows(UNLABELLED), root, pseudo), classes)
    settings = [seed, params.model_dump(), own_model.model_dump(), augment.model_dump()]
    inputs = [LABELLED, CORRECTED, VAL, UNLABELLED, CLASSES, *model_files(teacher), pseudo]
    with (
        start_processes(machine.device) as processes,
        processes.work_folder(f"train-{name}", settings, inputs) as work,
    ):
        if params.init == "teacher":
            network = load_model(teacher_folder)
        else:
            network = build_model(
                architecture_of(own_model, augment),
                classes,
                encoder_weights=own_model.encoder_weights,
                seed=derive_seed(seed, name, "weights"),
            )
        train_and_save(
            name,
            network,
            groups,
            params,
            steps=params.steps,
            steps_before=load_description(teacher_folder)["training"]["steps_in_all"],
            seed=seed,
            augment=augment,
            pseudo_loss=params.loss,
            bn=params.bn,
            root=root,
            machine=machine,
            work=work,
            processes=processes,
        )


def student_groups(
    params: StudentParams, labelled: Sequence[Sample], pseudo: Sequence[Sample], classes: Classes
) -> list[Group]:
    """The groups of images of which a student's batches consist, as `params.parts` says."""
    return [
        Group(
            part.name,
            pseudo if part.pseudo else labelled,
            part.images,
            classes,
            pseudo=part.pseudo,
            parallel=part.parallel,
            strong_ops=params.saug_ops if part.strong else 0,
            replace=params.saug_replace,
            without=params.saug_without,
        )
        for part in params.parts
    ]
