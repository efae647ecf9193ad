"""Training on labels alone: the teacher (paper, algorithm 1, line 1) and the baseline of equal steps."""

from __future__ import annotations

from pathlib import Path

from segsemi.core.classes import Classes
from segsemi.core.config import AugmentParams, MachineParams, ModelParams, TeacherParams
from segsemi.core.paths import CLASSES, CORRECTED, LABELLED, SPLIT, VAL
from segsemi.core.seeds import derive_seed
from segsemi.data.batches import Group, labelled_samples
from segsemi.data.manifest import read_rows
from segsemi.models.build import architecture_of, build_model
from segsemi.runtime.distributed import start_processes
from segsemi.training.loop import train_and_save


def train_on_labels(
    name: str,
    *,
    steps: int,
    seed: int,
    model: ModelParams,
    augment: AugmentParams,
    optim: TeacherParams,
    root: Path,
    machine: MachineParams,
) -> None:
    """Train a new model on the labelled images for `steps` steps and write it to models/NAME.

    Args:
        root: where the paths of the lists start.

    Raises:
        UserError: see `build_model` and `train_and_save`.
    """
    classes = Classes.load(CLASSES)
    samples = labelled_samples(read_rows(LABELLED), root, read_rows(CORRECTED), SPLIT)
    settings = [seed, model.model_dump(), augment.model_dump(), optim.model_dump(), steps]
    inputs = [LABELLED, CORRECTED, VAL, CLASSES]
    with (
        start_processes(machine.device) as processes,
        processes.work_folder(f"train-{name}", settings, inputs) as work,
    ):
        network = build_model(
            architecture_of(model, augment),
            classes,
            encoder_weights=model.encoder_weights,
            seed=derive_seed(seed, name, "weights"),
        )
        train_and_save(
            name,
            network,
            [Group("labelled", samples, optim.batch_size, classes)],
            optim,
            steps=steps,
            seed=seed,
            augment=augment,
            root=root,
            machine=machine,
            work=work,
            processes=processes,
        )
